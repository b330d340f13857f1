// Package perfdata reads perf's files, perf.data: what was sampled (attributes), which tasks there were, the formats of
// tracepoints, and the samples in the order of their time. Packed files (perf record -z) and those written to a pipe are read
// too. Attributes larger than those known here are no error: what is behind is passed over.
//
// A tracepoint's sample is given as the record that the kernel made, in its own format. Samples of other events have a format
// that is made here, with what was sampled as fields: ip, addr, period, weight, callchain …
//
// The authority is tools/perf/Documentation/perf.data-file-format.txt of the kernel and include/uapi/linux/perf_event.h. Files
// of big endian machines are refused.
package perfdata

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/traceevent"
)

// Magic is how files begin.
const Magic = "PERFILE2"

// File is what a file holds beside the samples.
type File struct {
	Attrs    []*Attr
	Formats  []*traceevent.Format // of tracepoints and of the other events
	Kallsyms []byte
	Printk   []byte
	Host     string
	Release  string
	Pipe     bool
	CPUs     int // of the machine; 0 if the file does not tell

	r       io.ReaderAt
	size    int64
	dataOff int64
	dataEnd int64
	byID    map[uint64]*Attr
	page    traceevent.PageHeader
	tracing []byte // TRACING_DATA
	systems map[int]*traceevent.Format
	idOff   int // where the ID stands in samples; -1 if it does not matter
	walkers []*walker
}

// Close ends what reads the file. It does not close the file.
func (f *File) Close() error {
	for _, w := range f.walkers {
		w.stop()
	}
	return nil
}

// Attr is one event that was asked for: struct perf_event_attr and its name.
type Attr struct {
	Name       string
	Type       uint32
	Config     uint64
	SampleType uint64
	ReadFormat uint64
	Flags      uint64
	RegsUser   uint64
	RegsIntr   uint64
	StackUser  uint32
	Branch     uint64
	IDs        []uint64
	format     *traceevent.Format // what its samples are given as
	fields     []sampleField
	size       int
}

// Types of events (enum perf_type_id).
const (
	typeHardware   = 0
	typeSoftware   = 1
	typeTracepoint = 2
)

// Header features (HEADER_*).
const (
	featTracing   = 1
	featHostname  = 3
	featOSRelease = 4
	featCPUs      = 7
	featEventDesc = 12
)

// Bounds of what a file may say.
const (
	maxAttrs   = 1 << 14
	maxFeature = 512 << 20
)

// Open reads all but the samples. Errors of the format are *[bin.FormatError].
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size, byID: map[uint64]*Attr{}, systems: map[int]*traceevent.Format{}, page: traceevent.PageHeader64}
	h, err := f.read(0, min(size, 104))
	if err != nil {
		return nil, err
	}
	c := bin.NewCursor(h, binary.LittleEndian)
	if string(c.Bytes(8)) != Magic {
		return nil, &bin.FormatError{What: "perf.data", Msg: "does not begin as such a file does, or is one of a big endian machine"}
	}
	switch n := c.U64(); n {
	case 16:
		f.Pipe = true
		f.dataOff, f.dataEnd = 16, size
		err = f.pipeHead()
	default:
		err = f.fileHead(c, n)
	}
	if err != nil {
		return nil, err
	}
	if len(f.Attrs) == 0 {
		return nil, &bin.FormatError{What: "perf.data", Msg: "no events were asked for"}
	}
	f.tracepoints()
	for _, a := range f.Attrs {
		a.plan(f.systems)
		f.Formats = append(f.Formats, a.format)
	}
	return f, f.identify()
}

func (f *File) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > f.size || n > f.size-off {
		return nil, &bin.FormatError{What: "perf.data", Off: off, Msg: fmt.Sprintf("%d bytes beyond the end of the file", n)}
	}
	b := make([]byte, n)
	if k, err := f.r.ReadAt(b, off); int64(k) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read perf.data: %w", err)
	}
	return b, nil
}

// section is struct perf_file_section.
type section struct{ off, size uint64 }

func readSection(c *bin.Cursor) section { return section{c.U64(), c.U64()} }

