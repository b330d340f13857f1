// Package lease records what outlives a process, so that it is removed when the process is not there to do it.
//
// What the kernel ties to a descriptor needs no lease. What has a name does (a namespace in /run/netns, a tracefs instance,
// a pin, a guest, a sysctl with its old value): its maker writes a record before making it and removes the record after
// removing it. A record names its owner, a process by number and start time. If the owner is gone and nobody asked for
// the thing to be kept, it is an orphan: [Dir.Clean] hands it to the function that can remove its kind. A person's things
// ([Lease.Keep]) have no owner and are never orphans.
package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Record is what is known of a thing that outlives its maker.
type Record struct {
	Kind  string          `json:"kind"` // "netns"; who cleans is chosen by it
	Name  string          `json:"name"` // of the thing, for people and for its cleaner
	Data  json.RawMessage `json:"data,omitempty"`
	Since time.Time       `json:"since"`
	Kept  bool            `json:"kept,omitempty"`  // a person asked for it to stay
	Given bool            `json:"given,omitempty"` // it was made by another process for its owner
	Owner Owner           `json:"owner"`

	file string
}

// Owner is a process. Numbers are used again, so its start time, its boot and its PID namespace belong to its name.
type Owner struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since boot: field 22 of /proc/PID/stat
	Boot  string `json:"boot"`  // /proc/sys/kernel/random/boot_id
	PIDNS string `json:"pidns"` // where PID means something: pid:[4026531836]
}

// Cleaner removes a thing. It returns nil if the thing is gone, also if it was before.
type Cleaner func(Record) error

// Dir is a folder of records.
type Dir struct {
	Path string
	Proc string // stands for /proc; "" is /proc
}

// User is who this process is outside of its user namespace: root of one that an ordinary user made is that user, to whom /run
// does not belong.
func User() int {
	uid := os.Geteuid()
	b, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return uid
	}
	return outside(string(b), uid)
}

// outside finds a user in /proc/PID/uid_map, whose lines are the first number inside, the first outside, and how many.
func outside(uidMap string, uid int) int {
	for l := range strings.Lines(uidMap) {
		var in, out, n int
		if _, err := fmt.Sscan(l, &in, &out, &n); err == nil && uid >= in && uid-in < n {
			return out + uid - in
		}
	}
	return uid
}

// Default is where records of this user are: /run/fathom for root, else in $XDG_RUNTIME_DIR, else in /tmp.
func Default(uid int, getenv func(string) string) Dir {
	switch run := getenv("XDG_RUNTIME_DIR"); {
	case uid == 0:
		return Dir{Path: "/run/fathom"}
	case run != "":
		return Dir{Path: filepath.Join(run, "fathom")}
	}
	return Dir{Path: fmt.Sprintf("/tmp/fathom-%d", uid)}
}

// Lease is a record of this process.
type Lease struct {
	dir Dir
	rec Record
}

// ErrTaken says that a thing of that name exists.
var ErrTaken = errors.New("the name is taken")

