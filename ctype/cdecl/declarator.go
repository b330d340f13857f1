package cdecl

import "github.com/fathom-trace/fathom/ctype"

// declarator = {"*"} (name | "(" declarator ")") {"[" [constant] "]" | "(" parameters ")"}
func (p *parser) declarator(t ctype.Type) (string, ctype.Type) {
	if p.depth++; p.depth > maxDepth {
		p.fail("declarations are nested too deeply")
	}
	defer func() { p.depth-- }()
	for {
		if p.accept("*") {
			t = &ctype.Ptr{Elem: t}
			continue
		}
		if noise[p.peek()] {
			p.next()
			continue
		}
		if p.peek() == "__attribute__" {
			p.attribute()
			continue
		}
		break
	}
	if p.accept("(") { // (*name)(…): a pointer to a function, or to an array
		stars := 0
		for p.accept("*") {
			stars++
		}
		name := ""
		if w := p.peek(); w != "" && isWord(w[0]) {
			name = p.next()
		}
		inner := p.suffixes(nil)
		p.expect(")")
		t = p.suffixes(t)
		for range stars {
			t = &ctype.Ptr{Elem: t}
		}
		return name, wrap(inner, t)
	}
	name := ""
	if w := p.peek(); w != "" && isWord(w[0]) {
		name = p.next()
	}
	return name, p.suffixes(t)
}

// wrap puts t at the bottom of the arrays that inner is; nil is no array.
func wrap(inner, t ctype.Type) ctype.Type {
	a, ok := inner.(*ctype.Array)
	if !ok {
		return t
	}
	return &ctype.Array{Elem: wrap(a.Elem, t), Len: a.Len}
}

// suffixes reads array bounds and parameter lists after a name.
func (p *parser) suffixes(t ctype.Type) ctype.Type {
	switch {
	case p.accept("["):
		n := int64(0)
		for noise[p.peek()] {
			p.next()
		}
		if p.peek() != "]" {
			n = p.constant()
		}
		p.expect("]")
		if n < 0 || n > 1<<28 {
			p.fail("array of %d elements", n)
		}
		return &ctype.Array{Elem: p.suffixes(t), Len: int(n)}
	case p.accept("("):
		p.balanced("(", ")")
		return &ctype.Func{Result: t}
	}
	return t
}
