package check

import (
	"strconv"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// expr finds the type of e and what of it is known at compile time. None means not known yet, or reported.
func (x *inst) expr(e syntax.Expr) *types.Type {
	agg := x.agg
	if call, ok := e.(*syntax.Call); !ok || call != agg {
		if _, block := e.(*syntax.BlockExpr); !block {
			x.agg = nil
		}
	}
	t := x.typed(e)
	x.agg = agg
	if t == nil {
		t = types.NoneT
	}
	x.Types[e] = t
	return t
}

func (x *inst) typed(e syntax.Expr) *types.Type {
	switch e := e.(type) {
	case *syntax.IntLit:
		return litType(e.Value)
	case *syntax.StrLit:
		if n := x.c.cfg.MaxStrlen; len(e.Value) > n-1 && !x.formats[e] {
			x.errorf(e.Span, "String is too long (over %d bytes): %s", n, e.Value)
		}
		return types.StringT(len(e.Value) + 1)
	case *syntax.BoolLit:
		return types.BoolT
	case *syntax.Param:
		return x.param(e)
	case *syntax.Ident:
		return x.ident(e)
	case *syntax.Var:
		if v := x.Vars[e]; v != nil && v.Type != nil {
			return v.Type
		}
		return types.NoneT
	case *syntax.MapRef:
		return x.readMap(e)
	case *syntax.Call:
		return x.call(e)
	case *syntax.Unary:
		return x.unary(e)
	case *syntax.Binary:
		return x.binary(e)
	case *syntax.Cond:
		return x.cond(e)
	case *syntax.IfExpr:
		return x.ifExpr(e.If)
	case *syntax.Field:
		return x.field(e)
	case *syntax.Index:
		return x.index(e)
	case *syntax.Cast:
		return x.cast(e)
	case *syntax.Tuple:
		return x.tuple(e)
	case *syntax.Record:
		return x.record(e)
	case *syntax.BlockExpr:
		return x.blockExpr(e)
	case *syntax.Comptime:
		return x.comptimeExpr(e)
	case *syntax.TypeExpr:
		x.errorf(e.Span, "When used as a call argument, `typeof` builtin only valid for macro calls that are expecting a type parameter")
	}
	return types.NoneT
}

// param gives a positional parameter: a number if it reads as one, else a string. $# is their number.
func (x *inst) param(e *syntax.Param) *types.Type {
	if e.N == 0 {
		return x.known(e, Const{Int: int64(len(x.c.opts.Params))})
	}
	if e.N > len(x.c.opts.Params) || x.c.opts.Params[e.N-1] == "" {
		x.warnf(e.Span, "Positional parameter $%d is empty or not provided.", e.N)
		return x.known(e, Const{})
	}
	s := x.c.opts.Params[e.N-1]
	digits, neg := s, false
	if s[0] == '-' {
		digits, neg = s[1:], true
	}
	v, _, err := syntax.ParseInt(digits)
	switch {
	case digits == "" || digits[0] < '0' || digits[0] > '9' || err != nil || neg && v > 1<<63:
		return x.known(e, Const{Str: s, IsStr: true})
	case neg:
		return x.known(e, Const{Int: -int64(v)})
	}
	return x.known(e, Const{Int: int64(v), big: v > 1<<63-1})
}

// ident gives a bare name: a builtin, an enumerator, a #define.
func (x *inst) ident(e *syntax.Ident) *types.Type {
	if f := x.c.builtin(e.Name); f != nil {
		return x.invoke(f, nil, e, e.Span)
	}
	if en, v, ok := x.types().EnumValue(e.Name); ok {
		x.Consts[e] = Const{Int: v}
		return types.FromC(en, types.SpaceNone)
	}
	if x.c.macrosC != nil {
		if v, ok := x.c.macrosC.MacroValue(e.Name); ok {
			return x.known(e, Const{Int: v})
		}
	}
	if d := x.c.define(e.Name); d != nil && !x.c.expanding[e.Name] {
		x.c.expanding[e.Name] = true
		defer delete(x.c.expanding, e.Name)
		t := x.expr(d)
		if c, ok := x.constant(d); ok {
			return x.known(e, c)
		}
		return t
	}
	if v, ok := wellKnown(x.c.opts.Arch, e.Name); ok {
		return x.known(e, Const{Int: v})
	}
	d := x.errorf(e.Span, "Unknown identifier: '%s'", e.Name)
	d.Hint = didYouMean(e.Name, x.c.names())
	if c := nearest(e.Name, x.c.names()); c != "" && e.Span.Src != nil {
		d.Fix = &syntax.Fix{Span: e.Span, Text: c}
	}
	return types.NoneT
}

// readMap gives the value of a map.
func (x *inst) readMap(e *syntax.MapRef) *types.Type {
	m := x.useMap(e, false)
	x.key(m, e)
	if m.Value == nil {
		return types.NoneT
	}
	return m.Value
}

func (x *inst) unary(e *syntax.Unary) *types.Type {
	switch e.Op {
	case syntax.INC, syntax.DEC:
		return x.incDec(e)
	case syntax.AND:
		return x.addressOf(e)
	}
	t := x.expr(e.X)
	if t.Kind == types.None {
		return t
	}
	if r, ok := x.foldUnary(e); ok {
		return r
	}
	bad := func() *types.Type {
		x.errorf(e.Span, "The %s operator can not be used on expressions of type '%v'", e.Op, t)
		return types.NoneT
	}
	switch {
	case e.Op == syntax.MUL:
		return x.deref(e, t)
	case e.Op == syntax.NOT && (t.IsInt() || t.Kind == types.Ptr || t.CastableAgg()):
		return types.BoolT
	case t.CastableAgg():
		return aggInt(t)
	case !isInt(t):
		return bad()
	case t.Signed || e.Op == syntax.SUB:
		return types.Int64
	}
	return types.Uint64
}

// deref gives what a pointer points at; an integer is taken for the address of a uint64, as bpftrace does.
func (x *inst) deref(e *syntax.Unary, t *types.Type) *types.Type {
	switch {
	case t.Kind == types.Ptr && t.Elem.Kind == types.Void:
		x.errorf(e.Span, "Can not dereference type '%v'. It is not a pointer to a sized type.", t)
		return types.NoneT
	case t.Kind == types.Ptr:
		return inSpace(t.Elem, t.Space)
	case isInt(t):
		return types.Uint64
	case t.Kind == types.Args || t.Kind == types.Context:
		return t
	case t.Kind == types.Struct:
		x.errorf(e.Span, "Can not dereference struct/union of type '%v'. It is not a pointer.", t)
	default:
		x.errorf(e.Span, "The * operator can not be used on expressions of type '%v'", t)
	}
	return types.NoneT
}

// inSpace gives t, if it is or holds an address, in a space that it does not name itself.
func inSpace(t *types.Type, s types.Space) *types.Type {
	if s == types.SpaceNone || t.Space != types.SpaceNone || t.Kind != types.Ptr && t.Kind != types.Struct {
		return t
	}
	c := *t
	c.Space = s
	return &c
}

// addressOf gives the type of &$x and &@x.
func (x *inst) addressOf(e *syntax.Unary) *types.Type {
	if m, ok := e.X.(*syntax.MapRef); ok && m.Key == nil {
		info := x.c.maps[m.Name]
		if info == nil || info.Value == nil {
			x.errorf(m.Span, "Undefined map: %s", m.Name)
			return types.NoneT
		}
		x.setType(m, info.Value)
		return types.PtrTo(info.Value, types.BPF)
	}
	t := x.expr(e.X)
	if t.Kind == types.None {
		return t
	}
	return types.PtrTo(t, types.BPF)
}

// incDec is ++ and --: the variable becomes 64 bits wide.
func (x *inst) incDec(e *syntax.Unary) *types.Type {
	t := x.expr(e.X)
	if t.Kind == types.None {
		return t
	}
	n := types.Uint64
	switch {
	case t.Kind == types.Ptr:
		n = t
	case !isInt(t):
		x.errorf(e.Span, "The %s operator can not be used on expressions of type '%v'", e.Op, t)
		return types.NoneT
	case t.Signed || e.Op == syntax.DEC:
		n = types.Int64
	}
	switch l := e.X.(type) {
	case *syntax.Var:
		v := x.Vars[l]
		if v == nil || v.declared {
			return t
		}
		x.growVar(v, n, e.Span, e)
		x.setType(l, v.Type)
		return v.Type
	case *syntax.MapRef:
		m := x.useMap(l, true)
		x.growMap(m, n, e.Span, e)
		x.setType(l, m.Value)
		return m.Value
	}
	return n
}

func (x *inst) cond(e *syntax.Cond) *types.Type {
	x.condition(e.C, e.Span)
	a := x.Types[e.C]
	if e.Then != e.C {
		a = x.expr(e.Then)
	}
	b := x.expr(e.Else)
	if c, ok := x.constant(e.C); ok {
		pick := e.Else
		if c.truth() {
			pick = e.Then
		}
		_, okA := x.constant(e.Then)
		_, okB := x.constant(e.Else)
		if v, ok := x.constant(pick); ok && okA && okB {
			return x.known(e, v)
		}
	}
	return x.branches(e.Span, a, b)
}

// branches gives the type both branches of a choice become.
func (x *inst) branches(at syntax.Span, a, b *types.Type) *types.Type {
	if a.Kind == types.None {
		return b
	}
	t, ok := join(a, b)
	if !ok {
		x.errorf(at, "Branches must return the same type or compatible types: have '%v' and '%v'", a, b)
		return types.NoneT
	}
	if b.Kind != types.None && a.CastableAgg() {
		return aggInt(a)
	}
	return t
}

// ifExpr gives the type of an if used for its value; Void if its branches have none.
func (x *inst) ifExpr(s *syntax.If) *types.Type {
	if s.Comptime {
		switch yes, ok := x.comptime(s.Cond); {
		case !ok:
			return types.NoneT
		case yes:
			return x.branchValue(s.Then)
		}
		return x.elseValue(s.Else)
	}
	x.condition(s.Cond, s.Span)
	a, b := x.branchValue(s.Then), x.elseValue(s.Else)
	if a.Kind == types.Void || b.Kind == types.Void {
		return types.VoidT
	}
	return x.branches(s.Span, a, b)
}

func (x *inst) elseValue(s syntax.Stmt) *types.Type {
	switch s := s.(type) {
	case *syntax.If:
		return x.ifExpr(s)
	case *syntax.Block:
		return x.branchValue(s)
	}
	return types.VoidT
}

func (x *inst) branchValue(b *syntax.Block) *types.Type {
	x.stmts(b.Stmts)
	if b.Result == nil {
		return types.VoidT
	}
	return x.expr(b.Result)
}

func (x *inst) blockExpr(e *syntax.BlockExpr) *types.Type {
	agg := x.agg
	x.agg = nil
	x.stmts(e.Stmts)
	x.agg = agg
	if e.Result == nil {
		return types.VoidT
	}
	t := x.expr(e.Result)
	if c, ok := x.constant(e.Result); ok && len(e.Stmts) == 0 {
		x.Consts[e] = c
	}
	return t
}

func (x *inst) comptimeExpr(e *syntax.Comptime) *types.Type {
	t := x.expr(e.X)
	c, ok := x.constant(e.X)
	if !ok {
		if t.Kind != types.Tuple && t.Kind != types.Record {
			x.errorf(e.Span, "Unable to resolve comptime expression")
		}
		return t
	}
	x.Consts[e] = c
	return t
}

func (x *inst) tuple(e *syntax.Tuple) *types.Type {
	elems := make([]*types.Type, len(e.Elems))
	ready := true
	for i, el := range e.Elems {
		elems[i] = x.element(el, "tuple")
		ready = ready && elems[i].Kind != types.None
	}
	if !ready {
		return types.NoneT
	}
	return types.TupleOf(elems...)
}

func (x *inst) record(e *syntax.Record) *types.Type {
	var fields []types.Field
	for _, f := range e.Fields {
		t := x.element(f.Value, "record")
		if t.Kind == types.None {
			return t
		}
		fields = append(fields, types.Field{Name: f.Name, Type: t})
	}
	return types.RecordOf(fields)
}

// element gives the type an element of a tuple or record has: aggregations are read.
func (x *inst) element(e syntax.Expr, what string) *types.Type {
	t := x.expr(e)
	switch {
	case t.Kind == types.Void:
		x.errorf(e.Where(), "Expression of type void cannot exist inside a %s.", what)
		return types.NoneT
	case t.IsAgg() && !readable(t):
		x.errorf(e.Where(), "Map type %v cannot exist inside a %s.", t, what)
		return types.NoneT
	case t.CastableAgg():
		return aggInt(t)
	}
	return t
}

func (x *inst) field(e *syntax.Field) *types.Type {
	t := x.expr(e.X)
	for t.Kind == types.Ptr && t.Elem.Kind == types.Ptr {
		t = t.Elem
	}
	space := t.Space
	if t.Kind == types.Ptr {
		t = t.Elem
	}
	switch t.Kind {
	case types.None:
		return t
	case types.Args:
		return x.argsField(e, t)
	case types.Tuple:
		return x.tupleField(e, t)
	case types.Record:
		f, ok := t.Field(e.Name)
		if !ok {
			x.errorf(e.Span, "Record does not contain a field named '%s'", e.Name).Hint = didYouMean(e.Name, fieldNames(t))
			return types.NoneT
		}
		if c, ok := x.recordConst(e); ok {
			return x.known(e, c)
		}
		return f.Type
	case types.Struct:
		return x.member(e, t, space)
	}
	d := x.errorf(e.Span, "Can not access field '%s' on expression of type '%v'", e.Name, t)
	if id, ok := e.X.(*syntax.Ident); ok && id.Name == "curtask" {
		d.Hint = x.c.noTypes()
	}
	return types.NoneT
}

func (x *inst) tupleField(e *syntax.Field, t *types.Type) *types.Type {
	n, err := strconv.Atoi(e.Name)
	if err != nil {
		x.errorf(e.Span, "Can not access field '%s' on expression of type '%v'", e.Name, t)
		return types.NoneT
	}
	return x.tupleElem(e.Span, t, n)
}

func (x *inst) tupleElem(at syntax.Span, t *types.Type, n int) *types.Type {
	if n < 0 || n >= len(t.Fields) {
		x.errorf(at, "Invalid tuple index: %d. Found %d elements in tuple.", n, len(t.Fields))
		return types.NoneT
	}
	return t.Fields[n].Type
}

func fieldNames(t *types.Type) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, f := range t.Fields {
			if !yield(f.Name) {
				return
			}
		}
	}
}

