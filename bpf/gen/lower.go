package gen

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/ir"
)

// lowerer rewrites the functions of one unit until only what the emitter knows is left: symbolic instructions become
// context loads and helper calls, slots get places, memory operations become loads and stores.
type lowerer struct {
	unit    *ir.Unit
	bind    binding
	arch    arch
	scratch *banks
	places  map[*ir.Slot]place
	f       *ir.Func
	out     []ir.Ins       // of the block being rewritten
	ctx     ir.Reg         // entry: the context; in callbacks loaded where needed
	frame   ir.Reg         // callbacks: address of the shared slots
	big     map[int]ir.Reg // bases of this function's scratch memory, by bank
	lacks   func(fn int32) bool
	err     error
}

// place is where a slot lives: at an offset in the scratch value, in the shared frame, or on its function's own stack.
type place struct {
	big  bool
	bank int // of scratch memory
	off  int32
}

func (l *lowerer) put(n ir.Ins) { l.out = append(l.out, n) }

func (l *lowerer) fail(format string, args ...any) {
	if l.err == nil {
		l.err = fmt.Errorf(format, args...)
	}
}

// frameCtx is where the shared frame keeps the context pointer for callbacks.
const frameCtx = 8 // bytes at the start of the shared frame

func (l *lowerer) function(f *ir.Func) {
	l.f, l.ctx, l.frame, l.big = f, 0, 0, map[int]ir.Reg{}
	needCtx, needBig := l.needs(f)
	var pre []ir.Ins
	if f.Entry {
		if needCtx {
			l.ctx = f.NewReg()
			f.Params = []ir.Reg{l.ctx}
		}
		if len(l.unit.Calls) > 0 {
			a := ir.Imm(0)
			if needCtx {
				a = ir.R(l.ctx)
			}
			pre = append(pre, ir.Ins{Op: ir.Store, Size: 8, Slot: l.frameSlot(), A: a})
		}
	} else if len(f.Params) > 0 {
		l.frame = f.Params[len(f.Params)-1]
	}
	for _, bank := range needBig {
		l.big[bank] = f.NewReg()
	}
	for _, b := range f.Blocks {
		ins := b.Ins
		l.out = l.out[:0]
		for i := range ins {
			l.rewrite(&ins[i])
		}
		b.Ins = replace(ins, l.out)
	}
	l.prologue(f, pre, needBig)
}

// replace gives what a pass made of a block's instructions, in their place if there is room; made is the pass's own.
func replace(old, made []ir.Ins) []ir.Ins {
	if len(old) < len(made) {
		return append(make([]ir.Ins, 0, len(made)), made...)
	}
	return old[:copy(old, made)]
}

// frameSlot is the slot that stands for the start of the shared frame.
func (l *lowerer) frameSlot() *ir.Slot {
	for _, s := range l.unit.Slots {
		if s.Name == "frame" {
			return s
		}
	}
	s := l.unit.NewSlot("frame", frameCtx)
	s.Shared = true
	return s
}

// needs says if f wants its context, and which banks of scratch memory it touches.
func (l *lowerer) needs(f *ir.Func) (ctx bool, big []int) {
	for _, b := range f.Blocks {
		for i := range b.Ins {
			n := &b.Ins[i]
			switch n.Op {
			case ir.Ctx, ir.Arg, ir.Retval, ir.Field, ir.FuncIP, ir.CPUReg, ir.Stack, ir.Cookie:
				ctx = true
			}
			if p := l.places[n.Slot]; n.Slot != nil && p.big && !slices.Contains(big, p.bank) {
				big = append(big, p.bank)
			}
		}
	}
	if f.Entry && !ctx { // a callback may want it
		for _, c := range l.unit.Calls {
			if c, _ := l.needs(c); c {
				return true, big
			}
		}
	}
	return ctx, big
}

// prologue puts pre at the start of f, and looks scratch memory up on the way to where it is used first.
func (l *lowerer) prologue(f *ir.Func, pre []ir.Ins, banks []int) {
	for i, b := range f.Blocks {
		b.ID = i
	}
	for _, bank := range banks {
		l.lookupScratch(f, bank)
	}
	f.Blocks = append([]*ir.Block{{Ins: append(pre, ir.Ins{Op: ir.Jump, Then: f.Blocks[0]})}}, f.Blocks...)
	for i, b := range f.Blocks {
		b.ID = i
	}
}

