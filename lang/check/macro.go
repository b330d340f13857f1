package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// maxExpansion bounds the nodes macro expansion may make: macros can call each other twice each.
const maxExpansion = 1 << 16

// macroKey tells macros of one name apart: by the kinds of their parameters.
func macroKey(params []syntax.Expr) string {
	var b strings.Builder
	for _, p := range params {
		switch p.(type) {
		case *syntax.Var:
			b.WriteByte('$')
		case *syntax.MapRef:
			b.WriteByte('@')
		default:
			b.WriteByte('x')
		}
	}
	return b.String()
}

// declareMacros fills the table of macros.
func (c *checker) declareMacros(ms []*syntax.Macro) {
	c.macros = map[string][]*syntax.Macro{}
	for _, m := range ms {
		if !c.validMacro(m) {
			continue
		}
		for _, old := range c.macros[m.Name] {
			if macroKey(old.Params) == macroKey(m.Params) {
				c.errorf(m.Span, "Redefinition of macro: %s", m.Name)
			}
		}
		c.macros[m.Name] = append(c.macros[m.Name], m)
	}
}

// validMacro reports parameters of the same name.
func (c *checker) validMacro(m *syntax.Macro) bool {
	seen := map[string]bool{}
	for _, p := range m.Params {
		name, what := paramName(p)
		if seen[name] {
			c.errorf(p.Where(), "%s for macro argument has already been used: %s", what, name)
			return false
		}
		seen[name] = true
	}
	return true
}

// paramName gives the name of a macro's parameter and the word for its kind.
func paramName(p syntax.Expr) (name, what string) {
	switch p := p.(type) {
	case *syntax.Var:
		return p.Name, "Variable"
	case *syntax.MapRef:
		return p.Name, "Map"
	case *syntax.Ident:
		return p.Name, "Ident"
	}
	return "", "Ident"
}

// expander puts the bodies of macros in the place of their calls.
type expander struct {
	c     *checker
	stack []*syntax.Macro
	nodes int
}

// expandBlock copies a clause's body with all macros expanded.
func (c *checker) expandBlock(b *syntax.BlockExpr) *syntax.BlockExpr {
	x := &expander{c: c}
	return x.cloner(nil).CloneBlock(b)
}

// expandExpr copies an expression with all macros expanded.
func (c *checker) expandExpr(e syntax.Expr) syntax.Expr {
	x := &expander{c: c}
	return x.cloner(nil).CloneExpr(e)
}

// subst is what the parameters of the macro being expanded stand for.
type subst struct {
	macro *syntax.Macro
	id    int // makes the names of this expansion unique
	args  map[string]syntax.Expr
	at    syntax.Span // the call
}

// cloner copies trees: s, if not nil, replaces parameters; calls of macros are expanded.
func (x *expander) cloner(s *subst) *syntax.Cloner {
	cl := &syntax.Cloner{}
	if s != nil {
		cl.Via = &s.at
	}
	cl.Expr = func(e syntax.Expr) syntax.Expr {
		if x.nodes++; x.nodes > maxExpansion {
			return x.tooBig(e)
		}
		if s != nil {
			if r := x.replace(s, cl, e); r != nil {
				return r
			}
		}
		switch e := e.(type) {
		case *syntax.Call:
			return x.call(cl, e)
		case *syntax.Ident:
			return x.ident(cl, e)
		}
		return nil
	}
	return cl
}

func (x *expander) tooBig(e syntax.Expr) syntax.Expr {
	if x.nodes == maxExpansion+1 {
		x.c.errorf(e.Where(), "macro expansion is too large")
	}
	return &syntax.Bad{Span: e.Where()}
}

// copyArg copies an argument, whose macros are already expanded, and counts its nodes.
func (x *expander) copyArg(a syntax.Expr) syntax.Expr {
	cl := &syntax.Cloner{Expr: func(e syntax.Expr) syntax.Expr {
		if x.nodes++; x.nodes > maxExpansion {
			return x.tooBig(e)
		}
		return nil
	}}
	return cl.CloneExpr(a)
}

