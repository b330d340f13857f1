package btftypes

// What a member is by value.

// bitfield reports an integer that has not all bits of its bytes.
func (b *BTF) bitfield(id uint32) (at, bits int, ok bool) {
	_, r := b.at(b.value(id))
	if r == nil || r.kind() != kindInt {
		return 0, 0, false
	}
	w := le(r[typeLen:])
	at, bits = int(w>>16&0xff), int(w&0xff)
	return at, bits, at != 0 || bits != 8*r.size()
}

// value follows typedefs and qualifiers; 0 if they lead nowhere.
func (b *BTF) value(id uint32) uint32 {
	for range maxDepth {
		_, r := b.at(id)
		if r == nil || set(kindTypedef, kindConst, kindVolatile, kindRestrict, kindTypeTag)>>r.kind()&1 == 0 {
			return id
		}
		id = r.target()
	}
	return 0
}

// element follows arrays too.
func (b *BTF) element(id uint32) uint32 {
	for range maxDepth {
		id = b.value(id)
		_, r := b.at(id)
		if r == nil || r.kind() != kindArray {
			return id
		}
		id = le(r[typeLen:])
	}
	return 0
}

// record gives a struct or union; nil for what is neither.
func (b *BTF) record(id uint32) rec {
	if _, r := b.at(id); r != nil && set(kindStruct, kindUnion)>>r.kind()&1 != 0 {
		return r
	}
	return nil
}

// maxVisits bounds the search for circles in one struct. Those of kernels need a few hundred visits.
const maxVisits = 1 << 16

// circles finds members of a struct, of size bytes, that contain it: who walks over members would never return. On every
// way around such a circle one member is no smaller than the struct that it is in, so only these are looked into.
type circles struct {
	b    *BTF
	id   uint32
	size int
	left int // visits
}

// back reports a member by its type. What has no end counts as one.
func (c *circles) back(member uint32) bool {
	member = c.b.element(member)
	if r := c.b.record(member); r == nil || r.size() < c.size {
		return member == 0
	}
	seen := map[uint32]bool{}
	for stack := []uint32{member}; len(stack) > 0; {
		at := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if at == c.id || at == 0 || c.left == 0 {
			return true
		}
		r := c.b.record(at)
		if r == nil || seen[at] {
			continue
		}
		seen[at] = true
		for e := range r.elems() {
			if c.left == 0 {
				return true
			}
			c.left--
			stack = append(stack, c.b.element(le(e[4:])))
		}
	}
	return false
}
