package check

import (
	"math"
	"math/big"

	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

const overflow = "unable to fold literals due to overflow or underflow"

// constant gives the value of e if it is known at compile time.
func (x *inst) constant(e syntax.Expr) (Const, bool) {
	switch e := e.(type) {
	case *syntax.IntLit:
		return Const{Int: int64(e.Value), big: e.Unsigned}, true
	case *syntax.StrLit:
		return Const{Str: e.Value, IsStr: true}, true
	case *syntax.BoolLit:
		return boolConst(e.Value), true
	}
	c, ok := x.Consts[e]
	return c, ok
}

// known records the value of e and gives the type a literal of that value has.
func (x *inst) known(e syntax.Expr, c Const) *types.Type {
	x.Consts[e] = c
	return c.typ()
}

// typ is the type of the literal c.
func (c Const) typ() *types.Type {
	switch {
	case c.IsStr:
		return types.StringT(len(c.Str) + 1)
	case c.big:
		return types.Uint64
	case c.Int < 0:
		return signedType(c.Int)
	}
	return litType(uint64(c.Int))
}

func (c Const) truth() bool {
	if c.IsStr {
		return c.Str != ""
	}
	return c.Int != 0
}

func boolConst(b bool) Const {
	if b {
		return Const{Int: 1}
	}
	return Const{}
}

// wide gives the value as an integer of any size.
func (c Const) wide() *big.Int {
	if c.big {
		return new(big.Int).SetUint64(uint64(c.Int))
	}
	return big.NewInt(c.Int)
}

// narrow is the reverse of wide; not ok for what fits neither int64 nor uint64.
func narrow(v *big.Int) (Const, bool) {
	switch {
	case v.IsInt64():
		return Const{Int: v.Int64()}, true
	case v.IsUint64():
		return Const{Int: int64(v.Uint64()), big: true}, true
	}
	return Const{}, false
}

// foldUnary computes a unary operator on a literal.
func (x *inst) foldUnary(e *syntax.Unary) (*types.Type, bool) {
	c, ok := x.constant(e.X)
	if !ok || c.IsStr {
		return nil, false
	}
	isBool := x.Types[e.X].Kind == types.Bool
	switch e.Op {
	case syntax.NOT:
		x.Consts[e] = boolConst(!c.truth())
		return types.BoolT, true
	case syntax.SUB:
		if isBool || x.isCast(e.X) {
			return nil, false
		}
		v, ok := narrow(new(big.Int).Neg(c.wide()))
		if !ok {
			x.errorf(e.Span, "negative value will underflow")
			return types.NoneT, true
		}
		return x.known(e, v), true
	case syntax.BNOT:
		if isBool || x.isCast(e.X) {
			return nil, false
		}
		v := ^c.Int
		return x.known(e, Const{Int: v, big: v < 0 && c.Int >= 0}), true
	}
	return nil, false
}

// isCast reports a constant with a type of its own: it computes as that type, not as a literal.
func (x *inst) isCast(e syntax.Expr) bool {
	c, ok := x.constant(e)
	_, cast := e.(*syntax.Cast)
	return cast || ok && !types.Equal(x.Types[e], c.typ())
}

// foldBinary computes an operator on two literals. done is false where one is none.
func (x *inst) foldBinary(e *syntax.Binary) (t *types.Type, done bool) {
	a, okA := x.constant(e.X)
	b, okB := x.constant(e.Y)
	if !okA || !okB {
		return x.foldRecords(e)
	}
	switch {
	case e.Op == syntax.LAND:
		x.Consts[e] = boolConst(a.truth() && b.truth())
		return types.BoolT, true
	case e.Op == syntax.LOR:
		x.Consts[e] = boolConst(a.truth() || b.truth())
		return types.BoolT, true
	case a.IsStr || b.IsStr:
		return x.foldStrings(e, a, b)
	case x.isCast(e.X) || x.isCast(e.Y):
		return x.foldTyped(e, a, b)
	}
	if c, ok := compareOp(e.Op, a.wide().Cmp(b.wide())); ok {
		x.Consts[e] = boolConst(c)
		return types.BoolT, true
	}
	c, ok := compute(e.Op, a, b)
	if !ok {
		x.errorf(e.Span, overflow)
		return types.NoneT, true
	}
	return x.known(e, c), true
}

// foldTyped keeps what is computed from casts at run time, but knows comparisons.
func (x *inst) foldTyped(e *syntax.Binary, a, b Const) (*types.Type, bool) {
	if c, ok := compareOp(e.Op, a.wide().Cmp(b.wide())); ok {
		x.Consts[e] = boolConst(c)
		return types.BoolT, true
	}
	return nil, false
}

// foldStrings joins, cuts and compares strings.
func (x *inst) foldStrings(e *syntax.Binary, a, b Const) (*types.Type, bool) {
	if !a.IsStr && e.Op == syntax.ADD {
		a, b = b, a
	}
	switch {
	case a.IsStr && b.IsStr && e.Op == syntax.ADD:
		return x.known(e, Const{Str: a.Str + b.Str, IsStr: true}), true
	case a.IsStr && !b.IsStr && e.Op == syntax.ADD && b.Int >= 0:
		if b.Int >= int64(len(a.Str)) {
			x.warnf(e.Span, "literal string will always be empty")
			return x.known(e, Const{IsStr: true}), true
		}
		return x.known(e, Const{Str: a.Str[b.Int:], IsStr: true}), true
	case !a.IsStr || !b.IsStr:
		return nil, false
	}
	order := 0
	if a.Str < b.Str {
		order = -1
	} else if a.Str > b.Str {
		order = 1
	}
	if c, ok := compareOp(e.Op, order); ok {
		x.Consts[e] = boolConst(c)
		return types.BoolT, true
	}
	x.errorf(e.Span, "illegal literal operation with strings")
	return types.NoneT, true
}

// compareOp gives the truth of a comparison of two values whose order is known; not ok for other operators.
func compareOp(op syntax.Op, order int) (truth, ok bool) {
	switch op {
	case syntax.EQ:
		return order == 0, true
	case syntax.NE:
		return order != 0, true
	case syntax.LT:
		return order < 0, true
	case syntax.LE:
		return order <= 0, true
	case syntax.GT:
		return order > 0, true
	case syntax.GE:
		return order >= 0, true
	}
	return false, false
}

// compute does arithmetic on literals; not ok when the result fits 64 bits in no way or is not defined.
func compute(op syntax.Op, a, b Const) (Const, bool) {
	v := new(big.Int)
	switch op {
	case syntax.ADD:
		return narrow(v.Add(a.wide(), b.wide()))
	case syntax.SUB:
		return narrow(v.Sub(a.wide(), b.wide()))
	case syntax.MUL:
		return narrow(v.Mul(a.wide(), b.wide()))
	case syntax.DIV, syntax.MOD:
		if b.Int == 0 {
			return Const{}, false
		}
		if op == syntax.DIV {
			return narrow(v.Quo(a.wide(), b.wide()))
		}
		return narrow(v.Rem(a.wide(), b.wide()))
	case syntax.AND, syntax.OR, syntax.XOR:
		return bitwise(op, a, b), true
	case syntax.SHL, syntax.SHR:
		if b.big || b.Int < 0 || b.Int >= 64 {
			return Const{}, false
		}
		return shift(op, a, uint(b.Int)), true
	}
	return Const{}, false
}

func bitwise(op syntax.Op, a, b Const) Const {
	v := a.Int & b.Int
	switch op {
	case syntax.OR:
		v = a.Int | b.Int
	case syntax.XOR:
		v = a.Int ^ b.Int
	}
	return Const{Int: v, big: v < 0 && (a.big || b.big || a.Int >= 0 && b.Int >= 0)}
}

// shift shifts in 64 bits; bits leave at the top.
func shift(op syntax.Op, a Const, n uint) Const {
	if op == syntax.SHL {
		v := a.Int << n
		return Const{Int: v, big: v < 0 && a.Int >= 0 || a.big && v < 0}
	}
	if a.big {
		v := uint64(a.Int) >> n
		return Const{Int: int64(v), big: v > math.MaxInt64}
	}
	return Const{Int: a.Int >> n}
}

// foldRecords compares tuples and records of literals, and what typeinfo gives.
func (x *inst) foldRecords(e *syntax.Binary) (*types.Type, bool) {
	if e.Op != syntax.EQ && e.Op != syntax.NE {
		return nil, false
	}
	equal, ok := x.literalsEqual(e.X, e.Y)
	if !ok {
		return nil, false
	}
	x.Consts[e] = boolConst(equal == (e.Op == syntax.EQ))
	return types.BoolT, true
}

// literalsEqual compares two literals of any shape; not ok if one is none.
func (x *inst) literalsEqual(a, b syntax.Expr) (equal, ok bool) {
	if s, t := x.typeinfoOf(a), x.typeinfoOf(b); s != nil && t != nil {
		return kindWord(s) == kindWord(t) && s.String() == t.String(), true
	}
	switch a := a.(type) {
	case *syntax.Tuple:
		b, is := b.(*syntax.Tuple)
		return is && len(a.Elems) == len(b.Elems) && x.allEqual(a.Elems, b.Elems, &ok), is && (ok || len(a.Elems) == 0)
	case *syntax.Record:
		b, is := b.(*syntax.Record)
		if !is || len(a.Fields) != len(b.Fields) {
			return false, false
		}
		var as, bs []syntax.Expr
		for i, f := range a.Fields {
			if f.Name != b.Fields[i].Name {
				return false, false
			}
			as, bs = append(as, f.Value), append(bs, b.Fields[i].Value)
		}
		return x.allEqual(as, bs, &ok), ok
	}
	u, okU := x.constant(a)
	v, okV := x.constant(b)
	return u == v, okU && okV
}

// allEqual compares element by element; ok is set if all are literals.
func (x *inst) allEqual(as, bs []syntax.Expr, ok *bool) bool {
	equal := true
	*ok = true
	for i := range as {
		e, isLit := x.literalsEqual(as[i], bs[i])
		equal, *ok = equal && e, *ok && isLit
	}
	return equal
}

// typeinfoOf gives the type that typeinfo(…) is about.
func (x *inst) typeinfoOf(e syntax.Expr) *types.Type {
	c, ok := e.(*syntax.Call)
	if !ok || c.Name != "typeinfo" || len(c.Args) != 1 {
		return nil
	}
	if t := x.typeOfExpr(c.Args[0]); t.Kind != types.None {
		return t
	}
	return nil
}
