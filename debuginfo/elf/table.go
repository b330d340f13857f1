package elf

import (
	"cmp"
	"debug/elf"
	"slices"
	"strings"
)

// Sym is a function or variable of a file.
type Sym struct {
	Name  string // as in the file, not demangled
	Addr  uint64 // virtual address in the file, before it is loaded anywhere
	Size  uint64 // bytes; 0 if the file does not say
	Rank  uint8  // how good a name it is among those of one address; more is better
	Data  bool   // a variable
	Label bool   // of assembly, with neither type nor, mostly, size
}

// newSym ranks as perf does (choose_best_symbol): sized before unsized, typed before label, global before weak before
// local.
func newSym(name string, s elf.Sym64, m elf.Machine) Sym {
	sym := Sym{Name: name, Addr: s.Value, Size: s.Size}
	if m == elf.EM_ARM {
		sym.Addr &^= 1 // bit 0 says Thumb
	}
	switch elf.ST_BIND(s.Info) {
	case elf.STB_GLOBAL:
		sym.Rank = 2
	case elf.STB_WEAK:
		sym.Rank = 1
	}
	if elf.ST_TYPE(s.Info) != elf.STT_NOTYPE {
		sym.Rank += 4
	} else {
		sym.Label = true
	}
	if s.Size > 0 {
		sym.Rank += 8
	}
	return sym
}

// Table is symbols by address.
type Table struct {
	syms    []Sym
	longest uint64 // the largest Size
}

// NewTable sorts symbols into a table; of one address the best name comes first. It takes the slice over. An alias with the
// name of another symbol of its address is dropped.
func NewTable(syms []Sym) *Table {
	slices.SortFunc(syms, func(a, b Sym) int {
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(b.Rank, a.Rank),
			cmp.Compare(underscores(a.Name), underscores(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	syms = slices.CompactFunc(syms, func(a, b Sym) bool { return a.Addr == b.Addr && a.Name == b.Name })
	t := &Table{syms: slices.Clip(syms)}
	for _, s := range t.syms {
		t.longest = max(t.longest, s.Size)
	}
	return t
}

func underscores(s string) int { return len(s) - len(strings.TrimLeft(s, "_")) }

// All returns all symbols by address. The slice is the table's own.
func (t *Table) All() []Sym { return t.syms }

// maxBack bounds the search for a function around others: nested symbols are rare and shallow.
const maxBack = 64

// Find returns the function that addr is in. A symbol without size reaches to the next one.
func (t *Table) Find(addr uint64) (Sym, bool) {
	i, _ := slices.BinarySearchFunc(t.syms, addr, func(s Sym, a uint64) int {
		if s.Addr <= a {
			return -1
		}
		return 1
	})
	for back := 0; i > 0 && back < maxBack; back++ {
		i--
		for i > 0 && t.syms[i-1].Addr == t.syms[i].Addr { // the best of its address
			i--
		}
		s := t.syms[i]
		if addr-s.Addr < s.Size || s.Size == 0 && back == 0 {
			return s, true
		}
		if addr-s.Addr >= t.longest {
			break
		}
	}
	return Sym{}, false
}

// Named returns the symbols of that name by address.
func (t *Table) Named(name string) []Sym {
	var out []Sym
	for _, s := range t.syms {
		if s.Name == name {
			out = append(out, s)
		}
	}
	return out
}
