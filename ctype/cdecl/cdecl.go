// Package cdecl reads C declarations: struct, union, enum and typedef, as a script or a person types them. It lays
// types out as the System V ABI for x86-64 and the AAPCS64 do (they agree on what C programs declare here): natural
// alignment, bitfields packed into units of their declared type. What headers have beside types, such as functions, is
// read over; directives and macros are package cpp's.
//
// Authority: ISO C11 6.7, System V ABI AMD64 §3.1.2.
package cdecl

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ctype/cpp"
)

// SyntaxError is what is wrong with a declaration; Off counts bytes from the start of the text.
type SyntaxError struct {
	Off int
	Msg string
}

func (e *SyntaxError) Error() string { return e.Msg }

// Scope holds declared types and finds others in Base. It implements ctype.Lookup.
type Scope struct {
	base     ctype.Lookup
	structs  map[string]*ctype.Struct
	unions   map[string]*ctype.Struct
	enums    map[string]*ctype.Enum
	typedefs map[string]*ctype.Typedef
	values   map[string]enumValue
	aligns   map[*ctype.Struct]int // of structs that are not aligned as their members are
}

type enumValue struct {
	e *ctype.Enum
	v int64
}

var _ ctype.Lookup = (*Scope)(nil)

// NewScope returns an empty scope over base, which may not be nil.
func NewScope(base ctype.Lookup) *Scope {
	return &Scope{base: base, structs: map[string]*ctype.Struct{}, unions: map[string]*ctype.Struct{}, enums: map[string]*ctype.Enum{},
		typedefs: map[string]*ctype.Typedef{}, values: map[string]enumValue{}, aligns: map[*ctype.Struct]int{}}
}

// ByName implements ctype.Lookup: the scope's own declarations hide the base's.
func (s *Scope) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	if kind == ctype.KindStruct || kind == ctype.Any {
		if t, ok := s.structs[name]; ok {
			return t, nil
		}
	}
	if kind == ctype.KindUnion || kind == ctype.Any {
		if t, ok := s.unions[name]; ok {
			return t, nil
		}
	}
	if kind == ctype.KindEnum || kind == ctype.Any {
		if t, ok := s.enums[name]; ok {
			return t, nil
		}
	}
	if kind == ctype.KindTypedef || kind == ctype.Any {
		if t, ok := s.typedefs[name]; ok {
			return t, nil
		}
	}
	return s.base.ByName(kind, name)
}

// EnumValue implements ctype.Lookup.
func (s *Scope) EnumValue(name string) (*ctype.Enum, int64, bool) {
	if v, ok := s.values[name]; ok {
		return v.e, v.v, true
	}
	return s.base.EnumValue(name)
}

// Func implements ctype.Lookup: scripts declare none.
func (s *Scope) Func(module, name string) (*ctype.Func, error) { return s.base.Func(module, name) }

// Parse reads declarations into the scope. Errors are *SyntaxError; what stands before them is kept.
func (s *Scope) Parse(text string) error {
	return s.ParseTokens(cpp.Lex("", text), len(text), func(cpp.Token) bool { return false })
}

// ParseTokens reads declarations that were preprocessed; end is the offset of errors at their end. A declaration that
// begins with a foreign token, one of a header, is left out if it cannot be read: headers hold what is no declaration, and
// compilers' own words.
func (s *Scope) ParseTokens(ts []cpp.Token, end int, foreign func(cpp.Token) bool) error {
	p := &parser{scope: s, toks: ts, end: end}
	for p.peek() != "" {
		start := p.pos
		err := p.try(p.declaration)
		switch {
		case err == nil:
		case !foreign(ts[start]):
			return err
		default:
			p.skip(start)
		}
	}
	return nil
}

// try runs a production and gives the *SyntaxError it ends with.
func (p *parser) try(f func()) (err error) {
	defer func() {
		if e := recover(); e != nil {
			se, ok := e.(*SyntaxError)
			if !ok {
				panic(e)
			}
			err = se
		}
	}()
	p.depth = 0
	f()
	return nil
}

// skip goes behind the declaration that begins at start.
func (p *parser) skip(start int) {
	p.pos = start
	for p.peek() != "" {
		switch p.next() {
		case "{":
			p.balanced("{", "}")
			if p.peek() != ";" && p.peek() != "__attribute__" && (p.peek() == "" || !isWord(p.peek()[0]) && p.peek() != "*") {
				return
			}
		case "(":
			p.balanced("(", ")")
		case ";":
			return
		}
	}
}

// balanced goes behind the bracket that closes the one just read.
func (p *parser) balanced(open, close string) {
	for depth := 1; depth > 0; {
		switch p.next() {
		case open:
			depth++
		case close:
			depth--
		case "":
			p.fail("expected '%s'", close)
		}
	}
}

// parser reads one text. Errors leave it as panics with a *SyntaxError, which Parse catches.
type parser struct {
	scope *Scope
	toks  []cpp.Token
	pos   int
	end   int
	depth int
}

func (p *parser) peek() string {
	if p.pos < len(p.toks) {
		return p.toks[p.pos].Text
	}
	return ""
}

func (p *parser) next() string {
	t := p.peek()
	p.pos++
	return t
}

func (p *parser) fail(format string, args ...any) {
	off := p.end
	if p.pos < len(p.toks) {
		off = p.toks[p.pos].Off
	}
	panic(&SyntaxError{Off: off, Msg: fmt.Sprintf(format, args...)})
}

func (p *parser) accept(s string) bool {
	if p.peek() == s {
		p.pos++
		return true
	}
	return false
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("expected '%s'", s)
	}
}

// maxDepth bounds nesting.
const maxDepth = 64

// declaration = ["typedef"] specifiers [declarator ["=" initializer] {"," …}] (";" | body)
func (p *parser) declaration() {
	if p.accept(";") {
		return
	}
	for p.accept("__extension__") {
	}
	if w := p.peek(); w == "_Static_assert" || w == "__asm__" || w == "asm" {
		p.next()
		p.expect("(")
		p.balanced("(", ")")
		p.accept(";")
		return
	}
	isTypedef := p.accept("typedef")
	base := p.specifiers()
	for p.peek() != ";" && p.peek() != "" {
		name, t := p.declarator(base)
		p.trailers()
		if _, function := t.(*ctype.Func); function && p.accept("{") {
			p.balanced("{", "}")
			return
		}
		if p.accept("=") {
			p.initializer()
		}
		if isTypedef && name != "" {
			p.scope.typedefs[name] = &ctype.Typedef{Name: name, Type: t}
		}
		if !p.accept(",") {
			break
		}
	}
	if !p.accept(";") && p.peek() != "" {
		p.fail("expected ';' after declaration")
	}
}

// trailers skips what may stand behind a declarator and says nothing about layout.
func (p *parser) trailers() {
	for {
		switch p.peek() {
		case "__attribute__":
			p.attribute()
		case "__asm__", "asm", "__asm":
			p.next()
			p.expect("(")
			p.balanced("(", ")")
		default:
			return
		}
	}
}

// initializer skips up to the comma or semicolon behind a value.
func (p *parser) initializer() {
	for {
		switch p.peek() {
		case ",", ";", "":
			return
		case "(":
			p.next()
			p.balanced("(", ")")
		case "{":
			p.next()
			p.balanced("{", "}")
		default:
			p.next()
		}
	}
}

func isWord(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}
