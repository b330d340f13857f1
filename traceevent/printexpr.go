package traceevent

import (
	"encoding/binary"
	"fmt"
)

// scope is what an expression of a print fmt is evaluated over.
type scope struct {
	rec  []byte
	env  *Env
	made []byte // texts that helpers put together, one behind the other
}

// value is a number, or bytes of the record: a string, an array, what a pointer points to.
type value struct {
	n uint64
	b []byte
}

// ctyp is a C type as far as arithmetic needs it. mem types are arrays and pointers into the record, of elements so large.
type ctyp struct {
	size   int // bytes: 1, 2, 4, 8
	uns    bool
	mem    bool
	pseudo bool // text that a helper made: only %s takes it
}

var (
	intType   = ctyp{size: 4}
	longType  = ctyp{size: 8}
	ulongType = ctyp{size: 8, uns: true}
	charsType = ctyp{size: 1, mem: true}
)

// expr is an expression, compiled.
type expr struct {
	eval  func(*scope) value
	t     ctyp
	konst bool
}

// wrap takes n to the width and sign of t.
func (t ctyp) wrap(n uint64) uint64 {
	switch {
	case t.size >= 8 || t.size == 0:
		return n
	case t.uns:
		return n & (1<<(8*t.size) - 1)
	}
	shift := 64 - 8*t.size
	return uint64(int64(n<<shift) >> shift)
}

// promote is C's integer promotion.
func (t ctyp) promote() ctyp {
	if t.mem {
		return ulongType
	}
	if t.size < 4 {
		return intType
	}
	return t
}

// common is C's usual arithmetic conversion.
func common(a, b ctyp) ctyp {
	a, b = a.promote(), b.promote()
	switch {
	case a.size > b.size:
		return a
	case b.size > a.size:
		return b
	}
	a.uns = a.uns || b.uns
	return a
}

// parser reads C expressions of one print fmt.
type exprParser struct {
	f     *Format
	toks  []token
	at    int
	depth int
}

// maxDepth bounds how deeply expressions nest.
const maxDepth = 100

// fmtError ends a parse; it says what was not understood.
type fmtError struct{ msg string }

func (p *exprParser) fail(format string, args ...any) {
	panic(fmtError{fmt.Sprintf(format, args...)})
}

func (p *exprParser) peek() token {
	if p.at < len(p.toks) {
		return p.toks[p.at]
	}
	return token{}
}

func (p *exprParser) peekAt(n int) token {
	if p.at+n < len(p.toks) {
		return p.toks[p.at+n]
	}
	return token{}
}

func (p *exprParser) next() token {
	t := p.peek()
	p.at++
	return t
}

func (p *exprParser) accept(text string) bool {
	if t := p.peek(); t.kind == tokPunct && t.text == text {
		p.at++
		return true
	}
	return false
}

func (p *exprParser) expect(text string) {
	if !p.accept(text) {
		p.fail("%q where %q was expected", p.peek().text, text)
	}
}

// expr := or ["?" expr ":" expr]
func (p *exprParser) expr() expr {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deeply")
	}
	defer func() { p.depth-- }()
	c := p.binary(0)
	if !p.accept("?") {
		return c
	}
	a := c
	if p.peek().text != ":" { // GNU: x ?: y
		a = p.expr()
	}
	p.expect(":")
	b := p.expr()
	t := a.t
	if !a.t.mem && !b.t.mem && !a.t.pseudo && !b.t.pseudo {
		t = common(a.t, b.t)
	}
	return expr{t: t, eval: func(s *scope) value {
		if c.eval(s).truth() {
			return a.eval(s)
		}
		return b.eval(s)
	}}
}

func (v value) truth() bool { return v.n != 0 || v.b != nil }

