// Package asmtext writes BPF instructions as text, in the words of the kernel's
// verifier log (kernel/bpf/disasm.c), and reads that text back:
//
//	main:
//	  ; x = @count[1]
//	  0: (18) r1 = map[count]
//	  2: (b7) r2 = 0
//	  3: (85) call bpf_map_lookup_elem#1
//	  4: (15) if r0 == 0x0 goto pc+1 <out>
//	  5: (79) r0 = *(u64 *)(r0 +0)
//	out:
//	  6: (95) exit
//
// What differs from the kernel: maps, functions and jump targets have their
// symbolic names besides the numbers. The number in front counts raw
// instructions, as the verifier does; the one in parentheses is the opcode byte.
package asmtext

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/cilium/ebpf/asm"
)

// Format writes a program, one instruction per line.
func Format(insns asm.Instructions) string {
	var b strings.Builder
	p := printer{at: map[string]int{}}
	for it := insns.Iterate(); it.Next(); {
		if s := it.Ins.Symbol(); s != "" {
			p.at[s] = int(it.Offset)
		}
	}
	for it := insns.Iterate(); it.Next(); {
		if s := it.Ins.Symbol(); s != "" {
			fmt.Fprintf(&b, "%s:\n", s)
		}
		if src := it.Ins.Source(); src != nil {
			for line := range strings.SplitSeq(strings.TrimSpace(src.String()), "\n") {
				fmt.Fprintf(&b, "  ; %s\n", strings.TrimSpace(line))
			}
		}
		p.raw = int(it.Offset)
		fmt.Fprintf(&b, "  %d: (%02x) %s\n", it.Offset, uint8(it.Ins.OpCode), p.text(it.Ins))
	}
	return b.String()
}

// Instruction writes one instruction, without number and opcode.
func Instruction(ins asm.Instruction) string {
	p := printer{}
	return p.text(&ins)
}

// printer knows where symbols are, to number jumps that are not yet resolved.
type printer struct {
	at  map[string]int
	raw int
}

func (p *printer) text(ins *asm.Instruction) string {
	switch ins.OpCode.Class() {
	case asm.ALUClass, asm.ALU64Class:
		return aluText(ins)
	case asm.JumpClass, asm.Jump32Class:
		return p.jumpText(ins)
	case asm.LdClass:
		return p.loadImmText(ins)
	case asm.LdXClass:
		return fmt.Sprintf("r%d = *(%s *)(r%d %+d)", ins.Dst, sizeName(ins.OpCode), ins.Src, ins.Offset)
	case asm.StClass:
		return fmt.Sprintf("*(%s *)(r%d %+d) = %d", sizeName(ins.OpCode), ins.Dst, ins.Offset, ins.Constant)
	default:
		if ins.OpCode.Mode() == asm.AtomicMode {
			return atomicText(ins)
		}
		return fmt.Sprintf("*(%s *)(r%d %+d) = r%d", sizeName(ins.OpCode), ins.Dst, ins.Offset, ins.Src)
	}
}

// sizeName is the C type of a memory access: u8..u64, s8..s32.
func sizeName(op asm.OpCode) string {
	sign := "u"
	if op.Mode() == asm.MemSXMode {
		sign = "s"
	}
	return fmt.Sprintf("%s%d", sign, 8*op.Size().Sizeof())
}

var aluOps = map[asm.ALUOp]string{
	asm.Add: "+=", asm.Sub: "-=", asm.Mul: "*=", asm.Div: "/=", asm.SDiv: "s/=", asm.Or: "|=", asm.And: "&=", asm.LSh: "<<=",
	asm.RSh: ">>=", asm.Mod: "%=", asm.SMod: "s%=", asm.Xor: "^=", asm.Mov: "=", asm.ArSh: "s>>=",
}

var signExtend = map[asm.ALUOp]string{asm.MovSX8: "(s8)", asm.MovSX16: "(s16)", asm.MovSX32: "(s32)"}

