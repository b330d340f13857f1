package syntax

import (
	"fmt"
	"strings"
)

// Limits that keep any text cheap: nesting the parser recurses into, operators in one chain, errors worth reporting.
const (
	maxDepth  = 200
	maxChain  = 2000
	maxErrors = 50
)

// Parse reads a program. It always gives a File, with *Bad where nothing else can stand, and everything it has to say.
func Parse(src *Source) (*File, []Diag) {
	p := newParser(src)
	f := p.file()
	return f, p.diags
}

// ParseExpr reads one expression and nothing after it: the body of a #define.
func ParseExpr(src *Source) (Expr, []Diag) {
	p := newParser(src)
	x := p.expr()
	if p.tok.kind != tEOF {
		p.errorf(p.here(), "unexpected input")
	}
	return x, p.diags
}

// parser is a recursive descent parser; its methods are named after the productions of grammar.txt.
type parser struct {
	src    *Source
	lines  lineTable
	sc     scanner
	tok    token // the next token
	last   token // the token consumed last
	depth  int
	inPred bool // inside /…/ and no bracket: a slash before { ends the predicate

	imports []*Import // those found inside blocks

	diags   []Diag
	quiet   bool // an error was reported and the parser has not yet found its feet
	lastErr int  // offset+1 of the last error inside a token
}

func newParser(src *Source) *parser {
	p := &parser{src: src, lines: newLineTable(src.Text), sc: scanner{text: src.Text}}
	p.tok = p.sc.next()
	return p
}

// Tokens.

// next consumes the next token and reports what is wrong inside it.
func (p *parser) next() token {
	t := p.tok
	if t.err != nil && t.start >= p.lastErr {
		p.lastErr = t.start + 1
		p.report(p.rng(t.err.start, t.err.end), t.err.msg)
		p.quiet = p.quiet || t.err.msg == unterminated
	}
	if t.kind == tEOF {
		return t
	}
	p.last = t
	p.tok = p.sc.next()
	return t
}

// jump moves the parser to byte offset off.
func (p *parser) jump(off int) {
	p.sc.off = off
	p.tok = p.sc.next()
}

// peek gives the token after the next one.
func (p *parser) peek() token {
	sc := p.sc
	return sc.next()
}

// got consumes the operator op if it is next.
func (p *parser) got(op string) bool {
	if p.tok.is(op) {
		p.next()
		return true
	}
	return false
}

// want consumes op or reports that it is missing.
func (p *parser) want(op string) bool {
	if p.got(op) {
		return true
	}
	p.errorf(p.here(), "expected '%s'", op)
	return false
}

// ident consumes a name or reports msg.
func (p *parser) ident(msg string) (string, bool) {
	if p.tok.kind == tIdent {
		return p.next().text, true
	}
	p.errorf(p.here(), "%s", msg)
	return "", false
}

// Places.

// rng is the span of the bytes start..end.
func (p *parser) rng(start, end int) Span {
	return Span{Src: p.src, Start: p.lines.pos(start), End: p.lines.pos(end)}
}

// here is the span of the next token.
func (p *parser) here() Span { return p.rng(p.tok.start, p.tok.end) }

// from is the span from offset start to the end of what was consumed last.
func (p *parser) from(start int) Span { return p.rng(start, max(start, p.last.end)) }

// Errors.

// report says msg at sp, whatever was said before.
func (p *parser) report(sp Span, msg string) {
	if !p.quiet && len(p.diags) < maxErrors {
		p.diags = append(p.diags, Diag{Span: sp, Msg: "syntax: " + msg})
	}
}

// errorf reports a syntax error and keeps quiet until the parser is at a place it knows.
func (p *parser) errorf(sp Span, format string, args ...any) {
	p.report(sp, fmt.Sprintf(format, args...))
	p.quiet = true
}

// deeper guards recursion: it reports and gives false when the program nests too deep. The caller defers p.up().
func (p *parser) deeper() bool {
	p.depth++
	if p.depth > maxDepth {
		p.errorf(p.here(), "nested too deep")
		return false
	}
	return true
}

