package ctf

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Bounds of what metadata may say.
const (
	maxMetadata = 64 << 20 // bytes
	maxNest     = 32       // types within types
	maxArray    = 1 << 20  // elements
	maxEvents   = 1 << 16
)

// ParseMetadata reads the content of the file metadata, as text or in packets. Errors are *[bin.FormatError].
func ParseMetadata(b []byte) (m *Metadata, err error) {
	if len(b) > maxMetadata {
		return nil, &bin.FormatError{What: "CTF metadata", Off: maxMetadata, Msg: "larger than 64 MiB"}
	}
	text, err := unpack(b)
	if err != nil {
		return nil, err
	}
	defer recoverParse(&err)
	if isJSON(text) {
		return parseJSON(text), nil
	}
	p := &parser{lex: lexer{text: text}, m: &Metadata{Version: "1.8", Env: map[string]string{}, Clock: Clock{Freq: 1e9}, streams: map[int64]*stream{}}}
	p.tok = p.lex.next()
	p.push()
	// The byte order holds for types that stand before it, too.
	p.m.big = byteOrderIsBig(text)
	for p.tok.kind != 0 {
		p.top()
	}
	for id, s := range p.m.streams {
		if s.events == nil {
			p.m.streams[id].events = map[int64]*event{}
		}
	}
	for _, e := range p.events {
		s := p.m.streams[e.stream]
		if s == nil {
			s = &stream{id: e.stream, events: map[int64]*event{}}
			p.m.streams[e.stream] = s
		}
		s.events[e.id] = e
	}
	return p.m, nil
}

// byteOrderIsBig finds byte_order in the block trace.
func byteOrderIsBig(text []byte) bool {
	_, rest, ok := bytes.Cut(text, []byte("byte_order"))
	if !ok {
		return false
	}
	rest = bytes.TrimLeft(rest, " \t=")
	return bytes.HasPrefix(rest, []byte("be")) || bytes.HasPrefix(rest, []byte("network"))
}

// unpack gives the text of metadata that is in packets (CTF 1.8, 7.2); other is given back as it is.
func unpack(b []byte) ([]byte, error) {
	const head = 37
	if len(b) < 4 {
		return b, nil
	}
	var order binary.ByteOrder = binary.LittleEndian
	if order.Uint32(b) != metadataMagic {
		if order = binary.BigEndian; order.Uint32(b) != metadataMagic {
			return b, nil
		}
	}
	var out []byte
	for off := 0; off < len(b); {
		c := bin.NewCursorAt(b[off:], order, int64(off))
		magic := c.U32()
		c.Skip(16 + 4)
		content, size := c.U32()/8, c.U32()/8
		schemes := c.Bytes(3)
		if err := c.Err("CTF metadata packet"); err != nil {
			return out, err
		}
		if magic != metadataMagic || content < head || content > size || int64(content) > int64(len(b)-off) || schemes[0]|schemes[1] != 0 {
			return out, &bin.FormatError{What: "CTF metadata packet", Off: int64(off), Msg: "sizes that make no sense, or compression"}
		}
		out = append(out, b[off+head:off+int(content)]...)
		off += int(size)
	}
	return out, nil
}

type parser struct {
	lex    lexer
	tok    token
	m      *Metadata
	scopes []map[string]*typ // named types: "struct x", "uint8_t"
	events []*event
	depth  int
}

func (p *parser) push() { p.scopes = append(p.scopes, map[string]*typ{}) }
func (p *parser) pop()  { p.scopes = p.scopes[:len(p.scopes)-1] }

func (p *parser) lookup(name string) *typ {
	for i := len(p.scopes) - 1; i >= 0; i-- {
		if t := p.scopes[i][name]; t != nil {
			return t
		}
	}
	return nil
}

func (p *parser) define(name string, t *typ) { p.scopes[len(p.scopes)-1][name] = t }

func (p *parser) next() token {
	t := p.tok
	p.tok = p.lex.next()
	return t
}

