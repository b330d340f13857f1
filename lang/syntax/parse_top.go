package syntax

import "strings"

// atCDef reports whether a C definition is next: a directive, struct, union or enum with a body, a typedef.
func (p *parser) atCDef() bool {
	switch {
	case p.tok.is("#"):
		return true
	case p.tok.isWord("typedef"):
		return true
	case !p.tok.isWord("struct") && !p.tok.isWord("union") && !p.tok.isWord("enum"):
		return false
	}
	for sc, n := p.sc, 0; n < 64; n++ { // struct __attribute__((packed)) foo {
		switch t := sc.next(); {
		case t.is("{"):
			return true
		case t.kind != tIdent && !t.is("(") && !t.is(")") && t.kind != tInt && !t.is(","):
			return t.is(";") && n > 0
		}
	}
	return false
}

// cdef takes one C definition as text.
func (p *parser) cdef() *CDef {
	start := p.tok.start
	if p.tok.is("#") {
		text := p.line()
		return &CDef{p.from(start), text}
	}
	typedef := p.tok.isWord("typedef")
	depth := 0
	for p.tok.kind != tEOF {
		t := p.next()
		if t.is("{") {
			depth++
		}
		if t.is("}") {
			depth--
		}
		if depth <= 0 && (t.is(";") || t.is("}") && !typedef) {
			break
		}
	}
	if depth > 0 {
		p.errorf(p.here(), "expected '}'")
	}
	p.attributes()
	text := strings.TrimRight(p.src.Text[start:p.last.end], "; \t\r\n") + ";"
	p.got(";")
	return &CDef{p.from(start), text}
}

// attributes skips __attribute__((…)) after a struct's body.
func (p *parser) attributes() {
	for p.tok.isWord("__attribute__") {
		p.next()
		depth := 0
		for p.tok.is("(") || depth > 0 && p.tok.kind != tEOF {
			switch t := p.next(); {
			case t.is("("):
				depth++
			case t.is(")"):
				depth--
			}
		}
	}
}

// config parses config = { name=value; … }.
func (p *parser) config() *Config {
	c := &Config{}
	start := p.next().start
	if !p.want("=") || !p.want("{") {
		return c
	}
	for !p.tok.is("}") && p.tok.kind != tEOF {
		it := p.configItem()
		if it == nil {
			return c
		}
		c.Items = append(c.Items, it)
		if !p.got(";") && !p.tok.is("}") {
			p.errorf(p.here(), "expected ';'")
			return c
		}
	}
	p.want("}")
	p.got(";")
	c.Span = p.from(start)
	return c
}

// configItem parses one assignment; nil after an error.
func (p *parser) configItem() *ConfigItem {
	start := p.tok.start
	name, ok := p.ident("expected config key")
	if !ok || !p.want("=") {
		return nil
	}
	var v Expr
	switch p.tok.kind {
	case tStr, tInt, tIdent:
		v = p.primary()
	default:
		p.errorf(p.here(), "expected string, int, boolean, or ident")
		return nil
	}
	return &ConfigItem{p.from(start), name, v}
}

// importDecl parses import "path"; nil after an error.
func (p *parser) importDecl() *Import {
	start := p.next().start
	if p.tok.kind != tStr {
		p.errorf(p.here(), "expected string after 'import'")
		return nil
	}
	im := &Import{Path: p.next().text}
	im.Span = p.from(start)
	p.want(";")
	return im
}

// macro parses macro name(params) block; the parentheses may be missing. nil after an error.
func (p *parser) macro() *Macro {
	start := p.next().start
	name, ok := p.ident("expected macro name")
	if !ok {
		return nil
	}
	m := &Macro{Span: p.from(start), Name: name}
	if p.got("(") {
		for !p.tok.is(")") && p.tok.kind != tEOF && !p.quiet {
			m.Params = append(m.Params, p.macroParam())
			if !p.got(",") {
				break
			}
		}
		p.want(")")
	} else if !p.tok.is("{") {
		p.errorf(p.here(), "expected '('")
	}
	m.Body = p.blockExpr(true)
	return m
}

