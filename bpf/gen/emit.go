package gen

import (
	"fmt"
	"math"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// emitter turns one lowered Func into instructions.
type emitter struct {
	f      *ir.Func
	prefix string // of its labels
	locs   []loc
	slots  map[*ir.Slot]int16 // frame offsets
	out    asm.Instructions
	label  string // for the next instruction
	src    string // source line for the next instruction
	maps   map[*ir.Map]string
}

func (e *emitter) add(ins asm.Instruction) {
	if e.label != "" {
		ins = ins.WithSymbol(e.label)
		e.label = ""
	}
	if e.src != "" {
		ins = ins.WithSource(asm.Comment(e.src))
		e.src = ""
	}
	e.out = append(e.out, ins)
}

func (e *emitter) blockLabel(b *ir.Block) string { return fmt.Sprintf("%s.%d", e.prefix, b.ID) }

// emit gives the instructions of the function, its symbol and BTF on the first.
func (e *emitter) emit() asm.Instructions {
	e.entryMoves()
	var at syntax.Span
	for i, b := range e.f.Blocks {
		if e.label != "" { // an empty block before: give its label a place
			e.add(asm.Mov.Imm(asm.R0, 0))
		}
		if i > 0 { // nothing jumps to the first block
			e.label = e.blockLabel(b)
		}
		for j := range b.Ins {
			n := &b.Ins[j]
			if n.Span.Src != nil && n.Span != at {
				at, e.src = n.Span, n.Span.String()+": "+firstLine(n.Span.Text())
			}
			if n.Op == ir.Jump && i+1 < len(e.f.Blocks) && n.Then == e.f.Blocks[i+1] {
				continue
			}
			var next *ir.Block
			if i+1 < len(e.f.Blocks) {
				next = e.f.Blocks[i+1]
			}
			e.ins(n, next)
		}
	}
	if len(e.out) == 0 || e.out[0].Symbol() != "" { // the first instruction carries the function's symbol
		e.out = append(asm.Instructions{asm.Mov.Imm(asm.R0, 0)}, e.out...)
	}
	if e.out[0].Source() == nil { // the kernel wants line information of every function's first instruction
		e.out[0] = e.out[0].WithSource(asm.Comment(e.prefix))
	}
	e.out[0] = btf.WithFuncMetadata(e.out[0].WithSymbol(e.prefix), funcInfo(e.f, e.prefix))
	return e.out
}

// firstLine cuts a text that is a comment of an instruction: the verifier prints it before what it does.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	const most = 80
	return s[:min(len(s), most)]
}

// funcInfo describes a function to the kernel, which demands it of callbacks (kernel/bpf/verifier.c, check_ld_imm).
func funcInfo(f *ir.Func, name string) *btf.Func {
	u64 := &btf.Int{Name: "unsigned long", Size: 8}
	p := &btf.FuncProto{Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}}
	linkage := btf.StaticFunc
	if f.Entry {
		linkage = btf.GlobalFunc
		p.Params = []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: (*btf.Void)(nil)}}}
	} else {
		for i := range f.Params {
			p.Params = append(p.Params, btf.FuncParam{Name: fmt.Sprintf("a%d", i), Type: u64})
		}
	}
	return &btf.Func{Name: name, Type: p, Linkage: linkage}
}

// entryMoves brings parameters from R1 … R5 to where they live.
func (e *emitter) entryMoves() {
	var ms []move
	for i, p := range e.f.Params {
		if l := e.locs[p]; l.used {
			ms = append(ms, move{dst: l, src: loc{reg: asm.R1 + asm.Register(i), used: true}})
		}
	}
	e.parallel(ms)
}

// move is one assignment of a parallel move; const sources have imm.
type move struct {
	dst, src loc
	imm      int64
	isImm    bool
}

