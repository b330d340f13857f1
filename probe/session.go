package probe

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/fathom-trace/fathom/lang/check"
)

// Kprobe sessions (Linux 6.10): one program, attached once to many functions, runs at their entries and at their returns, and
// asks bpf_session_is_return() which it is. A kprobe and a kretprobe of the same functions are two programs of ours; a third
// one, which does nothing else, calls the one or the other. The kernel then hooks every function once, not twice.

// sessionKfunc tells a program of a session where it runs (kernel/trace/bpf_trace.c).
const sessionKfunc = "bpf_session_is_return"

// pair loads what can be one session as one, before anything else is loaded. What cannot stays as it is.
func (s *Session) pair() {
	for _, l := range s.units {
		if l.prog.Unit.Provider != "kprobe" || l.prog.Unit.Cookie || !sessionable(l.targets) {
			continue
		}
		ret := s.returns(l)
		if ret == nil {
			continue
		}
		id, err := s.opts.World.KfuncID(sessionKfunc)
		if err != nil {
			return // before 6.10
		}
		if p, err := s.sessionProgram(l, ret, id); err == nil {
			l.progs, l.returns, ret.entry = []*ebpf.Program{p}, ret, l
		}
	}
}

// sessionable says if all targets are beginnings of functions by name.
func sessionable(ts []check.Target) bool {
	return len(ts) > 0 && !slices.ContainsFunc(ts, func(t check.Target) bool {
		return t.Offset != 0 || t.Func == "" || t.Module != "" && t.Module != "vmlinux"
	})
}

// returns finds the one kretprobe on the same functions as l, nil if there is none or several.
func (s *Session) returns(l *loaded) *loaded {
	var found *loaded
	for _, r := range s.units {
		if r.prog.Unit.Provider != "kretprobe" || !slices.EqualFunc(l.targets, r.targets, func(a, b check.Target) bool {
			return a.Func == b.Func && a.Module == b.Module && b.Offset == 0
		}) {
			continue
		}
		if found != nil || r.prog.Unit.Cookie || r.entry != nil {
			return nil
		}
		found = r
	}
	return found
}

// sessionProgram loads the program that calls entry's or ret's.
func (s *Session) sessionProgram(entry, ret *loaded, kfunc btf.TypeID) (*ebpf.Program, error) {
	in, err := s.spec(entry.prog)
	if err != nil {
		return nil, err
	}
	out, err := s.spec(ret.prog)
	if err != nil {
		return nil, err
	}
	spec := in.Copy()
	spec.AttachType = ebpf.AttachTraceKprobeSession
	spec.Instructions, err = either(int64(kfunc), in.Instructions, out.Instructions)
	if err != nil {
		return nil, err
	}
	return load(spec)
}

// either is a program that calls in at an entry and out at a return; both become functions of it.
func either(kfunc int64, in, out asm.Instructions) (asm.Instructions, error) {
	const name, atReturn = "session", "session.return"
	main := btf.FuncMetadata(&in[0])
	if main == nil || btf.FuncMetadata(&out[0]) == nil || in[0].Symbol() == "" || in[0].Symbol() == out[0].Symbol() {
		return nil, fmt.Errorf("programs %q and %q cannot be joined", in[0].Symbol(), out[0].Symbol())
	}
	call := func(to string) asm.Instruction { return asm.Call.Label(to) }
	insns := asm.Instructions{
		btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R1).WithSymbol(name).WithSource(asm.Comment(name)), &btf.Func{Name: main.Name, Type: main.Type, Linkage: btf.GlobalFunc}),
		{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: kfunc},
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.JNE.Imm(asm.R0, 0, atReturn),
		call(in[0].Symbol()),
		asm.Mov.Imm(asm.R0, 0), // nothing else lets the return be seen
		asm.Return(),
		call(out[0].Symbol()).WithSymbol(atReturn),
		asm.Mov.Imm(asm.R0, 0),
		asm.Return(),
	}
	for i, half := range []asm.Instructions{in, out} {
		f := *btf.FuncMetadata(&half[0])
		f.Name += []string{"_entry", "_return"}[i] // the whole has the name of the kprobe's program
		f.Linkage = btf.StaticFunc                 // verified with the context that it is called with
		half[0] = btf.WithFuncMetadata(half[0], &f)
		insns = append(insns, half...)
	}
	return insns, nil
}

// attachSession attaches the program of both halves. Where the kernel refuses, they are loaded and attached as two.
func (s *Session) attachSession(l *loaded) (int, error) {
	o := link.KprobeMultiOptions{Session: true}
	for _, t := range l.targets {
		o.Symbols = append(o.Symbols, t.Func)
	}
	ret := l.returns
	lk, err := link.KprobeMulti(l.progs[0], o)
	if err == nil {
		s.keep(lk)
		s.plans = append(s.plans, fmt.Sprintf("%s and %s: kprobe.session, %d targets", l.prog.Unit.Name, ret.prog.Unit.Name, len(l.targets)))
		return len(l.targets) + len(ret.targets), nil
	}
	l.progs[0].Close()
	l.progs, l.returns, ret.entry = nil, nil, nil
	n := 0
	for _, half := range []*loaded{ret, l} {
		if err := s.loadUnit(half); err != nil {
			return n, err
		}
		k, err := s.attach(half)
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
