package opt

import (
	"slices"

	"github.com/fathom-trace/fathom/ir"
)

// stores joins stores of constants to adjacent places: two halves become one whole, at the place of the later.
func stores(f *ir.Func) bool {
	changed := false
	for _, b := range f.Blocks {
		var open []int // constant stores since memory was last looked at, all at one base
		for i := range b.Ins {
			n := &b.Ins[i]
			switch {
			case n.Op == ir.Store && n.A.IsImm():
				if len(open) > 0 && !sameBase(&b.Ins[open[0]], n) {
					open = open[:0]
				}
				open = slices.DeleteFunc(open, func(i int) bool { return overlap(&b.Ins[i], n) }) // they may not move behind n
				for k := joinable(b, open, n); k >= 0; k = joinable(b, open, n) {
					changed = true
					b.Ins[open[k]] = ir.Ins{Op: ir.Nop, Span: b.Ins[open[k]].Span}
					open = append(open[:k], open[k+1:]...)
				}
				open = append(open, i)
			case n.Op == ir.Call || n.Op == ir.Stack || n.Op == ir.Output || n.Op == ir.Count || n.Accesses():
				open = open[:0]
			case n.Dst != 0 && len(open) > 0 && b.Ins[open[0]].Base == n.Dst:
				open = open[:0]
			}
		}
	}
	return changed
}

func sameBase(a, b *ir.Ins) bool { return a.Slot == b.Slot && a.Base == b.Base }

func overlap(a, b *ir.Ins) bool {
	return a.Off < b.Off+int32(b.Size) && b.Off < a.Off+int32(a.Size)
}

// joinable finds among the open stores the other half of n, and widens n to both; -1 if there is none.
func joinable(b *ir.Block, open []int, n *ir.Ins) int {
	for k, i := range open {
		m := &b.Ins[i]
		lo, hi := m, n
		if n.Off < m.Off {
			lo, hi = n, m
		}
		size := 2 * n.Size
		if m.Size != n.Size || size > 8 || lo.Off+int32(lo.Size) != hi.Off || lo.Off%int32(size) != 0 {
			continue
		}
		mask := uint64(1)<<(8*n.Size) - 1
		v := int64(uint64(lo.A.Imm)&mask | uint64(hi.A.Imm)&mask<<(8*n.Size))
		if size < 8 {
			v = ir.Extend(v, size, true)
		}
		if !narrow(v) {
			continue
		}
		n.Off, n.Size, n.A = lo.Off, size, ir.Imm(v)
		return k
	}
	return -1
}
