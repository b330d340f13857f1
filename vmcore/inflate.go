package vmcore

import (
	"encoding/binary"
	"errors"
	"hash/adler32"
	"math/bits"
)

// inflater decompresses pages that are zlib streams (RFC 1950, RFC 1951). A page is 4096 bytes, of which each has tables of its
// own: what is general about streams (windows, readers, states between calls) costs more than what it decodes, so there is none
// of it here. Both sides are whole in memory, and matches are copied out of the page itself.
type inflater struct {
	src  []byte
	pos  int
	hold uint64 // bits that were read, the next one lowest
	n    int    // how many of them count; negative after the input's end

	lit, dist huffman
	lens      [maxLit + maxDist]uint8
}

const (
	litBits  = 9 // of a code, that one look into the table decodes
	distBits = 6
	maxCode  = 15

	maxLit, maxDist = 286, 30
)

var (
	errInflate  = errors.New("not a zlib stream")
	errTrailing = errors.New("decompresses to more than a page")
	errSum      = errors.New("its checksum is of other bytes")
)

// An entry of a table: bits 0-3 the length of the code, 4-7 what it is, 8-15 how many bits follow, 16-31 a value.
const (
	isLiteral = 1 << (4 + iota) // the value is a byte
	isEnd                       // of the block
	isTable                     // codes that are longer: they begin at the value, by as many bits as follow
	isValid                     // any code; an entry that no code leads to is 0
)

// huffman is a table of codes by their bits, those of longer ones behind it.
type huffman struct{ table []uint32 }

// Symbols 257 to 285 are lengths, and those of distances: base and how many bits follow.
var lengths, distances = func() (l [maxLit - 257]uint32, d [maxDist]uint32) {
	base := uint32(3)
	for i := range l {
		more := uint32(max(0, i/4-1))
		l[i] = base<<16 | more<<8
		base += 1 << more
	}
	l[len(l)-1] = 258 << 16
	base = 1
	for i := range d {
		more := uint32(max(0, i/2-1))
		d[i] = base<<16 | more<<8
		base += 1 << more
	}
	return l, d
}()

// page fills dst with what src decompresses to, and gives how much that is. More than fits is an error, and so is a checksum of
// something else.
func (f *inflater) page(dst, src []byte) (int, error) {
	if len(src) < 2 || src[0]&0xf != 8 || src[0]>>4 > 7 || src[1]&0x20 != 0 || binary.BigEndian.Uint16(src)%31 != 0 {
		return 0, errInflate
	}
	f.src, f.pos, f.hold, f.n = src, 2, 0, 0
	out := 0
	for last := false; !last; {
		f.fill()
		last = f.take(1) == 1
		var err error
		switch f.take(2) {
		case 0:
			out, err = f.stored(dst, out)
		case 1:
			f.fixed()
			out, err = f.block(dst, out)
		case 2:
			if err = f.tables(); err == nil {
				out, err = f.block(dst, out)
			}
		default:
			err = errInflate
		}
		if err != nil {
			return out, err
		}
	}
	f.align()
	if len(src)-f.pos < 4 {
		return out, errInflate
	}
	if binary.BigEndian.Uint32(src[f.pos:]) != adler32.Checksum(dst[:out]) {
		return out, errSum
	}
	return out, nil
}

// fill reads until 56 bits are there, or all that is left.
func (f *inflater) fill() {
	if f.n >= 0 && len(f.src)-f.pos >= 8 {
		f.hold |= binary.LittleEndian.Uint64(f.src[f.pos:]) << f.n
		f.pos += (63 - f.n) >> 3
		f.n |= 56
		return
	}
	for f.n >= 0 && f.n < 56 && f.pos < len(f.src) {
		f.hold |= uint64(f.src[f.pos]) << f.n
		f.pos++
		f.n += 8
	}
}

// take gives the next k bits, which are zeroes behind the end; f.n tells.
func (f *inflater) take(k int) uint32 {
	v := uint32(f.hold & (1<<k - 1))
	f.hold >>= k
	f.n -= k
	return v
}

// align drops what is left of a byte and gives back the bytes behind it.
func (f *inflater) align() {
	f.pos -= max(0, f.n) / 8
	f.hold, f.n = 0, 0
}

