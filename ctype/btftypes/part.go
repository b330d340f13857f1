package btftypes

import (
	"bytes"
	"hash/maphash"
	"iter"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// part is a section and what of it was converted.
type part struct {
	*BTF
	below    *part // of the section's base
	seen     map[uint32]ctype.Type
	found    map[question][]uint32
	expected map[string][]uint32 // names that were asked for all at once; of all kinds
	compared int
	names    table
}

// question is what find was asked for.
type question struct {
	ks   kinds
	name string
}

// nameable is what find may be asked for.
var nameable = byKind(ctype.Any) | set(kindFunc, kindVar)

// find gives the numbers of the types of some kinds and a name. Names are compared with those of all types of the kinds, one
// by one, until that has cost about as much as a table of all names: when each was compared twice.
func (p *part) find(ks kinds, name string) []uint32 {
	q := question{ks, name}
	ids, ok := p.found[q]
	if ok {
		return ids
	}
	if all, ok := p.expected[name]; ok {
		for _, id := range all {
			if _, r := p.at(id); ks>>r.kind()&1 != 0 {
				ids = append(ids, id)
			}
		}
		p.found[q] = ids
		return ids
	}
	if p.compared < 2*len(p.offs) {
		for id, r := range p.of(ks) {
			if p.compared++; p.is(r.name(), name) {
				ids = append(ids, id)
			}
		}
		p.found[q] = ids
		return ids
	}
	if p.names.ids == nil {
		p.names = p.table()
	}
	for id := range p.names.find(maphash.String(p.names.seed, name)) {
		if _, r := p.at(id); ks>>r.kind()&1 != 0 && p.is(r.name(), name) {
			ids = append(ids, id)
		}
	}
	return ids
}

// expect finds the types of names, which must have 3 bytes or more, in one walk.
func (p *part) expect(names []string) {
	if p.expected == nil {
		p.expected = make(map[string][]uint32, len(names))
	}
	var begins [1 << 16]bool // by the first three bytes: few of all names begin as one of these
	key := func(a, b, c byte) uint16 { return uint16(a)<<11 ^ uint16(b)<<6 ^ uint16(c) }
	for _, n := range names {
		if _, ok := p.expected[n]; !ok {
			p.expected[n] = nil
			begins[key(n[0], n[1], n[2])] = true
		}
	}
	for id, r := range p.of(nameable) {
		s := p.text(r.name())
		if len(s) < 4 || !begins[key(s[0], s[1], s[2])] {
			continue
		}
		if end := bytes.IndexByte(s, 0); end > 0 {
			if ids, ok := p.expected[string(s[:end])]; ok {
				p.expected[string(s[:end])] = append(ids, id)
			}
		}
	}
}

// table has the numbers of types by the hashes of their names: open addressing, and what was put in first is found first.
type table struct {
	seed maphash.Seed
	ids  []uint32 // as many as a power of two, at most half of them taken; 0 is free
}

func (p *part) table() table {
	n := 0
	for range p.of(nameable) {
		n++
	}
	size := 1
	for size < 2*n {
		size *= 2
	}
	t := table{maphash.MakeSeed(), make([]uint32, size)}
	for id, r := range p.of(nameable) {
		s := p.text(r.name())
		end := bytes.IndexByte(s, 0)
		if end <= 0 {
			continue
		}
		i := maphash.Bytes(t.seed, s[:end])
		for t.ids[i&uint64(size-1)] != 0 {
			i++
		}
		t.ids[i&uint64(size-1)] = id
	}
	return t
}

func (t table) find(hash uint64) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		for i := hash; ; i++ {
			id := t.ids[i&uint64(len(t.ids)-1)]
			if id == 0 || !yield(id) {
				return
			}
		}
	}
}

// maxDepth bounds how deep types stand in each other, from one struct to the next: types behind are void.
const maxDepth = 64

// convert gives the model of a type. Equal numbers give the same value. A type that leads back to itself without a struct
// between is void there.
func (p *part) convert(id uint32, depth int) ctype.Type {
	for p != nil && id < p.first {
		p = p.below
	}
	if p == nil || depth > maxDepth {
		return ctype.Void{}
	}
	if t, ok := p.seen[id]; ok {
		return t
	}
	_, r := p.at(id)
	if r == nil {
		return ctype.Void{}
	}
	p.seen[id] = ctype.Void{} // while it is being converted
	t := p.one(id, r, depth+1)
	p.seen[id] = t
	return t
}

