package traceevent

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/internal/bin"
)

// PageHeader is how the pages of the kernel's ring buffer begin, as events/header_page of tracefs says: a time stamp, and
// how much data follows.
type PageHeader struct {
	CommitOff, CommitSize int // the field commit: bytes of data, with flags in its upper half
	DataOff               int // where records begin
	Size                  int // of a whole page, in bytes
}

// PageHeader64 is the header of kernels with 64-bit longs. The time stamp of the page is its first 8 bytes, everywhere.
var PageHeader64 = PageHeader{CommitOff: 8, CommitSize: 8, DataOff: 16, Size: 4096}

// ParsePageHeader reads the text of events/header_page.
func ParsePageHeader(text []byte) (PageHeader, error) {
	f := Format{Name: "header_page", ID: 0}
	off := 0
	for len(text) > off {
		line := text[off:]
		for i, c := range line {
			if c == '\n' {
				line = line[:i]
				break
			}
		}
		if msg := f.line(trim(line)); msg != "" {
			return PageHeader{}, &bin.FormatError{What: "header_page", Off: int64(off), Msg: msg}
		}
		off += len(line) + 1
	}
	commit, data, stamp := f.Field("commit"), f.Field("data"), f.Field("timestamp")
	if commit == nil || data == nil || stamp == nil || stamp.Offset != 0 || commit.Size != 4 && commit.Size != 8 || data.Offset < commit.Offset+commit.Size {
		return PageHeader{}, &bin.FormatError{What: "header_page", Msg: "no timestamp, commit and data as expected"}
	}
	return PageHeader{CommitOff: commit.Offset, CommitSize: commit.Size, DataOff: data.Offset, Size: data.Offset + data.Size}, nil
}

func trim(b []byte) string {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	return string(b)
}

// Flags in commit (kernel/trace/ring_buffer.c, RB_MISSED_*), and the bits that are the size.
const (
	commitMissed = 1 << 31 // records were overwritten before this page
	commitStored = 1 << 30 // how many stands behind the data, as a long
	commitSize   = 1<<20 - 1
)

// Page is a page of the kernel's ring buffer, as a read of per_cpu/cpuN/trace_pipe_raw gives it.
type Page struct {
	Time   uint64 // of the page, in the clock of the trace
	Lost   uint64 // records lost before this page, where the kernel told their number
	Missed bool   // records were lost before this page
	data   []byte
	off    int64 // of data in the page, for errors
}

// ParsePage takes a page apart. It keeps b. Errors are *[bin.FormatError].
func ParsePage(b []byte, h PageHeader) (Page, error) {
	if h.DataOff < 8 || h.CommitOff < 0 || h.DataOff > len(b) || h.CommitOff+h.CommitSize > h.DataOff {
		return Page{}, &bin.FormatError{What: "ring buffer page", Off: int64(len(b)), Msg: "shorter than its header"}
	}
	commit := uint64(binary.LittleEndian.Uint32(b[h.CommitOff:]))
	p := Page{Time: binary.LittleEndian.Uint64(b), Missed: commit&commitMissed != 0, off: int64(h.DataOff)}
	size := int(commit & commitSize)
	rest := b[h.DataOff:]
	if size > len(rest) {
		return Page{}, &bin.FormatError{What: "ring buffer page", Off: int64(h.CommitOff), Msg: "more data than the page has"}
	}
	p.data = rest[:size]
	if rest = rest[size:]; p.Missed && commit&commitStored != 0 && len(rest) >= 8 {
		p.Lost = binary.LittleEndian.Uint64(rest)
	}
	return p, nil
}

// Types of ring buffer records beside data (include/linux/ring_buffer.h).
const (
	maxShort    = 28 // up to here the type is a record's length in words
	typePadding = 29
	typeExtend  = 30
	typeStamp   = 31
)

// stampBits are how many bits an absolute time stamp has; the rest is that of the time before.
const stampBits = 59

