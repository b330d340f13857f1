package elf

import (
	"debug/dwarf"
	"debug/elf"
	"errors"
	"fmt"
	"strings"
)

// maxDWARF bounds the debug information read from one file, in bytes of its sections.
const maxDWARF = 4 << 30

// HasDWARF reports debug information in the file itself.
func (f *File) HasDWARF() bool {
	for _, s := range f.elf.Sections {
		if (s.Name == ".debug_info" || s.Name == ".zdebug_info") && s.Type != elf.SHT_NOBITS && s.FileSize > 0 {
			return true
		}
	}
	return false
}

// DWARF returns the file's debug information; an error if it has none.
func (f *File) DWARF() (d *dwarf.Data, err error) {
	defer guard(&err)
	var size uint64
	for _, s := range f.elf.Sections {
		if strings.HasPrefix(s.Name, ".debug_") {
			size += s.Size
		}
	}
	if size > maxDWARF {
		return nil, fmt.Errorf("debug information of %d bytes", size)
	}
	if !f.HasDWARF() {
		return nil, errors.New("no debug information")
	}
	return f.elf.DWARF()
}

// strOffsetsHeader is what stands before the offsets in .debug_str_offsets of DWARF 5 (7.26); units of a .dwo file count
// from behind it without saying so.
const strOffsetsHeader = 8

// addrHeader is what stands before the addresses of the first unit in .debug_addr (7.27).
const addrHeader = 8

// SplitDWARF returns the debug information of a .dwo file (DWARF 5, 7.3.2; gcc's -gsplit-dwarf) that main refers to. Types
// and names are right; addresses are right only if main has one unit, since only its entry tells where a unit's begin.
func (f *File) SplitDWARF(main *File) (d *dwarf.Data, err error) {
	defer guard(&err)
	sec := func(name string) []byte { return f.section(".debug_"+name+".dwo", maxDWARF) }
	info := sec("info")
	if info == nil {
		return nil, errors.New("no split debug information")
	}
	d, err = dwarf.New(sec("abbrev"), nil, nil, info, sec("line"), nil, nil, sec("str"))
	if err != nil {
		return nil, fmt.Errorf("read split debug information: %w", err)
	}
	if b := sec("str_offsets"); len(b) >= strOffsetsHeader {
		if f.elf.ByteOrder.Uint16(info[4:6]) >= 5 {
			b = b[strOffsetsHeader:]
		}
		if err := d.AddSection(".debug_str_offsets", b); err != nil {
			return nil, fmt.Errorf("read split debug information: %w", err)
		}
	}
	if b := main.section(".debug_addr", maxDWARF); len(b) >= addrHeader {
		if err := d.AddSection(".debug_addr", b[addrHeader:]); err != nil {
			return nil, fmt.Errorf("read split debug information: %w", err)
		}
	}
	for _, name := range []string{"loclists", "rnglists"} {
		if b := sec(name); b != nil {
			if err := d.AddSection(".debug_"+name, b); err != nil {
				return nil, fmt.Errorf("read split debug information: %w", err)
			}
		}
	}
	return d, nil
}
