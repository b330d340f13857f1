package btftypes

import (
	"encoding/binary"
	"fmt"
	"iter"
	"slices"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/bin"
)

// Kinds of types (include/uapi/linux/btf.h).
const (
	kindInt = iota + 1
	kindPtr
	kindArray
	kindStruct
	kindUnion
	kindEnum
	kindFwd
	kindTypedef
	kindVolatile
	kindConst
	kindRestrict
	kindFunc
	kindFuncProto
	kindVar
	kindDatasec
	kindFloat
	kindDeclTag
	kindTypeTag
	kindEnum64
)

// typeLen is the size of struct btf_type, with which every type begins: name_off, info, size or type.
const typeLen = 12

// layout says what follows struct btf_type: a fixed part, or as many elements as info counts. fixed is -1 for a kind that
// is not known, whose size cannot be either.
var layout = [32]struct{ fixed, elem int }{
	0: {-1, 0}, kindInt: {4, 0}, kindArray: {12, 0}, kindStruct: {0, 12}, kindUnion: {0, 12}, kindEnum: {0, 8}, kindFuncProto: {0, 8},
	kindVar: {4, 0}, kindDatasec: {0, 12}, kindDeclTag: {4, 0}, kindEnum64: {0, 12},
	20: {-1, 0}, 21: {-1, 0}, 22: {-1, 0}, 23: {-1, 0}, 24: {-1, 0}, 25: {-1, 0}, 26: {-1, 0}, 27: {-1, 0}, 28: {-1, 0}, 29: {-1, 0},
	30: {-1, 0}, 31: {-1, 0},
}

// maxTypes is the kernel's own bound, BTF_MAX_TYPE.
const maxTypes = 0xfffff

// BTF is one section of types, of a kernel or of a module. It never changes; many goroutines may use it.
type BTF struct {
	base  *BTF
	types []byte // in little-endian order
	strs  []byte // empty, or ends with NUL
	offs  []uint32
	first uint32 // number of the type at offs[0]
	str0  uint32 // number of the string at strs[0]
}

// Parse reads the header of raw BTF, either byte order, and finds where each type begins. A module's types and strings are
// numbered on from those of base, the kernel's; base is nil for BTF that stands alone. raw is kept, and must not change.
// Errors are of type *[bin.FormatError].
func Parse(raw []byte, base *BTF) (*BTF, error) {
	b := &BTF{base: base, first: 1}
	if base != nil {
		b.first, b.str0 = base.end(), base.str0+uint32(len(base.strs))
	}
	types, at, err := b.sections(raw)
	if err != nil {
		return nil, err
	}
	if err := b.index(types, at); err != nil {
		return nil, err
	}
	return b, nil
}

// headerLen is the size of struct btf_header that every version has.
const headerLen = 24

// sections cuts out types and strings. at is the offset of the types.
func (b *BTF) sections(raw []byte) (types []byte, at int64, err error) {
	const magic, swapped = 0xeb9f, 0x9feb
	c := bin.NewCursor(raw, binary.LittleEndian)
	m := c.U16()
	if m == swapped {
		c = bin.NewCursor(raw, binary.BigEndian)
		c.Skip(2)
	} else if m != magic && c.OK() {
		c.Seek(0)
		c.Fail("magic %#x, want %#x", m, magic)
	}
	if v := c.U8(); v != 1 && c.OK() {
		c.Seek(2)
		c.Fail("version %d, want 1", v)
	}
	c.Skip(1) // flags
	hdr := int64(c.U32())
	typeOff, typeN, strOff, strN := c.U32(), c.U32(), c.U32(), c.U32()
	if hdr < headerLen || hdr > int64(len(raw)) {
		c.Seek(4)
		c.Fail("header of %d bytes in %d", hdr, len(raw))
	}
	if err := c.Err("BTF header"); err != nil {
		return nil, 0, err
	}
	at = hdr + int64(typeOff)
	if at+int64(typeN) > int64(len(raw)) || typeN%4 != 0 {
		return nil, 0, &bin.FormatError{What: "BTF header", Off: 8, Msg: fmt.Sprintf("%d bytes of types at %#x in %d", typeN, at, len(raw))}
	}
	s := hdr + int64(strOff)
	if s+int64(strN) > int64(len(raw)) {
		return nil, 0, &bin.FormatError{What: "BTF header", Off: 16, Msg: fmt.Sprintf("%d bytes of strings at %#x in %d", strN, s, len(raw))}
	}
	types, b.strs = raw[at:at+int64(typeN)], raw[s:s+int64(strN)]
	if n := len(b.strs); n > 0 && b.strs[n-1] != 0 {
		return nil, 0, &bin.FormatError{What: "BTF strings", Off: s + int64(n) - 1, Msg: "the last has no end"}
	}
	if m == swapped {
		types = swap(types)
	}
	return types, at, nil
}

// swap gives a copy in the other byte order: types are made of 32-bit words.
func swap(words []byte) []byte {
	out := make([]byte, 0, len(words))
	for i := 0; i < len(words); i += 4 {
		out = binary.LittleEndian.AppendUint32(out, binary.BigEndian.Uint32(words[i:]))
	}
	return out
}

