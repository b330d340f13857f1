package check

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// named are the types of the language, and C's own where the kernel's types do not name them.
var named = map[string]*types.Type{
	"void": types.VoidT, "bool": types.BoolT, "int8": types.Int8, "int16": types.Int16, "int32": types.Int32, "int64": types.Int64,
	"uint8": types.Uint8, "uint16": types.Uint16, "uint32": types.Uint32, "uint64": types.Uint64,
	"string": types.StringT(0), "buffer": {Kind: types.Buffer}, "inet": types.InetT, "timestamp": {Kind: types.Strftime, Size: 24},
	"macaddr_t": types.MACT, "username_t": types.UsernameT, "cgroup_path_t": {Kind: types.CgroupPath, Size: 16},
	"count_t": countT, "sum_t": agg(types.Sum, true), "min_t": agg(types.Min, true), "max_t": agg(types.Max, true),
	"avg_t": agg(types.Avg, true), "stats_t": agg(types.Stats, true), "usum_t": agg(types.Sum, false),
	"umin_t": agg(types.Min, false), "umax_t": agg(types.Max, false), "uavg_t": agg(types.Avg, false),
	"ustats_t": agg(types.Stats, false),
}

// cNames are C's types, for kernels without type information.
var cNames = map[string]*types.Type{
	"char": types.Int8, "signed char": types.Int8, "unsigned char": types.Uint8,
	"int": types.Int32, "signed": types.Int32, "signed int": types.Int32, "unsigned": types.Uint32, "unsigned int": types.Uint32,
	"int8_t": types.Int8, "int16_t": types.Int16, "int32_t": types.Int32, "int64_t": types.Int64, "uint8_t": types.Uint8,
	"uint16_t": types.Uint16, "uint32_t": types.Uint32, "uint64_t": types.Uint64, "size_t": types.Uint64, "ssize_t": types.Int64,
	"uintptr_t": types.Uint64, "intptr_t": types.Int64, "pid_t": types.Int32, "u8": types.Uint8, "u16": types.Uint16,
	"u32": types.Uint32, "u64": types.Uint64, "s8": types.Int8, "s16": types.Int16, "s32": types.Int32, "s64": types.Int64,
}

// typeOf gives the type t names; None after an error.
func (x *inst) typeOf(t *syntax.TypeExpr) *types.Type {
	base := x.baseType(t)
	if base.Kind == types.None {
		return base
	}
	for range t.Ptr {
		base = types.PtrTo(base, types.SpaceNone)
	}
	for i, n := range t.Dims {
		if i == 0 && t.Ptr == 0 && t.Elem == nil && base.Size == 0 && n > 0 {
			switch base.Kind {
			case types.String:
				base = types.StringT(n)
				continue
			case types.Buffer:
				base = types.BufferT(n)
				continue
			}
		}
		if base.Size == 0 {
			x.errorf(t.Span, "Could not determine size of the array")
			return types.NoneT
		}
		if n > 1<<24/max(1, base.Size) {
			x.errorf(t.Span, "Array type is too large")
			return types.NoneT
		}
		base = types.ArrayOf(base, max(0, n))
	}
	x.setType(t, base)
	return base
}

func (x *inst) baseType(t *syntax.TypeExpr) *types.Type {
	switch {
	case t.Elem != nil:
		return x.typeOf(t.Elem)
	case t.Of != nil:
		return x.typeOfExpr(t.Of)
	}
	r, ok := x.namedType(t.Name)
	if !ok {
		x.errorf(t.Span, "Cannot resolve unknown type \"%s\"", t.Name).Hint = x.c.noTypes()
		return types.NoneT
	}
	return r
}

// noTypes says that the kernel's types cannot be read here, "" where they can.
func (c *checker) noTypes() string {
	if w, ok := c.world.(Untyped); ok {
		if err := w.NoTypes(); err != nil {
			return fmt.Sprintf("the kernel's types are not to be had here (%v): write those that you need into the program, as C does", err)
		}
	}
	return ""
}

// namedType finds a type by its name.
func (x *inst) namedType(name string) (*types.Type, bool) {
	if t, ok := named[name]; ok {
		return t, true
	}
	kinds := []ctype.Kind{ctype.KindTypedef, ctype.KindBase, ctype.Any}
	tag, rest, tagged := strings.Cut(name, " ")
	if k, ok := map[string]ctype.Kind{"struct": ctype.KindStruct, "union": ctype.KindUnion, "enum": ctype.KindEnum}[tag]; ok && tagged {
		kinds, name = []ctype.Kind{k}, rest
	}
	for _, k := range kinds {
		if t, err := x.types().ByName(k, name); err == nil {
			return types.FromC(t, types.SpaceNone), true
		}
	}
	if kinds[0] != ctype.KindTypedef {
		return nil, false
	}
	if t, ok := cNames[name]; ok {
		return t, true
	}
	return longType(name)
}

// longType reads C's spellings of short and long.
func longType(name string) (*types.Type, bool) {
	size, signed := 0, true
	for _, w := range strings.Fields(name) {
		switch w {
		case "unsigned":
			signed = false
		case "short":
			size = 2
		case "long":
			size = 8
		case "int", "signed":
		default:
			return nil, false
		}
	}
	return types.IntT(size, signed), size > 0
}

