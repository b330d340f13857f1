// Package unwind walks the stacks of a kernel with its own unwind tables (ORC), as arch/x86/kernel/unwind_orc.c does for a
// running one: out of tasks that sleep, and out of CPUs with the registers they had, through interrupts, exceptions and
// modules, to the outermost frame.
//
// A frame that the tables vouch for is certain. Where they say nothing, the stack is scanned for the next return address
// that a call precedes and that the tables know. Frames found so are marked scanned, and so are those behind them, which
// stand on the guess. Nothing else is shown.
package unwind

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/kernel"
)

// Frame is one function on a stack.
type Frame struct {
	PC      uint64
	SP      uint64
	Call    bool         // PC is a return address: the call is before it
	Scanned bool         // found by scanning, or from a frame that was; false: certain
	Regs    *kernel.Regs // the registers an interrupt or exception saved here; what is above it was interrupted
	RegsAt  uint64       // where on the stack they stand
}

// Stack is what could be unwound.
type Stack struct {
	Frames []Frame
	End    End
	Err    error // for Broken: why
}

// End is how a stack ended.
type End string

// The ends.
const (
	Outermost End = "outermost" // the tables say so
	User      End = "user"      // the task came from user mode here
	Broken    End = "broken"    // no way on
	Released  End = "released"  // a task that has exited has no stack any more: others have its memory
)

// maxFrames bounds a stack; an overflow of 16 KiB has no more than a return address every 8 bytes.
const maxFrames = 4096

// scanBytes is how far a scan looks for a return address.
const scanBytes = 16 << 10

// Task unwinds a task that is not running, from what the scheduler saved.
func Task(t kernel.Target, task kernel.Value) Stack {
	if refs := task.Get("stack_refcount"); task.Has("stack_refcount") && refs.Get("refs.counter").Uint() == 0 {
		return Stack{End: Released} // CONFIG_THREAD_INFO_IN_TASK, since 4.9
	}
	sp := task.Get("thread.sp").Uint()
	var errs kernel.Errors
	f := kernel.Object(t, &errs, "struct inactive_task_frame", sp)
	s := switched(t, f.Get("ret_addr").Uint(), f.Get("bp").Uint(), f.Get("ret_addr").Addr+8)
	if err := errs.Take(); err != nil {
		return Stack{End: Broken, Err: err}
	}
	return s.run()
}

// switched is where a task goes on that is not running: behind a call, or at the begin of ret_from_fork if it has never run
// (copy_thread in arch/x86/kernel/process.c), which nothing called.
func switched(t kernel.Target, pc, bp, sp uint64) *state {
	y, ok := t.Symbols().At(pc)
	return &state{t: t, pc: pc, bp: bp, sp: sp, call: !ok || y.Addr != pc}
}

// From unwinds from a CPU's registers.
func From(t kernel.Target, r kernel.Regs) Stack {
	s := state{t: t}
	s.setRegs(r)
	if r["cs"]&3 != 0 {
		return Stack{End: User}
	}
	return s.run()
}

// state is the registers of one frame, as far as they are known.
type state struct {
	t          kernel.Target
	pc, sp, bp uint64
	regs       kernel.Regs // other registers, only in frames that were interrupted
	call       bool
	out        Stack
	scanned    bool
	saved      *kernel.Regs
	savedAt    uint64
}

func (s *state) setRegs(r kernel.Regs) {
	s.pc, s.sp, s.bp, s.regs, s.call = r["rip"], r["rsp"], r["rbp"], r, false
}

func (s *state) run() Stack {
	seen := map[[2]uint64]bool{}
	for len(s.out.Frames) < maxFrames {
		at := [2]uint64{s.pc, s.sp}
		if seen[at] {
			s.end(Broken, fmt.Errorf("the stack comes back to %#x", s.sp))
			return s.out
		}
		seen[at] = true
		s.out.Frames = append(s.out.Frames, Frame{PC: s.pc, SP: s.sp, Call: s.call, Scanned: s.scanned, Regs: s.saved, RegsAt: s.savedAt})
		s.saved, s.savedAt = nil, 0
		if s.step() {
			return s.out
		}
	}
	s.end(Broken, fmt.Errorf("more than %d frames", maxFrames))
	return s.out
}

