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
			t.Then, t.Else = pastEmpty(t.Then), pastEmpty(t.Else)
			if t.Op == ir.Branch && t.Then == t.Else {
				*t = ir.Ins{Op: ir.Jump, Then: t.Then, Span: t.Span}
			}
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

// pastEmpty follows blocks that only jump on: they are not given a place.
func pastEmpty(b *ir.Block) *ir.Block {
	for range 1000 { // a circle of them has no end
		if b == nil || len(b.Ins) != 1 || b.Ins[0].Op != ir.Jump {
			break
		}
		b = b.Ins[0].Then
	}
	return b
}

// unlikely says if the condition of a branch is one of failure: helpers give negative numbers, lookups NULL.
func unlikely(t *ir.Ins) bool {
	return t.Cond == ir.SLt && t.B == ir.Imm(0) || t.Cond == ir.Eq
}
