package cdecl

import "github.com/fathom-trace/fathom/ctype"

// layout collects the members of a struct or union in order.
type layout struct {
	union   bool
	members []ctype.Member
	widths  []int // in bits; -1: no bitfield
	special bool  // some member is aligned(n)
	given   []int // aligned(n) of members, in bytes; 0: none
	aligns  map[*ctype.Struct]int
}

func (l *layout) add(name string, t ctype.Type, width, align int) {
	l.given = append(l.given, align)
	l.special = l.special || align > 0
	l.members = append(l.members, ctype.Member{Name: name, Type: t})
	l.widths = append(l.widths, width)
}

// finish gives the members their places, and size and alignment in bytes.
func (l *layout) finish(attr attributes) (ms []ctype.Member, bytes, alignment int) {
	packed := attr.packed
	bit, size, align := 0, 0, 1
	var out []ctype.Member
	for i, m := range l.members {
		a := alignOf(m.Type, l.aligns)
		if packed {
			a = 1
		}
		a = max(a, l.given[i])
		bytes, w := ctype.Size(m.Type), l.widths[i]
		if l.union {
			bit = 0
		}
		switch {
		case w == 0: // ends the unit
			bit = roundUp(bit, 8*alignOf(m.Type, l.aligns))
			continue
		case w > 0:
			if unit := 8 * bytes; unit > 0 && !packed && bit/unit != (bit+w-1)/unit {
				bit = roundUp(bit, unit)
			}
			m.BitOff, m.BitSize = bit, w
			bit += w
		default:
			bit = roundUp(bit, 8*a)
			m.BitOff = bit
			bit += 8 * bytes
		}
		align = max(align, a)
		size = max(size, (bit+7)/8)
		if m.Name != "" || w < 0 {
			out = append(out, m)
		}
	}
	align = max(align, attr.align)
	return out, roundUp(size, align), align
}

func roundUp(n, to int) int {
	if to <= 1 {
		return n
	}
	return (n + to - 1) / to * to
}

// alignOf gives the alignment of t in bytes: the natural one, but for structs in aligns.
func alignOf(t ctype.Type, aligns map[*ctype.Struct]int) int {
	switch t := ctype.Strip(t).(type) {
	case *ctype.Array:
		return alignOf(t.Elem, aligns)
	case *ctype.Struct:
		if a := aligns[t]; a > 0 {
			return a
		}
		a := 1
		for _, m := range t.Members() {
			a = max(a, alignOf(m.Type, aligns))
		}
		return a
	default:
		return max(1, min(16, ctype.Size(t)))
	}
}
