package script

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/ir"
)

// child is the command of -c: started, but held before its first instruction until the probes are attached.
type child struct {
	cmd    *exec.Cmd
	ops    chan func()
	done   chan error
	ended  bool
	err    error
	traced bool
}

// startChild starts a command stopped. Only the thread that started it may let it go, so one goroutine keeps that thread.
func startChild(argv []string) (*child, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, diag.NoInput("start "+argv[0], err)
	}
	c := &child{ops: make(chan func()), done: make(chan error, 1), traced: true}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c.cmd = exec.Command(path, argv[1:]...)
		c.cmd.Args[0] = argv[0]
		c.cmd.Stdin, c.cmd.Stdout, c.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Pdeathsig: syscall.SIGKILL}
		if err := c.cmd.Start(); err != nil {
			started <- err
			return
		}
		var ws unix.WaitStatus
		_, err := unix.Wait4(c.cmd.Process.Pid, &ws, 0, nil) // the stop at exec
		started <- err
		for op := range c.ops {
			op()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

// resume lets the command run.
func (c *child) resume() error {
	errs := make(chan error)
	c.ops <- func() { errs <- unix.PtraceDetach(c.pid()) }
	if err := <-errs; err != nil {
		return fmt.Errorf("resume command: %w", err)
	}
	c.traced = false
	go func() { c.done <- c.cmd.Wait() }()
	return nil
}

// exited says if the command has ended.
func (c *child) exited() bool {
	if c.ended {
		return true
	}
	select {
	case c.err = <-c.done:
		c.ended = true
	default:
	}
	return c.ended
}

// kill ends a command that still runs: it was started for the trace and goes with it.
func (c *child) kill() {
	if !c.exited() {
		c.cmd.Process.Kill()
		if !c.traced {
			<-c.done
		}
	}
	close(c.ops)
}

// alive says if a process exists.
func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// bootNanos reads CLOCK_BOOTTIME.
func bootNanos() uint64 { return clock(unix.CLOCK_BOOTTIME) }

func clock(id int32) uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// taiOffset gives TAI minus boot time.
func taiOffset() int64 { return int64(clock(unix.CLOCK_TAI)) - int64(clock(unix.CLOCK_BOOTTIME)) }

// pidNamespace gives device and inode of this process's PID namespace, or zeros in the initial one, where the kernel's
// own numbers are right (PROC_PID_INIT_INO of include/linux/proc_ns.h).
func pidNamespace() (dev, ino uint64) {
	const initial = 0xEFFFFFFC
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil || st.Ino == initial {
		return 0, 0
	}
	return st.Dev, st.Ino
}

// system runs a shell command and prints what it says.
func (r *job) system(cmd string) error {
	if err := r.buf.Flush(); err != nil {
		return err
	}
	c := exec.Command("/bin/sh", "-c", cmd)
	out, err := c.CombinedOutput()
	if err != nil && len(out) == 0 {
		fmt.Fprintf(r.o.Stderr, "system(%q): %v\n", cmd, err)
	}
	return r.out.Text(ir.EvSystem, string(out))
}

// cat prints a file, at most max_cat_bytes of it.
func (r *job) cat(path string) error {
	limit := r.comp.Info.Config.MaxCatBytes
	if limit == 0 {
		limit = 10240
	}
	f, err := os.Open(path)
	if err != nil {
		fmt.Fprintf(r.o.Stderr, "ERROR: failed to open file '%s': %v\n", path, errors.Unwrap(err))
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)))
	if err != nil {
		fmt.Fprintf(r.o.Stderr, "ERROR: failed to read file '%s': %v\n", path, err)
	}
	return r.out.Text(ir.EvCat, string(b))
}
