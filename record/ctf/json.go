package ctf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// The metadata of CTF 2 (CTF2-SPEC-2.0, diamon.org/ctf) is a sequence of JSON texts, called fragments. They become the types
// that CTF 1.8's language makes. What fields are for they tell by roles and not by names, and what a length or a choice depends
// on by its place (places.go). What its release candidates had otherwise is read, too.

// fragment is any of them.
type fragment struct {
	Type string `json:"type"`

	Name  string          `json:"name"` // aliases, clocks, events
	UID   string          `json:"uid"`
	Class json.RawMessage `json:"field-class"` // of an alias

	Version      int                                   `json:"version"`
	UUID         []byte16                              `json:"uuid"` // of the preamble; once of the trace's class
	Extensions   map[string]map[string]json.RawMessage `json:"extensions"`
	PacketHeader json.RawMessage                       `json:"packet-header-field-class"`
	Environment  map[string]json.RawMessage            `json:"environment"`

	Frequency uint64          `json:"frequency"`
	Origin    json.RawMessage `json:"origin"`
	Offset    struct {
		Seconds int64 `json:"seconds"`
		Cycles  int64 `json:"cycles"`
	} `json:"offset-from-origin"`

	ID            json.RawMessage `json:"id"` // a number; of a clock text
	Clock         string          `json:"default-clock-class-id"`
	ClockName     string          `json:"default-clock-class-name"` // once
	PacketContext json.RawMessage `json:"packet-context-field-class"`
	EventHeader   json.RawMessage `json:"event-record-header-field-class"`
	CommonContext json.RawMessage `json:"event-record-common-context-field-class"`

	Stream   int64           `json:"data-stream-class-id"`
	Specific json.RawMessage `json:"specific-context-field-class"`
	Payload  json.RawMessage `json:"payload-field-class"`
}

// byte16 is a byte of a UUID, which JSON has as a number.
type byte16 uint8

// fieldClass is a type.
type fieldClass struct {
	Type      string            `json:"type"`
	Length    int               `json:"length"`
	Order     string            `json:"byte-order"`
	BitOrder  string            `json:"bit-order"`
	Encoding  string            `json:"encoding"`
	Align     int               `json:"alignment"`
	Least     int               `json:"minimum-alignment"`
	Base      int               `json:"preferred-display-base"`
	Roles     []string          `json:"roles"`
	Mappings  map[string]ranges `json:"mappings"`
	Flags     map[string]ranges `json:"flags"`
	Members   []memberClass     `json:"member-classes"`
	Element   json.RawMessage   `json:"element-field-class"`
	LengthAt  *location         `json:"length-field-location"`
	Selector  *location         `json:"selector-field-location"`
	Ranges    ranges            `json:"selector-field-ranges"`
	Options   []optionClass     `json:"options"`
	FieldType json.RawMessage   `json:"field-class"` // of an optional
}

type memberClass struct {
	Name  string          `json:"name"`
	Class json.RawMessage `json:"field-class"`
}

type optionClass struct {
	Name   string          `json:"name"`
	Class  json.RawMessage `json:"field-class"`
	Ranges ranges          `json:"selector-field-ranges"`
}

// location is where the field stands that a length or a choice depends on.
type location struct {
	Origin string    `json:"origin"`
	Path   []*string `json:"path"` // null is the structure around
}

// ranges are integers, ends included. Those from 2^63 on are the same bits.
type ranges [][2]int64

// UnmarshalJSON implements [json.Unmarshaler]. A range that goes over 2^63 becomes two.
func (r *ranges) UnmarshalJSON(b []byte) error {
	var list [][]json.Number
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	for _, e := range list {
		if len(e) != 2 {
			return fmt.Errorf("a range with %d ends", len(e))
		}
		lo, over, err := bits64(e[0])
		hi, beyond, err2 := bits64(e[1])
		switch err = errors.Join(err, err2); {
		case err != nil:
			return err
		case over && !beyond || over == beyond && lo > hi:
			return fmt.Errorf("a range from %s to %s", e[0], e[1])
		case over == beyond:
			*r = append(*r, [2]int64{lo, hi})
		default:
			*r = append(*r, [2]int64{lo, math.MaxInt64}, [2]int64{math.MinInt64, hi})
		}
	}
	return nil
}

