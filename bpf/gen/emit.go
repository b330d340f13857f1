package gen

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// emitter turns one lowered Func into instructions.
type emitter struct {
	f      *ir.Func
	prefix string             // of its labels
	regs   []asm.Register     // by virtual register
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
	targets := jumpedTo(e.f)
	var at syntax.Span
	for i, b := range e.f.Blocks {
		if targets[b] {
			if e.label != "" { // nothing came of the block before: give its label a place
				e.add(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Ja)})
			}
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
	e.out[0] = btf.WithFuncMetadata(e.out[0].WithSymbol(e.prefix), prototype(e.f))
	return e.out
}

// jumpedTo finds the blocks that are not only fallen into from the one before.
func jumpedTo(f *ir.Func) map[*ir.Block]bool {
	m := map[*ir.Block]bool{}
	for i, b := range f.Blocks {
		var next *ir.Block
		if i+1 < len(f.Blocks) {
			next = f.Blocks[i+1]
		}
		t := b.Term()
		for _, s := range b.Succs() {
			if s != next || t.Op == ir.Branch && t.Cond == ir.Set && s == t.Then {
				m[s] = true
			}
		}
	}
	return m
}

// firstLine cuts a text that is a comment of an instruction: the verifier prints it before what it does.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	const most = 80
	return s[:min(len(s), most)]
}

// prototype describes a function to the kernel, which demands it of callbacks (kernel/bpf/verifier.c, check_ld_imm). Others
// may trace it by its name (fentry:bpf:NAME), and stacks show it.
func prototype(f *ir.Func) *btf.Func {
	long := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	p := &btf.FuncProto{Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed}}
	if f.Entry {
		p.Params = []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}}
		_, name, _ := strings.Cut(f.Unit.Name, "_")
		return &btf.Func{Name: fmt.Sprintf("%s_%d", name, f.Unit.Index+1), Type: p, Linkage: btf.GlobalFunc}
	}
	for range f.Params {
		p.Params = append(p.Params, btf.FuncParam{Name: fmt.Sprintf("p%d", len(p.Params)), Type: long})
	}
	linkage := btf.StaticFunc
	if len(f.Params) == 0 { // verified once, not at each call
		linkage = btf.GlobalFunc
	}
	return &btf.Func{Name: f.Name, Type: p, Linkage: linkage}
}

// entryMoves brings parameters from R1 … R5 to where they live.
func (e *emitter) entryMoves() {
	var ms []move
	for i, p := range e.f.Params {
		if r := e.regs[p]; r != none {
			ms = append(ms, move{dst: r, src: asm.R1 + asm.Register(i)})
		}
	}
	e.parallel(ms)
}

// move is one assignment of a parallel move; const sources have imm.
type move struct {
	dst, src asm.Register
	imm      int64
	isImm    bool
}

// parallel carries out moves as if all happened at once. A cycle goes over R0: when only cycles are left, all that is
// wanted of R0 was moved already, as R0 is never a destination.
func (e *emitter) parallel(ms []move) {
	var regs []move
	for _, m := range ms {
		if !m.isImm && m.dst != m.src {
			regs = append(regs, m)
		}
	}
	for len(regs) > 0 {
		k := slices.IndexFunc(regs, func(m move) bool { return !readBy(regs, m.dst) })
		if k < 0 {
			r := regs[0].dst
			e.add(asm.Mov.Reg(asm.R0, r))
			for i := range regs {
				if regs[i].src == r {
					regs[i].src = asm.R0
				}
			}
			continue
		}
		e.add(asm.Mov.Reg(regs[k].dst, regs[k].src))
		regs = append(regs[:k], regs[k+1:]...)
	}
	for _, m := range ms { // constants read no register: last
		if m.isImm {
			e.constant(m.dst, m.imm)
		}
	}
}

