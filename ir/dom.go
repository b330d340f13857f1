package ir

// Tree is the tree of a function's dominators: a block dominates those that are only reached through it.
type Tree struct {
	Preds     [][]*Block // by block: those that lead to it
	Idom      []int      // by block: the nearest that dominates it; -1 for the first
	Kids      [][]int    // Idom, downward
	at        []int      // by block: its number in postorder
	pre, last []int      // by block: its number in a walk down the tree, and that of the last below it
}

// Dominators gives the tree of f, whose blocks are numbered by place and can all be reached.
func Dominators(f *Func) *Tree {
	g := &Tree{Preds: make([][]*Block, len(f.Blocks))}
	for _, b := range f.Blocks {
		for _, s := range b.Succs() {
			g.Preds[s.ID] = append(g.Preds[s.ID], b)
		}
	}
	g.grow(f)
	return g
}

// grow computes the tree by the iteration of Cooper, Harvey and Kennedy (2001).
func (g *Tree) grow(f *Func) {
	n := len(f.Blocks)
	order, at := postorder(f)
	g.at = at
	g.Idom = make([]int, n)
	for i := range g.Idom {
		g.Idom[i] = -1
	}
	g.Idom[0] = 0
	for changed := true; changed; {
		changed = false
		for i := len(order) - 2; i >= 0; i-- { // the first block is the last in order
			b, d := order[i], -1
			for _, p := range g.Preds[b] {
				switch {
				case g.Idom[p.ID] < 0:
				case d < 0:
					d = p.ID
				default:
					d = g.meet(d, p.ID)
				}
			}
			if g.Idom[b] != d {
				g.Idom[b], changed = d, true
			}
		}
	}
	g.Idom[0] = -1
	g.Kids, g.pre, g.last = make([][]int, n), make([]int, n), make([]int, n)
	for i := len(order) - 2; i >= 0; i-- {
		b := order[i]
		g.Kids[g.Idom[b]] = append(g.Kids[g.Idom[b]], b)
	}
	count := 0
	var walk func(int)
	walk = func(b int) {
		g.pre[b] = count
		count++
		for _, k := range g.Kids[b] {
			walk(k)
		}
		g.last[b] = count - 1
	}
	walk(0)
}

func postorder(f *Func) (order, at []int) {
	at = make([]int, len(f.Blocks))
	seen := make([]bool, len(f.Blocks))
	type frame struct{ b, next int }
	stack := []frame{{0, 0}}
	seen[0] = true
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		succs := f.Blocks[top.b].Succs()
		if top.next == len(succs) {
			at[top.b] = len(order)
			order = append(order, top.b)
			stack = stack[:len(stack)-1]
			continue
		}
		s := succs[top.next]
		top.next++
		if !seen[s.ID] {
			seen[s.ID] = true
			stack = append(stack, frame{s.ID, 0})
		}
	}
	return order, at
}

// Dominates says if every way to b leads through a.
func (g *Tree) Dominates(a, b int) bool { return g.pre[a] <= g.pre[b] && g.pre[b] <= g.last[a] }

// Meet gives the nearest block that dominates both a and b; -1 stands for none.
func (g *Tree) Meet(a, b int) int {
	if a < 0 || b < 0 {
		return max(a, b)
	}
	return g.meet(a, b)
}

func (g *Tree) meet(a, b int) int {
	for a != b {
		for g.at[a] < g.at[b] {
			a = g.Idom[a]
		}
		for g.at[b] < g.at[a] {
			b = g.Idom[b]
		}
	}
	return a
}
