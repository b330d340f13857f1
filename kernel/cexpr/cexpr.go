// Package cexpr evaluates C expressions over the memory of a kernel, as debuggers' users write them:
// init_task.mm->owner, &runqueues, *(struct page *)0xffffea0000000000, sizeof(struct sk_buff), (jiffies - 5) & ~3.
//
// Not there: assignments and what else changes anything, calls, floating point, ?: and the comma.
package cexpr

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cpp"
	"github.com/fathom-trace/fathom/kernel"
)

// Names says what the names in an expression mean.
type Names interface {
	// Var gives a variable. A symbol whose type nobody knows has the type void: its address can be taken. ErrUnknown where
	// there is none of the name.
	Var(name string) (ctype.Type, uint64, error)
}

// ErrUnknown is what Names returns for a name that means nothing.
var ErrUnknown = errors.New("no such symbol")

// SyntaxError is what is wrong with an expression; Off counts bytes from its start.
type SyntaxError struct {
	Off int
	Msg string
}

// Error is the message with the place.
func (e *SyntaxError) Error() string { return fmt.Sprintf("at %d: %s", e.Off+1, e.Msg) }

// Result is what an expression is: an object in memory if Object.OK(), else a number of a type.
type Result struct {
	Object kernel.Value
	Number uint64
	Type   ctype.Type
}

// Uint is the number that a result is, or that stands in the object.
func (r Result) Uint() uint64 {
	if r.Object.OK() {
		return r.Object.Uint()
	}
	return r.Number
}

// Eval evaluates an expression. Errors are *SyntaxError, those of names, or the first of what could not be read. What the
// result is read for later goes to errs.
func Eval(t kernel.Target, names Names, errs *kernel.Errors, text string) (Result, error) {
	p := &parser{t: t, names: names, errs: errs, toks: cpp.Lex("", text), end: len(text)}
	r, err := p.run(func() Result {
		r := p.binary(0)
		if p.peek() != "" {
			p.fail("%s is not expected here", p.peek())
		}
		return r
	})
	if err == nil {
		err = errs.Take()
	}
	return r, err
}

// parser is a parser by recursive descent that evaluates as it goes.
type parser struct {
	t     kernel.Target
	names Names
	errs  *kernel.Errors
	toks  []cpp.Token
	pos   int
	end   int
	depth int
}

// stop carries an error up to run.
type stop struct{ err error }

func (p *parser) run(f func() Result) (r Result, err error) {
	defer func() {
		if x := recover(); x != nil {
			s, ok := x.(stop)
			if !ok {
				panic(x)
			}
			err = s.err
		}
	}()
	return f(), nil
}

func (p *parser) fail(format string, args ...any) {
	off := p.end
	if p.pos < len(p.toks) {
		off = p.toks[p.pos].Off
	}
	panic(stop{&SyntaxError{off, fmt.Sprintf(format, args...)}})
}

func (p *parser) peek() string {
	if p.pos >= len(p.toks) {
		return ""
	}
	return p.toks[p.pos].Text
}

func (p *parser) next() string {
	s := p.peek()
	p.pos++
	return s
}

func (p *parser) accept(s string) bool {
	if p.peek() != s {
		return false
	}
	p.pos++
	return true
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("expected %s", s)
	}
}

// maxDepth bounds how deep parentheses and operators stand in each other.
const maxDepth = 200

func (p *parser) enter() {
	if p.depth++; p.depth > maxDepth {
		p.fail("the expression is too deep")
	}
}

