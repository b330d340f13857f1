package check

import (
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

func isComparison(op syntax.Op) bool {
	switch op {
	case syntax.EQ, syntax.NE, syntax.LT, syntax.LE, syntax.GT, syntax.GE, syntax.LAND, syntax.LOR:
		return true
	}
	return false
}

func (x *inst) binary(e *syntax.Binary) *types.Type {
	a, b := x.expr(e.X), x.expr(e.Y)
	if a.Kind == types.None || b.Kind == types.None {
		return types.NoneT
	}
	if t, done := x.foldBinary(e); done {
		return t
	}
	return x.operate(e, a, b)
}

// operate gives the type of a op b; e is where it stands.
func (x *inst) operate(e *syntax.Binary, a, b *types.Type) *types.Type {
	number := func(t *types.Type) bool { return t.IsInt() || readable(t) }
	switch {
	case a.Kind == types.None || b.Kind == types.None:
		return types.NoneT
	case a.Kind == types.Bool && b.Kind == types.Bool && isComparison(e.Op):
		return types.BoolT
	case a.Kind == types.Ptr || b.Kind == types.Ptr:
		return x.pointerOp(e, a, b)
	case number(a) && number(b):
		return x.integerOp(e, a, b)
	case a.Kind == types.Array && b.Kind == types.Array:
		return x.arrayOp(e, a, b)
	}
	return x.otherOp(e, a, b)
}

// integerOp computes in 64 bits: signed if one side is, where a literal follows the other; differences are signed.
func (x *inst) integerOp(e *syntax.Binary, a, b *types.Type) *types.Type {
	if isComparison(e.Op) {
		return types.BoolT
	}
	sa, sb := a.Signed, b.Signed
	switch {
	case a.Lit && !b.Lit:
		sa = sb
	case b.Lit && !a.Lit:
		sb = sa
	}
	signed := sa || sb
	switch e.Op {
	case syntax.SHL, syntax.SHR:
		signed = sa
	case syntax.SUB:
		signed = true
	case syntax.DIV, syntax.MOD:
		if signed && (sa != sb || a.Size != b.Size) {
			x.warnf(e.Span, "signed operands for '%s' can lead to undefined behavior (cast to unsigned to silence warning)", e.Op)
		}
	}
	t := types.Uint64
	if signed {
		t = types.Int64
	}
	if s := mergeSpace(a.Space, b.Space); s != types.SpaceNone { // an address and an offset are an address
		c := *t
		c.Space = s
		return &c
	}
	return t
}

// pointerOp adds to pointers and compares them.
func (x *inst) pointerOp(e *syntax.Binary, a, b *types.Type) *types.Type {
	p, other, left := a, b, true
	if a.Kind != types.Ptr {
		p, other, left = b, a, false
	}
	invalid := func() *types.Type {
		x.errorf(e.Span, "The %s operator can not be used on expressions of types %v, %v", e.Op, a, b)
		return types.NoneT
	}
	switch {
	case other.Kind == types.Ptr && isComparison(e.Op):
		if e.Op != syntax.LAND && e.Op != syntax.LOR && !compatible(a.Elem, b.Elem) {
			x.warnf(e.Span, "comparison of distinct pointer types: %v, %v", a.Elem, b.Elem)
		}
		return types.BoolT
	case other.Kind == types.Ptr || !other.IsInt():
		return invalid()
	case isComparison(e.Op):
		return types.BoolT
	case e.Op == syntax.ADD, e.Op == syntax.SUB && left:
		return p
	}
	return invalid()
}

func (x *inst) arrayOp(e *syntax.Binary, a, b *types.Type) *types.Type {
	switch {
	case e.Op != syntax.EQ && e.Op != syntax.NE:
		x.errorf(e.Span, "The %s operator cannot be used on arrays.", e.Op)
	case a.Len != b.Len:
		x.errorf(e.Span, "Only arrays of same size support comparison operators.")
	case !isInt(a.Elem) || !types.Equal(a.Elem, b.Elem):
		x.errorf(e.Span, "Only arrays of same sized integer support comparison operators.")
	}
	return types.BoolT
}

// otherOp compares what is no number: strings, tuples, records, addresses.
func (x *inst) otherOp(e *syntax.Binary, a, b *types.Type) *types.Type {
	switch {
	case !compatible(a, b):
		x.errorf(e.Span, "Type mismatch for '%s': comparing %v with %v", e.Op, a, b)
		if !isComparison(e.Op) {
			return types.NoneT
		}
	case e.Op != syntax.EQ && e.Op != syntax.NE:
		x.errorf(e.Span, "The %s operator can not be used on expressions of types %v, %v", e.Op, a, b)
		return types.NoneT
	}
	return types.BoolT
}
