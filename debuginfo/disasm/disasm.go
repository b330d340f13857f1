// Package disasm turns machine code into text, for x86-64 and arm64: golang.org/x/arch with what it does not know added,
// and the code bytes of an oops, which begin somewhere before the instruction they are about.
package disasm

import (
	"fmt"
	"strings"

	"golang.org/x/arch/arm64/arm64asm"
	"golang.org/x/arch/x86/x86asm"
)

// Arch is an instruction set.
type Arch string

// The instruction sets.
const (
	AMD64 Arch = "x86_64"
	ARM64 Arch = "aarch64"
)

// Namer names an address that an instruction refers to; nil, or "" where it has no name.
type Namer func(addr uint64) (name string, off uint64)

// Inst is one instruction.
type Inst struct {
	Addr uint64
	Len  int
	Text string // AT&T syntax on x86-64; "(bad)" where the bytes are none
	Mem  *Mem   // what it reads or writes, if it is memory
	Call bool   // a call
	Jump bool   // a jump, conditional or not
	To   uint64 // where Call and Jump go, 0 if that is not in the instruction

	// What it does to registers, all by their 64-bit names: those it writes, and for a plain move of 8 bytes where the
	// first comes from: the register Copy, or, with Load, the memory Mem.
	Writes []string
	Copy   string
	Load   bool
}

// Bad says that the bytes are no instruction that is known here.
func (i Inst) Bad() bool { return i.Text == bad }

// bad is the text of bytes that are no instruction.
const bad = "(bad)"

// Mem is a memory operand: base + index × scale + disp. Names are the kernel's: "RAX".
type Mem struct {
	Base, Index string
	Scale       uint64
	Disp        int64
	Size        int
	Addr        uint64 // of an operand relative to the instruction
	Write       bool   // the operand is the destination
}

// Decode disassembles all of code, which stands at addr. It never fails: bytes that are no instruction are "(bad)".
func Decode(arch Arch, code []byte, addr uint64, name Namer) []Inst {
	var out []Inst
	for len(code) > 0 {
		i := decode(arch, code, addr, name)
		out = append(out, i)
		code, addr = code[i.Len:], addr+uint64(i.Len)
	}
	return out
}

func decode(arch Arch, code []byte, addr uint64, name Namer) Inst {
	if arch == ARM64 {
		return decodeARM64(code, addr)
	}
	return decodeAMD64(code, addr, name)
}

// unknown are instructions of kernels that x/arch does not decode.
var unknown = []struct{ bytes, text string }{
	{"\xf3\x0f\x1e\xfa", "endbr64"}, {"\xf3\x0f\x1e\xfb", "endbr32"}, {"\x0f\x01\xd9", "vmmcall"}, {"\x0f\x01\xc1", "vmcall"},
	{"\xf3\x0f\x01\xd9", "vmgexit"}, {"\xf2\x0f\x01\xd9", "vmgexit"}, {"\x0f\x01\xcf", "encls"}, {"\x0f\x01\xee", "rdpkru"},
	{"\x0f\x01\xef", "wrpkru"}, {"\x0f\x01\xe8", "serialize"}, {"\xf3\x0f\x01\xfe", "rmpadjust"}, {"\xf2\x0f\x01\xff", "pvalidate"},
	{"\x0f\x01\xca", "clac"}, {"\x0f\x01\xcb", "stac"}, {"\x0f\x0b", "ud2"},
}

func decodeAMD64(code []byte, addr uint64, name Namer) Inst {
	for _, u := range unknown {
		if strings.HasPrefix(string(code[:min(4, len(code))]), u.bytes) {
			return Inst{Addr: addr, Len: len(u.bytes), Text: u.text}
		}
	}
	in, err := x86asm.Decode(code, 64)
	if err != nil || in.Op == 0 || in.Len == 0 {
		return Inst{Addr: addr, Len: 1, Text: bad}
	}
	i := Inst{Addr: addr, Len: in.Len}
	var sym x86asm.SymLookup
	if name != nil {
		sym = func(a uint64) (string, uint64) {
			n, off := name(a)
			return n, a - off
		}
	}
	i.Text = x86asm.GNUSyntax(in, addr, sym)
	i.flow(in)
	i.memory(in)
	i.effect(in)
	return i
}

func (i *Inst) flow(in x86asm.Inst) {
	op := in.Op.String()
	i.Call = in.Op == x86asm.CALL
	i.Jump = strings.HasPrefix(op, "J")
	if rel, ok := in.Args[0].(x86asm.Rel); ok && (i.Call || i.Jump) {
		i.To = i.Addr + uint64(in.Len) + uint64(int64(rel))
	}
}

// memory takes the operand in memory; lea has one that it does not touch.
func (i *Inst) memory(in x86asm.Inst) {
	if in.Op == x86asm.LEA || in.Op == x86asm.NOP {
		return
	}
	for n, a := range in.Args {
		m, ok := a.(x86asm.Mem)
		if !ok {
			continue
		}
		i.Mem = &Mem{Base: regName(m.Base), Index: regName(m.Index), Scale: uint64(m.Scale), Disp: m.Disp, Size: in.MemBytes}
		if m.Base == x86asm.RIP {
			i.Mem.Addr = i.Addr + uint64(in.Len) + uint64(m.Disp)
		}
		i.Mem.Write = n == 0 && in.Op != x86asm.CMP && in.Op != x86asm.TEST && in.Op != x86asm.CALL && in.Op != x86asm.JMP && in.Op != x86asm.PUSH
		return
	}
}

