package vmcore

import (
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Limits of what an ELF core may make us hold.
const (
	maxSegments = 1 << 22
	maxNotes    = 64 << 20
)

// elfMemory is the disjoint pieces of an ELF core's PT_LOAD segments.
type elfMemory struct {
	f    File
	ext  []extent
	gone []extent // memory that a segment has no bytes for (p_filesz < p_memsz)
}

// openELF reads the program headers. Offsets are of Elf64_Ehdr and Elf64_Phdr; all kernels we know are little-endian and
// have 64 bits.
func openELF(f File) (*Core, error) {
	var h [64]byte
	if _, err := f.R.ReadAt(h[:], 0); err != nil {
		return nil, &bin.FormatError{What: "ELF header", Msg: err.Error()}
	}
	if elf.Class(h[4]) != elf.ELFCLASS64 || elf.Data(h[5]) != elf.ELFDATA2LSB {
		return nil, &bin.FormatError{What: "ELF header", Off: 4, Msg: "not 64 bits little-endian"}
	}
	c := bin.NewCursor(h[16:], binary.LittleEndian)
	kind, machine := elf.Type(c.U16()), elf.Machine(c.U16())
	c.Skip(12)
	phoff, shoff := int64(c.U64()), int64(c.U64())
	c.Skip(6)
	phsize, phnum := int64(c.U16()), int64(c.U16())
	if kind != elf.ET_CORE {
		return nil, &bin.FormatError{What: "ELF header", Off: 16, Msg: fmt.Sprintf("%v, not a core", kind)}
	}
	if phnum == 0xffff { // PN_XNUM: the number stands in sh_info of the first section header
		var sh [64]byte
		if _, err := f.R.ReadAt(sh[:], shoff); err != nil {
			return nil, &bin.FormatError{What: "ELF section header", Off: shoff, Msg: err.Error()}
		}
		phnum = int64(binary.LittleEndian.Uint32(sh[44:]))
	}
	if phsize != 56 || phnum > maxSegments || phoff < 0 {
		return nil, &bin.FormatError{What: "ELF header", Off: 54, Msg: fmt.Sprintf("%d program headers of %d bytes", phnum, phsize)}
	}
	core := &Core{Format: FormatELF, Machine: machines[machine]}
	return core, core.readSegments(f, phoff, phnum)
}

var machines = map[elf.Machine]string{elf.EM_X86_64: "x86_64", elf.EM_AARCH64: "aarch64"}

// unknownPhys is p_paddr of segments of /proc/kcore that are not directly mapped.
const unknownPhys = ^uint64(0)

func (c *Core) readSegments(f File, phoff, phnum int64) error {
	raw := make([]byte, min(phnum*56, max(0, f.Size-phoff)))
	if n, err := f.R.ReadAt(raw, phoff); err != nil && !errors.Is(err, io.EOF) {
		return &bin.FormatError{What: "ELF program headers", Off: phoff + int64(n), Msg: err.Error()}
	}
	m := &elfMemory{f: f}
	var loads []extent
	for cur := bin.NewCursorAt(raw, binary.LittleEndian, phoff); cur.Len() >= 56; {
		kind := elf.ProgType(cur.U32())
		cur.Skip(4)
		off, virt, phys, filesz, memsz := cur.U64(), cur.U64(), cur.U64(), cur.U64(), cur.U64()
		cur.Skip(8)
		switch {
		case kind == elf.PT_NOTE:
			c.readNotes(f, int64(off), filesz)
		case kind != elf.PT_LOAD || phys == unknownPhys || phys+memsz < phys || int64(off) < 0:
		default:
			loads = append(loads, extent{at: phys, n: min(filesz, memsz), off: int64(off)})
			if memsz > filesz {
				m.gone = append(m.gone, extent{at: phys + filesz, n: memsz - filesz})
			}
			if virt != 0 {
				c.virt = append(c.virt, Segment{virt, phys, memsz})
			}
			c.Incomplete = c.Incomplete || off+filesz > uint64(f.Size)
		}
	}
	c.Incomplete = c.Incomplete || int64(len(raw)) < phnum*56
	m.ext, m.gone = disjoint(loads), disjoint(m.gone)
	for _, e := range m.ext {
		if k := len(c.ranges); k > 0 && c.ranges[k-1].End == e.at {
			c.ranges[k-1].End = e.end()
			continue
		}
		c.ranges = append(c.ranges, Range{e.at, e.end()})
	}
	c.mem = m
	return nil
}

func (m *elfMemory) readPhys(p []byte, addr uint64) error {
	for len(p) > 0 {
		e, ok := find(m.ext, addr)
		if !ok {
			if _, known := find(m.gone, addr); known {
				return &MissingError{Addr: addr, Reason: Excluded}
			}
			return &MissingError{Addr: addr, Reason: NotDumped}
		}
		in := addr - e.at
		n := min(uint64(len(p)), e.n-in)
		k, err := m.f.R.ReadAt(p[:n], e.off+int64(in))
		if uint64(k) < n {
			if errors.Is(err, io.EOF) {
				return &MissingError{Addr: addr + uint64(k), Reason: FileEnds}
			}
			return &MissingError{Addr: addr + uint64(k), Reason: Damaged, Err: err}
		}
		p, addr = p[n:], addr+n
	}
	return nil
}