// argsField gives a parameter or a field of an event.
func (x *inst) argsField(e *syntax.Field, t *types.Type) *types.Type {
	f, ok := t.Field(e.Name)
	if !ok {
		msg := "Can't find function parameter %s"
		if x.Provider.Name == "tracepoint" {
			msg = "Struct/union of type 'struct " + x.tracepointName() + "_args' does not contain a field named '%s'"
		}
		d := x.errorf(e.Span, msg, e.Name)
		if c := nearest(e.Name, fieldNames(t)); c != "" {
			d.Hint = "did you mean `args." + c + "`?"
			d.Fix = &syntax.Fix{Span: e.NameSpan, Text: c}
		}
		return types.NoneT
	}
	if x.Provider.Name == "tracepoint" && f.Off < 8 && f.Name != "" && len(f.Name) > 7 && f.Name[:7] == "common_" {
		x.errorf(e.Span, "BPF does not support accessing common tracepoint fields")
		return types.NoneT
	}
	return f.Type
}

func (x *inst) tracepointName() string {
	if len(x.Targets) == 0 {
		return "tracepoint"
	}
	return "tracepoint__" + x.Targets[0].Module + "__" + x.Targets[0].Func
}

// member gives a member of a C struct. Its pointers point into the space the struct is in, unless they say otherwise.
func (x *inst) member(e *syntax.Field, t *types.Type, space types.Space) *types.Type {
	s, ok := ctype.Strip(t.C).(*ctype.Struct)
	if !ok || s.Fwd && len(s.Members()) == 0 {
		x.errorf(e.Span, "Unknown struct/union: '%v'", t)
		return types.NoneT
	}
	m, ok := s.Member(e.Name)
	if !ok {
		d := x.errorf(e.Span, "Struct/union of type '%v' does not contain a field named '%s'", t, e.Name)
		if c := nearest(e.Name, memberNames(s)); c != "" {
			d.Hint = "did you mean `" + c + "`?"
			d.Fix = &syntax.Fix{Span: e.NameSpan, Text: c}
		}
		return types.NoneT
	}
	if t.Space != types.SpaceNone {
		space = t.Space
	}
	if p, ok := ctype.Strip(m.Type).(*ctype.Ptr); ok && p.PerCPU() {
		x.errorf(e.Span, "Attempting to access pointer field '%s' with unsupported tag attribute: percpu", e.Name)
		return types.NoneT
	}
	r := types.FromC(m.Type, space)
	if x.isSyscallRegs(s, e.Name) { // the registers of a system call hold what the user program passed
		c := *r
		c.Space = types.User
		return &c
	}
	return r
}

