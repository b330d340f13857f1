// Package doctor finds out what fathom can do on this kernel, and whether a panic of it would leave a dump.
//
// What a kernel can do is found by trying ([probe/try]), undone at once; what is a setting is read. Each check that fails
// carries evidence (what was tried and its errno, a file and its value, the kernel's build option) and the way out.
// Nothing is changed and nothing stays. Without root the same checks run; what only root may try says so.
package doctor

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/probe/try"
)

// Status is the outcome of a check.
type Status string

// Outcomes.
const (
	Yes    Status = "yes"    // there, and it works
	No     Status = "no"     // not there
	Denied Status = "denied" // whoever has more privilege may find it there
	Info   Status = "info"   // a setting, neither good nor bad
)

// Check is one thing that was looked at.
type Check struct {
	Group    string   `json:"group"`
	Name     string   `json:"name"`
	Status   Status   `json:"status"`
	Needed   bool     `json:"needed,omitempty"`   // without it the question of the group's verb is answered with no
	Detail   string   `json:"detail,omitempty"`   // what was found, or what it is good for
	Evidence []string `json:"evidence,omitempty"` // file=value, what was tried and its errno
	Fix      []string `json:"fix,omitempty"`      // ways out, the best first
	Instead  string   `json:"instead,omitempty"`  // what fathom does without it
}

// missing reports that a needed thing is not there.
func (c Check) missing() bool { return c.Needed && c.Status != Yes && c.Status != Info }

// Report is what was found, in the order it was looked at.
type Report struct {
	Topic   string // "doctor" or "doctor kdump"
	Release string // uname -r
	Machine string // uname -m
	UID     int
	Checks  []Check
	Err     error // why the report ends early: the context's end
}

// OK reports that nothing needed is missing; otherwise the exit code is 1.
func (r Report) OK() bool {
	for _, c := range r.Checks {
		if c.missing() {
			return false
		}
	}
	return r.Err == nil
}

// Options say what to look at. The zero Options look at this machine.
type Options struct {
	Kdump  bool    // would a panic leave a dump? Otherwise: can I trace here?
	System *System // nil is this machine
}

// System is the machine the checks ask. Tests fake it.
type System struct {
	Root    string                          // what stands for /, for files that are read
	UID     int                             // effective user
	Release string                          // uname -r
	Machine string                          // uname -m
	Try     func(try.Feature) error         // nil: it works
	Free    func(path string) (int64, bool) // bytes a user may write at a path of this machine, if that can be known
	// Lockdown reads the lockdown file where securityfs is not mounted.
	Lockdown func() (string, error)
}

// Here is this machine.
func Here() *System {
	var u unix.Utsname
	_ = unix.Uname(&u) // cannot fail
	return &System{
		Root: "/", UID: os.Geteuid(), Release: unix.ByteSliceToString(u.Release[:]), Machine: unix.ByteSliceToString(u.Machine[:]),
		Try: tryHere, Free: free, Lockdown: privateLockdown,
	}
}

// Run looks at everything Options ask for. It ends early with the context.
func Run(ctx context.Context, o Options) Report {
	s := o.System
	if s == nil {
		s = Here()
	}
	r := Report{Topic: "doctor", Release: s.Release, Machine: s.Machine, UID: s.UID}
	e := &exam{System: s, config: s.readConfig()}
	e.caps, e.capsKnown = s.capabilities()
	e.lockdown = e.findLockdown()
	steps := kernelSteps()
	if o.Kdump {
		r.Topic, steps = "doctor kdump", kdumpSteps()
	}
	for _, step := range steps {
		if r.Err = ctx.Err(); r.Err != nil {
			break
		}
		r.Checks = append(r.Checks, step(e)...)
	}
	return r
}

// exam is one run: the system, and what several checks refer to.
type exam struct {
	*System
	config    Config
	caps      uint64
	capsKnown bool
	lockdown  lockdown
}

// step makes some checks.
type step func(*exam) []Check

// read gives a file's text without the last newline.
func (s *System) read(name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.Root, name))
	return strings.TrimRight(string(b), "\n"), err
}

// value gives "name=value" as evidence, with the reason in place of the value if it cannot be read.
func (s *System) value(name string) (v, evidence string, ok bool) {
	v, err := s.read(name)
	if err != nil {
		return "", name + ": " + reason(err), false
	}
	return v, name + "=" + v, true
}

// exists reports whether a file is there.
func (s *System) exists(name string) bool {
	_, err := os.Lstat(filepath.Join(s.Root, name))
	return err == nil
}

// glob lists files by a pattern, without Root.
func (s *System) glob(pattern string) []string {
	names, _ := filepath.Glob(filepath.Join(s.Root, pattern)) // patterns are constants
	for i, n := range names {
		names[i] = "/" + strings.TrimPrefix(strings.TrimPrefix(n, s.Root), "/")
	}
	return names
}

// privileged reports that more privilege would not help: root has all capabilities that tracing needs.
func (e *exam) privileged() bool {
	if e.capsKnown {
		return e.caps&bit(unix.CAP_SYS_ADMIN) != 0
	}
	return e.UID == 0
}

// reason gives an error without the operation and path that *fs.PathError repeats.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return errnoText(err)
}

// free gives what the file system at path, or at the nearest folder above it that exists, can take.
func free(path string) (int64, bool) {
	for ; ; path = filepath.Dir(path) {
		var st unix.Statfs_t
		switch err := unix.Statfs(path, &st); {
		case err == nil:
			return int64(st.Bavail) * st.Bsize, true
		case path == "/" || path == ".":
			return 0, false
		}
	}
}

// tryHere tries a feature on this kernel. XDP is tried in a network namespace of our own, not on the machine's lo.
func tryHere(f try.Feature) error {
	if own, ok := ownTries[f]; ok {
		return own()
	}
	if f != try.XDP {
		return try.Detect(f)
	}
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	return ns.Do(func() error { return try.Detect(f) })
}

// privateLockdown reads the lockdown file through a mount of securityfs that no one else sees.
func privateLockdown() (string, error) {
	fsfd, err := unix.Fsopen("securityfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fsfd)
	if err := unix.FsconfigCreate(fsfd); err != nil {
		return "", err
	}
	dir, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	fd, err := unix.Openat(dir, "lockdown", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	b := make([]byte, 256)
	n, err := unix.Read(fd, b)
	return strings.TrimSpace(string(b[:max(n, 0)])), err
}
