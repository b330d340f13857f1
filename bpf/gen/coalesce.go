package gen

import (
	"cmp"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir"
)

// most stretches a joined range may have: joining looks at all of them.
const mostSegments = 64

// coalesce joins live ranges that a move connects and that do not meet, so that they share a register and the move goes.
// It gives the joined ranges; root leads from a register to the one whose range it is part of.
func coalesce(f *ir.Func, rs []*liveRange) (joined []*liveRange, root []ir.Reg) {
	root = make([]ir.Reg, f.Regs+1)
	of := make([]*liveRange, f.Regs+1)
	for _, r := range rs {
		root[r.reg] = r.reg
		of[r.reg] = r
	}
	find := func(r ir.Reg) ir.Reg {
		for root[r] != r {
			root[r] = root[root[r]]
			r = root[r]
		}
		return r
	}
	join := func(a, b ir.Reg) {
		if a == 0 || b == 0 || of[a] == nil || of[b] == nil {
			return
		}
		ra, rb := of[find(a)], of[find(b)]
		if ra == rb || ra.keep != rb.keep || len(ra.segs)+len(rb.segs) > mostSegments || meet(ra.segs, rb.segs) {
			return
		}
		root[rb.reg] = ra.reg
		ra.absorb(rb)
	}
	for _, moves := range []bool{true, false} { // moves first: the others may be done in place or not
		for _, b := range f.Blocks {
			for i := range b.Ins {
				n := &b.Ins[i]
				switch n.Op {
				case ir.Mov:
					if moves {
						join(n.Dst, n.A.R)
					}
				case ir.Bin, ir.Ext, ir.Bswap:
					switch {
					case moves:
					case n.A.R == 0: // a negation
						join(n.Dst, n.B.R)
					default:
						join(n.Dst, n.A.R)
					}
				}
			}
		}
	}
	for _, r := range rs {
		if root[r.reg] == r.reg {
			joined = append(joined, r)
		}
	}
	for r := range root {
		if root[r] != 0 {
			root[r] = find(ir.Reg(r))
		}
	}
	return joined, root
}

// absorb adds what is known of s to r.
func (r *liveRange) absorb(s *liveRange) {
	if r.members == nil {
		r.members = []*liveRange{r.alone()}
	}
	if s.members == nil {
		s.members = []*liveRange{s.alone()}
	}
	r.members = append(r.members, s.members...)
	r.segs = append(slices.Clip(r.segs), s.segs...)
	sorting.By(r.segs, func(a, b segment) int { return cmp.Compare(a.start, b.start) })
	r.cost += s.cost
	r.length += s.length
	r.wants = append(r.wants, s.wants...)
	r.partners = append(r.partners, s.partners...)
}

// alone is r before others joined it.
func (r *liveRange) alone() *liveRange {
	c := *r
	return &c
}

// meet says if two ascending lists of stretches have a position in common.
func meet(a, b []segment) bool {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case a[0].end <= b[0].start:
			a = a[1:]
		case b[0].end <= a[0].start:
			b = b[1:]
		default:
			return true
		}
	}
	return false
}