// parallel carries out moves as if all happened at once. R0 breaks cycles.
func (e *emitter) parallel(ms []move) {
	var regs []move
	var late []move // constants and reloads read no register: last
	for _, m := range ms {
		switch {
		case m.isImm || m.src.spill != 0:
			late = append(late, m)
		case m.dst.spill != 0:
			e.add(asm.StoreMem(asm.RFP, m.dst.spill, m.src.reg, asm.DWord)) // reads only, before anything is overwritten
		case m.dst.reg != m.src.reg:
			regs = append(regs, m)
		}
	}
	for len(regs) > 0 {
		k := -1
		for i, m := range regs {
			if !readBy(regs, m.dst.reg) {
				k = i
				break
			}
		}
		if k < 0 { // a cycle: free one destination
			r := regs[0].dst.reg
			e.add(asm.Mov.Reg(tmpA, r))
			for i := range regs {
				if regs[i].src.reg == r {
					regs[i].src.reg = tmpA
				}
			}
			continue
		}
		e.add(asm.Mov.Reg(regs[k].dst.reg, regs[k].src.reg))
		regs = append(regs[:k], regs[k+1:]...)
	}
	for _, m := range late {
		if m.isImm {
			e.constant(m.dst.reg, m.imm)
		} else {
			e.add(asm.LoadMem(m.dst.reg, asm.RFP, m.src.spill, asm.DWord))
		}
	}
}

func readBy(ms []move, r asm.Register) bool {
	for _, m := range ms {
		if m.src.reg == r {
			return true
		}
	}
	return false
}

func (e *emitter) constant(r asm.Register, n int64) {
	if n >= math.MinInt32 && n <= math.MaxInt32 {
		e.add(asm.Mov.Imm(r, int32(n)))
		return
	}
	e.add(asm.LoadImm(r, n, asm.DWord))
}

// use gives a register that holds v, tmp if v has none of its own.
func (e *emitter) use(v ir.Val, tmp asm.Register) asm.Register {
	if v.IsImm() {
		e.constant(tmp, v.Imm)
		return tmp
	}
	l := e.locs[v.R]
	if l.spill != 0 {
		e.add(asm.LoadMem(tmp, asm.RFP, l.spill, asm.DWord))
		return tmp
	}
	return l.reg
}

// def gives the register to compute r in; done must be called after.
func (e *emitter) def(r ir.Reg) asm.Register {
	if l := e.locs[r]; l.used && l.spill == 0 {
		return l.reg
	}
	return tmpA
}

func (e *emitter) done(r ir.Reg) {
	if l := e.locs[r]; l.spill != 0 {
		e.add(asm.StoreMem(asm.RFP, l.spill, tmpA, asm.DWord))
	}
}

// mem gives base register and offset of an instruction's memory operand.
func (e *emitter) mem(n *ir.Ins, tmp asm.Register) (asm.Register, int16) {
	if n.Slot != nil {
		return asm.RFP, e.slots[n.Slot] + int16(n.Off)
	}
	return e.use(ir.R(n.Base), tmp), int16(n.Off)
}

var sizes = map[uint8]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word, 8: asm.DWord}

// storeImm is asm.StoreImm, which refuses the 64-bit form although BPF has it (BPF_ST | BPF_DW sign-extends).
func storeImm(dst asm.Register, off int16, n int64, size asm.Size) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.StClass).SetMode(asm.MemMode).SetSize(size), Dst: dst, Offset: off, Constant: n}
}

func fits32(v ir.Val) bool {
	return v.IsImm() && v.Imm >= math.MinInt32 && v.Imm <= math.MaxInt32
}