func (p *parser) accept(text string) bool {
	if p.tok.kind != 's' && p.tok.text == text {
		p.next()
		return true
	}
	return false
}

func (p *parser) expect(text string) {
	if !p.accept(text) {
		fail(p.tok.off, "%q where %q was expected", p.tok.text, text)
	}
}

func (p *parser) word() string {
	if p.tok.kind != 'i' && p.tok.kind != 's' {
		fail(p.tok.off, "%q where a name was expected", p.tok.text)
	}
	return p.next().text
}

// top := typealias | typedef | struct … ";" | block ";"
func (p *parser) top() {
	switch p.tok.text {
	case "typealias", "typedef":
		p.alias()
	case "struct", "enum", "variant":
		p.typeSpec()
		p.expect(";")
	case "trace", "env", "clock", "stream", "event", "callsite":
		p.block(p.next().text)
	case ";":
		p.next()
	default:
		fail(p.tok.off, "unexpected %q", p.tok.text)
	}
}

// alias := "typealias" type ":=" NAME… ";" | "typedef" type NAME ";"
func (p *parser) alias() {
	def := p.next().text == "typedef"
	t := p.typeSpec()
	if def {
		name, t := p.declarator(t)
		p.define(name, t)
		p.expect(";")
		return
	}
	p.expect(":=")
	var name []string
	for p.tok.kind == 'i' || p.tok.text == "*" {
		name = append(name, p.next().text)
	}
	p.expect(";")
	p.define(strings.Join(name, " "), t)
}

// attrs are the assignments of a block.
type attrs struct {
	vals  map[string]token
	types map[string]*typ
}

// body := "{" {alias | path "=" value ";" | path ":=" type ";"} "}"
func (p *parser) body() attrs {
	a := attrs{map[string]token{}, map[string]*typ{}}
	p.expect("{")
	p.push()
	defer p.pop()
	for !p.accept("}") {
		if p.tok.text == "typealias" || p.tok.text == "typedef" {
			p.alias()
			continue
		}
		if p.tok.text == "struct" || p.tok.text == "enum" || p.tok.text == "variant" {
			p.typeSpec()
			p.expect(";")
			continue
		}
		name := p.path()
		switch {
		case p.accept(":="):
			a.types[name] = p.typeSpec()
		case p.accept("="):
			a.vals[name] = p.value()
		default:
			fail(p.tok.off, "%q where = was expected", p.tok.text)
		}
		p.expect(";")
	}
	return a
}

func (p *parser) path() string {
	name := p.word()
	for p.accept(".") {
		name += "." + p.word()
	}
	return name
}

// value := NUMBER | "-" NUMBER | LITERAL | path
func (p *parser) value() token {
	t := p.tok
	switch {
	case p.accept("-"):
		n := p.next()
		n.num = -n.num
		n.text = "-" + n.text
		return n
	case t.kind == 'i':
		t.text = p.path()
		return t
	}
	return p.next()
}

func (p *parser) block(name string) {
	off := p.tok.off
	a := p.body()
	p.expect(";")
	num := func(key string) int64 { return a.vals[key].num }
	switch name {
	case "trace":
		p.m.header = a.types["packet.header"]
		u, err := hex.DecodeString(strings.ReplaceAll(a.vals["uuid"].text, "-", ""))
		if err == nil && len(u) == 16 {
			p.m.UUID, p.m.HasUUID = [16]byte(u), true
		}
		if v, ok := a.vals["major"]; ok && v.num != 1 {
			fail(v.off, "version %d of the format", v.num)
		}
	case "env":
		for k, v := range a.vals {
			p.m.Env[k] = v.text
		}
	case "clock":
		c := Clock{Name: a.vals["name"].text, Freq: 1e9, OffsetSeconds: num("offset_s"), Offset: num("offset")}
		if f := num("freq"); f > 0 {
			c.Freq = uint64(f)
		}
		p.m.Clock = c
	case "stream":
		p.m.streams[num("id")] = &stream{id: num("id"), packet: a.types["packet.context"], header: a.types["event.header"], context: a.types["event.context"]}
	case "event":
		if len(p.events) >= maxEvents {
			fail(off, "more than %d events", maxEvents)
		}
		p.events = append(p.events, &event{id: num("id"), name: a.vals["name"].text, stream: num("stream_id"), context: a.types["context"], fields: a.types["fields"]})
	}
}

