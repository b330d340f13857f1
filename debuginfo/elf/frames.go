package elf

import (
	"errors"

	"github.com/fathom-trace/fathom/debuginfo/cfi"
)

// maxFrames bounds the bytes of call frame information.
const maxFrames = 256 << 20

// CallFrames reads where, at each instruction, the caller of a function is: from .eh_frame, or where there is none from
// .debug_frame. Addresses are as linked. It is nil for a file that does not say, or of a machine that cfi does not know.
func (f *File) CallFrames() (rows []cfi.Row, err error) {
	defer guard(&err)
	regs, ok := cfi.RegsOf(f.elf.Machine)
	if !ok {
		return nil, nil
	}
	for _, name := range []string{".eh_frame", ".debug_frame"} {
		b := f.section(name, maxFrames)
		if len(b) == 0 {
			continue
		}
		s := cfi.Section{Data: b, Order: f.elf.ByteOrder, Addr: f.elf.Section(name).Addr, AddrSize: 8, EH: name == ".eh_frame"}
		if t := f.elf.Section(".text"); t != nil {
			s.Text = t.Addr
		}
		if g := f.elf.Section(".got"); g != nil {
			s.GOT = g.Addr
		}
		fns, derr := cfi.Decode(s, regs)
		if len(fns) > 0 {
			return cfi.Table(fns), derr
		}
		err = errors.Join(err, derr)
	}
	return nil, err
}
