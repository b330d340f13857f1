package syntax

import "fmt"

// Source is one text given to the compiler: a file, -e TEXT ("stdin" in diagnostics, as bpftrace names it) or an import.
type Source struct {
	Name string // as diagnostics print it
	Text string
}

// Pos is a place in a Source. Line and Col count from 1, Col in bytes; Off counts from 0.
type Pos struct {
	Line, Col, Off int
}

// Span is a half-open range of a Source. The zero Span belongs to nodes the compiler made itself.
type Span struct {
	Src        *Source
	Start, End Pos
	Via        *Span // the call of the macro whose body this is in; nil outside of macros
}

// Where returns s itself, so that every node embedding a Span implements Node.
func (s Span) Where() Span { return s }

// To returns the span from the start of s to the end of e.
func (s Span) To(e Span) Span { return Span{s.Src, s.Start, e.End, s.Via} }

// Text returns the source text s covers.
func (s Span) Text() string {
	if s.Src == nil {
		return ""
	}
	return s.Src.Text[s.Start.Off:s.End.Off]
}

// String gives "name:line:col-col" or "name:line-line" as bpftrace's diagnostics begin.
func (s Span) String() string {
	switch {
	case s.Src == nil:
		return "-"
	case s.Start.Line != s.End.Line:
		return fmt.Sprintf("%s:%d-%d", s.Src.Name, s.Start.Line, s.End.Line)
	default:
		return fmt.Sprintf("%s:%d:%d-%d", s.Src.Name, s.Start.Line, s.Start.Col, s.End.Col)
	}
}

// Severity orders diagnostics.
type Severity uint8

// Severities, the worst first.
const (
	Error Severity = iota
	Warning
	Hint
)

// String gives the word bpftrace prints.
func (s Severity) String() string { return [...]string{"ERROR", "WARNING", "HINT"}[s] }

// Diag is one thing to say about a program. The compiler collects Diags and never prints.
type Diag struct {
	Span     Span
	Severity Severity
	Msg      string
	Hint     string // one concrete suggestion, or ""
	Fix      *Fix   // rewrite that --fix applies, or nil
}

// Fix replaces the text of Span by Text.
type Fix struct {
	Span Span
	Text string
}

// Error makes a Diag usable as an error.
func (d Diag) Error() string { return fmt.Sprintf("%v: %v: %s", d.Span, d.Severity, d.Msg) }
