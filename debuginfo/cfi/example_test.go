package cfi_test

import (
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/fathom-trace/fathom/debuginfo/cfi"
)

// The call frames of a function that pushes a register, reserves 16 bytes, and returns.
func ExampleDecode() {
	regs, _ := cfi.RegsOf(elf.EM_X86_64)
	fns, err := cfi.Decode(cfi.Section{
		Data: []byte("\x14\x00\x00\x00\x00\x00\x00\x00\x01zR\x00\x01\x78\x10\x01\x1b\x0c\x07\x08\x90\x01\x00\x00" +
			"\x19\x00\x00\x00\x1c\x00\x00\x00\xe0\x0f\x00\x00\x20\x00\x00\x00\x00" +
			"\x41\x0e\x10\x44\x0e\x20\x50\x0e\x10\x41\x0e\x08"),
		Order: binary.LittleEndian, Addr: 0x1000, AddrSize: 8, EH: true,
	}, regs)
	if err != nil {
		fmt.Println(err)
	}
	for _, r := range cfi.Table(fns) {
		fmt.Printf("%#x base %d%+d\n", r.PC, r.Base, r.Off)
	}
	// Output:
	// 0x2000 base 1+8
	// 0x2001 base 1+16
	// 0x2005 base 1+32
	// 0x2015 base 1+16
	// 0x2016 base 1+8
	// 0x2020 base 0+0
}
