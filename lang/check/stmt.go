package check

import (
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

func (x *inst) stmts(ss []syntax.Stmt) {
	for _, s := range ss {
		x.stmt(s)
	}
}

func (x *inst) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.ExprStmt:
		x.effect(s.X, s.Span)
	case *syntax.Assign:
		x.assign(s)
	case *syntax.Let:
		x.let(s)
	case *syntax.If:
		x.ifStmt(s)
	case *syntax.While:
		x.condition(s.Cond, s.Cond.Where())
		x.loop(s.Body)
	case *syntax.Unroll:
		x.unroll(s)
	case *syntax.For:
		x.forStmt(s)
	case *syntax.Jump:
		x.jump(s)
	case *syntax.Block:
		x.block(s)
	}
}

// effect checks an expression whose value is dropped, at the statement at.
func (x *inst) effect(e syntax.Expr, at syntax.Span) {
	t := x.expr(e)
	if u, ok := e.(*syntax.Unary); ok && (u.Op == syntax.INC || u.Op == syntax.DEC) {
		return
	}
	if c, ok := e.(*syntax.Call); ok && x.Calls[c] != nil && x.Calls[c].quiet {
		return
	}
	if t.Kind != types.None && t.Kind != types.Void {
		x.warnf(at, "Return value discarded.")
	}
}

func (x *inst) loop(b *syntax.Block) {
	x.loops++
	x.stmts(b.Stmts)
	x.loops--
}

// condition checks an expression used for its truth; what is wrong is reported at at.
func (x *inst) condition(e syntax.Expr, at syntax.Span) {
	t := x.expr(e)
	if t.Kind != types.None && !t.IsInt() && t.Kind != types.Ptr && !t.CastableAgg() {
		x.errorf(at, "Invalid condition: %s", kindWord(t))
	}
}

// ifStmt checks an if. A comptime condition chooses the branch that exists; the other is not looked at.
func (x *inst) ifStmt(s *syntax.If) {
	if !s.Comptime {
		x.condition(s.Cond, s.Span)
		c, known := x.constant(s.Cond)
		x.maybe(known && !c.truth(), func() { x.block(s.Then) })
		x.maybe(known && c.truth(), func() { x.elseBranch(s.Else) })
		return
	}
	switch yes, ok := x.comptime(s.Cond); {
	case !ok:
	case yes:
		x.block(s.Then)
	default:
		x.elseBranch(s.Else)
	}
}

// maybe checks what never runs if dead is set: fail() there does not refuse the program.
func (x *inst) maybe(dead bool, check func()) {
	if dead {
		x.dead++
		defer func() { x.dead-- }()
	}
	check()
}

func (x *inst) elseBranch(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.If:
		x.ifStmt(s)
	case *syntax.Block:
		x.block(s)
	}
}

func (x *inst) block(b *syntax.Block) {
	x.stmts(b.Stmts)
	if b.Result != nil {
		x.effect(b.Result, b.Result.Where())
	}
}

// comptime gives the truth of a condition that must be known now.
func (x *inst) comptime(e syntax.Expr) (yes, ok bool) {
	x.expr(e)
	at := around(e.Where(), "comptime", ")")
	c, ok := x.constant(e)
	if !ok {
		x.errorf(at, "Unable to resolve comptime expression")
		return false, false
	}
	yes = c.truth()
	if old, decided := x.decided[e]; decided && old != yes {
		x.errorf(at, "The branch that this comptime expression selects changes the type it depends on")
		yes = old
	}
	x.decided[e] = yes
	x.Consts[e] = boolConst(yes)
	x.Types[e] = types.BoolT
	return yes, true
}

func (x *inst) unroll(s *syntax.Unroll) {
	x.expr(s.N)
	switch c, ok := x.constant(s.N); {
	case !ok || c.IsStr:
		x.errorf(s.Span, "invalid unroll value")
	case c.Int > 100:
		x.errorf(s.Span, "unroll maximum value is 100")
	case c.Int < 1:
		x.errorf(s.Span, "unroll minimum value is 1")
	}
	x.loop(s.Body)
}

func (x *inst) jump(s *syntax.Jump) {
	if s.Value == nil {
		return
	}
	if t := x.expr(s.Value); t.Kind != types.None && !t.IsInt() {
		x.errorf(s.Span, "Probe return values can only be integers. Found %v", t)
	}
}

