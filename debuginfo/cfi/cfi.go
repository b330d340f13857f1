// Package cfi reads call frame information: what .eh_frame and .debug_frame say of where, at each instruction of a program
// compiled without frame pointers, the caller's stack pointer, frame pointer and return address are. It decodes sections
// and gives rows; finding the sections and walking stacks is for others.
//
// Of the registers it follows the three that a stack walk needs. Of expressions it knows the one that linkers write for
// procedure linkage tables; where another stands, a row says that it cannot tell.
//
// The formats: DWARF 5 section 6.4 and appendix D.6; for .eh_frame and .eh_frame_hdr, Linux Standard Base Core 5.0 section
// 10.6; the register numbers, the processors' psABIs.
package cfi

import (
	"cmp"
	"debug/elf"
	"slices"
)

// Regs are the DWARF numbers of the registers that are followed.
type Regs struct {
	SP, FP, RA uint64
}

// RegsOf gives the numbers of an architecture; ok is false for those that are not known here.
func RegsOf(m elf.Machine) (r Regs, ok bool) {
	switch m {
	case elf.EM_X86_64:
		return Regs{SP: 7, FP: 6, RA: 16}, true // rsp, rbp, the return address's column
	case elf.EM_AARCH64:
		return Regs{SP: 31, FP: 29, RA: 30}, true // sp, x29, x30
	}
	return Regs{}, false
}

// Base is what the canonical frame address (the stack pointer before the call) counts from.
type Base uint8

// The bases.
const (
	None Base = iota // it cannot be told: no information, or a rule that is not known here
	SP
	FP
)

// Where says where the caller's value of a register is.
type Where uint8

// The places.
const (
	Same      Where = iota // still in the register
	Saved                  // in memory, at the canonical frame address plus an offset
	Undefined              // nowhere; of the return address: this is the outermost frame
	Lost                   // by a rule that is not known here
)

// Row holds from its address up to that of the next row.
type Row struct {
	PC     uint64 // as the file is linked
	Off    int64  // the canonical frame address is Base + Off
	FPOff  int64  // with FP == Saved: from the canonical frame address
	RAOff  int64  // with RA == Saved
	Base   Base
	FP, RA Where
	Signal bool // in a signal's trampoline: its caller was interrupted, and its address is not one after a call
}

// same says if two rows differ in nothing but their addresses.
func (r Row) same(o Row) bool {
	r.PC = o.PC
	return r == o
}

// Func is the information on one range of code, in most cases a function.
type Func struct {
	Lo, Hi uint64 // as the file is linked; Hi is behind the last instruction
	Rows   []Row  // by address, the first at Lo; no two neighbours say the same
}

// Table joins functions, in any order, to one list of rows by address. Where no function is, a row says None. Of
// functions that overlap, as in files put together from pieces, the one that begins later counts from there on.
func Table(fns []Func) []Row {
	fns = slices.Clone(fns)
	slices.SortStableFunc(fns, func(a, b Func) int { return cmp.Compare(a.Lo, b.Lo) })
	n := 0
	for _, f := range fns {
		n += len(f.Rows) + 1
	}
	out := make([]Row, 0, n)
	for i, f := range fns {
		hi := f.Hi
		if i+1 < len(fns) {
			hi = min(hi, fns[i+1].Lo)
		}
		for _, r := range f.Rows {
			if r.PC < hi {
				out = appendRow(out, r)
			}
		}
		if f.Lo < hi && (i+1 == len(fns) || hi < fns[i+1].Lo) {
			out = appendRow(out, Row{PC: hi})
		}
	}
	return slices.Clip(out)
}

// appendRow keeps a table free of rows that say nothing new, and of rows that hold for no instruction.
func appendRow(rows []Row, r Row) []Row {
	for n := len(rows); n > 0 && rows[n-1].PC == r.PC; n = len(rows) {
		rows = rows[:n-1]
	}
	if n := len(rows); n > 0 && rows[n-1].same(r) {
		return rows
	}
	return append(rows, r)
}

// Find gives the row of a table that holds at pc; the zero Row, which says None, if there is none.
func Find(rows []Row, pc uint64) Row {
	i, found := slices.BinarySearchFunc(rows, pc, func(r Row, pc uint64) int { return cmp.Compare(r.PC, pc) })
	if !found {
		i--
	}
	if i < 0 {
		return Row{}
	}
	return rows[i]
}