func aluText(ins *asm.Instruction) string {
	file, kind := "r", ins.OpCode.ALUOp()
	if ins.OpCode.Class() == asm.ALUClass {
		file = "w"
	}
	src := fmt.Sprintf("%s%d", file, ins.Src)
	if ins.OpCode.Source() == asm.ImmSource {
		src = fmt.Sprint(int32(ins.Constant))
	}
	switch kind {
	case asm.Swap:
		return fmt.Sprintf("r%d = %s%d r%d", ins.Dst, swapName(ins.OpCode), ins.Constant, ins.Dst)
	case asm.Neg:
		return fmt.Sprintf("%s%d = -%s%d", file, ins.Dst, file, ins.Dst)
	case asm.MovSX8, asm.MovSX16, asm.MovSX32:
		return fmt.Sprintf("%s%d = %s%s", file, ins.Dst, signExtend[kind], src)
	}
	return fmt.Sprintf("%s%d %s %s", file, ins.Dst, aluOps[kind], src)
}

func swapName(op asm.OpCode) string {
	switch {
	case op.Class() == asm.ALU64Class:
		return "bswap"
	case op.Endianness() == asm.BE:
		return "be"
	}
	return "le"
}

var atomicOps = map[asm.AtomicOp]string{
	asm.AddAtomic: "+=", asm.AndAtomic: "&=", asm.OrAtomic: "|=", asm.XorAtomic: "^=",
	asm.FetchAdd: "fetch_add", asm.FetchAnd: "fetch_and", asm.FetchOr: "fetch_or", asm.FetchXor: "fetch_xor", asm.Xchg: "xchg",
}

// The opcodes of these two are not exported by package asm.
const (
	loadAcquire  = asm.AtomicOp(0x100 << 8)
	storeRelease = asm.AtomicOp(0x110 << 8)
)

func atomicText(ins *asm.Instruction) string {
	op := ins.OpCode.AtomicOp()
	mem := func(base asm.Register) string {
		return fmt.Sprintf("(%s *)(r%d %+d)", sizeName(ins.OpCode), base, ins.Offset)
	}
	width := ""
	if ins.OpCode.Size() == asm.DWord {
		width = "64"
	}
	switch op {
	case asm.AddAtomic, asm.AndAtomic, asm.OrAtomic, asm.XorAtomic:
		return fmt.Sprintf("lock *%s %s r%d", mem(ins.Dst), atomicOps[op], ins.Src)
	case asm.CmpXchg:
		return fmt.Sprintf("r0 = atomic%s_cmpxchg(%s, r0, r%d)", width, mem(ins.Dst), ins.Src)
	case loadAcquire:
		return fmt.Sprintf("r%d = load_acquire(%s)", ins.Dst, mem(ins.Src))
	case storeRelease:
		return fmt.Sprintf("store_release(%s, r%d)", mem(ins.Dst), ins.Src)
	}
	name, ok := atomicOps[op]
	if !ok {
		return fmt.Sprintf("BUG_%02x", uint8(ins.OpCode))
	}
	return fmt.Sprintf("r%d = atomic%s_%s(%s, r%d)", ins.Src, width, name, mem(ins.Dst), ins.Src)
}

