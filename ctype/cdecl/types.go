package cdecl

import "github.com/fathom-trace/fathom/ctype"

// words of base types and what says nothing about layout.
var baseWords = map[string]bool{"char": true, "short": true, "int": true, "long": true, "signed": true, "unsigned": true,
	"float": true, "double": true, "void": true, "_Bool": true, "bool": true, "__signed__": true, "__signed": true, "__int128": true,
	"_Float32": true, "_Float64": true, "_Float128": true, "_Float32x": true, "_Float64x": true}

var noise = map[string]bool{"__extension__": true, "__inline": true, "__inline__": true, "__const": true, "__volatile__": true,
	"__restrict__": true, "_Noreturn": true, "__thread": true, "_Thread_local": true, "_Complex": true, "auto": true, "const": true, "volatile": true, "restrict": true, "__restrict": true, "static": true, "extern": true,
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
		case w == "_Alignas":
			p.next()
			p.expect("(")
			p.balanced("(", ")")
		case (w == "__typeof__" || w == "typeof") && t == nil && len(words) == 0:
			p.next()
			p.expect("(")
			_, t = p.declarator(p.specifiers())
			p.expect(")")
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
	t, ok := p.typedef(w)
	if !ok {
		p.fail("unknown type name '%s'", w)
	}
	p.next()
	return t
}

func (p *parser) typedef(w string) (ctype.Type, bool) {
	if t, ok := p.scope.typedefs[w]; ok {
		return t, true
	}
	if t, ok := wellKnown[w]; ok {
		return t, true
	}
	t, err := p.scope.base.ByName(ctype.KindTypedef, w)
	return t, err == nil
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
	"__builtin_va_list": &ctype.Array{Elem: intType("unsigned long", 8, false), Len: 3},
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
	case w["__int128"] > 0:
		return &ctype.Int{Name: prefix + "__int128", Size: 16, Signed: signed}
	case w["float"] > 0, w["_Float32"] > 0:
		return &ctype.Float{Name: "float", Size: 4}
	case w["double"] > 0 && w["long"] > 0, w["_Float128"] > 0, w["_Float64x"] > 0:
		return &ctype.Float{Name: "long double", Size: 16}
	case w["double"] > 0, w["_Float64"] > 0, w["_Float32x"] > 0:
		return &ctype.Float{Name: "double", Size: 8}
	case w["char"] > 0:
		return &ctype.Int{Name: prefix + "char", Size: 1, Signed: signed, Char: signed} // unsigned ones are bytes, not text
	case w["short"] > 0:
		return &ctype.Int{Name: prefix + "short", Size: 2, Signed: signed}
	case w["long"] > 0:
		return &ctype.Int{Name: prefix + "long", Size: 8, Signed: signed}
	}
	return &ctype.Int{Name: prefix + "int", Size: 4, Signed: signed}
}

// attributes are those of one __attribute__ that change layout.
type attributes struct {
	packed bool
	align  int // aligned(n), in bytes; 0 for none
}

func (a *attributes) join(b attributes) {
	a.packed = a.packed || b.packed
	a.align = max(a.align, b.align)
}

// attribute = "__attribute__" "((" … "))"
func (p *parser) attribute() (a attributes) {
	p.next()
	depth := 0
	for {
		switch w := p.next(); w {
		case "(":
			depth++
		case ")":
			if depth--; depth <= 0 {
				return a
			}
		case "packed", "__packed__":
			a.packed = true
		case "aligned", "__aligned__":
			a.align = 16 // the greatest of the architecture, __BIGGEST_ALIGNMENT__
			if p.accept("(") {
				a.align = int(min(max(p.constant(), 0), 1<<20))
				p.expect(")")
			}
		case "":
			p.fail("unfinished __attribute__")
		}
	}
}

// aggregate = [name] ["{" members "}"], after struct or union.
func (p *parser) aggregate(union bool) ctype.Type {
	var attr attributes
	for p.peek() == "__attribute__" {
		attr.join(p.attribute())
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
	l := &layout{union: union, aligns: p.scope.aligns}
	for !p.accept("}") {
		if p.peek() == "" {
			p.fail("expected '}'")
		}
		p.members(l)
	}
	for p.peek() == "__attribute__" {
		attr.join(p.attribute())
	}
	ms, size, align := l.finish(attr)
	names := map[string]bool{}
	for _, m := range ms {
		if m.Name != "" && names[m.Name] {
			p.fail("duplicate member '%s'", m.Name)
		}
		names[m.Name] = true
	}
	if attr != (attributes{}) || l.special {
		p.scope.aligns[t] = align
	}
	*t = *ctype.NewStruct(name, union, size, func() []ctype.Member { return ms })
	return t
}

// members = specifiers [declarator [":" width] {"," …}] ";"
func (p *parser) members(l *layout) {
	base := p.specifiers()
	if p.accept(";") { // an anonymous struct or union
		l.add("", base, -1, 0)
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
		var attr attributes
		for p.peek() == "__attribute__" {
			attr.join(p.attribute())
		}
		l.add(name, t, width, attr.align)
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
