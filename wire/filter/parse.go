package filter

// parser reads tokens by recursive descent; grammar.txt is beside it.
type parser struct {
	src   string
	toks  []token
	at    int
	depth int
	// err is the error furthest to the right: alternatives are tried in turn, and the one that got furthest was meant.
	err *Error
}

// maxDepth bounds nesting.
const maxDepth = 200

// allowed says what may stand at a place: a term, a bare id, or both.
type allowed uint8

const (
	terms allowed = 1 << iota
	ids
	both = terms | ids
)

// parse reads a whole expression; nil is the empty one.
func parse(src string) (node, *Error) {
	toks, err := scan(src)
	if err != nil {
		return nil, err
	}
	p := &parser{src: src, toks: toks}
	if p.peek().kind == kEOF {
		return nil, nil
	}
	n, _, _, ok := p.list(terms, none)
	if ok && p.peek().kind != kEOF {
		ok = p.unexpected("and, or, or the end")
	}
	if !ok {
		return nil, p.err
	}
	return n, nil
}

func (p *parser) peek() token  { return p.toks[p.at] }
func (p *parser) peek2() token { return p.toks[min(p.at+1, len(p.toks)-1)] }

func (p *parser) take() token {
	t := p.toks[p.at]
	if t.kind != kEOF {
		p.at++
	}
	return t
}

// accept takes the next token if it is that word.
func (p *parser) accept(text string) bool {
	if p.peek().is(text) {
		p.at++
		return true
	}
	return false
}

// fail notes an error at t and gives false.
func (p *parser) fail(t token, msg, hint string) bool {
	if p.err == nil || t.pos >= p.err.Pos {
		p.err = &Error{Expr: p.src, Pos: t.pos, End: t.end, Msg: msg, Hint: hint}
	}
	return false
}

// unexpected says what should have come next.
func (p *parser) unexpected(want string) bool {
	t := p.peek()
	if t.kind == kEOF {
		return p.fail(t, "the expression ends here; expected "+want, "")
	}
	hint := ""
	switch {
	case t.kind == kName:
		if w := closest(t.text); w != "" {
			hint = "did you mean " + w + "?"
		}
	case t.kind == kV4 || t.kind == kV6:
		hint = "an address wants a word before it: host " + t.text
	case t.is("and") || t.is("or"):
		hint = "something to test must stand on both sides of " + t.text
	}
	if why, ok := foreign[t.text]; ok && t.kind == kWord {
		return p.fail(t, quote(t.text)+" is a word for "+why+", which no link type here carries", "")
	}
	return p.fail(t, "unexpected "+quote(p.src[t.pos:t.end])+"; expected "+want, hint)
}

// list reads operands with "and" and "or" between them, up to a closing parenthesis or the end. It tells whether the list
// is one of ids only, and the qualifiers of its last operand.
func (p *parser) list(first allowed, q qual) (n node, last qual, isID, ok bool) {
	n, last, isID, ok = p.operand(first, q)
	what := both
	if isID {
		what = ids
	}
	for ok && (p.peek().is("and") || p.peek().is("or")) {
		op := p.take()
		var y node
		y, last, _, ok = p.operand(what, last)
		n = &binaryNode{op: op, x: n, y: y}
	}
	return n, last, isID, ok
}

// operand reads a term or an id, whichever may stand here; q is what an id inherits.
func (p *parser) operand(what allowed, q qual) (n node, last qual, isID, ok bool) {
	if p.depth++; p.depth > maxDepth {
		return nil, q, false, p.fail(p.peek(), "the expression is nested too deeply", "")
	}
	defer func() { p.depth-- }()
	t := p.peek()
	switch {
	case t.is("!"):
		p.take()
		n, last, isID, ok = p.operand(what, q)
		return &notNode{op: t, x: n}, last, isID, ok
	case what&terms != 0 && (t.kind == kNum && (what&ids == 0 || p.peek2().operator()) || t.is("(") || t.is("-") || t.is("len") || t.kind == kProtocol && p.peek2().is("[")):
		start := p.at
		if n, ok = p.relation(); ok {
			return n, none, false, true
		}
		if !t.is("(") {
			return nil, q, false, false
		}
		p.at = start
	}
	switch {
	case t.is("("):
		p.take()
		n, last, isID, ok = p.list(what, q)
		if ok && !p.accept(")") {
			ok = p.unexpected("and, or, or )")
		}
		if !isID {
			last = q
		}
		return n, last, isID, ok
	case what&ids != 0 && (t.kind == kNum || t.kind == kName || t.kind == kV4 || t.kind == kV6 || t.kind == kMAC):
		n, ok = p.id(q)
		return n, q, true, ok
	case what&terms == 0:
		return nil, q, true, p.unexpected("an address, a number or a name")
	}
	n, last, ok = p.primitive()
	return n, last, false, ok
}

