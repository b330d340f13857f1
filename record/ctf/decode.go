package ctf

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// decoder runs steps over the bits of a packet.
type decoder struct {
	b    []byte
	at   int // bits
	end  int // bits: where content ends
	bad  bool
	slot []uint64
	out  []byte // the record
	head head
	bits int // that the last number of LEB128 can have
	uuid []byte
}

// head is what headers and contexts say by the roles of their fields.
type head struct {
	magic, stream, id          uint64
	time                       uint64
	begin, last                uint64
	content, size              uint64
	discarded                  uint64
	cpu                        uint64
	hasBegin, hasContent       bool
	hasSize, hasDisc, hasCPU   bool
	hasEnd                     bool
	hasID, hasStream, hasMagic bool
	discardedBits              int
}

// readInt reads an integer of n bits.
func (d *decoder) readInt(t *typ) uint64 {
	if t.special != nil {
		return d.readSpecial(t)
	}
	if t.align > 1 {
		d.at = (d.at + t.align - 1) &^ (t.align - 1)
	}
	n := t.size
	if d.at+n > d.end {
		d.bad = true
		return 0
	}
	at := d.at
	d.at += n
	var v uint64
	switch {
	case at&7 == 0 && n&7 == 0 && !t.big:
		v = little(d.b[at>>3:], n>>3)
	case at&7 == 0 && n&7 == 0:
		for _, c := range d.b[at>>3 : (at+n)>>3] {
			v = v<<8 | uint64(c)
		}
	case t.big:
		for i := at; i < at+n; i++ { // the first bit is the highest
			v = v<<1 | uint64(d.b[i>>3]>>(7-i&7)&1)
		}
	default:
		v = littleBits(d.b, at, n)
	}
	if t.signed && n < 64 {
		v = uint64(int64(v<<(64-n)) >> (64 - n))
	}
	return v
}