// ins selects instructions for n; next is the block that follows in memory.
func (e *emitter) ins(n *ir.Ins, next *ir.Block) {
	switch n.Op {
	case ir.Nop:
	case ir.Const:
		if e.locs[n.Dst].used {
			e.constant(e.def(n.Dst), n.A.Imm)
			e.done(n.Dst)
		}
	case ir.Mov:
		e.mov(n)
	case ir.Bin:
		e.bin(n)
	case ir.Ext:
		e.ext(n)
	case ir.Bswap:
		d := e.def(n.Dst)
		if s := e.use(n.A, tmpA); s != d {
			e.add(asm.Mov.Reg(d, s))
		}
		if n.Size > 1 {
			e.add(asm.HostTo(asm.BE, d, sizes[n.Size]))
		}
		e.done(n.Dst)
	case ir.Addr:
		d := e.def(n.Dst)
		b, off := e.mem(n, tmpA)
		if b != d {
			e.add(asm.Mov.Reg(d, b))
		}
		if off != 0 {
			e.add(asm.Add.Imm(d, int32(off)))
		}
		e.done(n.Dst)
	case ir.Load:
		d := e.def(n.Dst)
		b, off := e.mem(n, tmpB)
		e.add(asm.LoadMem(d, b, off, sizes[n.Size]))
		if n.Signed && n.Size < 8 {
			e.extend(d, n.Size, true)
		}
		e.done(n.Dst)
	case ir.Store:
		b, off := e.mem(n, tmpA)
		if fits32(n.A) {
			e.add(storeImm(b, off, n.A.Imm, sizes[n.Size]))
			return
		}
		e.add(asm.StoreMem(b, off, e.use(n.A, tmpB), sizes[n.Size]))
	case ir.AtomicAdd:
		b, off := e.mem(n, tmpA)
		op := asm.AddAtomic.Mem(b, e.use(n.A, tmpB), sizes[n.Size], off)
		e.add(op)
	case ir.MapPtr:
		d := e.def(n.Dst)
		e.add(asm.LoadMapPtr(d, 0).WithReference(e.maps[n.Map]))
		e.done(n.Dst)
	case ir.MapValue:
		d := e.def(n.Dst)
		e.add(asm.LoadMapValue(d, 0, uint32(n.Off)).WithReference(e.maps[n.Map]))
		e.done(n.Dst)
	case ir.FuncPtr:
		d := e.def(n.Dst)
		ins := asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: d, Src: asm.PseudoFunc, Constant: -1}
		e.add(ins.WithReference(n.Callee.Name))
		e.done(n.Dst)
	case ir.Call:
		e.call(n)
	case ir.Jump:
		e.add(asm.Ja.Label(e.blockLabel(n.Then)))
	case ir.Branch:
		e.branch(n, next)
	case ir.Ret:
		if r := e.use(n.A, tmpA); r != asm.R0 {
			e.add(asm.Mov.Reg(asm.R0, r))
		}
		e.add(asm.Return())
	default:
		panic(fmt.Sprintf("bpf/gen: op %d reached the emitter", n.Op))
	}
}

func (e *emitter) mov(n *ir.Ins) {
	l := e.locs[n.Dst]
	if !l.used {
		return
	}
	d := e.def(n.Dst)
	if s := e.use(n.A, d); s != d {
		e.add(asm.Mov.Reg(d, s))
	}
	e.done(n.Dst)
}

var aluOps = map[ir.Alu]asm.ALUOp{
	ir.Add: asm.Add, ir.Sub: asm.Sub, ir.Mul: asm.Mul, ir.Div: asm.Div, ir.Mod: asm.Mod, ir.And: asm.And, ir.Or: asm.Or,
	ir.Xor: asm.Xor, ir.Shl: asm.LSh, ir.Shr: asm.RSh, ir.Sar: asm.ArSh,
}

func (e *emitter) bin(n *ir.Ins) {
	op := aluOps[n.Alu]
	d := e.def(n.Dst)
	if fits32(n.B) {
		if s := e.use(n.A, d); s != d {
			e.add(asm.Mov.Reg(d, s))
		}
		if !identity(n.Alu, n.B.Imm) {
			e.add(op.Imm(d, int32(n.B.Imm)))
		}
		e.done(n.Dst)
		return
	}
	b := e.use(n.B, tmpB)
	if b == d && d != tmpA { // d = a op d
		if a := e.use(n.A, tmpA); a != tmpA {
			e.add(asm.Mov.Reg(tmpA, a))
		}
		e.add(op.Reg(tmpA, b))
		e.add(asm.Mov.Reg(d, tmpA))
		e.done(n.Dst)
		return
	}
	if a := e.use(n.A, d); a != d {
		e.add(asm.Mov.Reg(d, a))
	}
	e.add(op.Reg(d, b))
	e.done(n.Dst)
}

// identity says if op with n leaves its operand as it is.
func identity(op ir.Alu, n int64) bool {
	switch op {
	case ir.Add, ir.Sub, ir.Or, ir.Xor, ir.Shl, ir.Shr, ir.Sar:
		return n == 0
	case ir.Mul:
		return n == 1
	case ir.And:
		return n == -1
	}
	return false
}

