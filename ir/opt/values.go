package opt

import (
	"math"

	"github.com/fathom-trace/fathom/ir"
)

// values replaces values by simpler ones that are equal: constants are computed, copies read at their source, an
// expression computed before is not computed again, what the ranges of values decide is decided. It walks the tree of
// dominators, so that what it knows holds on every way to where it is.
func values(f *ir.Func) bool {
	v := &valuer{g: analyse(f), f: f, exprs: map[expr]earlier{}}
	v.to = make([]ir.Val, f.Regs+1)
	v.moved = ir.NewRegSet(f.Regs)
	v.spans = make([]span, f.Regs+1)
	v.ends = make([]int, len(f.Blocks))
	for i := range v.spans {
		v.spans[i] = anything
	}
	v.count()
	v.block(f.Blocks[0])
	return v.changed
}

type valuer struct {
	g       *graph
	f       *ir.Func
	to      []ir.Val  // by plain register: what it is a copy of
	moved   ir.RegSet // registers that are
	spans   []span    // by plain register
	uses    []int32
	exprs   map[expr]earlier
	copies  map[ir.Reg]ir.Val // in this block, of registers that are not plain
	clock   int               // changes with each call, and where ways meet
	ticks   int
	ends    []int // by block: the clock at its end
	undo    []func()
	changed bool
}

// expr is a computation by what it does.
type expr struct {
	op     ir.Op
	alu    ir.Alu
	size   uint8
	signed bool
	a, b   ir.Val
	slot   *ir.Slot
	off    int32
	imm    int64
	fn     int32
	name   string
}

// earlier is an expression that was computed: by whom, and when.
type earlier struct {
	r     ir.Reg
	clock int
}

func (v *valuer) count() {
	v.uses = make([]int32, v.f.Regs+1)
	for _, b := range v.f.Blocks {
		for i := range b.Ins {
			b.Ins[i].Uses(func(r ir.Reg) { v.uses[r]++ })
		}
	}
}

func (v *valuer) block(b *ir.Block) {
	mark := len(v.undo)
	v.entry(b)
	v.copies = nil
	if p := v.g.Preds[b.ID]; len(p) == 1 {
		v.clock = v.ends[p[0].ID]
	} else {
		v.tick()
	}
	for i := range b.Ins {
		v.ins(&b.Ins[i])
	}
	v.ends[b.ID] = v.clock
	for _, k := range v.g.Kids[b.ID] {
		v.block(v.f.Blocks[k])
	}
	for len(v.undo) > mark {
		v.undo[len(v.undo)-1]()
		v.undo = v.undo[:len(v.undo)-1]
	}
}

func (v *valuer) tick() {
	v.ticks++
	v.clock = v.ticks
}

// entry learns from the branch that alone leads to b.
func (v *valuer) entry(b *ir.Block) {
	preds := v.g.Preds[b.ID]
	if len(preds) != 1 {
		return
	}
	t := preds[0].Term()
	if t.Op != ir.Branch || t.Then == t.Else || t.Size == 4 || !v.g.plain.Has(t.A.R) {
		return
	}
	n, ok := v.constant(t.B)
	if !ok {
		return
	}
	c := t.Cond
	if t.Else == b {
		if c == ir.Set {
			return
		}
		c = c.Not()
	}
	r := t.A.R
	old := v.spans[r]
	now := old.given(c, n)
	if now.empty() || now == old {
		return
	}
	v.spans[r] = now
	v.undo = append(v.undo, func() { v.spans[r] = old })
}

// constant gives the number an operand is known to be.
func (v *valuer) constant(a ir.Val) (int64, bool) {
	if a.IsImm() {
		return a.Imm, true
	}
	if d := v.g.def(a.R); d != nil && d.Op == ir.Const {
		return d.A.Imm, true
	}
	return 0, false
}

func (v *valuer) span(a ir.Val) span {
	switch {
	case a.IsImm():
		return exactly(a.Imm)
	case v.g.plain.Has(a.R):
		return v.spans[a.R]
	}
	return anything
}

func (v *valuer) ins(n *ir.Ins) {
	v.operands(n)
	before := *n
	v.simplify(n)
	v.place(n)
	if n.Op != before.Op || n.Alu != before.Alu || n.A != before.A || n.B != before.B || n.Slot != before.Slot || n.Base != before.Base ||
		n.Off != before.Off || n.Cond != before.Cond || n.Size != before.Size {
		v.changed = true
	}
	if n.Op == ir.Call {
		v.tick()
	}
	if n.Dst != 0 {
		v.assigned(n)
	}
}

