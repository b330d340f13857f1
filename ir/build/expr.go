package build

import (
	"strconv"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// effect evaluates e and drops its value.
func (x *fn) effect(e syntax.Expr) {
	if u, ok := e.(*syntax.Unary); ok && (u.Op == syntax.INC || u.Op == syntax.DEC) {
		x.unused = true
	}
	x.expr(e)
	x.unused = false
}

// val evaluates a scalar expression.
func (x *fn) val(e syntax.Expr) ir.Val { return x.scalarVal(x.expr(e)) }

// valAs evaluates e and converts it to t.
func (x *fn) valAs(e syntax.Expr, t *types.Type) ir.Val {
	v := x.expr(e)
	return x.convert(x.scalarVal(v), v.t, t)
}

// expr evaluates e. Reads that its value still needs are made at e's place.
func (x *fn) expr(e syntax.Expr) value {
	v := x.eval(e)
	if s := e.Where(); s.Src != nil {
		x.span = s
	}
	return v
}

func (x *fn) eval(e syntax.Expr) value {
	if c, ok := x.in.Consts[e]; ok {
		if c.IsStr {
			return x.literal(c.Str)
		}
		return scalarOf(x.typeOf(e), ir.Imm(c.Int))
	}
	if s := e.Where(); s.Src != nil {
		x.span = s
	}
	t := x.typeOf(e)
	switch e := e.(type) {
	case *syntax.IntLit:
		return scalarOf(t, ir.Imm(int64(e.Value)))
	case *syntax.BoolLit:
		return scalarOf(types.BoolT, ir.Imm(boolInt(e.Value)))
	case *syntax.StrLit:
		return x.literal(e.Value)
	case *syntax.Ident:
		return x.builtin(e.Name, e, t)
	case *syntax.Var:
		return x.variable(e)
	case *syntax.MapRef:
		return x.mapRead(e)
	case *syntax.Call:
		return x.callExpr(e)
	case *syntax.Unary:
		return x.unary(e)
	case *syntax.Binary:
		return x.binary(e)
	case *syntax.Cond:
		return x.ternary(e, t)
	case *syntax.IfExpr:
		return x.ifExpr(e, t)
	case *syntax.Field:
		return x.field(e)
	case *syntax.Index:
		return x.index(e)
	case *syntax.Cast:
		return x.cast(e, t)
	case *syntax.Tuple:
		return x.tuple(e.Elems, t)
	case *syntax.Record:
		var vs []syntax.Expr
		for _, f := range e.Fields {
			vs = append(vs, f.Value)
		}
		return x.tuple(vs, t)
	case *syntax.BlockExpr:
		return x.blockExpr(e)
	case *syntax.Comptime:
		return x.expr(e.X)
	}
	x.b.errorf(e.Where(), "internal error: %T reached code generation", e)
	return scalarOf(types.Int64, ir.Imm(0))
}

func boolInt(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (x *fn) tuple(elems []syntax.Expr, t *types.Type) value {
	m := slotMem(x.temp(max(8, t.Size)))
	x.zeroGaps(m, t)
	for i, e := range elems {
		if i < len(t.Fields) {
			x.into(m.at(t.Fields[i].Off), t.Fields[i].Type, e)
		}
	}
	return inMem(t, m)
}

// zeroGaps clears the bytes of t at m that no field covers: they must not differ between equal values.
func (x *fn) zeroGaps(m mem, t *types.Type) {
	at := 0
	for _, f := range t.Fields {
		x.zero(m.at(at), f.Off-at)
		at = f.Off + f.Type.Size
	}
	if len(t.Fields) > 0 {
		x.zero(m.at(at), t.Size-at)
	}
}

func (x *fn) blockExpr(e *syntax.BlockExpr) value {
	x.stmts(e.Stmts)
	if e.Result == nil {
		return value{t: types.VoidT}
	}
	return x.expr(e.Result)
}

// ternary gives one of two values: scalars meet in a register, others in a slot.
func (x *fn) ternary(e *syntax.Cond, t *types.Type) value {
	yes, no := x.block(), x.block()
	x.cond(e.C, yes, no)
	return x.merge(t, yes, no, func() { x.at(yes) }, e.Then, e.Else)
}

func (x *fn) merge(t *types.Type, yes, no *ir.Block, _ func(), then, els syntax.Expr) value {
	end := x.block()
	if t.Kind == types.Void || t.Kind == types.None {
		x.at(yes)
		x.effect(then)
		x.jump(end)
		x.at(no)
		x.effect(els)
		x.jump(end)
		x.at(end)
		return value{t: types.VoidT}
	}
	if t.IsScalar() {
		d := x.f.NewReg()
		x.at(yes)
		x.mov(d, x.valAs(then, t))
		x.jump(end)
		x.at(no)
		x.mov(d, x.valAs(els, t))
		x.jump(end)
		x.at(end)
		return scalarOf(t, ir.R(d))
	}
	m := slotMem(x.temp(t.Size))
	x.at(yes)
	x.into(m, t, then)
	x.jump(end)
	x.at(no)
	x.into(m, t, els)
	x.jump(end)
	x.at(end)
	return inMem(t, m)
}

func (x *fn) ifExpr(e *syntax.IfExpr, t *types.Type) value {
	yes, no := x.block(), x.block()
	x.cond(e.If.Cond, yes, no)
	return x.merge(t, yes, no, nil, stmtExpr(e.If.Then), stmtExpr(e.If.Else))
}

// stmtExpr gives the block of an if used as an expression.
func stmtExpr(s syntax.Stmt) syntax.Expr {
	switch s := s.(type) {
	case *syntax.Block:
		if n := len(s.Stmts); n > 0 {
			if last, ok := s.Stmts[n-1].(*syntax.ExprStmt); ok {
				return &syntax.BlockExpr{Span: s.Span, Stmts: s.Stmts[:n-1], Result: last.X}
			}
		}
		return &syntax.BlockExpr{Span: s.Span, Stmts: s.Stmts}
	case *syntax.If:
		return &syntax.IfExpr{Span: s.Span, If: s}
	}
	return &syntax.BlockExpr{}
}

func (x *fn) unary(e *syntax.Unary) value {
	t := x.typeOf(e)
	switch e.Op {
	case syntax.INC, syntax.DEC:
		return x.incDec(e)
	case syntax.NOT:
		yes, no := x.block(), x.block()
		return x.boolValue(func() { x.cond(e.X, no, yes) }, yes, no)
	case syntax.SUB:
		v := x.val(e.X)
		return scalarOf(t, x.ext(x.bin(ir.Sub, ir.Imm(0), v), t.Size, t.Signed))
	case syntax.BNOT:
		return scalarOf(t, x.ext(x.bin(ir.Xor, x.val(e.X), ir.Imm(-1)), t.Size, t.Signed))
	case syntax.MUL:
		v := x.expr(e.X)
		return x.deref(v.t, x.scalarVal(v), t)
	case syntax.AND:
		return x.addressOf(e, t)
	}
	return x.expr(e.X)
}

// addressOf gives a pointer to a variable or map, which live in BPF memory, or to what a reference points at.
func (x *fn) addressOf(e *syntax.Unary, t *types.Type) value {
	v := x.expr(e.X)
	if v.form == ref {
		return scalarOf(t, v.v)
	}
	return scalarOf(t, x.addr(x.toMem(v)))
}

// deref gives what a pointer of type pt points at.
func (x *fn) deref(pt *types.Type, p ir.Val, t *types.Type) value {
	s := pt.Space
	if pt.Kind == types.Ptr && pt.Elem != nil && pt.Elem.Kind != types.Void && (t == nil || t.Kind == types.None) {
		t = pt.Elem
	}
	return refTo(t, p, x.space(s))
}

// space decides for pointers that say nothing of their space by the kind of probe.
func (x *fn) space(s types.Space) types.Space {
	if s == types.SpaceNone {
		return x.in.Provider.Space
	}
	return s
}

// boolValue makes 0 or 1 of a branch.
func (x *fn) boolValue(branch func(), yes, no *ir.Block) value {
	d := x.f.NewReg()
	end := x.block()
	branch()
	x.at(yes)
	x.mov(d, ir.Imm(1))
	x.jump(end)
	x.at(no)
	x.mov(d, ir.Imm(0))
	x.jump(end)
	x.at(end)
	return scalarOf(types.BoolT, ir.R(d))
}

var aluOf = map[syntax.Op]ir.Alu{
	syntax.ADD: ir.Add, syntax.SUB: ir.Sub, syntax.MUL: ir.Mul, syntax.DIV: ir.Div, syntax.MOD: ir.Mod,
	syntax.AND: ir.And, syntax.OR: ir.Or, syntax.XOR: ir.Xor, syntax.SHL: ir.Shl, syntax.SHR: ir.Shr,
}

func (x *fn) binary(e *syntax.Binary) value {
	t := x.typeOf(e)
	switch e.Op {
	case syntax.LAND, syntax.LOR, syntax.EQ, syntax.NE, syntax.LT, syntax.LE, syntax.GT, syntax.GE:
		yes, no := x.block(), x.block()
		return x.boolValue(func() { x.cond(e, yes, no) }, yes, no)
	}
	a := x.expr(e.X)
	av := x.scalarVal(a)
	b := x.expr(e.Y)
	bv := x.scalarVal(b)
	return scalarOf(t, x.arith(e.Op, t, a.t, b.t, av, bv))
}

// arith computes in 64 bits and cuts to the result's type. Pointers step by the size of what they point to.
func (x *fn) arith(op syntax.Op, t, ta, tb *types.Type, a, b ir.Val) ir.Val {
	if ta.Kind == types.Ptr && tb.Kind != types.Ptr {
		b = x.bin(ir.Mul, b, ir.Imm(int64(elemSize(ta))))
	} else if tb.Kind == types.Ptr && ta.Kind != types.Ptr {
		a = x.bin(ir.Mul, a, ir.Imm(int64(elemSize(tb))))
	}
	alu := aluOf[op]
	signed := t.Signed || ta.Signed && !ta.Lit
	switch {
	case alu == ir.Div && signed:
		alu = ir.SDiv
	case alu == ir.Mod && signed:
		alu = ir.SMod
	case alu == ir.Shr && ta.Signed:
		alu = ir.Sar
	}
	v := x.bin(alu, a, b)
	if t.IsInt() {
		return x.ext(v, t.Size, t.Signed)
	}
	return v
}

func elemSize(t *types.Type) int {
	if t.Elem == nil {
		return 1
	}
	return max(1, t.Elem.Size)
}

var condOf = map[syntax.Op]ir.Cond{
	syntax.EQ: ir.Eq, syntax.NE: ir.Ne, syntax.LT: ir.Lt, syntax.LE: ir.Le, syntax.GT: ir.Gt, syntax.GE: ir.Ge,
}

var signedCond = map[ir.Cond]ir.Cond{ir.Lt: ir.SLt, ir.Le: ir.SLe, ir.Gt: ir.SGt, ir.Ge: ir.SGe, ir.Eq: ir.Eq, ir.Ne: ir.Ne}

// cond branches on the truth of e.
func (x *fn) cond(e syntax.Expr, yes, no *ir.Block) {
	if _, ok := x.in.Consts[e]; !ok {
		switch e := e.(type) {
		case *syntax.Unary:
			if e.Op == syntax.NOT {
				x.cond(e.X, no, yes)
				return
			}
		case *syntax.Binary:
			switch e.Op {
			case syntax.LAND:
				mid := x.block()
				x.cond(e.X, mid, no)
				x.at(mid)
				x.cond(e.Y, yes, no)
				return
			case syntax.LOR:
				mid := x.block()
				x.cond(e.X, yes, mid)
				x.at(mid)
				x.cond(e.Y, yes, no)
				return
			}
			if c, ok := condOf[e.Op]; ok {
				x.compare(e, c, yes, no)
				return
			}
		}
	}
	v := x.expr(e)
	if v.t.Kind == types.String {
		x.branch(ir.Ne, x.load(x.toMem(v), 1, false), ir.Imm(0), yes, no)
		return
	}
	r := x.scalarVal(v)
	if r.IsImm() {
		if r.Imm != 0 {
			x.jump(yes)
		} else {
			x.jump(no)
		}
		return
	}
	x.branch(ir.Ne, r, ir.Imm(0), yes, no)
}

func (x *fn) compare(e *syntax.Binary, c ir.Cond, yes, no *ir.Block) {
	a, b := x.expr(e.X), value{}
	if a.t.Kind == types.String || x.typeOf(e.Y).Kind == types.String {
		x.compareStrings(e, a, c, yes, no)
		return
	}
	if a.t.IsScalar() || a.t.CastableAgg() {
		av := x.scalarVal(a)
		b = x.expr(e.Y)
		bv := x.scalarVal(b)
		if isSigned(a.t, b.t) {
			c = signedCond[c]
		}
		x.branch(c, av, bv, yes, no)
		return
	}
	b = x.expr(e.Y)
	if a.t.Kind == types.Tuple || a.t.Kind == types.Record {
		bm := value{}
		bm = inMem(a.t, slotMem(x.temp(a.t.Size)))
		x.put(bm.m, a.t, b)
		b = bm
	}
	x.compareBytes(x.toMem(a), x.toMem(b), min(a.t.Size, b.t.Size), c, yes, no)
}

// isSigned says how two integers compare: unsigned if both are, where a literal follows the other.
func isSigned(a, b *types.Type) bool {
	sa, sb := a.IsInt() && a.Signed, b.IsInt() && b.Signed
	switch {
	case a.Lit && !b.Lit:
		return sb
	case b.Lit && !a.Lit:
		return sa
	}
	return sa || sb
}

// compareBytes compares n bytes for equality, by words.
func (x *fn) compareBytes(a, b mem, n int, c ir.Cond, yes, no *ir.Block) {
	if c == ir.Ne {
		yes, no = no, yes
	}
	for off := 0; off < n; {
		w := word(n-off, lowBit(int(a.off)|int(b.off)|off))
		next := x.block()
		x.branch(ir.Eq, x.load(a.at(off), w, false), x.load(b.at(off), w, false), next, no)
		x.at(next)
		off += w
	}
	x.jump(yes)
}

func word(left, off int) int {
	for _, w := range []int{8, 4, 2} {
		if left >= w && off%w == 0 {
			return w
		}
	}
	return 1
}

func (x *fn) field(e *syntax.Field) value {
	t := x.typeOf(e)
	base := x.typeOf(e.X)
	if base.Kind == types.Args {
		return x.argsField(e, base)
	}
	v := x.expr(e.X)
	if v.t.Kind == types.Ptr {
		elem := v.t.Elem
		v = refTo(elem, x.scalarVal(v), x.space(v.t.Space))
	}
	switch v.t.Kind {
	case types.Tuple, types.Record:
		f, ok := v.t.Field(e.Name)
		if !ok {
			n, _ := strconv.Atoi(e.Name)
			f = v.t.Fields[min(n, len(v.t.Fields)-1)]
		}
		return inMem(f.Type, x.toMem(v).at(f.Off))
	case types.Struct:
		s, _ := ctype.Strip(v.t.C).(*ctype.Struct)
		if s != nil {
			if m, ok := s.Member(e.Name); ok {
				out := x.member(v, m)
				if t.Kind != types.None && t.Size == out.t.Size {
					out.t = t
				}
				return out
			}
		}
	}
	x.b.errorf(e.Span, "internal error: no field %s", e.Name)
	return scalarOf(types.Int64, ir.Imm(0))
}

func (x *fn) index(e *syntax.Index) value {
	v := x.expr(e.X)
	if v.t.Kind == types.Ptr {
		i := x.val(e.I)
		p := x.bin(ir.Add, x.scalarVal(v), x.bin(ir.Mul, i, ir.Imm(int64(elemSize(v.t)))))
		return refTo(v.t.Elem, p, x.space(v.t.Space))
	}
	elem := v.t.Elem
	if v.t.Kind == types.String { // a char array indexed
		elem = types.Int8
	}
	if t := x.typeOf(e); t.Kind != types.None {
		elem = t
	}
	i := x.val(e.I)
	if v.form == scalar {
		v = inMem(v.t, x.toMem(v))
	}
	if v.form == ref {
		x.checkIndex(v.t, elem, i, e.Span)
		return refTo(elem, x.bin(ir.Add, v.v, x.bin(ir.Mul, i, ir.Imm(int64(elem.Size)))), v.space)
	}
	if i.IsImm() {
		return inMem(elem, v.m.at(int(i.Imm)*elem.Size))
	}
	return x.indexDirect(v, elem, i)
}

// checkIndex warns at run time of an index beyond an array of the kernel or a process: what is there is something else.
func (x *fn) checkIndex(t, elem *types.Type, i ir.Val, at syntax.Span) {
	n := t.Size / max(1, elem.Size)
	if i.IsImm() || n == 0 { // checked already; arrays without a length are as long as somebody says elsewhere
		return
	}
	in, out := x.block(), x.block()
	x.branch(ir.Lt, i, ir.Imm(int64(n)), in, out)
	x.at(out)
	x.send(x.b.event(&ir.Event{Kind: ir.EvWarnf, Fmt: outOfBounds, Span: at}), nil)
	x.jump(in)
	x.at(in)
}

const outOfBounds = "Array access out of bounds. This can lead to unexpected results."

// indexDirect reads an element of an array in BPF memory at an index known only when running: outside it gives 0.
func (x *fn) indexDirect(v value, elem *types.Type, i ir.Val) value {
	n := v.t.Size / max(1, elem.Size)
	out := slotMem(x.temp(max(8, elem.Size)))
	x.zero(out, elem.Size)
	in, end := x.block(), x.block()
	x.branch(ir.Lt, i, ir.Imm(int64(n)), in, end)
	x.at(in)
	p := x.bin(ir.Add, x.addr(v.m), x.bin(ir.Mul, i, ir.Imm(int64(elem.Size))))
	x.copyAligned(out, mem{base: p.R}, elem.Size, lowBit(elem.Size))
	x.jump(end)
	x.at(end)
	return inMem(elem, out)
}

func (x *fn) cast(e *syntax.Cast, t *types.Type) value {
	v := x.expr(e.X)
	switch {
	case t.Kind == types.Array && v.t.IsScalar():
		s := slotMem(x.temp(max(8, t.Size)))
		x.zero(s, t.Size)
		x.store(s, min(size8(t.Size), 8), x.scalarVal(v))
		return inMem(t, s)
	case t.IsScalar() && (v.t.Kind == types.Array || v.t.Kind == types.String || v.t.Kind == types.Buffer):
		w := min(size8(v.t.Size), size8(t.Size))
		if v.form == ref {
			v = inMem(v.t, x.toMem(v))
		}
		return scalarOf(t, x.ext(x.load(v.m, w, t.Signed), t.Size, t.Signed))
	case t.Kind == types.Ptr && v.t.Kind == types.Struct && v.form == ref:
		return scalarOf(t, v.v)
	case t.IsScalar():
		return scalarOf(t, x.convert(x.scalarVal(v), v.t, t))
	case t.Kind == v.t.Kind && t.Size != v.t.Size && (t.Kind == types.String || t.Kind == types.Tuple || t.Kind == types.Record):
		s := slotMem(x.temp(t.Size))
		x.put(s, t, v)
		return inMem(t, s)
	case t.Kind == types.Buffer && v.t.Kind != types.Buffer:
		return v
	}
	v.t = t
	return v
}