func readBy(ms []move, r asm.Register) bool {
	for _, m := range ms {
		if m.src == r {
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

// mem gives base register and offset of an instruction's memory operand.
func (e *emitter) mem(n *ir.Ins) (asm.Register, int16) {
	if n.Slot != nil {
		return asm.RFP, e.slots[n.Slot] + int16(n.Off)
	}
	return e.regs[n.Base], int16(n.Off)
}

// mov brings src to dst if it is not there.
func (e *emitter) mov(dst, src asm.Register) {
	if dst != src {
		e.add(asm.Mov.Reg(dst, src))
	}
}

var sizes = map[uint8]asm.Size{1: asm.Byte, 2: asm.Half, 4: asm.Word, 8: asm.DWord}

// storeImm is asm.StoreImm, which refuses the 64-bit form although BPF has it (BPF_ST | BPF_DW sign-extends).
func storeImm(dst asm.Register, off int16, n int64, size asm.Size) asm.Instruction {
	return asm.Instruction{OpCode: asm.OpCode(asm.StClass).SetMode(asm.MemMode).SetSize(size), Dst: dst, Offset: off, Constant: n}
}

// ins selects instructions for n; next is the block that follows in memory.
func (e *emitter) ins(n *ir.Ins, next *ir.Block) {
	d := none
	if n.Dst != 0 {
		d = e.regs[n.Dst]
	}
	switch n.Op {
	case ir.Const:
		e.constant(d, n.A.Imm)
	case ir.Mov:
		e.mov(d, e.regs[n.A.R])
	case ir.Bin:
		e.bin(n, d)
	case ir.Ext:
		e.ext(n, d)
	case ir.Bswap:
		e.mov(d, e.regs[n.A.R])
		if n.Size > 1 {
			e.add(asm.HostTo(asm.BE, d, sizes[n.Size]))
		}
	case ir.Addr:
		b, off := e.mem(n)
		e.mov(d, b)
		if off != 0 {
			e.add(asm.Add.Imm(d, int32(off)))
		}
	case ir.Load:
		b, off := e.mem(n)
		e.add(asm.LoadMem(d, b, off, sizes[n.Size]))
		if n.Signed {
			e.extend(d, n.Size, true)
		}
	case ir.Store:
		b, off := e.mem(n)
		if n.A.IsImm() {
			ins := storeImm(b, off, n.A.Imm, sizes[n.Size])
			if n.Slot != nil && n.Slot.Element {
				ins = bpf.WithElement(ins)
			}
			e.add(ins)
		} else {
			e.add(asm.StoreMem(b, off, e.regs[n.A.R], sizes[n.Size]))
		}
	case ir.AtomicAdd:
		b, off := e.mem(n)
		e.add(asm.AddAtomic.Mem(b, e.regs[n.A.R], sizes[n.Size], off))
	case ir.MapPtr:
		e.add(asm.LoadMapPtr(d, 0).WithReference(e.maps[n.Map]))
	case ir.MapValue:
		e.add(asm.LoadMapValue(d, 0, uint32(n.Off)).WithReference(e.maps[n.Map]))
	case ir.Given:
		e.add(asm.LoadImm(d, 0, asm.DWord).WithReference(bpf.GivenSymbol(n.Imm)))
	case ir.FuncPtr:
		ins := asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: d, Src: asm.PseudoFunc, Constant: -1}
		e.add(ins.WithReference(n.Callee.Name))
	case ir.Call:
		e.call(n)
	case ir.Jump:
		e.add(asm.Ja.Label(e.blockLabel(n.Then)))
	case ir.Branch:
		e.branch(n, next)
	case ir.Ret:
		if n.A.IsImm() {
			e.constant(asm.R0, n.A.Imm)
		} else {
			e.mov(asm.R0, e.regs[n.A.R])
		}
		e.add(asm.Return())
	default:
		panic(fmt.Sprintf("bpf/gen: op %d reached the emitter", n.Op))
	}
}

var aluOps = map[ir.Alu]asm.ALUOp{
	ir.Add: asm.Add, ir.Sub: asm.Sub, ir.Mul: asm.Mul, ir.Div: asm.Div, ir.Mod: asm.Mod, ir.And: asm.And, ir.Or: asm.Or,
	ir.Xor: asm.Xor, ir.Shl: asm.LSh, ir.Shr: asm.RSh, ir.Sar: asm.ArSh,
}

func (e *emitter) bin(n *ir.Ins, d asm.Register) {
	op := aluOps[n.Alu]
	switch {
	case negation(n):
		e.mov(d, e.regs[n.B.R])
		e.add(asm.Neg.Imm(d, 0))
	case n.B.IsImm():
		e.mov(d, e.regs[n.A.R])
		if !identity(n.Alu, n.B.Imm) {
			e.add(op.Imm(d, int32(n.B.Imm)))
		}
	case n.Alu.Commutes() && e.regs[n.B.R] == d:
		e.add(op.Reg(d, e.regs[n.A.R]))
	default: // the second operand is elsewhere: legalize and the live ranges saw to that
		e.mov(d, e.regs[n.A.R])
		e.add(op.Reg(d, e.regs[n.B.R]))
	}
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

func (e *emitter) ext(n *ir.Ins, d asm.Register) {
	if n.Size == 4 && !n.Signed {
		e.add(asm.Mov.Reg32(d, e.regs[n.A.R]))
		return
	}
	e.mov(d, e.regs[n.A.R])
	e.extend(d, n.Size, n.Signed)
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
	if n.Callee != nil {
		e.add(asm.Call.Label(n.Callee.Name))
		return
	}
	ms := make([]move, 0, 5)
	for i, a := range n.Args {
		m := move{dst: asm.R1 + asm.Register(i)}
		if a.IsImm() {
			m.imm, m.isImm = a.Imm, true
		} else {
			m.src = e.regs[a.R]
		}
		ms = append(ms, m)
	}
	e.parallel(ms)
	if n.Name != "" {
		e.add(asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: -1}.WithReference(n.Name))
	} else {
		e.add(asm.BuiltinFunc(n.Fn).Call())
	}
	if n.Dst != 0 {
		e.mov(e.regs[n.Dst], asm.R0)
	}
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
	a := e.regs[n.A.R]
	if n.B.IsImm() {
		e.add(jumpOps[cond].Imm(a, int32(n.B.Imm), e.blockLabel(then)))
	} else {
		e.add(jumpOps[cond].Reg(a, e.regs[n.B.R], e.blockLabel(then)))
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
