package diag

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/lang/syntax"
)

// Style says how diagnostics look.
type Style struct{ Color bool }

// SGR sequences of bpftrace's log.h.
const (
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	reset  = "\x1b[0m"
)

// Render writes diagnostics as bpftrace does (src/log.cpp, src/ast/location.cpp), errors before warnings: place, severity
// and message; the source line with a line under what is meant, or all lines of a longer span; a hint.
//
//	stdin:1:9-12: ERROR: Unknown identifier: 'foo'
//	BEGIN { foo; }
//	        ~~~
//	HINT: …
func Render(w io.Writer, ds []syntax.Diag, st Style) {
	for _, first := range []bool{true, false} {
		for _, d := range ds {
			if (d.Severity == syntax.Error) == first {
				st.render(w, d)
			}
		}
	}
}

func (st Style) render(w io.Writer, d syntax.Diag) {
	head := d.Severity.String() + ": " + strings.TrimSuffix(d.Msg, "\n")
	if d.Span.Src != nil {
		head = d.Span.String() + ": " + head
	}
	fmt.Fprintln(w, st.paint(d.Severity, head))
	if d.Span.Src != nil {
		excerpt(w, d.Span)
	}
	Expanded(w, d.Severity, d.Span.Via)
	if d.Hint != "" {
		fmt.Fprintf(w, "HINT: %s\n", d.Hint)
	}
}

// Expanded writes the calls of macros that a place comes from, the innermost first. at may be nil.
func Expanded(w io.Writer, sev syntax.Severity, at *syntax.Span) {
	for ; at != nil && at.Src != nil; at = at.Via {
		fmt.Fprintf(w, "%v: %v: expanded from\n", *at, sev)
		excerpt(w, *at)
	}
}

func (st Style) paint(s syntax.Severity, text string) string {
	switch {
	case st.Color && s == syntax.Error:
		return red + text + reset
	case st.Color && s == syntax.Warning:
		return yellow + text + reset
	}
	return text
}

// tab is how a tab looks, in the source line and under it.
const tab = "    "

// excerpt writes the source line of a span and marks the span below it. A span of several lines is shown unmarked.
func excerpt(w io.Writer, s syntax.Span) {
	lines := strings.Split(s.Src.Text, "\n")
	first, last := s.Start.Line-1, s.End.Line-1
	if first < 0 || first >= len(lines) {
		return
	}
	if first != last {
		for _, l := range lines[first:min(last+1, len(lines))] {
			fmt.Fprintln(w, l)
		}
		return
	}
	line := lines[first]
	fmt.Fprintln(w, strings.ReplaceAll(line, "\t", tab))
	fmt.Fprintln(w, underline(line, s.Start.Col-1, s.End.Col-1))
}

// underline marks the bytes from start to end. What is at the line's end, such as something missing, gets one mark there.
// Unlike bpftrace, which counts bytes, a character of several bytes gets one mark, so that the columns line up.
func underline(line string, start, end int) string {
	var b strings.Builder
	for i, r := range line {
		if i >= end {
			break
		}
		mark := " "
		if i >= start {
			mark = "~"
		}
		if r == '\t' {
			mark = strings.Repeat(mark, len(tab))
		}
		b.WriteString(mark)
	}
	if start >= len(line) || start >= end {
		b.WriteByte('~')
	}
	return b.String()
}