func (f *inflater) stored(dst []byte, out int) (int, error) {
	if f.n < 0 {
		return out, errInflate
	}
	f.align()
	if len(f.src)-f.pos < 4 {
		return out, errInflate
	}
	n := int(binary.LittleEndian.Uint16(f.src[f.pos:]))
	if uint16(n) != ^binary.LittleEndian.Uint16(f.src[f.pos+2:]) || len(f.src)-f.pos-4 < n {
		return out, errInflate
	}
	if n > len(dst)-out {
		return out, errTrailing
	}
	f.pos += 4
	copy(dst[out:], f.src[f.pos:f.pos+n])
	f.pos += n
	return out + n, nil
}

// block decodes up to the end of a block. What it changes stands in variables of its own meanwhile: this loop is what opening a
// dump mostly waits for.
func (f *inflater) block(dst []byte, out int) (int, error) {
	lit, dist := (*[1 << litBits]uint32)(f.lit.table), (*[1 << distBits]uint32)(f.dist.table)
	src, pos, hold, n := f.src, f.pos, f.hold, f.n
	for {
		if n < 48 { // no pair of length and distance has more bits
			if len(src)-pos >= 8 {
				hold |= binary.LittleEndian.Uint64(src[pos:]) << (uint(n) & 63)
				pos += (63 - n) >> 3
				n |= 56
			} else {
				f.pos, f.hold, f.n = pos, hold, n
				f.fill()
				if pos, hold, n = f.pos, f.hold, f.n; n < 0 {
					return out, errInflate
				}
			}
		}
		e := lit[hold&(1<<litBits-1)]
		if e&isLiteral != 0 { // another one may follow without looking for bits, but no pair then
			if out == len(dst) {
				return out, errTrailing
			}
			hold >>= e & 0xf
			n -= int(e & 0xf)
			dst[out] = byte(e >> 16)
			out++
			if e = lit[hold&(1<<litBits-1)]; e&isLiteral == 0 {
				continue
			}
		}
		if e&isTable != 0 {
			e = f.lit.table[e>>16+uint32(hold>>litBits)&(1<<(e>>8&63)-1)]
		}
		hold >>= e & 0xf
		n -= int(e & 0xf)
		switch {
		case e&isLiteral != 0:
			if out == len(dst) {
				return out, errTrailing
			}
			dst[out] = byte(e >> 16)
			out++
			continue
		case e&isValid == 0 || n < 0:
			return out, errInflate
		case e&isEnd != 0:
			f.pos, f.hold, f.n = pos, hold, n
			return out, nil
		}
		more := e >> 8 & 63
		length := int(e>>16) + int(hold&(1<<more-1))
		hold >>= more
		n -= int(more)
		e = dist[hold&(1<<distBits-1)]
		if e&isTable != 0 {
			e = f.dist.table[e>>16+uint32(hold>>distBits)&(1<<(e>>8&63)-1)]
		}
		hold >>= e & 0xf
		more = e >> 8 & 63
		back := int(e>>16) + int(hold&(1<<more-1))
		hold >>= more
		n -= int(e&0xf + more)
		switch {
		case e&isValid == 0 || n < 0 || back > out:
			return out, errInflate
		case length > len(dst)-out:
			return out, errTrailing
		}
		if back >= 8 && length <= 32 && len(dst)-out >= 40 { // mostly; what is too many is overwritten
			from := dst[out-back:]
			for i := 0; i < length; i += 8 {
				*(*[8]byte)(dst[out+i:]) = [8]byte(from[i:])
			}
			out += length
			continue
		}
		for from := out - back; length > 0; { // what is copied may be what is copied from: it doubles
			k := copy(dst[out:out+length], dst[from:out])
			out, length = out+k, length-k
		}
	}
}

// fixed makes the tables of blocks that bring none.
func (f *inflater) fixed() {
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	f.lit.make(lens[:], litBits, litEntry)
	for i := range maxDist + 2 {
		lens[i] = 5
	}
	f.dist.make(lens[:maxDist+2], distBits, distEntry)
}

