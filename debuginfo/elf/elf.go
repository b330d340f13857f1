// Package elf finds function names in ELF files: the tables .symtab and .dynsym, the compressed .gnu_debugdata of
// distributions that strip their programs, and the function table of Go programs; and it says where more is to be found,
// by build id and debug link. It reads from an io.ReaderAt and opens nothing.
//
// Headers are read by the standard library's debug/elf, symbol tables here: a [Table] shares the string table and takes
// bounded memory, whatever the file says. The authority is the System V ABI, gABI chapters 4 and 5.
package elf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"strings"

	"github.com/ulikunitz/xz"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Bounds on what a file can make us read.
const (
	maxTable = 1 << 30   // bytes of a symbol or string table
	maxDebug = 256 << 20 // bytes of an unpacked .gnu_debugdata
	maxNote  = 1 << 16
	maxName  = 1 << 16 // a longer symbol name is cut
)

// File is an ELF file.
type File struct {
	elf   *elf.File
	r     io.ReaderAt
	progs []elf.ProgHeader // PT_LOAD
}

// Read reads the headers of an ELF file. Nothing is closed when done with it; r must stay open.
func Read(r io.ReaderAt) (f *File, err error) {
	defer guard(&err)
	e, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("read ELF headers: %w", err)
	}
	f = &File{elf: e, r: r}
	for _, p := range e.Progs {
		if p.Type == elf.PT_LOAD {
			f.progs = append(f.progs, p.ProgHeader)
		}
	}
	return f, nil
}

// guard turns a panic of the standard library's decoders, which do not promise to stand hostile input, into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("read ELF: %v", p)
	}
}

// Machine and Class are those of the header.
func (f *File) Machine() elf.Machine { return f.elf.Machine }

// Class is 32 or 64 bit.
func (f *File) Class() elf.Class { return f.elf.Class }

// Offset gives the place in the file of a virtual address, by the segments; this is what uprobes want.
func (f *File) Offset(addr uint64) (off uint64, ok bool) {
	for _, p := range f.progs {
		if addr >= p.Vaddr && addr-p.Vaddr < p.Filesz {
			return addr - p.Vaddr + p.Off, true
		}
	}
	return 0, false
}

// Addr gives the virtual address of a place in the file: of the executable segment, if several have it, as those at a page
// that two segments share.
func (f *File) Addr(off uint64) (addr uint64, ok bool) {
	for _, p := range f.progs {
		if off < p.Off || off-p.Off >= p.Filesz {
			continue
		}
		addr, ok = off-p.Off+p.Vaddr, true
		if p.Flags&elf.PF_X != 0 {
			break
		}
	}
	return addr, ok
}

// section reads a section whole, unpacking it if the file says that it is compressed; nil if it has none in the file.
func (f *File) section(name string, limit uint64) []byte {
	s := f.elf.Section(name)
	if s == nil {
		return nil
	}
	return data(s, limit)
}

func data(s *elf.Section, limit uint64) []byte {
	if s.Type == elf.SHT_NOBITS || s.Size > limit || s.FileSize > limit {
		return nil
	}
	b, err := s.Data()
	if err != nil {
		return nil
	}
	return b
}

// BuildID returns the GNU build id in hexadecimal, "" if there is none.
func (f *File) BuildID() string {
	for _, s := range f.elf.Sections {
		if s.Type == elf.SHT_NOTE {
			if id := buildID(data(s, maxNote), f.elf.ByteOrder); id != "" {
				return id
			}
		}
	}
	for _, p := range f.elf.Progs { // the sections may be stripped
		if p.Type == elf.PT_NOTE && p.Filesz <= maxNote {
			b := make([]byte, p.Filesz)
			n, _ := p.ReadAt(b, 0)
			if id := buildID(b[:n], f.elf.ByteOrder); id != "" {
				return id
			}
		}
	}
	return ""
}

// buildID looks for NT_GNU_BUILD_ID (3) in notes.
func buildID(notes []byte, order binary.ByteOrder) string {
	c := bin.NewCursor(notes, order)
	for c.Len() >= 12 {
		nameLen, descLen, typ := int(c.U32()), int(c.U32()), c.U32()
		name := c.Bytes(nameLen)
		c.Align(4)
		desc := c.Bytes(descLen)
		if c.OK() && typ == 3 && string(name) == "GNU\x00" && len(desc) > 1 {
			return hex.EncodeToString(desc)
		}
		c.Align(4)
	}
	return ""
}

// DebugLink returns the name of the file with debug information and its CRC-32, from .gnu_debuglink.
func (f *File) DebugLink() (name string, crc uint32, ok bool) {
	c := bin.NewCursor(f.section(".gnu_debuglink", maxNote), f.elf.ByteOrder)
	name = c.CString()
	c.Align(4)
	crc = c.U32()
	return name, crc, c.OK() && name != "" && !strings.ContainsAny(name, "/\x00")
}

