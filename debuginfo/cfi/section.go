package cfi

import (
	"encoding/binary"
	"math"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Section is a .eh_frame or a .debug_frame with what its pointers are relative to.
type Section struct {
	Data     []byte
	Order    binary.ByteOrder
	Addr     uint64 // where it is loaded, as the file is linked
	Text     uint64 // where .text is, for pointers relative to it: 0 if there are none
	GOT      uint64 // where the data is that pointers are relative to: on x86-64, .got
	AddrSize int    // 4 or 8
	EH       bool   // it is .eh_frame, whose entries refer to each other in a way of their own
}

// cie is a common information entry: what many functions share.
type cie struct {
	codeAlign uint64
	dataAlign int64
	ra        uint64
	enc       uint8 // of the addresses in the functions' entries
	augmented bool  // the functions' entries have augmentation data
	signal    bool
	start     state // what holds at each function's start
	err       error
}

// decoder holds what entries share.
type decoder struct {
	sec  Section
	regs Regs
	cies map[int]*cie
	plt  uint64 // bytes of linkage tables that were written out
}

// Decode gives the functions of a section in the order they stand in it. On an error, which is a *bin.FormatError, it
// gives those before it too.
func Decode(sec Section, regs Regs) ([]Func, error) {
	d := &decoder{sec: sec, regs: regs, cies: map[int]*cie{}}
	c := bin.NewCursor(sec.Data, sec.Order)
	var out []Func
	for c.Len() > 0 {
		e, ok := d.entry(c)
		if err := c.Err("call frame information"); err != nil {
			return out, err
		}
		if !ok {
			if sec.EH {
				break // a length of 0 ends .eh_frame
			}
			continue
		}
		if e.cie < 0 {
			continue // read when a function refers to it
		}
		f, ok, err := d.fde(e)
		if err != nil {
			return out, err
		}
		if ok {
			out = append(out, f)
		}
	}
	return out, nil
}

// entry is one entry of a section.
type entry struct {
	body []byte // behind the field that says which kind it is
	off  int    // of body in the section
	cie  int    // offset of the common entry that a function's refers to; -1 in a common entry
	wide bool   // the 64-bit format
}

// entry reads a length and the entry it is of. It is false for a length of 0.
func (d *decoder) entry(c *bin.Cursor) (e entry, ok bool) {
	n := uint64(c.U32())
	if n == math.MaxUint32 {
		n, e.wide = c.U64(), true
	}
	if n == 0 || !c.OK() {
		return e, false
	}
	at := c.Off()
	if n > uint64(c.Len()) {
		c.Fail("an entry of %d bytes, have %d", n, c.Len())
		return e, false
	}
	end := at + int(n)
	id, none := uint64(0), uint64(0)
	if e.wide && !d.sec.EH {
		id, none = c.U64(), math.MaxUint64
	} else if id = uint64(c.U32()); !d.sec.EH {
		none = math.MaxUint32
	}
	if c.Off() > end {
		c.Fail("an entry of %d bytes", n)
		return e, false
	}
	switch {
	case id == none:
		e.cie = -1
	case d.sec.EH && id <= uint64(at):
		e.cie = at - int(id)
	case !d.sec.EH && id < uint64(len(d.sec.Data)):
		e.cie = int(id)
	default:
		c.Fail("refers to a common entry outside the section")
	}
	e.off = c.Off()
	e.body = c.Bytes(end - e.off)
	return e, c.OK()
}

// common gives the common entry at an offset.
func (d *decoder) common(off int) (*cie, error) {
	if k, ok := d.cies[off]; ok {
		return k, k.err
	}
	k := &cie{}
	d.cies[off] = k
	c := bin.NewCursor(d.sec.Data, d.sec.Order)
	c.Seek(off)
	e, ok := d.entry(c)
	if ok && e.cie >= 0 || !ok && c.OK() {
		c.Fail("a function refers to what is no common entry")
	}
	if k.err = c.Err("common information entry"); k.err == nil {
		k.err = d.readCIE(k, e)
	}
	return k, k.err
}

func (d *decoder) readCIE(k *cie, e entry) error {
	c := bin.NewCursorAt(e.body, d.sec.Order, int64(e.off))
	version := c.U8()
	switch version {
	case 1, 3, 4:
	default:
		c.Fail("version %d", version)
	}
	aug := c.CString()
	if version == 4 {
		if n := int(c.U8()); n != d.sec.AddrSize && c.OK() {
			c.Fail("addresses of %d bytes", n)
		}
		if n := c.U8(); n != 0 {
			c.Fail("segment selectors of %d bytes", n)
		}
	}
	k.codeAlign, k.dataAlign = c.Uvarint(), sleb(c)
	if version == 1 {
		k.ra = uint64(c.U8())
	} else {
		k.ra = c.Uvarint()
	}
	if k.ra != d.regs.RA && c.OK() {
		c.Fail("the return address is register %d", k.ra)
	}
	d.augmentation(c, k, aug, e)
	if err := c.Err("common information entry"); err != nil {
		return err
	}
	m := machine{d: d, k: k, c: c, base: e.off}
	m.run(func(uint64) {})
	k.start = m.s
	k.start.signal = k.signal
	return c.Err("common information entry")
}

// augmentation reads what the letters of a common entry stand for.
func (d *decoder) augmentation(c *bin.Cursor, k *cie, aug string, e entry) {
	if aug == "" {
		return
	}
	if aug[0] != 'z' {
		c.Fail("augmentation %q", aug)
		return
	}
	k.augmented = true
	n := c.Uvarint()
	if n > uint64(c.Len()) {
		c.Fail("augmentation of %d bytes, have %d", n, c.Len())
		return
	}
	end := c.Off() + int(n)
	for _, l := range aug[1:] {
		switch l {
		case 'R':
			k.enc = c.U8()
		case 'P': // the personality routine
			enc := c.U8()
			d.pointer(c, enc, e.off)
		case 'L':
			c.U8() // the encoding of the language's data
		case 'S':
			k.signal = true
		case 'B', 'G': // arm64: return addresses are signed with key B; memory is tagged
		default:
			c.Seek(end) // what it means is not known, but where it ends is
			return
		}
	}
	if c.Off() > end {
		c.Fail("augmentation is longer than it says")
		return
	}
	c.Seek(end)
}

// fde reads a function's entry. It is false for ranges of no bytes, which are what a linker left of dropped functions.
func (d *decoder) fde(e entry) (f Func, ok bool, err error) {
	k, err := d.common(e.cie)
	if err != nil {
		return f, false, err
	}
	c := bin.NewCursorAt(e.body, d.sec.Order, int64(e.off))
	f.Lo = d.pointer(c, k.enc, e.off)
	size := d.pointer(c, k.enc&0x0f, e.off) // as wide as the address, and relative to nothing
	if k.augmented {
		if n := c.Uvarint(); n > uint64(c.Len()) {
			c.Fail("augmentation of %d bytes, have %d", n, c.Len())
		} else {
			c.Skip(int(n))
		}
	}
	if err := c.Err("frame description entry"); err != nil {
		return f, false, err
	}
	if f.Hi = f.Lo + size; f.Hi <= f.Lo {
		return f, false, nil
	}
	m := machine{d: d, k: k, s: k.start, c: c, pc: f.Lo, base: e.off}
	m.run(func(next uint64) { f.Rows = m.rows(f.Rows, min(next, f.Hi)) })
	f.Rows = m.rows(f.Rows, f.Hi)
	return f, len(f.Rows) > 0, c.Err("frame description entry")
}