func little(b []byte, n int) uint64 {
	switch n {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	var v uint64
	for i := n - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

// littleBits reads n bits at bit at, the first bit being the lowest.
func littleBits(b []byte, at, n int) uint64 {
	var v uint64
	for got := 0; got < n; {
		c := uint64(b[(at+got)>>3]) >> ((at + got) & 7)
		take := min(8-(at+got)&7, n-got)
		v |= c & (1<<take - 1) << got
		got += take
	}
	return v
}

// run decodes what steps say.
func (d *decoder) run(steps []step) {
	for i := range steps {
		s := &steps[i]
		switch s.op {
		case opCopy:
			at := (d.at + 7) &^ 7
			if d.at = at + s.n*8; d.at > d.end {
				d.bad = true
				return
			}
			copy(d.out[s.dst:s.dst+s.n], d.b[at>>3:])
		case opInt:
			v := d.readInt(s.t)
			if s.slot >= 0 {
				d.slot[s.slot] = v
			}
			if s.role != roleNone {
				d.note(s, v)
			}
			if s.dst >= 0 {
				store(d.out[s.dst:], s.size, v)
			}
		case opAlign:
			d.at = (d.at + s.n - 1) &^ (s.n - 1)
		case opString:
			d.text(s)
		case opArray, opSeqInts:
			d.repeat(s)
		case opList:
			d.list(s)
		case opText:
			d.encoded(s)
		case opFloat:
			if v := d.readFloat(s.t); s.dst >= 0 {
				store(d.out[s.dst:], s.size, v)
			}
		case opVariant:
			d.choose(s)
		}
		if d.bad {
			return
		}
	}
}

func store(b []byte, size int, v uint64) {
	switch size {
	case 1:
		b[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(b, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(b, uint32(v))
	case 8:
		binary.LittleEndian.PutUint64(b, v)
	}
}

// locate has the record tell of what was appended to it from at on.
func (d *decoder) locate(dst, at int, by where) {
	if by == trailing {
		if at != dst { // something else is there: this is nowhere
			d.out = d.out[:at]
		}
		return
	}
	n := len(d.out) - at
	if at > 1<<16-1 || n > 1<<16-1 { // more than a location can tell
		d.out = d.out[:at]
		at, n = 0, 0
	}
	if by == relative && n > 0 {
		at -= dst + 4
	}
	binary.LittleEndian.PutUint32(d.out[dst:], uint32(n)<<16|uint32(at))
}

func (d *decoder) text(s *step) {
	at := (d.at + 7) &^ 7 >> 3
	end := d.end >> 3
	for i := at; i < end; i++ {
		if d.b[i] == 0 {
			d.at = (i + 1) * 8
			if s.dst >= 0 && s.size == 4 {
				from := len(d.out)
				d.out = append(d.out, d.b[at:i+1]...)
				d.locate(s.dst, from, located)
			}
			return
		}
	}
	d.bad = true
}

func (d *decoder) repeat(s *step) {
	n := uint64(s.n)
	if s.op != opArray {
		n = d.slot[s.from]
	}
	if n > uint64(d.end-d.at) { // nothing takes less than a bit
		d.bad = true
		return
	}
	from, size := len(d.out), bytesFor(s.t.size)
	switch {
	case s.t.whole(): // the bytes as they are
		at := (d.at + 7) &^ 7
		if d.at = at + int(n)*s.t.size; d.at > d.end {
			d.bad = true
			return
		}
		b := d.b[at>>3 : d.at>>3]
		if s.role&roleUUID != 0 && d.uuid != nil && !bytes.Equal(b, d.uuid) {
			d.bad = true
			return
		}
		if s.op == opSeqInts && s.dst >= 0 {
			d.out = append(d.out, b...)
		} else if s.dst >= 0 {
			copy(d.out[s.dst:s.dst+s.size], b)
		}
	default:
		for i := range int(n) {
			v := d.readInt(s.t)
			if d.bad {
				return
			}
			if s.op == opSeqInts && s.dst >= 0 {
				var tmp [8]byte
				store(tmp[:], size, v)
				d.out = append(d.out, tmp[:size]...)
			} else if s.dst >= 0 {
				store(d.out[s.dst+i*size:], size, v)
			}
		}
	}
	if s.op == opSeqInts && s.dst >= 0 {
		d.locate(s.dst, from, s.where)
	}
}

// choose runs the option of a variant that its tag chooses.
func (d *decoder) choose(s *step) {
	v := int64(d.slot[s.from])
	for i := range s.choice {
		if c := &s.choice[i]; v >= c.lo && v <= c.hi {
			if s.dst >= 0 {
				store(d.out[s.dst:], 2, uint64(c.option)+1)
			}
			d.run(s.cases[c.option])
			return
		}
	}
	d.bad = !s.maybe
}

// note keeps what a field of a header means.
func (d *decoder) note(s *step, v uint64) {
	size := s.t.size
	if s.t.special != nil && s.t.special.leb {
		size = d.bits
	}
	for r := s.role; r != 0; r &= r - 1 {
		d.means(r&-r, size, v)
	}
}

// means keeps what a field of so many bits means.
func (d *decoder) means(r role, size int, v uint64) {
	h := &d.head
	switch r {
	case roleMagic:
		h.magic, h.hasMagic = v, true
	case roleStream:
		h.stream, h.hasStream = v, true
	case roleID:
		h.id, h.hasID = v, true
	case roleTime:
		if size >= 64 {
			h.time = v
			return
		}
		mask := uint64(1)<<size - 1
		t := h.time&^mask | v&mask
		if t < h.time {
			t += mask + 1
		}
		h.time = t
	case rolePacketBegin:
		h.begin, h.hasBegin = v, true
	case rolePacketEnd:
		h.last, h.hasEnd = v, true
	case roleContent:
		h.content, h.hasContent = v, true
	case rolePacketSize:
		h.size, h.hasSize = v, true
	case roleDiscarded:
		h.discarded, h.hasDisc, h.discardedBits = v, true, size
	case roleCPU:
		h.cpu, h.hasCPU = v, true
	}
}

// ns converts cycles of the clock to ns.
func (c Clock) ns(v uint64) uint64 {
	if c.Freq == 1e9 || c.Freq == 0 {
		return v
	}
	hi, lo := bits.Mul64(v, 1e9)
	if hi >= c.Freq {
		return 1<<64 - 1
	}
	q, _ := bits.Div64(hi, lo, c.Freq)
	return q
}
