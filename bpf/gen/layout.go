package gen

import "github.com/fathom-trace/fathom/ir"

// layout orders the blocks of f so that the way without failures falls through from one to the next, and what is seldom
// run stands at the end.
func layout(f *ir.Func) {
	placed := make([]bool, len(f.Blocks))
	order := make([]*ir.Block, 0, len(f.Blocks))
	later := []*ir.Block{f.Blocks[0]}
	for len(later) > 0 {
		b := later[len(later)-1]
		later = later[:len(later)-1]
		for b != nil && !placed[b.ID] {
			placed[b.ID] = true
			order = append(order, b)
			t := b.Term()
			switch t.Op {
			case ir.Jump:
				b = t.Then
			case ir.Branch:
				likely, other := t.Then, t.Else
				if unlikely(t) {
					likely, other = other, likely
				}
				later = append(later, other)
				if b = likely; placed[likely.ID] {
					b = other
				}
			default:
				b = nil
			}
		}
	}
	f.Blocks = order
	for i, b := range order {
		b.ID = i
	}
}

// unlikely says if the condition of a branch is one of failure: helpers give negative numbers, lookups NULL.
func unlikely(t *ir.Ins) bool {
	return t.Cond == ir.SLt && t.B == ir.Imm(0) || t.Cond == ir.Eq
}
