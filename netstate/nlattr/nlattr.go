// Package nlattr reads netlink attributes (struct nlattr, include/uapi/linux/netlink.h) out of messages.
//
// Numbers are little-endian, as on every machine fathom runs on; the BE readers are for attributes that are defined in
// network order. What is shorter than its type reads as zero: kernels add and leave out attributes, and a reader of the
// system's state goes on with what there is. Only a broken chain of lengths is an error.
package nlattr

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/internal/bin"
)

const (
	headerLen = 4
	typeMask  = 0x3fff // without NLA_F_NESTED and NLA_F_NET_BYTEORDER
)

// Attr is one attribute. Data aliases the message.
type Attr struct {
	Type uint16 // without flags
	Data []byte
}

// Attrs are attributes in the order of the message.
type Attrs []Attr

// Parse reads a chain of attributes. On an error it returns what was read before.
func Parse(b []byte) (Attrs, error) {
	var out Attrs
	for off := 0; len(b)-off >= headerLen; {
		n := int(binary.LittleEndian.Uint16(b[off:]))
		if n < headerLen || n > len(b)-off {
			return out, &bin.FormatError{What: "netlink attribute", Off: int64(off), Msg: fmt.Sprintf("length %d of %d bytes", n, len(b)-off)}
		}
		typ := binary.LittleEndian.Uint16(b[off+2:]) & typeMask
		out = append(out, Attr{typ, b[off+headerLen : off+n : off+n]})
		off += min((n+3)&^3, len(b)-off)
	}
	return out, nil
}

// ParseAt reads the attributes that follow a fixed header of n bytes.
func ParseAt(b []byte, n int) (Attrs, error) {
	if len(b) < n {
		return nil, &bin.FormatError{What: "netlink message", Msg: fmt.Sprintf("need %d bytes, have %d", n, len(b))}
	}
	return Parse(b[n:])
}

// Get returns the data of the first attribute of a type; nil if there is none.
func (a Attrs) Get(typ uint16) []byte {
	for _, x := range a {
		if x.Type == typ {
			return x.Data
		}
	}
	return nil
}

// Has reports whether there is an attribute of a type, even an empty one.
func (a Attrs) Has(typ uint16) bool {
	for _, x := range a {
		if x.Type == typ {
			return true
		}
	}
	return false
}

// Nested returns the attributes inside one; nil if there is none or they are broken.
func (a Attrs) Nested(typ uint16) Attrs {
	n, err := Parse(a.Get(typ))
	if err != nil {
		return nil
	}
	return n
}

// String returns text up to its NUL.
func (a Attrs) String(typ uint16) string { return Text(a.Get(typ)) }

// U8 returns a number of one byte.
func (a Attrs) U8(typ uint16) uint8 {
	if d := a.Get(typ); len(d) > 0 {
		return d[0]
	}
	return 0
}

// U16 returns a number of two bytes.
func (a Attrs) U16(typ uint16) uint16 { return U16(a.Get(typ)) }

// U32 returns a number of four bytes.
func (a Attrs) U32(typ uint16) uint32 { return U32(a.Get(typ)) }

// U64 returns a number of eight bytes.
func (a Attrs) U64(typ uint16) uint64 { return U64(a.Get(typ)) }

// BE16 returns a number of two bytes in network order.
func (a Attrs) BE16(typ uint16) uint16 {
	if d := a.Get(typ); len(d) >= 2 {
		return binary.BigEndian.Uint16(d)
	}
	return 0
}

// BE32 returns a number of four bytes in network order.
func (a Attrs) BE32(typ uint16) uint32 {
	if d := a.Get(typ); len(d) >= 4 {
		return binary.BigEndian.Uint32(d)
	}
	return 0
}

// BE64 returns a number of eight bytes in network order.
func (a Attrs) BE64(typ uint16) uint64 {
	if d := a.Get(typ); len(d) >= 8 {
		return binary.BigEndian.Uint64(d)
	}
	return 0
}

// Text returns what stands before the first NUL.
func Text(d []byte) string {
	if i := bytes.IndexByte(d, 0); i >= 0 {
		d = d[:i]
	}
	return string(d)
}

// MAC writes an address of a link: "02:00:00:00:00:01"; "" if there is none.
func MAC(d []byte) string {
	var b strings.Builder
	for i, x := range d {
		if i > 0 {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, "%02x", x)
	}
	return b.String()
}

// U16 reads two bytes; 0 if there are fewer.
func U16(d []byte) uint16 {
	if len(d) >= 2 {
		return binary.LittleEndian.Uint16(d)
	}
	return 0
}

// U32 reads four bytes; 0 if there are fewer.
func U32(d []byte) uint32 {
	if len(d) >= 4 {
		return binary.LittleEndian.Uint32(d)
	}
	return 0
}

// U64 reads eight bytes; 0 if there are fewer.
func U64(d []byte) uint64 {
	if len(d) >= 8 {
		return binary.LittleEndian.Uint64(d)
	}
	return 0
}

// Append adds an attribute, padded, for requests.
func Append(b []byte, typ uint16, data []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, uint16(headerLen+len(data)))
	b = binary.LittleEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return append(b, make([]byte, -len(data)&3)...)
}

// AppendU32 adds a number.
func AppendU32(b []byte, typ uint16, n uint32) []byte {
	return Append(b, typ, binary.LittleEndian.AppendUint32(nil, n))
}