func (p *parser) up() { p.depth-- }

// syncStmt skips to the end of a broken statement: past its ';' or up to the '}' of its block.
func (p *parser) syncStmt() {
	for depth := 0; p.tok.kind != tEOF; p.next() {
		switch {
		case p.tok.is("{"):
			depth++
		case p.tok.is("}") && depth == 0:
			p.quiet = false
			return
		case p.tok.is("}"):
			depth--
		case p.tok.is(";") && depth == 0:
			p.next()
			p.quiet = false
			return
		}
	}
}

// syncTop skips to the end of a broken clause: past the '}' that closes what was opened.
func (p *parser) syncTop() {
	depth := 0
	for p.tok.kind != tEOF {
		t := p.next()
		switch {
		case t.is("{"):
			depth++
		case t.is("}"):
			depth--
		}
		if t.is("}") && depth <= 0 {
			break
		}
	}
	p.quiet = false
}

// The file.

func (p *parser) file() *File {
	f := &File{Src: p.src}
	if strings.HasPrefix(p.src.Text[p.tok.start:], "#!") {
		f.Hashbang = p.line()
	}
	for p.atCDef() {
		f.CDefs = append(f.CDefs, p.cdef())
		p.settle()
	}
	for p.tok.isWord("config") || p.tok.isWord("import") {
		if p.tok.isWord("config") {
			p.configBlock(f, p.here())
		} else if im := p.importDecl(); im != nil {
			f.Imports = append(f.Imports, im)
		}
		p.settle()
	}
	for p.tok.kind != tEOF && len(p.diags) < maxErrors {
		start := p.tok.start
		p.mainItem(f)
		p.settle()
		if p.tok.start == start && p.tok.kind != tEOF {
			p.errorf(p.here(), "unexpected input")
			p.next()
			p.settle()
		}
	}
	f.Imports = append(f.Imports, p.imports...)
	return f
}

// settle resumes after an error in a clause.
func (p *parser) settle() {
	if p.quiet {
		p.syncTop()
	}
}

// line takes the rest of the line as text.
func (p *parser) line() string {
	start, end := p.tok.start, p.lineEnd(p.tok.start)
	p.last = token{end: end}
	p.jump(end)
	return strings.TrimRight(p.src.Text[start:end], "\\ \t\r\n")
}

// lineEnd gives the end of the line off is on; a backslash before the line break continues it.
func (p *parser) lineEnd(off int) int {
	text := p.src.Text
	for ; off < len(text); off++ {
		if text[off] == '\n' && (off == 0 || text[off-1] != '\\') {
			break
		}
	}
	return off
}

// mainItem is one clause after the preamble.
func (p *parser) mainItem(f *File) {
	at := p.here()
	switch {
	case p.atCDef():
		d := p.cdef()
		f.CDefs = append(f.CDefs, d)
		p.report(d.Span, "C definitions must appear before probes and functions")
	case p.tok.isWord("config") && p.peek().is("="):
		p.configBlock(nil, at)
	case p.tok.isWord("import"):
		p.next()
		p.report(at, "root imports must appear before probes and functions")
		if p.tok.kind == tStr {
			p.next()
		}
		p.got(";")
	case p.tok.isWord("macro"):
		if m := p.macro(); m != nil {
			f.Macros = append(f.Macros, m)
		}
	case p.tok.isWord("let"):
		if d := p.mapDecl(); d != nil {
			f.Maps = append(f.Maps, d)
		}
	case p.tok.isWord("fn") && p.peek().kind == tIdent:
		p.errorf(at, "functions are not supported; use a macro")
	default:
		f.Probes = append(f.Probes, p.probe())
	}
}

// configBlock parses config = { … } into f, or reports that it stands in the wrong place.
func (p *parser) configBlock(f *File, at Span) {
	c := p.config()
	switch {
	case f == nil:
		p.report(at, "config must appear before probes and functions")
	case f.Config != nil:
		p.report(at, "duplicate config block")
	default:
		f.Config = c
	}
}
