package nft

import (
	"fmt"
	"slices"
	"strings"
)

// operand is what stands in a register: where it came from, and what was done to it since.
type operand struct {
	text  string // "meta mark"; of a payload it depends on the headers that are known when it is used
	typ   uint32
	big   bool // byteorder has put it in network order
	len   int
	imm   []byte // of an immediate
	isPl  bool
	base  uint32
	off   int // bytes
	mask  []byte
	xor   []byte
	shift string // "<< 3"
	kind  string // name of the expression that made it
	key   uint32
	// of an expression with a map, as in "tcp dport map { … }"
	data *Set
}

// part is a field of a header within a payload, with the bytes of a value that belong to it.
type part struct {
	field
	header string
	shift  int // bits of the value behind it
}

// headerAt is the header a payload expression reads, as far as the rule has said what there is.
func (r *renderer) headerAt(o operand) (header, bool) {
	if o.base >= baseOption {
		h, ok := options[o.base]
		return h, ok
	}
	switch o.base {
	case baseLink:
		if o.off >= 14 {
			return vlanHeader, true
		}
		return etherHeader, true
	case baseNetwork:
		switch r.l3 {
		case "ip":
			return ipHeader, true
		case "ip6":
			return ip6Header, true
		case "arp":
			return arpHeader, true
		}
	case baseTransport:
		if r.l4 >= 0 {
			h, ok := transports[uint8(r.l4)]
			if x, is := icmpBodies[[2]int{r.l4, r.icmp}]; is {
				h.fields = append(slices.Clip(h.fields[:3]), x...)
			}
			return h, ok
		}
		return thHeader, true
	}
	return header{}, false
}

// bitField finds the field that a mask leaves of a payload.
func (r *renderer) bitField(o operand, mask []byte) (part, bool) {
	h, ok := r.headerAt(o)
	if !ok || mask == nil {
		return part{}, false
	}
	lead, n := 0, popcount(mask)
	for lead < len(mask)*8 && mask[lead/8]>>(7-lead%8)&1 == 0 {
		lead++
	}
	for i := lead; i < lead+n; i++ {
		if mask[i/8]>>(7-i%8)&1 == 0 {
			return part{}, false
		}
	}
	for _, f := range h.fields {
		if f.off == o.off*8+lead && f.bits == n {
			return part{f, h.name, (o.off+o.len)*8 - f.off - f.bits}, true
		}
	}
	return part{}, false
}

// parts finds the fields that a payload is made of; nil if they are none or not whole ones.
func (r *renderer) parts(o operand) []part {
	h, ok := r.headerAt(o)
	if !ok {
		return nil
	}
	if p, ok := r.bitField(o, o.mask); ok {
		return []part{p}
	}
	from, to := o.off*8, (o.off+o.len)*8
	var out []part
	for at := from; at < to; {
		i := slices.IndexFunc(h.fields, func(f field) bool { return f.off == at && f.off+f.bits <= to })
		if i < 0 {
			return nil
		}
		f := h.fields[i]
		out = append(out, part{f, h.name, to - f.off - f.bits})
		at += f.bits
	}
	return out
}

func popcount(d []byte) int {
	n := 0
	for _, b := range d {
		for ; b != 0; b &= b - 1 {
			n++
		}
	}
	return n
}

// of takes a part's bits out of a value of n bytes.
func (p part) of(d []byte) []byte {
	bits := len(d) * 8
	out := make([]byte, (p.bits+7)/8)
	for i := range p.bits {
		src := bits - p.shift - 1 - i
		if src >= 0 && d[src/8]>>(7-src%8)&1 != 0 {
			dst := len(out)*8 - 1 - i
			out[dst/8] |= 1 << (7 - dst%8)
		}
	}
	return out
}

var baseNames = []string{"ll", "nh", "th", "ih"}

// name writes an operand as the left side of a comparison.
func (r *renderer) name(o operand) string {
	text := o.text
	if o.isPl {
		if p := r.parts(o); len(p) == 1 {
			text = p[0].header + " " + p[0].name
		} else if h, ok := r.headerAt(o); ok && len(p) > 1 {
			var w []string
			for _, x := range p {
				w = append(w, h.name+" "+x.name)
			}
			text = strings.Join(w, " . ")
		} else if a, ok := r.address(o); ok {
			text = a.header + " " + a.name
		} else if o.base < uint32(len(baseNames)) {
			text = fmt.Sprintf("@%s,%d,%d", baseNames[o.base], o.off*8, o.len*8)
		}
	}
	return text + o.shift
}

// address finds the address field whose first bytes a payload reads: so nft compares prefixes of whole bytes.
func (r *renderer) address(o operand) (part, bool) {
	h, ok := r.headerAt(o)
	if !ok || o.mask != nil {
		return part{}, false
	}
	for _, f := range h.fields {
		if f.off == o.off*8 && f.bits > o.len*8 && (f.typ == tIPAddr || f.typ == tIP6Addr) {
			return part{f, h.name, 0}, true
		}
	}
	return part{}, false
}

// typeOf is the type of an operand's value.
func (r *renderer) typeOf(o operand) uint32 {
	if o.isPl {
		if p := r.parts(o); len(p) == 1 {
			return p[0].typ
		}
		if a, ok := r.address(o); ok {
			return a.typ
		}
		if o.typ == 0 {
			return tHex
		}
	}
	return o.typ
}