func (s *state) end(e End, err error) bool {
	s.out.End, s.out.Err = e, err
	return true
}

// step goes to the caller's frame, and reports the end.
func (s *state) step() bool {
	e, ok := s.entry()
	if !ok || e.Type == orc.None {
		return s.scan(fmt.Errorf("no unwind entry for %#x", s.pc))
	}
	if e.Type == orc.EndOfStack && s.inThunk() {
		e = calledOnly
	} else if e.Type == orc.EndOfStack {
		return s.end(Outermost, nil)
	}
	cfa, err := s.base(e)
	if err != nil {
		return s.scan(err)
	}
	before := s.sp
	switch e.Type {
	case orc.Call:
		pc, err := s.load(cfa - 8)
		if err != nil {
			return s.end(Broken, err)
		}
		if pc != 0 && s.t.Unwind(pc-1) == nil && !s.call5(pc) {
			// Where a CPU was between two tasks, or fills its return stack (FILL_RETURN_BUFFER), the tables can be wrong.
			return s.scan(fmt.Errorf("%#x at %#x is no return address", pc, cfa-8))
		}
		if err := s.frame(e, cfa); err != nil {
			return s.end(Broken, err)
		}
		s.pc, s.sp, s.call, s.regs = pc, cfa, true, nil
	case orc.Regs, orc.RegsPartial:
		return s.interrupted(cfa, e)
	}
	if s.pc == 0 {
		return s.end(Broken, fmt.Errorf("return address 0 at %#x", cfa-8))
	}
	if e.SPReg == orc.SP && s.sp <= before { // on one stack callers are above; the other bases may change stacks
		return s.end(Broken, fmt.Errorf("stack pointer does not move up at %#x", before))
	}
	return false
}

// calledOnly is the entry of what has been called and has done nothing yet.
var calledOnly = orc.Entry{SPReg: orc.SP, SPOffset: 8, Type: orc.Call}

// inThunk says that a CPU was at the begin of a thunk for indirect calls (arch/x86/lib/retpoline.S), where the tables have an
// outermost frame: a panic that waits comes by one all the time.
func (s *state) inThunk() bool {
	if s.call {
		return false
	}
	y, ok := s.t.Symbols().At(s.pc)
	return ok && strings.HasPrefix(y.Name, "__x86_indirect_")
}

// entry finds what the tables say of this frame. A call from a jump through a null pointer pushed its return address and
// nothing else: the kernel unwinds it with an entry of its own, and so do we.
func (s *state) entry() (orc.Entry, bool) {
	if s.pc == 0 {
		return calledOnly, true
	}
	at := s.pc
	if s.call {
		at--
	}
	tab := s.t.Unwind(at)
	if tab == nil {
		return orc.Entry{}, false
	}
	return tab.Lookup(at)
}

// base computes the address that an entry's type stands at.
func (s *state) base(e orc.Entry) (uint64, error) {
	off := uint64(int64(e.SPOffset))
	named := map[orc.Reg]string{orc.R10: "r10", orc.R13: "r13", orc.DI: "rdi", orc.DX: "rdx"}
	switch e.SPReg {
	case orc.SP:
		return s.sp + off, nil
	case orc.BP:
		return s.bp + off, nil
	case orc.SPIndirect:
		v, err := s.load(s.sp)
		return v + off, err
	case orc.BPIndirect:
		return s.load(s.bp + off)
	case orc.R10, orc.R13, orc.DI, orc.DX:
		if v, ok := s.regs[named[e.SPReg]]; ok {
			return v, nil
		}
		return 0, fmt.Errorf("unwinding %#x needs %s, which is not known", s.pc, named[e.SPReg])
	}
	return 0, fmt.Errorf("unwind entry for %#x has base %d", s.pc, e.SPReg)
}

