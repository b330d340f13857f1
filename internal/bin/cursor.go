// Package bin reads binary formats: a cursor over bytes that remembers its first error, so that a decoder reads fields
// in order and checks once.
//
// A [Cursor] never allocates from a length it has not checked against the bytes that are left, and never panics.
package bin

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// FormatError says where in the input the bytes are wrong, and how.
type FormatError struct {
	What string // the structure being read: "orc header"
	Off  int64  // offset of the offending field from the start of the input
	Msg  string
}

// Error gives all three: "orc header at 0x18: need 12 bytes, have 3".
func (e *FormatError) Error() string { return fmt.Sprintf("%s at %#x: %s", e.What, e.Off, e.Msg) }

// Cursor reads fields from a byte slice in order. After the first error every read returns zero and moves nothing.
type Cursor struct {
	buf   []byte
	order binary.ByteOrder
	off   int
	base  int64 // added to offsets in errors, for a cursor over part of an input
	err   *FormatError
}

// NewCursor reads b from its start. The slice is not copied; what [Cursor.Bytes] returns aliases it.
func NewCursor(b []byte, order binary.ByteOrder) *Cursor { return &Cursor{buf: b, order: order} }

// NewCursorAt is [NewCursor] for bytes that stand at offset base of the whole input; errors count from there.
func NewCursorAt(b []byte, order binary.ByteOrder, base int64) *Cursor {
	return &Cursor{buf: b, order: order, base: base}
}

// Off is the offset of the next field from the start of the slice; Len is how many bytes are left after it.
func (c *Cursor) Off() int { return c.off }

// Len is how many bytes are left; 0 after an error.
func (c *Cursor) Len() int {
	if c.err != nil {
		return 0
	}
	return len(c.buf) - c.off
}

// Order is the byte order fields are read in.
func (c *Cursor) Order() binary.ByteOrder { return c.order }

// Fail records msg as the error at the next field, if there is none yet.
func (c *Cursor) Fail(format string, args ...any) {
	if c.err == nil {
		c.err = &FormatError{Off: c.base + int64(c.off), Msg: fmt.Sprintf(format, args...)}
	}
}

// Err returns nil, or the first error as a *[FormatError] that says it was reading what.
func (c *Cursor) Err(what string) error {
	if c.err == nil {
		return nil
	}
	e := *c.err
	e.What = what
	return &e
}

// OK reports that no read has failed yet.
func (c *Cursor) OK() bool { return c.err == nil }

// Bytes returns the next n bytes, aliasing the input; nil if there are fewer.
func (c *Cursor) Bytes(n int) []byte {
	if c.err != nil {
		return nil
	}
	if n < 0 || n > len(c.buf)-c.off {
		c.Fail("need %d bytes, have %d", n, len(c.buf)-c.off)
		return nil
	}
	p := c.buf[c.off : c.off+n : c.off+n]
	c.off += n
	return p
}

// Skip passes over n bytes.
func (c *Cursor) Skip(n int) { c.Bytes(n) }

// Seek moves to offset off of the slice, forwards or backwards.
func (c *Cursor) Seek(off int) {
	if c.err == nil && (off < 0 || off > len(c.buf)) {
		c.Fail("seek to %#x outside %d bytes", off, len(c.buf))
	}
	if c.err == nil {
		c.off = off
	}
}

// Align passes over padding up to the next multiple of n, a power of two.
func (c *Cursor) Align(n int) { c.Skip(-c.off & (n - 1)) }

// Rest returns all bytes that are left.
func (c *Cursor) Rest() []byte { return c.Bytes(c.Len()) }

// U8 reads one byte.
func (c *Cursor) U8() uint8 {
	if p := c.Bytes(1); p != nil {
		return p[0]
	}
	return 0
}

// U16 reads two bytes.
func (c *Cursor) U16() uint16 {
	if p := c.Bytes(2); p != nil {
		return c.order.Uint16(p)
	}
	return 0
}

// U32 reads four bytes.
func (c *Cursor) U32() uint32 {
	if p := c.Bytes(4); p != nil {
		return c.order.Uint32(p)
	}
	return 0
}

// U64 reads eight bytes.
func (c *Cursor) U64() uint64 {
	if p := c.Bytes(8); p != nil {
		return c.order.Uint64(p)
	}
	return 0
}

// Count reads a 32-bit count of records of at least size bytes each, and fails if that many cannot follow.
func (c *Cursor) Count(size int) int {
	at := c.off
	n := uint64(c.U32())
	if c.err == nil && n > uint64(c.Len()/max(size, 1)) {
		have := c.Len()
		c.off = at
		c.Fail("count %d of %d bytes each, have %d bytes", n, size, have)
		return 0
	}
	return int(n)
}

// CString reads up to and over the next NUL, and returns what stands before it.
func (c *Cursor) CString() string {
	if c.err != nil {
		return ""
	}
	i := bytes.IndexByte(c.buf[c.off:], 0)
	if i < 0 {
		c.Fail("string is not terminated")
		return ""
	}
	s := string(c.buf[c.off : c.off+i])
	c.off += i + 1
	return s
}

// Uvarint reads an unsigned LEB128 number of at most 64 bits.
func (c *Cursor) Uvarint() uint64 {
	if c.err != nil {
		return 0
	}
	v, n := binary.Uvarint(c.buf[c.off:])
	if n <= 0 {
		c.Fail("bad LEB128 number")
		return 0
	}
	c.off += n
	return v
}
