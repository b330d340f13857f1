package script

import (
	"encoding/binary"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// beside runs a program, and work once it is attached. The program ends by a call of getpgid.
func beside(t *testing.T, src string, work func()) string {
	t.Helper()
	begun := false
	out, _ := runHeard(t, src+` tracepoint:syscalls:sys_enter_getpgid /comm == "beside"/ { exit(); }`, func(said *syncBuffer) {
		if begun || !strings.Contains(said.String(), "Attached ") {
			return
		}
		begun = true
		as("beside", func() {
			work()
			_, _ = unix.Getpgid(0) // exit
		})
	}, regexp.MustCompile(`^never$`))
	return out
}

// TestOthersHaveTheEvent: who counts a trace event through perf counts it also while a program is on it, but where the program
// says by a result of its own that it may not.
func TestOthersHaveTheEvent(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint, ktest.Ringbuf)
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	text, err := fs.Format("syscalls", "sys_enter_getppid")
	if err != nil {
		t.Fatal(err)
	}
	f, err := traceevent.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	const calls = 1000
	for _, tt := range []struct {
		name, body string
		seen       uint64
	}{
		{"counts", `/comm == "beside"/ { @n++; }`, calls},
		{"predicate", `/comm == "nobody"/ { @x++; } tracepoint:syscalls:sys_enter_getppid /comm == "beside"/ { @n++; }`, calls},
		{"return", `/comm == "beside"/ { @n++; if (@n > 0) { return; } @x++; }`, calls},
		{"return from a loop", `/comm == "beside"/ { @n++; for $i : 0..9 { if ($i == 3) { return; } } @x++; }`, calls},
		{"scratch memory", `/comm == "beside"/ { @n++; @s = str(0, 512); }`, calls},
		{"keeps it", `/comm == "beside"/ { @n++; return 0; }`, 0},
		{"keeps it, from a loop", `/comm == "beside"/ { @n++; for $i : 0..9 { if ($i == 3) { return 0; } if ($i == 4) { return; } } }`, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			seen := uint64(0)
			out := beside(t, "tracepoint:syscalls:sys_enter_getppid "+tt.body, func() {
				attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: uint64(f.ID), Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
				fd, err := unix.PerfEventOpen(&attr, 0, -1, -1, unix.PERF_FLAG_FD_CLOEXEC) // of this thread
				if err != nil {
					t.Error(err)
					return
				}
				defer unix.Close(fd)
				for range calls {
					unix.Getppid()
				}
				var n [8]byte
				if _, err := unix.Read(fd, n[:]); err != nil {
					t.Error(err)
				}
				seen = binary.NativeEndian.Uint64(n[:])
			})
			if want := fmt.Sprintf("@n: %d\n", calls); !strings.Contains(out, want) {
				t.Errorf("the program did not count %d: %s", calls, out)
			}
			if seen != tt.seen {
				t.Errorf("somebody else counted %d, not %d", seen, tt.seen)
			}
		})
	}
}

// TestBesidePerf: perf record has its samples of an event that a program counts.
func TestBesidePerf(t *testing.T) {
	if ktest.InGuest() {
		t.Skip("perf is not there")
	}
	ktest.Need(t, ktest.Tracepoint, ktest.Ringbuf)
	perf := ktest.Oracle(t, "perf")
	file := filepath.Join(t.TempDir(), "perf.data")
	out := beside(t, `tracepoint:sched:sched_process_exit /comm == "true"/ { @n++; }`, func() {
		if said, err := exec.Command(perf, "record", "-q", "-o", file, "-e", "sched:sched_process_exit", "--", "true").CombinedOutput(); err != nil {
			t.Errorf("perf record: %v: %s", err, said)
		}
	})
	told, err := exec.Command(perf, "script", "-i", file).Output()
	if n := strings.Count(string(told), "sched:sched_process_exit: comm=true "); err != nil || n != 1 {
		t.Errorf("perf has %d events of one process: %v: %s", n, err, told)
	}
	if !strings.Contains(out, "@n: ") {
		t.Errorf("the program counted nothing: %s", out)
	}
}