// typeSpec := "integer" body | "floating_point" body | "string" [body] | "struct" … | "variant" … | "enum" … | NAME…
func (p *parser) typeSpec() *typ {
	if p.depth++; p.depth > maxNest {
		fail(p.tok.off, "types nested too deeply")
	}
	defer func() { p.depth-- }()
	start := p.tok
	if start.kind != 'i' {
		fail(start.off, "%q where a type was expected", start.text)
	}
	switch start.text {
	case "integer", "floating_point":
		p.next()
		return p.scalar(start.text, p.body().vals, start.off)
	case "string":
		p.next()
		if p.tok.text == "{" {
			p.body()
		}
		return &typ{kind: kindString, align: 8, text: true}
	case "struct":
		return p.structure()
	case "variant":
		return p.variant()
	case "enum":
		return p.enumeration()
	}
	name := p.next().text
	for p.tok.kind == 'i' && (p.lookup(name) == nil || p.lookup(name+" "+p.tok.text) != nil) { // unsigned long
		name += " " + p.next().text
	}
	t := p.lookup(name)
	if t == nil {
		fail(start.off, "the type %s, which is not defined", name)
	}
	return t
}

func (p *parser) scalar(what string, v map[string]token, off int) *typ {
	t := &typ{kind: kindInt, align: 1, big: p.m.big, size: int(v["size"].num)}
	if what == "floating_point" {
		t.kind = kindFloat
		t.size = int(v["exp_dig"].num + v["mant_dig"].num)
	}
	if a, ok := v["align"]; ok {
		t.align = int(a.num)
	} else if t.size%8 == 0 {
		t.align = 8
	}
	if t.size <= 0 || t.size > 64 || t.align <= 0 || t.align > 64 || t.align&(t.align-1) != 0 || t.kind == kindFloat && t.size != 32 && t.size != 64 {
		fail(off, "%s of %d bits, aligned to %d", what, t.size, t.align)
	}
	switch v["byte_order"].text {
	case "be", "network":
		t.big = true
	case "le":
		t.big = false
	}
	s := v["signed"]
	t.signed = s.text == "true" || s.num == 1
	enc := strings.ToLower(v["encoding"].text)
	t.text = enc == "utf8" || enc == "ascii" || enc == "utf-8"
	b := v["base"]
	t.hex = b.num == 16 || b.text == "x" || b.text == "hex" || b.text == "hexadecimal" || b.text == "X"
	t.clock = strings.HasPrefix(v["map"].text, "clock.")
	return t
}

// structure := "struct" [NAME] ["{" {declaration} "}"] ["align" "(" n ")"]
func (p *parser) structure() *typ {
	p.next()
	name := ""
	if p.tok.kind == 'i' && p.tok.text != "align" {
		name = p.next().text
	}
	if p.tok.text != "{" {
		t := p.lookup("struct " + name)
		if t == nil {
			fail(p.tok.off, "struct %s, which is not defined", name)
		}
		return t
	}
	t := &typ{kind: kindStruct, fields: p.members()}
	if p.accept("align") {
		p.expect("(")
		n := p.next()
		if n.num <= 0 || n.num > 64 || n.num&(n.num-1) != 0 {
			fail(n.off, "an alignment of %d bits", n.num)
		}
		t.align = int(n.num)
		p.expect(")")
	}
	compound(t, p.tok.off)
	if name != "" {
		p.define("struct "+name, t)
	}
	return t
}

