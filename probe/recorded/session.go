package recorded

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/probe/offline"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
)

// Session is a program loaded into the BPF machine, to be run over a recording. One goroutine may use it.
type Session struct {
	*offline.Machine
	t     *record.Trace
	world *World
	env   *vm.Env
	cpus  int
	units map[*traceevent.Format][]*offline.Unit
	names *Names

	stacks  bool // the program asks for some
	tracing map[uint64]bool

	lost, gaps, nobody, anywhere uint64
	failed                       error
}

// Load puts a compiled program into the machine. cpus is how many CPUs it was built for.
func Load(w *World, info *check.Info, prog *ir.Program, obj *bpf.Object, cpus int) (*Session, error) {
	s := &Session{t: w.t, world: w, env: &vm.Env{}, cpus: cpus, units: map[*traceevent.Format][]*offline.Unit{}, names: &Names{t: w.t},
		tracing: map[uint64]bool{}}
	var err error
	if s.Machine, err = offline.Load(info, prog, obj, offline.Options{Env: s.env, CPUs: cpus}); err != nil {
		return nil, err
	}
	s.stacks = s.Helpers()[int64(asm.FnGetStack)] || s.Helpers()[int64(asm.FnGetTaskStack)] || s.Helpers()[int64(asm.FnGetStackid)]
	s.env.Symbol = func(a uint64) string { return s.names.KernelSym(a) }
	for u := range s.Units("tracepoint") {
		for _, t := range u.Targets {
			f := w.by[t.Module+":"+t.Func]
			s.units[f] = append(s.units[f], u)
		}
	}
	// Formats that differ only in where they came from share their name.
	for _, f := range w.t.Formats {
		if s.units[f] == nil {
			s.units[f] = s.units[w.by[system(f)+":"+f.Name]]
		}
	}
	return s, nil
}

// Names gives names to the addresses that programs print.
func (s *Session) Names() *Names { return s.names }

// Walk runs the program over all events, in the order of their time, or until ctx is done. After each event that it ran for it
// calls after, which should take the records.
func (s *Session) Walk(ctx context.Context, after func() error) error {
	events := s.events()
	var e traceevent.Event
	for events.Next(&e) {
		if e.Format == nil {
			s.lost += e.Lost
			s.gaps++
			continue
		}
		units := s.units[e.Format]
		if len(units) == 0 {
			continue
		}
		s.enter(&e)
		for _, u := range units {
			if err := s.Run(u, e.Rec); err != nil {
				return err
			}
		}
		if err := after(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			break
		}
	}
	s.failed = events.Err()
	return nil
}

// enter makes the time, CPU and task of an event the current ones.
func (s *Session) enter(e *traceevent.Event) {
	v := s.env
	v.Mono, v.Boot, v.Coarse, v.TAI = e.Time, e.Time, e.Time, e.Time
	v.CPU = 0
	if e.CPU >= 0 && e.CPU < s.cpus {
		v.CPU = uint32(e.CPU)
	} else {
		s.anywhere++
	}
	tid := int(e.Format.PIDField().Int(e.Rec))
	k, ok := s.t.Tasks.At(tid, e.Time)
	v.Pid, v.Tgid, v.Comm = uint32(tid), uint32(k.TGID), k.Comm
	if k.TGID == 0 {
		v.Tgid = uint32(tid)
	}
	switch {
	case tid == 0: // what a running kernel calls its idle tasks (init_idle of kernel/sched/core.c)
		v.Comm = fmt.Sprintf("swapper/%d", v.CPU)
	case !ok && e.Format.CommField() != nil:
		v.Comm = string(e.Format.CommField().String(e.Rec))
	case !ok:
		v.Comm = "<...>"
		s.nobody++
	}
	if e.Stacks != nil {
		v.KernelStack, v.UserStack = s.beyond(e.Stacks.Kernel), e.Stacks.User
		s.names.now = e.Time
		if e.Stacks.Process != 0 {
			v.Tgid = uint32(e.Stacks.Process)
		}
	}
}

