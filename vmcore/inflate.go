package vmcore

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"math/bits"
)

// inflater decompresses pages of zlib's format (RFC 1950, RFC 1951): all that is compressed is at hand, and so is the place for all that
// comes out of it. A decoder of streams, which has a window and reads byte by byte, takes twice the time, and that is most of what a
// first page takes.
type inflater struct {
	src   []byte
	pos   int
	acc   uint64 // bits that were read and not used, the first one lowest
	n     int    // how many; below 0: more were used than there are
	lit   huffman
	dist  huffman
	order huffman // of the lengths of the other two's codes
	lens  [maxLits + maxDists]uint8
}

const (
	maxCode  = 15
	maxLits  = 286
	maxDists = 30
	fastBits = 9
)

var (
	errDeflate  = errors.New("no data of zlib's")
	errChecksum = errors.New("its checksum is of other bytes")
)

// huffman is a code. fast tells of the next fastBits bits what they begin with: a symbol and, in the low four bits, the length
// of its code; 0 where that is longer, or none.
type huffman struct {
	fast   [1 << fastBits]uint16
	count  [maxCode + 1]uint16 // codes by their length
	symbol [288]uint16         // in the order of the codes
}

// build makes the code in which symbol i has lens[i] bits, none if that is 0. Codes that leave something open are none, but for
// one of a single bit.
func (h *huffman) build(lens []uint8) bool {
	h.count = [maxCode + 1]uint16{}
	for _, l := range lens {
		h.count[l]++
	}
	h.count[0] = 0
	h.fast = [1 << fastBits]uint16{}
	var at, code [maxCode + 2]uint16
	left, longest := 1, 0
	for l := 1; l <= maxCode; l++ {
		if left = left<<1 - int(h.count[l]); left < 0 {
			return false
		}
		at[l+1] = at[l] + h.count[l]
		code[l+1] = (code[l] + h.count[l]) << 1
		if h.count[l] > 0 {
			longest = l
		}
	}
	if left > 0 && longest > 0 && (longest > 1 || h.count[1] != 1) {
		return false
	}
	for i, l := range lens {
		if l == 0 {
			continue
		}
		h.symbol[at[l]] = uint16(i)
		at[l]++
		if l <= fastBits {
			entry := uint16(i)<<4 | uint16(l)
			for k := int(bits.Reverse16(code[l]) >> (16 - l)); k < 1<<fastBits; k += 1 << l {
				h.fast[k] = entry
			}
		}
		code[l]++
	}
	return true
}

// fill has at least 56 bits in acc, or all that there are.
func (d *inflater) fill() {
	if d.pos+8 <= len(d.src) && d.n >= 0 {
		d.acc |= binary.LittleEndian.Uint64(d.src[d.pos:]) << d.n
		d.pos += (63 - d.n) >> 3
		d.n |= 56
		return
	}
	for d.n >= 0 && d.n <= 56 && d.pos < len(d.src) {
		d.acc |= uint64(d.src[d.pos]) << d.n
		d.pos++
		d.n += 8
	}
}

// take uses k bits, of at most 16; fill was called.
func (d *inflater) take(k int) int {
	v := d.acc & (1<<k - 1)
	d.acc >>= k
	d.n -= k
	return int(v)
}

// next reads a symbol of h, -1 if the bits are none's; fill was called.
func (d *inflater) next(h *huffman) int {
	if e := h.fast[d.acc&(1<<fastBits-1)]; e != 0 {
		d.acc >>= e & 15
		d.n -= int(e & 15)
		return int(e >> 4)
	}
	code, first, index := 0, 0, 0
	for l := 1; l <= maxCode; l++ {
		code |= int(d.acc >> (l - 1) & 1)
		n := int(h.count[l])
		if code-first < n {
			d.acc >>= l
			d.n -= l
			return int(h.symbol[index+code-first])
		}
		index += n
		first = (first + n) << 1
		code <<= 1
	}
	return -1
}

// page decompresses src into dst, which it may fill or not, and gives how much there is.
func (d *inflater) page(dst, src []byte) (int, error) {
	if len(src) < 6 || src[0]&15 != 8 || src[0]>>4 > 7 || src[1]&0x20 != 0 || binary.BigEndian.Uint16(src)%31 != 0 {
		return 0, errDeflate
	}
	d.src, d.pos, d.acc, d.n = src, 2, 0, 0
	out := 0
	for last := false; !last; {
		d.fill()
		last = d.take(1) != 0
		var err error
		switch d.take(2) {
		case 0:
			out, err = d.stored(dst, out)
		case 1:
			d.fixed()
			out, err = d.block(dst, out)
		case 2:
			if err = d.codes(); err == nil {
				out, err = d.block(dst, out)
			}
		default:
			err = errDeflate
		}
		if err == nil && d.n < 0 {
			err = errDeflate
		}
		if err != nil {
			return out, err
		}
	}
	sum := d.src[d.pos-d.n/8:]
	if len(sum) < 4 || binary.BigEndian.Uint32(sum) != adler32.Checksum(dst[:out]) {
		return out, errChecksum
	}
	return out, nil
}

