package gen

import (
	"math"

	"github.com/fathom-trace/fathom/ir"
)

// legalize gives f the shape that registers are allocated for: constants that no instruction can carry get registers, and
// no destination is also the second operand of what cannot be turned around.
func legalize(f *ir.Func) {
	l := legalizer{f: f}
	for _, b := range f.Blocks {
		l.out = l.out[:0]
		for i := range b.Ins {
			l.ins(b.Ins[i])
		}
		b.Ins = replace(b.Ins, l.out)
	}
}

type legalizer struct {
	f   *ir.Func
	out []ir.Ins
}

// reg gives v in a register.
func (l *legalizer) reg(v ir.Val, n *ir.Ins) ir.Val {
	if !v.IsImm() {
		return v
	}
	r := l.f.NewReg()
	l.out = append(l.out, ir.Ins{Op: ir.Const, Dst: r, A: v, Span: n.Span})
	return ir.R(r)
}

func narrow(v ir.Val) bool {
	return v.IsImm() && v.Imm >= math.MinInt32 && v.Imm <= math.MaxInt32
}

func (l *legalizer) ins(n ir.Ins) {
	switch n.Op {
	case ir.Nop:
		return
	case ir.Mov:
		if n.A.IsImm() {
			n.Op = ir.Const
		} else if n.A.R == n.Dst {
			return
		}
	case ir.Bin:
		l.bin(n)
		return
	case ir.Ext, ir.Bswap, ir.AtomicAdd, ir.Copy:
		n.A = l.reg(n.A, &n)
	case ir.Store:
		switch {
		case n.A.IsImm() && n.Size <= 4:
			n.A.Imm = int64(int32(ir.Extend(n.A.Imm, n.Size, false)))
		case !narrow(n.A):
			n.A = l.reg(n.A, &n)
		}
	case ir.Branch:
		n.A = l.reg(n.A, &n)
		if !narrow(n.B) {
			n.B = l.reg(n.B, &n)
		}
	}
	l.out = append(l.out, n)
}

func (l *legalizer) bin(n ir.Ins) {
	if n.A.IsImm() && n.Alu.Commutes() {
		n.A, n.B = n.B, n.A
	}
	if n.A.IsImm() && !(negation(&n)) {
		n.A = l.reg(n.A, &n)
	}
	switch n.Alu {
	case ir.Shl, ir.Shr, ir.Sar:
		if n.B.IsImm() { // the verifier refuses what is too wide, and to divide by the constant 0
			n.B.Imm &= 63
		}
	case ir.Div, ir.Mod:
		if n.B == ir.Imm(0) {
			n.B = l.reg(n.B, &n)
		}
	}
	if !narrow(n.B) {
		n.B = l.reg(n.B, &n)
	}
	if n.B.R == n.Dst && n.A.R != n.Dst && !negation(&n) {
		if n.Alu.Commutes() {
			n.A, n.B = n.B, n.A
		} else {
			t := l.f.NewReg()
			l.out = append(l.out, ir.Ins{Op: ir.Mov, Dst: t, A: n.B, Span: n.Span})
			n.B = ir.R(t)
		}
	}
	l.out = append(l.out, n)
}

// negation says if n is 0 - x, for which there is an instruction.
func negation(n *ir.Ins) bool {
	return n.Alu == ir.Sub && n.A == ir.Imm(0) && !n.B.IsImm()
}