// precedence of binary operators, weakest first.
var precedence = map[string]int{
	"||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7, "<<": 8, ">>": 8,
	"+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}

func (p *exprParser) binary(weakest int) expr {
	a := p.unary()
	for {
		t := p.peek()
		level := precedence[t.text]
		if t.kind != tokPunct || level == 0 || level <= weakest {
			return a
		}
		p.next()
		a = p.operate(t.text, a, p.binary(level))
	}
}

func boolean(b bool) value {
	if b {
		return value{n: 1}
	}
	return value{}
}

func (p *exprParser) operate(op string, a, b expr) expr {
	x, y := a.eval, b.eval
	konst := a.konst && b.konst
	switch op {
	case "&&":
		return expr{t: intType, konst: konst, eval: func(s *scope) value { return boolean(x(s).truth() && y(s).truth()) }}
	case "||":
		return expr{t: intType, konst: konst, eval: func(s *scope) value { return boolean(x(s).truth() || y(s).truth()) }}
	}
	if a.t.mem || b.t.mem {
		return p.pointer(op, a, b)
	}
	t := common(a.t, b.t)
	if op == "<<" || op == ">>" {
		t = a.t.promote()
	}
	f := arithmetic(op, t)
	if f == nil {
		p.fail("operator %s", op)
	}
	res := t
	if precedence[op] == 6 || precedence[op] == 7 {
		res = intType
	}
	return expr{t: res, konst: konst, eval: func(s *scope) value {
		return value{n: f(t.wrap(x(s).n), y(s).n)}
	}}
}

// pointer is arithmetic and comparison with what lies in the record.
func (p *exprParser) pointer(op string, a, b expr) expr {
	switch op {
	case "+":
		if b.t.mem {
			a, b = b, a
		}
		size := uint64(a.t.size)
		return expr{t: a.t, eval: func(s *scope) value {
			v, n := a.eval(s), b.eval(s).n
			if n > uint64(len(v.b)) || n*size > uint64(len(v.b)) {
				return value{b: []byte{}}
			}
			return value{b: v.b[n*size:]}
		}}
	case "==", "!=":
		want := op == "=="
		return expr{t: intType, eval: func(s *scope) value { return boolean((a.eval(s).truth() == b.eval(s).truth()) == want) }}
	}
	p.fail("operator %s on a pointer", op)
	return expr{}
}

// arithmetic gives an operator on numbers of a type. Division by zero is 0, as there is nothing to print.
func arithmetic(op string, t ctyp) func(a, b uint64) uint64 {
	w := t.wrap
	num := func(b bool) uint64 { return boolean(b).n }
	switch op {
	case "+":
		return func(a, b uint64) uint64 { return w(a + b) }
	case "-":
		return func(a, b uint64) uint64 { return w(a - b) }
	case "*":
		return func(a, b uint64) uint64 { return w(a * b) }
	case "&":
		return func(a, b uint64) uint64 { return a & w(b) }
	case "|":
		return func(a, b uint64) uint64 { return w(a | b) }
	case "^":
		return func(a, b uint64) uint64 { return w(a ^ b) }
	case "<<":
		return func(a, b uint64) uint64 { return w(a << (b & 63)) }
	case "==":
		return func(a, b uint64) uint64 { return num(a == w(b)) }
	case "!=":
		return func(a, b uint64) uint64 { return num(a != w(b)) }
	}
	if t.uns {
		return unsignedOp(op, w)
	}
	return signedOp(op, w)
}

func unsignedOp(op string, w func(uint64) uint64) func(a, b uint64) uint64 {
	switch op {
	case ">>":
		return func(a, b uint64) uint64 { return a >> (b & 63) }
	case "/", "%":
		return func(a, b uint64) uint64 {
			switch b = w(b); {
			case b == 0:
				return 0
			case op == "/":
				return a / b
			}
			return a % b
		}
	case "<":
		return func(a, b uint64) uint64 { return boolean(a < w(b)).n }
	case ">":
		return func(a, b uint64) uint64 { return boolean(a > w(b)).n }
	case "<=":
		return func(a, b uint64) uint64 { return boolean(a <= w(b)).n }
	case ">=":
		return func(a, b uint64) uint64 { return boolean(a >= w(b)).n }
	}
	return nil
}

func signedOp(op string, w func(uint64) uint64) func(a, b uint64) uint64 {
	switch op {
	case ">>":
		return func(a, b uint64) uint64 { return uint64(int64(a) >> (b & 63)) }
	case "/", "%":
		return func(a, b uint64) uint64 {
			x, y := int64(a), int64(w(b))
			switch {
			case y == 0:
				return 0
			case y == -1 && op == "/":
				return w(uint64(-x))
			case y == -1:
				return 0
			case op == "/":
				return w(uint64(x / y))
			}
			return w(uint64(x % y))
		}
	case "<":
		return func(a, b uint64) uint64 { return boolean(int64(a) < int64(w(b))).n }
	case ">":
		return func(a, b uint64) uint64 { return boolean(int64(a) > int64(w(b))).n }
	case "<=":
		return func(a, b uint64) uint64 { return boolean(int64(a) <= int64(w(b))).n }
	case ">=":
		return func(a, b uint64) uint64 { return boolean(int64(a) >= int64(w(b))).n }
	}
	return nil
}

// unary := ("-"|"~"|"!"|"+"|"&"|"*") unary | "(" type ")" unary | postfix
func (p *exprParser) unary() expr {
	if p.depth++; p.depth > maxDepth {
		p.fail("nested too deeply")
	}
	defer func() { p.depth-- }()
	for _, op := range []string{"-", "~", "!", "+", "&", "*"} {
		if p.accept(op) {
			return p.prefix(op, p.unary())
		}
	}
	if p.peek().text == "(" {
		if t, n, ok := p.castAt(p.at + 1); ok {
			p.at = n
			return cast(t, p.unary())
		}
	}
	return p.postfix(p.primary())
}

func (p *exprParser) prefix(op string, x expr) expr {
	e, t := x.eval, x.t.promote()
	switch op {
	case "&":
		if !x.t.mem {
			p.fail("address of a number")
		}
		return x
	case "*":
		if !x.t.mem {
			p.fail("a pointer of the kernel is followed")
		}
		return element(x, func(*scope) uint64 { return 0 })
	case "!":
		return expr{t: intType, konst: x.konst, eval: func(s *scope) value { return boolean(!e(s).truth()) }}
	case "-":
		return expr{t: t, konst: x.konst, eval: func(s *scope) value { return value{n: t.wrap(-e(s).n)} }}
	case "~":
		return expr{t: t, konst: x.konst, eval: func(s *scope) value { return value{n: t.wrap(^e(s).n)} }}
	}
	return x
}

func cast(t *ctyp, x expr) expr {
	switch {
	case t == nil || x.t.pseudo: // a type that says nothing
		return x
	case t.mem && x.t.mem:
		return expr{t: *t, eval: x.eval}
	case t.mem || x.t.mem:
		return x
	}
	to, e := *t, x.eval
	return expr{t: to, konst: x.konst, eval: func(s *scope) value { return value{n: to.wrap(e(s).n)} }}
}

// postfix := primary {"[" expr "]"}
func (p *exprParser) postfix(x expr) expr {
	for p.accept("[") {
		i := p.expr()
		p.expect("]")
		if !x.t.mem {
			p.fail("an index into no array")
		}
		x = element(x, func(s *scope) uint64 { return i.eval(s).n })
	}
	if t := p.peek().text; t == "->" || t == "." {
		p.fail("a member of a struct")
	}
	return x
}

// element reads one element of an array in the record.
func element(x expr, index func(*scope) uint64) expr {
	t := x.t
	t.mem = false
	return expr{t: t, eval: func(s *scope) value {
		b, i := x.eval(s).b, index(s)
		if i >= uint64(len(b)) || (i+1)*uint64(t.size) > uint64(len(b)) {
			return value{}
		}
		return value{n: t.wrap(load(b[i*uint64(t.size):], t.size))}
	}}
}

func load(b []byte, size int) uint64 {
	switch size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	}
	return binary.LittleEndian.Uint64(b)
}

