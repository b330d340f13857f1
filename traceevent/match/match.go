// Package match compiles conditions over events, in the language of the kernel's event filters
// (Documentation/trace/events.rst, section 5): comparisons of fields with numbers and texts, &&, ||, ! and parentheses.
// Beyond the kernel's, a field may be named that only some events have: the others do not match.
package match

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
)

// Filter is a condition. One goroutine may use it.
type Filter struct {
	root  node
	plans map[*traceevent.Format]func(*traceevent.Event) bool
	last  *traceevent.Format
	match func(*traceevent.Event) bool
	comm  func(*traceevent.Event) (string, bool)
}

// Error is a condition that is not understood; Off is the byte where.
type Error struct {
	Text string
	Off  int
	Msg  string
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s\n%s\n%s^", e.Msg, e.Text, strings.Repeat(" ", min(e.Off, len(e.Text))))
}

// Parse compiles a condition. comm, which may be nil, names the task of an event, for the fields comm and COMM of those that
// have none.
func Parse(text string, comm func(*traceevent.Event) (string, bool)) (f *Filter, err error) {
	defer func() {
		if e := recover(); e != nil {
			pe, ok := e.(*Error)
			if !ok {
				panic(e)
			}
			f, err = nil, pe
		}
	}()
	p := &parser{text: text}
	n := p.or()
	if p.skip(); p.at < len(text) {
		p.fail("unexpected %q", text[p.at:])
	}
	return &Filter{root: n, plans: map[*traceevent.Format]func(*traceevent.Event) bool{}, comm: comm}, nil
}

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

type parser struct {
	text  string
	at    int
	depth int
}

func (p *parser) fail(format string, args ...any) {
	panic(&Error{p.text, p.at, fmt.Sprintf(format, args...)})
}

func (p *parser) skip() {
	for p.at < len(p.text) && strings.IndexByte(" \t\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) accept(s string) bool {
	if p.skip(); strings.HasPrefix(p.text[p.at:], s) {
		p.at += len(s)
		return true
	}
	return false
}

// or := and {"||" and}
func (p *parser) or() node {
	n := p.and()
	for p.accept("||") {
		n = pair{n, p.and(), false}
	}
	return n
}

// and := unary {"&&" unary}
func (p *parser) and() node {
	n := p.unary()
	for p.accept("&&") {
		n = pair{n, p.unary(), true}
	}
	return n
}

// maxDepth bounds how deeply conditions nest.
const maxDepth = 100

// unary := "!" unary | "(" or ")" | FIELD OP VALUE
func (p *parser) unary() node {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deeply")
	}
	defer func() { p.depth-- }()
	if p.accept("!") {
		return not{p.unary()}
	}
	if p.accept("(") {
		n := p.or()
		if !p.accept(")") {
			p.fail("a ) is missing")
		}
		return n
	}
	return p.compare()
}

func isWord(c byte) bool {
	return c == '_' || c == '.' || c == ':' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9'
}

func (p *parser) word() string {
	p.skip()
	start := p.at
	for p.at < len(p.text) && isWord(p.text[p.at]) {
		p.at++
	}
	return p.text[start:p.at]
}

func (p *parser) compare() node {
	c := compare{field: p.word()}
	if c.field == "" {
		p.fail("a field is missing")
	}
	for _, op := range []string{"==", "!=", "<=", ">=", "<", ">", "&&", "&", "~"} {
		if op != "&&" && p.accept(op) {
			c.op = op
			break
		}
		if op == "&&" && strings.HasPrefix(strings.TrimLeft(p.text[p.at:], " "), op) {
			break
		}
	}
	if c.op == "" {
		p.fail("a comparison is missing: == != < <= > >= & or ~")
	}
	p.skip()
	if p.at < len(p.text) && (p.text[p.at] == '"' || p.text[p.at] == '\'') {
		quote := p.text[p.at]
		end := strings.IndexByte(p.text[p.at+1:], quote)
		if end < 0 {
			p.fail("a text that does not end")
		}
		c.text, c.isText = p.text[p.at+1:p.at+1+end], true
		p.at += end + 2
		return c.check(p)
	}
	start := p.at
	neg := p.accept("-")
	w := p.word()
	n, err := strconv.ParseUint(w, 0, 64)
	if err != nil {
		if w == "" || neg {
			p.at = start
			p.fail("a value is missing")
		}
		c.text, c.isText = w, true
		return c.check(p)
	}
	if c.num = int64(n); neg {
		c.num = -c.num
	}
	c.text = w
	return c.check(p)
}

func (c compare) check(p *parser) node {
	if c.isText && strings.Contains("< <= > >= &", c.op) {
		p.fail("%s compares numbers", c.op)
	}
	return c
}
