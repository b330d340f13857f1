package check

import (
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// compileRows are known when the program is compiled.
var compileRows = []*Func{
	{Name: "sizeof", Sig: "sizeof(type or expression)", Doc: "size in bytes", Min: 1, Max: 1, spec: "t", meta: true, Check: checkSizeof},
	{Name: "offsetof", Sig: "offsetof(type or expression, field[.field])", Doc: "offset of a field in bytes", Min: 2, Max: 2, spec: "tt", meta: true, Check: checkOffsetof},
	{Name: "typeinfo", Sig: "typeinfo(type or expression)", Doc: "what is known of a type", Min: 1, Max: 1, spec: "t", meta: true, Check: checkTypeinfo},
	{Name: "is_ptr", Sig: "is_ptr(expression)", Doc: "whether it is a pointer", Min: 1, Max: 1, spec: "t", meta: true, Check: checkIs(func(t *types.Type) bool { return t.Kind == types.Ptr })},
	{Name: "is_str", Sig: "is_str(expression)", Doc: "whether it is a string", Min: 1, Max: 1, spec: "t", meta: true, Check: checkIs(func(t *types.Type) bool { return t.Kind == types.String })},
	{Name: "is_array", Sig: "is_array(expression)", Doc: "whether it is an array", Min: 1, Max: 1, spec: "t", meta: true, Check: checkIs(func(t *types.Type) bool { return t.Kind == types.Array })},
	{Name: "is_integer", Sig: "is_integer(expression)", Doc: "whether it is an integer", Min: 1, Max: 1, spec: "t", meta: true, Check: checkIs(isInt)},
	{Name: "is_unsigned_integer", Sig: "is_unsigned_integer(expression)", Doc: "whether it is an unsigned integer", Min: 1, Max: 1, spec: "t", meta: true, Check: checkIs(func(t *types.Type) bool { return isInt(t) && !t.Signed })},
	{Name: "is_literal", Sig: "is_literal(expression)", Doc: "whether it is a literal", Min: 1, Max: 1, meta: true, Check: checkIsLiteral},
	{Name: "default_str_length", Sig: "default_str_length()", Doc: "bytes a string has room for", Builtin: true, Check: checkDefaultLen},
	{Name: "container_of", Sig: "container_of(ptr, type, member)", Doc: "the object a member is in", Min: 3, Max: 3, spec: "*tt", Check: checkContainer},
	{Name: "getopt", Sig: "getopt(name [, default [, description]])", Doc: "named argument of the program", Min: 1, Max: 3, spec: "s*s", Check: checkGetopt},
	{Name: "kfunc_exist", Sig: "kfunc_exist(const string name)", Doc: "whether the kernel has the function", Min: 1, Max: 1, spec: "s", Check: checkKfunc},
	{Name: "kfunc_allowed", Sig: "kfunc_allowed(const string name)", Doc: "whether this probe may call the kernel's function", Min: 1, Max: 1, spec: "s", Check: checkKfuncAllowed},
}

// checkSizeof gives the size of a type, or of what an expression would give.
func checkSizeof(c *Call) *types.Type {
	t := c.x.typeOfExpr(c.Args[0])
	if t.Kind == types.None {
		return t
	}
	return c.x.known(c.Expr, Const{Int: int64(t.Size)})
}

// checkOffsetof follows the fields of a struct.
func checkOffsetof(c *Call) *types.Type {
	t := c.x.typeOfExpr(c.Args[0])
	for t.Kind == types.Ptr {
		t = t.Elem
	}
	if t.Kind == types.None {
		return t
	}
	path, ok := fieldPath(c.Args[1])
	if !ok {
		c.errorf("offsetof() expects a field as second argument")
		return types.NoneT
	}
	off, ok := c.offset(t, path)
	if !ok {
		return types.NoneT
	}
	return c.x.known(c.Expr, Const{Int: int64(off)})
}

// fieldPath reads a.b.c.
func fieldPath(e syntax.Expr) ([]string, bool) {
	switch e := e.(type) {
	case *syntax.Ident:
		return []string{e.Name}, true
	case *syntax.Field:
		p, ok := fieldPath(e.X)
		return append(p, e.Name), ok
	}
	return nil, false
}

// offset gives the offset in bytes of a field within t.
func (c *Call) offset(t *types.Type, path []string) (int, bool) {
	if t.Kind == types.Record || t.Kind == types.Tuple {
		f, ok := t.Field(path[0])
		if !ok || len(path) > 1 {
			c.errorf("'%v' has no field named '%s'", t, strings.Join(path, "."))
		}
		return f.Off, ok
	}
	cur, off := t.C, 0
	for _, name := range path {
		s, ok := ctype.Strip(cur).(*ctype.Struct)
		if !ok || cur == nil {
			c.errorf("'%s' is not a C type.", typeName(cur, t))
			return 0, false
		}
		m, ok := s.Member(name)
		if !ok {
			c.errorf("'%s' has no field named '%s'", ctype.Name(s), name).Hint = didYouMean(name, memberNames(s))
			return 0, false
		}
		off += m.BitOff
		cur = m.Type
	}
	return off / 8, true
}

func typeName(c ctype.Type, t *types.Type) string {
	if c == nil {
		return t.String()
	}
	return ctype.Name(c)
}

// checkTypeinfo gives a record of literals: (btf_id=0, base_type="int", full_type="uint64").
func checkTypeinfo(c *Call) *types.Type {
	t := c.x.typeOfExpr(c.Args[0])
	if t.Kind == types.None {
		return t
	}
	return types.RecordOf([]types.Field{
		{Name: "btf_id", Type: types.Uint64}, {Name: "base_type", Type: types.StringT(len(kindWord(t)) + 1)},
		{Name: "full_type", Type: types.StringT(len(t.String()) + 1)},
	})
}

// recordConst gives a field of a record that is known: of typeinfo, or of a record of literals.
func (x *inst) recordConst(e *syntax.Field) (Const, bool) {
	name := ""
	switch r := e.X.(type) {
	case *syntax.Ident:
		name = r.Name
	case *syntax.Call:
		name = r.Name
	}
	if name == "config" {
		for _, f := range x.c.cfg.fields() {
			if f.name == e.Name {
				return f.value, true
			}
		}
	}
	switch r := e.X.(type) {
	case *syntax.Record:
		for _, f := range r.Fields {
			if f.Name == e.Name {
				return x.constant(f.Value)
			}
		}
	case *syntax.Call:
		if r.Name != "typeinfo" || len(r.Args) != 1 {
			break
		}
		t := x.typeOfExpr(r.Args[0])
		switch e.Name {
		case "base_type":
			return Const{Str: kindWord(t), IsStr: true}, true
		case "full_type":
			return Const{Str: t.String(), IsStr: true}, true
		}
		return Const{}, true
	}
	return Const{}, false
}

// checkIs makes the check of a question about a type.
func checkIs(is func(*types.Type) bool) func(*Call) *types.Type {
	return func(c *Call) *types.Type {
		t := c.x.typeOfExpr(c.Args[0])
		if t.Kind == types.None {
			return t
		}
		c.x.Consts[c.Expr] = boolConst(is(t))
		return types.BoolT
	}
}

func checkIsLiteral(c *Call) *types.Type {
	_, ok := c.constant(0)
	c.x.Consts[c.Expr] = boolConst(ok)
	return types.BoolT
}

func checkDefaultLen(c *Call) *types.Type {
	return c.x.known(c.Expr, Const{Int: int64(c.x.c.cfg.MaxStrlen)})
}

func checkContainer(c *Call) *types.Type {
	t := c.x.typeOfExpr(c.Args[1])
	path, ok := fieldPath(c.Args[2])
	if t.Kind == types.None {
		return t
	}
	if t.Kind != types.Struct || !ok || !isInt(c.T[0]) && c.T[0].Kind != types.Ptr {
		c.errorf("container_of() expects a pointer, a struct and a member")
		return types.NoneT
	}
	off, ok := c.offset(t, path)
	if !ok {
		return types.NoneT
	}
	c.x.Consts[c.Args[2]] = Const{Int: int64(off)}
	return types.PtrTo(t, c.T[0].Space)
}

// checkGetopt gives the value of a named argument, or its default.
func checkGetopt(c *Call) *types.Type {
	def, kind := Const{}, types.BoolT
	if len(c.Args) > 1 {
		v, ok := c.constant(1)
		if !ok {
			c.x.errorf(c.Args[1].Where(), "Second argument to 'getopt' must be a string literal, integer literal, or a boolean literal.")
			return types.NoneT
		}
		def, kind = v, c.T[1]
	}
	s, given := c.x.c.opts.Named[c.str(0)]
	switch {
	case !given:
	case def.IsStr:
		def.Str = s
	case kind.Kind == types.Bool:
		def = boolConst(s != "0" && s != "false")
	default:
		v, _, err := syntax.ParseInt(strings.TrimPrefix(s, "-"))
		if err != nil {
			c.errorf("Command line option '%s' is expecting an integer. Got: %s", c.str(0), s)
			return types.NoneT
		}
		def = Const{Int: int64(v), big: v > 1<<63-1}
		if strings.HasPrefix(s, "-") {
			def = Const{Int: -int64(v)}
		}
	}
	if kind.Kind == types.Bool {
		c.x.Consts[c.Expr] = def
		return types.BoolT
	}
	return c.x.known(c.Expr, def)
}

func checkKfuncAllowed(c *Call) *types.Type {
	c.x.Consts[c.Expr] = boolConst(c.mayCall(c.str(0)))
	return types.BoolT
}

// mayCall says if all places of the clause may call a function of the kernel.
func (c *Call) mayCall(name string) bool {
	for _, t := range c.x.Targets[:min(1, len(c.x.Targets))] { // one provider: one type of program
		return c.x.c.world.Kfunc(t, name)
	}
	return false
}

func checkKfunc(c *Call) *types.Type {
	_, err := c.x.c.ctypes.Func("", c.str(0))
	c.x.Consts[c.Expr] = boolConst(err == nil)
	return types.BoolT
}
