package ctf

// kind of a type of TSDL.
type kind uint8

const (
	kindInt kind = iota
	kindFloat
	kindString
	kindStruct
	kindArray
	kindSequence
	kindVariant
	kindText // of another encoding than UTF-8
)

// typ is a type. Types that the metadata names twice are shared: they are not changed once they are made.
type typ struct {
	kind   kind
	size   int  // bits: integers and floats
	align  int  // bits, a power of two; of compound types with what is in them
	deep   int  // types within it
	signed bool // integers
	big    bool // byte order
	text   bool // encoding: the integers are characters
	hex    bool // base 16
	clock  bool // maps to the clock's value
	labels []label
	fields []member // structs, and options of variants
	elem   *typ     // arrays and sequences
	n      int      // arrays; text: bytes, -1 up to a NUL
	ref    string   // sequences: the length; variants: the tag

	// What CTF 2 has besides.
	at       *location // sequences, text: the length; variants: the selector
	roles    role      // integers
	bits     bool      // integers: labels name bits, those of lo, and not values
	special  *special  // integers and floats: how they are read, other than plainly
	optional bool      // variants: of what may be missing
	unit     int       // text: bytes of a code unit
}

// special is how a number is read that is none of C's.
type special struct {
	leb      bool // LEB128
	reversed bool // the first bit is not where the byte order has it
	truth    bool // any value but 0 is 1
	plain    *typ // without that
}

type member struct {
	name string
	typ  *typ
}

// label is a name of an enumeration's values.
type label struct {
	name   string
	lo, hi int64
	option int // of a variant of CTF 2
}

// compound completes a type of others once these are known; off is where the metadata has it.
func compound(t *typ, off int) *typ {
	parts := t.fields
	if t.elem != nil {
		parts = append(parts, member{typ: t.elem})
	}
	for _, p := range parts {
		t.deep = max(t.deep, p.typ.deep+1)
		if t.kind != kindVariant { // whose options align themselves
			t.align = max(t.align, p.typ.align)
		}
	}
	if t.deep > maxNest {
		fail(off, "types within types")
	}
	t.align = max(t.align, 1)
	return t
}

// Metadata is what the metadata of a trace says.
type Metadata struct {
	Version string // of the format: 1.8 or 2
	UUID    [16]byte
	HasUUID bool
	Env     map[string]string
	Clock   Clock

	two     bool
	big     bool
	header  *typ // of packets
	streams map[int64]*stream
}

// Clock is the clock of a trace.
type Clock struct {
	Name          string
	Freq          uint64 // per second
	Origin        string // of CTF 2, what else than 1970 its zero is counted from; clocks of the same one can be compared
	OffsetSeconds int64  // from 1970, or from any other moment, to the clock's zero
	Offset        int64  // the same, beyond the seconds, in cycles
}

// stream is a class of streams.
type stream struct {
	id      int64
	clock   *Clock // nil: the trace's
	packet  *typ   // packet.context
	header  *typ   // event.header
	context *typ   // event.context
	events  map[int64]*event
}

type event struct {
	id      int64
	name    string
	stream  int64
	context *typ
	fields  *typ
}