// replace gives what stands for e inside a macro, nil if e is no parameter and needs no other name.
func (x *expander) replace(s *subst, cl *syntax.Cloner, e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.Var:
		if a, ok := s.args[e.Name]; ok {
			return x.copyArg(a)
		}
		return &syntax.Var{Span: via(cl, e.Span), Name: fmt.Sprint(e.Name, mark, s.id)}
	case *syntax.MapRef:
		a, ok := s.args[e.Name].(*syntax.MapRef)
		if !ok {
			x.c.errorf(e.Span, "Unhygienic access to map: %s. Maps must be passed into the macro as arguments.", e.Name)
			return &syntax.Bad{Span: e.Span}
		}
		return &syntax.MapRef{Span: via(cl, e.Span), Name: a.Name, Key: cl.CloneExpr(e.Key)}
	case *syntax.Ident:
		if a, ok := s.args[e.Name]; ok {
			return x.copyArg(a)
		}
	case *syntax.TypeExpr:
		return x.replaceType(s, e)
	case *syntax.Cast:
		return x.recast(s, cl, e)
	}
	return nil
}

// replaceType puts a type parameter in: (a *) with a = typeof(uint8). An expression gives its type.
func (x *expander) replaceType(s *subst, t *syntax.TypeExpr) syntax.Expr {
	a, ok := s.args[t.Name]
	if !ok || t.Name == "" {
		return nil
	}
	base, ok := x.copyArg(a).(*syntax.TypeExpr)
	if !ok {
		base = &syntax.TypeExpr{Span: t.Span, Of: x.copyArg(a)}
	}
	if t.Ptr == 0 && len(t.Dims) == 0 {
		return base
	}
	return &syntax.TypeExpr{Span: t.Span, Elem: base, Ptr: t.Ptr, Dims: t.Dims}
}

// recast undoes what the parser had to guess: (x) - 1 with an expression parameter x is no cast.
func (x *expander) recast(s *subst, cl *syntax.Cloner, e *syntax.Cast) syntax.Expr {
	a, ok := s.args[e.Type.Name]
	if !ok || e.Type.Name == "" || e.Type.Ptr > 0 || len(e.Type.Dims) > 0 {
		return nil
	}
	if _, isType := a.(*syntax.TypeExpr); isType {
		return nil
	}
	u, ok := e.X.(*syntax.Unary)
	if !ok || u.Postfix || u.Op != syntax.SUB && u.Op != syntax.MUL && u.Op != syntax.AND {
		return nil
	}
	return &syntax.Binary{Span: e.Span, Op: u.Op, OpSpan: u.Span, X: x.copyArg(a), Y: cl.CloneExpr(u.X)}
}

// via is a place in the body of the macro that cl copies.
func via(cl *syntax.Cloner, s syntax.Span) syntax.Span {
	if s.Via == nil {
		s.Via = cl.Via
	}
	return s
}

// ident expands a macro without parameters that is called by its bare name.
func (x *expander) ident(cl *syntax.Cloner, e *syntax.Ident) syntax.Expr {
	ms := x.c.macros[e.Name]
	if len(ms) == 0 {
		if name, ok := strings.CutPrefix(e.Name, "__builtin_"); ok && x.c.builtin(name) != nil {
			return &syntax.Ident{Span: e.Span, Name: name} // what bpftrace's standard library calls it
		}
		return nil
	}
	for _, m := range ms {
		if len(m.Params) == 0 {
			return x.expand(m, via(cl, e.Span), nil)
		}
	}
	x.c.errorf(e.Span, "Call to %s() has the wrong number of arguments. Expected: %d but got 0.", e.Name, len(ms[0].Params))
	return &syntax.Bad{Span: e.Span}
}

// call expands a call of a macro; nil if it is a call of a function.
func (x *expander) call(cl *syntax.Cloner, e *syntax.Call) syntax.Expr {
	ms := x.c.macros[e.Name]
	if name, ok := strings.CutPrefix(e.Name, "__builtin_"); ok && len(ms) == 0 && x.c.funcs[name] != nil {
		return cl.CloneExpr(&syntax.Call{Span: e.Span, Name: name, NameSpan: e.NameSpan, Args: e.Args})
	}
	if len(ms) == 0 {
		return nil
	}
	var args []syntax.Expr
	for _, a := range e.Args {
		args = append(args, cl.CloneExpr(a))
	}
	if m := pickMacro(ms, args); m != nil {
		return x.expand(m, via(cl, e.Span), args)
	}
	if _, ok := x.c.funcs[e.Name]; ok { // a macro may share its name with a function of other parameters
		return &syntax.Call{Span: via(cl, e.Span), Name: e.Name, NameSpan: e.NameSpan, Args: args}
	}
	x.mismatch(ms, e, args)
	return &syntax.Bad{Span: e.Span}
}

