// Package tracefs finds the kernel's tracing file system and reads what it lists: events, their formats, and the functions
// that can be traced. It writes only into instances it made itself ([FS.NewInstance]), never into what all share.
//
// Where tracefs is not mounted it is mounted for this process alone, detached from the mount table (fsopen and fsmount,
// Linux 5.2), so that nobody sees the mount and it goes with the process. debugfs is never needed.
// The authority is Documentation/trace/ftrace.rst.
package tracefs

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/sorting"
)

// FS is a tracefs. The zero FS has none; FS{Root: dir} is the tree at dir, which tests may fake.
type FS struct {
	Root string // "/sys/kernel/tracing", or "/proc/self/fd/N", which means nothing to other processes
	mnt  *os.File
}

// Event names a trace event, written System:Name.
type Event struct{ System, Name string }

// Function is a function that ftrace can hook. Module is empty for the kernel's own.
type Function struct{ Name, Module string }

// Find returns the tracefs that is mounted in one of the usual places or elsewhere, or else a private mount, which ends
// with [FS.Close]. Without either the error is a [feature.ErrUnsupported] that says what to do.
func Find() (FS, error) {
	dirs := []string{"/sys/kernel/tracing", "/sys/kernel/debug/tracing"}
	if b, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		dirs = append(dirs, mounted(b)...)
	}
	var denied error
	for _, dir := range dirs {
		err := usable(dir)
		if err == nil {
			return FS{Root: dir}, nil
		}
		if denied == nil && errors.Is(err, os.ErrPermission) {
			denied = err
		}
	}
	return mountPrivate(denied)
}

// usable tells by the directory that every tracefs has, since an unmounted mount point is an empty directory.
func usable(dir string) error {
	f, err := os.Open(filepath.Join(dir, "events"))
	if err != nil {
		return err
	}
	return f.Close()
}

// mounted lists the mount points of whole tracefs trees in the text of a mountinfo file (proc_pid_mountinfo(5)).
func mounted(mountinfo []byte) []string {
	var dirs []string
	for line := range strings.Lines(string(mountinfo)) {
		mount, fs, _ := strings.Cut(line, " - ")
		m, f := strings.Fields(mount), strings.Fields(fs)
		if len(m) >= 5 && len(f) >= 1 && f[0] == "tracefs" && m[3] == "/" {
			dirs = append(dirs, unescape.Replace(m[4]))
		}
	}
	return dirs
}

// unescape undoes mangle_path of the kernel's fs/seq_file.c.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

func mountPrivate(denied error) (FS, error) {
	fs, err := unix.Fsopen("tracefs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return FS{}, unsupported("fsopen tracefs", err, denied)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return FS{}, unsupported("fsconfig tracefs", err, denied)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return FS{}, unsupported("fsmount tracefs", err, denied)
	}
	f := FS{Root: fmt.Sprintf("/proc/self/fd/%d", fd), mnt: os.NewFile(uintptr(fd), "tracefs")}
	if err := usable(f.Root); err != nil {
		f.Close()
		return FS{}, unsupported("use of a private mount", err, denied)
	}
	return f, nil
}

// unsupported adds the way out to what went wrong.
func unsupported(tried string, err, denied error) error {
	if denied != nil {
		tried = denied.Error() + "; " + tried
	} else {
		tried = "not mounted; " + tried
	}
	out := "run as root, or with CAP_SYS_ADMIN"
	switch {
	case errors.Is(err, unix.ENODEV):
		out = "the kernel was built without CONFIG_TRACING"
	case errors.Is(err, unix.ENOSYS):
		out = "as root: mount -t tracefs tracefs /sys/kernel/tracing"
	case errors.Is(err, unix.EACCES), os.Getuid() == 0:
		out = "a security policy (container, lockdown) forbids it; run outside of it, or give it a mounted tracefs"
	}
	return fmt.Errorf("%w; %s", feature.Unsupported("tracefs", tried, err), out)
}

// Close ends a private mount; a mount that was found stays.
func (f FS) Close() error {
	if f.mnt == nil {
		return nil
	}
	return f.mnt.Close()
}

// Private reports that only this process sees the mount.
func (f FS) Private() bool { return f.mnt != nil }

func (f FS) path(elem ...string) string {
	return filepath.Join(append([]string{f.Root}, elem...)...)
}

