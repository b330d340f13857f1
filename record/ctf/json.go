package ctf

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// The metadata of CTF 2 (CTF2-SPEC-2.0, diamon.org/ctf) is a sequence of JSON texts, called fragments. They become the same
// types that CTF 1.8's language makes; what its fields are for they tell by roles and not by names, so that those with a role get
// the name that 1.8 gives it.

// fragment is any of them.
type fragment struct {
	Type string `json:"type"`

	Name  string          `json:"name"`        // aliases, clocks, events
	Class json.RawMessage `json:"field-class"` // of an alias

	UUID         []byte16        `json:"uuid"`
	PacketHeader json.RawMessage `json:"packet-header-field-class"`
	Environment  map[string]any  `json:"environment"`

	Frequency uint64 `json:"frequency"`
	Offset    struct {
		Seconds int64 `json:"seconds"`
		Cycles  int64 `json:"cycles"`
	} `json:"offset-from-origin"`

	ID            int64           `json:"id"`
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
	Type      string          `json:"type"`
	Length    int             `json:"length"`
	Order     string          `json:"byte-order"`
	Align     int             `json:"alignment"`
	Least     int             `json:"minimum-alignment"`
	Base      int             `json:"preferred-display-base"`
	Roles     []string        `json:"roles"`
	Mappings  json.RawMessage `json:"mappings"`
	Members   []memberClass   `json:"member-classes"`
	Element   json.RawMessage `json:"element-field-class"`
	LengthAt  *location       `json:"length-field-location"`
	Selector  *location       `json:"selector-field-location"`
	Ranges    [][2]int64      `json:"selector-field-ranges"`
	Options   []optionClass   `json:"options"`
	FieldType json.RawMessage `json:"field-class"` // of an optional
}

type memberClass struct {
	Name  string          `json:"name"`
	Class json.RawMessage `json:"field-class"`
}

type optionClass struct {
	Name   string          `json:"name"`
	Class  json.RawMessage `json:"field-class"`
	Ranges [][2]int64      `json:"selector-field-ranges"`
}

// location is where the field stands that a length or a choice depends on.
type location struct {
	Origin string    `json:"origin"`
	Path   []*string `json:"path"` // null is the structure around
}

// roleNames are the names of 1.8 for what fields are for.
var roleNames = map[string]string{
	"packet-magic-number": "magic", "metadata-stream-uuid": "uuid", "data-stream-class-id": "stream_id", "data-stream-id": "stream_instance_id",
	"packet-total-length": "packet_size", "packet-content-length": "content_size", "default-clock-timestamp": "timestamp",
	"packet-end-default-clock-timestamp": "timestamp_end", "discarded-event-record-counter-snapshot": "events_discarded",
	"packet-sequence-number": "packet_seq_num", "event-record-class-id": "id",
}

// origins are the scopes of 1.8 that locations begin in.
var origins = map[string]string{
	"packet-header": "trace.packet.header.", "packet-context": "stream.packet.context.", "event-record-header": "stream.event.header.",
	"event-record-common-context": "stream.event.context.", "event-record-specific-context": "event.context.", "event-record-payload": "event.fields.", "": "",
}

// fragments reads the metadata of CTF 2.
type fragments struct {
	m       *Metadata
	aliases map[string]*typ
	renamed map[string]string // fields that have a role, by their own names
	context bool              // a packet context is read: its time stamp is that of its beginning
	depth   int
}

// isJSON says if metadata is of CTF 2.
func isJSON(text []byte) bool {
	t := bytes.TrimLeft(text, " \t\r\n")
	return len(t) > 0 && (t[0] == 0x1e || t[0] == '{')
}

