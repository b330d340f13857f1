// Package tracedat reads trace-cmd's files, trace.dat, of versions 6 and 7, compressed or not: the formats of events, the
// tables of names, and for each CPU of each buffer the events.
//
// The authority is trace-cmd.dat.v6(5) and trace-cmd.dat.v7(5), and lib/trace-cmd/trace-input.c where they are silent. Files
// of big endian machines are refused.
package tracedat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/traceevent"
)

// Magic is how files begin.
const Magic = "\x17\x08\x44tracing"

// File is what a file holds beside the events.
type File struct {
	Version     int
	Compression string // "none", "zstd", "zlib"
	Header      traceevent.PageHeader
	Formats     []*traceevent.Format
	Kallsyms    []byte // text of /proc/kallsyms
	Printk      []byte // text of printk_formats
	Cmdlines    []byte // text of saved_cmdlines
	Uname       string
	CPUs        int
	Stats       []string // per_cpu/cpuN/stats when the recording ended
	Offset      int64    // ns to add to all times
	Buffers     []Buffer // the top one first, if it has events
	// Bad are formats that could not be read, and why.
	Bad []error

	r        io.ReaderAt
	size     int64
	pageSize int
	tsc      tsc
	topClock string
	zstd     *zstd.Decoder
}

// Buffer is one tracing instance.
type Buffer struct {
	Name  string // "" is the top one
	Clock string // "local", "mono" …; "" if the file does not tell
	Data  []Data
	page  int
	flags uint16
}

// Data is where the events of a CPU are.
type Data struct {
	CPU       int
	Off, Size int64
}

// tsc converts cycles to ns: ((cycles × mult) >> shift) + offset.
type tsc struct {
	mult, shift uint32
	offset      uint64
}

// Bounds of what a file may say.
const (
	maxSection = 512 << 20 // bytes, unpacked
	maxFormats = 1 << 17
	maxCPUs    = 1 << 14
	maxOptions = 1 << 16
)

// Options (enum in trace-cmd-private.h), which are the IDs of sections, too.
const (
	optDone     = 0
	optCPUStat  = 2
	optBuffer   = 3
	optClock    = 4
	optUname    = 5
	optOffset   = 7
	optCPUCount = 8
	optTSC      = 14
	optHeader   = 16
	optFtrace   = 17
	optFormats  = 18
	optKallsyms = 19
	optPrintk   = 20
	optCmdlines = 21
)

// Open reads all but the events. Errors of the format are *[bin.FormatError].
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size, Compression: "none", Header: traceevent.PageHeader64}
	head, err := f.read(0, min(size, 4096))
	if err != nil {
		return nil, err
	}
	c := bin.NewCursor(head, binary.LittleEndian)
	if string(c.Bytes(len(Magic))) != Magic {
		return nil, &bin.FormatError{What: "trace.dat", Msg: "does not begin as such a file does"}
	}
	version := c.CString()
	if c.U8() != 0 {
		c.Fail("a file of a big endian machine")
	}
	c.Skip(1)
	f.pageSize = int(c.U32())
	if f.pageSize < 4096 || f.pageSize > 1<<20 || f.pageSize&(f.pageSize-1) != 0 {
		c.Fail("pages of %d bytes", f.pageSize)
	}
	if err := c.Err("trace.dat"); err != nil {
		return nil, err
	}
	f.Header.Size = f.pageSize
	switch f.Version, _ = strconv.Atoi(version); f.Version {
	case 6:
		err = f.linear(int64(c.Off()))
	case 7:
		f.Compression = c.CString()
		c.CString()
		at := c.U64()
		if err = c.Err("trace.dat"); err == nil {
			err = f.sections(int64(at))
		}
	default:
		return nil, &bin.FormatError{What: "trace.dat", Off: int64(len(Magic)), Msg: fmt.Sprintf("version %q: 6 and 7 are known", version)}
	}
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.Buffers, func(a, b Buffer) int { return strings.Compare(a.Name, b.Name) })
	return f, nil
}

// read gives n bytes of the file.
func (f *File) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || off > f.size || n > f.size-off {
		return nil, &bin.FormatError{What: "trace.dat", Off: off, Msg: fmt.Sprintf("%d bytes beyond the end of the file", n)}
	}
	b := make([]byte, n)
	k, err := f.r.ReadAt(b, off)
	if int64(k) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read trace.dat: %w", err)
	}
	return b, nil
}

// sections reads a file of version 7 from its first options on.
func (f *File) sections(at int64) error {
	for n := 0; at != 0; n++ {
		if n > maxOptions {
			return &bin.FormatError{What: "trace.dat options", Off: at, Msg: "they do not end"}
		}
		b, err := f.section(at, optDone)
		if err != nil {
			return err
		}
		if at, err = f.options(b, at); err != nil {
			return err
		}
	}
	return nil
}

