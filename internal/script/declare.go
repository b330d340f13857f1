package script

import (
	"errors"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cdecl"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// declare reads a program's own C declarations in front of the types the kernel has.
func declare(defs []*syntax.CDef, base ctype.Lookup) (ctype.Lookup, []syntax.Diag) {
	scope := cdecl.NewScope(base)
	var diags []syntax.Diag
	for _, d := range defs {
		err := scope.Parse(d.Text)
		var se *cdecl.SyntaxError
		if errors.As(err, &se) {
			diags = append(diags, syntax.Diag{Span: within(d.Span, d.Text, se.Off), Msg: se.Msg})
		}
	}
	return scope, diags
}

// within gives the place of an offset in a chunk of source.
func within(s syntax.Span, text string, off int) syntax.Span {
	off = min(max(off, 0), len(text))
	before := text[:off]
	p := s.Start
	p.Off += off
	if n := strings.Count(before, "\n"); n > 0 {
		p.Line += n
		p.Col = off - strings.LastIndexByte(before, '\n')
	} else {
		p.Col += off
	}
	e := p
	if off < len(text) {
		e.Off++
		e.Col++
	}
	return syntax.Span{Src: s.Src, Start: p, End: e}
}
