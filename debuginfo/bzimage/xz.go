package bzimage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// An .xz file as scripts/xz_wrap.sh makes one: a stream header of 12 bytes, then one block, whose filters are an x86 branch
// converter and LZMA2 (The .xz File Format, version 1.2.1).
const (
	xzHeader    = 12
	filterX86   = 4
	filterLZMA2 = 0x21
	maxFilters  = 4
	maxDict     = 64 << 20
)

var errXZ = errors.New("the xz block header is damaged")

// unxz unpacks the first block.
func unxz(b []byte) ([]byte, error) {
	if len(b) < xzHeader+1 {
		return nil, errXZ
	}
	b = b[xzHeader:]
	size := (int(b[0]) + 1) * 4
	if b[0] == 0 || size > len(b) {
		return nil, errXZ
	}
	dict, x86, err := filters(b[1:size])
	if err != nil {
		return nil, err
	}
	r, err := lzma.Reader2Config{DictCap: dict}.NewReader2(bytes.NewReader(b[size:]))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if x86 {
		convertX86(out)
	}
	return out, err
}

// filters reads a block header behind its size: flags, sizes, and the filters with their properties.
func filters(h []byte) (dict int, x86 bool, err error) {
	flags := h[0]
	c := h[1:]
	for range flags>>6&1 + flags>>7 { // compressed and uncompressed size
		_, n := binary.Uvarint(c)
		if n <= 0 {
			return 0, false, errXZ
		}
		c = c[n:]
	}
	for range int(flags&(maxFilters-1)) + 1 {
		id, n := binary.Uvarint(c)
		if n <= 0 {
			return 0, false, errXZ
		}
		props, m := binary.Uvarint(c[n:])
		if m <= 0 || props > uint64(len(c[n+m:])) {
			return 0, false, errXZ
		}
		data := c[n+m:][:props]
		c = c[n+m:][props:]
		switch {
		case id == filterX86:
			x86 = true
		case id == filterLZMA2 && len(data) == 1 && data[0] < 40:
			dict = (2 | int(data[0]&1)) << (data[0]/2 + 11)
		default:
			return 0, false, fmt.Errorf("xz filter %#x is not known", id)
		}
	}
	if dict == 0 || dict > maxDict {
		return 0, false, errXZ
	}
	return dict, x86, nil
}

// convertX86 undoes the branch converter: operands of call (e8) and jmp (e9) were made absolute, so that calls of one
// function look alike. An operand counts if its top byte is 00 or ff. prev has a bit for each of the last three bytes that
// looked like an opcode: one inside an operand must not be converted.
func convertX86(b []byte) {
	allowed := [8]bool{true, true, true, false, true}
	shift := [8]int{0, 1, 2, 2, 3, 3, 3, 3}
	near := func(b byte) bool { return b == 0 || b == 0xff }
	last, prev := -1, uint32(0)
	for i := 0; i+4 < len(b); i++ {
		if b[i]&0xfe != 0xe8 {
			continue
		}
		if d := i - last; d > 3 {
			prev = 0
		} else if prev = prev << (d - 1) & 7; prev != 0 && (!allowed[prev] || near(b[i+4-shift[prev]])) {
			last, prev = i, prev<<1|1
			continue
		}
		last = i
		if !near(b[i+4]) {
			prev = prev<<1 | 1
			continue
		}
		src := binary.LittleEndian.Uint32(b[i+1:])
		var dst uint32
		for {
			dst = src - uint32(i) - 5
			if prev == 0 {
				break
			}
			j := shift[prev] * 8
			if !near(byte(dst >> (24 - j))) {
				break
			}
			src = dst ^ (1<<(32-j) - 1)
		}
		dst &= 0x01ffffff
		dst |= -(dst & 0x01000000)
		binary.LittleEndian.PutUint32(b[i+1:], dst)
		i += 4
	}
}