// section reads a section of version 7, unpacked.
func (f *File) section(at int64, id uint16) ([]byte, error) {
	const head = 16
	h, err := f.read(at, head)
	if err != nil {
		return nil, err
	}
	c := bin.NewCursorAt(h, binary.LittleEndian, at)
	if got := c.U16(); got != id {
		c.Fail("section %d where %d was expected", got, id)
	}
	flags := c.U16()
	c.Skip(4)
	n := c.U64()
	if n > uint64(f.size) {
		c.Fail("a section of %d bytes", n)
	}
	if err := c.Err("trace.dat section"); err != nil {
		return nil, err
	}
	b, err := f.read(at+head, int64(n))
	if err != nil || flags&1 == 0 {
		return b, err
	}
	c = bin.NewCursorAt(b, binary.LittleEndian, at+head)
	packed, want := c.U32(), c.U32()
	b = c.Bytes(int(packed))
	if err := c.Err("trace.dat section"); err != nil {
		return nil, err
	}
	if want > maxSection {
		return nil, &bin.FormatError{What: "trace.dat section", Off: at, Msg: "larger than 512 MiB"}
	}
	out, err := f.unpack(b, int(want))
	if err != nil {
		return nil, &bin.FormatError{What: "trace.dat section", Off: at, Msg: err.Error()}
	}
	return out, nil
}

