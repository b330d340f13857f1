package elf

import (
	"debug/elf"
	"debug/gosym"
)

// GoTable is the function and line table that every Go program carries, stripped or not. The nil table is empty.
type GoTable struct{ tab *gosym.Table }

// GoFunc is a function of a Go program; End is the address behind it.
type GoFunc struct {
	Name       string
	Entry, End uint64
}

// Go returns the table of a Go program, nil if the file is none or the table is damaged.
func (f *File) Go() (t *GoTable) {
	defer func() {
		if recover() != nil {
			t = nil
		}
	}()
	text := f.elf.Section(".text")
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		b := f.section(name, maxTable)
		if len(b) == 0 || text == nil {
			continue
		}
		tab, err := gosym.NewTable(nil, gosym.NewLineTable(b, f.goText(text.Addr)))
		if err == nil && len(tab.Funcs) > 0 {
			return &GoTable{tab}
		}
	}
	return nil
}

// goText is the address functions count from: runtime.text, which is not the start of .text where C code is linked in.
func (f *File) goText(addr uint64) uint64 {
	s := f.elf.SectionByType(elf.SHT_SYMTAB)
	if s == nil {
		return addr
	}
	syms, _ := f.table(s, nil)
	for _, s := range syms {
		if s.Name == "runtime.text" {
			return s.Addr
		}
	}
	return addr
}

// Functions lists all functions by address.
func (t *GoTable) Functions() []GoFunc {
	if t == nil {
		return nil
	}
	fns := make([]GoFunc, 0, len(t.tab.Funcs))
	for i := range t.tab.Funcs {
		f := &t.tab.Funcs[i]
		if f.Name != "" && f.End >= f.Entry {
			fns = append(fns, GoFunc{f.Name, f.Entry, f.End})
		}
	}
	return fns
}

// Line returns the place in the source of an address.
func (t *GoTable) Line(addr uint64) (file string, line int, ok bool) {
	if t == nil {
		return "", 0, false
	}
	defer func() {
		if recover() != nil {
			file, line, ok = "", 0, false
		}
	}()
	file, line, fn := t.tab.PCToLine(addr)
	return file, line, fn != nil && line > 0
}
