package changes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
)

// sysctlRoot is where the kernel's settings are.
const sysctlRoot = "/proc/sys"

// pollEvery is how often all sysctls are read again.
const pollEvery = time.Second

// sysctls watches the settings in /proc/sys as the own namespace has them: by fanotify(7), which tells of every write through
// this procfs and whose it was, and by reading all of them once a second, because the kernel sets some by itself and others
// write through other mounts.
type sysctls struct {
	match func(name string) bool
	own   netstate.Namespace
	fan   *os.File // nil where fanotify cannot be had
	note  string

	mu    sync.Mutex
	known map[string]string
}

func openSysctls(match func(string) bool) (*sysctls, error) {
	s := &sysctls{match: match}
	if match == nil {
		s.match = func(string) bool { return true }
	}
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	s.own.Name = "own"
	if s.own.Inode, err = inode(ns); err != nil {
		return nil, err
	}
	if s.fan, err = fanotify("/proc"); err != nil {
		s.note = fmt.Sprintf("sysctls are read once a second (fanotify: %v)", err)
	} else {
		s.note = "sysctls by fanotify and by reading them once a second"
	}
	s.known, err = s.read()
	if err != nil {
		s.close()
		return nil, err
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

// read reads all settings of interest.
func (s *sysctls) read() (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(sysctlRoot, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() { // entries of a link go with it
			return nil
		}
		name, _ := sysctlName(path)
		if !s.match(name) || restless(name) {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		if v, ok := readSetting(f); ok {
			out[name] = v
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read sysctls: %w", err)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("read sysctls: none in %s matches", sysctlRoot)
	}
	return out, nil
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
		now, err := s.read()
		if err != nil {
			return err
		}
		for name, v := range now {
			if c := s.noted(name, v); c != nil {
				c.Silent = Polled
				send(c)
			}
		}
	}
}

// noted takes a value in and gives the change, nil if it is as it was or was not known.
func (s *sysctls) noted(name, value string) *Change {
	s.mu.Lock()
	old, known := s.known[name]
	s.known[name] = value
	s.mu.Unlock()
	if !known || old == value {
		return nil
	}
	return &Change{
		Kind: Sysctl, Act: Changed, Time: time.Now(), NS: s.own, Dev: deviceOf(name),
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
				if c := s.written(os.NewFile(uintptr(fd), "sysctl"), int(pid)); c != nil {
					send(c)
				}
			}
			b = b[size:]
		}
	}
}

// written is a file of procfs that somebody wrote to; it is closed.
func (s *sysctls) written(f *os.File, pid int) *Change {
	defer f.Close()
	at := time.Now()
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	name, ok := sysctlName(path)
	if err != nil || !ok || !s.match(name) || pid == os.Getpid() {
		return nil
	}
	value, ok := readSetting(f)
	if !ok {
		return nil
	}
	if ns := s.elsewhere(name, pid); ns.Inode != 0 {
		return &Change{Kind: Sysctl, Act: Changed, Time: at, Origin: at, NS: ns, Dev: deviceOf(name), PID: pid, New: &Object{Sysctl: &Setting{name, value}}}
	}
	c := s.noted(name, value)
	if c != nil {
		c.Time, c.Origin, c.PID = at, at, pid
	}
	return c
}

// elsewhere gives the namespace of a setting of the network that a process in another namespace wrote; zero if it is the own
// one, or the process has ended.
func (s *sysctls) elsewhere(name string, pid int) netstate.Namespace {
	if !strings.HasPrefix(name, "net.") {
		return netstate.Namespace{}
	}
	ns, err := netns.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return netstate.Namespace{}
	}
	defer ns.Close()
	ino, err := inode(ns)
	if err != nil || ino == s.own.Inode {
		return netstate.Namespace{}
	}
	return netstate.Namespace{Inode: ino, Name: fmt.Sprintf("of process %d", pid)}
}
