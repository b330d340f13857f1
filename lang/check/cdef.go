package check

import "github.com/fathom-trace/fathom/lang/syntax"

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
