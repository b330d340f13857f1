package ir

import (
	"math/rand/v2"
	"testing"
)

// randomFunc gives a function of up to ten blocks that read and assign five registers, all of which can be reached.
func randomFunc(r *rand.Rand) *Func {
	f := &Func{Regs: 5}
	n := 1 + r.IntN(10)
	for range n {
		f.NewBlock()
	}
	any := func() Reg { return Reg(1 + r.IntN(f.Regs)) }
	for i, b := range f.Blocks {
		for range r.IntN(3) {
			b.Ins = append(b.Ins, Ins{Op: Bin, Dst: any(), A: R(any()), B: Imm(1)})
		}
		to := func() *Block { return f.Blocks[r.IntN(n)] }
		next := f.Blocks[min(i+1, n-1)]
		switch r.IntN(4) {
		case 0:
			b.Ins = append(b.Ins, Ins{Op: Jump, Then: next})
		case 1:
			b.Ins = append(b.Ins, Ins{Op: Branch, A: R(any()), Then: next, Else: next})
		default:
			b.Ins = append(b.Ins, Ins{Op: Branch, A: R(any()), Then: to(), Else: next})
		}
		if i == n-1 {
			b.Ins[len(b.Ins)-1] = Ins{Op: Ret, A: R(any())}
		}
	}
	return f
}

// reaches says if a way leads from block a to block b that does not touch avoid.
func reaches(f *Func, a, b, avoid int) bool {
	if a == avoid {
		return false
	}
	seen := make([]bool, len(f.Blocks))
	for work := []int{a}; len(work) > 0; {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		if at == b {
			return true
		}
		for _, s := range f.Blocks[at].Succs() {
			if s.ID != avoid && !seen[s.ID] {
				seen[s.ID] = true
				work = append(work, s.ID)
			}
		}
	}
	return false
}

// TestDominators holds the tree against its definition: without a block that dominates it, a block cannot be reached.
func TestDominators(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		f := randomFunc(r)
		tree := Dominators(f)
		for a := range f.Blocks {
			for b := range f.Blocks {
				if want := a == b || !reaches(f, 0, b, a); tree.Dominates(a, b) != want {
					t.Fatalf("b%d dominates b%d: %v, want %v\n%v", a, b, !want, want, f)
				}
			}
		}
	}
}

// TestLiveness holds it against a search for a read with no assignment before.
func TestLiveness(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 500 {
		f := randomFunc(r)
		l := Liveness(f)
		for _, b := range f.Blocks {
			each := NewRegSet(f.Regs)
			l.EachOut(b, each.Add)
			for reg := Reg(1); int(reg) <= f.Regs; reg++ {
				want := wanted(f, b, reg)
				if l.LiveOut(b, reg) != want || each.Has(reg) != want {
					t.Fatalf("v%d after b%d: %v, want %v\n%v", reg, b.ID, !want, want, f)
				}
			}
		}
	}
}

func wanted(f *Func, b *Block, reg Reg) bool {
	seen := make([]bool, len(f.Blocks))
	work := b.Succs()
	for len(work) > 0 {
		at := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[at.ID] {
			continue
		}
		seen[at.ID] = true
		killed := false
		for i := range at.Ins {
			read := false
			at.Ins[i].Uses(func(u Reg) { read = read || u == reg })
			if read {
				return true
			}
			if killed = at.Ins[i].Dst == reg; killed {
				break
			}
		}
		if !killed {
			work = append(work, at.Succs()...)
		}
	}
	return false
}
