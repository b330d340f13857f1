package tracedat

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/traceevent"
)

// Stream reads the events of one CPU of one buffer.
func (f *File) Stream(b *Buffer, d Data) traceevent.Stream {
	h := f.Header
	h.Size = b.page
	var r io.Reader = io.NewSectionReader(f.r, d.Off, max(0, min(d.Size, f.size-d.Off)))
	if b.flags&1 != 0 { // the size does not count the heads of all chunks; their number says where they end
		r = &chunks{f: f, r: io.NewSectionReader(f.r, d.Off, max(0, f.size-d.Off)), off: d.Off}
	}
	s := &stream{Stream: traceevent.NewPages(r, d.CPU, h, f.Formats), shift: f.Offset}
	if f.tsc.mult != 0 && (b.Clock == "x86-tsc" || b.Clock == "tsc2nsec") {
		s.tsc = f.tsc
	}
	return s
}

// stream converts times.
type stream struct {
	traceevent.Stream
	tsc   tsc
	shift int64
}

// Next implements [traceevent.Stream].
func (s *stream) Next(e *traceevent.Event) bool {
	if !s.Stream.Next(e) {
		return false
	}
	if s.tsc.mult == 0 && s.shift == 0 {
		return true
	}
	e.Time = s.time(e.Time)
	if e.Since > 0 {
		e.Since = s.time(e.Since)
	}
	return true
}

func (s *stream) time(t uint64) uint64 {
	if s.tsc.mult != 0 {
		hi, lo := bits.Mul64(t, uint64(s.tsc.mult))
		n := s.tsc.shift & 63
		t = lo>>n | hi<<(64-n)
		t += s.tsc.offset
	}
	return t + uint64(s.shift)
}

// maxChunk bounds one chunk of packed data, in bytes; trace-cmd makes them of a few pages.
const maxChunk = 64 << 20

// chunks unpacks the data of a CPU, a chunk at a time.
type chunks struct {
	f     *File
	r     io.Reader
	off   int64
	begun bool
	n     uint32 // chunks left
	have  []byte
}

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (int, error) {
	for len(c.have) == 0 {
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.have)
	c.have = c.have[n:]
	return n, nil
}

func (c *chunks) next() error {
	var h [8]byte
	if !c.begun {
		c.begun = true
		if _, err := io.ReadFull(c.r, h[:4]); err != nil {
			return io.EOF // no data
		}
		c.n = binary.LittleEndian.Uint32(h[:])
		c.off += 4
	}
	if c.n == 0 {
		return io.EOF
	}
	c.n--
	if _, err := io.ReadFull(c.r, h[:]); err != nil {
		return c.bad("a chunk is cut off")
	}
	packed, want := binary.LittleEndian.Uint32(h[:]), binary.LittleEndian.Uint32(h[4:])
	if packed > maxChunk || want > maxChunk {
		return c.bad(fmt.Sprintf("a chunk of %d bytes, %d unpacked", packed, want))
	}
	b := make([]byte, packed)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return c.bad("a chunk is cut off")
	}
	out, err := c.f.unpack(b, int(want))
	if err != nil {
		return c.bad(err.Error())
	}
	c.off += 8 + int64(packed)
	c.have = out
	return nil
}

func (c *chunks) bad(msg string) error {
	return &bin.FormatError{What: "trace.dat data", Off: c.off, Msg: msg}
}

// unpack unpacks to exactly n bytes.
func (f *File) unpack(b []byte, n int) ([]byte, error) {
	var out []byte
	var err error
	switch f.Compression {
	case "zstd":
		if f.zstd == nil {
			if f.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxSection)); err != nil {
				return nil, fmt.Errorf("unpack: %w", err)
			}
		}
		out, err = f.zstd.DecodeAll(b, make([]byte, 0, min(n, 64*len(b)+4096)))
	case "zlib":
		var d io.ReadCloser
		if d, err = zlib.NewReader(bytes.NewReader(b)); err == nil {
			out, err = io.ReadAll(io.LimitReader(d, int64(n)+1)) // what is said of the size is not believed
			d.Close()
		}
	default:
		return nil, fmt.Errorf("packed by %q, which is not known here", f.Compression)
	}
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	if len(out) != n {
		return nil, fmt.Errorf("unpacked to %d bytes, not %d", len(out), n)
	}
	return out, nil
}
