package elf

import (
	"debug/elf"

	"github.com/fathom-trace/fathom/debuginfo/usdt"
)

// maxStapNotes bounds the notes of one file: a C++ library may have thousands.
const maxStapNotes = 16 << 20

// USDT returns the file's statically defined probes, none if it has none.
func (f *File) USDT() (notes []usdt.Note, err error) {
	defer guard(&err)
	b := f.section(usdt.Section, maxStapNotes)
	if b == nil {
		return nil, nil
	}
	base := uint64(0)
	if s := f.elf.Section(usdt.Base); s != nil {
		base = s.Addr
	}
	return usdt.Parse(b, f.elf.ByteOrder, f.elf.Class == elf.ELFCLASS64, base)
}
