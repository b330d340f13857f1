package vm

import (
	"fmt"

	"github.com/cilium/ebpf/asm"
)

// place is where a decoded instruction came from.
type place struct {
	prog string
	raw  int
	src  fmt.Stringer
}

// decoder turns one program into code.
type decoder struct {
	m     *Machine
	prog  string
	insns asm.Instructions
	base  int            // code index of the first instruction
	raw   []int          // raw offset of every instruction
	at    map[int]int    // raw offset → code index
	syms  map[string]int // symbol → code index
}

// decode fills m.code and m.entries.
func (m *Machine) decode(progs map[string]asm.Instructions) error {
	var ds []*decoder
	size := 0
	for _, name := range sortedKeys(progs) {
		d := &decoder{m: m, prog: name, insns: progs[name], base: size, at: map[int]int{}, syms: map[string]int{}}
		if err := d.scan(); err != nil {
			return fmt.Errorf("program %s: %w", name, err)
		}
		m.entries[name] = int32(size)
		size += len(d.insns) + 1
		ds = append(ds, d)
	}
	m.code, m.places = make([]insn, 0, size), make([]place, 0, size)
	for _, d := range ds {
		for i := range d.insns {
			in, err := d.insn(i)
			if err != nil {
				return fmt.Errorf("program %s, instruction %d: %w", d.prog, d.raw[i], err)
			}
			m.code = append(m.code, in)
			m.places = append(m.places, place{d.prog, d.raw[i], d.insns[i].Source()})
		}
		m.code = append(m.code, insn{op: opTrap})
		m.places = append(m.places, place{prog: d.prog, raw: d.raw[len(d.insns)]})
	}
	return nil
}

// scan finds the offset and symbol of every instruction.
func (d *decoder) scan() error {
	raw := 0
	for i := range d.insns {
		ins := &d.insns[i]
		d.raw = append(d.raw, raw)
		d.at[raw] = d.base + i
		if s := ins.Symbol(); s != "" {
			if _, dup := d.syms[s]; dup {
				return fmt.Errorf("duplicate symbol %s", s)
			}
			d.syms[s] = d.base + i
		}
		raw += int(ins.Width())
	}
	d.raw = append(d.raw, raw)
	return nil
}

// dest is the code index that an instruction refers to: a symbol if it has one
// that is not yet resolved, else a raw offset relative to the next instruction.
func (d *decoder) dest(i int, rel int64) (int32, error) {
	if ref := d.insns[i].Reference(); ref != "" {
		if pc, ok := d.syms[ref]; ok {
			return int32(pc), nil
		}
		if pc, ok := d.m.entries[ref]; ok && rel == -1 {
			return pc, nil
		}
		if rel == -1 {
			return 0, fmt.Errorf("no symbol %s", ref)
		}
	}
	pc, ok := d.at[d.raw[i]+1+int(rel)]
	if !ok {
		return 0, fmt.Errorf("jump by %d leads to no instruction", rel)
	}
	return int32(pc), nil
}

func (d *decoder) insn(i int) (insn, error) {
	ins := &d.insns[i]
	if ins.Dst > regFP || ins.Src > regFP {
		return insn{}, fmt.Errorf("register r%d does not exist", max(ins.Dst, ins.Src))
	}
	switch ins.OpCode.Class() {
	case asm.ALUClass, asm.ALU64Class:
		return d.alu(ins)
	case asm.JumpClass, asm.Jump32Class:
		return d.jump(i)
	case asm.LdClass:
		return d.loadImm(i)
	case asm.LdXClass:
		return d.loadMem(ins)
	default:
		return d.storeMem(ins)
	}
}

// operand fills src and imm: the register or the constant.
func operand(ins *asm.Instruction) insn {
	in := insn{dst: uint8(ins.Dst), src: uint8(ins.Src)}
	if ins.OpCode&8 == 0 { // BPF_K
		in.src, in.imm = regZero, uint64(int64(int32(ins.Constant)))
	}
	return in
}

func unknown(ins *asm.Instruction) error { return fmt.Errorf("unknown instruction %v", ins) }

var aluOps = map[asm.ALUOp][2]op{ // 64-bit, 32-bit
	asm.Add: {opAdd64, opAdd32}, asm.Sub: {opSub64, opSub32}, asm.Mul: {opMul64, opMul32},
	asm.Div: {opDiv64, opDiv32}, asm.SDiv: {opSDiv64, opSDiv32}, asm.Or: {opOr64, opOr32},
	asm.And: {opAnd64, opAnd32}, asm.LSh: {opLsh64, opLsh32}, asm.RSh: {opRsh64, opRsh32},
	asm.Neg: {opNeg64, opNeg32}, asm.Mod: {opMod64, opMod32}, asm.SMod: {opSMod64, opSMod32},
	asm.Xor: {opXor64, opXor32}, asm.Mov: {opMov64, opMov32}, asm.ArSh: {opArsh64, opArsh32},
	asm.MovSX8: {opMovSX8, opMovSX8w}, asm.MovSX16: {opMovSX16, opMovSX16w}, asm.MovSX32: {opMovSX32, 0},
}

