// Package cdecl reads C declarations: struct, union, enum and typedef, as a script or a person types them. It lays
// types out as the System V ABI for x86-64 and the AAPCS64 do (they agree on what C programs declare here): natural
// alignment, bitfields packed into units of their declared type. It is no preprocessor and knows no function bodies.
//
// Authority: ISO C11 6.7, System V ABI AMD64 §3.1.2.
package cdecl

import (
	"fmt"
	"strconv"

	"github.com/fathom-trace/fathom/ctype"
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
	bodies   map[*ctype.Struct][]ctype.Member
}

type enumValue struct {
	e *ctype.Enum
	v int64
}

var _ ctype.Lookup = (*Scope)(nil)

// NewScope returns an empty scope over base, which may not be nil.
func NewScope(base ctype.Lookup) *Scope {
	return &Scope{base: base, structs: map[string]*ctype.Struct{}, unions: map[string]*ctype.Struct{}, enums: map[string]*ctype.Enum{},
		typedefs: map[string]*ctype.Typedef{}, values: map[string]enumValue{}, bodies: map[*ctype.Struct][]ctype.Member{}}
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
func (s *Scope) Parse(text string) (err error) {
	p := &parser{scope: s, toks: lex(text), end: len(text)}
	defer func() {
		if e := recover(); e != nil {
			se, ok := e.(*SyntaxError)
			if !ok {
				panic(e)
			}
			err = se
		}
	}()
	for p.peek() != "" {
		p.declaration()
	}
	return nil
}

// parser reads one text. Errors leave it as panics with a *SyntaxError, which Parse catches.
type parser struct {
	scope *Scope
	toks  []token
	pos   int
	end   int
	depth int
}

func (p *parser) peek() string {
	if p.pos < len(p.toks) {
		return p.toks[p.pos].text
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
		off = p.toks[p.pos].off
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

// declaration = ["typedef"] specifiers [declarator {"," declarator}] ";"
func (p *parser) declaration() {
	if p.accept(";") {
		return
	}
	isTypedef := p.accept("typedef")
	base := p.specifiers()
	for p.peek() != ";" && p.peek() != "" {
		name, t := p.declarator(base)
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

// words of base types and what says nothing about layout.
var baseWords = map[string]bool{"char": true, "short": true, "int": true, "long": true, "signed": true, "unsigned": true,
	"float": true, "double": true, "void": true, "_Bool": true, "bool": true, "__signed__": true}

var noise = map[string]bool{"const": true, "volatile": true, "restrict": true, "__restrict": true, "static": true, "extern": true,
	"inline": true, "register": true, "__user": true, "__rcu": true, "__percpu": true, "__kernel": true, "__iomem": true}

// specifiers reads a type without its declarator.
func (p *parser) specifiers() ctype.Type {
	if p.depth++; p.depth > maxDepth {
		p.fail("declarations are nested too deeply")
	}
	defer func() { p.depth-- }()
	words := map[string]int{}
	var t ctype.Type
	for {
		w := p.peek()
		switch {
		case noise[w]:
			p.next()
		case w == "__attribute__":
			p.attribute()
		case baseWords[w] && t == nil:
			words[p.next()]++
		case (w == "struct" || w == "union") && t == nil && len(words) == 0:
			p.next()
			t = p.aggregate(w == "union")
		case w == "enum" && t == nil && len(words) == 0:
			p.next()
			t = p.enum()
		case t == nil && len(words) == 0 && w != "" && isWord(w[0]) && (w[0] < '0' || w[0] > '9'):
			t = p.named(w)
		default:
			if t != nil {
				return t
			}
			if len(words) == 0 {
				p.fail("expected a type")
			}
			return baseType(words)
		}
	}
}

// named finds a typedef or one of the types every C program knows.
func (p *parser) named(w string) ctype.Type {
	if t, ok := p.scope.typedefs[w]; ok {
		p.next()
		return t
	}
	if t, ok := wellKnown[w]; ok {
		p.next()
		return t
	}
	if t, err := p.scope.base.ByName(ctype.KindTypedef, w); err == nil {
		p.next()
		return t
	}
	p.fail("unknown type name '%s'", w)
	return nil
}

// wellKnown are the names of stdint.h and the kernel's short ones, for where no type information has them.
var wellKnown = map[string]ctype.Type{
	"int8_t": intType("int8_t", 1, true), "int16_t": intType("int16_t", 2, true), "int32_t": intType("int32_t", 4, true),
	"int64_t": intType("int64_t", 8, true), "uint8_t": intType("uint8_t", 1, false), "uint16_t": intType("uint16_t", 2, false),
	"uint32_t": intType("uint32_t", 4, false), "uint64_t": intType("uint64_t", 8, false), "size_t": intType("size_t", 8, false),
	"ssize_t": intType("ssize_t", 8, true), "intptr_t": intType("intptr_t", 8, true), "uintptr_t": intType("uintptr_t", 8, false),
	"u8": intType("u8", 1, false), "u16": intType("u16", 2, false), "u32": intType("u32", 4, false), "u64": intType("u64", 8, false),
	"s8": intType("s8", 1, true), "s16": intType("s16", 2, true), "s32": intType("s32", 4, true), "s64": intType("s64", 8, true),
	"__u8": intType("__u8", 1, false), "__u16": intType("__u16", 2, false), "__u32": intType("__u32", 4, false),
	"__u64": intType("__u64", 8, false), "__s8": intType("__s8", 1, true), "__s16": intType("__s16", 2, true),
	"__s32": intType("__s32", 4, true), "__s64": intType("__s64", 8, true), "pid_t": intType("pid_t", 4, true),
	"uid_t": intType("uid_t", 4, false), "gid_t": intType("gid_t", 4, false),
}

func intType(name string, size int, signed bool) ctype.Type {
	return &ctype.Int{Name: name, Size: size, Signed: signed}
}

func baseType(w map[string]int) ctype.Type {
	signed := w["unsigned"] == 0
	prefix := map[bool]string{true: "", false: "unsigned "}[signed]
	switch {
	case w["void"] > 0:
		return ctype.Void{}
	case w["bool"] > 0 || w["_Bool"] > 0:
		return &ctype.Int{Name: "_Bool", Size: 1, Bool: true}
	case w["float"] > 0:
		return &ctype.Float{Name: "float", Size: 4}
	case w["double"] > 0:
		return &ctype.Float{Name: "double", Size: 8}
	case w["char"] > 0:
		return &ctype.Int{Name: prefix + "char", Size: 1, Signed: signed, Char: true}
	case w["short"] > 0:
		return &ctype.Int{Name: prefix + "short", Size: 2, Signed: signed}
	case w["long"] > 0:
		return &ctype.Int{Name: prefix + "long", Size: 8, Signed: signed}
	}
	return &ctype.Int{Name: prefix + "int", Size: 4, Signed: signed}
}

// attribute = "__attribute__" "((" … "))"; packed is the only one that changes layout, and tells it.
func (p *parser) attribute() (packed bool) {
	p.next()
	depth := 0
	for {
		switch w := p.next(); w {
		case "(":
			depth++
		case ")":
			if depth--; depth <= 0 {
				return packed
			}
		case "packed", "__packed__":
			packed = true
		case "":
			p.fail("unfinished __attribute__")
		}
	}
}

// aggregate = [name] ["{" members "}"], after struct or union.
func (p *parser) aggregate(union bool) ctype.Type {
	packed := false
	for p.peek() == "__attribute__" {
		packed = p.attribute() || packed
	}
	name := ""
	if w := p.peek(); w != "" && isWord(w[0]) {
		name = p.next()
	}
	table := p.scope.structs
	if union {
		table = p.scope.unions
	}
	if p.peek() != "{" {
		if name == "" {
			p.fail("expected a name or '{'")
		}
		if t, ok := table[name]; ok {
			return t
		}
		kind := ctype.KindStruct
		if union {
			kind = ctype.KindUnion
		}
		if t, err := p.scope.base.ByName(kind, name); err == nil {
			return t
		}
		t := &ctype.Struct{Name: name, Union: union, Fwd: true}
		table[name] = t
		return t
	}
	p.next()
	t := table[name]
	if t == nil || !t.Fwd || name == "" {
		t = &ctype.Struct{Name: name, Union: union}
	}
	if name != "" {
		table[name] = t // before its members: they may point to it
	}
	l := &layout{union: union}
	for !p.accept("}") {
		if p.peek() == "" {
			p.fail("expected '}'")
		}
		p.members(l)
	}
	for p.peek() == "__attribute__" {
		packed = p.attribute() || packed
	}
	ms, size := l.finish(packed)
	*t = *ctype.NewStruct(name, union, size, func() []ctype.Member { return ms })
	return t
}

// members = specifiers [declarator [":" width] {"," …}] ";"
func (p *parser) members(l *layout) {
	base := p.specifiers()
	if p.accept(";") { // an anonymous struct or union
		l.add("", base, -1)
		return
	}
	for {
		name, t := "", base
		if p.peek() != ":" {
			name, t = p.declarator(base)
		}
		width := -1
		if p.accept(":") {
			width = int(p.constant())
		}
		for p.peek() == "__attribute__" {
			p.attribute()
		}
		l.add(name, t, width)
		if !p.accept(",") {
			break
		}
	}
	if p.peek() != "}" { // compilers take a last member without semicolon, and people write it
		p.expect(";")
	}
}

// enum = [name] ["{" name ["=" constant] {"," …} "}"], after enum.
func (p *parser) enum() ctype.Type {
	name := ""
	if w := p.peek(); w != "" && isWord(w[0]) {
		name = p.next()
	}
	if !p.accept("{") {
		if t, err := p.scope.ByName(ctype.KindEnum, name); err == nil {
			return t
		}
		return &ctype.Enum{Name: name, Size: 4}
	}
	e := &ctype.Enum{Name: name, Size: 4}
	at := int64(0)
	for !p.accept("}") {
		n := p.next()
		if n == "" || !isWord(n[0]) {
			p.fail("expected an enumerator")
		}
		if p.accept("=") {
			at = p.constant()
		}
		e.Values = append(e.Values, ctype.EnumValue{Name: n, Value: at})
		p.scope.values[n] = enumValue{e, at}
		e.Signed = e.Signed || at < 0
		if at > 1<<32-1 || at < -1<<31 {
			e.Size = 8
		}
		at++
		if !p.accept(",") {
			p.expect("}")
			break
		}
	}
	if name != "" {
		p.scope.enums[name] = e
	}
	return e
}

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
		if p.peek() != "]" {
			n = p.constant()
		}
		p.expect("]")
		if n < 0 || n > 1<<28 {
			p.fail("array of %d elements", n)
		}
		return &ctype.Array{Elem: p.suffixes(t), Len: int(n)}
	case p.accept("("):
		for depth := 1; depth > 0; {
			switch p.next() {
			case "(":
				depth++
			case ")":
				depth--
			case "":
				p.fail("expected ')'")
			}
		}
		return &ctype.Func{Result: t}
	}
	return t
}

// constant = term {("+" | "-" | "*" | "<<" | ">>" | "|") term}, from left to right
func (p *parser) constant() int64 {
	n := p.term()
	for {
		switch p.peek() {
		case "+":
			p.next()
			n += p.term()
		case "-":
			p.next()
			n -= p.term()
		case "*":
			p.next()
			n *= p.term()
		case "|":
			p.next()
			n |= p.term()
		case "<<":
			p.next()
			n <<= uint64(p.term()) & 63
		case ">>":
			p.next()
			n >>= uint64(p.term()) & 63
		default:
			return n
		}
	}
}

func (p *parser) term() int64 {
	if p.depth++; p.depth > maxDepth {
		p.fail("expression is nested too deeply")
	}
	defer func() { p.depth-- }()
	switch w := p.next(); {
	case w == "-":
		return -p.term()
	case w == "(":
		n := p.constant()
		p.expect(")")
		return n
	case w == "sizeof":
		p.expect("(")
		_, t := p.declarator(p.specifiers())
		p.expect(")")
		return int64(ctype.Size(t))
	case w != "" && w[0] >= '0' && w[0] <= '9':
		for len(w) > 1 && (w[len(w)-1]|0x20 == 'u' || w[len(w)-1]|0x20 == 'l') {
			w = w[:len(w)-1]
		}
		n, err := strconv.ParseUint(w, 0, 64)
		if err != nil {
			p.fail("bad number '%s'", w)
		}
		return int64(n)
	case w != "":
		if _, n, ok := p.scope.EnumValue(w); ok {
			return n
		}
		p.pos--
		p.fail("unknown constant '%s'", w)
	}
	p.fail("expected a constant")
	return 0
}
