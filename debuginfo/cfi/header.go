package cfi

import "github.com/fathom-trace/fathom/internal/bin"

// Index is a .eh_frame_hdr: it says where .eh_frame is, in a program in memory as in a file without section headers.
type Index struct {
	Frames  uint64  // the address of .eh_frame, as the file is linked; 0: it does not say
	Entries []Place // by address; nil: there is no table
}

// Place says where the entry of the function is that begins at PC. Both are addresses as the file is linked.
type Place struct {
	PC, Entry uint64
}

// ReadIndex reads a .eh_frame_hdr, of which s has the bytes, the address, the order and the size of addresses.
func ReadIndex(s Section) (Index, error) {
	d := &decoder{sec: s}
	d.sec.GOT = s.Addr // here, what is relative to data is relative to the section
	c := bin.NewCursor(s.Data, s.Order)
	if v := c.U8(); v != 1 {
		c.Fail("version %d", v)
	}
	framesEnc, countEnc, tableEnc := c.U8(), c.U8(), c.U8()
	var x Index
	x.Frames = d.pointer(c, framesEnc, 0)
	n := d.pointer(c, countEnc, 0)
	if tableEnc == peOmit || countEnc == peOmit {
		return x, c.Err("index of call frames")
	}
	if n > uint64(c.Len()/2) {
		c.Fail("%d entries, have %d bytes", n, c.Len())
		return x, c.Err("index of call frames")
	}
	for range n {
		p := Place{PC: d.pointer(c, tableEnc, 0), Entry: d.pointer(c, tableEnc, 0)}
		if !c.OK() {
			break
		}
		x.Entries = append(x.Entries, p)
	}
	return x, c.Err("index of call frames")
}
