package filter

import (
	"bytes"

	"github.com/fathom-trace/fathom/traceevent"
)

// Filter is a condition over events that were read. Beyond the kernel's, it may name fields that only some events have, the
// others do not match, and event, which is "system:name". One goroutine may use it.
type Filter struct {
	root  Expr
	plans map[*traceevent.Format]match
	last  *traceevent.Format
	match match
	comm  func(*traceevent.Event) (string, bool)
}

type match func(*traceevent.Event) bool

// New compiles a condition. comm, which may be nil, names the task of an event, for the fields comm and COMM of those that
// have none. Errors are *[Error].
func New(text string, comm func(*traceevent.Event) (string, bool)) (*Filter, error) {
	x, err := Parse(text)
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
func (f *Filter) bind(x Expr, ev *traceevent.Format) match {
	switch x := x.(type) {
	case *And:
		a, b := f.bind(x.X, ev), f.bind(x.Y, ev)
		return func(e *traceevent.Event) bool { return a(e) && b(e) }
	case *Or:
		a, b := f.bind(x.X, ev), f.bind(x.Y, ev)
		return func(e *traceevent.Event) bool { return a(e) || b(e) }
	case *Not:
		m := f.bind(x.X, ev)
		return func(e *traceevent.Event) bool { return !m(e) }
	}
	return f.compare(x.(*Cmp), ev)
}

func never(*traceevent.Event) bool { return false }

func (f *Filter) compare(c *Cmp, ev *traceevent.Format) match {
	kind, d, ok := KindOf(ev, c.Field)
	switch {
	case d == nil && c.Field == "event":
		return c.words(func(*traceevent.Event) []byte { return []byte(ev.System + ":" + ev.Name) })
	case !ok:
		return never
	case kind == CPU:
		return c.number(func(e *traceevent.Event) int64 { return int64(e.CPU) }, false)
	case kind == Comm && f.comm == nil:
		return never
	case kind == Comm:
		return c.words(func(e *traceevent.Event) []byte { s, _ := f.comm(e); return []byte(s) })
	case kind == Text:
		return c.words(func(e *traceevent.Event) []byte { return d.String(e.Rec) })
	case d.Signed:
		return c.number(func(e *traceevent.Event) int64 { return d.Int(e.Rec) }, false)
	}
	return c.number(func(e *traceevent.Event) int64 { return int64(d.Uint(e.Rec)) }, true)
}

func (c *Cmp) number(get func(*traceevent.Event) int64, unsigned bool) match {
	n := c.Num
	if c.IsText {
		return never
	}
	less := func(a, b int64) bool { return a < b }
	if unsigned {
		less = func(a, b int64) bool { return uint64(a) < uint64(b) }
	}
	switch c.Op {
	case Eq:
		return func(e *traceevent.Event) bool { return get(e) == n }
	case Ne:
		return func(e *traceevent.Event) bool { return get(e) != n }
	case Has:
		return func(e *traceevent.Event) bool { return get(e)&n != 0 }
	case Lt:
		return func(e *traceevent.Event) bool { return less(get(e), n) }
	case Le:
		return func(e *traceevent.Event) bool { return !less(n, get(e)) }
	case Gt:
		return func(e *traceevent.Event) bool { return less(n, get(e)) }
	case Ge:
		return func(e *traceevent.Event) bool { return !less(get(e), n) }
	}
	return never
}

func (c *Cmp) words(get func(*traceevent.Event) []byte) match {
	want := []byte(c.Text)
	switch c.Op {
	case Eq:
		return func(e *traceevent.Event) bool { return bytes.Equal(get(e), want) }
	case Ne:
		return func(e *traceevent.Event) bool { return !bytes.Equal(get(e), want) }
	case Like:
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
