package promises

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// TestInterrupts: Ctrl-C ends a trace also if nobody reads what it says: the first waits for the reader, the third does not, and nothing stays.
func TestInterrupts(t *testing.T) {
	ktest.Need(t, ktest.Tracepoint)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	cmd := exec.Command(fathom(t), "trace", "-e", `tracepoint:raw_syscalls:sys_enter { printf("%s and so on until the pipe is full\n", comm); }`)
	cmd.Stdout = w
	if err := start(t, cmd); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	defer cmd.Process.Kill() // it has ended, unless the test failed
	wait(t, "the pipe is full", func() bool {
		p := []unix.PollFd{{Fd: int32(w.Fd()), Events: unix.POLLOUT}}
		n, err := unix.Poll(p, 0)
		return err == nil && n == 0
	})
	programs := map[ebpf.ProgramID]bool{}
	for _, id := range programsOf(cmd.Process.Pid) {
		programs[id] = true
	}
	if len(programs) == 0 {
		t.Fatal("no BPF program is loaded")
	}
	for n := 1; ; n++ { // two that come at once are one
		if err := cmd.Process.Signal(os.Interrupt); err != nil && n <= 3 {
			t.Fatal(err)
		}
		select {
		case err = <-ended:
		case <-time.After(500 * time.Millisecond):
			if n == 40 {
				t.Fatal("does not end by Ctrl-C")
			}
			continue
		}
		if exit := (*exec.ExitError)(nil); n < 3 || !errors.As(err, &exit) || exit.ExitCode() != 130 {
			t.Errorf("after Ctrl-C %d, with all it said unread: %v, want exit code 130 at the third", n, err)
		}
		break
	}
	wait(t, "its BPF programs are gone", func() bool { return !loaded(programs) })
}