// operands reads copies at their source. A constant too wide for an instruction stays in its register.
func (v *valuer) operands(n *ir.Ins) {
	n.Replace(func(r ir.Reg) ir.Val {
		s := v.source(r)
		if s.IsImm() && (n.Op == ir.Branch && n.A.R == r || n.Op == ir.Copy) {
			return ir.R(r)
		}
		if s != ir.R(r) {
			v.changed = true
		}
		return s
	})
	if n.Op == ir.Output && n.B.R == 0 && n.B.Imm != 0 {
		n.Imm, n.B.Imm = n.B.Imm, 0
	}
	if n.Base != 0 {
		if s := v.source(n.Base); s.R != 0 && s.R != n.Base {
			n.Base = s.R
			v.changed = true
		}
	}
}

func (v *valuer) source(r ir.Reg) ir.Val {
	if v.moved.Has(r) {
		return v.to[r]
	}
	if s, ok := v.copies[r]; ok {
		return s
	}
	return ir.R(r)
}

// assigned notes what n gives its register.
func (v *valuer) assigned(n *ir.Ins) {
	d := n.Dst
	if !v.g.plain.Has(d) {
		v.forget(d)
		if v.isCopy(n) && n.A.R != d {
			v.copy(d, n.A)
		}
		return
	}
	s := spanOf(n, v.span(n.A), v.span(n.B))
	v.spans[d] = s
	switch {
	case v.isCopy(n) && (n.A.IsImm() || v.g.plain.Has(n.A.R)):
		v.to[d] = n.A
		v.moved.Add(d)
	case v.isCopy(n):
		v.copy(d, n.A)
	default:
		v.reuse(n)
	}
}

// isCopy says if n only moves a value that can stand where its register does.
func (v *valuer) isCopy(n *ir.Ins) bool {
	return n.Op == ir.Mov && (n.A.R != 0 || narrow(n.A.Imm)) || n.Op == ir.Const && narrow(n.A.Imm)
}

// narrow says if a number fits the immediate of an instruction.
func narrow(n int64) bool { return n >= math.MinInt32 && n <= math.MaxInt32 }

func (v *valuer) copy(d ir.Reg, s ir.Val) {
	if v.copies == nil {
		v.copies = map[ir.Reg]ir.Val{}
	}
	v.copies[d] = s
}

// forget drops copies of and in a register that changes.
func (v *valuer) forget(d ir.Reg) {
	delete(v.copies, d)
	for r, s := range v.copies {
		if s.R == d {
			delete(v.copies, r)
		}
	}
}

// reuse looks for an earlier computation of the same, or notes this one.
func (v *valuer) reuse(n *ir.Ins) {
	dear, ok := v.shareable(n)
	if !ok {
		return
	}
	e := expr{op: n.Op, alu: n.Alu, size: n.Size, signed: n.Signed, a: n.A, b: n.B, slot: n.Slot, off: n.Off, imm: n.Imm, fn: n.Fn, name: n.Name}
	if k, found := v.exprs[e]; found && (dear || k.clock == v.clock) {
		d := n.Dst
		*n = ir.Ins{Op: ir.Mov, Dst: d, A: ir.R(k.r), Span: n.Span}
		v.to[d] = n.A
		v.moved.Add(d)
		v.spans[d] = v.spans[k.r]
		v.changed = true
		return
	}
	old, had := v.exprs[e]
	v.exprs[e] = earlier{n.Dst, v.clock}
	v.undo = append(v.undo, func() {
		if delete(v.exprs, e); had {
			v.exprs[e] = old
		}
	})
}

// shareable says if n computes the same from the same operands each time, and if that is dear: worth a register that is
// kept over calls.
func (v *valuer) shareable(n *ir.Ins) (dear, ok bool) {
	plain := func(a ir.Val) bool { return a.R == 0 || v.g.plain.Has(a.R) }
	switch n.Op {
	case ir.Call:
		return true, len(n.Args) == 0 && ir.Steady(n.Fn)
	case ir.FuncIP, ir.Cookie:
		return true, true
	case ir.Bin:
		return n.Alu == ir.Div || n.Alu == ir.SDiv || n.Alu == ir.Mod || n.Alu == ir.SMod, plain(n.A) && plain(n.B)
	case ir.Ext, ir.Bswap:
		return false, plain(n.A)
	case ir.Arg, ir.Retval, ir.Field, ir.CPUReg:
		return false, true
	}
	return false, false
}
