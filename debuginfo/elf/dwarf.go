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
