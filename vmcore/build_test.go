package vmcore

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

// Dumps are built in memory: page n of the machine holds the byte pattern of [pageOf].

const testPage = 4096

func pageOf(pfn int) []byte {
	b := make([]byte, testPage)
	for i := range b {
		b[i] = byte(pfn*7 + i/64)
	}
	return b
}

type seg struct {
	phys, virt, filesz, memsz uint64
}

// buildELF makes a core whose segments hold pageOf's pattern by physical address.
func buildELF(info string, segs ...seg) []byte {
	le := binary.LittleEndian
	var note []byte
	addNote := func(name string, kind uint32, desc []byte) {
		note = le.AppendUint32(note, uint32(len(name)+1))
		note = le.AppendUint32(note, uint32(len(desc)))
		note = le.AppendUint32(note, kind)
		for _, b := range [][]byte{append([]byte(name), 0), desc} {
			note = append(note, b...)
			note = append(note, make([]byte, -len(b)&3)...)
		}
	}
	prstatus := make([]byte, 336)
	le.PutUint64(prstatus[112+16*8:], 0xffffffff81000123) // rip
	addNote("CORE", 1, prstatus)
	if info != "" {
		addNote("VMCOREINFO", 0, []byte(info))
	}
	n := len(segs) + 1
	off := uint64(64 + 56*n)
	h := make([]byte, 64)
	copy(h, "\x7fELF\x02\x01\x01")
	le.PutUint16(h[16:], 4)
	le.PutUint16(h[18:], 62)
	le.PutUint64(h[32:], 64)
	le.PutUint16(h[54:], 56)
	le.PutUint16(h[56:], uint16(n))
	ph := func(kind uint32, s seg, off uint64) {
		h = le.AppendUint32(h, kind)
		h = le.AppendUint32(h, 0)
		for _, v := range []uint64{off, s.virt, s.phys, s.filesz, s.memsz, 0} {
			h = le.AppendUint64(h, v)
		}
	}
	ph(4, seg{filesz: uint64(len(note))}, off)
	off += uint64(len(note))
	var body []byte
	for _, s := range segs {
		ph(1, s, off+uint64(len(body)))
		for at := s.phys; at < s.phys+s.filesz; at += testPage {
			body = append(body, pageOf(int(at/testPage))...)
		}
	}
	return append(append(h, note...), body...)
}

// buildKdump makes a kdump-compressed file of the pages that are dumped; those that only exist are excluded.
func buildKdump(version int, comp uint32, maxPFN int, dumped func(int) bool, exists func(int) bool, start, end int) []byte {
	le := binary.LittleEndian
	bitmapBlocks := 2 * ((maxPFN + testPage*8 - 1) / (testPage * 8))
	f := make([]byte, testPage*(2+bitmapBlocks))
	copy(f, "KDUMP   ")
	le.PutUint32(f[8:], uint32(version))
	copy(f[12+4*65:], "x86_64")
	le.PutUint32(f[424:], comp)
	le.PutUint32(f[428:], testPage)
	le.PutUint32(f[432:], 1)
	le.PutUint32(f[436:], uint32(bitmapBlocks))
	le.PutUint32(f[440:], uint32(maxPFN))
	sub := f[testPage:]
	if end > 0 {
		le.PutUint32(sub[12:], 1)
		le.PutUint64(sub[16:], uint64(start))
		le.PutUint64(sub[24:], uint64(end))
		if version >= 6 {
			le.PutUint64(sub[80:], uint64(start))
			le.PutUint64(sub[88:], uint64(end))
		}
	} else {
		end = maxPFN
	}
	if version >= 6 {
		le.PutUint64(sub[96:], uint64(maxPFN))
	}
	map1 := f[2*testPage:]
	map2 := f[2*testPage+bitmapBlocks/2*testPage:]
	n := 0
	for p := range maxPFN {
		if exists(p) {
			map1[p/8] |= 1 << (p % 8)
		}
		if dumped(p) {
			map2[p/8] |= 1 << (p % 8)
			if p >= start && p < end {
				n++
			}
		}
	}
	descs, data := []byte{}, []byte{}
	base := len(f) + n*descSize
	for p := start; p < end; p++ {
		if !dumped(p) {
			continue
		}
		raw, flags := compress(comp, pageOf(p))
		descs = le.AppendUint64(descs, uint64(base+len(data)))
		descs = le.AppendUint32(descs, uint32(len(raw)))
		descs = le.AppendUint32(descs, flags)
		descs = le.AppendUint64(descs, 0)
		data = append(data, raw...)
	}
	return append(append(f, descs...), data...)
}

// The compressors are large: one of each is enough.
var (
	zlibWriter = sync.OnceValue(func() *zlib.Writer { return zlib.NewWriter(nil) })
	zstdWriter = sync.OnceValue(func() *zstd.Encoder { e, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)); return e })
)

func compress(status uint32, page []byte) ([]byte, uint32) {
	var b bytes.Buffer
	switch {
	case status&statusZlib != 0:
		w := zlibWriter()
		w.Reset(&b)
		w.Write(page)
		w.Close()
		return b.Bytes(), pageZlib
	case status&statusSnappy != 0:
		return s2.EncodeSnappy(nil, page), pageSnappy
	case status&statusZstd != 0:
		return zstdWriter().EncodeAll(page, nil), pageZstd
	case status&statusLZO != 0:
		return lzoLiteral(page), pageLZO
	}
	return page, 0
}

// lzoLiteral is page as one literal run of LZO1X: a run of n > 18 is a zero byte, a zero for each 255 of n−18, and what
// remains of it; the stream ends with 0x11 0 0.
func lzoLiteral(page []byte) []byte {
	out := []byte{0}
	n := len(page) - 18
	for ; n > 255; n -= 255 {
		out = append(out, 0)
	}
	out = append(out, byte(n))
	return append(append(out, page...), 0x11, 0, 0)
}

// flatten writes a file in pieces, the first of them twice: what is written last counts.
func flatten(b []byte, piece int) []byte {
	out := make([]byte, flatHeader)
	copy(out, flatMagic)
	binary.BigEndian.PutUint64(out[16:], 1)
	binary.BigEndian.PutUint64(out[24:], 1)
	add := func(off int, p []byte) {
		out = binary.BigEndian.AppendUint64(out, uint64(off))
		out = binary.BigEndian.AppendUint64(out, uint64(len(p)))
		out = append(out, p...)
	}
	add(0, bytes.Repeat([]byte{0xee}, min(piece, len(b))))
	for off := 0; off < len(b); off += piece {
		add(off, b[off:min(len(b), off+piece)])
	}
	out = binary.BigEndian.AppendUint64(out, ^uint64(0))
	return binary.BigEndian.AppendUint64(out, ^uint64(0))
}

func file(b []byte) File { return File{bytes.NewReader(b), int64(len(b))} }

func mustOpen(t testing.TB, files ...[]byte) *Core {
	t.Helper()
	var fs []File
	for _, b := range files {
		fs = append(fs, file(b))
	}
	c, err := Open(fs...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pageIs says what a page reads as: "ok", or why it is missing.
func pageIs(c *Core, pfn int) string {
	b := make([]byte, testPage)
	err := c.ReadPhys(b, uint64(pfn)*testPage)
	if err == nil && bytes.Equal(b, pageOf(pfn)) {
		return "ok"
	}
	if err == nil {
		return fmt.Sprintf("wrong bytes %x", b[:4])
	}
	if m, ok := err.(*MissingError); ok {
		return string(m.Reason)
	}
	return err.Error()
}

var _ io.ReaderAt = (*flat)(nil)