// typeOfExpr gives the type of an expression that is not evaluated; a bare name may be a type, a map without key means its key.
func (x *inst) typeOfExpr(e syntax.Expr) *types.Type {
	switch e := e.(type) {
	case *syntax.TypeExpr:
		return x.typeOf(e)
	case *syntax.Ident:
		if x.c.builtin(e.Name) == nil {
			if t, ok := x.namedType(e.Name); ok {
				return t
			}
			if _, _, ok := x.types().EnumValue(e.Name); ok {
				return types.Uint64 // by itself an enumerator is a number, which has 64 bits
			}
		}
	case *syntax.MapRef:
		m := x.c.maps[e.Name]
		if m == nil || e.Key != nil {
			break
		}
		if !m.decided || m.keyed && m.Key == nil {
			return types.NoneT
		}
		if m.keyed {
			x.setType(e, m.Key)
			return m.Key
		}
	}
	return x.expr(e)
}

// cast checks (T)x.
func (x *inst) cast(e *syntax.Cast) *types.Type {
	from := x.expr(e.X)
	t := x.typeOf(e.Type)
	if from.Kind == types.None || t.Kind == types.None {
		return types.NoneT
	}
	t = x.sized(e, t, from)
	if t.Kind == types.None {
		return t
	}
	bad := func() *types.Type {
		x.errorf(e.Head, "Cannot cast from \"%v\" to \"%v\"", from, t)
		return types.NoneT
	}
	switch {
	case from.Kind == types.Struct:
		x.errorf(e.Head, "Cannot cast from C type \"%v\"", from)
		return types.NoneT
	case !castable(from, t):
		return bad()
	case types.Equal(from, t) && t.Kind != types.Ptr && !from.Lit:
		x.warnf(e.Head, "Unnecessary cast: expression is already of type %v", from)
	}
	if t.Kind == types.Enum && !x.enumHas(e, t) {
		return types.NoneT
	}
	if c, ok := x.constant(e.X); ok && !c.IsStr && t.IsInt() {
		x.Consts[e] = c.as(t)
	}
	if t.Kind == types.Ptr || isInt(t) && t.Size == 8 {
		return x.castSpace(t, from)
	}
	return t
}

// castSpace keeps the space of an address.
func (x *inst) castSpace(t, from *types.Type) *types.Type {
	s := from.Space
	if s == types.SpaceNone || t.Space != types.SpaceNone {
		return t
	}
	c := *t
	c.Space = s
	return &c
}

// sized gives int8[] the length its operand has, and string its size.
func (x *inst) sized(e *syntax.Cast, t, from *types.Type) *types.Type {
	switch {
	case t.Kind == types.Array && t.Len == 0:
		if from.Size%t.Elem.Size != 0 {
			x.errorf(e.Head, "Cannot determine array size: the element size is incompatible with the cast integer size")
			return types.NoneT
		}
		return types.ArrayOf(t.Elem, from.Size/t.Elem.Size)
	case t.Kind == types.String && t.Size == 0 && from.Kind == types.String:
		return from
	case t.Kind == types.String && t.Size == 0:
		return types.StringT(x.c.cfg.MaxStrlen)
	}
	return t
}

// castable reports casts that mean something.
func castable(from, t *types.Type) bool {
	number := isInt(from) || from.CastableAgg()
	switch t.Kind {
	case types.Int, types.Enum:
		return number || from.Kind == types.Bool || from.Kind == types.Ptr || from.Kind == types.Array && from.Size == t.Size ||
			from.Kind == types.Context || from.Kind == types.Args || from.Kind == types.KSym || from.Kind == types.Timestamp
	case types.Bool:
		return number || from.Kind == types.Bool || from.Kind == types.Ptr || from.Kind == types.String
	case types.Ptr:
		return number || from.Kind == types.Ptr || from.Kind == types.Context || from.Kind == types.Args ||
			from.Kind == types.Array && from.Size == 8
	case types.Array:
		if !isInt(t.Elem) && t.Elem.Kind != types.Bool {
			return false
		}
		if isInt(from) {
			return t.Size == from.Size || t.Size <= 8 && t.Size > from.Size
		}
		return (from.Kind == types.Bool || from.Kind == types.String || from.Kind == types.Array) && t.Size == from.Size
	case types.String:
		return from.Kind == types.String && t.Size >= from.Size
	case types.Buffer:
		return from.Kind == types.Buffer && t.Size >= from.Size
	case types.Username:
		return isInt(from)
	case types.Struct:
		return false
	}
	return compatible(from, t)
}

// enumHas reports a literal that is no enumerator of the enum it is cast to.
func (x *inst) enumHas(e *syntax.Cast, t *types.Type) bool {
	en, _ := ctype.Strip(t.C).(*ctype.Enum)
	c, ok := x.constant(e.X)
	if en == nil || !ok || c.IsStr {
		return true
	}
	for _, v := range en.Values {
		if v.Value == c.Int {
			return true
		}
	}
	x.errorf(e.Head, "Enum: %s doesn't contain a variant value of %d", en.Name, c.Int)
	return false
}

// as gives c as a value of the integer type t.
func (c Const) as(t *types.Type) Const {
	if t.Kind == types.Bool {
		return boolConst(c.truth())
	}
	if t.Size >= 8 {
		c.big = !t.Signed && c.Int < 0
		return c
	}
	sh := uint(64 - 8*t.Size)
	if t.Signed {
		return Const{Int: c.Int << sh >> sh}
	}
	return Const{Int: int64(uint64(c.Int) << sh >> sh)}
}