func litEntry(symbol int) uint32 {
	switch {
	case symbol < 256:
		return uint32(symbol)<<16 | isLiteral | isValid
	case symbol == 256:
		return isEnd | isValid
	case symbol < maxLit:
		return lengths[symbol-257] | isValid
	}
	return 0
}

func distEntry(symbol int) uint32 {
	if symbol >= maxDist {
		return 0
	}
	return distances[symbol] | isValid
}

// codeOrder is the order in which lengths of the codes for lengths come.
var codeOrder = [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// tables reads the tables of a block.
func (f *inflater) tables() error {
	f.fill()
	nlit, ndist, ncode := int(f.take(5))+257, int(f.take(5))+1, int(f.take(4))+4
	if nlit > maxLit || ndist > maxDist {
		return errInflate
	}
	var lens [len(codeOrder)]uint8
	for _, i := range codeOrder[:ncode] {
		if f.n < 3 {
			f.fill()
		}
		lens[i] = uint8(f.take(3))
	}
	codes := &f.dist // until the real one is read
	if !codes.make(lens[:], distBits+1, func(symbol int) uint32 { return uint32(symbol)<<16 | isValid }) {
		return errInflate
	}
	for i := 0; i < nlit+ndist; {
		if f.n < 14 {
			f.fill()
		}
		e := codes.table[f.hold&(1<<(distBits+1)-1)]
		f.take(int(e & 0xf))
		if e&isValid == 0 || f.n < 0 {
			return errInflate
		}
		symbol, times, value := e>>16, 1, uint8(0)
		switch {
		case symbol < 16:
			value = uint8(symbol)
		case symbol == 16 && i == 0:
			return errInflate
		case symbol == 16:
			times, value = 3+int(f.take(2)), f.lens[i-1]
		case symbol == 17:
			times = 3 + int(f.take(3))
		default:
			times = 11 + int(f.take(7))
		}
		if times > nlit+ndist-i {
			return errInflate
		}
		for range times {
			f.lens[i] = value
			i++
		}
	}
	if f.n < 0 || f.lens[256] == 0 || !f.lit.make(f.lens[:nlit], litBits, litEntry) || !f.dist.make(f.lens[nlit:nlit+ndist], distBits, distEntry) {
		return errInflate
	}
	return nil
}

// make fills the table from the lengths of all symbols' codes. It is false if these codes cannot be, or leave some unused: one
// single code may, of one bit, or none at all.
func (h *huffman) make(lens []uint8, tableBits int, entry func(symbol int) uint32) bool {
	var count [maxCode + 1]int
	for _, l := range lens {
		count[l]++
	}
	longest := maxCode
	for longest > 0 && count[longest] == 0 {
		longest--
	}
	size := 1 << tableBits
	if cap(h.table) < size {
		h.table = make([]uint32, size, 4*size)
	}
	h.table = h.table[:size]
	var next [maxCode + 1]int
	code, left := 0, 1
	for l := 1; l <= maxCode; l++ {
		left = left<<1 - count[l]
		code = (code + count[l-1]*min(1, l-1)) << 1
		next[l] = code
		if left < 0 {
			return false
		}
	}
	if left > 0 {
		if longest > 1 {
			return false
		}
		clear(h.table)
	}
	more := max(0, longest-tableBits)
	if more > 0 {
		clear(h.table) // what is not a table yet is seen by it
	}
	for symbol, l := range lens {
		if l == 0 {
			continue
		}
		n := int(l)
		rev := int(bits.Reverse16(uint16(next[n])) >> (16 - n))
		next[n]++
		e := entry(symbol) | uint32(n)
		if n <= tableBits {
			for i := rev; i < size; i += 1 << n {
				h.table[i] = e
			}
			continue
		}
		first := rev & (size - 1)
		if h.table[first] == 0 {
			at := len(h.table)
			h.table = append(h.table, make([]uint32, 1<<more)...)
			h.table[first] = uint32(at)<<16 | uint32(more)<<8 | isTable
		}
		for i, at := rev>>tableBits, h.table[first]>>16; i < 1<<more; i += 1 << (n - tableBits) {
			h.table[int(at)+i] = e
		}
	}
	return true
}