// options reads one section of options, and gives where the next is.
func (f *File) options(b []byte, at int64) (int64, error) {
	c := bin.NewCursorAt(b, binary.LittleEndian, at)
	for c.Len() > 0 {
		id := c.U16()
		data := c.Bytes(int(c.U32()))
		if err := c.Err("trace.dat option"); err != nil {
			return 0, err
		}
		d := bin.NewCursorAt(data, binary.LittleEndian, at)
		if id == optDone {
			if len(data) < 8 {
				return 0, nil
			}
			return int64(d.U64()), nil
		}
		if err := f.option(id, data, d); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

func (f *File) option(id uint16, data []byte, d *bin.Cursor) error {
	text := func() string { s, _, _ := bytes.Cut(data, []byte{0}); return string(s) }
	switch id {
	case optCPUStat:
		f.Stats = append(f.Stats, text())
	case optUname:
		f.Uname = text()
	case optClock:
		f.topClock = chosenClock(text())
	case optOffset:
		n, _ := strconv.ParseInt(text(), 0, 64)
		f.Offset = n
	case optCPUCount:
		f.CPUs = int(d.U32())
	case optTSC:
		f.tsc = tsc{d.U32(), d.U32(), d.U64()}
	case optBuffer:
		return f.buffer(d)
	case optHeader, optFtrace, optFormats, optKallsyms, optPrintk, optCmdlines:
		if f.Version < 7 {
			return nil
		}
		at := int64(d.U64())
		b, err := f.section(at, id)
		if err != nil {
			return err
		}
		return f.table(id, bin.NewCursorAt(b, binary.LittleEndian, at))
	}
	return nil
}

// chosenClock finds the clock in brackets: "local [mono] boot".
func chosenClock(s string) string {
	if _, rest, ok := strings.Cut(s, "["); ok {
		c, _, _ := strings.Cut(rest, "]")
		return c
	}
	return strings.TrimSpace(s)
}

// buffer reads a BUFFER option: in version 7 with the places of all data.
func (f *File) buffer(d *bin.Cursor) error {
	b := Buffer{page: f.pageSize}
	at := d.U64()
	b.Name = d.CString()
	if f.Version < 7 {
		if err := d.Err("trace.dat buffer"); err != nil {
			return err
		}
		return f.flyrecord(int64(at), b)
	}
	b.Clock = d.CString()
	b.page = int(d.U32())
	for range d.Count(20) {
		b.Data = append(b.Data, Data{int(d.U32()), int64(d.U64()), int64(d.U64())})
	}
	if b.page < f.Header.DataOff || b.page > 1<<20 {
		d.Fail("pages of %d bytes", b.page)
	}
	if err := d.Err("trace.dat buffer"); err != nil {
		return err
	}
	h, err := f.read(int64(at), 4)
	if err != nil {
		return err
	}
	b.flags = binary.LittleEndian.Uint16(h[2:])
	f.Buffers = append(f.Buffers, b)
	return nil
}

// linear reads a file of version 6 from behind its head on.
func (f *File) linear(at int64) error {
	s := &scanner{f: f, at: at}
	c := func(n int64) *bin.Cursor { return bin.NewCursorAt(s.bytes(n), binary.LittleEndian, s.at-n) }
	page := c(12)
	if name := page.CString(); name != "header_page" {
		return &bin.FormatError{What: "trace.dat", Off: at, Msg: fmt.Sprintf("%q where header_page was expected", name)}
	}
	f.pageHeader(s.bytes(int64(s.u64())))
	s.bytes(13)
	s.bytes(int64(s.u64()))
	for range s.count(maxFormats) {
		f.format("ftrace", s.bytes(int64(s.u64())))
	}
	for range s.count(maxFormats) {
		system := s.cstring()
		for range s.count(maxFormats) {
			f.format(system, s.bytes(int64(s.u64())))
		}
	}
	f.Kallsyms = s.bytes(int64(s.u32()))
	f.Printk = s.bytes(int64(s.u32()))
	f.Cmdlines = s.bytes(int64(s.u64()))
	f.CPUs = int(s.u32())
	if s.err == nil && (f.CPUs <= 0 || f.CPUs > maxCPUs) {
		return &bin.FormatError{What: "trace.dat", Off: s.at, Msg: fmt.Sprintf("%d CPUs", f.CPUs)}
	}
	for s.err == nil {
		switch kind := string(s.bytes(10)); {
		case s.err != nil:
		case strings.HasPrefix(kind, "options"):
			for s.err == nil {
				id := s.u16()
				if id == optDone {
					break
				}
				data := s.bytes(int64(s.u32()))
				if s.err == nil {
					if err := f.option(id, data, bin.NewCursorAt(data, binary.LittleEndian, s.at)); err != nil {
						return err
					}
				}
			}
		case strings.HasPrefix(kind, "flyrecord"):
			return f.flyrecord(s.at, Buffer{page: f.pageSize, Clock: f.topClock})
		case strings.HasPrefix(kind, "latency"):
			return &bin.FormatError{What: "trace.dat", Off: s.at, Msg: "the text of a latency tracer, which has no events"}
		default:
			return &bin.FormatError{What: "trace.dat", Off: s.at, Msg: fmt.Sprintf("%q where options or flyrecord was expected", kind)}
		}
	}
	return s.err
}

// flyrecord reads where the events of each CPU are, in version 6.
func (f *File) flyrecord(at int64, b Buffer) error {
	n := int64(f.CPUs) * 16
	if kind, err := f.read(at, 10); err == nil && string(kind[:9]) == "flyrecord" { // where the option of a buffer points
		at += 10
	}
	d, err := f.read(at, n)
	if err != nil {
		return err
	}
	c := bin.NewCursorAt(d, binary.LittleEndian, at)
	for cpu := range f.CPUs {
		b.Data = append(b.Data, Data{cpu, int64(c.U64()), int64(c.U64())})
	}
	f.Buffers = append(f.Buffers, b)
	return nil
}

// table reads what one section of version 7 holds.
func (f *File) table(id uint16, c *bin.Cursor) error {
	text := func() []byte { return c.Bytes(int(min(c.U64(), 1<<40))) }
	switch id {
	case optHeader:
		c.CString()
		f.pageHeader(text())
	case optFtrace:
		for range c.Count(8) {
			f.format("ftrace", text())
		}
	case optFormats:
		for range c.Count(5) {
			system := c.CString()
			for range c.Count(8) {
				f.format(system, text())
			}
		}
	case optKallsyms:
		f.Kallsyms = c.Bytes(int(c.U32()))
	case optPrintk:
		f.Printk = c.Bytes(int(c.U32()))
	case optCmdlines:
		f.Cmdlines = text()
	}
	return c.Err("trace.dat section")
}

func (f *File) pageHeader(text []byte) {
	h, err := traceevent.ParsePageHeader(text)
	if err != nil {
		f.Bad = append(f.Bad, err)
		return
	}
	f.Header = h
}

func (f *File) format(system string, text []byte) {
	if text == nil || len(f.Formats) >= maxFormats {
		return
	}
	e, err := traceevent.Parse(text)
	if err != nil {
		f.Bad = append(f.Bad, fmt.Errorf("format in %s: %w", system, err))
		return
	}
	e.System = system
	f.Formats = append(f.Formats, e)
}

// scanner reads a file from front to back.
type scanner struct {
	f   *File
	at  int64
	err error
}

func (s *scanner) bytes(n int64) []byte {
	if s.err != nil {
		return nil
	}
	if n < 0 || n > maxSection {
		s.err = &bin.FormatError{What: "trace.dat", Off: s.at, Msg: fmt.Sprintf("a part of %d bytes", n)}
		return nil
	}
	b, err := s.f.read(s.at, n)
	if err != nil {
		s.err = err
		return nil
	}
	s.at += n
	return b
}

func (s *scanner) number(n int64) (v uint64) {
	for i, c := range s.bytes(n) {
		v |= uint64(c) << (8 * i)
	}
	return v
}

func (s *scanner) u16() uint16 { return uint16(s.number(2)) }
func (s *scanner) u32() uint32 { return uint32(s.number(4)) }
func (s *scanner) u64() uint64 { return s.number(8) }

// count reads a number of things that follow.
func (s *scanner) count(most uint32) uint32 {
	n := s.u32()
	if n > most && s.err == nil {
		s.err = &bin.FormatError{What: "trace.dat", Off: s.at, Msg: fmt.Sprintf("%d parts", n)}
	}
	if s.err != nil {
		return 0
	}
	return n
}

func (s *scanner) cstring() string {
	var out []byte
	for s.err == nil && len(out) < 4096 {
		c := s.bytes(1)
		if len(c) == 0 || c[0] == 0 {
			break
		}
		out = append(out, c[0])
	}
	return string(out)
}
