package check

import (
	"fmt"
	"maps"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// Call is a call of a function, or the mention of a builtin, as a row's Check sees it.
type Call struct {
	Func *Func
	Expr syntax.Expr // *syntax.Call or *syntax.Ident
	Span syntax.Span
	Args []syntax.Expr
	T    []*types.Type // of Args; None for words, whole maps and what is not known yet
	x    *inst
}

func (c *Call) errorf(format string, args ...any) *syntax.Diag {
	return c.x.errorf(c.Span, format, args...)
}

func (c *Call) warnf(format string, args ...any) *syntax.Diag {
	return c.x.warnf(c.Span, format, args...)
}

// ready reports that all arguments have types.
func (c *Call) ready() bool {
	for i, t := range c.T {
		if t.Kind == types.None && strings.IndexByte("mMwtv", c.Func.letter(i)) < 0 {
			return false
		}
	}
	return true
}

// constant gives argument i if it is there and known.
func (c *Call) constant(i int) (Const, bool) {
	if i >= len(c.Args) {
		return Const{}, false
	}
	return c.x.constant(c.Args[i])
}

// str gives argument i if it is a string literal.
func (c *Call) str(i int) string {
	v, _ := c.constant(i)
	return v.Str
}

// isWord gives argument i if it is a bare name.
func (c *Call) isWord(i int) (*syntax.Ident, bool) {
	if i >= len(c.Args) {
		return nil, false
	}
	id, ok := c.Args[i].(*syntax.Ident)
	return id, ok
}

// letter gives what argument i must be:
//
//	m  a whole map                    M  a whole map, or any value
//	w  a bare word, or a value        t  a type or a value, not evaluated
//	f  a format: a string literal     s  a string literal        S  a string
//	i  an integer                     I  an integer literal      p  a pointer
//	v  a variable that is set          *  any value
func (f *Func) letter(i int) byte {
	switch {
	case f.spec == "":
		return '*'
	case i < len(f.spec):
		return f.spec[i]
	}
	return f.spec[len(f.spec)-1]
}

// word reports arguments that may be bare words.
func (f *Func) word(i int) bool { return f.letter(i) == 'w' }

// builtin finds the row of a name that gives a value without being called.
func (c *checker) builtin(name string) *Func {
	if isArgN(name) {
		return c.argN
	}
	if f := c.funcs[name]; f != nil && f.Builtin {
		return f
	}
	return nil
}

// isArgN reports arg0, arg1, ….
func isArgN(s string) bool {
	n, ok := strings.CutPrefix(s, "arg")
	return ok && n != "" && len(n) < 4 && strings.Trim(n, "0123456789") == ""
}

// names gives everything a bare name may mean.
func (c *checker) names() func(func(string) bool) {
	return func(yield func(string) bool) {
		for n, f := range maps.All(c.funcs) {
			if f.Builtin && !yield(n) {
				return
			}
		}
		for n := range maps.Keys(c.macros) {
			if !yield(n) {
				return
			}
		}
		for n := range maps.Keys(c.defines) {
			if !yield(n) {
				return
			}
		}
	}
}

// callNames gives everything that can be called.
func (c *checker) callNames() func(func(string) bool) {
	return func(yield func(string) bool) {
		for n := range maps.Keys(c.funcs) {
			if !yield(n) {
				return
			}
		}
		for n := range maps.Keys(c.macros) {
			if !yield(n) {
				return
			}
		}
	}
}

// call checks a call.
func (x *inst) call(e *syntax.Call) *types.Type {
	f := x.c.funcs[e.Name]
	if f == nil {
		for _, a := range e.Args {
			x.expr(a)
		}
		d := x.errorf(e.Span, "Unknown function: '%s'", e.Name)
		if c := nearest(e.Name, x.c.callNames()); c != "" {
			d.Hint = "did you mean `" + c + "`?"
			d.Fix = &syntax.Fix{Span: e.NameSpan, Text: c}
		}
		return types.NoneT
	}
	x.Calls[e] = f
	switch e.Name {
	case "printf", "errorf", "warnf", "system", "cat", "time", "strftime", "debugf":
		if len(e.Args) > 0 { // a format stays on this side: it may be longer than the program's strings
			x.formats[e.Args[0]] = true
		}
	}
	return x.invoke(f, e.Args, e, e.Span)
}

// invoke checks what every row has in common, and then asks the row.
func (x *inst) invoke(f *Func, args []syntax.Expr, e syntax.Expr, at syntax.Span) *types.Type {
	if f.Unsafe && !x.c.opts.Unsafe {
		x.errorf(at, "%s() is unsafe. To use you need the --unsafe flag", f.Name)
	}
	if f.needs != 0 && x.Provider.Args&f.needs == 0 {
		x.errorf(at, "%s can not be used with \"%s\" probes", f.Name, x.Provider.Name)
		return types.NoneT
	}
	if pl, ok := x.c.world.(Place); ok && len(x.Targets) > 0 {
		if why := pl.NoFunc(f, len(args), x.Targets[0]); why != "" {
			x.errorf(at, "%s has no answer here: %s", f.Name, why)
			return types.NoneT
		}
	}
	if f.Agg && x.agg != e {
		x.errorf(at, "%s() must be assigned directly to a map", f.Name)
		return types.NoneT
	}
	if msg := f.arity(len(args)); msg != "" {
		x.errorf(at, "%s", msg).Hint = "usage: " + f.Sig
		return types.NoneT
	}
	c := &Call{Func: f, Expr: e, Span: at, Args: args, x: x}
	ok := c.types() && c.checkArgs()
	if !ok {
		return types.NoneT
	}
	t := f.ret
	switch {
	case f.Check != nil:
		t = f.Check(c)
	case t == nil:
		t = types.VoidT
	}
	return t
}

// types finds the types of the arguments. It reports whether all are known.
func (c *Call) types() bool {
	c.T = make([]*types.Type, len(c.Args))
	for i, a := range c.Args {
		c.T[i] = types.NoneT
		l := c.Func.letter(i)
		m, isMap := a.(*syntax.MapRef)
		_, isWord := a.(*syntax.Ident)
		switch {
		case l|0x20 == 'm' && isMap && m.Key == nil:
			if info := c.x.c.maps[m.Name]; info != nil {
				if info.use.Src == nil {
					info.use = m.Span
				}
				c.x.setType(a, info.Value)
			}
		case l == 'm':
			c.x.errorf(a.Where(), "%s() expects a map argument", c.Func.Name)
			return false
		case l == 'w' && isWord, l == 't', l == 'v':
		default:
			c.T[i] = c.x.expr(a)
		}
	}
	return c.ready()
}

// checkArgs compares the arguments with the letters of the row.
func (c *Call) checkArgs() bool {
	for i, a := range c.Args {
		if !c.checkArg(i, a) {
			return false
		}
	}
	return true
}

func (c *Call) checkArg(i int, a syntax.Expr) bool {
	t := c.T[i]
	v, known := c.x.constant(a)
	want, literal, ok := "", false, true
	switch c.Func.letter(i) {
	case 'f', 's':
		want, literal, ok = "string", true, known && v.IsStr
	case 'S':
		want, ok = "string", t.Kind == types.String
	case 'I':
		want, literal, ok = "int", true, known && !v.IsStr
	case 'i':
		want, ok = "int", isInt(t) || readable(t)
	case 'p':
		want, ok = "pointer", t.Kind == types.Ptr
	}
	if ok {
		return true
	}
	if !literal {
		c.errorf("%s() only supports %s arguments (%s provided)", c.Func.Name, want, kindWord(t))
		return false
	}
	c.errorf("%s() expects a %s literal (%s provided)", c.Func.Name, want, kindWord(t))
	if p, ok := a.(*syntax.Param); ok && want == "string" {
		c.x.errorf(p.Span, "Use str($%d) to treat $%d as a string", p.N, p.N)
	}
	return false
}

// arity gives the message about a wrong number of arguments.
func (f *Func) arity(n int) string {
	count := func(n int) string {
		switch n {
		case 0:
			return "no arguments"
		case 1:
			return "one argument"
		}
		return fmt.Sprintf("%d arguments", n)
	}
	switch {
	case n >= f.Min && (n <= f.Max || f.Max < 0):
		return ""
	case f.Min == f.Max:
		return fmt.Sprintf("%s() requires %s (%d provided)", f.Name, count(f.Min), n)
	case n < f.Min:
		return fmt.Sprintf("%s() requires at least %s (%d provided)", f.Name, count(f.Min), n)
	case f.Max == 0:
		return fmt.Sprintf("%s() requires no arguments (%d provided)", f.Name, n)
	}
	return fmt.Sprintf("%s() takes up to %s (%d provided)", f.Name, count(f.Max), n)
}

// kindWord names the kind of a type as bpftrace's messages about arguments do.
func kindWord(t *types.Type) string {
	switch t.Kind {
	case types.Int, types.Enum:
		return "int"
	case types.Bool:
		return "bool"
	case types.Ptr, types.Context:
		return "pointer"
	case types.Array:
		return "array"
	case types.String:
		return "string"
	case types.Buffer:
		return "buffer"
	case types.Struct, types.Args:
		return "c_type"
	case types.Tuple:
		return "tuple"
	case types.Record:
		return "record"
	case types.Inet:
		return "inet"
	case types.Sum, types.Min, types.Max, types.Avg, types.Stats:
		return strings.TrimPrefix(t.String(), "u")
	}
	return t.String()
}
