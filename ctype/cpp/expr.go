package cpp

import (
	"fmt"
	"strconv"
	"strings"
)

// Evaluate computes an integer constant expression (C11 6.10.1) in 64 bits: names that are left are 0.
func Evaluate(ts []Token) (n int64, err error) {
	e := &evaluator{ts: ts}
	v := e.ternary()
	if e.err == nil && e.pos < len(ts) {
		e.fail("unexpected '%s'", ts[e.pos].Text)
	}
	return v.n, e.err
}

// number is an intmax_t or uintmax_t.
type num struct {
	n        int64
	unsigned bool
}

func boolean(b bool) num {
	if b {
		return num{n: 1}
	}
	return num{}
}

type evaluator struct {
	ts    []Token
	pos   int
	depth int
	err   error
}

func (e *evaluator) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
	e.pos = len(e.ts)
}

func (e *evaluator) peek() string {
	if e.pos < len(e.ts) {
		return e.ts[e.pos].Text
	}
	return ""
}

func (e *evaluator) got(s string) bool {
	if e.peek() == s {
		e.pos++
		return true
	}
	return false
}

const maxNesting = 256

func (e *evaluator) ternary() num {
	if e.depth++; e.depth > maxNesting {
		e.fail("expression is nested too deeply")
		return num{}
	}
	defer func() { e.depth-- }()
	c := e.binary(0)
	if !e.got("?") {
		return c
	}
	a := e.ternary()
	if !e.got(":") {
		e.fail("expected ':'")
	}
	b := e.ternary()
	if c.n != 0 {
		return a
	}
	return b
}

// levels are the binary operators from loose to tight.
var levels = [][]string{
	{"||"}, {"&&"}, {"|"}, {"^"}, {"&"}, {"==", "!="}, {"<", ">", "<=", ">="}, {"<<", ">>"}, {"+", "-"}, {"*", "/", "%"},
}

func (e *evaluator) binary(level int) num {
	if level == len(levels) {
		return e.unary()
	}
	a := e.binary(level + 1)
	for {
		op := ""
		for _, o := range levels[level] {
			if e.peek() == o {
				op = o
			}
		}
		if op == "" {
			return a
		}
		e.pos++
		a = e.apply(op, a, e.binary(level+1))
	}
}

func (e *evaluator) apply(op string, a, b num) num {
	u := a.unsigned || b.unsigned
	x, y := a.n, b.n
	switch op {
	case "||":
		return boolean(x != 0 || y != 0)
	case "&&":
		return boolean(x != 0 && y != 0)
	case "|":
		return num{x | y, u}
	case "^":
		return num{x ^ y, u}
	case "&":
		return num{x & y, u}
	case "==":
		return boolean(x == y)
	case "!=":
		return boolean(x != y)
	case "<":
		return boolean(less(x, y, u))
	case ">":
		return boolean(less(y, x, u))
	case "<=":
		return boolean(!less(y, x, u))
	case ">=":
		return boolean(!less(x, y, u))
	case "<<":
		return num{x << (uint64(y) & 63), a.unsigned}
	case ">>":
		if a.unsigned {
			return num{int64(uint64(x) >> (uint64(y) & 63)), true}
		}
		return num{x >> (uint64(y) & 63), false}
	case "+":
		return num{x + y, u}
	case "-":
		return num{x - y, u}
	case "*":
		return num{x * y, u}
	}
	switch { // what is not evaluated, behind && or ||, may divide by zero
	case y == 0:
		return num{0, u}
	case op == "/" && u:
		return num{int64(uint64(x) / uint64(y)), u}
	case op == "/":
		return num{x / y, u}
	case u:
		return num{int64(uint64(x) % uint64(y)), u}
	}
	return num{x % y, u}
}

func less(a, b int64, unsigned bool) bool {
	if unsigned {
		return uint64(a) < uint64(b)
	}
	return a < b
}

func (e *evaluator) unary() num {
	if e.depth++; e.depth > maxNesting {
		e.fail("expression is nested too deeply")
		return num{}
	}
	defer func() { e.depth-- }()
	switch {
	case e.got("!"):
		return boolean(e.unary().n == 0)
	case e.got("-"):
		v := e.unary()
		return num{-v.n, v.unsigned}
	case e.got("+"):
		return e.unary()
	case e.got("~"):
		v := e.unary()
		return num{^v.n, v.unsigned}
	case e.got("("):
		v := e.ternary()
		if !e.got(")") {
			e.fail("expected ')'")
		}
		return v
	}
	return e.primary()
}

func (e *evaluator) primary() num {
	if e.pos >= len(e.ts) {
		e.fail("expression expected")
		return num{}
	}
	t := e.ts[e.pos]
	e.pos++
	switch c := t.Text[0]; {
	case t.word:
		if e.peek() == "(" { // a function-like macro that nobody defined
			e.fail("'%s' is not defined", t.Text)
		}
		return num{}
	case isDigit(c):
		v, ok := integer(t.Text)
		if !ok {
			e.fail("bad number '%s'", t.Text)
		}
		return v
	case strings.HasSuffix(t.Text, "'"):
		return character(t.Text[strings.IndexByte(t.Text, '\''):])
	}
	e.fail("unexpected '%s'", t.Text)
	return num{}
}

// integer reads a C integer constant with its suffix.
func integer(s string) (num, bool) {
	digits := strings.TrimRight(s, "uUlL")
	suffix := strings.ToLower(s[len(digits):])
	n, err := strconv.ParseUint(strings.ToLower(digits), 0, 64)
	if err != nil || strings.Contains(digits, "_") {
		return num{}, false
	}
	return num{int64(n), strings.Contains(suffix, "u") || n > 1<<63-1}, true
}

// character gives the value of 'x'.
func character(s string) num {
	r, _, _, err := strconv.UnquoteChar(s[1:], '\'')
	if err != nil {
		return num{}
	}
	return num{n: int64(r)}
}