func (p *part) one(id uint32, r rec, depth int) ctype.Type {
	switch r.kind() {
	case kindInt:
		return p.integer(r)
	case kindFloat:
		return &ctype.Float{Name: p.string(r.name()), Size: r.size()}
	case kindEnum, kindEnum64:
		return p.enum(r)
	case kindPtr:
		return p.pointer(r, depth)
	case kindArray:
		return &ctype.Array{Elem: p.convert(le(r[typeLen:]), depth), Len: int(le(r[typeLen+8:]))}
	case kindStruct, kindUnion:
		return ctype.NewStruct(p.string(r.name()), r.kind() == kindUnion, r.size(), func() []ctype.Member { return p.members(id, r) })
	case kindFwd:
		return &ctype.Struct{Name: p.string(r.name()), Union: r.flag(), Fwd: true}
	case kindTypedef:
		return &ctype.Typedef{Name: p.string(r.name()), Type: p.convert(r.target(), depth)}
	case kindFuncProto:
		f := &ctype.Func{Result: p.convert(r.target(), depth)}
		for e := range r.elems() {
			f.Params = append(f.Params, ctype.Param{Name: p.string(e.name()), Type: p.convert(le(e[4:]), depth)})
		}
		return f
	case kindFunc, kindConst, kindVolatile, kindRestrict, kindTypeTag:
		return p.convert(r.target(), depth)
	}
	return ctype.Void{}
}

// Bits of the word that follows a kindInt: encoding in 24 to 27, offset in 16 to 23, size in 0 to 7.
const (
	intSigned = 1 << 24
	intChar   = 2 << 24
	intBool   = 4 << 24
)

func (p *part) integer(r rec) *ctype.Int {
	name, enc := p.string(r.name()), le(r[typeLen:])
	return &ctype.Int{Name: name, Size: r.size(), Signed: enc&intSigned != 0, Bool: enc&intBool != 0,
		Char: enc&intChar != 0 || strings.HasSuffix(name, "char")}
}

func (p *part) enum(r rec) *ctype.Enum {
	e := &ctype.Enum{Name: p.string(r.name()), Size: r.size(), Signed: r.flag(), Values: make([]ctype.EnumValue, 0, r.len())}
	for v := range r.elems() {
		e.Values = append(e.Values, ctype.EnumValue{Name: p.string(v.name()), Value: value(r, v)})
	}
	return e
}

// value is that of an enumerator v of the enum r.
func value(r, v rec) int64 {
	lo := le(v[4:])
	switch {
	case r.kind() == kindEnum64:
		return int64(uint64(le(v[8:]))<<32 | uint64(lo))
	case r.flag():
		return int64(int32(lo))
	}
	return int64(lo)
}

// enumerator gives the enum of a number if v, one of its values, has that name.
func (p *part) enumerator(id uint32, v rec, name string) (*ctype.Enum, bool) {
	if !p.is(v.name(), name) {
		return nil, false
	}
	e, ok := p.convert(id, 0).(*ctype.Enum)
	return e, ok
}

// pointer gathers the type tags that stand between a pointer and its target. With kind_flag (Linux 6.15) a tag is some
// other attribute.
func (p *part) pointer(r rec, depth int) ctype.Type {
	t, target := &ctype.Ptr{}, r.target()
	for range 16 {
		b, q := p.at(target)
		if q == nil || set(kindTypeTag, kindConst, kindVolatile, kindRestrict)>>q.kind()&1 == 0 {
			break
		}
		if q.kind() == kindTypeTag && !q.flag() {
			t.Tags = append(t.Tags, b.string(q.name()))
		}
		target = q.target()
	}
	t.Elem = p.convert(target, depth)
	return t
}

// members converts those of a struct. With kind_flag a member's offset has the size of a bitfield in its upper 8 bits;
// without, a bitfield's integer says its size, and what to add to the offset.
func (p *part) members(id uint32, r rec) []ctype.Member {
	out := make([]ctype.Member, 0, r.len())
	c := circles{p.BTF, id, r.size(), maxVisits}
	for e := range r.elems() {
		target, off := le(e[4:]), le(e[8:])
		m := ctype.Member{Name: p.string(e.name()), Type: ctype.Void{}, BitOff: int(off)}
		if !c.back(target) {
			m.Type = p.convert(target, 0)
		}
		if r.flag() {
			m.BitOff, m.BitSize = int(off&0xffffff), int(off>>24)
		} else if at, bits, ok := p.bitfield(target); ok {
			m.BitOff, m.BitSize = m.BitOff+at, bits
		}
		out = append(out, m)
	}
	return out
}
