// Package filter reads the language in which the kernel filters trace events: len > 100 && comm == "nc", written into a
// filter file or behind the if of a trigger (Documentation/trace/events.rst, kernel/trace/trace_events_filter.c). It says what
// is wrong and where, which the kernel does not always, and gives the expression to who compiles it to something else.
package filter

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
)

// Op is a comparison.
type Op string

// The comparisons. Has is true if any bit of the number is set in the field; Like takes a pattern with * ? [].
const (
	Eq   Op = "=="
	Ne   Op = "!="
	Lt   Op = "<"
	Le   Op = "<="
	Gt   Op = ">"
	Ge   Op = ">="
	Has  Op = "&"
	Like Op = "~"
)

// Expr is an expression: *[Cmp], *[Not], *[And] or *[Or].
type Expr interface{ String() string }

// Cmp compares a field with a number or a text.
type Cmp struct {
	Field  string
	Op     Op
	Num    int64  // of fields that are numbers: 64 bits, with a sign or without
	Text   string // as it stood there
	IsText bool
	Off    int // of the field in the text that was read, bytes
}

// Not is true if X is not.
type Not struct{ X Expr }

// And is true if both are, Or if one is; And binds closer.
type (
	And struct{ X, Y Expr }
	Or  struct{ X, Y Expr }
)

// String gives the comparison as the kernel reads it.
func (c *Cmp) String() string {
	if c.IsText {
		return fmt.Sprintf("%s %s \"%s\"", c.Field, c.Op, c.Text)
	}
	return fmt.Sprintf("%s %s %s", c.Field, c.Op, c.Text)
}

func (n *Not) String() string { return "!(" + n.X.String() + ")" }
func (a *And) String() string { return group(a.X) + " && " + group(a.Y) }
func (o *Or) String() string  { return o.X.String() + " || " + o.Y.String() }

func group(x Expr) string {
	if _, ok := x.(*Or); ok {
		return "(" + x.String() + ")"
	}
	return x.String()
}

