package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// diags collects what is to be said; the same thing at the same place is said once, however many instances it concerns.
type diags struct {
	list []syntax.Diag
	seen map[string]int
}

// add records d and gives its place in the list, so that a hint can be attached.
func (ds *diags) add(d syntax.Diag) *syntax.Diag {
	d.Msg = unmarked(d.Msg)
	key := fmt.Sprintf("%p %d %d %d %s", d.Span.Src, d.Span.Start.Off, d.Span.End.Off, d.Severity, d.Msg)
	if i, ok := ds.seen[key]; ok {
		return &ds.list[i]
	}
	if ds.seen == nil {
		ds.seen = map[string]int{}
	}
	ds.seen[key] = len(ds.list)
	ds.list = append(ds.list, d)
	return &ds.list[len(ds.list)-1]
}

func (ds *diags) errorf(at syntax.Span, format string, args ...any) *syntax.Diag {
	return ds.add(syntax.Diag{Span: at, Msg: fmt.Sprintf(format, args...)})
}

func (ds *diags) warnf(at syntax.Span, format string, args ...any) *syntax.Diag {
	return ds.add(syntax.Diag{Span: at, Severity: syntax.Warning, Msg: fmt.Sprintf(format, args...)})
}

// failed reports whether an error was said.
func (ds *diags) failed() bool {
	return slices.ContainsFunc(ds.list, func(d syntax.Diag) bool { return d.Severity == syntax.Error })
}

// sorted gives the diagnostics in the order of the source; those of one place stay as they were said.
func (ds *diags) sorted() []syntax.Diag {
	sorting.Stable(ds.list, func(a, b syntax.Diag) int { return cmp.Compare(a.Span.Start.Off, b.Span.Start.Off) })
	return ds.list
}

// mark separates the name a macro's variable was written with from what makes it unique.
const mark = "·"

// unmarked takes the marks of macro expansion out of a message.
func unmarked(msg string) string {
	if !strings.Contains(msg, mark) {
		return msg
	}
	var b strings.Builder
	for {
		before, after, ok := strings.Cut(msg, mark)
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		msg = strings.TrimLeft(after, "0123456789")
	}
}