// bits64 is a number as 64 bits, and if it is too large for a signed one. What does not fit at all is the nearest that does.
func bits64(n json.Number) (v int64, over bool, err error) {
	v, err = strconv.ParseInt(string(n), 10, 64)
	if err == nil || !errors.Is(err, strconv.ErrRange) || strings.HasPrefix(string(n), "-") {
		if errors.Is(err, strconv.ErrRange) {
			err = nil
		}
		return v, false, err
	}
	u, _ := strconv.ParseUint(string(n), 10, 64)
	return int64(u), true, nil
}

// roleNames are the roles that mean something here. That of time stamps is the packet's beginning in its context.
var roleNames = map[string]role{
	"packet-magic-number": roleMagic, "metadata-stream-uuid": roleUUID, "data-stream-class-id": roleStream,
	"packet-total-length": rolePacketSize, "packet-content-length": roleContent, "default-clock-timestamp": roleTime,
	"packet-end-default-clock-timestamp": rolePacketEnd, "discarded-event-record-counter-snapshot": roleDiscarded,
	"event-record-class-id": roleID,
}

// fragments reads the metadata of CTF 2.
type fragments struct {
	m       *Metadata
	aliases map[string]*typ
	clocks  map[string]*Clock // by their IDs, and by their names
	depth   int
}

// isJSON says if metadata is of CTF 2.
func isJSON(text []byte) bool {
	t := bytes.TrimLeft(text, " \t\r\n")
	return len(t) > 0 && (t[0] == 0x1e || t[0] == '{')
}

func parseJSON(text []byte) *Metadata {
	f := &fragments{m: &Metadata{Version: "2", two: true, Env: map[string]string{}, Clock: Clock{Freq: 1e9}, streams: map[int64]*stream{}}, aliases: map[string]*typ{}, clocks: map[string]*Clock{}}
	d := json.NewDecoder(bytes.NewReader(bytes.ReplaceAll(text, []byte{0x1e}, []byte{'\n'}))) // RFC 7464; the byte is in no text
	events := 0
	for {
		var g fragment
		if err := d.Decode(&g); err == io.EOF {
			break
		} else if err != nil {
			fail(int(d.InputOffset()), "%v", err)
		}
		if f.fragment(&g); g.Type == "event-record-class" {
			if events++; events > maxEvents {
				fail(int(d.InputOffset()), "too many events")
			}
		}
	}
	if len(f.m.streams) == 0 {
		fail(len(text), "no class of data streams")
	}
	for _, id := range ids(f.m.streams) { // the trace's clock is that of the first that has one
		if c := f.m.streams[id].clock; c != nil {
			f.m.Clock = *c
			break
		}
	}
	return f.m
}

// fragment takes one in.
func (f *fragments) fragment(g *fragment) {
	if len(g.UUID) == 16 {
		f.m.HasUUID = true
		for i, c := range g.UUID {
			f.m.UUID[i] = byte(c)
		}
	}
	switch g.Type {
	case "preamble":
		f.preamble(g)
	case "field-class-alias":
		f.aliases[g.Name] = f.class(g.Class)
	case "trace-class":
		f.m.header = f.class(g.PacketHeader)
		for k, v := range g.Environment {
			f.m.Env[k] = plain(v)
		}
	case "clock-class":
		f.clock(g)
	case "data-stream-class":
		s := &stream{id: g.number(), events: map[int64]*event{}, clock: f.clocks[cmp.Or(g.Clock, g.ClockName)]}
		if s.clock == nil && g.Clock+g.ClockName != "" {
			fail(0, "no clock %q", g.Clock+g.ClockName)
		}
		s.packet, s.header, s.context = f.class(g.PacketContext), f.class(g.EventHeader), f.class(g.CommonContext)
		f.m.streams[s.id] = s
	case "event-record-class":
		e := &event{id: g.number(), name: cmp.Or(g.Name, g.UID), stream: g.Stream, context: f.class(g.Specific), fields: f.class(g.Payload)}
		if e.name == "" {
			e.name = fmt.Sprintf("event%d", e.id)
		}
		s := f.m.streams[e.stream]
		if s == nil {
			fail(0, "event %s is of the stream class %d, which is not there", e.name, e.stream)
		}
		s.events[e.id] = e
	default:
		fail(0, "a fragment of the type %q", g.Type)
	}
}

