package check

import (
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// declareC enters the program's own C: directives here, types through Options.Declare.
func (c *checker) declareC(defs []*syntax.CDef) {
	c.expanding = map[string]bool{}
	var decls []*syntax.CDef
	for _, d := range defs {
		if strings.HasPrefix(d.Text, "#") {
			c.directive(d)
			continue
		}
		decls = append(decls, d)
	}
	if len(decls) == 0 {
		return
	}
	if c.opts.Declare == nil {
		c.errorf(decls[0].Span, "C declarations are not supported here")
		return
	}
	types, ds := c.opts.Declare(decls, c.ctypes)
	for _, d := range ds {
		c.add(d)
	}
	if types != nil {
		c.ctypes = types
	}
}

// directive takes object-like macros that are expressions. Includes bring nothing that the kernel's own type information
// does not have; other directives are left alone.
func (c *checker) directive(d *syntax.CDef) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(strings.TrimPrefix(d.Text, "#")), "define")
	if !ok {
		return
	}
	rest = strings.TrimSpace(strings.ReplaceAll(rest, "\\\n", " "))
	n := 0
	for n < len(rest) && (rest[n] == '_' || rest[n] >= '0' && rest[n] <= '9' || rest[n]|0x20 >= 'a' && rest[n]|0x20 <= 'z') {
		n++
	}
	if n == 0 || n == len(rest) || rest[n] == '(' {
		return
	}
	x, ds := syntax.ParseExpr(&syntax.Source{Name: "#define " + rest[:n], Text: rest[n:]})
	if len(ds) == 0 {
		c.defines[rest[:n]] = x
	}
}