func parseJSON(text []byte) *Metadata {
	f := &fragments{m: &Metadata{Version: "2", Env: map[string]string{}, Clock: Clock{Freq: 1e9}, streams: map[int64]*stream{}}, aliases: map[string]*typ{}, renamed: map[string]string{}}
	d := json.NewDecoder(bytes.NewReader(bytes.ReplaceAll(text, []byte{0x1e}, []byte{'\n'}))) // RFC 7464; the byte is in no text
	var events []*event
	for {
		var g fragment
		if err := d.Decode(&g); err == io.EOF {
			break
		} else if err != nil {
			fail(int(d.InputOffset()), "%v", err)
		}
		if e := f.fragment(&g); e != nil {
			if len(events) >= maxEvents {
				fail(int(d.InputOffset()), "too many events")
			}
			events = append(events, e)
		}
	}
	if len(f.m.streams) == 0 {
		fail(len(text), "no class of data streams")
	}
	for _, e := range events {
		s := f.m.streams[e.stream]
		if s == nil {
			fail(0, "event %s is of the stream class %d, which is not there", e.name, e.stream)
		}
		s.events[e.id] = e
	}
	return f.m
}

// fragment takes one in; it gives the event that one is.
func (f *fragments) fragment(g *fragment) *event {
	switch g.Type {
	case "field-class-alias":
		f.aliases[g.Name] = f.class(g.Class)
	case "trace-class":
		f.m.header = f.class(g.PacketHeader)
		for k, v := range g.Environment {
			f.m.Env[k] = fmt.Sprint(v)
		}
		if len(g.UUID) == 16 {
			f.m.HasUUID = true
			for i, c := range g.UUID {
				f.m.UUID[i] = byte(c)
			}
		}
	case "clock-class":
		f.m.Clock = Clock{Name: g.Name, Freq: g.Frequency, OffsetSeconds: g.Offset.Seconds, Offset: g.Offset.Cycles}
		if g.Frequency == 0 {
			fail(0, "a clock without a frequency")
		}
	case "data-stream-class":
		s := &stream{id: g.ID, events: map[int64]*event{}}
		f.context = true
		s.packet = f.class(g.PacketContext)
		f.context = false
		s.header, s.context = f.class(g.EventHeader), f.class(g.CommonContext)
		f.m.streams[g.ID] = s
	case "event-record-class":
		return &event{id: g.ID, name: g.Name, stream: g.Stream, context: f.class(g.Specific), fields: f.class(g.Payload)}
	case "preamble":
	default:
		fail(0, "a fragment of the type %q", g.Type)
	}
	return nil
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
	return f.typ(&c)
}

func (f *fragments) typ(c *fieldClass) *typ {
	switch c.Type {
	case "fixed-length-bit-array", "fixed-length-bit-map", "fixed-length-boolean", "fixed-length-unsigned-integer", "fixed-length-signed-integer":
		t := &typ{kind: kindInt, size: bounded(c.Length, 64), align: alignOf(max(c.Align, 1)), big: c.Order == "big-endian", hex: c.Base == 16, signed: c.Type == "fixed-length-signed-integer"}
		if strings.HasSuffix(c.Type, "integer") {
			t.labels = mappings(c.Mappings)
		}
		for _, r := range c.Roles {
			t.clock = t.clock || r == "default-clock-timestamp" || r == "packet-end-default-clock-timestamp"
		}
		return t
	case "fixed-length-floating-point-number":
		if c.Length != 32 && c.Length != 64 {
			fail(0, "a number of %d bits with a point", c.Length)
		}
		return &typ{kind: kindFloat, size: c.Length, align: alignOf(max(c.Align, 1)), big: c.Order == "big-endian", signed: true}
	case "null-terminated-string":
		return &typ{kind: kindString, align: 8}
	case "static-length-string", "static-length-blob":
		return &typ{kind: kindArray, elem: f.octet(c), n: bounded0(c.Length, maxArray)}
	case "dynamic-length-string", "dynamic-length-blob":
		return &typ{kind: kindSequence, elem: f.octet(c), ref: f.ref(c.LengthAt)}
	case "static-length-array":
		return &typ{kind: kindArray, elem: f.element(c), n: bounded0(c.Length, maxArray)}
	case "dynamic-length-array":
		return &typ{kind: kindSequence, elem: f.element(c), ref: f.ref(c.LengthAt)}
	case "structure":
		return f.structure(c)
	case "variant":
		return f.variant(c.Options, c.Selector)
	case "optional":
		return f.optional(c)
	}
	fail(0, "the field class %q is not understood", c.Type)
	return nil
}