// pickMacro finds the definition that fits the arguments; one that names kinds is better than one of expressions.
func pickMacro(ms []*syntax.Macro, args []syntax.Expr) *syntax.Macro {
	var best *syntax.Macro
	for _, m := range ms {
		if len(m.Params) != len(args) || !paramsFit(m, args) {
			continue
		}
		if best == nil || strings.Count(macroKey(m.Params), "x") < strings.Count(macroKey(best.Params), "x") {
			best = m
		}
	}
	return best
}

func paramsFit(m *syntax.Macro, args []syntax.Expr) bool {
	for i, p := range m.Params {
		if wrongKind(p, args[i]) != "" {
			return false
		}
	}
	return true
}

// wrongKind gives what the parameter wants when the argument is something else.
func wrongKind(p, arg syntax.Expr) string {
	switch p.(type) {
	case *syntax.Var:
		if _, ok := arg.(*syntax.Var); !ok {
			return "a variable"
		}
	case *syntax.MapRef:
		if m, ok := arg.(*syntax.MapRef); !ok || m.Key != nil {
			return "a map"
		}
	}
	return ""
}

// mismatch reports a call that fits no definition.
func (x *expander) mismatch(ms []*syntax.Macro, e *syntax.Call, args []syntax.Expr) {
	for _, m := range ms {
		if len(m.Params) != len(args) {
			continue
		}
		for i, p := range m.Params {
			if want := wrongKind(p, args[i]); want != "" {
				name, _ := paramName(p)
				x.c.errorf(args[i].Where(), "Mismatched arg. %s() expects %s for arg %s but got %s.", m.Name, want, name, kindOfArg(args[i]))
				return
			}
		}
	}
	x.c.errorf(e.Span, "Call to %s() has the wrong number of arguments. Expected: %d but got %d.", e.Name, len(ms[0].Params), len(args))
}

func kindOfArg(e syntax.Expr) string {
	switch e := e.(type) {
	case *syntax.Var:
		return "a variable"
	case *syntax.MapRef:
		if e.Key == nil {
			return "a map"
		}
	}
	return "an expression"
}

// expand gives the body of m with args, already expanded, in it.
func (x *expander) expand(m *syntax.Macro, at syntax.Span, args []syntax.Expr) syntax.Expr {
	if i := slices.Index(x.stack, m); i >= 0 {
		var chain []string
		for _, s := range append(x.stack[i:len(x.stack):len(x.stack)], m) {
			chain = append(chain, s.Name)
		}
		x.c.errorf(at, "Recursive macro call detected. Call chain: %s", strings.Join(chain, " > "))
		return &syntax.Bad{Span: at}
	}
	x.c.expansions++
	s := &subst{macro: m, id: x.c.expansions, args: map[string]syntax.Expr{}, at: at}
	for i, p := range m.Params {
		name, _ := paramName(p)
		s.args[name] = args[i]
	}
	x.stack = append(x.stack, m)
	defer func() { x.stack = x.stack[:len(x.stack)-1] }()
	if !x.hygienic(s) {
		return &syntax.Bad{Span: at}
	}
	return x.cloner(s).CloneBlock(m.Body)
}

// hygienic reports declarations that hide a parameter.
func (x *expander) hygienic(s *subst) bool {
	ok := true
	syntax.Walk(s.macro.Body, func(n syntax.Node) bool {
		if l, is := n.(*syntax.Let); is {
			if _, param := s.args[l.Var.Name]; param {
				x.c.errorf(l.Span, "Variable declaration shadows macro arg %s", l.Var.Name)
				ok = false
			}
		}
		return true
	})
	return ok
}
