// Package kernel is what analysis sees of a Linux kernel, dead or alive: its memory, symbols, types and registers, behind
// small interfaces. The packages below it that know where these come from are backends (dump); unwind and walk ask a
// [Target] and never know which it is.
package kernel

import (
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/debuginfo/orc"
)

// Memory reads a kernel's virtual memory.
type Memory interface {
	// ReadVirt reads all of p, or returns a *FaultError.
	ReadVirt(p []byte, addr uint64) error
}

// FaultError is virtual memory that cannot be read.
type FaultError struct {
	Addr uint64
	Err  error // why: no page is mapped there, or the dump does not have it
}

// Error gives address and reason.
func (e *FaultError) Error() string { return fmt.Sprintf("read %#x: %v", e.Addr, e.Err) }

// Unwrap gives the reason.
func (e *FaultError) Unwrap() error { return e.Err }

// Symbols name addresses.
type Symbols interface {
	// At gives the symbol that an address is in or behind.
	At(addr uint64) (kallsyms.Sym, bool)
	// ByName gives the addresses of all symbols of a name, ascending.
	ByName(name string) []uint64
}

// Extent is how far behind a symbol's address the next symbol is, at most limit.
func Extent(s Symbols, at, limit uint64) uint64 {
	same := func(a uint64) bool { y, ok := s.At(a); return ok && y.Addr == at }
	lo, hi := uint64(1), limit // at+lo-1 is of this one, at+hi of another
	if same(at + hi) {
		return hi
	}
	for lo < hi {
		if mid := (lo + hi) / 2; same(at + mid) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// Module is a loaded module.
type Module struct {
	Name   string
	Addr   uint64 // of its struct module
	Ranges []Range
	Size   uint64
	Taints string // letters, as in "(OE)"
	Refs   int
	State  string // "Live", "Loading", "Unloading"
	Unwind *orc.Table
}

// Range is memory [Start, End).
type Range struct{ Start, End uint64 }

// Contains says if an address is in the module's memory.
func (m *Module) Contains(addr uint64) bool {
	for _, r := range m.Ranges {
		if addr >= r.Start && addr < r.End {
			return true
		}
	}
	return false
}

// Regs are a CPU's registers by the kernel's names: "rip", "rsp", "cs" … A register that is not known is not there.
type Regs map[string]uint64

// Caps is what a target can answer. What it cannot is said once, with the reason.
type Caps struct {
	Missing []Missing
}

// Missing is something a target does not have.
type Missing struct {
	What string // "registers", "types of module x"
	Why  error
}

// Target is a kernel.
type Target interface {
	Memory
	Symbols() Symbols
	Types() ctype.Lookup
	// Registers are each CPU's, by number; nil where they are not known.
	Registers() []Regs
	// PerCPU gives what to add to the address of a per-CPU variable for that CPU's copy.
	PerCPU(cpu int) uint64
	// CPUs are the numbers of the CPUs that the kernel knows.
	CPUs() []int
	Modules() []Module
	// Unwind gives the unwind table for an instruction's address; nil where there is none.
	Unwind(addr uint64) *orc.Table
	Caps() Caps
}

// UserMemory is a Target that also has the memory of user programs.
type UserMemory interface {
	// ReadUser reads all of p from the address space whose top page table is at pgd (mm->pgd), or returns a *FaultError.
	ReadUser(p []byte, pgd, addr uint64) error
}

// UserPages is a Target that knows where the memory of user programs is.
type UserPages interface {
	// TranslateUser gives the physical address of one of the address space whose top page table is at pgd (mm->pgd). What was
	// swapped out, or never touched, has none: a *FaultError.
	TranslateUser(pgd, addr uint64) (uint64, error)
}

// Reader reads virtual memory from base on as an io.ReaderAt, size bytes long.
func Reader(m Memory, base, size uint64) *io.SectionReader {
	return io.NewSectionReader(readerAt{m, base}, 0, int64(size))
}

type readerAt struct {
	m    Memory
	base uint64
}

// ReadAt implements io.ReaderAt.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := r.m.ReadVirt(p, r.base+uint64(off)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// PhysicalMemory is a Target that also has memory by physical address.
type PhysicalMemory interface {
	// ReadPhys reads all of p from a physical address.
	ReadPhys(p []byte, addr uint64) error
	// Memory is where physical memory may be found, ascending.
	Memory() []Range
	// Translate gives the physical address of a virtual one of the kernel.
	Translate(addr uint64) (uint64, error)
}