// octet is an element of text or bytes.
func (f *fragments) octet(c *fieldClass) *typ {
	return &typ{kind: kindInt, size: 8, align: 8, text: strings.HasSuffix(c.Type, "string")}
}

func (f *fragments) element(c *fieldClass) *typ {
	e := f.class(c.Element)
	if e == nil {
		fail(0, "an array of nothing")
	}
	return e
}

func bounded(n, most int) int {
	if n < 1 || n > most {
		fail(0, "a length of %d", n)
	}
	return n
}

func bounded0(n, most int) int {
	if n == 0 {
		return 0
	}
	return bounded(n, most)
}

func alignOf(n int) int {
	if n < 1 || n > 1<<16 || n&(n-1) != 0 {
		fail(0, "an alignment of %d", n)
	}
	return n
}

func (f *fragments) structure(c *fieldClass) *typ {
	t := &typ{kind: kindStruct, align: alignOf(max(c.Least, 1))}
	for _, m := range c.Members {
		k := f.class(m.Class)
		if k == nil {
			fail(0, "the member %s has no type", m.Name)
		}
		t.fields = append(t.fields, member{f.rename(m), k})
	}
	return t
}

// rename gives a member that has a role the name of 1.8.
func (f *fragments) rename(m memberClass) string {
	var c struct {
		Roles []string `json:"roles"`
	}
	if len(m.Class) == 0 || m.Class[0] != '{' || json.Unmarshal(m.Class, &c) != nil {
		return m.Name
	}
	for _, r := range c.Roles {
		n := roleNames[r]
		if n == "" {
			continue
		}
		if n == "timestamp" && f.context {
			n = "timestamp_begin"
		}
		f.renamed[m.Name] = n
		return n
	}
	return m.Name
}

// variant chooses by the number of its selector, as 1.8 does by the label of an enumeration: each option is a label.
func (f *fragments) variant(options []optionClass, at *location) *typ {
	t := &typ{kind: kindVariant, ref: f.ref(at)}
	for i, o := range options {
		k := f.class(o.Class)
		if k == nil {
			fail(0, "an option without a type")
		}
		if o.Name == "" {
			o.Name = fmt.Sprintf("option%d", i)
		}
		t.fields = append(t.fields, member{o.Name, k})
		for _, r := range o.Ranges {
			t.labels = append(t.labels, label{o.Name, r[0], r[1]})
		}
	}
	return t
}

// optional is a variant of what is there and of nothing.
func (f *fragments) optional(c *fieldClass) *typ {
	there := optionClass{Name: "there", Class: c.FieldType, Ranges: c.Ranges}
	if there.Ranges == nil { // a boolean
		there.Ranges = [][2]int64{{1, math.MaxInt64}, {math.MinInt64, -1}}
	}
	t := f.variant([]optionClass{there}, c.Selector)
	t.fields = append(t.fields, member{"missing", &typ{kind: kindStruct, align: 1}})
	t.labels = append(t.labels, label{"missing", math.MinInt64, math.MaxInt64})
	return t
}

// ref is the name of a field that another depends on.
func (f *fragments) ref(at *location) string {
	if at == nil {
		fail(0, "a length or choice that depends on nothing")
	}
	origin, ok := origins[at.Origin]
	if !ok {
		fail(0, "a field of %q", at.Origin)
	}
	var parts []string
	for _, p := range at.Path {
		if p == nil { // names are looked for from the inside out
			continue
		}
		n := *p
		if r := f.renamed[n]; r != "" {
			n = r
		}
		parts = append(parts, n)
	}
	return origin + strings.Join(parts, ".")
}

// mappings are the names of an integer's values.
func mappings(raw json.RawMessage) (out []label) {
	if len(raw) == 0 {
		return nil
	}
	var m map[string][][2]int64
	if err := json.Unmarshal(raw, &m); err != nil {
		fail(0, "mappings: %v", err)
	}
	for name, ranges := range m {
		for _, r := range ranges {
			out = append(out, label{name, r[0], r[1]})
		}
	}
	sorting.By(out, func(a, b label) int { return cmp.Or(cmp.Compare(a.lo, b.lo), strings.Compare(a.name, b.name)) })
	return out
}