// macroParam parses $x, @x or x.
func (p *parser) macroParam() Expr {
	t := p.tok
	at := p.here()
	switch {
	case t.kind == tVar:
		p.next()
		return &Var{at, t.text}
	case t.kind == tMap:
		p.next()
		return &MapRef{at, t.text, nil}
	case t.kind == tIdent && coreBuiltin(t.text):
		p.report(at, "builtin '"+t.text+"' can't be used as a macro argument")
		fallthrough
	case t.kind == tIdent:
		p.next()
		return &Ident{at, t.text}
	}
	p.errorf(at, "expected macro argument ($var, @map, or identifier)")
	return &Bad{at}
}

// mapDecl parses let @name = kind(n); nil after an error.
func (p *parser) mapDecl() *MapDecl {
	start := p.tok.start
	if p.peek().kind != tMap {
		p.errorf(p.here(), "root-level let statements need to be map declarations, e.g. let @a = hash(2);")
		return nil
	}
	p.next()
	d := &MapDecl{Name: p.next().text}
	var ok bool
	if !p.want("=") {
		return nil
	}
	if d.Kind, ok = p.ident("expected map type name"); !ok || !p.want("(") {
		return nil
	}
	for p.tok.kind == tInt {
		d.Args = append(d.Args, p.primary())
		if !p.got(",") {
			break
		}
	}
	if len(d.Args) == 0 {
		p.errorf(p.here(), "expected positive integer for map declaration max entries")
	}
	p.want(")")
	p.got(";")
	d.Span = p.from(start)
	return d
}

// probe parses attach points, an optional predicate and a body.
func (p *parser) probe() *Probe {
	pr := &Probe{}
	start := p.tok.start
	for {
		ap := p.attachPoint()
		if ap == nil {
			break
		}
		pr.Points = append(pr.Points, ap)
		if !p.got(",") || p.tok.is("{") || p.tok.is("/") {
			break
		}
	}
	if !p.quiet && p.got("/") {
		p.inPred = true
		pr.Pred = p.expr()
		p.inPred = false
		if !p.got("/") {
			p.errorf(p.here(), "expected '/' to close predicate")
		}
	}
	if p.quiet {
		pr.Body = &BlockExpr{}
	} else {
		pr.Body = p.blockExpr(false)
	}
	pr.Span = p.from(start)
	return pr
}

// attachPoint takes the text of one attach point: it ends at white space, '{', ',' and, before any colon, at '/'.
// Quotes protect all of these. nil after an error.
func (p *parser) attachPoint() *AttachPoint {
	text, start := p.src.Text, p.tok.start
	end, colon := start, false
scan:
	for end < len(text) {
		switch c := text[end]; c {
		case '{', ',', ' ', '\t', '\r', '\n':
			break scan
		case '/':
			if !colon && end > start && !strings.HasPrefix(text[end:], "//") && !strings.HasPrefix(text[end:], "/*") {
				break scan
			}
		case ':':
			colon = true
		case '"':
			end = quoted(text, end)
			continue
		}
		end++
	}
	if end == start || p.tok.is("}") {
		p.errorf(p.here(), "expected attach point")
		return nil
	}
	p.last = token{start: start, end: end}
	p.jump(end)
	ap := &AttachPoint{Span: p.from(start), Raw: text[start:end]}
	if name, rest, ok := strings.Cut(ap.Raw, "="); ok && name != "" && (&scanner{text: name}).word(0) == len(name) {
		ap.Name, ap.Raw = name, rest
	}
	return ap
}

// quoted gives the offset after the string that begins at off, the end of the text if it does not end.
func quoted(text string, off int) int {
	for off++; off < len(text); off++ {
		switch text[off] {
		case '\\':
			off++
		case '"':
			return off + 1
		}
	}
	return len(text)
}