// stored copies a block that is not compressed.
func (d *inflater) stored(dst []byte, out int) (int, error) {
	d.take(d.n & 7)
	if d.n < 0 {
		return out, errDeflate
	}
	b := d.src[d.pos-d.n/8:]
	if len(b) < 4 || binary.LittleEndian.Uint16(b) != ^binary.LittleEndian.Uint16(b[2:]) {
		return out, errDeflate
	}
	n := int(binary.LittleEndian.Uint16(b))
	switch b = b[4:]; {
	case n > len(b):
		return out, errDeflate
	case n > len(dst)-out:
		return out, errLong
	}
	copy(dst[out:], b[:n])
	d.pos, d.acc, d.n = len(d.src)-len(b)+n, 0, 0
	return out + n, nil
}

// fixed makes the codes that every decompressor knows.
func (d *inflater) fixed() {
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	d.lit.build(lens[:])
	for i := range 32 {
		lens[i] = 5
	}
	d.dist.build(lens[:32])
}

// lensOrder is in which order the lengths of the lengths' code stand.
var lensOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// codes reads the codes of a block.
func (d *inflater) codes() error {
	d.fill()
	lits, dists, n := 257+d.take(5), 1+d.take(5), 4+d.take(4)
	if lits > maxLits || dists > maxDists {
		return errDeflate
	}
	var lens [19]uint8
	for _, i := range lensOrder[:n] {
		d.fill()
		lens[i] = uint8(d.take(3))
	}
	if !d.order.build(lens[:]) {
		return errDeflate
	}
	all := d.lens[:lits+dists]
	for at := 0; at < len(all); {
		d.fill()
		s := d.next(&d.order)
		run, of := 1, uint8(0)
		switch {
		case s < 0 || s == 16 && at == 0:
			return errDeflate
		case s < 16:
			of = uint8(s)
		case s == 16:
			run, of = 3+d.take(2), all[at-1]
		case s == 17:
			run = 3 + d.take(3)
		default:
			run = 11 + d.take(7)
		}
		if d.n < 0 || run > len(all)-at {
			return errDeflate
		}
		for range run {
			all[at] = of
			at++
		}
	}
	if !d.lit.build(all[:lits]) || !d.dist.build(all[lits:]) {
		return errDeflate
	}
	return nil
}

// The lengths and distances that symbols begin at, and how many bits follow for the rest.
var (
	lengthBase = [29]uint16{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	lengthBits = [29]uint8{8: 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	distBase   = [30]uint16{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577}
	distBits   = [30]uint8{4: 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// block decompresses up to the end of a block. It has the state in variables of its own, which stay in registers.
func (d *inflater) block(dst []byte, out int) (int, error) {
	const mask = 1<<fastBits - 1
	src, pos, acc, n := d.src, d.pos, d.acc, d.n
	lit, dist := &d.lit, &d.dist
	for n >= 0 {
		if pos+8 <= len(src) { // as fill
			acc |= binary.LittleEndian.Uint64(src[pos:]) << (n & 63)
			pos += (63 - n) >> 3
			n |= 56
		} else {
			for n <= 56 && pos < len(src) {
				acc |= uint64(src[pos]) << (n & 63)
				pos++
				n += 8
			}
		}
		e := lit.fast[acc&mask]
		for e-1 < 256<<4-1 && n >= 48 { // literals, as long as the bits are enough for what may follow: 15 + 5 + 15 + 13
			if out >= len(dst) {
				return out, errLong
			}
			dst[out] = byte(e >> 4)
			out++
			acc >>= e & 15
			n -= int(e & 15)
			e = lit.fast[acc&mask]
		}
		if n < 48 && pos < len(src) {
			continue
		}
		s := int(e >> 4)
		if e != 0 {
			acc >>= e & 15
			n -= int(e & 15)
		} else {
			d.acc, d.n = acc, n
			s = d.next(lit)
			acc, n = d.acc, d.n
		}
		switch {
		case n < 0 || s < 0 || s > 285:
			return out, errDeflate
		case s == 256:
			d.pos, d.acc, d.n = pos, acc, n
			return out, nil
		case s < 256:
			if out >= len(dst) {
				return out, errLong
			}
			dst[out] = byte(s)
			out++
			continue
		}
		k := lengthBits[s-257]
		length := int(lengthBase[s-257]) + int(acc&(1<<k-1))
		acc >>= k
		n -= int(k)
		if e := dist.fast[acc&mask]; e != 0 {
			s = int(e >> 4)
			acc >>= e & 15
			n -= int(e & 15)
		} else {
			d.acc, d.n = acc, n
			s = d.next(dist)
			acc, n = d.acc, d.n
		}
		if s < 0 || s >= maxDists {
			return out, errDeflate
		}
		k = distBits[s]
		back := int(distBase[s]) + int(acc&(1<<k-1))
		acc >>= k
		n -= int(k)
		switch {
		case n < 0 || back > out:
			return out, errDeflate
		case length > len(dst)-out:
			return out, errLong
		case back >= 8 && length+8 <= len(dst)-out: // what is written behind the end is written over, or is not asked for
			for i, end := out, out+length; i < end; i += 8 {
				binary.LittleEndian.PutUint64(dst[i:], binary.LittleEndian.Uint64(dst[i-back:]))
			}
		default:
			for i := out; i < out+length; i++ {
				dst[i] = dst[i-back]
			}
		}
		out += length
	}
	return out, errDeflate
}
