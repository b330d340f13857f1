// Package match compiles conditions over events, in the language of the kernel's event filters
// (Documentation/trace/events.rst, section 5): comparisons of fields with numbers and texts, &&, ||, ! and parentheses.
// Beyond the kernel's, a field may be named that only some events have: the others do not match.
package match

import (
	"bytes"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
)

// Filter is a condition. One goroutine may use it.
type Filter struct {
	root  node
	plans map[*traceevent.Format]func(*traceevent.Event) bool
	last  *traceevent.Format
	match func(*traceevent.Event) bool
	comm  func(*traceevent.Event) (string, bool)
}

// Parse compiles a condition. comm, which may be nil, names the task of an event, for the fields comm and COMM of those that
// have none. Errors are *[filter.Error].
func Parse(text string, comm func(*traceevent.Event) (string, bool)) (*Filter, error) {
	x, err := filter.Parse(text)
	if err != nil {
		return nil, err
	}
	return &Filter{root: compile(x), plans: map[*traceevent.Format]func(*traceevent.Event) bool{}, comm: comm}, nil
}

// compile makes nodes of an expression.
func compile(x filter.Expr) node {
	switch x := x.(type) {
	case *filter.And:
		return pair{compile(x.X), compile(x.Y), true}
	case *filter.Or:
		return pair{compile(x.X), compile(x.Y), false}
	case *filter.Not:
		return not{compile(x.X)}
	case *filter.Cmp:
		return compare{x.Field, string(x.Op), x.Num, x.Text, x.IsText}
	}
	return nothing{}
}

// nothing matches no event.
type nothing struct{}

func (nothing) bind(*traceevent.Format, *Filter) func(*traceevent.Event) bool { return never }

// Match says if an event fulfils the condition. Gaps do.
func (f *Filter) Match(e *traceevent.Event) bool {
	if e.Format == nil {
		return true
	}
	if e.Format != f.last {
		m := f.plans[e.Format]
		if m == nil {
			m = f.root.bind(e.Format, f)
			f.plans[e.Format] = m
		}
		f.last, f.match = e.Format, m
	}
	return f.match(e)
}

// node is a condition before it is bound to an event's layout.
type node interface {
	bind(f *traceevent.Format, in *Filter) func(*traceevent.Event) bool
}

type pair struct {
	a, b node
	and  bool
}
type not struct{ n node }

// compare is FIELD OP VALUE.
type compare struct {
	field, op string
	num       int64
	text      string
	isText    bool
}

func (p pair) bind(f *traceevent.Format, in *Filter) func(*traceevent.Event) bool {
	a, b := p.a.bind(f, in), p.b.bind(f, in)
	if p.and {
		return func(e *traceevent.Event) bool { return a(e) && b(e) }
	}
	return func(e *traceevent.Event) bool { return a(e) || b(e) }
}

func (n not) bind(f *traceevent.Format, in *Filter) func(*traceevent.Event) bool {
	m := n.n.bind(f, in)
	return func(e *traceevent.Event) bool { return !m(e) }
}

func never(*traceevent.Event) bool { return false }

func (c compare) bind(f *traceevent.Format, in *Filter) func(*traceevent.Event) bool {
	switch c.field {
	case "cpu", "CPU", "common_cpu":
		if f.Field(c.field) == nil {
			return c.number(func(e *traceevent.Event) int64 { return int64(e.CPU) }, false)
		}
	case "event":
		return c.words(func(*traceevent.Event) []byte { return []byte(f.System + ":" + f.Name) })
	}
	d := f.Field(c.field)
	switch {
	case d == nil && (c.field == "comm" || c.field == "COMM" || c.field == "common_comm") && in.comm != nil:
		return c.words(func(e *traceevent.Event) []byte { s, _ := in.comm(e); return []byte(s) })
	case d == nil:
		return never
	case d.IsText():
		return c.words(func(e *traceevent.Event) []byte { return d.String(e.Rec) })
	case d.IsArray() || c.isText:
		return never
	case d.Signed:
		return c.number(func(e *traceevent.Event) int64 { return d.Int(e.Rec) }, false)
	}
	return c.number(func(e *traceevent.Event) int64 { return int64(d.Uint(e.Rec)) }, true)
}

func (c compare) number(get func(*traceevent.Event) int64, uns bool) func(*traceevent.Event) bool {
	n := c.num
	if c.isText {
		return never
	}
	switch c.op {
	case "==":
		return func(e *traceevent.Event) bool { return get(e) == n }
	case "!=":
		return func(e *traceevent.Event) bool { return get(e) != n }
	case "&":
		return func(e *traceevent.Event) bool { return get(e)&n != 0 }
	}
	less := func(a, b int64) bool { return a < b }
	if uns {
		less = func(a, b int64) bool { return uint64(a) < uint64(b) }
	}
	switch c.op {
	case "<":
		return func(e *traceevent.Event) bool { return less(get(e), n) }
	case "<=":
		return func(e *traceevent.Event) bool { return !less(n, get(e)) }
	case ">":
		return func(e *traceevent.Event) bool { return less(n, get(e)) }
	case ">=":
		return func(e *traceevent.Event) bool { return !less(get(e), n) }
	}
	return never
}

func (c compare) words(get func(*traceevent.Event) []byte) func(*traceevent.Event) bool {
	want := []byte(c.text)
	switch c.op {
	case "==":
		return func(e *traceevent.Event) bool { return bytes.Equal(get(e), want) }
	case "!=":
		return func(e *traceevent.Event) bool { return !bytes.Equal(get(e), want) }
	case "~":
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
