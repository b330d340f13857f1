// Package match holds conditions in the language of the kernel's event filters (package filter) against events that were read.
// Beyond the kernel's, a condition may name fields that only some events have, the others do not match, and event, which is
// "system:name".
package match

import (
	"bytes"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
)

// Filter is a condition. One goroutine may use it.
type Filter struct {
	root  filter.Expr
	plans map[*traceevent.Format]match
	last  *traceevent.Format
	match match
	comm  func(*traceevent.Event) (string, bool)
}

type match func(*traceevent.Event) bool

// Parse compiles a condition. comm, which may be nil, names the task of an event, for the fields comm and COMM of those that
// have none. Errors are *[filter.Error].
func Parse(text string, comm func(*traceevent.Event) (string, bool)) (*Filter, error) {
	x, err := filter.Parse(text)
	if err != nil {
		return nil, err
	}
	return &Filter{root: x, plans: map[*traceevent.Format]match{}, comm: comm}, nil
}

// Match says if an event fulfils the condition. Gaps do.
func (f *Filter) Match(e *traceevent.Event) bool {
	if e.Format == nil {
		return true
	}
	if e.Format != f.last {
		m := f.plans[e.Format]
		if m == nil {
			m = f.bind(f.root, e.Format)
			f.plans[e.Format] = m
		}
		f.last, f.match = e.Format, m
	}
	return f.match(e)
}

// bind compiles an expression for the layout of one kind of event.
func (f *Filter) bind(x filter.Expr, ev *traceevent.Format) match {
	switch x := x.(type) {
	case *filter.And:
		a, b := f.bind(x.X, ev), f.bind(x.Y, ev)
		return func(e *traceevent.Event) bool { return a(e) && b(e) }
	case *filter.Or:
		a, b := f.bind(x.X, ev), f.bind(x.Y, ev)
		return func(e *traceevent.Event) bool { return a(e) || b(e) }
	case *filter.Not:
		m := f.bind(x.X, ev)
		return func(e *traceevent.Event) bool { return !m(e) }
	}
	return f.compare(x.(*filter.Cmp), ev)
}

// compare compiles a comparison. An event that has another option than that of the field does not match, as one without the field.
func (f *Filter) compare(c *filter.Cmp, ev *traceevent.Format) match {
	m, d := f.comparison(c, ev)
	if d == nil || d.Option.N == 0 {
		return m
	}
	return func(e *traceevent.Event) bool { return d.There(e.Rec) && m(e) }
}

func never(*traceevent.Event) bool { return false }

// comparison compiles one for events that have the field, which is nil if it is none of the event's.
func (f *Filter) comparison(c *filter.Cmp, ev *traceevent.Format) (match, *traceevent.Field) {
	kind, d, ok := filter.KindOf(ev, c.Field)
	switch {
	case d == nil && c.Field == "event":
		return words(c, func(*traceevent.Event) []byte { return []byte(ev.System + ":" + ev.Name) }), d
	case !ok:
		return never, d
	case kind == filter.CPU:
		return number(c, func(e *traceevent.Event) int64 { return int64(e.CPU) }, false), d
	case kind == filter.Comm && f.comm == nil:
		return never, d
	case kind == filter.Comm:
		return words(c, func(e *traceevent.Event) []byte { s, _ := f.comm(e); return []byte(s) }), d
	case kind == filter.Text:
		return words(c, func(e *traceevent.Event) []byte { return d.String(e.Rec) }), d
	case d.Signed:
		return number(c, func(e *traceevent.Event) int64 { return d.Int(e.Rec) }, false), d
	}
	return number(c, func(e *traceevent.Event) int64 { return int64(d.Uint(e.Rec)) }, true), d
}

func number(c *filter.Cmp, get func(*traceevent.Event) int64, unsigned bool) match {
	n := c.Num
	if c.IsText {
		return never
	}
	less := func(a, b int64) bool { return a < b }
	if unsigned {
		less = func(a, b int64) bool { return uint64(a) < uint64(b) }
	}
	switch c.Op {
	case filter.Eq:
		return func(e *traceevent.Event) bool { return get(e) == n }
	case filter.Ne:
		return func(e *traceevent.Event) bool { return get(e) != n }
	case filter.Has:
		return func(e *traceevent.Event) bool { return get(e)&n != 0 }
	case filter.Lt:
		return func(e *traceevent.Event) bool { return less(get(e), n) }
	case filter.Le:
		return func(e *traceevent.Event) bool { return !less(n, get(e)) }
	case filter.Gt:
		return func(e *traceevent.Event) bool { return less(n, get(e)) }
	case filter.Ge:
		return func(e *traceevent.Event) bool { return !less(get(e), n) }
	}
	return never
}

func words(c *filter.Cmp, get func(*traceevent.Event) []byte) match {
	want := []byte(c.Text)
	switch c.Op {
	case filter.Eq:
		return func(e *traceevent.Event) bool { return bytes.Equal(get(e), want) }
	case filter.Ne:
		return func(e *traceevent.Event) bool { return !bytes.Equal(get(e), want) }
	case filter.Like:
		return func(e *traceevent.Event) bool { return glob(want, get(e)) }
	}
	return never
}

// glob matches * and ? as glob_match of lib/glob.c does; a * may stand for anything.
func glob(pattern, s []byte) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