// assign checks LHS Op= RHS.
func (x *inst) assign(s *syntax.Assign) {
	switch l := s.LHS.(type) {
	case *syntax.Var:
		v := x.Vars[l]
		t := x.assigned(s, l)
		if v != nil {
			x.growVar(v, t, s.Span, s.RHS)
			x.setType(l, v.Type)
		}
	case *syntax.MapRef:
		x.assignMap(s, l)
	case *syntax.Discard:
		x.expr(s.RHS)
	}
}

// assigned gives the type of what an assignment stores.
func (x *inst) assigned(s *syntax.Assign, l syntax.Expr) *types.Type {
	if s.Op == syntax.ASSIGN {
		return x.expr(s.RHS)
	}
	lt := x.expr(l)
	rt := x.expr(s.RHS)
	return x.operate(&syntax.Binary{Span: s.Span, Op: s.Op, OpSpan: s.Span, X: l, Y: s.RHS}, lt, rt)
}

func (x *inst) assignMap(s *syntax.Assign, l *syntax.MapRef) {
	m := x.useMap(l, true)
	x.key(m, l)
	if call := aggCall(x, s.RHS); call != nil && s.Op == syntax.ASSIGN {
		x.agg = call
		t := x.expr(s.RHS)
		x.agg = nil
		x.growAgg(m, t, call)
		x.setType(l, m.Value)
		return
	}
	t := x.assigned(s, l)
	switch {
	case t.Kind == types.Void || t.Kind == types.Context || t.Kind == types.Args:
		x.errorf(s.Span, "Value '%v' cannot be assigned to a map.", t)
	case t.IsAgg() && (!readable(t) || m.Value == nil || !isInt(m.Value)):
		x.aggCopy(s, m, t)
	default:
		x.growMap(m, t, s.Span, s.RHS)
	}
	x.setType(l, m.Value)
}

// aggCall gives the aggregation that e is, also as the value of a block.
func aggCall(x *inst, e syntax.Expr) *syntax.Call {
	switch e := e.(type) {
	case *syntax.Call:
		if f := x.c.funcs[e.Name]; f != nil && f.Agg {
			return e
		}
	case *syntax.BlockExpr:
		if e.Result != nil {
			return aggCall(x, e.Result)
		}
	}
	return nil
}

// aggExamples shows how each aggregation is called.
var aggExamples = map[types.Kind]string{
	types.Count: "count()", types.Sum: "sum(retval)", types.Min: "min(retval)", types.Max: "max(retval)", types.Avg: "avg(retval)",
	types.Stats: "stats(arg2)", types.Hist: "hist(retval)", types.LHist: "lhist(rand %10, 0, 10, 1)",
	types.TSeries: "tseries(rand %10, 10s, 1)",
}

// aggCopy reports @a = @b where @b is an aggregation.
func (x *inst) aggCopy(s *syntax.Assign, m *mapInfo, t *types.Type) {
	d := x.errorf(s.Span, "Map value '%v' cannot be assigned from one map to another. The function that returns this type "+
		"must be called directly e.g. `%s = %s;`.", t, m.Name, aggExamples[t.Kind])
	if r, ok := s.RHS.(*syntax.MapRef); ok && readable(t) {
		d.Hint = "Add a cast to integer if you want the value of the aggregate, e.g. `" + m.Name + " = (int64)" + r.Name + ";`."
	}
}

func (x *inst) let(s *syntax.Let) {
	v := x.Vars[s.Var]
	if v == nil {
		return
	}
	init := types.NoneT
	if s.Init != nil {
		init = x.expr(s.Init)
	}
	if s.Type != nil {
		t := x.typeOf(s.Type)
		if t.IsAgg() || t.Kind == types.Void {
			x.errorf(s.Type.Span, "Invalid variable declaration type: %v", t)
			t = types.NoneT
		}
		if t.Size > 0 || t.Kind == types.Tuple {
			x.fixVar(v, t)
		} else if v.Type == nil || v.Type.Kind == types.None {
			x.fixVar(v, t)
			v.Type = t
		}
	}
	if s.Init != nil {
		x.growVar(v, init, s.Span, s.Init)
	}
	x.setType(s.Var, v.Type)
}

// fixed are declared types: assignments do not widen them.
func (x *inst) fixVar(v *Var, t *types.Type) {
	if t.Kind == types.None || t.Size == 0 && t.Kind != types.Tuple {
		return
	}
	if v.Type == nil || !same(v.Type, t) {
		v.Type, x.c.changed = t, true
	}
	v.declared = true
}

