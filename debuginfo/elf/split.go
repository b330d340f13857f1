package elf

import (
	"debug/dwarf"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fathom-trace/fathom/internal/bin"
)

// A program built with gcc's -gsplit-dwarf keeps only skeletons of its units; the units are in .dwo files, or all in one
// .dwp package (DWARF 5, 7.3.2 and 7.3.5). The GNU extension that came before is not read: debug/dwarf does not know its forms.

// strOffsetsHeader is what stands before the offsets in .debug_str_offsets of DWARF 5 (7.26); split units count from behind
// it without saying so.
const strOffsetsHeader = 8

// splitHeader is the header of a unit that is split: length, version, type, size of addresses, place of the abbreviations,
// and the identity that it shares with its skeleton (7.5.1.2).
const splitHeader = 20

// addrHeader is what stands before the addresses of the first unit in .debug_addr (7.27).
const addrHeader = 8

// SplitDWARF returns the units of a .dwo file or .dwp package that main refers to, one Data each.
func (f *File) SplitDWARF(main *File) (units []*dwarf.Data, err error) {
	defer guard(&err)
	sec := func(name string) []byte { return f.section(".debug_"+name+".dwo", maxDWARF) }
	if sec("info") == nil {
		return nil, errors.New("no split debug information")
	}
	bases := main.addrBases()
	index := f.section(".debug_cu_index", maxDWARF)
	if index == nil {
		d, err := f.splitUnit(main, sec, bases)
		if err != nil {
			return nil, err
		}
		return []*dwarf.Data{d}, nil
	}
	rows, err := packageIndex(index, f.elf.ByteOrder)
	if err != nil {
		return nil, err
	}
	whole := map[string][]byte{}
	for _, row := range rows {
		d, err := f.splitUnit(main, func(name string) []byte {
			if whole[name] == nil {
				whole[name] = sec(name)
			}
			part, ok := row[name]
			if !ok {
				return whole[name] // strings are shared
			}
			b := whole[name]
			if uint64(part.off)+uint64(part.size) > uint64(len(b)) {
				return nil
			}
			return b[part.off : part.off+part.size]
		}, bases)
		if err != nil {
			return nil, err
		}
		units = append(units, d)
	}
	return units, nil
}

// part is where a unit's share of a section is.
type part struct{ off, size uint32 }

// sections of a package by their numbers in its index (DW_SECT_, table 7.1).
var sections = map[uint32]string{1: "info", 3: "abbrev", 4: "line", 5: "loclists", 6: "str_offsets", 7: "macro", 8: "rnglists"}

// packageIndex reads .debug_cu_index: for each unit its part of each section.
func packageIndex(b []byte, order binary.ByteOrder) ([]map[string]part, error) {
	c := bin.NewCursor(b, order)
	if v := c.U16(); v != 5 {
		return nil, fmt.Errorf("index of a .dwp file: version %d", v)
	}
	c.Skip(2)
	columns, units, slots := c.U32(), c.U32(), c.U32()
	const sane = 1 << 24 // units of a program, and columns times units below
	if columns == 0 || columns > 16 || units > sane || slots > sane {
		return nil, fmt.Errorf("index of a .dwp file: %d sections, %d units, %d slots", columns, units, slots)
	}
	c.Skip(int(slots) * (8 + 4)) // signatures, and which row is whose: all rows are wanted
	ids := make([]uint32, columns)
	for i := range ids {
		ids[i] = c.U32()
	}
	if int(units)*int(columns)*8 > c.Len() {
		return nil, fmt.Errorf("index of a .dwp file: %d units in %d bytes", units, c.Len())
	}
	rows := make([]map[string]part, units)
	for i := range rows {
		rows[i] = map[string]part{}
		for _, id := range ids {
			rows[i][sections[id]] = part{off: c.U32()}
		}
	}
	for i := range rows {
		for _, id := range ids {
			p := rows[i][sections[id]]
			p.size = c.U32()
			rows[i][sections[id]] = p
		}
	}
	return rows, c.Err("index of a .dwp file")
}

// splitUnit reads one unit out of its parts of the sections.
func (f *File) splitUnit(main *File, sec func(string) []byte, bases map[uint64]int64) (*dwarf.Data, error) {
	info := sec("info")
	d, err := dwarf.New(sec("abbrev"), nil, nil, info, sec("line"), nil, nil, sec("str"))
	if err != nil {
		return nil, fmt.Errorf("read split debug information: %w", err)
	}
	add := func(name string, b []byte) {
		if b != nil && err == nil {
			err = d.AddSection(".debug_"+name, b)
		}
	}
	if len(info) < splitHeader || f.elf.ByteOrder.Uint16(info[4:6]) != 5 {
		return nil, errors.New("read split debug information: not DWARF 5")
	}
	if b := sec("str_offsets"); len(b) >= strOffsetsHeader {
		add("str_offsets", b[strOffsetsHeader:])
	}
	id := f.elf.ByteOrder.Uint64(info[splitHeader-8:])
	base, ok := bases[id]
	if !ok {
		base = addrHeader
	}
	if b := main.section(".debug_addr", maxDWARF); int64(len(b)) > base {
		add("addr", b[base:])
	}
	add("loclists", sec("loclists"))
	add("rnglists", sec("rnglists"))
	if err != nil {
		return nil, fmt.Errorf("read split debug information: %w", err)
	}
	return d, nil
}

// addrBases tells where in .debug_addr the addresses of each unit begin, by the identity its skeleton shares with it.
func (f *File) addrBases() map[uint64]int64 {
	out := map[uint64]int64{}
	d, err := f.DWARF()
	if err != nil {
		return out
	}
	info := f.section(".debug_info", maxDWARF)
	r := d.Reader()
	for {
		e, err := r.Next()
		if err != nil || e == nil {
			return out
		}
		// The header of a skeleton ends with the identity.
		if base, ok := e.Val(dwarf.AttrAddrBase).(int64); ok && e.Offset >= 8 && int(e.Offset) <= len(info) {
			out[f.elf.ByteOrder.Uint64(info[e.Offset-8:])] = base
		}
		r.SkipChildren()
	}
}
