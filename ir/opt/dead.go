package opt

import "github.com/fathom-trace/fathom/ir"

// dead drops instructions that only compute what nobody reads.
func dead(f *ir.Func) bool {
	out := ir.Liveness(f)
	live := ir.NewRegSet(f.Regs)
	changed := false
	for _, b := range f.Blocks {
		clear(live)
		out.EachOut(b, live.Add)
		keep := len(b.Ins)
		for i := len(b.Ins) - 1; i >= 0; i-- {
			n := &b.Ins[i]
			if n.Dst != 0 && !live.Has(n.Dst) {
				if n.Removable() {
					changed = true
					continue
				}
				if n.Op == ir.Call {
					n.Dst = 0
				}
			}
			if n.Op == ir.Nop || n.Op == ir.Mov && n.A == ir.R(n.Dst) {
				changed = true
				continue
			}
			if n.Dst != 0 {
				live.Del(n.Dst)
			}
			n.Uses(live.Add)
			keep--
			if keep != i {
				b.Ins[keep] = *n
			}
		}
		b.Ins = b.Ins[keep:]
	}
	return changed
}
