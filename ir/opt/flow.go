package opt

import "github.com/fathom-trace/fathom/ir"

// flow straightens the control-flow graph: branches whose outcome is known become jumps, jumps to jumps go to the end,
// a block with one way in that is only jumped to joins the one before, what cannot be reached goes.
func flow(f *ir.Func) bool {
	changed := false
	for range len(f.Blocks) + 8 { // jumps that chase each other in a circle never rest
		again := decide(f)
		again = thread(f) || again
		again = f.Prune() || again
		again = join(f) || again
		if !again {
			return changed
		}
		changed = true
	}
	return changed
}

// decide turns branches that always go one way into jumps.
func decide(f *ir.Func) bool {
	changed := false
	for _, b := range f.Blocks {
		t := b.Term()
		if t.Op == ir.Branch && t.Then == t.Else {
			jump(t, t.Then)
			changed = true
		}
	}
	return changed
}

func jump(t *ir.Ins, to *ir.Block) { *t = ir.Ins{Op: ir.Jump, Then: to, Span: t.Span} }

// thread leads jumps past blocks that only jump on, and past branches whose outcome is known on this way.
func thread(f *ir.Func) bool {
	changed := false
	for _, b := range f.Blocks {
		t := b.Term()
		for _, to := range []**ir.Block{&t.Then, &t.Else} {
			if *to == nil {
				continue
			}
			if next := pastJumps(*to); next != *to {
				*to, changed = next, true
			}
		}
		if t.Op == ir.Branch {
			changed = skip(t) || changed
			continue
		}
		if t.Op != ir.Jump {
			continue
		}
		if to := known(b, t.Then); to != nil && to != t.Then {
			t.Then, changed = to, true
		}
	}
	return changed
}

// skip leads both ways of a branch past blocks that only ask about the same register what the branch tells already.
func skip(t *ir.Ins) bool {
	if !t.B.IsImm() {
		return false
	}
	changed := false
	for _, way := range []struct {
		to **ir.Block
		c  ir.Cond
	}{{&t.Then, t.Cond}, {&t.Else, t.Cond.Not()}} {
		if t.Cond == ir.Set {
			break
		}
		n := (*way.to).Ins
		if len(n) != 1 || n[0].Op != ir.Branch || n[0].A != t.A || !n[0].B.IsImm() || &n[0] == t {
			continue
		}
		if holds, known := anything.given(way.c, t.B.Imm).decides(n[0].Cond, n[0].B.Imm); known {
			next := n[0].Else
			if holds {
				next = n[0].Then
			}
			if next != *way.to {
				*way.to, changed = next, true
			}
		}
	}
	return changed
}

// pastJumps follows empty blocks, as long as they do not lead in a circle.
func pastJumps(b *ir.Block) *ir.Block {
	for range 16 {
		if len(b.Ins) != 1 || b.Ins[0].Op != ir.Jump || b.Ins[0].Then == b {
			return b
		}
		b = b.Ins[0].Then
	}
	return b
}

// known gives where a block that is only a branch leads when it is entered from b, if the end of b tells.
func known(b, to *ir.Block) *ir.Block {
	if len(to.Ins) != 1 || to.Ins[0].Op != ir.Branch || !to.Ins[0].B.IsImm() {
		return nil
	}
	t := &to.Ins[0]
	for i := len(b.Ins) - 2; i >= 0; i-- {
		n := &b.Ins[i]
		if n.Dst != t.A.R {
			continue
		}
		if (n.Op == ir.Const || n.Op == ir.Mov) && n.A.IsImm() {
			if t.Cond.Eval(n.A.Imm, t.B.Imm) {
				return t.Then
			}
			return t.Else
		}
		return nil
	}
	return nil
}

func number(f *ir.Func) {
	for i, b := range f.Blocks {
		b.ID = i
	}
}

// join appends blocks to the only block that leads to them.
func join(f *ir.Func) bool {
	ways := make([]int, len(f.Blocks))
	ways[0]++ // from outside
	for _, b := range f.Blocks {
		t := b.Term()
		if t.Then != nil {
			ways[t.Then.ID]++
		}
		if t.Else != nil {
			ways[t.Else.ID]++
		}
	}
	changed := false
	gone := make([]bool, len(f.Blocks))
	for _, b := range f.Blocks {
		if gone[b.ID] {
			continue
		}
		for t := b.Term(); t.Op == ir.Jump && ways[t.Then.ID] == 1 && t.Then != b; t = b.Term() {
			next := t.Then
			b.Ins = append(b.Ins[:len(b.Ins)-1], next.Ins...)
			gone[next.ID] = true
			next.Ins = nil
			changed = true
		}
	}
	if !changed {
		return false
	}
	keep := f.Blocks[:0]
	for _, b := range f.Blocks {
		if !gone[b.ID] {
			keep = append(keep, b)
		}
	}
	f.Blocks = keep
	number(f)
	return true
}