func memberNames(s *ctype.Struct) func(func(string) bool) {
	return func(yield func(string) bool) {
		memberNamesTo(s, yield)
	}
}

func memberNamesTo(s *ctype.Struct, yield func(string) bool) bool {
	for _, m := range s.Members() {
		if m.Name == "" {
			if in, ok := ctype.Strip(m.Type).(*ctype.Struct); ok && !memberNamesTo(in, yield) {
				return false
			}
			continue
		}
		if !yield(m.Name) {
			return false
		}
	}
	return true
}

func (x *inst) index(e *syntax.Index) *types.Type {
	t, it := x.expr(e.X), x.expr(e.I)
	if t.Kind == types.None || it.Kind == types.None {
		return types.NoneT
	}
	c, isConst := x.constant(e.I)
	if t.Kind == types.Tuple {
		if !isConst || c.IsStr {
			x.errorf(e.Span, "Tuples must be indexed with a literal integer")
			return types.NoneT
		}
		return x.tupleElem(e.Span, t, int(c.Int))
	}
	if !isConst && (!isInt(it) || it.Signed && !it.Lit) || isConst && (c.IsStr || c.Int < 0 && !c.big) {
		x.errorf(e.Span, "The array index operator [] only accepts non-negative integer indices. Got: %v", it)
		return types.NoneT
	}
	n := 0
	elem := types.NoneT
	switch t.Kind {
	case types.Array:
		elem, n = t.Elem, t.Len
	case types.String:
		elem, n = types.Int8, t.Size
		if s, ok := x.constant(e.X); ok && isConst && int(c.Int) < len(s.Str) {
			return x.known(e, Const{Int: int64(int8(s.Str[c.Int]))})
		}
	case types.Ptr:
		if elem = t.Elem; elem.Size == 0 {
			x.errorf(e.Span, "The array index operator [] cannot be used on a pointer to an unsized type (void *).")
			return types.NoneT
		}
	default:
		x.errorf(e.Span, "The array index operator [] can only be used on arrays, pointers, and tuples, found %v.", t)
		return elem
	}
	if isConst && n > 0 && c.Int >= int64(n) {
		x.errorf(e.Span, "the index %d is out of bounds for array of size %d", c.Int, n)
		return types.NoneT
	}
	return inSpace(elem, t.Space)
}
