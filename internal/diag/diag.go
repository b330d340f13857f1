// Package diag renders what goes wrong: diagnostics of a program in bpftrace's form, and failed operations in the
// four lines of ours (what failed, because, try, more).
package diag

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// Exit codes of failed operations, as sysexits.h has them.
const (
	ExitFailure     = 1
	ExitBadInput    = 65
	ExitNoInput     = 66
	ExitUnsupported = 69
	ExitBug         = 70
	ExitPermission  = 77
)

// Error is a failed operation, told in four lines.
type Error struct {
	What    string   // "attach kprobe:vfs_read"
	Because string   // evidence; "" takes Err's text
	Try     []string // up to three exact commands
	Topic   string   // fathom help TOPIC
	Code    int      // exit code
	Err     error
}

func (e *Error) Error() string {
	if e.Err != nil {
		return e.What + ": " + e.Err.Error()
	}
	return e.What
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// NoInput is a file that could not be opened.
func NoInput(what string, err error) error {
	code := ExitNoInput
	if errors.Is(err, fs.ErrPermission) {
		code = ExitPermission
	}
	return &Error{What: what, Err: err, Code: code}
}

// Report writes an error in its form and gives the exit code.
func Report(w io.Writer, err error) int {
	var e *Error
	if !errors.As(err, &e) {
		e = classify(err)
	}
	fmt.Fprintf(w, "fathom: %s\n", e.What)
	if b := e.because(); b != "" {
		fmt.Fprintf(w, "because: %s\n", b)
	}
	for _, t := range e.Try[:min(3, len(e.Try))] {
		fmt.Fprintf(w, "try: %s\n", t)
	}
	if e.Topic != "" {
		fmt.Fprintf(w, "more: fathom help %s\n", e.Topic)
	}
	if e.Code == 0 {
		return ExitFailure
	}
	return e.Code
}

func (e *Error) because() string {
	if e.Because != "" || e.Err == nil {
		return e.Because
	}
	return e.Err.Error()
}

// classify finds what and why in an error chain "what: why".
func classify(err error) *Error {
	e := &Error{Err: err, Code: ExitFailure}
	text := err.Error()
	what, why, ok := strings.Cut(text, ": ")
	if !ok {
		e.What = text
		return e
	}
	e.What, e.Because = what, why
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EPERM):
		e.Code = ExitPermission
		e.Try = []string{"sudo fathom …", "fathom doctor"}
	case errors.Is(err, feature.ErrUnsupported):
		e.Code = ExitUnsupported
		e.Try = []string{"fathom doctor"}
	}
	return e
}

// Style says how diagnostics look.
type Style struct{ Color bool }

// Render writes diagnostics: place, severity and message; the source line; a line under what is meant; a hint.
func Render(w io.Writer, ds []syntax.Diag, st Style) {
	for _, d := range ds {
		word := d.Severity.String()
		if st.Color {
			word = map[syntax.Severity]string{syntax.Error: "\x1b[31m", syntax.Warning: "\x1b[33m"}[d.Severity] + word + "\x1b[0m"
		}
		if d.Span.Src == nil {
			fmt.Fprintf(w, "%s: %s\n", word, d.Msg)
		} else {
			fmt.Fprintf(w, "%v: %s: %s\n", d.Span, word, d.Msg)
			excerpt(w, d.Span)
		}
		if d.Hint != "" {
			fmt.Fprintf(w, "HINT: %s\n", d.Hint)
		}
	}
}

// excerpt writes the first line of a span and marks the span below it.
func excerpt(w io.Writer, s syntax.Span) {
	text := s.Src.Text
	start := strings.LastIndexByte(text[:min(s.Start.Off, len(text))], '\n') + 1
	end := len(text)
	if i := strings.IndexByte(text[start:], '\n'); i >= 0 {
		end = start + i
	}
	line := text[start:end]
	fmt.Fprintln(w, line)
	if s.Start.Line != s.End.Line {
		return
	}
	mark := make([]byte, 0, len(line))
	for i := range max(0, min(s.Start.Col-1, len(line))) {
		if line[i] == '\t' {
			mark = append(mark, '\t')
		} else {
			mark = append(mark, ' ')
		}
	}
	fmt.Fprintf(w, "%s%s\n", mark, strings.Repeat("~", max(1, s.End.Col-s.Start.Col)))
}
