// Package orc reads the kernel's unwind tables for x86-64 (arch/x86/include/asm/orc_types.h, tools/objtool): for each
// instruction, where the caller's stack pointer and frame pointer are. It holds the tables and looks up; walking a stack is
// kernel/unwind's.
package orc

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/ctype"
)

// Reg is a base that an offset counts from (ORC_REG_*).
type Reg uint8

// The bases.
const (
	Undefined Reg = iota
	PrevSP
	DX
	DI
	BP
	SP
	R10
	R13
	BPIndirect
	SPIndirect
)

// Type is what stands on the stack at the place an entry computes.
type Type uint8

// The types, by their meaning; their numbers differ between kernels.
const (
	None        Type = iota // no way on from here
	EndOfStack              // the outermost frame
	Call                    // a return address
	Regs                    // struct pt_regs
	RegsPartial             // the part of pt_regs that the CPU pushes
)

// Entry is one entry of a table.
type Entry struct {
	SPOffset, BPOffset int16
	SPReg, BPReg       Reg
	Type               Type
}

// Size is of one entry in memory.
const Size = 6

// numbers are the bases by their numbers in entries; those that are not known here stay Undefined.
type numbers [16]Reg

var (
	first = numbers{0, PrevSP, DX, DI, BP, SP, R10, R13, BPIndirect, SPIndirect}
	// later are those of Linux 7.3, as its own tables show them by the offsets that go with each.
	later = numbers{2: DX, 3: SP, 4: BP, 6: R10, 7: R13, 8: PrevSP, 9: SPIndirect, 10: BPIndirect}
)

// Format is where the bits of an entry's last word are, and what numbers mean. Kernels before 6.3 and from 6.4 on differ in the
// former; a kernel's own type information tells. The latter are told by its entries, see [Format.Learn].
type Format struct {
	later    bool // numbers
	typeBits uint // 2: CALL is 0, and "end" a bit of its own; 3: CALL is 2
	typeAt   uint
	endAt    uint // 0: there is no such bit
}

// FormatOf reads the layout of struct orc_entry.
func FormatOf(t ctype.Lookup) (Format, error) {
	ty, err := t.ByName(ctype.KindStruct, "orc_entry")
	if err != nil {
		return Format{}, err
	}
	s, ok := ty.(*ctype.Struct)
	if !ok || s.Size != Size {
		return Format{}, fmt.Errorf("struct orc_entry has %d bytes, not %d", ctype.Size(ty), Size)
	}
	m, ok := s.Member("type")
	if !ok || m.BitOff < 32 || m.BitSize < 2 || m.BitSize > 3 {
		return Format{}, fmt.Errorf("struct orc_entry has no type that we know")
	}
	f := Format{typeBits: uint(m.BitSize), typeAt: uint(m.BitOff - 32)}
	if e, ok := s.Member("end"); ok && e.BitOff >= 32 {
		f.endAt = uint(e.BitOff - 32)
	}
	return f, nil
}

// Decode reads an entry.
func (f Format) Decode(b [Size]byte) Entry {
	w := binary.LittleEndian.Uint16(b[4:])
	e := Entry{
		SPOffset: int16(binary.LittleEndian.Uint16(b[0:])), BPOffset: int16(binary.LittleEndian.Uint16(b[2:])),
	}
	regs := &first
	if f.later {
		regs = &later
	}
	e.SPReg, e.BPReg = regs[w&15], regs[w>>4&15]
	if w&15 != 0 && e.SPReg == Undefined || w>>4&15 != 0 && e.BPReg == Undefined {
		return e // of a base that is not known
	}
	t := w >> f.typeAt & (1<<f.typeBits - 1)
	if f.typeBits == 3 {
		e.Type = [8]Type{None, EndOfStack, Call, Regs, RegsPartial}[t]
		return e
	}
	e.Type = [4]Type{Call, Regs, RegsPartial, None}[t]
	if e.SPReg == Undefined {
		e.Type = None
		if f.endAt != 0 && w>>f.endAt&1 != 0 {
			e.Type = EndOfStack
		}
	}
	return e
}

// LearnFrom is how many entries [Format.Learn] needs.
const LearnFrom = 512

// Learn tells which numbers the bases have, by a number of entries of a kernel, as they are in memory: where a function was called,
// the caller's stack pointer is most of the time so far from the stack pointer.
func (f Format) Learn(entries []byte) Format {
	count := func(later bool) (n int) {
		f.later = later
		for b := entries; len(b) >= Size; b = b[Size:] {
			if e := f.Decode([Size]byte(b)); e.Type == Call && e.SPReg == SP && e.SPOffset > 0 {
				n++
			}
		}
		return n
	}
	f.later = count(true) > count(false)
	return f
}

// Table is the entries of a kernel or of one module, sorted by address; nothing of it is held in memory.
type Table struct {
	Format  Format
	N       int
	IPs     io.ReaderAt // N 32-bit offsets, each from where it stands itself
	IPAddr  uint64      // address of the first
	Entries io.ReaderAt // N entries
}

// Lookup gives the entry for an instruction's address; ok is false where the tables say nothing, or where the entry is, or may
// be, among what is not readable.
func (t *Table) Lookup(addr uint64) (Entry, bool) {
	i, ok := t.search(addr)
	if !ok || i == 0 {
		return Entry{}, false
	}
	var b [Size]byte
	if _, err := t.Entries.ReadAt(b[:], int64(i-1)*Size); err != nil {
		return Entry{}, false
	}
	return t.Format.Decode(b), true
}

// search finds the first address above addr. What cannot be read is gone around: what stands before and behind it says on
// which side to go on, and between the two there is no answer.
func (t *Table) search(addr uint64) (i int, ok bool) {
	lo, hi := 0, t.N // all before lo are not above, all from hi on are
	for lo < hi {
		mid := lo + (hi-lo)/2
		ip, err := t.ip(mid)
		at, behind := mid, mid+1 // what is read, and what is behind that or behind what is not readable
		if err != nil {
			from, end := t.hole(mid, lo, hi)
			if end < hi {
				if ip, err = t.ip(end); err == nil && ip <= addr {
					lo = end + 1
					continue
				}
			}
			if at, behind = from-1, end; at < lo {
				return 0, false
			}
			if ip, err = t.ip(at); err != nil || ip <= addr {
				return 0, false
			}
		}
		if ip > addr {
			hi = at
		} else {
			lo = behind
		}
	}
	return lo, true
}

// pageEntries are the addresses in a page, of which memory is readable or not.
const pageEntries = 4096 / 4

// hole gives what is not readable around i, from lo to hi, in whole pages.
func (t *Table) hole(i, lo, hi int) (from, end int) {
	within := int(t.IPAddr % 4096 / 4) // the page of the first begins so many entries before it
	unreadable := func(i int) bool { _, err := t.ip(i); return err != nil }
	page := (i + within) / pageEntries
	start := func(page int) int { return page*pageEntries - within }
	from, end = page, page+1
	for start(from) > lo && unreadable(start(from)-1) {
		from--
	}
	for start(end) < hi && unreadable(start(end)) {
		end++
	}
	return max(start(from), lo), min(start(end), hi)
}

func (t *Table) ip(i int) (uint64, error) {
	var b [4]byte
	if _, err := t.IPs.ReadAt(b[:], 4*int64(i)); err != nil {
		return 0, fmt.Errorf("read orc table: %w", err)
	}
	return t.IPAddr + 4*uint64(i) + uint64(int64(int32(binary.LittleEndian.Uint32(b[:])))), nil
}