func (p *exprParser) primary() expr {
	t := p.next()
	switch t.kind {
	case tokNumber, tokChar:
		return constant(t.num, t.typ)
	case tokString:
		text := []byte(t.text)
		for p.peek().kind == tokString {
			text = append(text, p.next().text...)
		}
		return expr{t: charsType, konst: true, eval: func(*scope) value { return value{b: text} }}
	case tokIdent:
		switch {
		case t.text == "REC" && p.accept("->"):
			return p.field(p.next().text)
		case t.text == "sizeof":
			return p.sizeof()
		case p.peek().text == "(":
			p.next()
			return p.call(t.text)
		case t.text == "true":
			return constant(1, intType)
		case t.text == "false" || t.text == "NULL":
			return constant(0, intType)
		}
		p.fail("the name %s, which is no number here", t.text)
	case tokPunct:
		if t.text == "(" && p.peek().text != "{" {
			x := p.expr()
			for p.accept(",") {
				x = p.expr()
			}
			p.expect(")")
			return x
		}
	}
	p.fail("unexpected %q", t.text)
	return expr{}
}

func constant(n uint64, t ctyp) expr {
	return expr{t: t, konst: true, eval: func(*scope) value { return value{n: n} }}
}

// field := "REC->" NAME
func (p *exprParser) field(name string) expr {
	f := p.f.Field(name)
	if f == nil {
		p.fail("no field %s", name)
	}
	if f.DataLoc || f.RelLoc {
		return expr{t: intType, eval: func(s *scope) value { return value{n: f.Uint(s.rec)} }}
	}
	if f.IsArray() {
		t := ctyp{size: f.ElemSize(), uns: !f.Signed, mem: true}
		return expr{t: t, eval: func(s *scope) value { return value{b: notNil(f.Bytes(s.rec))} }}
	}
	t := ctyp{size: f.Size, uns: !f.Signed}
	if f.Size != 1 && f.Size != 2 && f.Size != 4 && f.Size != 8 { // a struct
		return expr{t: charsType, eval: func(s *scope) value { return value{b: notNil(f.Bytes(s.rec))} }}
	}
	if f.Signed && f.Size < 8 {
		return expr{t: t, eval: func(s *scope) value { return value{n: uint64(f.Int(s.rec))} }}
	}
	return expr{t: t, eval: func(s *scope) value { return value{n: f.Uint(s.rec)} }}
}

func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
