package ir

import "math/bits"

// Set is a set of registers.
type RegSet []uint64

// NewRegSet gives an empty set for registers up to n.
func NewRegSet(n int) RegSet { return make(RegSet, n/64+1) }

// Add puts r into s.
func (s RegSet) Add(r Reg) { s[r/64] |= 1 << (r % 64) }

// Del takes r out of s.
func (s RegSet) Del(r Reg) { s[r/64] &^= 1 << (r % 64) }

// Has says if r is in s.
func (s RegSet) Has(r Reg) bool { return s[r/64]&(1<<(r%64)) != 0 }

// Each calls fn for the members in order.
func (s RegSet) Each(fn func(Reg)) {
	for w, v := range s {
		for ; v != 0; v &= v - 1 {
			fn(Reg(w*64 + bits.TrailingZeros64(v)))
		}
	}
}

// Union adds the members of t and says if there were new ones.
func (s RegSet) Union(t RegSet) bool {
	grown := false
	for w, v := range t {
		if v&^s[w] != 0 {
			s[w] |= v
			grown = true
		}
	}
	return grown
}

// Live says which registers' values are still wanted at the end of each block.
type Live struct {
	index []int32 // by register: its place in regs plus 1; 0 for those that live in one block only
	regs  []Reg
	out   []RegSet // by block, of places in regs
}

// LiveOut says if the value of r is wanted after block b.
func (l *Live) LiveOut(b *Block, r Reg) bool {
	i := l.index[r]
	return i != 0 && l.out[b.ID].Has(Reg(i-1))
}

// EachOut calls fn for the registers wanted after block b.
func (l *Live) EachOut(b *Block, fn func(Reg)) {
	l.out[b.ID].Each(func(i Reg) { fn(l.regs[i]) })
}

// Liveness computes Live by backward data flow. Most registers are read in the block that assigns them only: the sets are
// of the others. Blocks are numbered by place.
func Liveness(f *Func) *Live {
	l := &Live{index: make([]int32, f.Regs+1)}
	l.crossing(f)
	n, words := len(f.Blocks), len(l.regs)/64+1
	pool := make([]uint64, 4*n*words)
	take := func() []RegSet {
		s := make([]RegSet, n)
		for i := range s {
			s[i], pool = pool[:words:words], pool[words:]
		}
		return s
	}
	in, gen, kill := take(), take(), take()
	l.out = take()
	for i, b := range f.Blocks {
		for j := range b.Ins {
			b.Ins[j].Uses(func(r Reg) {
				if at := l.index[r]; at != 0 && !kill[i].Has(Reg(at-1)) {
					gen[i].Add(Reg(at - 1))
				}
			})
			if at := l.index[b.Ins[j].Dst]; at != 0 {
				kill[i].Add(Reg(at - 1))
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for i := n - 1; i >= 0; i-- {
			if t := f.Blocks[i].Term(); t.Then != nil {
				l.out[i].Union(in[t.Then.ID])
				if t.Else != nil {
					l.out[i].Union(in[t.Else.ID])
				}
			}
			for w := range in[i] {
				if v := gen[i][w] | l.out[i][w]&^kill[i][w]; v != in[i][w] {
					in[i][w], changed = v, true
				}
			}
		}
	}
	return l
}

// crossing numbers the registers that some block reads before it assigns them.
func (l *Live) crossing(f *Func) {
	assigned := make([]int, f.Regs+1) // by register: the last block that did, plus 1
	for i, b := range f.Blocks {
		for j := range b.Ins {
			b.Ins[j].Uses(func(r Reg) {
				if assigned[r] != i+1 && l.index[r] == 0 {
					l.regs = append(l.regs, r)
					l.index[r] = int32(len(l.regs))
				}
			})
			assigned[b.Ins[j].Dst] = i + 1
		}
	}
}
