// Package bpfelf writes small BPF objects for tests, as a compiler would: one program, without maps.
package bpfelf

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// Write makes an ELF object with a program of a section, such as "xdp" or "tc".
func Write(section, name string, code asm.Instructions) ([]byte, error) {
	var text bytes.Buffer
	if err := code.Marshal(&text, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("write program %s: %w", name, err)
	}
	strs := []byte{0}
	str := func(s string) uint32 {
		at := len(strs)
		strs = append(append(strs, s...), 0)
		return uint32(at)
	}
	const textIndex, licenseIndex, strIndex = 1, 2, 4
	sym := func(name uint32, typ elf.SymType, section uint16, size int) elf.Sym64 {
		return elf.Sym64{Name: name, Info: elf.ST_INFO(elf.STB_GLOBAL, typ), Shndx: section, Size: uint64(size)}
	}
	license := []byte("GPL\x00")
	var syms bytes.Buffer
	for _, s := range []elf.Sym64{{}, sym(str(name), elf.STT_FUNC, textIndex, text.Len()), sym(str("_license"), elf.STT_OBJECT, licenseIndex, len(license))} {
		if err := binary.Write(&syms, binary.LittleEndian, s); err != nil {
			return nil, err
		}
	}
	heads := []elf.Section64{
		{},
		{Name: str(section), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addralign: 8},
		{Name: str("license"), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addralign: 1},
		{Name: str(".symtab"), Type: uint32(elf.SHT_SYMTAB), Link: strIndex, Info: 1, Entsize: 24, Addralign: 8},
		{Name: str(".strtab"), Type: uint32(elf.SHT_STRTAB), Addralign: 1},
	}
	const headLen, sectionLen = 64, 64
	var out bytes.Buffer
	out.Write(make([]byte, headLen))
	for i, data := range [][]byte{nil, text.Bytes(), license, syms.Bytes(), strs} {
		out.Write(make([]byte, -out.Len()&7))
		heads[i].Off, heads[i].Size = uint64(out.Len()), uint64(len(data))
		out.Write(data)
	}
	out.Write(make([]byte, -out.Len()&7))
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_BPF), Version: 1, Shoff: uint64(out.Len()), Ehsize: headLen, Shentsize: sectionLen, Shnum: uint16(len(heads)), Shstrndx: strIndex}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	for _, s := range heads {
		if err := binary.Write(&out, binary.LittleEndian, s); err != nil {
			return nil, err
		}
	}
	var head bytes.Buffer
	if err := binary.Write(&head, binary.LittleEndian, h); err != nil {
		return nil, err
	}
	b := out.Bytes()
	copy(b, head.Bytes())
	return b, nil
}