// Records calls f with every record of the page: its time, and its bytes, which start with the event's common fields. f ends
// it by returning false. A page that makes no sense is a *[bin.FormatError]; records before that place were given.
func (p Page) Records(f func(time uint64, rec []byte) bool) error {
	for c := p.Cursor(); ; {
		rec := c.Next()
		switch {
		case rec == nil:
			return c.Err
		case !f(c.Time, rec):
			return nil
		}
	}
}

// Cursor goes over the records of a page, one at a time.
type Cursor struct {
	Time  uint64 // of the record that Next gave last
	Err   error  // why Next ended before the end of the page; a *[bin.FormatError]
	page  Page
	at    int
	again []byte
}

// Cursor starts before the first record.
func (p Page) Cursor() Cursor { return Cursor{Time: p.Time, page: p} }

// Next gives the next record, nil at the end. The record is a part of the page.
func (c *Cursor) Next() []byte {
	if rec := c.again; rec != nil {
		c.again = nil
		return rec
	}
	data := c.page.data
	for at := c.at; at+4 <= len(data); at = c.at {
		head := binary.LittleEndian.Uint32(data[at:])
		kind, delta := head&31, uint64(head>>5)
		body := data[at+4:]
		if kind > 0 && kind <= maxShort {
			n := int(kind) * 4
			if n > len(body) {
				return c.bad("a record reaches beyond the data")
			}
			c.Time += delta
			c.at = at + 4 + n
			return body[:n:n]
		}
		if len(body) < 4 {
			return c.bad("a record's length is cut off")
		}
		word := binary.LittleEndian.Uint32(body)
		switch kind {
		case typePadding:
			if delta == 0 { // to the end of the page
				c.at = len(data)
				return nil
			}
			c.Time += delta
			if uint64(word) > uint64(len(body)) {
				return c.bad("padding reaches beyond the data")
			}
			c.at = at + 4 + max(4, int(word))
		case typeExtend:
			c.Time += delta + uint64(word)<<27
			c.at = at + 8
		case typeStamp:
			c.Time = c.Time&^(1<<stampBits-1) | delta | uint64(word)<<27
			c.at = at + 8
		default: // the length counts its own word
			if word < 4 {
				return c.bad("a record shorter than its length")
			}
			if uint64(word) > uint64(len(body)) {
				return c.bad("a record reaches beyond the data")
			}
			c.Time += delta
			c.at = at + 4 + int(word)
			return body[4:word:word]
		}
	}
	return nil
}

// Again gives a cursor whose Next gives the record rec, which c gave last, once more.
func (c Cursor) Again(rec []byte) Cursor {
	c.again = rec
	return c
}

func (c *Cursor) bad(msg string) []byte {
	c.Err = c.page.bad(c.at, msg)
	c.at = len(c.page.data)
	return nil
}

func (p Page) bad(at int, msg string) error {
	return &bin.FormatError{What: "ring buffer page", Off: p.off + int64(at), Msg: msg}
}

// Uint reads an integer field of a record; 0 where the record is shorter.
func (f *Field) Uint(rec []byte) uint64 {
	if f == nil || f.Offset < 0 || f.Offset+f.Size > len(rec) {
		return 0
	}
	b := rec[f.Offset : f.Offset+f.Size]
	switch f.Size {
	case 1:
		return uint64(b[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(b))
	case 4:
		return uint64(binary.LittleEndian.Uint32(b))
	case 8:
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// Int reads an integer field of a record with its sign.
func (f *Field) Int(rec []byte) int64 {
	n := f.Uint(rec)
	if f == nil || f.Size == 0 || f.Size > 8 {
		return 0
	}
	shift := 64 - 8*f.Size
	return int64(n<<shift) >> shift
}

// Text reads a field of characters up to its first 0.
func (f *Field) Text(rec []byte) string {
	if f == nil || f.Offset < 0 || f.Offset+f.Size > len(rec) {
		return ""
	}
	b := rec[f.Offset : f.Offset+f.Size]
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
