package check

import (
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// Macros are object-like macros of C: those of the program and of the headers it includes. What Options.Declare gives may
// implement it.
type Macros interface {
	// MacroValue gives what a macro stands for if that is an integer constant.
	MacroValue(name string) (int64, bool)
	// MacroText gives what a macro stands for, expanded.
	MacroText(name string) (string, bool)
}

// declareC enters the program's own C, types and macros, through Options.Declare.
func (c *checker) declareC(defs []*syntax.CDef) {
	c.expanding = map[string]bool{}
	c.cdefs = defs
	if len(defs) == 0 {
		return
	}
	if c.opts.Declare == nil {
		c.errorf(defs[0].Span, "C declarations are not supported here")
		return
	}
	types, ds := c.opts.Declare(defs, c.ctypes)
	for _, d := range ds {
		c.add(d)
	}
	if types != nil {
		c.ctypes = types
	}
	c.macrosC, _ = types.(Macros)
}

// define gives the expression a macro of C stands for, nil if there is no such macro or it is no expression.
func (c *checker) define(name string) syntax.Expr {
	if d, ok := c.defines[name]; ok {
		return d
	}
	if c.macrosC == nil {
		return nil
	}
	var d syntax.Expr
	if text, ok := c.macrosC.MacroText(name); ok && text != "" {
		if x, ds := syntax.ParseExpr(&syntax.Source{Name: "#define " + name, Text: text}); len(ds) == 0 {
			d = x
		}
	}
	c.defines[name] = d
	return d
}

// types finds the C types that names in an instance mean: the program's own, then those of the probed binary, then the
// kernel's.
func (x *inst) types() ctype.Lookup {
	if !x.Provider.isUser() || len(x.Targets) == 0 {
		return x.c.ctypes
	}
	path := x.Targets[0].Module
	if l, ok := x.c.userTypes[path]; ok {
		return l
	}
	l := x.c.ctypes
	if user := x.c.world.UserTypes(path); user != nil {
		l = layered{user, x.c.world.Types()}
		if len(x.c.cdefs) > 0 && x.c.opts.Declare != nil {
			if own, _ := x.c.opts.Declare(x.c.cdefs, l); own != nil { // what is wrong with them was said before
				l = own
			}
		}
	}
	x.c.userTypes[path] = l
	return l
}

// layered asks one Lookup after the other.
type layered struct{ first, then ctype.Lookup }

func (l layered) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	if t, err := l.first.ByName(kind, name); err == nil {
		return t, nil
	}
	return l.then.ByName(kind, name)
}

func (l layered) EnumValue(name string) (*ctype.Enum, int64, bool) {
	if e, v, ok := l.first.EnumValue(name); ok {
		return e, v, true
	}
	return l.then.EnumValue(name)
}

func (l layered) Func(module, name string) (*ctype.Func, error) { return l.then.Func(module, name) }
