package opt

import (
	"math"

	"github.com/fathom-trace/fathom/ir"
)

// simplify makes n cheaper by what is known of its operands.
func (v *valuer) simplify(n *ir.Ins) {
	switch n.Op {
	case ir.Bin:
		v.bin(n)
	case ir.Ext:
		v.ext(n)
	case ir.Bswap:
		if n.A.IsImm() {
			v.number(n, bswap(n.A.Imm, n.Size))
		}
	case ir.Branch:
		v.branch(n)
	case ir.Store, ir.AtomicAdd:
		n.A = v.low(n.A, n.Size)
	}
}

func (v *valuer) number(n *ir.Ins, c int64) {
	*n = ir.Ins{Op: ir.Const, Dst: n.Dst, A: ir.Imm(c), Span: n.Span}
}

func (v *valuer) move(n *ir.Ins, a ir.Val) {
	*n = ir.Ins{Op: ir.Mov, Dst: n.Dst, A: a, Span: n.Span}
}

func bswap(a int64, size uint8) int64 {
	var r int64
	for i := range size {
		r = r<<8 | a>>(8*i)&0xff
	}
	return r
}

func (v *valuer) ext(n *ir.Ins) {
	if c, ok := v.constant(n.A); ok {
		v.number(n, ir.Extend(c, n.Size, n.Signed))
		return
	}
	if v.span(n.A).fits(n.Size, n.Signed) {
		v.move(n, n.A)
		return
	}
	n.A = v.low(n.A, n.Size)
}

// low gives a value with the same low size bytes: what only cuts or extends above them is left out.
func (v *valuer) low(a ir.Val, size uint8) ir.Val {
	if a.IsImm() {
		return a
	}
	for range 8 {
		d := v.g.def(a.R)
		if d == nil || d.A.R == 0 || !v.g.plain.Has(d.A.R) {
			break
		}
		mask := uint64(math.MaxUint64) >> (64 - 8*uint(size))
		switch {
		case d.Op == ir.Ext && d.Size >= size:
		case d.Op == ir.Bin && d.Alu == ir.And && d.B.IsImm() && uint64(d.B.Imm)&mask == mask:
		default:
			return a
		}
		a = d.A
	}
	return a
}

func (v *valuer) bin(n *ir.Ins) {
	a, aok := v.constant(n.A)
	b, bok := v.constant(n.B)
	if aok && bok {
		v.number(n, n.Alu.Eval(a, b))
		return
	}
	if aok && n.Alu.Commutes() {
		n.A, n.B = n.B, n.A
		a, aok, b, bok = b, bok, a, aok
	}
	if n.A == n.B && n.A.R != 0 {
		switch n.Alu {
		case ir.And, ir.Or:
			v.move(n, n.A)
			return
		case ir.Xor, ir.Sub:
			v.number(n, 0)
			return
		}
	}
	if !bok {
		v.unsigned(n)
		return
	}
	if n.Alu == ir.Sub && narrow(b) && narrow(-b) {
		n.Alu, n.B = ir.Add, ir.Imm(-b)
		b = -b
	}
	v.chain(n, b)
	b, _ = v.constant(n.B)
	v.byConstant(n, b)
}

// chain joins two operations with constants into one: (x + 1) + 2 is x + 3.
func (v *valuer) chain(n *ir.Ins, b int64) {
	d := v.g.def(n.A.R)
	if d == nil || d.Op != ir.Bin || d.Alu != n.Alu || !d.B.IsImm() || d.A.R == 0 || !v.g.plain.Has(d.A.R) {
		return
	}
	switch n.Alu {
	case ir.Add, ir.And, ir.Or, ir.Xor, ir.Mul:
		if c := n.Alu.Eval(d.B.Imm, b); narrow(c) {
			n.A, n.B = d.A, ir.Imm(c)
		}
	case ir.Shl, ir.Shr:
		if c := d.B.Imm&63 + b&63; c < 64 {
			n.A, n.B = d.A, ir.Imm(c)
		}
	}
}

// byConstant simplifies an operation whose second operand is b.
func (v *valuer) byConstant(n *ir.Ins, b int64) {
	switch n.Alu {
	case ir.Shl, ir.Shr, ir.Sar:
		b &= 63
		n.B = ir.Imm(b)
	}
	k, power := log2(b)
	switch n.Alu {
	case ir.Add, ir.Or, ir.Xor, ir.Shl, ir.Shr, ir.Sar:
		if b == 0 {
			v.move(n, n.A)
		}
	case ir.Mul:
		v.mul(n, b, k, power)
	case ir.And:
		v.and(n, b)
	case ir.Div, ir.Mod, ir.SDiv, ir.SMod:
		v.divide(n, b)
	}
	if n.Op == ir.Bin && n.Alu == ir.Sar && v.span(n.A).slo >= 0 {
		n.Alu = ir.Shr
	}
	if n.Op == ir.Bin && n.Alu == ir.Add {
		v.addAddress(n, b)
	}
}

