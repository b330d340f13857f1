// Package usdt reads statically defined probes of user programs: the notes that <sys/sdt.h> leaves in ELF files, and the
// operands in which each says where its arguments are.
//
// Authority: https://sourceware.org/systemtap/wiki/UserSpaceProbeImplementation, and the operand syntax of the assembler.
package usdt

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Section is the section notes are in, Base the section whose address they were written with.
const (
	Section = ".note.stapsdt"
	Base    = ".stapsdt.base"
)

// Note is one place of a probe; a probe that was inlined, or stands in a template, has several.
type Note struct {
	Provider, Name string
	PC             uint64 // virtual address of the nop
	Base           uint64 // address of .stapsdt.base when the note was written: prelink may have moved the file since
	Semaphore      uint64 // virtual address of the counter of tracers; 0 for none
	Args           string // operands, see [ParseArgs]
}

// noteType is NT_STAPSDT.
const noteType = 3

// Parse reads the notes of a section. base is the address of .stapsdt.base in the file, 0 if it has none: addresses are
// corrected by how far it moved. Notes of others are passed over; what stands before an error is given.
func Parse(notes []byte, order binary.ByteOrder, is64 bool, base uint64) ([]Note, error) {
	var out []Note
	c := bin.NewCursor(notes, order)
	for c.Len() >= 12 {
		nameLen, descLen, typ := int(c.U32()), int(c.U32()), c.U32()
		name := c.Bytes(nameLen)
		c.Align(4)
		desc := c.Bytes(descLen)
		c.Align(4)
		if !c.OK() {
			break
		}
		if typ != noteType || string(name) != "stapsdt\x00" {
			continue
		}
		n, err := parseNote(desc, order, is64)
		if err != nil {
			return out, err
		}
		if base != 0 && n.Base != 0 {
			n.PC += base - n.Base
			if n.Semaphore != 0 {
				n.Semaphore += base - n.Base
			}
		}
		out = append(out, n)
	}
	return out, c.Err(Section)
}

func parseNote(desc []byte, order binary.ByteOrder, is64 bool) (Note, error) {
	c := bin.NewCursor(desc, order)
	word := func() uint64 {
		if is64 {
			return c.U64()
		}
		return uint64(c.U32())
	}
	n := Note{PC: word(), Base: word(), Semaphore: word()}
	n.Provider, n.Name, n.Args = c.CString(), c.CString(), c.CString()
	return n, c.Err("stapsdt note")
}
