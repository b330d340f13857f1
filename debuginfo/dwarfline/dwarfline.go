// Package dwarfline says which source line an instruction came from, with the functions that were inlined there, out of the
// DWARF (2 to 5) of an ELF file: a kernel's vmlinux, a module that is not linked yet (.ko), a program.
//
// Units are found by their ranges and decoded one at a time, when asked for. Bytes are used where they stand: of a file that is
// mapped, only what is touched is read. Not read: split DWARF, macros, variables. Decoding is the standard library's
// debug/dwarf, whose panics on hostile bytes become errors here.
package dwarfline

import (
	"bytes"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Place is a function, and where in the source it is.
type Place struct {
	Func   string // "" if not known
	File   string // without the folder it was compiled in; "" if not known
	Line   int
	Inline bool // Func was inlined into the next
}

// String is "function at file:line", or "file:line" of code that is in no function, such as assembly.
func (p Place) String() string {
	if p.Func == "" {
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s at %s:%d", p.Func, p.File, p.Line)
}

// ErrNone is a file without debug information.
var ErrNone = errors.New("no debug information")

// Object is a file's debug information. It may be used from one goroutine at a time.
type Object struct {
	d       *dwarf.Data
	funcs   map[string][]fn
	BuildID string // hexadecimal; "" if there is none
	unit    *unit  // the last one asked for
}

// fn is a function of the symbol table.
type fn struct {
	addr, size uint64
	last       bool // of its section
}

// sectionGap is what is left between the sections of a file that is not linked, to which addresses are given here.
const sectionGap = 1 << 24

// Read reads the symbols and finds the units of an ELF file, which stays in use.
func Read(file []byte) (o *Object, err error) {
	defer guard(&err)
	e, err := elf.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("read ELF headers: %w", err)
	}
	if e.Type == elf.ET_REL {
		if file, err = place(e, file); err != nil {
			return nil, err
		}
		if e, err = elf.NewFile(bytes.NewReader(file)); err != nil {
			return nil, fmt.Errorf("read ELF headers: %w", err)
		}
	}
	o = &Object{funcs: map[string][]fn{}, BuildID: buildID(e)}
	if o.d, err = load(e, file); err != nil {
		return nil, err
	}
	syms, err := e.Symbols()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, fmt.Errorf("read symbols: %w", err)
	}
	ends := map[elf.SectionIndex]uint64{}
	for _, s := range syms {
		ends[s.Section] = max(ends[s.Section], s.Value)
	}
	for _, s := range syms {
		if s.Section != elf.SHN_UNDEF && s.Name != "" {
			o.funcs[s.Name] = append(o.funcs[s.Name], fn{s.Value, s.Size, s.Value == ends[s.Section]})
		}
	}
	return o, nil
}

func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("read debug information: %v", p)
	}
}

// place gives each section of a file that is not linked an address of its own, by moving the symbols of it: relocations,
// those of the debug information among them, then tell sections apart. It works on a copy.
func place(e *elf.File, file []byte) ([]byte, error) {
	if e.Class != elf.ELFCLASS64 || e.ByteOrder != binary.LittleEndian {
		return nil, errors.New("an object file that is not of 64 bits, little-endian")
	}
	base := make([]uint64, len(e.Sections))
	next := uint64(sectionGap)
	for i, s := range e.Sections {
		if s.Flags&elf.SHF_ALLOC != 0 && s.Size < 1<<40 {
			base[i] = next
			next += (s.Size + 2*sectionGap - 1) &^ (sectionGap - 1)
		}
	}
	out := slices.Clone(file)
	for _, s := range e.Sections {
		if s.Type != elf.SHT_SYMTAB || s.Offset > uint64(len(out)) {
			continue
		}
		for b := out[s.Offset:min(s.Offset+s.FileSize, uint64(len(out)))]; len(b) >= elf.Sym64Size; b = b[elf.Sym64Size:] {
			if shndx := int(binary.LittleEndian.Uint16(b[6:])); shndx < len(base) {
				binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])+base[shndx])
			}
		}
	}
	return out, nil
}

// maxDebug bounds the sections that must be unpacked or relocated.
const maxDebug = 4 << 30

// load hands the sections to debug/dwarf: as they stand in the file where that is possible.
func load(e *elf.File, file []byte) (*dwarf.Data, error) {
	if e.Type == elf.ET_REL { // debug/elf relocates them
		d, err := e.DWARF()
		if err != nil {
			return nil, fmt.Errorf("read debug information: %w", err)
		}
		if e.Section(".debug_info") == nil {
			return nil, ErrNone
		}
		return d, nil
	}
	total := uint64(0)
	get := func(name string) ([]byte, error) {
		s := e.Section(".debug_" + name)
		if s == nil || s.Type == elf.SHT_NOBITS {
			return nil, nil
		}
		if s.Flags&elf.SHF_COMPRESSED == 0 && s.Offset+s.FileSize >= s.Offset && s.Offset+s.FileSize <= uint64(len(file)) {
			return file[s.Offset : s.Offset+s.FileSize], nil
		}
		if total += s.Size; total > maxDebug {
			return nil, fmt.Errorf("debug information of more than %d bytes", int64(maxDebug))
		}
		return s.Data()
	}
	var sec [5][]byte
	for i, name := range []string{"abbrev", "info", "line", "ranges", "str"} {
		var err error
		if sec[i], err = get(name); err != nil {
			return nil, fmt.Errorf("read section .debug_%s: %w", name, err)
		}
	}
	if len(sec[1]) == 0 {
		return nil, ErrNone
	}
	d, err := dwarf.New(sec[0], nil, nil, sec[1], sec[2], nil, sec[3], sec[4])
	if err != nil {
		return nil, fmt.Errorf("read debug information: %w", err)
	}
	for _, name := range []string{"addr", "line_str", "str_offsets", "rnglists"} {
		b, err := get(name)
		if err == nil && b != nil {
			err = d.AddSection(".debug_"+name, b)
		}
		if err != nil {
			return nil, fmt.Errorf("read section .debug_%s: %w", name, err)
		}
	}
	return d, nil
}