// index notes where each type begins, at in the input, and looks at nothing of it but its size and that its name exists.
func (b *BTF) index(types []byte, at int64) error {
	b.types = types
	b.offs = make([]uint32, 0, len(types)/20) // a kernel's take about 22 bytes each
	strs := b.str0 + uint32(len(b.strs))
	fail := func(off int, format string, args ...any) error {
		return &bin.FormatError{What: fmt.Sprintf("BTF type %d", b.end()), Off: at + int64(off), Msg: fmt.Sprintf(format, args...)}
	}
	for off := 0; off < len(types); {
		if len(types)-off < typeLen {
			return fail(off, "need %d bytes, have %d", typeLen, len(types)-off)
		}
		name, info := le(types[off:]), le(types[off+4:])
		l := layout[info>>24&31]
		if l.fixed < 0 {
			return fail(off+4, "unknown kind %d", info>>24&31)
		}
		if name >= strs && name != 0 {
			return fail(off, "name at %#x of %#x bytes of strings", name, strs)
		}
		size := typeLen + l.fixed + l.elem*int(info&0xffff)
		if size > len(types)-off {
			return fail(off, "need %d bytes, have %d", size, len(types)-off)
		}
		if b.end() > maxTypes {
			return fail(off, "more than %d types", maxTypes)
		}
		b.offs = append(b.offs, uint32(off))
		off += size
	}
	return nil
}

func le(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// end is the number of the type after the last.
func (b *BTF) end() uint32 { return b.first + uint32(len(b.offs)) }

// rec is a type as it stands in the input: struct btf_type and what follows.
type rec []byte

func (r rec) name() uint32   { return le(r) }
func (r rec) kind() int      { return int(r[7] & 31) }
func (r rec) flag() bool     { return r[7]&0x80 != 0 } // kind_flag
func (r rec) size() int      { return int(le(r[8:])) }
func (r rec) target() uint32 { return le(r[8:]) }

// elems gives the elements that follow: members, enumerators, parameters.
func (r rec) elems() iter.Seq[rec] {
	return func(yield func(rec) bool) {
		n := layout[r.kind()].elem
		for rest := r[typeLen:]; len(rest) >= n && n > 0; rest = rest[n:] {
			if !yield(rest[:n]) {
				return
			}
		}
	}
}

// len is the number of elements.
func (r rec) len() int { return int(le(r[4:]) & 0xffff) }

// at gives the type of a number, and the section that it is in: b or its base; nil for void and what does not exist.
func (b *BTF) at(id uint32) (*BTF, rec) {
	for b != nil && id < b.first {
		b = b.base
	}
	if b == nil || id >= b.end() {
		return nil, nil
	}
	i := int(id - b.first)
	if i+1 < len(b.offs) {
		return b, b.types[b.offs[i]:b.offs[i+1]]
	}
	return b, b.types[b.offs[i]:]
}

// text gives the bytes from the start of a string on; nil if there is no such string.
func (b *BTF) text(off uint32) []byte {
	for off < b.str0 {
		b = b.base
	}
	if off-b.str0 >= uint32(len(b.strs)) {
		return nil
	}
	return b.strs[off-b.str0:]
}

// string copies a string; what is not there is empty.
func (b *BTF) string(off uint32) string {
	s := b.text(off)
	return string(s[:max(0, slices.Index(s, 0))])
}

// is compares a string.
func (b *BTF) is(off uint32, name string) bool {
	s := b.text(off)
	return len(name) < len(s) && s[len(name)] == 0 && string(s[:len(name)]) == name
}

// kinds is a set of kinds.
type kinds uint32

func set(ks ...int) (s kinds) {
	for _, k := range ks {
		s |= 1 << k
	}
	return s
}

// byKind gives what a question for a kind of C name means.
func byKind(k ctype.Kind) kinds {
	switch k {
	case ctype.KindStruct:
		return set(kindStruct)
	case ctype.KindUnion:
		return set(kindUnion)
	case ctype.KindEnum:
		return set(kindEnum, kindEnum64)
	case ctype.KindTypedef:
		return set(kindTypedef)
	case ctype.KindBase:
		return set(kindInt, kindFloat)
	case ctype.Any:
		return set(kindStruct, kindUnion, kindEnum, kindEnum64, kindTypedef, kindInt, kindFloat)
	}
	return 0
}

// of walks over the section's own types of some kinds, by number.
func (b *BTF) of(ks kinds) iter.Seq2[uint32, rec] {
	return func(yield func(uint32, rec) bool) {
		for i, off := range b.offs {
			if ks>>(b.types[off+7]&31)&1 == 0 {
				continue
			}
			id := b.first + uint32(i)
			if _, r := b.at(id); !yield(id, r) {
				return
			}
		}
	}
}

// Names lists the names of a kind that begin with prefix, sorted; not those of base.
func (b *BTF) Names(kind ctype.Kind, prefix string) []string { return b.names(byKind(kind), prefix) }

// Funcs lists the functions whose names begin with prefix, sorted; not those of base.
func (b *BTF) Funcs(prefix string) []string { return b.names(set(kindFunc), prefix) }

func (b *BTF) names(ks kinds, prefix string) []string {
	var out []string
	for _, r := range b.of(ks) {
		if s := b.text(r.name()); len(s) > len(prefix) && string(s[:len(prefix)]) == prefix {
			out = append(out, b.string(r.name()))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
