package bin

import (
	"encoding/binary"
	"errors"
	"testing"
)

func TestCursor(t *testing.T) {
	b := []byte{1, 2, 0, 3, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 'h', 'i', 0, 0x80, 1, 9}
	c := NewCursor(b, binary.LittleEndian)
	if a, b, d, e, s, v, r := c.U8(), c.U16(), c.U32(), c.U64(), c.CString(), c.Uvarint(), c.Rest(); a != 1 || b != 2 ||
		d != 3 || e != 4 || s != "hi" || v != 128 || len(r) != 1 {
		t.Error(a, b, d, e, s, v, r)
	}
	if err := c.Err("x"); err != nil || !c.OK() {
		t.Error(err)
	}
	if c.U8() != 0 || c.U32() != 0 || c.OK() {
		t.Error("read past the end")
	}
}

func TestCursorErrors(t *testing.T) {
	tests := []struct {
		name string
		in   []byte
		read func(*Cursor)
		want string
	}{
		{"short", []byte{1, 2, 3}, func(c *Cursor) { c.U16(); c.U32() }, "hdr at 0x102: need 4 bytes, have 1"},
		{"sticky", []byte{1}, func(c *Cursor) { c.U16(); c.U64(); c.U8() }, "hdr at 0x100: need 2 bytes, have 1"},
		{"count", []byte{255, 255, 255, 255, 0, 0}, func(c *Cursor) { c.Count(12) }, "hdr at 0x100: count 4294967295 of 12 bytes each, have 2 bytes"},
		{"string", []byte("abc"), func(c *Cursor) { c.CString() }, "hdr at 0x100: string is not terminated"},
		{"negative", []byte("abc"), func(c *Cursor) { c.Bytes(-1) }, "hdr at 0x100: need -1 bytes, have 3"},
		{"seek", []byte("abc"), func(c *Cursor) { c.Seek(2); c.Seek(4) }, "hdr at 0x102: seek to 0x4 outside 3 bytes"},
		{"align", []byte("abc"), func(c *Cursor) { c.U8(); c.Align(4) }, "hdr at 0x101: need 3 bytes, have 2"},
		{"varint", []byte{0x80}, func(c *Cursor) { c.Uvarint() }, "hdr at 0x100: bad LEB128 number"},
		{"fail", nil, func(c *Cursor) { c.Fail("bad %s", "magic"); c.Fail("later") }, "hdr at 0x100: bad magic"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCursorAt(tt.in, binary.LittleEndian, 0x100)
			tt.read(c)
			err := c.Err("hdr")
			var fe *FormatError
			if !errors.As(err, &fe) || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
