package recorded

import (
	"context"
	"fmt"
	"strconv"
	"time"

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

	lost, gaps, nobody, anywhere uint64
	failed                       error
}

// Load puts a compiled program into the machine. cpus is how many CPUs it was built for.
func Load(w *World, info *check.Info, prog *ir.Program, obj *bpf.Object, cpus int) (*Session, error) {
	s := &Session{t: w.t, world: w, env: &vm.Env{}, cpus: cpus, units: map[*traceevent.Format][]*offline.Unit{}, names: &Names{t: w.t}}
	var err error
	if s.Machine, err = offline.Load(info, prog, obj, offline.Options{Env: s.env, CPUs: cpus}); err != nil {
		return nil, err
	}
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
	events := s.t.Events()
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
	if !ok {
		v.Comm = "<...>"
		s.nobody++
	}
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
	t *record.Trace
	// Format writes a time as strftime(3) does.
	Format func(format string, t time.Time) string
}

// KernelStack implements view.Resolver.
func (n *Names) KernelStack(addrs []uint64, _ types.StackMode) (out []string) {
	for _, a := range addrs {
		out = append(out, n.KernelSym(a))
	}
	return out
}

// UserStack implements view.Resolver.
func (n *Names) UserStack(_ int, addrs []uint64, _ types.StackMode) (out []string) {
	for _, a := range addrs {
		out = append(out, hex(a))
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