// lookupScratch finds the scratch memory that f uses: r = map_lookup_elem(.scratch, &index). Memory that is not there
// ends the program.
func (l *lowerer) lookupScratch(f *ir.Func, bank int) {
	at, i := firstUse(f, l.big[bank])
	key := l.unit.NewSlot("scratch key of "+f.Name, 8)
	key.Element = true
	mp, kp := f.NewReg(), f.NewReg()
	none, rest := f.NewBlock(), f.NewBlock()
	none.Ins = []ir.Ins{{Op: ir.Ret, A: l.pass(f)}}
	rest.Ins = append(rest.Ins, at.Ins[i:]...)
	at.Ins = append(at.Ins[:i:i],
		ir.Ins{Op: ir.Store, Size: 4, Slot: key, A: ir.Imm(int64(l.unit.Index))},
		ir.Ins{Op: ir.MapPtr, Dst: mp, Map: l.scratch.bank(bank, 0)},
		ir.Ins{Op: ir.Addr, Dst: kp, Slot: key},
		ir.Ins{Op: ir.Call, Dst: l.big[bank], Fn: ir.FnMapLookup, Args: []ir.Val{ir.R(mp), ir.R(kp)}},
		ir.Ins{Op: ir.Branch, Cond: ir.Eq, A: ir.R(l.big[bank]), B: ir.Imm(0), Then: none, Else: rest})
}

// pass is what f returns where it cannot go on: as a callback, that the loop goes on.
func (l *lowerer) pass(f *ir.Func) ir.Val {
	if f.Entry {
		return l.unit.Pass()
	}
	return ir.Imm(0)
}

// firstUse gives the place that every use of r comes after, outside of loops.
func firstUse(f *ir.Func, r ir.Reg) (*ir.Block, int) {
	t := ir.Dominators(f)
	d := -1
	for _, b := range f.Blocks {
		for i := range b.Ins {
			b.Ins[i].Uses(func(u ir.Reg) {
				if u == r {
					d = t.Meet(d, b.ID)
				}
			})
		}
	}
	for d > 0 && circular(f, d) {
		d = t.Idom[d]
	}
	b := f.Blocks[max(d, 0)]
	for i := range b.Ins {
		found := false
		b.Ins[i].Uses(func(u ir.Reg) { found = found || u == r })
		if found {
			return b, i
		}
	}
	return b, len(b.Ins) - 1
}

// circular says if a way leads from block id back to it.
func circular(f *ir.Func, id int) bool {
	seen := make([]bool, len(f.Blocks))
	for work := []int{id}; len(work) > 0; {
		b := f.Blocks[work[len(work)-1]]
		work = work[:len(work)-1]
		for _, s := range b.Succs() {
			if s.ID == id {
				return true
			}
			if !seen[s.ID] {
				seen[s.ID] = true
				work = append(work, s.ID)
			}
		}
	}
	return false
}

// context gives a register with the program's context.
func (l *lowerer) context() ir.Reg {
	if l.f.Entry {
		return l.ctx
	}
	r := l.f.NewReg()
	l.put(ir.Ins{Op: ir.Load, Dst: r, Size: 8, Base: l.frame})
	return r
}

// addr rewrites the slot operand of n to base and offset where the slot is not in this function's own frame.
func (l *lowerer) addr(n ir.Ins) ir.Ins {
	if n.Slot == nil {
		return n
	}
	p := l.places[n.Slot]
	switch {
	case p.big:
		n.Base, n.Slot, n.Off = l.big[p.bank], nil, n.Off+p.off
	case n.Slot.Shared && !l.f.Entry:
		n.Base, n.Slot, n.Off = l.frame, nil, n.Off+p.off
	}
	return n
}