// implicit are registers that instructions write without naming them.
var implicit = map[x86asm.Op][]string{
	x86asm.MUL: {"RAX", "RDX"}, x86asm.DIV: {"RAX", "RDX"}, x86asm.IDIV: {"RAX", "RDX"}, x86asm.IMUL: {"RAX", "RDX"},
	x86asm.CDQ: {"RDX"}, x86asm.CQO: {"RDX"}, x86asm.CDQE: {"RAX"}, x86asm.CWDE: {"RAX"}, x86asm.CPUID: {"RAX", "RBX", "RCX", "RDX"},
	x86asm.RDMSR: {"RAX", "RDX"}, x86asm.RDTSC: {"RAX", "RDX"}, x86asm.RDTSCP: {"RAX", "RDX", "RCX"}, x86asm.CMPXCHG: {"RAX"},
	x86asm.CMPXCHG16B: {"RAX", "RDX"}, x86asm.MOVSB: {"RSI", "RDI", "RCX"}, x86asm.MOVSQ: {"RSI", "RDI", "RCX"}, x86asm.MOVSW: {"RSI", "RDI", "RCX"},
	x86asm.STOSB: {"RDI", "RCX"}, x86asm.STOSD: {"RDI", "RCX"}, x86asm.STOSQ: {"RDI", "RCX"}, x86asm.LODSB: {"RAX", "RSI"},
	x86asm.SCASB: {"RDI", "RCX"}, x86asm.CMPSB: {"RSI", "RDI", "RCX"}, x86asm.XGETBV: {"RAX", "RDX"}, x86asm.IN: {"RAX"},
}

// effect finds which registers are written, and from where.
func (i *Inst) effect(in x86asm.Inst) {
	i.Writes = implicit[in.Op]
	if i.Call || i.Jump || in.Op == x86asm.CMP || in.Op == x86asm.TEST || in.Op == x86asm.PUSH || in.Op == x86asm.NOP {
		return
	}
	for n, a := range in.Args {
		r, ok := a.(x86asm.Reg)
		if ok && (n == 0 || in.Op == x86asm.XCHG || in.Op == x86asm.XADD) {
			i.Writes = append(i.Writes[:len(i.Writes):len(i.Writes)], whole(r))
		}
	}
	dst, ok := in.Args[0].(x86asm.Reg)
	if !ok || in.Op != x86asm.MOV || dst < x86asm.RAX || dst > x86asm.R15 {
		return
	}
	switch src := in.Args[1].(type) {
	case x86asm.Reg:
		i.Copy = whole(src)
	case x86asm.Mem:
		i.Load = src.Segment == 0
	}
}

// whole is the 64-bit register that a register is part of.
func whole(r x86asm.Reg) string {
	switch {
	case r >= x86asm.AL && r <= x86asm.BL:
		return (r - x86asm.AL + x86asm.RAX).String()
	case r >= x86asm.AH && r <= x86asm.BH:
		return (r - x86asm.AH + x86asm.RAX).String()
	case r >= x86asm.SPB && r <= x86asm.R15B:
		return (r - x86asm.SPB + x86asm.RSP).String()
	case r >= x86asm.AX && r <= x86asm.R15W:
		return (r - x86asm.AX + x86asm.RAX).String()
	case r >= x86asm.EAX && r <= x86asm.R15L:
		return (r - x86asm.EAX + x86asm.RAX).String()
	}
	return r.String()
}

// regName gives the name of the whole 64-bit register, "" for none.
func regName(r x86asm.Reg) string {
	switch {
	case r == 0:
		return ""
	case r >= x86asm.RAX && r <= x86asm.R15:
		return r.String()
	case r == x86asm.RIP:
		return "RIP"
	}
	return r.String()
}

func decodeARM64(code []byte, addr uint64) Inst {
	if len(code) < 4 {
		return Inst{Addr: addr, Len: len(code), Text: bad}
	}
	in, err := arm64asm.Decode(code)
	if err != nil {
		return Inst{Addr: addr, Len: 4, Text: bad}
	}
	i := Inst{Addr: addr, Len: 4, Text: arm64asm.GNUSyntax(in), Call: in.Op == arm64asm.BL || in.Op == arm64asm.BLR, Jump: in.Op == arm64asm.B}
	if rel, ok := in.Args[0].(arm64asm.PCRel); ok && (i.Call || i.Jump) {
		i.To = addr + uint64(int64(rel))
	}
	return i
}

// Around disassembles the code of an oops: bytes around the instruction at index mark, which stands at addr. Instructions
// have no fixed length, so the first byte may be in the middle of one: the start is taken that reaches the mark with the
// fewest bad instructions and the fewest bytes lost. It gives the index of the marked instruction.
func Around(arch Arch, code []byte, mark int, addr uint64, name Namer) ([]Inst, int) {
	if mark < 0 || mark >= len(code) {
		return nil, -1
	}
	base := addr - uint64(mark)
	best, bad := 0, -1
	const longest = 15
	for start := 0; start < min(mark+1, longest); start++ {
		if n, ok := reaches(arch, code[start:], mark-start); ok && (bad < 0 || n < bad) {
			best, bad = start, n
		}
	}
	if bad < 0 { // no start reaches it: show from the mark on
		best = mark
	}
	out := Decode(arch, code[best:], base+uint64(best), name)
	for i := range out {
		if out[i].Addr == addr {
			return out, i
		}
	}
	return out, -1
}

// reaches decodes up to mark, and counts what is no instruction.
func reaches(arch Arch, code []byte, mark int) (bad int, ok bool) {
	for at := 0; ; {
		if at >= mark {
			return bad, at == mark
		}
		i := decode(arch, code[at:], 0, nil)
		if i.Bad() {
			bad++
		}
		at += i.Len
	}
}

// String is address and text.
func (i Inst) String() string { return fmt.Sprintf("%#x: %s", i.Addr, i.Text) }
