package script

import (
	"errors"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/bpf/verifier"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
)

// rejection tells a verifier's refusal in terms of the program: the place whose code it was looking at, and its last
// words. bpf/gen left the places in the program's line information.
func rejection(src *syntax.Source, err error) (syntax.Diag, bool) {
	var ve *probe.VerifierError
	if !errors.As(err, &ve) {
		return syntax.Diag{}, false
	}
	r := verifier.Parse(ve.Err.Log)
	d := syntax.Diag{Hint: "-v prints the verifier's whole log"}
	source := r.Source
	if n, ok := r.Number(); ok {
		source = ve.SourceAt(n)
	}
	if text, ok := strings.CutPrefix(source, src.Name+":"); ok {
		if s, ok := place(src, text); ok {
			d.Span = s
		}
	}
	why, fix, known := r.Explain()
	if !known {
		d.Msg = "the kernel's verifier refuses this program: " + why
		if fix != "" {
			d.Hint = fix + "\n" + d.Hint
		}
		return d, true
	}
	d.Msg = why
	d.Hint = fix + "\nthe verifier said: " + r.Message + "; " + d.Hint
	return d, true
}

// place reads "LINE:COL-COL: …" or "LINE-LINE: …".
func place(src *syntax.Source, s string) (syntax.Span, bool) {
	at, _, _ := strings.Cut(s, ": ")
	line, cols, ok := strings.Cut(at, ":")
	from, to, _ := strings.Cut(cols, "-")
	n, err := strconv.Atoi(line)
	if !ok || err != nil {
		return syntax.Span{}, false
	}
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil {
		return syntax.Span{}, false
	}
	off := 0
	for range n - 1 {
		i := strings.IndexByte(src.Text[off:], '\n')
		if i < 0 {
			return syntax.Span{}, false
		}
		off += i + 1
	}
	return syntax.Span{Src: src, Start: syntax.Pos{Line: n, Col: a, Off: off + a - 1}, End: syntax.Pos{Line: n, Col: b, Off: off + b - 1}}, true
}
