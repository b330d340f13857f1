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

// Liveness gives the registers whose values are still wanted at the end of each block. Blocks are numbered by place.
func Liveness(f *Func) (out []RegSet) {
	n := len(f.Blocks)
	in, gen, kill := make([]RegSet, n), make([]RegSet, n), make([]RegSet, n)
	out = make([]RegSet, n)
	words := f.Regs/64 + 1
	pool := make([]uint64, 4*n*words)
	take := func() RegSet { s := pool[:words:words]; pool = pool[words:]; return s }
	for i, b := range f.Blocks {
		in[i], gen[i], kill[i], out[i] = take(), take(), take(), take()
		for j := range b.Ins {
			b.Ins[j].Uses(func(r Reg) {
				if !kill[i].Has(r) {
					gen[i].Add(r)
				}
			})
			if d := b.Ins[j].Dst; d != 0 {
				kill[i].Add(d)
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for i := n - 1; i >= 0; i-- {
			switch t := f.Blocks[i].Term(); t.Op {
			case Jump:
				out[i].Union(in[t.Then.ID])
			case Branch:
				out[i].Union(in[t.Then.ID])
				out[i].Union(in[t.Else.ID])
			}
			for w := range in[i] {
				if v := gen[i][w] | out[i][w]&^kill[i][w]; v != in[i][w] {
					in[i][w], changed = v, true
				}
			}
		}
	}
	return out
}
