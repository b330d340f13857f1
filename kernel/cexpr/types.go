package cexpr

import (
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
)

// baseWords are what names of base types are made of.
var baseWords = map[string]bool{"void": true, "char": true, "short": true, "int": true, "long": true, "signed": true, "unsigned": true, "_Bool": true, "bool": true}

// typeName reads a type's name, with the stars behind it, if one stands here.
func (p *parser) typeName() (ctype.Type, bool) {
	at := p.pos
	t, ok := p.specifier()
	if !ok {
		p.pos = at
		return nil, false
	}
	for {
		switch p.peek() {
		case "*":
			p.next()
			t = &ctype.Ptr{Elem: t}
		case "const", "volatile", "__user", "__percpu":
			p.next()
		default:
			return t, true
		}
	}
}

func (p *parser) specifier() (ctype.Type, bool) {
	for p.peek() == "const" || p.peek() == "volatile" {
		p.next()
	}
	first := p.peek()
	switch {
	case first == "struct" || first == "union" || first == "enum":
		p.next()
		name := first + " " + p.peek()
		t, err := kernel.TypeNamed(p.t.Types(), name)
		if err != nil {
			p.fail("no type %s", name)
		}
		p.next()
		return t, true
	case baseWords[first]:
		var words []string
		for baseWords[p.peek()] {
			words = append(words, p.next())
		}
		return p.base(words), true
	case first == "" || !isName(first):
		return nil, false
	}
	// A word that is also a variable's name is the variable.
	if _, _, err := p.names.Var(first); err == nil {
		return nil, false
	}
	t, err := p.t.Types().ByName(ctype.KindTypedef, first)
	if err != nil {
		return nil, false
	}
	p.next()
	return t, true
}

// base is the type that words like "unsigned long int" name (ISO C11 6.7.2).
func (p *parser) base(words []string) ctype.Type {
	n := map[string]int{}
	for _, w := range words {
		n[w]++
	}
	signed := n["unsigned"] == 0
	i := &ctype.Int{Name: strings.Join(words, " "), Size: 4, Signed: signed}
	switch {
	case n["void"] > 0:
		return ctype.Void{}
	case n["bool"]+n["_Bool"] > 0:
		return &ctype.Int{Name: "_Bool", Size: 1, Bool: true}
	case n["char"] > 0:
		i.Size, i.Char = 1, true
	case n["short"] > 0:
		i.Size = 2
	case n["long"] > 0:
		i.Size = 8
	}
	return i
}