// growVar widens a variable to hold t, or reports that it cannot.
func (x *inst) growVar(v *Var, t *types.Type, at syntax.Span, rhs syntax.Expr) {
	if t.Kind == types.None {
		if x.c.final && (v.Type == nil || v.Type.Kind == types.None) && !x.c.failed() {
			x.errorf(at, "Invalid expression for assignment")
		}
		return
	}
	if t.Kind == types.Void || t.IsAgg() && !readable(t) || readable(t) && v.Type != nil && !isInt(v.Type) {
		x.errorf(at, "Value '%v' cannot be assigned to a scratch variable.", t)
		return
	}
	if v.declared {
		x.assignFits(v.Name, "variable already has a type", v.Type, t, at, rhs)
		return
	}
	n, ok := join(v.Type, t)
	if !ok {
		x.errorf(at, "Type mismatch for %s: trying to assign value of type '%v' when variable already has a type '%v'", v.Name, t, v.Type)
		return
	}
	if v.Type == nil || !same(n, v.Type) {
		v.Type, x.c.changed = n, true
	}
	x.warnSign(t, v.Type, rhs)
}

// assignFits reports a value that does not fit a type that is fixed.
func (x *inst) assignFits(name, why string, to, from *types.Type, at syntax.Span, rhs syntax.Expr) {
	if c, ok := x.constant(rhs); ok && isInt(from) && isInt(to) {
		if !fits(c.Int, c.big, to) {
			x.mismatch(name, why, to, from, at)
		}
		return
	}
	if isInt(to) && (isInt(from) || from.CastableAgg()) {
		x.warnSign(from, to, rhs)
		return
	}
	n, ok := join(to, from)
	if !ok || !types.Equal(n, to) {
		x.mismatch(name, why, to, from, at)
	}
}

func (x *inst) mismatch(name, why string, to, from *types.Type, at syntax.Span) {
	x.errorf(at, "Type mismatch for %s: trying to assign value of type '%v' when %s '%v'", name, from, why, to)
}

// warnSign warns of integers that change when they become a to.
func (x *inst) warnSign(from, to *types.Type, rhs syntax.Expr) {
	if !x.c.final || !isInt(from) || !isInt(to) || fitsInto(from, to) {
		return
	}
	if c, ok := x.constant(rhs); ok && !x.isCast(rhs) && fits(c.Int, c.big, to) {
		return
	}
	x.warnf(rhs.Where(), "Expression of type: %v being cast to type: %v. This may cause unexpected results. "+
		"Use an explicit cast to suppress this warning.", from, to)
}

// growMap widens the value of a map.
func (x *inst) growMap(m *mapInfo, t *types.Type, at syntax.Span, rhs syntax.Expr) {
	if m == nil || t.Kind == types.None {
		return
	}
	if m.Value != nil && m.Value.IsAgg() {
		x.errorf(at, "Type mismatch for %s: trying to assign value of type '%v' when map already has a type '%v'", m.Name, t, m.Value)
		return
	}
	n, ok := join(m.Value, t)
	if !ok {
		x.errorf(at, "Type mismatch for %s: trying to assign value of type '%v' when map already has a type '%v'", m.Name, t, m.Value)
		return
	}
	if m.Value == nil || !same(n, m.Value) {
		m.Value, x.c.changed = n, true
	}
	x.warnSign(t, m.Value, rhs)
}

// growAgg makes a map one of an aggregation.
func (x *inst) growAgg(m *mapInfo, t *types.Type, call *syntax.Call) {
	if m == nil || t.Kind == types.None {
		return
	}
	switch {
	case m.Value == nil:
		m.Value, x.c.changed = t, true
		return
	case m.Value.Kind != t.Kind:
		x.errorf(call.Span, "Type mismatch for %s: trying to assign value of type '%v' when map already has a type '%v'", m.Name, t, m.Value)
		return
	case m.Value.Bounds != t.Bounds:
		what := map[types.Kind]string{types.Hist: "bits in a single hist", types.LHist: "lhist bounds in a single map",
			types.TSeries: "tseries bounds in a single map"}[t.Kind]
		x.errorf(call.Span, "Different %s unsupported", what)
		return
	}
	if t.Signed && !m.Value.Signed {
		m.Value, x.c.changed = t, true
	}
}

// key widens the key of a map for an access with l.
func (x *inst) key(m *mapInfo, l *syntax.MapRef) {
	if l.Key == nil {
		return
	}
	x.growKey(m, l.Key, l.Span)
}