// Claim is New for a thing that must be the only one of its kind and name. It fails with [ErrTaken] while another record
// names it. free, which may be nil, is asked while no one else can claim.
func (d Dir) Claim(kind, name string, data any, free func() error) (*Lease, error) {
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return nil, fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	if err := d.trusted(); err != nil {
		return nil, err
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := d.List()
	if err != nil {
		return nil, err
	}
	if slices.ContainsFunc(all, func(r Record) bool { return r.Kind == kind && r.Name == name }) {
		return nil, fmt.Errorf("%s %s: %w", kind, name, ErrTaken)
	}
	if free != nil {
		if err := free(); err != nil {
			return nil, err
		}
	}
	return d.New(kind, name, data)
}

// Adopt makes this process the owner of a thing that someone kept, so as to remove it: should it die meanwhile, the rest
// is an orphan.
func (d Dir) Adopt(r Record) (*Lease, error) {
	o, err := d.owner(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("adopt %s %s: %w", r.Kind, r.Name, err)
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if _, err := d.load(r.file); err != nil {
		return nil, fmt.Errorf("adopt %s %s: %w", r.Kind, r.Name, err)
	}
	r.Kept, r.Given, r.Owner = false, false, o
	return &Lease{dir: d, rec: r}, d.write(r)
}

// serial makes file names of one process unique.
var serial atomic.Uint64

// New records that this process is about to make something. data is for the cleaner and may be nil.
func (d Dir) New(kind, name string, data any) (*Lease, error) {
	l := &Lease{dir: d, rec: Record{Kind: kind, Name: name, Since: time.Now().UTC()}}
	var err error
	if data != nil {
		if l.rec.Data, err = json.Marshal(data); err != nil {
			return nil, fmt.Errorf("record %s %s: %w", kind, name, err)
		}
	}
	if l.rec.Owner, err = d.owner(os.Getpid()); err != nil {
		return nil, fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	if err := os.MkdirAll(d.Path, 0o700); err != nil {
		return nil, fmt.Errorf("record %s %s: %w", kind, name, err)
	}
	if err := d.trusted(); err != nil {
		return nil, err
	}
	// The start time is part of the name: a kept record must not be overwritten by a process with the number of its maker.
	l.rec.file = fmt.Sprintf("%d-%d-%d%s", os.Getpid(), l.rec.Owner.Start, serial.Add(1), suffix)
	return l, d.write(l.rec)
}

const suffix = ".json"

// Record gives what was recorded.
func (l *Lease) Record() Record { return l.rec }

// Release forgets the thing, after it was removed.
func (l *Lease) Release() error { return l.dir.remove(l.rec) }

// Keep makes the thing a person's: it stays when this process ends.
func (l *Lease) Keep() error {
	l.rec.Kept = true
	return l.dir.write(l.rec)
}

// Give makes another process the owner: the thing stays when this one ends, and is an orphan when that one has ended.
func (l *Lease) Give(pid int) (err error) {
	if l.rec.Owner, err = l.dir.owner(pid); err != nil {
		return fmt.Errorf("give %s %s to process %d: %w", l.rec.Kind, l.rec.Name, pid, err)
	}
	l.rec.Given = true
	return l.dir.write(l.rec)
}

// write replaces a record as a whole: who reads meanwhile sees the old one or the new one.
func (d Dir) write(r Record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := filepath.Join(d.Path, "."+r.file)
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(d.Path, r.file))
}

func (d Dir) remove(r Record) error {
	err := os.Remove(filepath.Join(d.Path, r.file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// trusted refuses a folder in which others could write records: cleaners act on them with our privilege.
func (d Dir) trusted() error {
	st, err := os.Lstat(d.Path)
	if err != nil {
		return err
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || st.Mode().Perm()&0o022 != 0 || !ok || int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("use %s: %w: it is %v and must be a folder that only its owner, uid %d, can write", d.Path, fs.ErrPermission, st.Mode(), os.Geteuid())
	}
	return nil
}

// maxRecord bounds a record's file.
const maxRecord = 1 << 20

// List reads all records, the oldest first. What cannot be read is left out and reported in the error.
func (d Dir) List() ([]Record, error) {
	entries, err := os.ReadDir(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := d.trusted(); err != nil {
		return nil, err
	}
	var out []Record
	var errs []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), suffix) {
			continue
		}
		r, err := d.load(e.Name())
		switch {
		case err == nil:
			out = append(out, r)
		case !errors.Is(err, fs.ErrNotExist): // released meanwhile
			errs = append(errs, err)
		}
	}
	sorting.Stable(out, func(a, b Record) int { return a.Since.Compare(b.Since) })
	return out, errors.Join(errs...)
}

func (d Dir) load(name string) (r Record, err error) {
	path := filepath.Join(d.Path, name)
	st, err := os.Lstat(path)
	if err != nil {
		return r, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxRecord {
		return r, fmt.Errorf("read record %s: not a file of at most %d bytes", path, maxRecord)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read record %s: %w", path, err)
	}
	if r.Kind == "" || r.Owner.PID <= 0 {
		return r, fmt.Errorf("read record %s: no kind or owner", path)
	}
	r.file = name
	return r, nil
}

// Orphans lists the records whose owner is gone and which nobody asked to keep. An owner in another PID namespace is
// taken to live: it cannot be seen from here.
func (d Dir) Orphans() ([]Record, error) {
	all, err := d.List()
	return slices.DeleteFunc(all, func(r Record) bool { return r.Kept || d.alive(r.Owner) }), err
}

// patience is how long what is in use (EBUSY) is tried again: by something that is just ending, or by who traces all there is.
const patience = 2 * time.Second

// Clean removes orphans, the newest first, as things may use what was made before them, each by the cleaner of its kind, and
// gives those removed. What cannot be removed is tried again when others have gone, which may have used it. A kind without a
// cleaner stays, and is an error. Two cleaners do not run at a time.
func (d Dir) Clean(by map[string]Cleaner) (cleaned []Record, err error) {
	if _, err := os.Stat(d.Path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	orphans, err := d.Orphans()
	errs := []error{err}
	sorting.Stable(orphans, func(a, b Record) int { return b.Since.Compare(a.Since) })
	for deadline := time.Now().Add(patience); len(orphans) > 0; time.Sleep(10 * time.Millisecond) {
		var left []Record
		var failed error
		for _, r := range orphans {
			if err := d.clean(r, by); err != nil {
				left = append(left, r)
				failed = errors.Join(failed, fmt.Errorf("clean up %s %s of process %d: %w", r.Kind, r.Name, r.Owner.PID, err))
				continue
			}
			cleaned = append(cleaned, r)
		}
		if len(left) == len(orphans) && (!errors.Is(failed, unix.EBUSY) || time.Now().After(deadline)) {
			errs = append(errs, failed)
			break
		}
		orphans = left
	}
	return cleaned, errors.Join(append(errs, d.sweep())...)
}

func (d Dir) clean(r Record, by map[string]Cleaner) error {
	f := by[r.Kind]
	if f == nil {
		return fmt.Errorf("no one knows how; known kinds are %s", strings.Join(slices.Sorted(maps.Keys(by)), ", "))
	}
	if err := f(r); err != nil {
		return err
	}
	return d.remove(r)
}

// sweep removes halves of records, written by processes that ended in the middle of it.
func (d Dir) sweep() error {
	halves, _ := filepath.Glob(filepath.Join(d.Path, ".*"+suffix)) // the pattern is well-formed
	var errs []error
	for _, name := range halves {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(name), "."), "-")
		if n, err := strconv.Atoi(pid); err == nil {
			if _, err := d.owner(n); err == nil {
				continue
			}
		}
		errs = append(errs, os.Remove(name))
	}
	return errors.Join(errs...)
}

// lock keeps other cleaners out. The lock ends with the process.
func (d Dir) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.Path, ".lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return func() { f.Close() }, nil
}

func (d Dir) proc(elem ...string) string {
	root := d.Proc
	if root == "" {
		root = "/proc"
	}
	return filepath.Join(append([]string{root}, elem...)...)
}

// owner describes a process as it is now.
func (d Dir) owner(pid int) (o Owner, err error) {
	stat, err := os.ReadFile(d.proc(strconv.Itoa(pid), "stat"))
	if err != nil {
		return o, err
	}
	// pid (comm) state ppid …; comm may hold anything, and starttime is the 20th field after it.
	_, rest, _ := strings.Cut(string(stat), "(")
	f := strings.Fields(rest[strings.LastIndexByte(rest, ')')+1:])
	if len(f) < 20 {
		return o, fmt.Errorf("%s: %d fields after the name", d.proc(strconv.Itoa(pid), "stat"), len(f))
	}
	if f[0] == "Z" || f[0] == "X" {
		return o, fmt.Errorf("process %d: %w: it has ended", pid, fs.ErrNotExist)
	}
	o.PID = pid
	if o.Start, err = strconv.ParseUint(f[19], 10, 64); err != nil {
		return o, err
	}
	boot, err := os.ReadFile(d.proc("sys/kernel/random/boot_id"))
	if err != nil {
		return o, err
	}
	o.Boot = strings.TrimSpace(string(boot))
	o.PIDNS, err = os.Readlink(d.proc("self/ns/pid"))
	return o, err
}

// alive reports whether an owner still runs, as far as can be seen from here.
func (d Dir) alive(o Owner) bool {
	self, err := d.owner(os.Getpid())
	if err != nil {
		return true // nothing can be seen
	}
	if o.Boot != self.Boot {
		return false
	}
	if o.PIDNS != self.PIDNS {
		return true
	}
	now, err := d.owner(o.PID)
	return err == nil && now == o
}