func (v *valuer) mul(n *ir.Ins, b, k int64, power bool) {
	switch {
	case b == 0:
		v.number(n, 0)
	case b == 1:
		v.move(n, n.A)
	case power:
		n.Alu, n.B = ir.Shl, ir.Imm(k)
	}
}

func (v *valuer) and(n *ir.Ins, b int64) {
	u := uint64(b)
	switch {
	case b == 0:
		v.number(n, 0)
	case b == -1, u&(u+1) == 0 && v.span(n.A).hi <= u:
		v.move(n, n.A)
	case u == math.MaxUint32: // no immediate, but an instruction
		*n = ir.Ins{Op: ir.Ext, Dst: n.Dst, A: v.low(n.A, 4), Size: 4, Span: n.Span}
	}
}

// divide uses that what is not negative divides without signs, and that powers of two need no division.
func (v *valuer) divide(n *ir.Ins, b int64) {
	v.unsigned(n)
	k, power := log2(b)
	switch {
	case b == 0 && (n.Alu == ir.Div || n.Alu == ir.SDiv):
		v.number(n, 0)
	case b == 0:
		v.move(n, n.A)
	case b == 1 && (n.Alu == ir.Div || n.Alu == ir.SDiv):
		v.move(n, n.A)
	case b == 1:
		v.number(n, 0)
	case n.Alu == ir.Div && power:
		n.Alu, n.B = ir.Shr, ir.Imm(k)
	case n.Alu == ir.Mod && power:
		n.Alu, n.B = ir.And, ir.Imm(b-1)
		v.and(n, b-1)
	}
}

// unsigned takes the sign off a division of what is not negative.
func (v *valuer) unsigned(n *ir.Ins) {
	if n.Alu != ir.SDiv && n.Alu != ir.SMod || v.span(n.A).slo < 0 || v.span(n.B).slo < 0 {
		return
	}
	n.Alu = map[ir.Alu]ir.Alu{ir.SDiv: ir.Div, ir.SMod: ir.Mod}[n.Alu]
}

// addAddress makes an address plus a constant one address.
func (v *valuer) addAddress(n *ir.Ins, b int64) {
	d := v.g.def(n.A.R)
	if d == nil || d.Op != ir.Addr || d.Slot == nil || b < -math.MaxInt16 || b > math.MaxInt16 {
		return
	}
	off := int64(d.Off) + b
	if off < 0 || off > int64(d.Slot.Size) {
		return
	}
	*n = ir.Ins{Op: ir.Addr, Dst: n.Dst, Slot: d.Slot, Off: int32(off), Span: n.Span}
}

// place folds how an address was made into the instruction that uses it.
func (v *valuer) place(n *ir.Ins) {
	if !n.Accesses() && n.Op != ir.Addr {
		return
	}
	for range 8 {
		d := v.g.def(n.Base)
		if n.Base == 0 || d == nil {
			return
		}
		off := int64(n.Off)
		switch {
		case d.Op == ir.Addr && d.Slot != nil:
			if off += int64(d.Off); off < 0 || off+int64(n.Width()) > int64(d.Slot.Size) {
				return
			}
			n.Base, n.Slot = 0, d.Slot
		case d.Op == ir.Addr && v.g.plain.Has(d.Base):
			off += int64(d.Off)
			n.Base = d.Base
		case d.Op == ir.Bin && d.Alu == ir.Add && d.B.IsImm() && d.A.R != 0 && v.g.plain.Has(d.A.R):
			off += d.B.Imm
			if off < math.MinInt16 || off+int64(n.Width()) > math.MaxInt16 {
				return
			}
			n.Base = d.A.R
		default:
			return
		}
		n.Off = int32(off)
		v.changed = true
	}
}

// branch decides what is known and compares what is simplest to compare.
func (v *valuer) branch(n *ir.Ins) {
	b, bok := v.constant(n.B)
	if a, ok := v.constant(n.A); ok && bok {
		v.goes(n, n.Cond.Eval(a, b))
		return
	}
	if n.A == n.B {
		if n.Cond != ir.Set {
			v.goes(n, n.Cond.Eval(0, 0))
		}
		return
	}
	if !bok || n.Size == 4 {
		return
	}
	if holds, ok := v.span(n.A).decides(n.Cond, b); ok {
		v.goes(n, holds)
		return
	}
	d := v.g.def(n.A.R)
	if d == nil || d.Op != ir.Bin || d.Alu != ir.And || !d.B.IsImm() || b != 0 || !v.g.plain.Has(d.A.R) || v.uses[n.A.R] > 1 {
		return
	}
	switch n.Cond { // a test of bits
	case ir.Ne:
		n.Cond, n.A, n.B = ir.Set, d.A, d.B
	case ir.Eq:
		n.Cond, n.A, n.B, n.Then, n.Else = ir.Set, d.A, d.B, n.Else, n.Then
	}
}

func (v *valuer) goes(n *ir.Ins, holds bool) {
	to := n.Else
	if holds {
		to = n.Then
	}
	jump(n, to)
}
