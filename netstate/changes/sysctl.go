package changes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
)

// sysctlRoot is where the kernel's settings are.
const sysctlRoot = "/proc/sys"

// ownRef opens the own namespace.
const ownRef = "/proc/self/ns/net"

// pollEvery is how often all sysctls are read again.
const pollEvery = time.Second

// sysctls watches the settings in /proc/sys as some namespaces have them: by fanotify(7), which tells of every write through
// this procfs and whose it was, and by reading all of them once a second, because the kernel sets some by itself and others
// write through other mounts.
type sysctls struct {
	match  func(name string) bool
	mu     sync.Mutex // of what is known: a value is read and noted at one go
	spaces []*settings
	fan    *os.File // nil where fanotify cannot be had
	note   string
}

// settings are those of one namespace. Only the own one has those that are not of the network.
type settings struct {
	ns    netstate.Namespace
	ref   string // how it can be opened
	known map[string]string
}

// openSysctls reads the settings of namespaces by their refs.
func openSysctls(match func(string) bool, places []place) (*sysctls, error) {
	s := &sysctls{match: match}
	if match == nil {
		s.match = func(string) bool { return true }
	}
	for _, p := range places {
		ns, err := netns.Open(p.ref)
		if err != nil {
			return nil, err
		}
		one := &settings{ns: netstate.Namespace{Name: p.name}, ref: p.ref}
		one.ns.Inode, err = inode(ns)
		ns.Close()
		if err != nil {
			return nil, err
		}
		one.ns.Name = nameOf(p.name, one.ns.Inode)
		if one.known, err = s.read(one); err != nil {
			return nil, fmt.Errorf("read sysctls: %w", err)
		}
		if len(one.known) == 0 {
			return nil, fmt.Errorf("read sysctls: none in %s matches", sysctlRoot)
		}
		s.spaces = append(s.spaces, one)
	}
	var err error
	if s.fan, err = fanotify("/proc"); err != nil {
		s.note = fmt.Sprintf("sysctls are read once a second (fanotify: %v)", err)
	} else {
		s.note = "sysctls by fanotify and by reading them once a second"
	}
	return s, nil
}

// fanotify listens to writes to all files of the file system that path is on (Linux 4.20).
func fanotify(path string) (*os.File, error) {
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err != nil {
		return nil, err
	}
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_MODIFY, unix.AT_FDCWD, path); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "fanotify"), nil
}

func (s *sysctls) close() {
	if s.fan != nil {
		s.fan.Close()
	}
}

// sysctlName gives the name of a setting by its path, as sysctl(8) has it: a dot in a part becomes a slash.
func sysctlName(path string) (string, bool) {
	rel, ok := strings.CutPrefix(path, sysctlRoot+"/")
	if !ok || rel == "" {
		return "", false
	}
	return strings.NewReplacer("/", ".", ".", "/").Replace(rel), true
}

// maxSetting bounds what is read of one setting.
const maxSetting = 16 << 10

// readSetting reads a setting; ok is false for what cannot be read, such as switches.
func readSetting(f *os.File) (string, bool) {
	b := make([]byte, maxSetting)
	n, err := f.ReadAt(b, 0)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return "", false
	}
	return string(bytes.TrimRight(b[:n], "\n")), true
}

// within runs f where a namespace's settings are: /proc/sys/net shows those of the thread that looks.
func (one *settings) within(f func() error) error {
	if one.ref == ownRef {
		return f()
	}
	ns, err := netns.Open(one.ref)
	if err != nil {
		return err
	}
	defer ns.Close()
	if ino, err := inode(ns); err != nil || ino != one.ns.Inode {
		return fs.ErrNotExist // the ref leads to another by now
	}
	return ns.Do(f)
}

// read reads all settings of interest.
func (s *sysctls) read(one *settings) (map[string]string, error) {
	out := map[string]string{}
	root := sysctlRoot
	if one.ref != ownRef {
		root += "/net"
	}
	err := one.within(func() error {
		return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if path == sysctlRoot+"/fs/binfmt_misc" { // looking into it mounts it
				return fs.SkipDir
			}
			if err != nil || d.IsDir() { // entries of a link go with it
				return nil
			}
			name, _ := sysctlName(path)
			if !s.match(name) || restless(name) {
				return nil
			}
			if v, ok := readFile(path); ok {
				out[name] = v
			}
			return nil
		})
	})
	return out, err
}

func readFile(path string) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	return readSetting(f)
}