// fileHead reads struct perf_file_header, the attributes, and the features behind the data.
func (f *File) fileHead(c *bin.Cursor, headSize uint64) error {
	attrSize := c.U64()
	attrs, data := readSection(c), readSection(c)
	readSection(c) // event types, which nobody writes any more
	var features [4]uint64
	for i := range features {
		features[i] = c.U64()
	}
	if headSize < 104 || attrSize < 64+16 || attrSize > 4096 {
		c.Fail("a header of %d bytes, attributes of %d", headSize, attrSize)
	}
	if err := c.Err("perf.data header"); err != nil {
		return err
	}
	if data.off > uint64(f.size) || data.size > uint64(f.size)-data.off {
		if data.off > uint64(f.size) {
			return &bin.FormatError{What: "perf.data header", Off: 40, Msg: "the data is beyond the end of the file"}
		}
		data.size = uint64(f.size) - data.off
	}
	f.dataOff, f.dataEnd = int64(data.off), int64(data.off+data.size)
	if data.size == 0 { // perf was killed: there is data to the end of the file
		f.dataEnd = f.size
	}
	if attrs.size/attrSize > maxAttrs {
		return &bin.FormatError{What: "perf.data header", Off: 24, Msg: "too many events"}
	}
	b, err := f.read(int64(attrs.off), int64(attrs.size))
	if err != nil {
		return err
	}
	for ; len(b) >= int(attrSize); b = b[attrSize:] {
		a, err := parseAttr(b[:attrSize-16])
		if err != nil {
			return err
		}
		ids := readSection(bin.NewCursor(b[attrSize-16:attrSize], binary.LittleEndian))
		if ids.size > 8<<20 {
			return &bin.FormatError{What: "perf.data attribute", Off: int64(attrs.off), Msg: "too many IDs"}
		}
		raw, err := f.read(int64(ids.off), int64(ids.size))
		if err != nil {
			return err
		}
		f.addAttr(a, raw)
	}
	f.features(features, int64(data.off+data.size))
	return nil
}

func (f *File) addAttr(a *Attr, ids []byte) {
	for ; len(ids) >= 8; ids = ids[8:] {
		id := binary.LittleEndian.Uint64(ids)
		a.IDs = append(a.IDs, id)
		f.byID[id] = a
	}
	f.Attrs = append(f.Attrs, a)
}

// parseAttr reads struct perf_event_attr as far as it is known here; what is missing is zero.
func parseAttr(b []byte) (*Attr, error) {
	full := make([]byte, max(len(b), 128))
	copy(full, b)
	if n := binary.LittleEndian.Uint32(full[4:]); n >= 64 && int(n) < len(b) {
		clear(full[n:])
	}
	c := bin.NewCursor(full, binary.LittleEndian)
	a := &Attr{Type: c.U32()}
	c.Skip(4)
	a.Config = c.U64()
	c.Skip(8) // period
	a.SampleType, a.ReadFormat, a.Flags = c.U64(), c.U64(), c.U64()
	c.Skip(4 + 4 + 8 + 8) // wakeup, breakpoints
	a.Branch, a.RegsUser, a.StackUser = c.U64(), c.U64(), c.U32()
	c.Skip(4)
	a.RegsIntr = c.U64()
	a.Name = nameOf(a)
	return a, c.Err("perf.data attribute")
}

// nameOf names an event that the file gives no name.
func nameOf(a *Attr) string {
	soft := []string{"cpu-clock", "task-clock", "page-faults", "context-switches", "cpu-migrations", "minor-faults", "major-faults", "alignment-faults", "emulation-faults", "dummy", "bpf-output", "cgroup-switches"}
	hard := []string{"cycles", "instructions", "cache-references", "cache-misses", "branches", "branch-misses", "bus-cycles", "stalled-cycles-frontend", "stalled-cycles-backend", "ref-cycles"}
	switch {
	case a.Type == typeSoftware && a.Config < uint64(len(soft)):
		return soft[a.Config]
	case a.Type == typeHardware && a.Config < uint64(len(hard)):
		return hard[a.Config]
	}
	return fmt.Sprintf("event-%d-%#x", a.Type, a.Config)
}

// features reads what is known here of the tables behind the data. What cannot be read is left out: it is not needed.
func (f *File) features(bits [4]uint64, at int64) {
	n := int64(0)
	for bit := range 256 {
		if bits[bit/64]>>(bit%64)&1 == 0 {
			continue
		}
		h, err := f.read(at+16*n, 16)
		if err != nil {
			return
		}
		n++
		s := readSection(bin.NewCursor(h, binary.LittleEndian))
		if s.size > maxFeature {
			continue
		}
		switch bit {
		case featTracing, featHostname, featOSRelease, featCPUs, featEventDesc:
			if b, err := f.read(int64(s.off), int64(s.size)); err == nil {
				f.feature(bit, b)
			}
		}
	}
}

func (f *File) feature(bit int, b []byte) {
	c := bin.NewCursor(b, binary.LittleEndian)
	text := func() string { s, _, _ := strings.Cut(string(c.Bytes(int(c.U32()))), "\x00"); return s }
	switch bit {
	case featTracing:
		f.tracing = b
	case featHostname:
		f.Host = text()
	case featOSRelease:
		f.Release = text()
	case featCPUs: // those that are online, of those that are there
		c.U32()
		f.CPUs = int(min(c.U32(), 1<<14))
	case featEventDesc:
		n, size := c.Count(8), int(c.U32())
		for range n {
			if c.Bytes(size); !c.OK() {
				return
			}
			ids := int(c.U32())
			name := text()
			for range min(ids, c.Len()/8) {
				if a := f.byID[c.U64()]; a != nil && name != "" && a.Type != typeTracepoint {
					a.Name = name
				}
			}
		}
	}
}