// buildID reads the note; names and kinds are of the gABI and binutils.
func buildID(e *elf.File) string {
	s := e.Section(".note.gnu.build-id")
	if s == nil || s.Size > 1<<12 {
		return ""
	}
	b, err := s.Data()
	if err != nil || len(b) < 16 {
		return ""
	}
	n := binary.LittleEndian.Uint32(b[4:])
	return fmt.Sprintf("%x", b[16:min(uint64(len(b)), 16+uint64(n))])
}

// padding is what may be behind a function before the next: they begin at multiples of up to this.
const padding = 64

// Func gives the address of a function by name. size, if it is not 0, is how long the function is with what follows up to the
// next, as kernels print it: one of another size is of another build, and not given. Of several of a name there must be one
// that fits. What follows the last of a section is not known: where the kernel put another section of the module.
func (o *Object) Func(name string, size uint64) (addr uint64, ok bool) {
	for _, f := range o.funcs[name] {
		if size != 0 && f.size != 0 && (f.size > size || size-f.size >= padding && !f.last) {
			continue
		}
		if ok && f.addr != addr {
			return 0, false
		}
		addr, ok = f.addr, true
	}
	return addr, ok
}

// At gives the source of the instruction at an address: the innermost inlined function first, the one whose code it is last.
func (o *Object) At(addr uint64) (places []Place, err error) {
	defer guard(&err)
	u, err := o.find(addr)
	if err != nil {
		return nil, err
	}
	file, line := u.line(addr)
	chain, err := o.chain(u, addr)
	if err != nil {
		return nil, err
	}
	if len(chain) == 0 {
		chain = []inst{{}}
	}
	for i, c := range chain {
		places = append(places, Place{Func: c.name, File: file, Line: line, Inline: i < len(chain)-1})
		file, line = u.fileName(c.callFile), c.callLine
	}
	return places, nil
}

// unit is a compilation unit with its line table.
type unit struct {
	entry  *dwarf.Entry
	ranges [][2]uint64
	dir    string
	rows   []row             // as the table has them: ascending in each sequence
	files  []*dwarf.LineFile // that rows name

	numbered []*dwarf.LineFile // by their numbers in the table; entries may be nil
}

// row is a line table's row; end marks the end of a sequence.
type row struct {
	addr uint64
	file int32
	line int32
	stmt bool
	end  bool
}

func (o *Object) find(addr uint64) (*unit, error) {
	if o.unit != nil && o.unit.has(addr) {
		return o.unit, nil
	}
	e, err := o.d.Reader().SeekPC(addr)
	if err != nil {
		return nil, fmt.Errorf("find the unit of %#x: %w", addr, err)
	}
	u := &unit{entry: e}
	u.dir, _ = e.Val(dwarf.AttrCompDir).(string)
	if u.ranges, err = o.d.Ranges(e); err != nil {
		return nil, err
	}
	if err := u.read(o.d); err != nil {
		return nil, err
	}
	o.unit = u
	return u, nil
}

func (u *unit) has(addr uint64) bool { return contains(u.ranges, addr) }

func contains(ranges [][2]uint64, addr uint64) bool {
	return slices.ContainsFunc(ranges, func(r [2]uint64) bool { return addr >= r[0] && addr < r[1] })
}

// maxRows bounds a unit's line table.
const maxRows = 1 << 22

func (u *unit) read(d *dwarf.Data) error {
	r, err := d.LineReader(u.entry)
	if err != nil || r == nil {
		return err
	}
	index := map[*dwarf.LineFile]int32{}
	var e dwarf.LineEntry
	for len(u.rows) < maxRows {
		if err := r.Next(&e); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return fmt.Errorf("read line table: %w", err)
		}
		n, ok := index[e.File]
		if !ok {
			n = int32(len(index))
			index[e.File] = n
		}
		u.rows = append(u.rows, row{e.Address, n, int32(e.Line), e.IsStmt, e.EndSequence})
	}
	u.files = make([]*dwarf.LineFile, len(index))
	for f, n := range index {
		u.files[n] = f
	}
	u.numbered = r.Files()
	return nil
}

// fileName is the file that a call of an inlined function names by its number.
func (u *unit) fileName(n int) string {
	if n < 0 || n >= len(u.numbered) {
		return ""
	}
	return u.short(u.numbered[n])
}

// line finds the row that covers an address: the last one at or before it in its sequence, of several at one address the last
// that begins a statement. A row without a line belongs to what was before it.
func (u *unit) line(addr uint64) (string, int) {
	start := 0
	for i, r := range u.rows {
		if !r.end {
			continue
		}
		seq := u.rows[start:i]
		start = i + 1
		if len(seq) == 0 || addr < seq[0].addr || addr >= r.addr {
			continue
		}
		k, _ := slices.BinarySearchFunc(seq, addr+1, func(r row, a uint64) int {
			if r.addr < a {
				return -1
			}
			return 1
		})
		best := k - 1
		for j := k - 1; j >= 0 && seq[j].addr == seq[k-1].addr; j-- {
			if seq[j].stmt {
				best = j
				break
			}
		}
		for best > 0 && seq[best].line == 0 {
			best--
		}
		return u.short(u.files[seq[best].file]), int(seq[best].line)
	}
	return "", 0
}

func (u *unit) short(f *dwarf.LineFile) string {
	if f == nil {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(f.Name, u.dir+"/"), "./")
}
