package opt

import "github.com/fathom-trace/fathom/ir"

// graph is what passes ask about a function's blocks and registers.
type graph struct {
	*ir.Tree
	f     *ir.Func
	defs  []int32 // by register: times it is assigned
	where []site  // by register: where, if once
	plain ir.RegSet
}

// site is a place in a function; parameters are at index -1 of the first block.
type site struct{ block, ins int32 }

func analyse(f *ir.Func) *graph {
	g := &graph{Tree: ir.Dominators(f), f: f}
	g.registers()
	return g
}

// registers counts assignments and finds the plain registers.
func (g *graph) registers() {
	f := g.f
	g.defs, g.where = make([]int32, f.Regs+1), make([]site, f.Regs+1)
	g.plain = ir.NewRegSet(f.Regs)
	for _, p := range f.Params {
		g.defs[p]++
		g.where[p] = site{0, -1}
	}
	for _, b := range f.Blocks {
		for i := range b.Ins {
			if d := b.Ins[i].Dst; d != 0 {
				g.defs[d]++
				g.where[d] = site{int32(b.ID), int32(i)}
			}
		}
	}
	for r := 1; r <= f.Regs; r++ {
		if g.defs[r] == 1 {
			g.plain.Add(ir.Reg(r))
		}
	}
	for _, b := range f.Blocks {
		for i := range b.Ins {
			b.Ins[i].Uses(func(r ir.Reg) {
				d := g.where[r]
				if g.plain.Has(r) && (int(d.block) == b.ID && d.ins >= int32(i) || !g.Dominates(int(d.block), b.ID)) {
					g.plain.Del(r)
				}
			})
		}
	}
}

// def gives the instruction that assigns a plain register, nil for parameters and for registers that are not plain.
func (g *graph) def(r ir.Reg) *ir.Ins {
	if r == 0 || !g.plain.Has(r) || g.where[r].ins < 0 {
		return nil
	}
	return &g.f.Blocks[g.where[r].block].Ins[g.where[r].ins]
}
