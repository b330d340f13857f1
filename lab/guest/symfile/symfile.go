// Package symfile writes an ELF file that has nothing but symbols, for debuggers: a running kernel names its functions in
// /proc/kallsyms, modules among them, with the addresses where they are now.
package symfile

import (
	"bufio"
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Symbol is a name and where it is.
type Symbol struct {
	Addr   uint64
	Func   bool // of text; else data
	Name   string
	Module string // empty for the kernel's own
}

// maxSymbols bounds what is read; Debian's 6.12 has 155,000.
const maxSymbols = 4 << 20

// Parse reads /proc/kallsyms: "ffffffff81000000 T _stext" and "ffffffffc0000000 t f\t[module]". Symbols of per-CPU memory,
// whose numbers are no addresses, are left out. If all addresses are hidden, that is an error.
func Parse(r io.Reader) ([]Symbol, error) {
	var out []Symbol
	sc := bufio.NewScanner(r)
	for line := 1; sc.Scan(); line++ {
		f := strings.Fields(sc.Text())
		if len(f) < 3 || len(f[1]) != 1 {
			return nil, fmt.Errorf("kallsyms line %d: %.60q", line, sc.Text())
		}
		addr, err := strconv.ParseUint(f[0], 16, 64)
		if err != nil {
			return nil, fmt.Errorf("kallsyms line %d: %w", line, err)
		}
		if addr < 1<<63 {
			continue
		}
		s := Symbol{Addr: addr, Name: f[2], Func: strings.Contains("tTwW", f[1])}
		if len(f) > 3 {
			s.Module = strings.Trim(f[3], "[]")
		}
		if out = append(out, s); len(out) > maxSymbols {
			return nil, fmt.Errorf("kallsyms: over %d symbols", maxSymbols)
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("kallsyms: %w", err)
	}
	if len(out) == 0 {
		return nil, errors.New("kallsyms: no addresses (kernel.kptr_restrict hides them from who has no CAP_SYSLOG)")
	}
	return out, nil
}

// The sections, by index.
const (
	secText = 1 + iota
	secData
	secSymtab
	secStrtab
	secShstrtab
	sections
)

const names = "\x00.text\x00.data\x00.symtab\x00.strtab\x00.shstrtab\x00"

// Write writes the file: x86-64, sections .text and .data that have no bytes and span the symbols.
func Write(w io.Writer, syms []Symbol) error {
	syms = slices.Clone(syms)
	slices.SortStableFunc(syms, func(a, b Symbol) int { return cmp.Compare(a.Addr, b.Addr) })
	var tab, str bytes.Buffer
	str.WriteByte(0)
	binary.Write(&tab, binary.LittleEndian, elf.Sym64{})
	for _, s := range syms {
		if str.Len() > math.MaxUint32-len(s.Name)-1 {
			return errors.New("write symbols: names are over 4 GiB")
		}
		e := elf.Sym64{Name: uint32(str.Len()), Value: s.Addr, Shndx: secData, Info: elf.ST_INFO(elf.STB_GLOBAL, elf.STT_OBJECT)}
		if s.Func {
			e.Shndx, e.Info = secText, elf.ST_INFO(elf.STB_GLOBAL, elf.STT_FUNC)
		}
		str.WriteString(s.Name)
		str.WriteByte(0)
		binary.Write(&tab, binary.LittleEndian, e)
	}
	const ehsize, shentsize, symsize = 64, 64, 24
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: ehsize, Shentsize: shentsize, Shnum: sections, Shstrndx: secShstrtab}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	at := uint64(ehsize)
	place := func(n int) (off uint64) {
		off, at = at, at+uint64(n)
		return off
	}
	sh := [sections]elf.Section64{
		secText:     span(syms, true, uint64(elf.SHF_ALLOC|elf.SHF_EXECINSTR)),
		secData:     span(syms, false, uint64(elf.SHF_ALLOC|elf.SHF_WRITE)),
		secSymtab:   {Type: uint32(elf.SHT_SYMTAB), Off: place(tab.Len()), Size: uint64(tab.Len()), Link: secStrtab, Info: 1, Addralign: 8, Entsize: symsize},
		secStrtab:   {Type: uint32(elf.SHT_STRTAB), Off: place(str.Len()), Size: uint64(str.Len()), Addralign: 1},
		secShstrtab: {Type: uint32(elf.SHT_STRTAB), Off: place(len(names)), Size: uint64(len(names)), Addralign: 1},
	}
	for i, name := range []string{secText: ".text", secData: ".data", secSymtab: ".symtab", secStrtab: ".strtab", secShstrtab: ".shstrtab"} {
		sh[i].Name = uint32(strings.Index(names, "\x00"+name+"\x00") + 1)
	}
	sh[0] = elf.Section64{}
	h.Shoff = at
	var head, table bytes.Buffer
	binary.Write(&head, binary.LittleEndian, h)
	binary.Write(&table, binary.LittleEndian, sh)
	for _, b := range [][]byte{head.Bytes(), tab.Bytes(), str.Bytes(), []byte(names), table.Bytes()} {
		if _, err := w.Write(b); err != nil {
			return fmt.Errorf("write symbols: %w", err)
		}
	}
	return nil
}

// span is a section without bytes from the first symbol of its kind to behind the last.
func span(syms []Symbol, text bool, flags uint64) elf.Section64 {
	s := elf.Section64{Type: uint32(elf.SHT_NOBITS), Flags: flags, Addralign: 1}
	for _, x := range syms {
		if x.Func != text {
			continue
		}
		if s.Addr == 0 {
			s.Addr = x.Addr
		}
		s.Size = x.Addr - s.Addr + 1
	}
	return s
}
