package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// fn builds one function.
type fn struct {
	b        *builder
	in       *check.Instance
	u        *ir.Unit
	f        *ir.Func
	blk      *ir.Block
	span     syntax.Span
	vars     map[*check.Var]storage // shared by the functions of a unit
	captured map[*check.Var]bool
	loops    []loop
	parent   *fn
	tmp      []*ir.Slot // temporaries of the statement being built
	free     map[int][]*ir.Slot
	retFlag  *ir.Slot // set when a callback returned from the whole program
	unused   bool     // the value of the expression being built is not wanted
	loose    bool     // bytes behind the end of the string being built are not looked at
}

// loop is what break and continue mean.
type loop struct {
	brk, cont *ir.Block // in-function loops (unroll)
	callback  bool      // continue returns 0, break returns 1
}

// storage is where a scratch variable lives, and the function that it was made for: the body of a loop that is unrolled
// becomes several functions, each with variables of its own.
type storage struct {
	reg  ir.Reg
	slot *ir.Slot
	f    *ir.Func
}

// mem is a place a program may access directly.
type mem struct {
	slot *ir.Slot
	base ir.Reg
	off  int32
}

func (m mem) at(off int) mem { m.off += int32(off); return m }

func slotMem(s *ir.Slot) mem { return mem{slot: s} }

func (x *fn) add(n ir.Ins) {
	if x.blk.Term() != nil { // unreachable: after a return
		x.blk = x.f.NewBlock()
	}
	n.Span = x.span
	x.blk.Ins = append(x.blk.Ins, n)
}

func (x *fn) bin(op ir.Alu, a, b ir.Val) ir.Val {
	if a.IsImm() && b.IsImm() {
		return ir.Imm(op.Eval(a.Imm, b.Imm))
	}
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Bin, Alu: op, Dst: d, A: a, B: b})
	return ir.R(d)
}

func (x *fn) ext(a ir.Val, size int, signed bool) ir.Val {
	if size >= 8 || size == 0 {
		return a
	}
	if a.IsImm() {
		return ir.Imm(ir.Extend(a.Imm, uint8(size), signed))
	}
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Ext, Dst: d, A: a, Size: uint8(size), Signed: signed})
	return ir.R(d)
}

func (x *fn) load(m mem, size int, signed bool) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Load, Dst: d, Size: uint8(size), Signed: signed, Slot: m.slot, Base: m.base, Off: m.off})
	return ir.R(d)
}

func (x *fn) store(m mem, size int, v ir.Val) {
	x.add(ir.Ins{Op: ir.Store, Size: uint8(size), Slot: m.slot, Base: m.base, Off: m.off, A: v})
}

func (x *fn) zero(m mem, n int) {
	if n > 0 {
		x.add(ir.Ins{Op: ir.Zero, Imm: int64(n), Slot: m.slot, Base: m.base, Off: m.off})
	}
}

func (x *fn) addr(m mem) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Addr, Dst: d, Slot: m.slot, Base: m.base, Off: m.off})
	return ir.R(d)
}

// copyMem copies n bytes between directly accessible places.
func (x *fn) copyMem(dst, src mem, n int) { x.copyAligned(dst, src, n, 8) }

// copyAligned is copyMem where addresses are known to be multiples of align only, beside their offsets.
func (x *fn) copyAligned(dst, src mem, n, align int) {
	if n > 0 {
		x.add(ir.Ins{Op: ir.Copy, Imm: int64(n), Slot: dst.slot, Base: dst.base, Off: dst.off, A: x.addr(src),
			Size: uint8(lowBit(int(dst.off) | int(src.off) | align))})
	}
}

// lowBit gives the largest power of two that divides n, at most 8: how an offset is aligned.
func lowBit(n int) int {
	if n == 0 {
		return 8
	}
	return min(8, n&-n)
}

func (x *fn) call(helper int32, args ...ir.Val) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Call, Dst: d, Fn: helper, Args: args})
	return ir.R(d)
}