// pipeHead reads the records at the start of a pipe's file that tell what headers tell elsewhere.
func (f *File) pipeHead() error {
	for off := f.dataOff; off+8 <= f.dataEnd; {
		h, err := f.read(off, 8)
		if err != nil {
			return err
		}
		kind, size := binary.LittleEndian.Uint32(h), int64(binary.LittleEndian.Uint16(h[6:]))
		if size < 8 || off+size > f.dataEnd {
			break
		}
		body, err := f.read(off+8, size-8)
		if err != nil {
			return err
		}
		switch kind {
		case recAttr:
			n := len(body)
			if n >= 8 {
				n = int(binary.LittleEndian.Uint32(body[4:]))
			}
			if n < 64 || n > len(body) {
				return &bin.FormatError{What: "perf.data attribute", Off: off, Msg: fmt.Sprintf("of %d bytes", n)}
			}
			a, err := parseAttr(body[:n])
			if err != nil {
				return err
			}
			f.addAttr(a, body[n:])
		case recTracing:
			if len(body) >= 4 {
				n := int64(binary.LittleEndian.Uint32(body))
				if f.tracing, err = f.read(off+size, n); err != nil {
					return err
				}
				size += (n + 7) &^ 7
			}
		case recFeature:
			if len(body) > 8 {
				f.feature(int(binary.LittleEndian.Uint64(body)), body[8:])
			}
		case recSample, recComm, recCompressed, recCompressed2:
			return nil
		}
		off += size
	}
	return nil
}

// tracepoints reads the formats of events, which stand in the form of trace-cmd's files, version 0.6 or so.
func (f *File) tracepoints() {
	c := bin.NewCursor(f.tracing, binary.LittleEndian)
	if string(c.Bytes(10)) != "\x17\x08\x44tracing" {
		return
	}
	c.CString() // version
	if c.U8() != 0 {
		return
	}
	c.Skip(1 + 4)
	c.CString() // header_page
	if h, err := traceevent.ParsePageHeader(c.Bytes(int(min(c.U64(), 1<<30)))); err == nil {
		f.page = h
	}
	c.CString() // header_event
	c.Bytes(int(min(c.U64(), 1<<30)))
	for range c.Count(8) {
		f.format("ftrace", c.Bytes(int(min(c.U64(), 1<<30))))
	}
	for range c.Count(5) {
		system := c.CString()
		for range c.Count(8) {
			f.format(system, c.Bytes(int(min(c.U64(), 1<<30))))
		}
	}
	f.Kallsyms = c.Bytes(int(c.U32()))
	f.Printk = c.Bytes(int(c.U32()))
}

func (f *File) format(system string, text []byte) {
	if len(text) == 0 {
		return
	}
	if e, err := traceevent.Parse(text); err == nil {
		e.System = system
		f.systems[e.ID] = e
	}
}

// unpacker unpacks COMPRESSED records: they are one stream of zstd, which is flushed at the end of each record but never
// ended. The decoder runs as a coroutine that gives way when it wants more than there is.
type unpacker struct {
	in, out []byte
	err     error
	resume  func() (struct{}, bool)
	stop    func()
}

// maxUnpacked bounds what one record may unpack to, and the memory of the decoder, in bytes.
const maxUnpacked = 64 << 20

func newUnpacker() *unpacker {
	u := &unpacker{}
	u.resume, u.stop = iter.Pull(func(yield func(struct{}) bool) {
		z, err := zstd.NewReader(&hungry{u, yield}, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxUnpacked), zstd.WithDecoderLowmem(true))
		if err != nil {
			u.err = err
			return
		}
		defer z.Close()
		buf := make([]byte, 128<<10)
		for u.err == nil {
			n, err := z.Read(buf)
			if u.out = append(u.out, buf[:n]...); len(u.out) > maxUnpacked {
				err = errors.New("a record that unpacks to more than 64 MiB")
			}
			if err != nil {
				u.err = err
			}
		}
	})
	return u
}

// hungry is what the decoder reads from: it waits for the next record where a file would end.
type hungry struct {
	u     *unpacker
	yield func(struct{}) bool
}

// Read implements io.Reader.
func (h *hungry) Read(p []byte) (int, error) {
	for len(h.u.in) == 0 {
		if !h.yield(struct{}{}) {
			return 0, io.EOF
		}
	}
	n := copy(p, h.u.in)
	h.u.in = h.u.in[n:]
	return n, nil
}

// add unpacks one more record behind left, the start of a record whose end has not come yet.
func (u *unpacker) add(left, b []byte) ([]byte, error) {
	u.in, u.out = b, append([]byte(nil), left...)
	_, more := u.resume()
	if !more && u.err == nil {
		u.err = io.ErrUnexpectedEOF
	}
	return u.out, u.err
}
