package ctf

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// Values that CTF 2 has and CTF 1.8 does not, and arrays of what is no integer, which both have.

// readSpecial reads an integer that is none of C's.
func (d *decoder) readSpecial(t *typ) uint64 {
	if t.special.leb {
		return d.readLEB(t.signed)
	}
	v := d.readInt(t.special.plain)
	if t.special.reversed {
		v = bits.Reverse64(v) >> (64 - t.size)
	}
	if t.special.truth && v != 0 {
		return 1
	}
	if t.signed {
		v = uint64(int64(v<<(64-t.size)) >> (64 - t.size))
	}
	return v
}

// readLEB reads a number of LEB128. Those that do not fit 64 bits are refused.
func (d *decoder) readLEB(signed bool) uint64 {
	d.at = (d.at + 7) &^ 7
	var v uint64
	for shift := 0; shift < 64 && d.at+8 <= d.end; shift += 7 {
		c := d.b[d.at>>3]
		d.at += 8
		v |= uint64(c&0x7f) << shift
		if c&0x80 != 0 {
			continue
		}
		d.bits = shift + 7
		minus := signed && c&0x40 != 0
		if d.bits < 64 {
			if minus {
				v |= ^uint64(0) << d.bits
			}
			return v
		}
		if c == 0 || c == 1 && !signed || c == 0x7f && minus { // of the tenth byte one bit is left
			return v
		}
		break
	}
	d.bad = true
	return 0
}

// readFloat reads a number of 16 or 128 bits with a point, as one of 32 or 64 bits.
func (d *decoder) readFloat(t *typ) uint64 {
	if t.size == 16 {
		return uint64(math.Float32bits(half(uint16(d.readInt(t)))))
	}
	first := *t
	first.size = 64
	if t.special != nil {
		s := *t.special
		s.plain = &typ{kind: kindFloat, size: 64, align: t.align, big: t.big}
		first.special = &s
	}
	second := first
	second.align = 1
	a, b := d.readInt(&first), d.readInt(&second)
	if t.big == (t.special != nil) { // the lower half is first
		a, b = b, a
	}
	return math.Float64bits(quadruple(a, b))
}

// half is the value of a binary16 of IEEE 754.
func half(v uint16) float32 {
	sign, exp, frac := uint32(v>>15), int(v>>10&0x1f), uint32(v&0x3ff)
	switch {
	case exp == 0x1f:
		return math.Float32frombits(sign<<31 | 0xff<<23 | frac<<13)
	case exp == 0:
		f := float32(math.Ldexp(float64(frac), -24))
		return math.Float32frombits(math.Float32bits(f) | sign<<31)
	}
	return math.Float32frombits(sign<<31 | uint32(exp-15+127)<<23 | frac<<13)
}

// quadruple is the value of a binary128 of IEEE 754, as near as 64 bits can have it.
func quadruple(hi, lo uint64) float64 {
	exp, frac := int(hi>>48&0x7fff), hi<<16|lo>>48 // the 64 highest bits of 112
	var f float64
	switch {
	case exp == 0x7fff && frac|lo != 0:
		return math.NaN()
	case exp == 0x7fff:
		f = math.Inf(1)
	case exp != 0: // what is below is too small for 64 bits
		f = math.Ldexp(float64(1<<63|frac>>1), exp-16383-63)
	}
	return math.Copysign(f, -float64(hi>>63)+0.5)
}

// encoded reads text of UTF-16 or UTF-32; it is UTF-8 in the record.
func (d *decoder) encoded(s *step) {
	at, end, unit := (d.at+7)&^7>>3, d.end>>3, s.t.unit
	n := uint64(max(end-at, 0))
	terminated := s.n < 0 && s.from < 0
	if !terminated {
		size := uint64(s.n)
		if s.from >= 0 {
			size = d.slot[s.from]
		}
		if size > n {
			d.bad = true
			return
		}
		n = size
	}
	var order binary.ByteOrder = binary.LittleEndian
	if s.t.big {
		order = binary.BigEndian
	}
	from := len(d.out)
	var high rune // the first half of a pair
	b := d.b[at : at+int(n)]
	for {
		if len(b) < unit {
			if d.bad = terminated || len(b) > 0; d.bad {
				return
			}
			break
		}
		var c rune
		if unit == 2 {
			c = rune(order.Uint16(b))
		} else {
			c = rune(min(order.Uint32(b), utf8.MaxRune+1))
		}
		b = b[unit:]
		if c == 0 {
			break
		}
		switch {
		case unit == 2 && high != 0 && c >= 0xdc00 && c < 0xe000:
			d.out = utf8.AppendRune(d.out[:len(d.out)-len("\ufffd")], utf16.DecodeRune(high, c))
			high = 0
		default:
			high = 0
			if unit == 2 && c >= 0xd800 && c < 0xdc00 {
				high = c
			}
			d.out = utf8.AppendRune(d.out, c) // half a pair is U+FFFD until the other half is there
		}
	}
	if d.at = (at + int(n)) * 8; terminated {
		d.at -= len(b) * 8
	}
	if s.dst < 0 || s.size != 4 {
		d.out = d.out[:from]
		return
	}
	d.out = append(d.out, 0)
	d.locate(s.dst, from, located)
}

// maxList bounds the text of an array: locations have 16 bits.
const maxList = 32 << 10

// list reads an array of what is no integer. In the record it is text.
func (d *decoder) list(s *step) {
	n := uint64(s.n)
	if s.from >= 0 {
		n = d.slot[s.from]
	}
	if n > uint64(max(d.end-d.at, 0)) && len(s.sub) > 0 { // nothing takes less than a bit, but what has no fields
		d.bad = true
		return
	}
	record := d.out
	defer func() { d.out = record }()
	element := make([]byte, s.fixed, 2*s.fixed+64)
	text := []byte{'{'}
	for i := range n {
		start := d.at
		d.out = element
		clear(d.out)
		if d.run(s.sub); d.bad {
			return
		}
		if s.format != nil && len(text) < maxList {
			if i > 0 {
				text = append(text, ',')
			}
			text = s.appendElement(text, d.out)
		}
		if d.at == start {
			break
		}
	}
	if s.dst < 0 || s.size != 4 {
		return
	}
	from := len(record)
	d.out = append(append(record, text...), '}', 0)
	d.locate(s.dst, from, located)
	record = d.out
}

// appendElement writes an element of an array: structs in braces.
func (s *step) appendElement(text, rec []byte) []byte {
	if s.t.kind != kindStruct && len(s.format.Fields) == 1 {
		return s.format.Fields[0].AppendValue(text, rec)
	}
	text = append(text, '{')
	text = s.format.AppendFields(text, rec)
	return append(text, '}')
}