// HasSymtab reports a full symbol table: there is no need to look for another file.
func (f *File) HasSymtab() bool {
	s := f.elf.SectionByType(elf.SHT_SYMTAB)
	return s != nil && s.Size > uint64(f.symSize()) && s.FileSize > 0
}

// MiniDebug unpacks the ELF file in .gnu_debugdata, whose symbol table has the local functions that .dynsym lacks.
func (f *File) MiniDebug() (m *File, err error) {
	defer guard(&err)
	b := f.section(".gnu_debugdata", maxDebug)
	if b == nil {
		return nil, nil
	}
	z, err := xz.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("unpack .gnu_debugdata: %w", err)
	}
	b, err = io.ReadAll(io.LimitReader(z, maxDebug+1))
	if err != nil {
		return nil, fmt.Errorf("unpack .gnu_debugdata: %w", err)
	}
	if len(b) > maxDebug {
		return nil, fmt.Errorf("unpack .gnu_debugdata: more than %d MiB", maxDebug>>20)
	}
	return Read(bytes.NewReader(b))
}

func (f *File) symSize() int {
	if f.elf.Class == elf.ELFCLASS32 {
		return elf.Sym32Size
	}
	return elf.Sym64Size
}

// Symbols returns functions and objects of .symtab and .dynsym, in any order, and those of the Go function table if there is no .symtab.
// A file without symbols gives an empty list; a damaged table is an error with what could be read before it.
func (f *File) Symbols() (syms []Sym, err error) {
	defer guard(&err)
	for _, typ := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		s := f.elf.SectionByType(typ)
		if s == nil || s.Type == elf.SHT_NOBITS || s.FileSize == 0 {
			continue // objcopy --only-keep-debug leaves headers of sections it took away
		}
		if syms, err = f.table(s, syms); err != nil {
			return syms, fmt.Errorf("read %s: %w", s.Name, err)
		}
	}
	if !f.HasSymtab() { // a stripped Go program may have a .dynsym of a few
		for _, fn := range f.Go().Functions() {
			syms = append(syms, Sym{Name: fn.Name, Addr: fn.Entry, Size: fn.End - fn.Entry, Rank: 14})
		}
	}
	return syms, nil
}

func (f *File) table(s *elf.Section, syms []Sym) ([]Sym, error) {
	if s.Link == 0 || int(s.Link) >= len(f.elf.Sections) {
		return syms, &bin.FormatError{What: "symbol table", Off: int64(s.Offset), Msg: "no string table"}
	}
	b, names := data(s, maxTable), string(data(f.elf.Sections[s.Link], maxTable))
	c := bin.NewCursor(b, f.elf.ByteOrder)
	n := len(b) / f.symSize()
	for range n {
		raw := f.sym(c)
		fn, object := f.kind(raw)
		if !fn && !object {
			continue
		}
		if name := symName(names, raw.Name); name != "" && !mapping(name) {
			sym := newSym(name, raw, f.elf.Machine)
			sym.Data = object
			syms = append(syms, sym)
		}
	}
	return syms, c.Err("symbol table")
}

// sym reads a symbol of either class.
func (f *File) sym(c *bin.Cursor) elf.Sym64 {
	var s elf.Sym64
	s.Name = c.U32()
	if f.elf.Class == elf.ELFCLASS32 {
		s.Value, s.Size = uint64(c.U32()), uint64(c.U32())
		s.Info, s.Other, s.Shndx = c.U8(), c.U8(), c.U16()
		return s
	}
	s.Info, s.Other, s.Shndx = c.U8(), c.U8(), c.U16()
	s.Value, s.Size = c.U64(), c.U64()
	return s
}

// kind takes functions, among them labels of assembly in executable sections, and variables.
func (f *File) kind(s elf.Sym64) (fn, object bool) {
	if s.Shndx == uint16(elf.SHN_UNDEF) || s.Value == 0 || s.Size > math.MaxInt64 || s.Value > math.MaxUint64-s.Size {
		return false, false
	}
	switch elf.ST_TYPE(s.Info) {
	case elf.STT_FUNC, elf.STT_GNU_IFUNC:
		return true, false
	case elf.STT_OBJECT:
		return false, true
	case elf.STT_NOTYPE:
		i := int(s.Shndx)
		return i < len(f.elf.Sections) && f.elf.Sections[i].Flags&elf.SHF_EXECINSTR != 0, false
	}
	return false, false
}

// mapping reports the marks that assemblers set for disassemblers ($x, $d, .L1).
func mapping(name string) bool { return name[0] == '$' || strings.HasPrefix(name, ".L") }

// symName cuts a name out of a string table, without the version that older binutils append to it (read@@GLIBC_2.2.5).
func symName(names string, off uint32) string {
	if uint64(off) >= uint64(len(names)) {
		return ""
	}
	s := names[off:]
	if len(s) > maxName {
		s = s[:maxName]
	}
	if i := strings.IndexByte(s, 0); i >= 0 {
		s = s[:i]
	}
	if i := strings.IndexByte(s, '@'); i > 0 {
		s = s[:i]
	}
	return s
}
