package syntax

import "strings"

// typeNames are the types that are no kernel typedef. C's words may be combined: unsigned long.
var typeNames = map[string]bool{
	"bool": true, "int8": true, "int16": true, "int32": true, "int64": true, "uint8": true, "uint16": true, "uint32": true,
	"uint64": true, "void": true, "string": true, "buffer": true, "inet": true, "timestamp": true, "macaddr_t": true,
	"cgroup_path_t": true, "username_t": true, "count_t": true, "min_t": true, "max_t": true, "sum_t": true, "avg_t": true,
	"stats_t": true, "umin_t": true, "umax_t": true, "usum_t": true, "uavg_t": true, "ustats_t": true,
}

// cWords are the words C spells its types with.
var cWords = map[string]bool{
	"const": true, "volatile": true, "unsigned": true, "signed": true, "long": true, "short": true, "int": true, "char": true,
}

func isTag(w string) bool { return w == "struct" || w == "union" || w == "enum" }

// atStructType reports whether struct foo, union foo or enum foo is next.
func (p *parser) atStructType() bool {
	return p.tok.kind == tIdent && isTag(p.tok.text) && p.peek().kind == tIdent
}

// typeHead is what scanType found: where a type ends, and how sure it is that it is one.
type typeHead struct {
	sc     scanner // after the type
	next   token   // the token after it
	known  bool    // the name can only be a type
	suffix bool    // stars or lengths follow the name
}

// scanType looks whether a type is next, without consuming it. Only names and suffixes are looked at.
func (p *parser) scanType() (h typeHead, ok bool) {
	if p.tok.kind != tIdent || IsBuiltin(p.tok.text) {
		return h, false
	}
	h.sc, h.next = p.sc, p.tok
	h.scanBase()
	for ok := h.known || h.next.start > p.tok.start; ok; h.suffix = true {
		switch {
		case h.next.is("*"):
			h.step()
		case h.next.is("["):
			if h.step(); h.next.kind == tInt {
				h.step()
			}
			if !h.next.is("]") {
				return h, false
			}
			h.step()
		default:
			return h, true
		}
	}
	return h, false
}

func (h *typeHead) step() { h.next = h.sc.next() }

// scanBase moves past the name of a type.
func (h *typeHead) scanBase() {
	whole := false // C's words alone make a type
	for h.next.kind == tIdent && cWords[h.next.text] {
		h.known = true
		whole = whole || h.next.text != "const" && h.next.text != "volatile"
		h.step()
	}
	if whole || h.next.kind != tIdent {
		return
	}
	if isTag(h.next.text) {
		h.known = true
		h.step()
	}
	h.known = h.known || typeNames[h.next.text]
	if h.next.kind == tIdent {
		h.step()
	}
}

// castHead reports whether (type) and an operand are next.
func (p *parser) castHead() bool {
	q := *p // a copy to look ahead with; nothing is consumed from p
	q.tok = q.sc.next()
	if q.tok.isWord("typeof") {
		return true
	}
	h, ok := q.scanType()
	if !ok || !h.next.is(")") {
		return false
	}
	switch t := h.sc.next(); t.kind {
	case tInt, tStr, tVar, tMap, tParam, tIdent:
		return true
	case tOp:
		switch t.text {
		case "(", "-", "!", "~", "*", "&":
			return true
		case "++", "--":
			return h.known || h.suffix
		}
	}
	return false
}

// cast parses (type) unary.
func (p *parser) cast() Expr {
	defer p.up()
	if !p.deeper() {
		return &Bad{p.here()}
	}
	start := p.next().start
	t := p.typeExpr()
	p.want(")")
	head := p.from(start)
	x := p.unary()
	return &Cast{p.from(start), head, t, x}
}

// typeOrExpr parses the first argument of sizeof, offsetof and typeinfo, and that of typeof.
func (p *parser) typeOrExpr() Expr {
	h, ok := p.scanType()
	if !ok || !h.next.is(")") && !h.next.is(",") {
		return p.expr()
	}
	if h.known || h.suffix {
		return p.typeExpr()
	}
	return p.word()
}

// typeExpr parses a type as it stands in casts, declarations and arguments.
func (p *parser) typeExpr() *TypeExpr {
	start := p.tok.start
	t := &TypeExpr{}
	switch {
	case p.tok.isWord("typeof"):
		p.next()
		p.want("(")
		if !p.quiet {
			t.Of = p.typeOrExpr()
		}
		p.want(")")
	case p.tok.kind == tIdent && isTag(p.tok.text):
		tag := p.next().text
		name, _ := p.ident("expected identifier")
		t.Name = tag + " " + name
	default:
		t.Name = p.typeName()
	}
	t.Span = p.from(start)
	return p.suffixes(start, t)
}

// typeName parses a plain name, or C's words without const and volatile.
func (p *parser) typeName() string {
	if p.tok.kind != tIdent || !cWords[p.tok.text] {
		name, _ := p.ident("expected type name")
		return name
	}
	var words []string
	for p.tok.kind == tIdent && cWords[p.tok.text] {
		if w := p.next().text; w != "const" && w != "volatile" {
			words = append(words, w)
		}
	}
	if len(words) > 0 {
		return strings.Join(words, " ")
	}
	if p.tok.kind == tIdent && isTag(p.tok.text) {
		words = append(words, p.next().text)
	}
	name, _ := p.ident("expected type name")
	return strings.Join(append(words, name), " ")
}

// suffixes parses the stars and lengths after the base t.
func (p *parser) suffixes(start int, t *TypeExpr) *TypeExpr {
	for n := 0; p.tok.kind == tOp && n < maxDepth; n++ {
		switch p.tok.text {
		case "*=": // let $p: int8 *= …
			p.jump(p.tok.start + 1)
			t = pointer(t)
			t.Span = p.from(start)
			return t
		case "*":
			p.next()
			t = pointer(t)
		case "[":
			p.next()
			dim := -1
			if p.tok.kind == tInt {
				dim = int(min(p.next().val, 1<<30))
			}
			p.want("]")
			t.Dims = append(t.Dims, dim)
		default:
			return t
		}
		t.Span = p.from(start)
	}
	return t
}

// pointer adds a star to t.
func pointer(t *TypeExpr) *TypeExpr {
	if len(t.Dims) > 0 {
		t = &TypeExpr{Elem: t}
	}
	t.Ptr++
	return t
}