// operator says if an arithmetic expression goes on with t.
func (t token) operator() bool {
	return t.kind == kSymbol && !t.is("!") && !t.is("(") && !t.is(")") && !t.is("and") && !t.is("or")
}

// id reads one id with its mask.
func (p *parser) id(q qual) (node, bool) {
	n := &idNode{q: q, id: p.take()}
	if q.addr == asNone {
		return n, p.fail(n.id, quote(n.id.text)+" inherits nothing: what stands before it has no host, net, port or proto",
			"write what it is, as in: port "+n.id.text)
	}
	n.after = n.id
	switch {
	case (n.id.kind == kV4 || n.id.kind == kV6) && p.accept("/"):
		t := p.peek()
		if t.kind != kNum {
			return n, p.unexpected("the length of a prefix")
		}
		p.take()
		n.len, n.after = &t, t
	case n.id.kind == kV4 && p.accept("mask"):
		t := p.peek()
		if t.kind != kV4 {
			return n, p.unexpected("a mask like 255.255.0.0")
		}
		p.take()
		n.mask, n.after = &t, t
	}
	return n, true
}

// primitive reads what begins with a word.
func (p *parser) primitive() (node, qual, bool) {
	name, t := token{kind: kEOF}, p.peek()
	if t.kind == kProtocol {
		name = p.take()
		t = p.peek()
	}
	switch {
	case t.is("broadcast") || t.is("multicast"):
		return &wordNode{word: p.take(), q: name}, none, true
	case t.kind == kDirection || t.kind == kAddrType:
		q, ok := p.head(name.proto)
		if !ok {
			return nil, q, false
		}
		n, last, _, ok := p.operand(ids, q)
		return n, last, ok
	case name.kind != kEOF:
		if t.kind == kWord && foreign[t.text] == "802.11" {
			return nil, none, p.unexpected("and, or, or the end")
		}
		return &protoNode{name}, none, true
	}
	n, ok := p.word()
	return n, none, ok
}

// head reads direction and type of address.
func (p *parser) head(pr proto) (qual, bool) {
	q := qual{proto: pr}
	if t := p.peek(); t.kind == kDirection {
		p.take()
		switch t.text {
		case "src", "dst":
			q.dir = dirSrc
			if t.text == "dst" {
				q.dir = dirDst
			}
			op := p.peek()
			if !op.is("and") && !op.is("or") {
				break
			}
			p.take()
			if o := p.peek(); (!o.is("src") && !o.is("dst")) || o.text == t.text {
				return q, p.unexpected("the other direction")
			}
			p.take()
			q.dir = dirOr
			if op.is("and") {
				q.dir = dirAnd
			}
		default:
			return q, p.fail(t, quote(t.text)+" is a word for 802.11, which no link type here carries", "")
		}
	}
	if t := p.peek(); t.kind == kAddrType {
		q.addr = addrTypes[t.text]
		if q.dir != dirAny && q.addr >= asProto {
			return q, p.fail(t, quote(t.text)+" has no direction", "")
		}
		p.take()
	}
	return q, true
}

// word reads the primitives that are words of their own.
func (p *parser) word() (node, bool) {
	t := p.peek()
	n := &wordNode{word: t}
	switch {
	case t.kind != kWord || foreign[t.text] != "" || t.is("and") || t.is("or") || t.is("mask") || t.is("len"):
		return nil, p.unexpected("something to test")
	case t.is("less") || t.is("greater") || t.is("ifindex") || t.is("byte"):
		p.take()
		if !p.number(n) {
			return nil, false
		}
		if !t.is("byte") {
			return n, true
		}
		op := p.peek()
		if !op.is("&") && !op.is("|") && !op.is("<") && !op.is(">") && !op.is("=") {
			return nil, p.unexpected("one of & | < > =")
		}
		n.oper = p.take().text
		return n, p.number(n)
	case t.is("vlan") || t.is("mpls") || t.is("pppoes") || t.is("geneve") || t.is("vxlan"):
		p.take()
		return n, p.optional(n)
	case t.is("llc"):
		p.take()
		if k := p.peek(); k.kind == kName || k.is("rnr") {
			n.args, n.given = []token{p.take()}, true
		}
		return n, true
	}
	p.take()
	return n, true
}

func (p *parser) number(n *wordNode) bool {
	if p.peek().kind != kNum {
		return p.unexpected("a number")
	}
	n.args = append(n.args, p.take())
	return true
}

// optional reads a number that may be missing and may stand in parentheses.
func (p *parser) optional(n *wordNode) bool {
	opened := 0
	for p.peek().is("(") {
		p.take()
		opened++
	}
	if opened == 0 && p.peek().kind != kNum {
		return true
	}
	n.given = true
	if !p.number(n) {
		return false
	}
	for ; opened > 0; opened-- {
		if !p.accept(")") {
			return p.unexpected(")")
		}
	}
	return true
}