// Events lists all events that can be enabled, sorted by system and name. Those of system ftrace cannot, and are left out.
func (f FS) Events() ([]Event, error) {
	b, err := os.ReadFile(f.path("available_events"))
	if err != nil {
		return f.walkEvents()
	}
	evs := make([]Event, 0, bytes.Count(b, []byte{'\n'}))
	for line := range strings.Lines(string(b)) {
		if sys, name, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			evs = append(evs, Event{sys, name})
		}
	}
	return sortEvents(evs), nil
}

func (f FS) walkEvents() ([]Event, error) {
	systems, err := os.ReadDir(f.path("events"))
	if err != nil {
		return nil, fmt.Errorf("list events: %w", err)
	}
	var evs []Event
	for _, sys := range systems {
		if !sys.IsDir() || sys.Name() == "ftrace" {
			continue
		}
		names, err := os.ReadDir(f.path("events", sys.Name()))
		if err != nil {
			return nil, fmt.Errorf("list events: %w", err)
		}
		for _, n := range names {
			if n.IsDir() {
				evs = append(evs, Event{sys.Name(), n.Name()})
			}
		}
	}
	return sortEvents(evs), nil
}

func sortEvents(evs []Event) []Event {
	sorting.By(evs, func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.System, b.System), cmp.Compare(a.Name, b.Name))
	})
	return slices.Compact(evs)
}

// Format returns the text of an event's format file, for traceevent.Parse. An event that does not exist is
// [os.ErrNotExist].
func (f FS) Format(system, name string) ([]byte, error) {
	for _, s := range []string{system, name} {
		if s == "" || strings.HasPrefix(s, ".") || strings.ContainsAny(s, "/\x00") {
			return nil, fmt.Errorf("event %s:%s: %w", system, name, os.ErrNotExist)
		}
	}
	b, err := os.ReadFile(f.path("events", system, name, "format"))
	if err != nil {
		return nil, fmt.Errorf("event %s:%s: %w", system, name, err)
	}
	return b, nil
}

// AvailableFunctions lists the functions that ftrace can hook, in address order; a name may occur more than once.
// Lockdown forbids reading them (EPERM) and kernels without CONFIG_DYNAMIC_FTRACE have no list (ENOENT): both are
// [feature.ErrUnsupported].
func (f FS) AvailableFunctions() ([]Function, error) {
	b, err := os.ReadFile(f.path(availableFunctions))
	if err != nil {
		return nil, f.unlisted(err)
	}
	return parseFunctions(string(b)), nil
}

const availableFunctions = "available_filter_functions"

// unlisted says why the functions that ftrace can hook could not be listed.
func (f FS) unlisted(err error) error {
	name := f.path(availableFunctions)
	switch {
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		err = feature.Unsupported(availableFunctions, "read "+name, err)
		return fmt.Errorf("%w; %s", err, "the kernel is locked down or this is not root; names can come from kallsyms and BTF instead")
	case errors.Is(err, os.ErrNotExist):
		return feature.Unsupported(availableFunctions, "read "+name, err)
	}
	return fmt.Errorf("list functions: %w", err)
}

// FindFunctions gives those of AvailableFunctions that have one of the names. It keeps nothing else of a list that has tens of
// thousands of them.
func (f FS) FindFunctions(names []string) ([]Function, error) {
	file, err := os.Open(f.path(availableFunctions))
	if err != nil {
		return nil, f.unlisted(err)
	}
	defer file.Close()
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	var out []Function
	sc := bufio.NewScanner(file)
	for sc.Scan() {
		name, mod, _ := bytes.Cut(sc.Bytes(), []byte(" "))
		if want[string(name)] {
			out = append(out, Function{string(name), strings.Trim(string(mod), "[] \t")})
		}
	}
	if err := sc.Err(); err != nil {
		return nil, f.unlisted(err)
	}
	return out, nil
}

// parseFunctions reads lines "name" and "name [module]".
func parseFunctions(s string) []Function {
	fns := make([]Function, 0, strings.Count(s, "\n"))
	for line := range strings.Lines(s) {
		name, mod, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if name == "" || strings.HasPrefix(name, "__ftrace_invalid_address__") { // 6.0: weak functions that were overridden
			continue
		}
		mod = strings.Trim(mod, "[] \t")
		fns = append(fns, Function{name, mod})
	}
	return fns
}