func (l *lowerer) rewrite(n *ir.Ins) {
	switch n.Op {
	case ir.Ctx:
		l.put(ir.Ins{Op: ir.Mov, Dst: n.Dst, A: ir.R(l.context())})
	case ir.Frame:
		if l.f.Entry {
			l.put(ir.Ins{Op: ir.Addr, Dst: n.Dst, Slot: l.frameSlot()})
		} else {
			l.put(ir.Ins{Op: ir.Mov, Dst: n.Dst, A: ir.R(l.frame)})
		}
	case ir.Arg:
		l.arg(n)
	case ir.Retval:
		l.retval(n)
	case ir.Field:
		l.field(n)
	case ir.CPUReg:
		if !l.bind.regs && !l.bind.words && l.bind.prog == ebpf.RawTracepoint && n.Name == "cs" {
			l.put(ir.Ins{Op: ir.Const, Dst: n.Dst, A: ir.Imm(3)}) // fathom's own call runs it: user mode
			return
		}
		off, ok := l.arch.regs[n.Name]
		if !ok {
			l.fail("%v: no register %q on this CPU", n.Span, n.Name)
		}
		l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Base: l.context(), Off: off, Span: n.Span})
	case ir.FuncIP:
		if l.bind.ip == nil {
			l.put(ir.Ins{Op: ir.Const, Dst: n.Dst})
			return
		}
		saved := l.ctx
		l.ctx = l.context()
		l.bind.ip(l, n)
		l.ctx = saved
	case ir.Cookie:
		l.put(ir.Ins{Op: ir.Call, Dst: n.Dst, Fn: ir.FnGetAttachCookie, Args: []ir.Val{ir.R(l.context())}, Span: n.Span})
	case ir.Stack:
		c := l.context()
		p := l.f.NewReg()
		m := l.addr(*n)
		l.put(ir.Ins{Op: ir.Addr, Dst: p, Base: m.Base, Slot: m.Slot, Off: m.Off})
		l.put(ir.Ins{Op: ir.Call, Dst: n.Dst, Fn: ir.FnGetStack, Span: n.Span,
			Args: []ir.Val{ir.R(c), ir.R(p), ir.Imm(n.Imm), ir.Imm(n.A.Imm)}})
	case ir.Output:
		m := l.addr(*n)
		p, mp := l.f.NewReg(), l.f.NewReg()
		size := ir.Imm(n.Imm)
		if n.B.R != 0 {
			size = n.B
		}
		l.put(ir.Ins{Op: ir.Addr, Dst: p, Base: m.Base, Slot: m.Slot, Off: m.Off})
		l.put(ir.Ins{Op: ir.MapPtr, Dst: mp, Map: n.Map})
		l.put(ir.Ins{Op: ir.Call, Dst: n.Dst, Fn: ir.FnRingbufOutput, Args: []ir.Val{ir.R(mp), ir.R(p), size, n.A}, Span: n.Span})
	case ir.Zero:
		z := l.addr(*n)
		if n.Slot != nil && z.Slot == nil && l.places[n.Slot].big {
			z.Size = anywhere
		}
		l.zero(z)
	case ir.Copy:
		l.copy(l.addr(*n))
	case ir.Bin:
		l.bin(n)
	default:
		l.put(l.addr(*n))
	}
}

func (l *lowerer) arg(n *ir.Ins) {
	c, i := l.context(), int(n.Imm)
	switch {
	case l.bind.words:
		l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Base: c, Off: int32(8 * i), Span: n.Span})
	case n.Name == ir.ArgAddress && (!l.bind.regs || i < len(l.arch.args)):
		l.fail("%v: argument %d is not in memory", n.Span, i)
	case n.Name == ir.ArgAddress:
		sp := l.f.NewReg()
		l.put(ir.Ins{Op: ir.Load, Dst: sp, Size: 8, Base: c, Off: l.arch.regs[l.arch.sp], Span: n.Span})
		l.put(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: n.Dst, A: ir.R(sp), B: ir.Imm(int64(l.arch.stackArg(i))), Span: n.Span})
	case l.bind.regs && i < len(l.arch.args):
		l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Base: c, Off: l.arch.regs[l.arch.args[i]], Span: n.Span})
	case l.bind.regs:
		l.stackArg(n, c, i)
	default:
		l.fail("%v: %s probes have no arg%d", n.Span, l.unit.Provider, i)
	}
}

// stackArg reads an argument the caller left in memory.
func (l *lowerer) stackArg(n *ir.Ins, c ir.Reg, i int) {
	sp, at, buf := l.f.NewReg(), l.f.NewReg(), l.f.NewReg()
	fn := int32(ir.FnProbeReadKernel)
	if l.unit.Provider[0] == 'u' {
		fn = ir.FnProbeReadUser
	}
	s := l.unit.NewSlot(fmt.Sprintf("arg%d", i), 8)
	l.put(ir.Ins{Op: ir.Store, Size: 8, Slot: s})
	l.put(ir.Ins{Op: ir.Load, Dst: sp, Size: 8, Base: c, Off: l.arch.regs[l.arch.sp]})
	l.put(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: at, A: ir.R(sp), B: ir.Imm(int64(l.arch.stackArg(i)))})
	l.put(ir.Ins{Op: ir.Addr, Dst: buf, Slot: s})
	l.put(ir.Ins{Op: ir.Call, Fn: fn, Args: []ir.Val{ir.R(buf), ir.Imm(8), ir.R(at)}, Span: n.Span})
	l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Slot: s})
}

