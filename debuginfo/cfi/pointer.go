package cfi

import "github.com/fathom-trace/fathom/internal/bin"

// Encodings of pointers: DW_EH_PE_*.
const (
	peAbs     = 0x00
	peULEB    = 0x01
	peU2      = 0x02
	peU4      = 0x03
	peU8      = 0x04
	peSLEB    = 0x09
	peS2      = 0x0a
	peS4      = 0x0b
	peS8      = 0x0c
	pePCRel   = 0x10
	peTextRel = 0x20
	peDataRel = 0x30
	peAligned = 0x50
	peIndir   = 0x80
	peOmit    = 0xff
)

// pointer reads a pointer of an encoding; base is the offset in the section of the cursor's first byte. One that is kept
// in memory elsewhere is given as where.
func (d *decoder) pointer(c *bin.Cursor, enc uint8, base int) uint64 {
	if enc == peOmit {
		return 0
	}
	at := d.sec.Addr + uint64(base+c.Off())
	if enc&0x70 == peAligned {
		if pad := -at & uint64(d.sec.AddrSize-1); pad != 0 {
			c.Skip(int(pad))
		}
		return d.value(c, peAbs)
	}
	v := d.value(c, enc&0x0f)
	switch enc & 0x70 {
	case 0:
	case pePCRel:
		v += at
	case peTextRel:
		v += d.sec.Text
	case peDataRel:
		v += d.sec.GOT
	default:
		c.Fail("pointer of encoding %#x", enc)
	}
	if d.sec.AddrSize == 4 {
		v = uint64(uint32(v))
	}
	return v
}

// value reads a number of a format.
func (d *decoder) value(c *bin.Cursor, format uint8) uint64 {
	switch format {
	case peAbs:
		if d.sec.AddrSize == 4 {
			return uint64(c.U32())
		}
		return c.U64()
	case peULEB:
		return c.Uvarint()
	case peU2:
		return uint64(c.U16())
	case peU4:
		return uint64(c.U32())
	case peU8, peS8:
		return c.U64()
	case peSLEB:
		return uint64(sleb(c))
	case peS2:
		return uint64(int16(c.U16()))
	case peS4:
		return uint64(int32(c.U32()))
	}
	c.Fail("number of format %#x", format)
	return 0
}

// sleb reads a signed LEB128 number of at most 64 bits.
func sleb(c *bin.Cursor) int64 {
	v, shift := int64(0), uint(0)
	for c.OK() {
		b := c.U8()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		if shift += 7; b&0x80 == 0 {
			if b&0x40 != 0 && shift < 64 {
				v |= -1 << shift
			}
			return v
		}
	}
	return 0
}
