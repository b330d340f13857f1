package probe_test

import (
	"encoding/binary"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// TestCopies: a program that is loaded for each of its targets may be interrupted, at one of them, by what it does at another, and
// writes what it had begun. Here it sends a signal, and is at the place where signals are sent while it is where a system call begins.
func TestCopies(t *testing.T) {
	ktest.Need(t, ktest.RawTracepoint, ktest.Ringbuf, ktest.BTF)
	at := func(provider, outer, inner string) (ts []probe.Target) {
		for _, fn := range []string{outer, inner} {
			ts = append(ts, probe.Target{Provider: provider, Module: "vmlinux", Func: fn, Name: provider + ":" + fn})
		}
		return ts
	}
	numbers := map[string][]int64{"sys_enter": {1, 1}, "signal_generate": {2, 0}}
	t.Run("numbers of the target", func(t *testing.T) {
		copies(t, at("rawtracepoint", "sys_enter", "signal_generate"), numbers, func(u *emit.Unit) ir.Val {
			u.If(ir.Ne, u.Given(1), ir.Imm(0), func() {
				u.If(ir.Ne, u.Arg(1), ir.Imm(unix.SYS_GETPRIORITY), func() { u.Return(ir.Imm(0)) }, nil)
			}, nil)
			return u.Given(0)
		})
	})
	t.Run("trampolines", func(t *testing.T) {
		ktest.Need(t, ktest.Fentry)
		copies(t, at("fentry", "__x64_sys_getpriority", "do_send_sig_info"), nil, func(u *emit.Unit) ir.Val { return u.FuncIP() })
	})
}

// copies loads a program for targets, the second of which is inside of the first, and counts what it wrote at each.
func copies(t *testing.T, targets []probe.Target, numbers map[string][]int64, where func(*emit.Unit) ir.Val) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	users := usersym.New(usersym.Options{})
	defer users.Close()
	w := probe.NewWorld(l, users, 0)
	defer w.Close()
	cpus, err := l.NumCPU()
	if err != nil {
		t.Fatal(err)
	}
	const size, calls = 128, 5 // more than a program has on its stack
	p := emit.New(emit.Options{CPUs: cpus, Ring: 1 << 16})
	u := p.Unit(targets[0].Provider, 0, "copies")
	rec := u.Slot("record", size)
	task := u.Call(ir.FnCurrentPidTgid)
	u.If(ir.Ne, task, ir.Imm(int64(os.Getpid())<<32|int64(unix.Gettid())), func() { u.Return(ir.Imm(0)) }, nil)
	u.Store(rec, 8, where(u))
	u.Call(ir.FnSendSignal, ir.Imm(int64(unix.SIGURG))) // Go's programs ignore it; a copy that is running is not run again
	u.Output(rec, size, emit.WakeNever)
	u.Return(ir.Imm(0))
	s, err := probe.LoadEmit(p, [][]probe.Target{targets}, probe.Options{World: w, Given: func(t probe.Target) []int64 { return numbers[t.Func] }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r, err := s.Reader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := s.Attach(); err != nil {
		t.Fatal(err)
	}
	for range calls {
		_, _ = unix.Getpriority(unix.PRIO_PROCESS, 0)
	}
	s.Detach()
	wrote := map[uint64]int{}
	for {
		rec, err := r.Next(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if rec == nil {
			break
		}
		wrote[binary.NativeEndian.Uint64(rec)]++
	}
	for place, n := range wrote {
		if len(wrote) != 2 || n%calls != 0 { // Linux 7.3 sends the inner one's own signal, too
			t.Errorf("%d records of %#x, of %d places; want %d of each of two", n, place, len(wrote), calls)
		}
	}
	if len(wrote) == 0 {
		t.Error("nothing was written")
	}
}
