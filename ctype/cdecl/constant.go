package cdecl

import (
	"strconv"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cpp"
)

// constant reads an integer constant expression up to the token that ends it. Enumerators and sizeof become numbers;
// casts are left out.
func (p *parser) constant() int64 {
	if p.depth++; p.depth > maxDepth {
		p.fail("expression is nested too deeply")
	}
	defer func() { p.depth-- }()
	start := p.pos
	var ts []cpp.Token
	for depth := 0; ; {
		w := p.peek()
		if depth == 0 && (w == "]" || w == "," || w == "}" || w == ";" || w == ")" || w == "__attribute__") || w == "" {
			break
		}
		t := p.toks[p.pos]
		switch {
		case w == "(":
			if p.cast() {
				continue
			}
			depth++
		case w == ")":
			depth--
		case w == "sizeof", w == "_Alignof", w == "__alignof__":
			ts = append(ts, number(int64(p.size(w == "sizeof")))...)
			continue
		case isWord(w[0]) && (w[0] < '0' || w[0] > '9'):
			_, n, ok := p.scope.EnumValue(w)
			if !ok {
				p.fail("unknown constant '%s'", w)
			}
			ts = append(ts, number(n)...)
			p.next()
			continue
		}
		ts = append(ts, t)
		p.next()
	}
	n, err := cpp.Evaluate(ts)
	if err != nil {
		p.pos = start
		if len(ts) == 0 {
			p.fail("expected a constant")
		}
		p.fail("%v", err)
	}
	return n
}

// number gives the tokens of a number.
func number(n int64) []cpp.Token {
	if n < 0 {
		return []cpp.Token{{Text: "-"}, {Text: strconv.FormatUint(-uint64(n), 10)}}
	}
	return []cpp.Token{{Text: strconv.FormatInt(n, 10)}}
}

// cast skips a parenthesised type, if one is next.
func (p *parser) cast() bool {
	start := p.pos
	p.next()
	if !p.atType() {
		p.pos = start
		return false
	}
	p.declarator(p.specifiers())
	p.expect(")")
	return true
}

// atType says if a type is next.
func (p *parser) atType() bool {
	w := p.peek()
	if w == "" || !isWord(w[0]) {
		return false
	}
	if baseWords[w] || noise[w] || w == "struct" || w == "union" || w == "enum" || w == "__typeof__" {
		return true
	}
	_, ok := p.typedef(w)
	return ok
}

// size reads sizeof(type) or _Alignof(type), in bytes.
func (p *parser) size(whole bool) int {
	p.next()
	p.expect("(")
	if !p.atType() {
		p.fail("expected a type")
	}
	_, t := p.declarator(p.specifiers())
	p.expect(")")
	if whole {
		return ctype.Size(t)
	}
	return alignOf(t, p.scope.aligns)
}