func (p *printer) loadImmText(ins *asm.Instruction) string {
	switch mode := ins.OpCode.Mode(); {
	case mode == asm.AbsMode:
		return fmt.Sprintf("r0 = *(%s *)skb[%d]", sizeName(ins.OpCode), ins.Constant)
	case mode == asm.IndMode:
		return fmt.Sprintf("r0 = *(%s *)skb[r%d + %d]", sizeName(ins.OpCode), ins.Src, ins.Constant)
	case !ins.OpCode.IsDWordLoad():
		return fmt.Sprintf("BUG_%02x", uint8(ins.OpCode))
	}
	name := ins.Reference()
	if ins.IsLoadFromMap() && name == "" {
		name = fmt.Sprintf("fd:%d", uint32(ins.Constant))
	}
	switch ins.Src {
	case asm.PseudoMapFD:
		return fmt.Sprintf("r%d = map[%s]", ins.Dst, name)
	case asm.PseudoMapValue:
		return fmt.Sprintf("r%d = map[%s][0]+%d", ins.Dst, name, uint64(ins.Constant)>>32)
	case asm.PseudoFunc:
		return fmt.Sprintf("r%d = subprog[%+d]%s", ins.Dst, p.distance(ins, int64(int32(ins.Constant))), symbolic(ins))
	}
	return fmt.Sprintf("r%d = %#x", ins.Dst, uint64(ins.Constant))
}

// distance is how far a reference leads: what the instruction says, or where
// its symbol is if it says -1 as unresolved ones do.
func (p *printer) distance(ins *asm.Instruction, rel int64) int64 {
	if at, ok := p.at[ins.Reference()]; ok && rel == -1 {
		return int64(at - p.raw - 1)
	}
	return rel
}

func symbolic(ins *asm.Instruction) string {
	if s := ins.Reference(); s != "" {
		return " <" + s + ">"
	}
	return ""
}

var jumpOps = map[asm.JumpOp]string{
	asm.JEq: "==", asm.JGT: ">", asm.JGE: ">=", asm.JSet: "&", asm.JNE: "!=", asm.JSGT: "s>", asm.JSGE: "s>=",
	asm.JLT: "<", asm.JLE: "<=", asm.JSLT: "s<", asm.JSLE: "s<=",
}

func (p *printer) jumpText(ins *asm.Instruction) string {
	kind, wide := ins.OpCode.JumpOp(), ins.OpCode.Class() == asm.JumpClass
	to := fmt.Sprintf("pc%+d%s", p.distance(ins, int64(ins.Offset)), symbolic(ins))
	switch {
	case kind == asm.Exit:
		return "exit"
	case kind == asm.Call:
		return p.callText(ins)
	case kind == asm.Ja && !wide:
		return fmt.Sprintf("gotol pc%+d%s", p.distance(ins, ins.Constant), symbolic(ins))
	case kind == asm.Ja:
		return "goto " + to
	case kind == asm.JCOND:
		return "may_goto " + to
	case jumpOps[kind] == "":
		return fmt.Sprintf("BUG_%02x", uint8(ins.OpCode))
	}
	file := "r"
	if !wide {
		file = "w"
	}
	src := fmt.Sprintf("%s%d", file, ins.Src)
	if ins.OpCode.Source() == asm.ImmSource {
		src = fmt.Sprintf("%#x", uint32(ins.Constant))
	}
	return fmt.Sprintf("if %s%d %s %s goto %s", file, ins.Dst, jumpOps[kind], src, to)
}

func (p *printer) callText(ins *asm.Instruction) string {
	switch ins.Src {
	case asm.PseudoCall:
		return fmt.Sprintf("call pc%+d%s", p.distance(ins, ins.Constant), symbolic(ins))
	case asm.PseudoKfuncCall:
		if s := ins.Reference(); s != "" {
			return fmt.Sprintf("call kfunc %s#%d", s, ins.Constant)
		}
		return fmt.Sprintf("call kfunc #%d", ins.Constant)
	}
	return fmt.Sprintf("call bpf_%s#%d", HelperName(asm.BuiltinFunc(ins.Constant)), ins.Constant)
}

// HelperName is the kernel's name of a helper, without bpf_: map_lookup_elem.
func HelperName(f asm.BuiltinFunc) string {
	s := strings.TrimPrefix(f.String(), "Fn")
	if strings.ContainsAny(s, "()") {
		return "unknown"
	}
	var b strings.Builder
	for i, c := range s {
		if i > 0 && unicode.IsUpper(c) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}
