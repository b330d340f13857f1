package gen

import "github.com/fathom-trace/fathom/ir"

// More than loopZero bytes are cleared by a loop, zeroStep bytes in each round.
const (
	loopZero = 256
	zeroStep = 64
)

// expandZeroes makes loops of what clears much. There is no helper for it: what fills a buffer with zeroes does so on the
// way to something else, and not on every kernel.
func expandZeroes(u *ir.Unit) {
	for _, f := range u.Funcs() {
		for k := 0; k < len(f.Blocks); k++ { // grows on the way
			b := f.Blocks[k]
			for i := range b.Ins {
				if n := b.Ins[i]; n.Op == ir.Zero && n.Imm > loopZero {
					zeroLoop(f, b, i)
					break
				}
			}
		}
		for i, b := range f.Blocks {
			b.ID = i
		}
	}
}

// zeroLoop replaces instruction i of b: what follows it moves to a block of its own. So much is never on the stack.
func zeroLoop(f *ir.Func, b *ir.Block, i int) {
	n := b.Ins[i]
	rounds := n.Imm / zeroStep
	p, k := f.NewReg(), f.NewReg()
	loop, rest := f.NewBlock(), f.NewBlock()
	if left := n.Imm % zeroStep; left > 0 {
		z := n
		z.Off, z.Imm = n.Off+int32(rounds*zeroStep), left
		rest.Ins = append(rest.Ins, z)
	}
	rest.Ins = append(rest.Ins, b.Ins[i+1:]...)
	b.Ins = append(b.Ins[:i:i],
		ir.Ins{Op: ir.Addr, Dst: p, Slot: n.Slot, Base: n.Base, Off: n.Off, Span: n.Span},
		ir.Ins{Op: ir.Const, Dst: k, A: ir.Imm(rounds), Span: n.Span},
		ir.Ins{Op: ir.Jump, Then: loop, Span: n.Span})
	loop.Ins = []ir.Ins{
		{Op: ir.Zero, Base: p, Imm: zeroStep, Size: anywhere, Span: n.Span},
		{Op: ir.Bin, Alu: ir.Add, Dst: p, A: ir.R(p), B: ir.Imm(zeroStep), Span: n.Span},
		{Op: ir.Bin, Alu: ir.Sub, Dst: k, A: ir.R(k), B: ir.Imm(1), Span: n.Span},
		{Op: ir.Branch, Cond: ir.Ne, A: ir.R(k), Then: loop, Else: rest, Span: n.Span},
	}
}
