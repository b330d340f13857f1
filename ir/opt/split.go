package opt

import (
	"math/bits"

	"github.com/fathom-trace/fathom/ir"
)

// splitLimit bounds blocks times assignments, the bits that split works on.
const splitLimit = 1 << 25

// split gives registers that hold several unrelated values one after the other, as variables do, a register for each:
// assignments belong together if one read may see either.
func split(f *ir.Func) bool {
	s := &splitter{f: f, first: make([]int32, f.Regs+1)}
	if !s.number() {
		return false
	}
	s.flow()
	s.unite()
	return s.rename()
}

type splitter struct {
	f     *ir.Func
	first []int32     // by register: index of its first assignment plus 1, 0 for those that have one only
	regs  []ir.Reg    // by assignment: what it assigns
	base  []int       // by block: index of its first assignment
	in    []ir.RegSet // by block: assignments that reach it
	root  []int32     // union-find over assignments
	of    map[ir.Reg][]int32
}

// number gives the assignments of registers that have several an index.
func (s *splitter) number() bool {
	f := s.f
	count := make([]int32, f.Regs+1)
	for _, p := range f.Params {
		count[p]++
	}
	s.each(func(_ int, n *ir.Ins) { count[n.Dst]++ })
	s.of = map[ir.Reg][]int32{}
	add := func(r ir.Reg) {
		if count[r] < 2 {
			return
		}
		s.of[r] = append(s.of[r], int32(len(s.regs)))
		s.regs = append(s.regs, r)
		s.root = append(s.root, int32(len(s.root)))
	}
	for _, p := range f.Params {
		add(p)
	}
	s.base = make([]int, len(f.Blocks))
	for i, b := range f.Blocks {
		s.base[i] = len(s.regs)
		for j := range b.Ins {
			if d := b.Ins[j].Dst; d != 0 {
				add(d)
			}
		}
	}
	return len(s.of) > 0 && len(s.regs)*len(f.Blocks) < splitLimit
}

func (s *splitter) each(fn func(block int, n *ir.Ins)) {
	for i, b := range s.f.Blocks {
		for j := range b.Ins {
			if b.Ins[j].Dst != 0 {
				fn(i, &b.Ins[j])
			}
		}
	}
}

// flow computes which assignments reach the start of each block.
func (s *splitter) flow() {
	f := s.f
	n := len(f.Blocks)
	gen, kill := make([]ir.RegSet, n), make([]ir.RegSet, n)
	s.in = make([]ir.RegSet, n)
	for i := range f.Blocks {
		s.in[i], gen[i], kill[i] = ir.NewRegSet(len(s.regs)), ir.NewRegSet(len(s.regs)), ir.NewRegSet(len(s.regs))
	}
	at := append([]int(nil), s.base...)
	s.each(func(b int, n *ir.Ins) {
		all := s.of[n.Dst]
		if all == nil {
			return
		}
		for _, a := range all {
			kill[b].Add(ir.Reg(a))
			gen[b].Del(ir.Reg(a))
		}
		gen[b].Add(ir.Reg(at[b]))
		at[b]++
	})
	for i := range s.base[0] { // parameters
		s.in[0].Add(ir.Reg(i))
	}
	for changed := true; changed; {
		changed = false
		for i, b := range f.Blocks {
			out := append(ir.RegSet(nil), gen[i]...)
			for w := range out {
				out[w] |= s.in[i][w] &^ kill[i][w]
			}
			for _, t := range b.Succs() {
				changed = s.in[t.ID].Union(out) || changed
			}
		}
	}
}

func (s *splitter) find(a int32) int32 {
	for s.root[a] != a {
		s.root[a] = s.root[s.root[a]]
		a = s.root[a]
	}
	return a
}

// unite joins the assignments that reach the same read.
func (s *splitter) unite() {
	for i, b := range s.f.Blocks {
		now := map[ir.Reg]int32{} // assigned in this block already
		at := s.base[i]
		for j := range b.Ins {
			b.Ins[j].Uses(func(r ir.Reg) {
				if s.of[r] == nil {
					return
				}
				if _, ok := now[r]; ok {
					return
				}
				s.join(r, i)
			})
			if d := b.Ins[j].Dst; d != 0 && s.of[d] != nil {
				now[d] = int32(at)
				at++
			}
		}
	}
}

// join unites the assignments of r that reach block i.
func (s *splitter) join(r ir.Reg, i int) {
	first := int32(-1)
	for _, a := range s.of[r] {
		if !s.in[i].Has(ir.Reg(a)) {
			continue
		}
		if first < 0 {
			first = s.find(a)
			continue
		}
		s.root[s.find(a)] = first
	}
}

// rename gives all groups of a register but its first a new one.
func (s *splitter) rename() bool {
	name := map[int32]ir.Reg{}
	changed := false
	for r := ir.Reg(1); int(r) < len(s.first); r++ {
		for k, a := range s.of[r] {
			root := s.find(a)
			if _, ok := name[root]; ok {
				continue
			}
			if k == 0 {
				name[root] = r
				continue
			}
			name[root] = s.f.NewReg()
			changed = true
		}
	}
	if !changed {
		return false
	}
	for i, b := range s.f.Blocks {
		now := map[ir.Reg]ir.Reg{}
		at := s.base[i]
		read := func(r ir.Reg) ir.Reg {
			if s.of[r] == nil {
				return r
			}
			if n, ok := now[r]; ok {
				return n
			}
			for _, a := range s.of[r] {
				if s.in[i].Has(ir.Reg(a)) {
					return name[s.find(a)]
				}
			}
			return r
		}
		for j := range b.Ins {
			n := &b.Ins[j]
			n.Replace(func(r ir.Reg) ir.Val { return ir.R(read(r)) })
			if n.Base != 0 {
				n.Base = read(n.Base)
			}
			if d := n.Dst; d != 0 && s.of[d] != nil {
				now[d] = name[s.find(int32(at))]
				n.Dst = now[d]
				at++
			}
		}
	}
	return true
}

// log2 gives n where v is 2 to the n.
func log2(v int64) (int64, bool) {
	if v <= 0 || v&(v-1) != 0 {
		return 0, false
	}
	return int64(bits.TrailingZeros64(uint64(v))), true
}