// restless are entries that are no settings: what they say changes by itself.
func restless(name string) bool {
	switch name {
	case "fs.dentry-state", "fs.inode-nr", "fs.inode-state", "fs.file-nr", "fs.aio-nr", "fs.quota.syncs", "kernel.ns_last_pid", "kernel.pty.nr",
		"kernel.random.uuid", "kernel.random.entropy_avail", "kernel.tainted":
		return true
	}
	return strings.HasPrefix(name, "fs.quota.") || strings.HasSuffix(name, "nf_conntrack_count") || strings.HasSuffix(name, "route.gc_elapsed")
}

// poll reads all settings now and then. Those that come and go with a link are not told: the link is.
func (s *sysctls) poll(done <-chan struct{}, send func(*Change)) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
		}
		for _, one := range s.spaces {
			if !s.differs(one) {
				continue
			}
			select { // fanotify knows more of it: let it be first
			case <-done:
				return nil
			case <-time.After(2 * settle):
			}
			s.mu.Lock()
			s.reread(one, send, Polled, nil)
			s.mu.Unlock()
		}
	}
}

// differs says if anything is not as it is known.
func (s *sysctls) differs(one *settings) bool {
	now, err := s.read(one)
	if err != nil {
		return false // it is gone
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, v := range now {
		if old, ok := one.known[name]; !ok || old != v {
			return true
		}
	}
	return false
}

// noted takes a value in, with the lock held, and gives the change, nil if it is as it was or was not known.
func (one *settings) noted(name, value string) *Change {
	old, known := one.known[name]
	one.known[name] = value
	if !known || old == value {
		return nil
	}
	return &Change{
		Kind: Sysctl, Act: Changed, Time: time.Now(), NS: one.ns, Dev: deviceOf(name),
		Old: &Object{Sysctl: &Setting{name, old}}, New: &Object{Sysctl: &Setting{name, value}},
	}
}

// deviceOf names the link that a setting of the network is about, "" for none.
func deviceOf(name string) string {
	p := strings.Split(name, ".")
	if len(p) == 5 && p[0] == "net" && (p[2] == "conf" || p[2] == "neigh") && p[3] != "all" && p[3] != "default" {
		return strings.ReplaceAll(p[3], "/", ".")
	}
	return ""
}

// fanEvent is struct fanotify_event_metadata (include/uapi/linux/fanotify.h).
const fanEventLen = 24

// listen reads fanotify's events until it is closed.
func (s *sysctls) listen(send func(*Change)) error {
	buf := make([]byte, 4096)
	for {
		n, err := s.fan.Read(buf)
		if err != nil {
			return err
		}
		for b := buf[:n]; len(b) >= fanEventLen; {
			size := binary.NativeEndian.Uint32(b)
			if size < fanEventLen || int(size) > len(b) {
				break
			}
			fd, pid := int32(binary.NativeEndian.Uint32(b[16:])), int32(binary.NativeEndian.Uint32(b[20:]))
			if fd >= 0 {
				s.written(os.NewFile(uintptr(fd), "sysctl"), int(pid), send)
			}
			b = b[size:]
		}
	}
}

// written is a file of procfs that somebody wrote to; it is closed. In which namespace is not told: it is the one in which the
// path leads to the same file. If it has changed there, all others are read too, because the kernel may have set some along.
func (s *sysctls) written(f *os.File, pid int, send func(*Change)) {
	defer f.Close()
	at := time.Now()
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	path = "/proc" + strings.TrimPrefix(path, "/proc") // not there if it was written through a mount in another mount namespace
	name, ok := sysctlName(path)
	if err != nil || !ok || restless(name) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.spaces {
		var value string
		var ok bool
		err := one.within(func() error {
			if sameFile(f, path) {
				value, ok = readFile(path)
			}
			return nil
		})
		if err != nil || !ok {
			continue
		}
		c := one.noted(name, value)
		if c == nil {
			continue
		}
		c.Time, c.PID = at, pid
		if s.match(name) {
			send(c)
		}
		s.reread(one, send, Followed, c)
	}
}

// sameFile says if a path leads to an open file.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Stat(path)
	return err == nil && os.SameFile(a, b)
}

// reread tells what is different from what was known. The caller holds the lock.
func (s *sysctls) reread(one *settings, send func(*Change), why Silent, cause *Change) {
	now, err := s.read(one)
	if err != nil {
		return // it is gone
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if cause != nil && cause.New.Sysctl.Name == name {
			continue // written again: an event of its own will say so
		}
		if c := one.noted(name, now[name]); c != nil {
			c.Silent, c.Cause = why, cause
			send(c)
		}
	}
}