// precedence of the binary operators, as in C.
var precedence = map[string]int{
	"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, "<=": 7, ">": 7, ">=": 7, "<<": 8, ">>": 8,
	"+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}

func (p *parser) binary(above int) Result {
	p.enter()
	defer func() { p.depth-- }()
	left := p.unary()
	for {
		op := p.peek()
		prec := precedence[op]
		if prec <= above {
			return left
		}
		p.next()
		left = p.apply(op, left, p.binary(prec))
	}
}

// long and ulong are the types of numbers: int and what is smaller are widened, which shows nowhere but in sizeof.
var (
	long  = &ctype.Int{Name: "long", Size: 8, Signed: true}
	ulong = &ctype.Int{Name: "unsigned long", Size: 8}
)

// arithmetic says the type that two operands have in common.
func arithmetic(a, b Result) *ctype.Int {
	for _, r := range []Result{a, b} {
		switch t := ctype.Strip(r.Type).(type) {
		case *ctype.Int:
			if !t.Signed && t.Size == 8 {
				return ulong
			}
		case *ctype.Ptr, *ctype.Array:
			return ulong
		}
	}
	return long
}

func (p *parser) apply(op string, a, b Result) Result {
	if op == "+" || op == "-" {
		if r, ok := p.pointer(op, a, b); ok {
			return r
		}
	}
	t := arithmetic(a, b)
	x, y := p.number(a), p.number(b)
	yes := func(b bool) Result {
		if b {
			return Result{Number: 1, Type: long}
		}
		return Result{Type: long}
	}
	less := func(x, y uint64) bool {
		if t.Signed {
			return int64(x) < int64(y)
		}
		return x < y
	}
	switch op {
	case "||":
		return yes(x != 0 || y != 0)
	case "&&":
		return yes(x != 0 && y != 0)
	case "==":
		return yes(x == y)
	case "!=":
		return yes(x != y)
	case "<":
		return yes(less(x, y))
	case ">":
		return yes(less(y, x))
	case "<=":
		return yes(!less(y, x))
	case ">=":
		return yes(!less(x, y))
	}
	return Result{Number: p.compute(op, x, y, t.Signed), Type: t}
}

func (p *parser) compute(op string, x, y uint64, signed bool) uint64 {
	switch op {
	case "|":
		return x | y
	case "^":
		return x ^ y
	case "&":
		return x & y
	case "<<":
		return x << (y & 63)
	case ">>":
		if signed {
			return uint64(int64(x) >> (y & 63))
		}
		return x >> (y & 63)
	case "+":
		return x + y
	case "-":
		return x - y
	case "*":
		return x * y
	}
	switch {
	case y == 0:
		p.fail("division by zero")
	case op == "/" && signed:
		return uint64(int64(x) / int64(y))
	case op == "/":
		return x / y
	case signed:
		return uint64(int64(x) % int64(y))
	}
	return x % y
}

// elem is what a pointer or an array is of.
func elem(t ctype.Type) (ctype.Type, bool) {
	switch t := ctype.Strip(t).(type) {
	case *ctype.Ptr:
		return t.Elem, true
	case *ctype.Array:
		return t.Elem, true
	}
	return nil, false
}

// pointer adds to or subtracts from a pointer in units of what it points to.
func (p *parser) pointer(op string, a, b Result) (Result, bool) {
	ea, pa := elem(a.Type)
	eb, pb := elem(b.Type)
	if !pa && pb && op == "+" {
		a, b, ea, pa, pb = b, a, eb, pb, pa
	}
	if !pa {
		return Result{}, false
	}
	size := uint64(max(ctype.Size(ea), 1))
	at := p.number(a)
	if pb {
		if op == "+" {
			p.fail("two pointers cannot be added")
		}
		return Result{Number: uint64(int64(at-p.number(b)) / int64(size)), Type: long}, true
	}
	n := p.number(b) * size
	if op == "-" {
		n = -n
	}
	return Result{Number: at + n, Type: &ctype.Ptr{Elem: ea}}, true
}

// number is the value of an operand: where an array begins, or what stands in memory.
func (p *parser) number(r Result) uint64 {
	if !r.Object.OK() {
		return r.Number
	}
	switch t := ctype.Strip(r.Type).(type) {
	case *ctype.Array:
		return r.Object.Addr
	case *ctype.Struct:
		p.fail("%s is no number", ctype.Name(t))
	case ctype.Void:
		p.fail("the type of what is at %#x is not known: take its address with &, or cast that: *(TYPE *)&NAME", r.Object.Addr)
	}
	return r.Object.Uint()
}

func (p *parser) object(t ctype.Type, at uint64) Result {
	return Result{Object: kernel.Typed(p.t, p.errs, t, at), Type: t}
}

func (p *parser) unary() Result {
	p.enter()
	defer func() { p.depth-- }()
	switch p.peek() {
	case "-":
		p.next()
		return Result{Number: -p.number(p.unary()), Type: long}
	case "+":
		p.next()
		return Result{Number: p.number(p.unary()), Type: long}
	case "~":
		p.next()
		r := p.unary()
		return Result{Number: ^p.number(r), Type: arithmetic(r, r)}
	case "!":
		p.next()
		if p.number(p.unary()) == 0 {
			return Result{Number: 1, Type: long}
		}
		return Result{Type: long}
	case "&":
		p.next()
		r := p.unary()
		if !r.Object.OK() {
			p.fail("only what is in memory has an address")
		}
		return Result{Number: r.Object.Addr, Type: &ctype.Ptr{Elem: r.Type}}
	case "*":
		p.next()
		return p.deref(p.unary())
	case "sizeof":
		p.next()
		return p.sizeof()
	}
	return p.postfix(p.primary())
}

func (p *parser) deref(r Result) Result {
	e, ok := elem(r.Type)
	if !ok {
		p.fail("%s is no pointer", ctype.Name(r.Type))
	}
	return p.object(e, p.number(r))
}

func (p *parser) sizeof() Result {
	if p.peek() == "(" {
		at := p.pos
		p.next()
		if t, ok := p.typeName(); ok {
			p.expect(")")
			return Result{Number: uint64(ctype.Size(t)), Type: ulong}
		}
		p.pos = at
	}
	return Result{Number: uint64(ctype.Size(p.unary().Type)), Type: ulong}
}

func (p *parser) primary() Result {
	switch s := p.peek(); {
	case s == "":
		p.fail("the expression ends here")
	case s == "(":
		p.next()
		if t, ok := p.typeName(); ok {
			p.expect(")")
			return p.cast(t)
		}
		r := p.binary(0)
		p.expect(")")
		return r
	case s[0] >= '0' && s[0] <= '9':
		return p.literal(s)
	case s[0] == '\'' && len(s) == 3:
		p.next()
		return Result{Number: uint64(s[1]), Type: long}
	case isName(s):
		return p.name(s)
	}
	p.fail("%s is not expected here", p.peek())
	return Result{}
}

func isName(s string) bool {
	c := s[0]
	return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

func (p *parser) literal(s string) Result {
	digits := strings.TrimRight(s, "uUlL")
	n, err := strconv.ParseUint(digits, 0, 64)
	if err != nil {
		if n, err = strconv.ParseUint(digits, 16, 64); err != nil || len(digits) < 8 { // an address, as crash prints them
			p.fail("%s is no number", s)
		}
	}
	p.next()
	if n > 1<<63-1 || strings.ContainsAny(s[len(digits):], "uU") {
		return Result{Number: n, Type: ulong}
	}
	return Result{Number: n, Type: long}
}

// name is a variable, a constant of an enum, or an address that was written without 0x.
func (p *parser) name(s string) Result {
	t, at, err := p.names.Var(s)
	if err == nil {
		p.next()
		return p.object(t, at)
	}
	if !errors.Is(err, ErrUnknown) {
		panic(stop{err})
	}
	if e, v, ok := p.t.Types().EnumValue(s); ok {
		p.next()
		return Result{Number: uint64(v), Type: e}
	}
	if n, err := strconv.ParseUint(s, 16, 64); err == nil && len(s) >= 8 {
		p.next()
		return Result{Number: n, Type: ulong}
	}
	p.fail("no symbol or constant %s", s)
	return Result{}
}

func (p *parser) postfix(r Result) Result {
	for {
		switch p.peek() {
		case "[":
			p.next()
			i := p.binary(0)
			p.expect("]")
			sum, ok := p.pointer("+", r, i)
			if !ok {
				p.fail("%s is no array", ctype.Name(r.Type))
			}
			r = p.deref(sum)
		case "->", ".":
			// Debuggers take either for either.
			p.next()
			if _, isPtr := elem(r.Type); isPtr {
				r = p.deref(r)
			}
			r = p.member(r, p.next())
		default:
			return r
		}
	}
}

func (p *parser) member(r Result, name string) Result {
	s, ok := ctype.Strip(r.Type).(*ctype.Struct)
	if !ok || !r.Object.OK() {
		p.fail("%s has no members", ctype.Name(r.Type))
	}
	m, ok := s.Member(name)
	if !ok {
		p.pos--
		p.fail("%s has no member %s", ctype.Name(r.Type), name)
	}
	return Result{Object: r.Object.Part(m), Type: m.Type}
}

// cast gives what follows another type. What stands in memory and is no number stays where it is.
func (p *parser) cast(t ctype.Type) Result {
	r := p.unary()
	if _, isStruct := ctype.Strip(t).(*ctype.Struct); isStruct {
		p.fail("nothing can be cast to %s; *(%s *)ADDRESS is what is there", ctype.Name(t), ctype.Name(t))
	}
	n := p.number(r)
	if bits := 8 * ctype.Size(t); bits < 64 && bits > 0 {
		n &= 1<<bits - 1
		if i, ok := ctype.Strip(t).(*ctype.Int); ok && i.Signed && n>>(bits-1) != 0 {
			n |= ^uint64(0) << bits
		}
	}
	return Result{Number: n, Type: t}
}
