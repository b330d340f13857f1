package gen

import (
	"cmp"
	"slices"

	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir"
)

// maxSpillRounds bounds the rounds of allocation: each spills less, as what it makes lives shortly.
const maxSpillRounds = 20

// allocate gives every register of f a machine register (none for those never read nor written). Values for which there
// is none move to slots of the unit, constants are made again where they are wanted.
func allocate(f *ir.Func) []asm.Register {
	fresh := ir.Reg(f.Regs) // registers after it were made to reload others
	for range maxSpillRounds {
		rs, calls, size := ranges(f)
		for _, r := range rs {
			r.keep = r.reg > fresh
		}
		rs, root := coalesce(f, rs)
		regs, spilled := color(rs, calls, size, root)
		if len(spilled) == 0 {
			for r := range regs {
				regs[r] = regs[root[r]]
			}
			return regs
		}
		spill(f, spilled, size)
	}
	panic("bpf/gen: no end to spilling in " + f.Name)
}

// general are the registers there are, in the order they are tried: what dies before the next call leaves R6 … R9 to
// those that do not.
var general = [...]asm.Register{asm.R5, asm.R4, asm.R3, asm.R2, asm.R1, asm.R0, asm.R6, asm.R7, asm.R8, asm.R9}

// color places the ranges one by one, those first that cost most per length to have in memory. A register is free for a
// range if none of its positions is taken.
func color(rs []*liveRange, calls []int, size int, root []ir.Reg) (regs []asm.Register, spilled []*liveRange) {
	var taken [asm.R10]bitmap
	for r := range taken {
		taken[r] = make(bitmap, size/64+1)
	}
	for _, at := range calls {
		for r := asm.R0; r <= asm.R5; r++ {
			taken[r].set(segment{at, at + 1})
		}
	}
	sorting.Stable(rs, func(a, b *liveRange) int { return -cmp.Compare(a.density(), b.density()) })
	regs = make([]asm.Register, len(root))
	for i := range regs {
		regs[i] = none
	}
	for _, r := range rs {
		best, score := none, -1
		for _, c := range general {
			if s := r.liking(c, regs, root); s > score && taken[c].free(r.segs) {
				best, score = c, s
			}
		}
		if best == none {
			if r.members == nil {
				r.members = []*liveRange{r}
			}
			spilled = append(spilled, r.members...)
			continue
		}
		regs[r.reg] = best
		for _, s := range r.segs {
			taken[best].set(s)
		}
	}
	return regs, spilled
}

// none is the place of registers that have none.
const none = asm.Register(0xff)

func (r *liveRange) density() float64 {
	if r.keep {
		return 1e18 / float64(r.length+1)
	}
	return r.cost / float64(r.length+1)
}

// liking counts the moves that c saves r.
func (r *liveRange) liking(c asm.Register, regs []asm.Register, root []ir.Reg) int {
	n := 0
	for _, w := range r.wants {
		if w == c {
			n++
		}
	}
	for _, p := range r.partners {
		if regs[root[p]] == c {
			n++
		}
	}
	return n
}

// bitmap is a set of positions.
type bitmap []uint64

func (b bitmap) set(s segment) {
	for at := s.start; at < s.end; {
		mask, n := span64(at, s.end)
		b[at/64] |= mask
		at += n
	}
}

func (b bitmap) free(segs []segment) bool {
	for _, s := range segs {
		for at := s.start; at < s.end; {
			mask, n := span64(at, s.end)
			if b[at/64]&mask != 0 {
				return false
			}
			at += n
		}
	}
	return true
}

// span64 gives the bits of the word of at from at to end, and how many.
func span64(at, end int) (mask uint64, n int) {
	n = min(64-at%64, end-at)
	if n == 64 {
		return ^uint64(0), n
	}
	return (1<<n - 1) << (at % 64), n
}

// spill rewrites f so that the register of each range lives in memory: loaded before it is read, stored after it is assigned. What one
// instruction makes is made again instead.
func spill(f *ir.Func, ranges []*liveRange, size int) {
	s := &spiller{f: f, home: map[ir.Reg]*ir.Slot{}, again: map[ir.Reg]ir.Ins{}}
	s.remakeable(ranges)
	s.houses(ranges, size)
	for i, p := range f.Params {
		if h := s.home[p]; h != nil {
			f.Params[i] = f.NewReg()
			f.Blocks[0].Ins = slices.Insert(f.Blocks[0].Ins, 0, ir.Ins{Op: ir.Store, Size: 8, Slot: h, A: ir.R(f.Params[i])})
		}
	}
	for _, b := range f.Blocks {
		s.out = s.out[:0]
		for i := range b.Ins {
			s.ins(b.Ins[i])
		}
		b.Ins = replace(b.Ins, s.out)
	}
}

