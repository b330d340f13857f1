package vmcore

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Regs are a CPU's registers as NT_PRSTATUS has them (struct elf_prstatus).
type Regs struct {
	PID   uint32   // of the task that crashed, 0 from QEMU
	Names []string // of Value, as the kernel's struct user_regs_struct names them; shared, do not write
	Value []uint64
	// CR has control registers 0 to 4 of x86 where QEMU wrote its own note.
	CR []uint64
}

// Get gives a register by name.
func (r Regs) Get(name string) (uint64, bool) {
	i := slices.Index(r.Names, name)
	if i < 0 || i >= len(r.Value) {
		return 0, false
	}
	return r.Value[i], true
}

// Registers in the order of user_regs_struct (arch/x86) and user_pt_regs (arch/arm64).
var (
	regsAMD64 = []string{"r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
		"orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs"}
	regsARM64 = []string{"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
		"x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30", "sp", "pc", "pstate"}
)

// Offsets in struct elf_prstatus of 64-bit machines.
const (
	prstatusPID  = 32
	prstatusRegs = 112
)

// readNotes reads a PT_NOTE segment or a dump's copy of one; what does not parse is left out.
func (c *Core) readNotes(f File, off int64, size uint64) {
	if off < 0 || off >= f.Size {
		return
	}
	b := make([]byte, min(size, maxNotes, uint64(f.Size-off)))
	n, _ := f.R.ReadAt(b, off)
	cur := bin.NewCursorAt(b[:n], binary.LittleEndian, off)
	for cur.Len() >= 12 {
		namesz, descsz, kind := cur.U32(), cur.U32(), cur.U32()
		name := bytes.TrimRight(cur.Bytes(int(namesz)), "\x00")
		cur.Skip(-int(namesz) & 3)
		desc := cur.Bytes(int(descsz))
		cur.Skip(min(-int(descsz)&3, cur.Len()))
		if !cur.OK() {
			return
		}
		c.note(string(name), kind, desc)
	}
}

func (c *Core) note(name string, kind uint32, desc []byte) {
	switch {
	case name == "CORE" && kind == 1 && len(desc) > prstatusRegs:
		names := regsAMD64
		if c.Machine == "aarch64" {
			names = regsARM64
		}
		r := Regs{PID: binary.LittleEndian.Uint32(desc[prstatusPID:]), Names: names}
		for b := desc[prstatusRegs:]; len(b) >= 8 && len(r.Value) < len(names); b = b[8:] {
			r.Value = append(r.Value, binary.LittleEndian.Uint64(b))
		}
		c.CPUs = append(c.CPUs, r)
	case name == "VMCOREINFO":
		if i := ParseInfo(desc); i.Release != "" {
			c.Info = i
		}
	case name == "QEMU":
		c.qemuNote(desc)
	}
}

// qemuNote takes the control registers out of QEMUCPUState (target/i386/arch_dump.c): two 32-bit words, 18 registers, ten
// segments of 24 bytes, then cr0 to cr4. The notes follow those of the CPUs, in their order.
func (c *Core) qemuNote(desc []byte) {
	const crs = 8 + 18*8 + 10*24
	if len(desc) < crs+5*8 {
		return
	}
	for i := range c.CPUs {
		if c.CPUs[i].CR == nil {
			for j := range 5 {
				c.CPUs[i].CR = append(c.CPUs[i].CR, binary.LittleEndian.Uint64(desc[crs+8*j:]))
			}
			return
		}
	}
}
