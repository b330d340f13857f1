package filter

import (
	"slices"

	"github.com/fathom-trace/fathom/ir"
)

// Source tells an emitted filter where the packet is. Exactly one of End and Len is set.
type Source struct {
	// Base is the address of the packet's first byte: of the header that Options.Link names.
	Base ir.Reg
	// End is the address behind the last byte. The program reads the packet directly, with a comparison before every read
	// that goes further than those before it: what the verifier wants of XDP and tc programs. Bytes beyond the first 64 KiB
	// are not there.
	End ir.Reg
	// Len is the number of bytes, at most 32 bits of them. The packet is read through bpf_probe_read_kernel: its start at
	// once, at most 64 bytes onto the stack, the rest piece by piece.
	Len ir.Reg
	// View, if it has bytes, lets the packet be read by instructions instead, within Len.
	View View
	// Wire is what "len", "less" and "greater" are about; 0 stands for the number of bytes.
	Wire ir.Reg
	// What filters compiled with Options.Metadata ask for, 0 where it is not known: 1 if the device took the VLAN tag out of the
	// packet, and the tag; the packet's type; the index of its interface. Values as in Meta, zero-extended.
	Tagged, TCI, Type, Ifindex ir.Reg
}

// View is a struct of the kernel whose Size bytes from At on are an array of bytes, and its number in the kernel's BTF. A program
// that says that there is one at an address may read it there (bpf_rdonly_cast, Linux 6.2); what is unreadable is 0.
type View struct {
	Type     uint32
	At, Size uint32
}

// meta gives the register of a place of Meta.
func (s *Source) meta(at uint32) ir.Reg {
	switch at {
	case metaTagged:
		return s.Tagged
	case metaTag:
		return s.TCI
	case metaType:
		return s.Type
	case metaIfindex:
		return s.Ifindex
	}
	return 0
}

// AsksIfindex says if the filter reads Source.Ifindex, which its caller may have to fetch.
func (f *Filter) AsksIfindex() bool {
	return slices.ContainsFunc(f.order, func(b *block) bool {
		return slices.ContainsFunc(b.code, func(c ins) bool { return loadSize(c.op) != 0 && c.k == metaIfindex })
	})
}

// Emit appends the filter to fn, which belongs to u, and makes at, a block without terminator, jump to it. It gives the
// blocks, empty, where a packet that matches and one that does not go on. The same filter may be emitted any number of times.
func (f *Filter) Emit(u *ir.Unit, fn *ir.Func, at *ir.Block, src Source) (match, drop *ir.Block) {
	e := &emitter{u: u, fn: fn, at: at, src: src, drop: &ir.Block{}, starts: map[*block]*ir.Block{}, seen: map[*block]uint32{}}
	e.a, e.x = fn.NewReg(), fn.NewReg()
	for i := range e.mem {
		e.mem[i] = fn.NewReg()
	}
	e.prepare(f)
	for _, b := range f.order {
		if !b.end() {
			e.starts[b] = &ir.Block{}
		}
	}
	match = &ir.Block{}
	for _, b := range f.order {
		if b.end() && b.verdict {
			e.starts[b] = match
		} else if b.end() {
			e.starts[b] = e.drop
		}
	}
	if e.starts[f.order[len(f.order)-1]] != e.drop {
		// Everything matches. The verifier wants every instruction reachable, so drop is, by a comparison that is never true.
		e.unless(ir.Lt, ir.R(e.wire()), ir.Imm(0), e.drop)
	}
	e.put(ir.Ins{Op: ir.Jump, Then: e.starts[f.root]})
	for _, b := range f.order {
		if !b.end() {
			e.block(b)
		}
	}
	e.place(match)
	e.place(e.drop)
	return match, e.drop
}

// emitter writes the blocks of one filter.
type emitter struct {
	u      *ir.Unit
	fn     *ir.Func
	at     *ir.Block // being written
	src    Source
	drop   *ir.Block
	starts map[*block]*ir.Block

	a, x ir.Reg
	mem  [memWords]ir.Reg

	known uint32            // bytes that are there for certain, at this place
	seen  map[*block]uint32 // the same, +1, on entry to a block

	view   ir.Reg   // of Base, if the source has one
	window *ir.Slot // the packet's first bytes, from bias on
	size   uint32   // of them
	bias   int32
	piece  *ir.Slot
}

func (e *emitter) put(n ir.Ins) { e.at.Ins = append(e.at.Ins, n) }

// place appends a block to the function and goes on there.
func (e *emitter) place(b *ir.Block) {
	b.ID = len(e.fn.Blocks)
	e.fn.Blocks = append(e.fn.Blocks, b)
	e.at = b
}

