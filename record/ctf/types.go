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
)

// typ is a type. Types that the metadata names twice are shared: they are not changed once they are made.
type typ struct {
	kind   kind
	size   int  // bits: integers and floats
	align  int  // bits, a power of two
	signed bool // integers
	big    bool // byte order
	text   bool // encoding: the integers are characters
	hex    bool // base 16
	clock  bool // maps to the clock's value
	labels []label
	fields []member // structs, and options of variants
	elem   *typ     // arrays and sequences
	n      int      // arrays
	ref    string   // sequences: the length; variants: the tag
}

type member struct {
	name string
	typ  *typ
}

// label is a name of an enumeration's values.
type label struct {
	name   string
	lo, hi int64
}

// alignment is how a value of the type begins, in bits.
func (t *typ) alignment() int {
	switch t.kind {
	case kindArray, kindSequence:
		return t.elem.alignment()
	case kindStruct:
		a := t.align
		for _, f := range t.fields {
			a = max(a, f.typ.alignment())
		}
		return max(a, 1)
	case kindVariant: // its options align themselves
		return 1
	}
	return max(t.align, 1)
}

// Metadata is what the metadata of a trace says.
type Metadata struct {
	Version string // of the format: 1.8 or 2
	UUID    [16]byte
	HasUUID bool
	Env     map[string]string
	Clock   Clock

	big     bool
	header  *typ // of packets
	streams map[int64]*stream
}

// Clock is the clock of a trace.
type Clock struct {
	Name          string
	Freq          uint64 // per second
	OffsetSeconds int64  // from 1970, or from any other moment, to the clock's zero
	Offset        int64  // the same, beyond the seconds, in cycles
}

// stream is a class of streams.
type stream struct {
	id      int64
	packet  *typ // packet.context
	header  *typ // event.header
	context *typ // event.context
	events  map[int64]*event
}

type event struct {
	id      int64
	name    string
	stream  int64
	context *typ
	fields  *typ
}
