package defs

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// Declare writes a declaration as C does: "int (*open)(struct inode *, struct file *)", "char comm[16]". An empty name leaves
// the type alone.
func Declare(t ctype.Type, name string) string {
	switch t := t.(type) {
	case *ctype.Ptr:
		tags := ""
		for _, tag := range t.Tags {
			if tag != "const" {
				tags += "__" + tag + " "
			}
		}
		inner := "*" + tags + name
		switch t.Elem.(type) {
		case *ctype.Func, *ctype.Array:
			return Declare(t.Elem, "("+inner+")")
		}
		word := Declare(t.Elem, inner)
		if t.Const() {
			word = "const " + word
		}
		return word
	case *ctype.Array:
		dim := fmt.Sprintf("[%d]", t.Len)
		if t.Len == 0 {
			dim = "[]"
		}
		return Declare(t.Elem, name+dim)
	case *ctype.Func:
		return Declare(t.Result, name+"("+params(t.Params)+")")
	}
	return strings.TrimSpace(ctype.Name(t) + " " + name)
}

func params(ps []ctype.Param) string {
	var s []string
	for _, p := range ps {
		s = append(s, Declare(p.Type, p.Name))
	}
	if len(s) == 0 {
		return "void"
	}
	return strings.Join(s, ", ")
}

// Prototype writes a function's declaration.
func Prototype(f *ctype.Func, name string) string { return Declare(f, name) }