// unless goes to the block if the condition holds, and on here if not.
func (e *emitter) unless(cond ir.Cond, a, b ir.Val, to *ir.Block) {
	next := &ir.Block{}
	e.put(ir.Ins{Op: ir.Branch, Cond: cond, A: a, B: b, Then: to, Else: next})
	e.place(next)
}

func (e *emitter) bin(op ir.Alu, a, b ir.Val) ir.Reg {
	r := e.fn.NewReg()
	e.put(ir.Ins{Op: ir.Bin, Alu: op, Dst: r, A: a, B: b})
	return r
}

// wire gives a register with the packet's length.
func (e *emitter) wire() ir.Reg {
	switch {
	case e.src.Wire != 0:
		return e.src.Wire
	case e.src.Len != 0:
		return e.src.Len
	}
	return e.bin(ir.Sub, ir.R(e.src.End), ir.R(e.src.Base))
}

// windowSlot is the most that lies on the BPF stack without asking for more (gen.Options.OnStack).
const windowSlot = 64

// prepare sets registers that are read before they are written, and reads the start of the packet.
func (e *emitter) prepare(f *Filter) {
	live := liveness(f.order)[f.root]
	for i, r := range e.mem {
		if live>>i&1 != 0 {
			e.put(ir.Ins{Op: ir.Const, Dst: r})
		}
	}
	if live&bitA != 0 {
		e.put(ir.Ins{Op: ir.Const, Dst: e.a})
	}
	if live&bitX != 0 {
		e.put(ir.Ins{Op: ir.Const, Dst: e.x})
	}
	if e.src.Len == 0 {
		return
	}
	if e.src.View.Size > 0 {
		e.view = e.look(e.src.Base)
		return
	}
	e.piece = e.u.NewSlot("packet bytes", 8)
	network := uint32(0)
	for _, b := range f.order {
		for _, c := range b.code {
			if n := uint32(loadSize(c.op)); n != 0 && c.k < windowSlot && !indexed(c.op) {
				e.size = max(e.size, c.k+n)
			}
			if c.op == opXHeader && c.k < windowSlot {
				network = c.k
			}
		}
	}
	if e.size == 0 {
		return
	}
	e.bias = int32(-network & 3) // aligns the IP header: the stack is read at aligned addresses only
	e.size = min(e.size, windowSlot-uint32(e.bias))
	e.readWindow()
}

// readWindow copies the first bytes, as many as there are.
func (e *emitter) readWindow() {
	bytes := (int(e.size) + int(e.bias) + 7) &^ 7
	e.window = e.u.NewSlot("packet start", bytes)
	n, buf, ret := e.fn.NewReg(), e.fn.NewReg(), e.fn.NewReg()
	short, join := &ir.Block{}, &ir.Block{}
	e.put(ir.Ins{Op: ir.Zero, Slot: e.window, Imm: int64(bytes)})
	e.put(ir.Ins{Op: ir.Mov, Dst: n, A: ir.R(e.src.Len)})
	e.put(ir.Ins{Op: ir.Branch, Cond: ir.Gt, A: ir.R(n), B: ir.Imm(int64(e.size)), Then: short, Else: join})
	e.place(short)
	e.put(ir.Ins{Op: ir.Const, Dst: n, A: ir.Imm(int64(e.size))})
	e.put(ir.Ins{Op: ir.Jump, Then: join})
	e.place(join)
	e.put(ir.Ins{Op: ir.Addr, Dst: buf, Slot: e.window, Off: e.bias})
	e.put(ir.Ins{Op: ir.Call, Dst: ret, Fn: ir.FnProbeReadKernel, Args: []ir.Val{ir.R(buf), ir.R(n), ir.R(e.src.Base)}})
	e.unless(ir.Ne, ir.R(ret), ir.Imm(0), e.drop)
}

// loadSize gives how many bytes of the packet an instruction reads.
func loadSize(op uint16) int {
	switch op {
	case opLoadW, opLoadIW:
		return 4
	case opLoadH, opLoadIH:
		return 2
	case opLoadB, opLoadIB, opXHeader:
		return 1
	}
	return 0
}

func indexed(op uint16) bool { return op == opLoadIW || op == opLoadIH || op == opLoadIB }