// frame finds the caller's frame pointer.
func (s *state) frame(e orc.Entry, cfa uint64) (err error) {
	switch e.BPReg {
	case orc.PrevSP:
		s.bp, err = s.load(cfa + uint64(int64(e.BPOffset)))
	case orc.BP:
		s.bp, err = s.load(s.bp + uint64(int64(e.BPOffset)))
	}
	return err
}

// ptRegs are the members of struct pt_regs by the names that [kernel.Regs] has.
var ptRegs = [][2]string{{"r15", "r15"}, {"r14", "r14"}, {"r13", "r13"}, {"r12", "r12"}, {"bp", "rbp"}, {"bx", "rbx"},
	{"r11", "r11"}, {"r10", "r10"}, {"r9", "r9"}, {"r8", "r8"}, {"ax", "rax"}, {"cx", "rcx"}, {"dx", "rdx"}, {"si", "rsi"},
	{"di", "rdi"}, {"orig_ax", "orig_rax"}, {"ip", "rip"}, {"cs", "cs"}, {"flags", "eflags"}, {"sp", "rsp"}, {"ss", "ss"}}

// PtRegs reads a struct pt_regs.
func PtRegs(t kernel.Target, addr uint64) (kernel.Regs, error) {
	var errs kernel.Errors
	v := kernel.Object(t, &errs, "struct pt_regs", addr)
	r := kernel.Regs{}
	for _, m := range ptRegs {
		r[m[1]] = v.Get(m[0]).Uint()
	}
	return r, errs.Take()
}

// interrupted goes on with the registers that an interrupt, exception or system call saved.
func (s *state) interrupted(at uint64, e orc.Entry) bool {
	var errs kernel.Errors
	ip := kernel.Object(s.t, &errs, "struct pt_regs", 0).Get("ip")
	if err := errs.Take(); err != nil {
		return s.end(Broken, err)
	}
	if e.Type == orc.RegsPartial {
		at -= ip.Addr
	}
	r, err := PtRegs(s.t, at)
	if err != nil {
		return s.end(Broken, err)
	}
	if e.Type == orc.RegsPartial { // the rest of it is not written yet, or not any more
		full := r
		r = kernel.Regs{"rbp": s.bp}
		for _, k := range []string{"rip", "cs", "eflags", "rsp", "ss"} {
			r[k] = full[k]
		}
	}
	last := &s.out.Frames[len(s.out.Frames)-1]
	last.Regs, last.RegsAt = &r, at
	if r["cs"]&3 != 0 {
		return s.end(User, nil)
	}
	if r["rip"] == 0 && r["rsp"] == 0 {
		return s.end(Broken, fmt.Errorf("no registers at %#x", at))
	}
	s.setRegs(r)
	return false
}

// scan looks for the next return address on the stack that a call precedes and the tables know.
func (s *state) scan(why error) bool {
	for at := (s.sp + 7) &^ 7; at < s.sp+scanBytes; at += 8 {
		pc, err := s.load(at)
		if err != nil {
			break
		}
		if !s.called(pc) {
			continue
		}
		s.pc, s.sp, s.call, s.regs, s.scanned = pc, at+8, true, nil, true
		return false
	}
	return s.end(Broken, why)
}

// called says if pc follows a direct call instruction, e8 and four bytes, and has an unwind entry that goes on from SP.
func (s *state) called(pc uint64) bool {
	tab := s.t.Unwind(pc - 1)
	if tab == nil {
		return false
	}
	if e, ok := tab.Lookup(pc - 1); !ok || e.Type != orc.Call {
		return false
	}
	return s.call5(pc)
}

// call5 says if a direct call instruction is before pc.
func (s *state) call5(pc uint64) bool {
	var b [5]byte
	return s.t.ReadVirt(b[:], pc-5) == nil && b[0] == 0xe8
}

func (s *state) load(addr uint64) (uint64, error) {
	var b [8]byte
	if err := s.t.ReadVirt(b[:], addr); err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}