// Error is what is wrong with a text, and where: Off bytes from its start.
type Error struct {
	Text string
	Off  int
	Msg  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s, at byte %d of %q", e.Msg, e.Off, e.Text) }

// Caret gives the text and below it a mark where it is wrong.
func (e *Error) Caret() string {
	return e.Text + "\n" + strings.Repeat(" ", len([]rune(e.Text[:min(e.Off, len(e.Text))]))) + "^"
}

// maxDepth bounds the nesting of parentheses and !.
const maxDepth = 64

// maxText is the longest text a field is compared with (MAX_FILTER_STR_VAL of include/linux/trace_events.h).
const maxText = 256

type parser struct {
	text  string
	at    int
	depth int
}

// Parse reads an expression. Errors are *[Error].
func Parse(text string) (Expr, error) {
	p := &parser{text: text}
	x, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.space(); p.at < len(text) {
		return nil, p.fail("%q is too much", text[p.at:])
	}
	return x, nil
}

func (p *parser) fail(format string, args ...any) error {
	return &Error{p.text, p.at, fmt.Sprintf(format, args...)}
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

// take goes over s if it comes next.
func (p *parser) take(s string) bool {
	p.space()
	if !strings.HasPrefix(p.text[p.at:], s) {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) or() (Expr, error) {
	x, err := p.and()
	for err == nil && p.take("||") {
		var y Expr
		if y, err = p.and(); err == nil {
			x = &Or{x, y}
		}
	}
	return x, err
}

func (p *parser) and() (Expr, error) {
	x, err := p.unary()
	for err == nil && p.take("&&") {
		var y Expr
		if y, err = p.unary(); err == nil {
			x = &And{x, y}
		}
	}
	return x, err
}

func (p *parser) unary() (Expr, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail("nested too deeply")
	}
	defer func() { p.depth-- }()
	switch {
	case p.take("!"):
		x, err := p.unary()
		return &Not{x}, err
	case p.take("("):
		x, err := p.or()
		if err == nil && !p.take(")") {
			err = p.fail("a ) is missing")
		}
		return x, err
	}
	return p.cmp()
}

func word(c byte) bool {
	return c == '_' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func (p *parser) cmp() (Expr, error) {
	p.space()
	c := &Cmp{Off: p.at}
	for p.at < len(p.text) && word(p.text[p.at]) {
		p.at++
	}
	if c.Field = p.text[c.Off:p.at]; c.Field == "" || c.Field[0] <= '9' {
		p.at = c.Off
		return nil, p.fail("a field's name is missing")
	}
	for _, op := range []Op{Eq, Ne, Le, Ge, Lt, Gt, Like, Has} {
		if op == Has && strings.HasPrefix(strings.TrimLeft(p.text[p.at:], " \t\n"), "&&") {
			continue
		}
		if p.take(string(op)) {
			c.Op = op
			return c, p.value(c)
		}
	}
	return nil, p.fail("a comparison is missing: == != < <= > >= & ~")
}

// value reads a number, or a text, in quotes or not.
func (p *parser) value(c *Cmp) error {
	p.space()
	from := p.at
	if from < len(p.text) && strings.IndexByte(`"'`, p.text[from]) >= 0 {
		end := strings.IndexByte(p.text[from+1:], p.text[from])
		if end < 0 {
			return p.fail("the quote does not end")
		}
		if end >= maxText {
			return p.fail("a text may have %d bytes", maxText-1)
		}
		c.Text, c.IsText, p.at = p.text[from+1:from+1+end], true, from+end+2
		return nil
	}
	for p.at < len(p.text) && (word(p.text[p.at]) || strings.IndexByte("-*?/.:", p.text[p.at]) >= 0) {
		p.at++
	}
	v := p.text[from:p.at]
	if len(v) >= maxText {
		p.at = from
		return p.fail("a text may have %d bytes", maxText-1)
	}
	if v == "" {
		return p.fail("a value is missing")
	}
	if n, err := strconv.ParseInt(v, 0, 64); err == nil {
		c.Num, c.Text = n, v
		return nil
	}
	if n, err := strconv.ParseUint(v, 0, 64); err == nil {
		c.Num, c.Text = int64(n), v
		return nil
	}
	c.Text, c.IsText = v, true // as wget in comm == wget
	return nil
}

// Kind is how a field is compared.
type Kind int

// A field is a number, or a text in the record, or one of what every event has: the running task's name and the CPU.
const (
	Number Kind = iota
	Text
	Comm
	CPU
)

// KindOf says how the field of that name is compared; ok is false if the event has none. A field of the event hides what all
// events have (trace_find_event_field).
func KindOf(f *traceevent.Format, name string) (k Kind, field *traceevent.Field, ok bool) {
	if field = f.Field(name); field != nil {
		switch {
		case !field.IsArray():
			return Number, field, field.Size == 1 || field.Size == 2 || field.Size == 4 || field.Size == 8
		case field.IsText():
			return Text, field, true
		}
		return 0, field, false
	}
	switch name {
	case "comm", "COMM", "common_comm":
		return Comm, nil, true
	case "cpu", "CPU", "common_cpu":
		return CPU, nil, true
	}
	return 0, nil, false
}

// Check holds an expression against an event's fields. Errors are *[Error] in text, from which x was read.
func Check(text string, x Expr, f *traceevent.Format) error {
	switch x := x.(type) {
	case *Not:
		return Check(text, x.X, f)
	case *And:
		return both(text, x.X, x.Y, f)
	case *Or:
		return both(text, x.X, x.Y, f)
	}
	c := x.(*Cmp)
	k, field, ok := KindOf(f, c.Field)
	fail := func(format string, args ...any) error { return &Error{text, c.Off, fmt.Sprintf(format, args...)} }
	switch {
	case field != nil && !ok:
		return fail("%s is of type %s: that cannot be compared", c.Field, typeText(field))
	case !ok:
		return fail("%s has no field %s; it has %s", f.Name, c.Field, strings.Join(Names(f), " "))
	case k == Number || k == CPU:
		if c.IsText {
			return fail("%s is a number, %q is not", c.Field, c.Text)
		}
		if c.Op == Like {
			return fail("%s is a number: ~ is for texts", c.Field)
		}
	case c.Op != Eq && c.Op != Ne && c.Op != Like:
		return fail("%s is a text: it can be compared by == != ~", c.Field)
	default:
		c.IsText = true
	}
	return nil
}

func both(text string, x, y Expr, f *traceevent.Format) error {
	if err := Check(text, x, f); err != nil {
		return err
	}
	return Check(text, y, f)
}

func typeText(f *traceevent.Field) string {
	if f.ArrayLen >= 0 {
		return f.Type + "[]"
	}
	return f.Type
}

// Names gives the fields of an event that are its own.
func Names(f *traceevent.Format) []string {
	var out []string
	for _, fl := range f.Fields {
		if !fl.Common {
			out = append(out, fl.Name)
		}
	}
	return out
}