// block writes a block of the graph.
func (e *emitter) block(b *block) {
	e.place(e.starts[b])
	e.known = max(e.seen[b], 1) - 1
	for _, c := range b.code {
		e.ins(c)
	}
	e.leave(b.yes)
	e.leave(b.no)
	if b.jump == jAlways {
		e.put(ir.Ins{Op: ir.Jump, Then: e.starts[b.yes]})
		return
	}
	conds := map[uint16]ir.Cond{jEq: ir.Eq, jGt: ir.Gt, jGe: ir.Ge, jSet: ir.Set}
	k := ir.Imm(int64(b.k))
	if b.useX {
		k = ir.R(e.x)
	}
	e.put(ir.Ins{Op: ir.Branch, Cond: conds[b.jump], A: ir.R(e.a), B: k, Then: e.starts[b.yes], Else: e.starts[b.no]})
}

// leave notes how many bytes are known on an edge.
func (e *emitter) leave(to *block) {
	if old := e.seen[to]; old == 0 || old > e.known+1 {
		e.seen[to] = e.known + 1
	}
}

// ins writes one instruction.
func (e *emitter) ins(c ins) {
	k := ir.Imm(int64(c.k))
	switch c.op {
	case opLoadW, opLoadH, opLoadB:
		e.load(e.a, c.k, uint8(loadSize(c.op)))
	case opXHeader:
		e.load(e.x, c.k, 1)
		e.put(ir.Ins{Op: ir.Bin, Alu: ir.And, Dst: e.x, A: ir.R(e.x), B: ir.Imm(0xf)})
		e.put(ir.Ins{Op: ir.Bin, Alu: ir.Shl, Dst: e.x, A: ir.R(e.x), B: ir.Imm(2)})
	case opLoadIW, opLoadIH, opLoadIB:
		e.loadIndexed(e.bin(ir.Add, ir.R(e.x), k), uint8(loadSize(c.op)))
	case opImm:
		e.put(ir.Ins{Op: ir.Const, Dst: e.a, A: k})
	case opXImm:
		e.put(ir.Ins{Op: ir.Const, Dst: e.x, A: k})
	case opLen:
		e.put(ir.Ins{Op: ir.Ext, Size: 4, Dst: e.a, A: ir.R(e.wire())})
	case opMem:
		e.put(ir.Ins{Op: ir.Mov, Dst: e.a, A: ir.R(e.mem[c.k])})
	case opXMem:
		e.put(ir.Ins{Op: ir.Mov, Dst: e.x, A: ir.R(e.mem[c.k])})
	case opStore:
		e.put(ir.Ins{Op: ir.Mov, Dst: e.mem[c.k], A: ir.R(e.a)})
	case opStoreX:
		e.put(ir.Ins{Op: ir.Mov, Dst: e.mem[c.k], A: ir.R(e.x)})
	case opTAX:
		e.put(ir.Ins{Op: ir.Mov, Dst: e.x, A: ir.R(e.a)})
	case opTXA:
		e.put(ir.Ins{Op: ir.Mov, Dst: e.a, A: ir.R(e.x)})
	default:
		if c.op&8 != 0 {
			k = ir.R(e.x)
		}
		e.alu(c.op&0xf0, k)
	}
}

// alus are the operations by the bits of classic BPF.
var alus = map[uint16]ir.Alu{
	opAdd: ir.Add, opSub: ir.Sub, opMul: ir.Mul, opDiv: ir.Div, opMod: ir.Mod, opAnd: ir.And, opOr: ir.Or, opXor: ir.Xor,
	opLsh: ir.Shl, opRsh: ir.Shr,
}

// alu computes A = A op b in 32 bits: registers hold 64, with the upper half 0.
func (e *emitter) alu(op uint16, b ir.Val) {
	dst := ir.Ins{Op: ir.Bin, Alu: alus[op], Dst: e.a, A: ir.R(e.a), B: b}
	switch {
	case op == opDiv || op == opMod:
		if !b.IsImm() {
			e.unless(ir.Eq, b, ir.Imm(0), e.drop)
		}
		e.put(dst)
		return
	case (op == opLsh || op == opRsh) && !b.IsImm(): // 32 and more shift everything out
		shift, zero, next := &ir.Block{}, &ir.Block{}, &ir.Block{}
		e.put(ir.Ins{Op: ir.Branch, Cond: ir.Gt, A: b, B: ir.Imm(31), Then: zero, Else: shift})
		e.place(zero)
		e.put(ir.Ins{Op: ir.Const, Dst: e.a})
		e.put(ir.Ins{Op: ir.Jump, Then: next})
		e.place(shift)
		e.put(dst)
		e.put(ir.Ins{Op: ir.Jump, Then: next})
		e.place(next)
	default:
		e.put(dst)
	}
	switch op {
	case opAdd, opSub, opMul, opLsh:
		e.put(ir.Ins{Op: ir.Ext, Size: 4, Dst: e.a, A: ir.R(e.a)})
	}
}
