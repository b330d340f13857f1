package script

import (
	"io"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// The program around an expression that is evaluated.
const (
	evalHead = "begin { print(("
	evalTail = "\n)); }"
)

// Eval evaluates an expression of the language in a dead kernel and prints its value to w. What is wrong with the expression,
// or could not be read, goes to diags, at its place in text.
func Eval(t kernel.Target, text string, w, errw io.Writer, diags func([]syntax.Diag)) error {
	shown := &syntax.Source{Name: "eval", Text: text}
	o := Options{On: t, Source: &syntax.Source{Name: "eval", Text: evalHead + text + evalTail}, Stdout: w, Stderr: errw, Quiet: true, Failures: true}
	o.Diags = func(ds []syntax.Diag) {
		for i := range ds {
			ds[i].Span = unwrap(ds[i].Span, shown)
			if f := ds[i].Fix; f != nil {
				ds[i].Fix = &syntax.Fix{Span: unwrap(f.Span, shown), Text: f.Text}
			}
		}
		diags(ds)
	}
	r := newDeadRunner(o)
	if err := r.load(); err != nil {
		return err
	}
	if err := r.special("begin"); err != nil {
		return err
	}
	return r.buf.Flush()
}

// unwrap gives a place in an expression that was a place in the program around it.
func unwrap(s syntax.Span, shown *syntax.Source) syntax.Span {
	if s.Src == nil {
		return s
	}
	return syntax.Span{Src: shown, Via: s.Via, Start: posAt(shown.Text, s.Start.Off-len(evalHead)), End: posAt(shown.Text, s.End.Off-len(evalHead))}
}

// posAt gives the place of an offset in a text, or its nearest end.
func posAt(text string, off int) syntax.Pos {
	off = min(max(off, 0), len(text))
	before := text[:off]
	return syntax.Pos{Off: off, Line: 1 + strings.Count(before, "\n"), Col: off - strings.LastIndexByte(before, '\n')}
}