func (f *fragments) preamble(g *fragment) {
	if g.Version != 2 {
		fail(0, "version %d of the format", g.Version)
	}
	for space, names := range g.Extensions {
		for name := range names { // which may change anything
			fail(0, "the extension %s of %s, which is not known here", name, space)
		}
	}
}

func (f *fragments) clock(g *fragment) {
	c := &Clock{Name: g.Name, Freq: g.Frequency, OffsetSeconds: g.Offset.Seconds, Offset: g.Offset.Cycles}
	if g.Frequency == 0 {
		fail(0, "a clock without a frequency")
	}
	if o := plain(g.Origin); o != "unix-epoch" {
		c.Origin = o
	}
	f.m.Clock = *c // of streams that do not say theirs
	f.clocks[plain(g.ID)] = c
	f.clocks[g.Name] = c
	delete(f.clocks, "")
}

// number is the ID of what has a number.
func (g *fragment) number() (id int64) {
	if len(g.ID) > 0 {
		if err := json.Unmarshal(g.ID, &id); err != nil {
			fail(0, "an ID: %v", err)
		}
	}
	return id
}

// plain is a value as text: text without its quotes.
func plain(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// class makes a type of a field class; nil of none.
func (f *fragments) class(raw json.RawMessage) *typ {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	if f.depth++; f.depth > maxNest {
		fail(0, "types within types")
	}
	defer func() { f.depth-- }()
	var name string
	if raw[0] == '"' {
		if err := json.Unmarshal(raw, &name); err != nil || f.aliases[name] == nil {
			fail(0, "no field class %s", raw)
		}
		return f.aliases[name]
	}
	var c fieldClass
	if err := json.Unmarshal(raw, &c); err != nil {
		fail(0, "a field class: %v", err)
	}
	t := f.typ(&c)
	for _, r := range c.Roles {
		t.roles |= roleNames[r]
	}
	return t
}

func (f *fragments) typ(c *fieldClass) *typ {
	switch c.Type {
	case "fixed-length-bit-array", "fixed-length-bit-map", "fixed-length-boolean", "fixed-length-unsigned-integer", "fixed-length-signed-integer":
		return fixed(c)
	case "fixed-length-floating-point-number":
		if c.Length != 16 && c.Length != 32 && c.Length != 64 && c.Length != 128 {
			fail(0, "a number of %d bits with a point", c.Length)
		}
		t := &typ{kind: kindFloat, size: c.Length, align: alignOf(c.Align), signed: true}
		t.ordered(c)
		return t
	case "variable-length-unsigned-integer", "variable-length-signed-integer":
		return &typ{kind: kindInt, size: 64, align: 8, hex: c.Base == 16, signed: c.Type == "variable-length-signed-integer", labels: labels(c.Mappings), special: &special{leb: true}}
	case "null-terminated-string":
		if t := text(c); t.kind == kindText {
			t.n = -1
			return t
		}
		return &typ{kind: kindString, align: 8}
	case "static-length-string", "static-length-blob":
		t := text(c)
		t.n = bounded(c.Length, 0, maxArray)
		return compound(t, 0)
	case "dynamic-length-string", "dynamic-length-blob":
		t := text(c)
		if t.n, t.at = -1, place(c.LengthAt); t.kind == kindArray {
			t.kind = kindSequence
		}
		return compound(t, 0)
	case "static-length-array":
		return compound(&typ{kind: kindArray, elem: f.element(c), align: alignOf(c.Least), n: bounded(c.Length, 0, maxArray)}, 0)
	case "dynamic-length-array":
		return compound(&typ{kind: kindSequence, elem: f.element(c), align: alignOf(c.Least), at: place(c.LengthAt)}, 0)
	case "structure":
		return f.structure(c)
	case "variant":
		return f.variant(c)
	case "optional":
		return f.optional(c)
	}
	fail(0, "the field class %q is not understood", c.Type)
	return nil
}

// fixed is a field class of a number of bits.
func fixed(c *fieldClass) *typ {
	t := &typ{kind: kindInt, size: bounded(c.Length, 1, 64), align: alignOf(c.Align), hex: c.Base == 16}
	switch c.Type {
	case "fixed-length-signed-integer":
		t.signed = true
		fallthrough
	case "fixed-length-unsigned-integer":
		t.labels = labels(c.Mappings)
	case "fixed-length-bit-map":
		t.labels, t.bits = flags(c.Flags), true
	case "fixed-length-boolean":
		t.special = &special{truth: true}
	}
	t.ordered(c)
	return t
}

// ordered sets the order of a number's bytes and bits.
func (t *typ) ordered(c *fieldClass) {
	usual := "first-to-last"
	if t.big = c.Order == "big-endian"; t.big {
		usual = "last-to-first"
	}
	if c.BitOrder != "" && c.BitOrder != usual {
		if t.special == nil {
			t.special = &special{}
		}
		t.special.reversed = true
	}
	if t.special != nil {
		t.special.plain = &typ{kind: t.kind, size: t.size, align: t.align, big: t.big}
	}
}

// text is text of a length, or bytes.
func text(c *fieldClass) *typ {
	switch c.Encoding {
	case "", "utf-8":
		return &typ{kind: kindArray, elem: &typ{kind: kindInt, size: 8, align: 8, text: strings.HasSuffix(c.Type, "string")}}
	case "utf-16le", "utf-16be":
		return &typ{kind: kindText, align: 8, unit: 2, big: c.Encoding == "utf-16be"}
	case "utf-32le", "utf-32be":
		return &typ{kind: kindText, align: 8, unit: 4, big: c.Encoding == "utf-32be"}
	}
	fail(0, "text in %q", c.Encoding)
	return nil
}

func (f *fragments) element(c *fieldClass) *typ {
	e := f.class(c.Element)
	if e == nil {
		fail(0, "an array of nothing")
	}
	return e
}

func bounded(n, least, most int) int {
	if n < least || n > most {
		fail(0, "a length of %d", n)
	}
	return n
}

// alignOf is an alignment; 1 if none is told.
func alignOf(n int) int {
	if n = max(n, 1); n > 1<<16 || n&(n-1) != 0 {
		fail(0, "an alignment of %d", n)
	}
	return n
}

// place is where the field stands that another depends on.
func place(at *location) *location {
	if at == nil || len(at.Path) == 0 {
		fail(0, "a length or choice that depends on nothing")
	}
	return at
}

func (f *fragments) structure(c *fieldClass) *typ {
	t := &typ{kind: kindStruct, align: alignOf(c.Least)}
	for _, m := range c.Members {
		k := f.class(m.Class)
		if k == nil {
			fail(0, "the member %s has no type", m.Name)
		}
		t.fields = append(t.fields, member{m.Name, k})
	}
	return compound(t, 0)
}

func (f *fragments) variant(c *fieldClass) *typ {
	t := &typ{kind: kindVariant, at: place(c.Selector)}
	for i, o := range c.Options {
		k := f.class(o.Class)
		if k == nil {
			fail(0, "an option without a type")
		}
		if o.Name == "" {
			o.Name = fmt.Sprintf("option%d", i)
		}
		t.fields = append(t.fields, member{o.Name, k})
		for _, r := range o.Ranges {
			t.labels = append(t.labels, label{lo: r[0], hi: r[1], option: i})
		}
	}
	return compound(t, 0)
}

// optional is a variant of what may be there.
func (f *fragments) optional(c *fieldClass) *typ {
	k := f.class(c.FieldType)
	if k == nil {
		fail(0, "an optional field without a type")
	}
	t := &typ{kind: kindVariant, at: place(c.Selector), optional: true, fields: []member{{"", k}}}
	for _, r := range c.Ranges {
		t.labels = append(t.labels, label{lo: r[0], hi: r[1]})
	}
	return compound(t, 0)
}

// flags are the names of an integer's bits.
func flags(names map[string]ranges) (out []label) {
	for name, list := range names {
		var mask int64
		for _, r := range list {
			for bit := max(r[0], 0); bit <= min(r[1], 63); bit++ {
				mask |= 1 << bit
			}
		}
		out = append(out, label{name: name, lo: mask})
	}
	sorting.By(out, func(a, b label) int {
		return cmp.Or(cmp.Compare(bits.TrailingZeros64(uint64(a.lo)), bits.TrailingZeros64(uint64(b.lo))), strings.Compare(a.name, b.name))
	})
	return out
}

// labels are the names of an integer's values.
func labels(names map[string]ranges) (out []label) {
	for name, list := range names {
		for _, r := range list {
			out = append(out, label{name: name, lo: r[0], hi: r[1]})
		}
	}
	sorting.By(out, func(a, b label) int { return cmp.Or(cmp.Compare(a.lo, b.lo), strings.Compare(a.name, b.name)) })
	return out
}