func (x *inst) growKey(m *mapInfo, key syntax.Expr, at syntax.Span) {
	t := x.expr(key)
	if m == nil || t.Kind == types.None {
		return
	}
	switch {
	case t.IsAgg() && !readable(t):
		x.errorf(at, "Value '%v' cannot be used as a map key.", t)
		return
	case badKey(t) != "":
		x.errorf(key.Where(), "%s", badKey(t))
		return
	}
	if t.CastableAgg() {
		t = aggInt(t)
	}
	n, ok := join(m.Key, t)
	if !ok {
		x.errorf(at, "Argument mismatch for %s: trying to access with arguments: '%v' when map expects arguments: '%v'", m.Name, t, m.Key)
		return
	}
	if m.Key == nil || !same(n, m.Key) {
		m.Key, x.c.changed = n, true
	}
}

// badKey says why t cannot be part of a key.
func badKey(t *types.Type) string {
	switch {
	case t.Kind == types.Void:
		return "Invalid map key type: void"
	case t.Kind == types.Context || t.Kind == types.Args:
		return "context cannot be part of a map key"
	case t.IsAgg() && !readable(t):
		return t.String() + " cannot be part of a map key"
	}
	for _, f := range t.Fields {
		if why := badKey(f.Type); why != "" {
			return why
		}
	}
	return ""
}

func (x *inst) forStmt(s *syntax.For) {
	v := x.Vars[s.Var]
	t := types.NoneT
	switch o := s.Over.(type) {
	case *syntax.MapRef:
		t = x.overMap(o)
	case *syntax.Range:
		t = x.overRange(o, s.Span.To(o.Span))
	}
	if v != nil && t.Kind != types.None {
		if v.Type == nil || !same(v.Type, t) {
			v.Type, x.c.changed = t, true
		}
		x.setType(s.Var, t)
	}
	x.loop(s.Body)
}

// overMap gives the (key, value) a loop over a map goes through. An aggregation is read as its integer.
func (x *inst) overMap(o *syntax.MapRef) *types.Type {
	m := x.c.maps[o.Name]
	m.read = true
	if m.decided && !m.keyed {
		x.errorf(o.Span, "%s has no explicit keys (scalar map), and cannot be used for iteration", o.Name)
		return types.NoneT
	}
	m.decided, m.keyed = true, true
	if m.Key == nil || m.Value == nil {
		if !m.written {
			x.errorf(o.Span, "Undefined map: %s", o.Name).Hint = didYouMean(o.Name, x.c.writtenMaps())
		}
		return types.NoneT
	}
	v := m.Value
	if v.IsAgg() && !readable(v) {
		x.errorf(o.Span, "Loop expression does not support type: %v", v)
		return types.NoneT
	}
	if v.CastableAgg() {
		v = aggInt(v)
	}
	return types.TupleOf(m.Key, v)
}

func (x *inst) overRange(o *syntax.Range, at syntax.Span) *types.Type {
	lo, hi := x.expr(o.Lo), x.expr(o.Hi)
	for i, t := range []*types.Type{lo, hi} {
		if t.Kind != types.None && !isInt(t) {
			x.errorf(at, "Loop range requires an integer for the %s value", []string{"start", "end"}[i])
			return types.NoneT
		}
	}
	if lo.Kind == types.None || hi.Kind == types.None {
		return types.NoneT
	}
	return joinInt(lo, hi)
}

// setType records the type of an expression that is not evaluated by expr.
func (x *inst) setType(e syntax.Expr, t *types.Type) {
	if t == nil {
		t = types.NoneT
	}
	x.Types[e] = t
}

// useMap notes an access of a map: the first one decides whether it has keys.
func (x *inst) useMap(e *syntax.MapRef, write bool) *mapInfo {
	m := x.c.mapOf(e.Name, e.Span) // new only in statements that are never reached
	m.written, m.read = m.written || write, m.read || !write
	if m.use.Src == nil {
		m.use = e.Span
	}
	keyed := e.Key != nil
	switch {
	case !m.decided:
		m.decided, m.keyed = true, keyed
	case m.keyed && !keyed:
		x.errorf(e.Span, "%s used as a map without an explicit key (scalar map), previously used with an explicit key (non-scalar map)", e.Name)
	case !m.keyed && keyed:
		x.errorf(e.Span, "%s used as a map with an explicit key (non-scalar map), previously used without an explicit key (scalar map)", e.Name)
	}
	return m
}