func (x *fn) mapPtr(m *ir.Map) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.MapPtr, Dst: d, Map: m})
	return ir.R(d)
}

func (x *fn) reg(v ir.Val) ir.Reg {
	if !v.IsImm() {
		return v.R
	}
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Const, Dst: d, A: v})
	return d
}

// mov assigns a register that may be assigned elsewhere too.
func (x *fn) mov(d ir.Reg, v ir.Val) {
	if v.IsImm() {
		x.add(ir.Ins{Op: ir.Const, Dst: d, A: v})
		return
	}
	x.add(ir.Ins{Op: ir.Mov, Dst: d, A: v})
}

func (x *fn) jump(to *ir.Block) {
	if x.blk.Term() == nil {
		x.blk.Ins = append(x.blk.Ins, ir.Ins{Op: ir.Jump, Then: to, Span: x.span})
	}
}

func (x *fn) branch(c ir.Cond, a, b ir.Val, then, els *ir.Block) {
	if x.blk.Term() == nil {
		if a.IsImm() {
			a = ir.R(x.reg(a))
		}
		x.blk.Ins = append(x.blk.Ins, ir.Ins{Op: ir.Branch, Cond: c, A: a, B: b, Then: then, Else: els, Span: x.span})
	}
}

func (x *fn) ret(v ir.Val) {
	if x.blk.Term() == nil {
		x.blk.Ins = append(x.blk.Ins, ir.Ins{Op: ir.Ret, A: v, Span: x.span})
	}
}

func (x *fn) block() *ir.Block { return x.f.NewBlock() }
func (x *fn) at(b *ir.Block)   { x.blk = b }

// temp gives a slot for the length of the current statement. Slots are reused between statements.
func (x *fn) temp(size int) *ir.Slot {
	n := (size + 7) &^ 7
	if l := x.free[n]; len(l) > 0 {
		s := l[len(l)-1]
		x.free[n] = l[:len(l)-1]
		x.tmp = append(x.tmp, s)
		return s
	}
	s := x.u.NewSlot("tmp", n)
	x.tmp = append(x.tmp, s)
	return s
}

// endStmt gives the temporaries taken since mark back.
func (x *fn) endStmt(mark int) {
	if x.free == nil {
		x.free = map[int][]*ir.Slot{}
	}
	for _, s := range x.tmp[mark:] {
		x.free[s.Size] = append(x.free[s.Size], s)
	}
	x.tmp = x.tmp[:mark]
}

// count adds 1 to a counter of this unit: on paths that lose or filter only.
func (x *fn) count(counter int) { x.add(ir.Ins{Op: ir.Count, Imm: int64(counter)}) }

// orCount counts when rc, a helper's result, is negative.
func (x *fn) orCount(rc ir.Val, counter int) {
	bad, end := x.block(), x.block()
	x.branch(ir.SLt, rc, ir.Imm(0), bad, end)
	x.at(bad)
	x.count(counter)
	x.jump(end)
	x.at(end)
}

// predicate ends the program unless e is true.
func (x *fn) predicate(e syntax.Expr) {
	x.span = e.Where()
	yes, no := x.block(), x.block()
	mark := len(x.tmp)
	x.cond(e, yes, no)
	x.at(no)
	x.count(ir.Filtered)
	x.ret(x.u.Pass())
	x.at(yes)
	x.endStmt(mark)
}

// flushAlways gives blocks without an end one: they are never reached, but BPF wants them to end.
func (x *fn) flushAlways() {
	for _, b := range x.f.Blocks {
		if b.Term() == nil {
			b.Ins = append(b.Ins, ir.Ins{Op: ir.Ret})
		}
	}
	x.f.Prune()
}

// typeOf gives the type the checker found for e.
func (x *fn) typeOf(e syntax.Expr) *types.Type {
	if t := x.in.Types[e]; t != nil {
		return t
	}
	return types.NoneT
}
