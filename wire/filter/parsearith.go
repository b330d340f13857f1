package filter

// relation reads a comparison of two arithmetic expressions.
func (p *parser) relation() (node, bool) {
	x, ok := p.arith(0)
	if !ok {
		return nil, false
	}
	t := p.peek()
	switch {
	case t.kind != kSymbol:
	case t.text == "=" || t.text == "!=" || t.text == "<" || t.text == "<=" || t.text == ">" || t.text == ">=":
		p.take()
		y, ok := p.arith(0)
		return &relNode{op: t, x: x, y: y}, ok
	}
	return nil, p.unexpected("a comparison")
}

// Precedences of the operators; unary minus binds tighter than all of these.
var precedence = map[string]int{"|": 1, "&": 2, "<<": 3, ">>": 3, "+": 4, "-": 4, "*": 5, "/": 5}

const unary = 6

// arith reads operators that bind at least as tightly as least.
func (p *parser) arith(least int) (arith, bool) {
	if p.depth++; p.depth > maxDepth {
		return nil, p.fail(p.peek(), "the expression is nested too deeply", "")
	}
	defer func() { p.depth-- }()
	x, ok := p.operandArith()
	for ok {
		op := p.peek()
		if op.kind != kSymbol {
			return x, true
		}
		// libpcap's grammar gives % and ^ no precedence: they always go on, and take all that follows.
		next := 0
		if op.text != "%" && op.text != "^" {
			prec := precedence[op.text]
			if prec == 0 || prec < least {
				return x, true
			}
			next = prec + 1
		}
		p.take()
		var y arith
		if y, ok = p.arith(next); ok {
			x = &opArith{op: op, x: x, y: y}
		}
	}
	return nil, false
}

// operandArith reads what stands between operators.
func (p *parser) operandArith() (arith, bool) {
	t := p.peek()
	switch {
	case t.kind == kNum:
		return &numArith{p.take()}, true
	case t.is("len"):
		return &lenArith{p.take()}, true
	case t.is("-"):
		p.take()
		x, ok := p.arith(unary)
		return &negArith{op: t, x: x}, ok
	case t.is("("):
		p.take()
		x, ok := p.arith(0)
		if ok && !p.accept(")") {
			ok = p.unexpected(")")
		}
		return x, ok
	case t.kind == kProtocol && p.peek2().is("["):
		return p.load()
	}
	return nil, p.unexpected("a number, len, or bytes like ip[0]")
}

// load reads protocol[at:size].
func (p *parser) load() (arith, bool) {
	n := &loadArith{name: p.take(), size: token{num: 1}}
	p.take()
	var ok bool
	if n.at, ok = p.arith(0); !ok {
		return nil, false
	}
	if p.accept(":") {
		if n.size = p.peek(); n.size.kind != kNum {
			return nil, p.unexpected("a size: 1, 2 or 4")
		}
		p.take()
	}
	if !p.accept("]") {
		return nil, p.unexpected("]")
	}
	return n, true
}