func (l *lowerer) retval(n *ir.Ins) {
	c := l.context()
	switch {
	case l.bind.words: // after the arguments, of which there are Imm
		l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Base: c, Off: int32(8 * n.Imm), Span: n.Span})
	case l.bind.regs:
		l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Base: c, Off: l.arch.regs[l.arch.ret], Span: n.Span})
	default:
		l.fail("%v: %s probes have no retval", n.Span, l.unit.Provider)
	}
}

// field reads a field of a tracepoint's event, or with Size 0 gives its address.
func (l *lowerer) field(n *ir.Ins) {
	c := l.context()
	if n.Size == 0 {
		l.put(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: n.Dst, A: ir.R(c), B: ir.Imm(int64(n.Off)), Span: n.Span})
		return
	}
	l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: n.Size, Signed: n.Signed, Base: c, Off: n.Off, Span: n.Span})
}

// anywhere as the Size of a Zero says that its place need not be aligned: in map memory, on CPUs that we know.
const anywhere = 1

// zero clears Imm bytes: loops are made before.
func (l *lowerer) zero(n ir.Ins) {
	at := int64(n.Off)
	if n.Size == anywhere {
		at = 0
	}
	for off := int64(0); off < n.Imm; {
		size := chunk(n.Imm-off, at+off, 8)
		l.put(ir.Ins{Op: ir.Store, Size: size, Base: n.Base, Slot: n.Slot, Off: n.Off + int32(off), Span: n.Span})
		off += int64(size)
	}
}

// inlineCopy is the number of bytes above which the kernel copies for us.
const inlineCopy = 128

// copy moves Imm bytes between places the program may access directly.
func (l *lowerer) copy(n ir.Ins) {
	if n.Imm > inlineCopy {
		p := l.f.NewReg()
		l.put(ir.Ins{Op: ir.Addr, Dst: p, Base: n.Base, Slot: n.Slot, Off: n.Off})
		l.put(ir.Ins{Op: ir.Call, Fn: ir.FnProbeReadKernel, Args: []ir.Val{ir.R(p), ir.Imm(n.Imm), n.A}, Span: n.Span})
		return
	}
	for off := int64(0); off < n.Imm; {
		size := chunk(n.Imm-off, off, n.Size)
		r := l.f.NewReg()
		l.put(ir.Ins{Op: ir.Load, Dst: r, Size: size, Base: n.A.R, Off: int32(off), Span: n.Span})
		l.put(ir.Ins{Op: ir.Store, Size: size, Base: n.Base, Slot: n.Slot, Off: n.Off + int32(off), A: ir.R(r), Span: n.Span})
		off += int64(size)
	}
}

// chunk gives the largest access of at most most bytes that fits what is left and the alignment of off.
func chunk(left, off int64, most uint8) uint8 {
	for _, s := range []int64{8, 4, 2} {
		if s <= int64(most) && left >= s && off%s == 0 {
			return uint8(s)
		}
	}
	return 1
}

// bin replaces signed division, which the instruction set has only since Linux 6.6, by one on magnitudes.
func (l *lowerer) bin(n *ir.Ins) {
	if n.Alu != ir.SDiv && n.Alu != ir.SMod {
		l.put(*n)
		return
	}
	op := func(alu ir.Alu, a, b ir.Val) ir.Val {
		r := l.f.NewReg()
		l.put(ir.Ins{Op: ir.Bin, Alu: alu, Dst: r, A: a, B: b, Span: n.Span})
		return ir.R(r)
	}
	abs := func(v ir.Val) (mag, sign ir.Val) {
		sign = op(ir.Sar, v, ir.Imm(63))
		return op(ir.Sub, op(ir.Xor, v, sign), sign), sign
	}
	a, sa := abs(n.A)
	b, sb := abs(n.B)
	alu, sign := ir.Mod, sa
	if n.Alu == ir.SDiv {
		alu, sign = ir.Div, op(ir.Xor, sa, sb)
	}
	q := op(ir.Xor, op(alu, a, b), sign)
	l.put(ir.Ins{Op: ir.Bin, Alu: ir.Sub, Dst: n.Dst, A: q, B: sign, Span: n.Span})
}