func (e *emitter) ext(n *ir.Ins) {
	d := e.def(n.Dst)
	if s := e.use(n.A, tmpA); s != d {
		if n.Size == 4 && !n.Signed {
			e.add(asm.Mov.Reg32(d, s))
			e.done(n.Dst)
			return
		}
		e.add(asm.Mov.Reg(d, s))
	}
	e.extend(d, n.Size, n.Signed)
	e.done(n.Dst)
}

func (e *emitter) extend(d asm.Register, size uint8, signed bool) {
	bits := int32(64 - 8*int(size))
	switch {
	case size == 8:
	case signed:
		e.add(asm.LSh.Imm(d, bits))
		e.add(asm.ArSh.Imm(d, bits))
	case size == 4:
		e.add(asm.Mov.Reg32(d, d))
	default:
		e.add(asm.And.Imm(d, int32(1)<<(8*int(size))-1))
	}
}

func (e *emitter) call(n *ir.Ins) {
	ms := make([]move, 0, 5)
	for i, a := range n.Args {
		m := move{dst: loc{reg: asm.R1 + asm.Register(i), used: true}}
		if a.IsImm() {
			m.imm, m.isImm = a.Imm, true
		} else {
			m.src = e.locs[a.R]
		}
		ms = append(ms, m)
	}
	e.parallel(ms)
	if n.Name != "" {
		e.add(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: -1}.WithReference(n.Name))
	} else {
		e.add(asm.BuiltinFunc(n.Fn).Call())
	}
	if n.Dst == 0 || !e.locs[n.Dst].used {
		return
	}
	if d := e.def(n.Dst); d != asm.R0 {
		e.add(asm.Mov.Reg(d, asm.R0))
	}
	e.done(n.Dst)
}

var jumpOps = map[ir.Cond]asm.JumpOp{
	ir.Eq: asm.JEq, ir.Ne: asm.JNE, ir.Lt: asm.JLT, ir.Le: asm.JLE, ir.Gt: asm.JGT, ir.Ge: asm.JGE,
	ir.SLt: asm.JSLT, ir.SLe: asm.JSLE, ir.SGt: asm.JSGT, ir.SGe: asm.JSGE, ir.Set: asm.JSet,
}

func (e *emitter) branch(n *ir.Ins, next *ir.Block) {
	cond, then, els := n.Cond, n.Then, n.Else
	if then == next && cond != ir.Set {
		cond, then, els = cond.Not(), els, then
	}
	a := e.use(n.A, tmpA)
	if fits32(n.B) {
		e.add(jumpOps[cond].Imm(a, int32(n.B.Imm), e.blockLabel(then)))
	} else {
		e.add(jumpOps[cond].Reg(a, e.use(n.B, tmpB), e.blockLabel(then)))
	}
	if els != next {
		e.add(asm.Ja.Label(e.blockLabel(els)))
	}
}

// mapSpec describes m to the kernel.
func mapSpec(m *ir.Map, name string) *ebpf.MapSpec {
	s := &ebpf.MapSpec{Name: name, KeySize: uint32(m.KeySize), ValueSize: uint32(m.ValueSize), MaxEntries: uint32(m.MaxEntries)}
	switch m.Kind {
	case ir.Hash:
		s.Type = ebpf.Hash
	case ir.LRUHash:
		s.Type = ebpf.LRUHash
	case ir.PerCPUHash:
		s.Type = ebpf.PerCPUHash
	case ir.PerCPULRUHash:
		s.Type = ebpf.LRUCPUHash
	case ir.Array:
		s.Type, s.KeySize = ebpf.Array, 4
	case ir.PerCPUArray:
		s.Type, s.KeySize = ebpf.PerCPUArray, 4
	case ir.Ring:
		s.Type, s.KeySize, s.ValueSize = ebpf.RingBuf, 0, 0
	case ir.PerfArray:
		s.Type, s.KeySize, s.ValueSize = ebpf.PerfEventArray, 4, 4
	}
	return s
}