type spiller struct {
	f     *ir.Func
	home  map[ir.Reg]*ir.Slot
	again map[ir.Reg]ir.Ins
	out   []ir.Ins
}

// remakeable finds registers that are only ever assigned by one instruction without operands.
func (s *spiller) remakeable(ranges []*liveRange) {
	defs := make([]int, s.f.Regs+1)
	for _, p := range s.f.Params {
		defs[p]++
	}
	made := map[ir.Reg]ir.Ins{}
	for _, b := range s.f.Blocks {
		for _, n := range b.Ins {
			if n.Dst == 0 {
				continue
			}
			defs[n.Dst]++
			switch n.Op {
			case ir.Const, ir.MapPtr, ir.MapValue, ir.FuncPtr, ir.Given:
				made[n.Dst] = n
			case ir.Addr:
				if n.Slot != nil {
					made[n.Dst] = n
				}
			}
		}
	}
	for _, r := range ranges {
		if n, ok := made[r.reg]; ok && defs[r.reg] == 1 {
			s.again[r.reg] = n
		}
	}
}

// houses gives the others slots: one for all whose ranges do not meet.
func (s *spiller) houses(ranges []*liveRange, size int) {
	var slots []*ir.Slot
	var taken []bitmap
	for _, r := range ranges {
		if _, ok := s.again[r.reg]; ok {
			continue
		}
		k := slices.IndexFunc(taken, func(b bitmap) bool { return b.free(r.segs) })
		if k < 0 {
			k = len(slots)
			slots, taken = append(slots, s.f.Unit.NewSlot("spill", 8)), append(taken, make(bitmap, size/64+1))
		}
		for _, g := range r.segs {
			taken[k].set(g)
		}
		s.home[r.reg] = slots[k]
	}
}

// reload gives a register that holds spilled r here.
func (s *spiller) reload(r ir.Reg, n *ir.Ins) ir.Reg {
	if m, ok := s.again[r]; ok {
		m.Dst, m.Span = s.f.NewReg(), n.Span
		s.out = append(s.out, m)
		return m.Dst
	}
	h := s.home[r]
	if h == nil {
		return r
	}
	d := s.f.NewReg()
	s.out = append(s.out, ir.Ins{Op: ir.Load, Dst: d, Size: 8, Slot: h, Span: n.Span})
	return d
}

func (s *spiller) ins(n ir.Ins) {
	if _, ok := s.again[n.Dst]; ok && n.Dst != 0 {
		return
	}
	home := s.home[n.Dst]
	switch {
	case n.Op == ir.Mov && home != nil && home == s.home[n.A.R]:
		return
	case home != nil && (n.Op == ir.Mov && s.home[n.A.R] == nil || n.Op == ir.Const && narrow(n.A)):
		if n.A.R != 0 {
			n.A.R = s.reload(n.A.R, &n)
		}
		s.out = append(s.out, ir.Ins{Op: ir.Store, Size: 8, Slot: home, A: n.A, Span: n.Span})
		return
	case n.Op == ir.Mov && home == nil && s.home[n.A.R] != nil:
		s.out = append(s.out, ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Slot: s.home[n.A.R], Span: n.Span})
		return
	}
	seen := map[ir.Reg]ir.Reg{}
	once := func(r ir.Reg) ir.Reg {
		if d, ok := seen[r]; ok {
			return d
		}
		seen[r] = s.reload(r, &n)
		return seen[r]
	}
	if len(n.Args) > 0 {
		n.Args = slices.Clone(n.Args)
	}
	n.Replace(func(r ir.Reg) ir.Val { return ir.R(once(r)) })
	if n.Base != 0 {
		n.Base = once(n.Base)
	}
	if home == nil {
		s.out = append(s.out, n)
		return
	}
	n.Dst = s.f.NewReg()
	s.out = append(s.out, n, ir.Ins{Op: ir.Store, Size: 8, Slot: home, A: ir.R(n.Dst), Span: n.Span})
}