func (d *decoder) alu(ins *asm.Instruction) (insn, error) {
	if ins.Dst == regFP {
		return insn{}, fmt.Errorf("write to the frame pointer")
	}
	if ins.Offset != 0 {
		return insn{}, unknown(ins)
	}
	in, kind := operand(ins), ins.OpCode.ALUOp()
	if kind == asm.Swap {
		var ok bool
		in.op, ok = swapOp(ins)
		if !ok {
			return insn{}, unknown(ins)
		}
		return in, nil
	}
	in.op = aluOps[kind][0]
	if ins.OpCode.Class() == asm.ALUClass {
		in.op = aluOps[kind][1]
	}
	switch kind {
	case asm.MovSX8, asm.MovSX16, asm.MovSX32:
		if in.src == regZero {
			return insn{}, unknown(ins)
		}
	case asm.Neg:
		if in.src != regZero {
			return insn{}, unknown(ins)
		}
	}
	if in.op == opTrap {
		return insn{}, unknown(ins)
	}
	return in, nil
}

// swapOp decodes the byte swaps: to little endian is a truncation here, to big
// endian and the unconditional swap are the same.
func swapOp(ins *asm.Instruction) (op, bool) {
	if ins.OpCode.Class() == asm.ALUClass && ins.OpCode&8 == 0 {
		o, ok := map[int64]op{16: opZext16, 32: opZext32, 64: opNop}[ins.Constant]
		return o, ok
	}
	o, ok := map[int64]op{16: opSwap16, 32: opSwap32, 64: opSwap64}[ins.Constant]
	return o, ok && (ins.OpCode.Class() == asm.ALUClass || ins.OpCode&8 == 0)
}

var jumpOps = map[asm.JumpOp][2]op{ // 64-bit, 32-bit
	asm.JEq: {opJEq, opJEq32}, asm.JNE: {opJNe, opJNe32}, asm.JGT: {opJGt, opJGt32}, asm.JGE: {opJGe, opJGe32},
	asm.JLT: {opJLt, opJLt32}, asm.JLE: {opJLe, opJLe32}, asm.JSGT: {opJSGt, opJSGt32}, asm.JSGE: {opJSGe, opJSGe32},
	asm.JSLT: {opJSLt, opJSLt32}, asm.JSLE: {opJSLe, opJSLe32}, asm.JSet: {opJSet, opJSet32},
}

func (d *decoder) jump(i int) (insn, error) {
	ins := &d.insns[i]
	wide := 0
	if ins.OpCode.Class() == asm.Jump32Class {
		wide = 1
	}
	in, rel := operand(ins), int64(ins.Offset)
	switch kind := ins.OpCode.JumpOp(); {
	case kind == asm.Call:
		return d.call(i)
	case kind == asm.Exit:
		return insn{op: opExit}, nil
	case ins.OpCode&8 != 0 && (kind == asm.Ja || kind == asm.JCOND):
		return insn{}, unknown(ins)
	case kind == asm.Ja && wide == 1: // gotol: the 32-bit field holds the offset
		in.op, rel = opJa, ins.Constant
	case kind == asm.Ja:
		in.op = opJa
	case kind == asm.JCOND && wide == 0 && ins.Src == asm.PseudoMayGoto:
		in.op = opMayJmp
	default:
		in.op = jumpOps[kind][wide]
	}
	if in.op == opTrap {
		return insn{}, unknown(ins)
	}
	var err error
	in.off, err = d.dest(i, rel)
	return in, err
}

func (d *decoder) call(i int) (insn, error) {
	ins := &d.insns[i]
	switch {
	case ins.OpCode&8 != 0:
		return insn{}, unknown(ins)
	case ins.Src == asm.PseudoCall:
		pc, err := d.dest(i, ins.Constant)
		return insn{op: opCall, off: pc}, err
	case ins.Src == asm.PseudoKfuncCall:
		for _, f := range kfuncs {
			if f.name == ins.Reference() {
				return d.callGo(f.fn), nil
			}
		}
		return insn{}, fmt.Errorf("the machine has no kfunc %s", ins.Reference())
	case ins.Src != 0:
		return insn{}, unknown(ins)
	}
	for _, h := range helpers {
		if int64(h.id) == ins.Constant {
			return d.callGo(h.fn), nil
		}
	}
	return insn{}, fmt.Errorf("the machine has no helper %v", asm.BuiltinFunc(ins.Constant))
}

func (d *decoder) callGo(f helperFunc) insn {
	d.m.calls = append(d.m.calls, f)
	return insn{op: opHelper, imm: uint64(len(d.m.calls) - 1)}
}