// events gives all events, with their stacks if the program asks for some.
func (s *Session) events() traceevent.Stream {
	if !s.stacks {
		return s.t.Events()
	}
	var list []traceevent.Stream
	for _, one := range s.t.Streams() {
		list = append(list, traceevent.WithStacks(one))
	}
	return traceevent.Merge(list)
}

// beyond leaves out the frames of the tracing itself, which a recorded stack begins with and that of a program on the tracepoint does
// not.
func (s *Session) beyond(stack []uint64) []uint64 {
	for len(stack) > 0 && s.isTracing(stack[0]) {
		stack = stack[1:]
	}
	return stack
}

func (s *Session) isTracing(addr uint64) bool {
	is, known := s.tracing[addr]
	if !known {
		name := s.names.KernelSym(addr)
		is = name == "trace_event_buffer_commit" || strings.HasPrefix(name, "trace_event_raw_event_") || strings.HasPrefix(name, "__traceiter_")
		s.tracing[addr] = is
	}
	return is
}

// Missed says what the recording did not have.
func (s *Session) Missed() (out []error) {
	if s.gaps > 0 {
		out = append(out, fmt.Errorf("the recording has %d gaps, in which %d events were lost", s.gaps, s.lost))
	}
	if s.nobody > 0 {
		out = append(out, fmt.Errorf("for %d events the recording does not tell the task's name", s.nobody))
	}
	if s.anywhere > 0 {
		out = append(out, fmt.Errorf("for %d events the recording does not tell the CPU; it is taken to be 0", s.anywhere))
	}
	if s.failed != nil {
		out = append(out, fmt.Errorf("the recording ends early: %w", s.failed))
	}
	return out
}

// Names names addresses by what was recorded, never by this machine's symbols. It implements view.Resolver.
type Names struct {
	t   *record.Trace
	now uint64 // the time of the event that the program runs for
	// Format writes a time as strftime(3) does.
	Format func(format string, t time.Time) string
	// Frame writes a frame of a stack: an address, in a function and so far behind its begin if name is not "", in a file if that is
	// not "".
	Frame func(addr uint64, name string, off uint64, file string, mode types.StackMode) string
}

// KernelStack implements view.Resolver.
func (n *Names) KernelStack(addrs []uint64, mode types.StackMode) (out []string) {
	for _, a := range addrs {
		name, off := "", uint64(0)
		if n.t.Env.Symbol != nil {
			name, off, _, _, _ = n.t.Env.Symbol(a)
		}
		out = append(out, n.Frame(a, name, off, "", mode))
	}
	return out
}

// UserStack implements view.Resolver. A stack in a map is named by what was mapped at its last.
func (n *Names) UserStack(pid int, addrs []uint64, mode types.StackMode) (out []string) {
	for i, f := range n.t.UserStack(pid, n.now, addrs) {
		name, file, off := "", "", uint64(0)
		if f.UserFunc != nil {
			name, file, off = f.Name, f.File, f.Off
		}
		out = append(out, n.Frame(addrs[i], name, off, file, mode))
	}
	return out
}

// KernelSym implements view.Resolver.
func (n *Names) KernelSym(addr uint64) string {
	if n.t.Env.Symbol != nil {
		if name, _, _, _, ok := n.t.Env.Symbol(addr); ok {
			return name
		}
	}
	return hex(addr)
}

// UserSym implements view.Resolver.
func (n *Names) UserSym(_ int, addr uint64) string { return hex(addr) }

// Username implements view.Resolver.
func (n *Names) Username(uid uint64) string { return strconv.FormatUint(uid, 10) }

// CgroupPath implements view.Resolver.
func (n *Names) CgroupPath(_, id uint64) string { return strconv.FormatUint(id, 10) }

// Strftime implements view.Resolver: in UTC, by the recorded machine's clock.
func (n *Names) Strftime(format string, ns uint64, _ int) string {
	if n.Format == nil {
		return strconv.FormatUint(ns, 10)
	}
	return n.Format(format, time.Unix(0, int64(ns)+n.t.ToReal).UTC())
}

func hex(a uint64) string { return "0x" + strconv.FormatUint(a, 16) }