// members := "{" {type declarator {"," declarator} ";" | alias} "}"
func (p *parser) members() (out []member) {
	p.expect("{")
	p.push()
	defer p.pop()
	for !p.accept("}") {
		if p.tok.text == "typealias" || p.tok.text == "typedef" {
			p.alias()
			continue
		}
		base := p.typeSpec()
		for {
			name, t := p.declarator(base)
			out = append(out, member{name, t})
			if !p.accept(",") {
				break
			}
		}
		p.expect(";")
	}
	return out
}

// declarator := NAME {"[" n | path "]"}
func (p *parser) declarator(t *typ) (string, *typ) {
	name := p.word()
	var dims []*typ
	for p.accept("[") {
		d := &typ{kind: kindArray}
		if p.tok.kind == 'n' {
			n := p.next()
			if n.num < 0 || n.num > maxArray {
				fail(n.off, "an array of %d elements", n.num)
			}
			d.n = int(n.num)
		} else {
			d.kind, d.ref = kindSequence, p.path()
		}
		dims = append(dims, d)
		p.expect("]")
		if len(dims) > 4 {
			fail(p.tok.off, "an array of more than four dimensions")
		}
	}
	for i := len(dims) - 1; i >= 0; i-- {
		dims[i].elem = t
		t = compound(dims[i], p.tok.off)
	}
	return name, t
}

// variant := "variant" [NAME] ["<" path ">"] ["{" … "}"]
func (p *parser) variant() *typ {
	p.next()
	name, tag := "", ""
	if p.tok.kind == 'i' {
		name = p.next().text
	}
	if p.accept("<") {
		tag = p.path()
		p.expect(">")
	}
	t := &typ{kind: kindVariant, ref: tag}
	if p.tok.text == "{" {
		t.fields = p.members()
		compound(t, p.tok.off)
		if name != "" {
			p.define("variant "+name, t)
		}
		return t
	}
	def := p.lookup("variant " + name)
	if def == nil {
		fail(p.tok.off, "variant %s, which is not defined", name)
	}
	t.fields = def.fields
	return compound(t, p.tok.off)
}

// enumeration := "enum" [NAME] [":" type] ["{" LABEL ["=" n ["..." n]] {"," …} "}"]
func (p *parser) enumeration() *typ {
	p.next()
	name := ""
	if p.tok.kind == 'i' {
		name = p.next().text
	}
	var base *typ
	if p.accept(":") {
		base = p.typeSpec()
	}
	if p.tok.text != "{" {
		t := p.lookup("enum " + name)
		if t == nil {
			fail(p.tok.off, "enum %s, which is not defined", name)
		}
		return t
	}
	if base == nil {
		if base = p.lookup("int"); base == nil {
			base = &typ{kind: kindInt, size: 32, align: 8, signed: true, big: p.m.big}
		}
	}
	if base.kind != kindInt {
		fail(p.tok.off, "an enumeration of no integers")
	}
	t := *base
	t.labels = p.labels()
	if name != "" {
		p.define("enum "+name, &t)
	}
	return &t
}

func (p *parser) labels() (out []label) {
	p.expect("{")
	next := int64(0)
	for !p.accept("}") {
		l := label{name: p.word(), lo: next}
		if p.accept("=") {
			l.lo = p.value().num
		}
		l.hi = l.lo
		if p.accept("...") {
			l.hi = p.value().num
		}
		next = l.hi + 1
		out = append(out, l)
		if !p.accept(",") {
			p.expect("}")
			break
		}
	}
	return out
}

// ToReal is what to add to the clock, in ns, to get the time since 1970; 0 if that is not known.
func (c Clock) ToReal() int64 {
	if c.Origin != "" {
		return 0
	}
	return c.fromOrigin()
}

// fromOrigin is what to add to the clock, in ns, to get the time since its origin.
func (c Clock) fromOrigin() int64 { return c.OffsetSeconds*1e9 + int64(c.ns(uint64(c.Offset))) }

// String names a clock and its rate.
func (c Clock) String() string { return c.Name + " at " + strconv.FormatUint(c.Freq, 10) + " Hz" }