// loadImm decodes the BPF_LD class: 64-bit constants, and the packet loads of classic BPF.
func (d *decoder) loadImm(i int) (insn, error) {
	ins := &d.insns[i]
	in := insn{op: opMov64, dst: uint8(ins.Dst), src: regZero, imm: uint64(ins.Constant)}
	switch mode := ins.OpCode.Mode(); {
	case mode == asm.AbsMode || mode == asm.IndMode:
		in.dst, in.imm = 0, uint64(int64(int32(ins.Constant)))
		if mode == asm.IndMode {
			in.src = uint8(ins.Src)
		}
		in.op = map[asm.Size]op{asm.Byte: opPkt8, asm.Half: opPkt16, asm.Word: opPkt32}[ins.OpCode.Size()]
		if in.op == opTrap {
			return insn{}, unknown(ins)
		}
		return in, nil
	case !ins.OpCode.IsDWordLoad() || ins.Dst == regFP:
		return insn{}, unknown(ins)
	}
	var err error
	switch ins.Src {
	case 0:
	case asm.PseudoMapFD, asm.PseudoMapValue:
		in.imm, err = d.mapAddr(ins)
	case asm.PseudoFunc:
		var pc int32
		pc, err = d.dest(i, int64(int32(ins.Constant)))
		in.imm = address(kindFunc, 0, uint64(pc))
	default:
		err = unknown(ins)
	}
	return in, err
}

// mapAddr is what a load of a map, or of an address in its value, gives.
func (d *decoder) mapAddr(ins *asm.Instruction) (uint64, error) {
	mp := d.m.byName[ins.Reference()]
	if mp == nil {
		return 0, fmt.Errorf("no map %q", ins.Reference())
	}
	if ins.Src == asm.PseudoMapFD {
		return address(kindMap, mp.obj, 0), nil
	}
	off := uint64(ins.Constant) >> 32
	if mp.data == nil || mp.perCPU() || mp.hash != nil || mp.max != 1 || off >= uint64(mp.value) {
		return 0, fmt.Errorf("map %s has no address for its value at %d", mp.name, off)
	}
	return address(kindValue, mp.obj, off), nil
}

var sizeIndex = map[asm.Size]int{asm.Byte: 0, asm.Half: 1, asm.Word: 2, asm.DWord: 3}

func (d *decoder) loadMem(ins *asm.Instruction) (insn, error) {
	in := insn{dst: uint8(ins.Dst), src: uint8(ins.Src), off: int32(ins.Offset)}
	size := sizeIndex[ins.OpCode.Size()]
	switch mode := ins.OpCode.Mode(); {
	case ins.Dst == regFP:
		return insn{}, fmt.Errorf("write to the frame pointer")
	case mode == asm.MemMode:
		in.op = opLd8 + op(size)
	case mode == asm.MemSXMode && size < 3:
		in.op = opLdSX8 + op(size)
	default:
		return insn{}, unknown(ins)
	}
	return in, nil
}

func (d *decoder) storeMem(ins *asm.Instruction) (insn, error) {
	in := insn{dst: uint8(ins.Dst), src: uint8(ins.Src), off: int32(ins.Offset)}
	size := op(sizeIndex[ins.OpCode.Size()])
	class, mode := ins.OpCode.Class(), ins.OpCode.Mode()
	switch {
	case mode == asm.MemMode:
		in.op = opSt8 + size
		if class == asm.StClass {
			in.src, in.imm = regZero, uint64(int64(int32(ins.Constant)))
		}
		return in, nil
	case mode == asm.AtomicMode && class == asm.StXClass:
		return atomicInsn(in, ins, size)
	}
	return insn{}, unknown(ins)
}

// atomicInsn decodes the atomic operations. Between runs nothing else runs, so
// acquire and release are plain.
func atomicInsn(in insn, ins *asm.Instruction, size op) (insn, error) {
	a := ins.OpCode.AtomicOp()
	in.imm = uint64(a >> 8)
	if ins.Constant != int64(in.imm) {
		// cilium/ebpf v0.22.0 encodes the constant, not the operation in the
		// opcode, and its constructors (AtomicOp.Mem) leave the constant 0: the
		// kernel would execute an add.
		return insn{}, fmt.Errorf("%v: the constant is %#x, the kernel wants the operation in it, %#x", ins, ins.Constant, in.imm)
	}
	switch {
	case in.imm == atomLoadAcq:
		in.op, in.imm = opLd8+size, 0
		if ins.Dst == regFP {
			return insn{}, unknown(ins)
		}
		return in, nil
	case in.imm == atomStoreRel:
		in.op, in.imm = opSt8+size, 0
		return in, nil
	case size < 2 || !atomKnown(in.imm) || in.imm&atomFetch != 0 && ins.Src == regFP:
		return insn{}, unknown(ins)
	}
	in.op = opAtom32 + size - 2
	return in, nil
}
