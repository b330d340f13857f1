package cli

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/traceevent"
)

// TestSyscalls: every system call that the running kernel has an event of is explained, with its arguments.
func TestSyscalls(t *testing.T) {
	ktest.Need(t, ktest.Tracefs)
	r, err := openRunning("")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	events, err := r.fs.Events()
	if err != nil {
		t.Fatal(err)
	}
	explained := map[string]int{}
	for nr := range uint64(600) {
		name := sysno.Name(runtime.GOARCH, nr)
		if name == "" {
			continue
		}
		c, err := r.Syscall(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		explained[c.Event] = len(c.Args)
		for _, a := range c.Args {
			if a.Register == "" || a.Name == "" || a.Type == "" {
				t.Errorf("%s: %+v", name, a)
			}
		}
		if c.Absent && c.Event != "" {
			t.Errorf("%s has an event and no function", name)
		}
		if c.Absent { // which the kernel says itself
			const none = ^uintptr(0)
			if _, _, e := unix.RawSyscall6(uintptr(nr), none, none, none, none, none, none); e != unix.ENOSYS {
				t.Errorf("%s is said to be absent, and gives %v", name, e)
			}
		}
	}
	n := 0
	for _, e := range events {
		if e.System != "syscalls" || !strings.HasPrefix(e.Name, "sys_enter_") {
			continue
		}
		args, ok := explained[e.String()]
		f, err := r.Format(e.System, e.Name)
		if err != nil {
			t.Fatal(err)
		}
		// Calls that only other ABIs, or older programs, make have an event and no number here.
		if n++; ok && args != fields(f) {
			t.Errorf("%s: %d arguments, want %d", e, args, fields(f))
		} else if !ok {
			t.Logf("%s is of no system call of %s", e, runtime.GOARCH)
		}
	}
	if n == 0 {
		t.Skip("the kernel has no events of system calls")
	}
	t.Logf("%d events, %d explained", n, len(explained))
}

// fields counts an event's own.
func fields(f *traceevent.Format) (n int) {
	for _, x := range f.Fields {
		if !x.Common {
			n++
		}
	}
	return n - 1 // the number
}
