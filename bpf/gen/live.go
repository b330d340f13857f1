package gen

import (
	"slices"

	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/ir"
)

// Positions: instruction i reads at 3i+3, a call destroys registers at 3i+4, and 3i+5 writes. Parameters are written at 2.
const (
	reading  = 3
	calling  = 4
	writing  = 5
	perIns   = 3
	paramPos = 2
)

// segment is a stretch of positions, end excluded.
type segment struct{ start, end int }

// liveRange is where a register's value is wanted, and what is known for placing it.
type liveRange struct {
	reg      ir.Reg
	segs     []segment // ascending
	cost     float64   // of having it in memory
	length   int
	wants    []asm.Register // that save a move
	partners []ir.Reg       // to share a register with
	keep     bool           // made to reload another: memory does not help
	members  []*liveRange   // what was joined into it, itself included; nil if nothing was
}

func (r *liveRange) add(start, end int) {
	if end <= start {
		return
	}
	r.length += end - start
	if n := len(r.segs); n > 0 && r.segs[n-1].start <= end { // added from the end backward
		r.segs[n-1].start = min(start, r.segs[n-1].start)
		return
	}
	r.segs = append(r.segs, segment{start, end})
}

// ranges computes live ranges from the last instruction backward, and the positions of calls.
func ranges(f *ir.Func) (rs []*liveRange, calls []int, size int) {
	out := ir.Liveness(f)
	all := make([]*liveRange, f.Regs+1)
	get := func(r ir.Reg) *liveRange {
		if all[r] == nil {
			all[r] = &liveRange{reg: r}
		}
		return all[r]
	}
	end := make([]int, f.Regs+1) // where the segment being built ends; 0 is none
	var open []ir.Reg            // that have one, or had
	until := func(r ir.Reg, e int) {
		if end[r] == 0 {
			open = append(open, r)
		}
		end[r] = max(end[r], e)
	}
	weights := depths(f)
	total := 0
	for _, b := range f.Blocks {
		total += len(b.Ins)
	}
	at := total
	for k := len(f.Blocks) - 1; k >= 0; k-- {
		b := f.Blocks[k]
		out.EachOut(b, func(r ir.Reg) { until(r, perIns*at+2) })
		for i := len(b.Ins) - 1; i >= 0; i-- {
			n := &b.Ins[i]
			at--
			if d := n.Dst; d != 0 {
				r := get(d)
				r.add(perIns*at+writing, max(end[d], perIns*at+writing+1))
				r.cost += weights[k]
				end[d] = 0
			}
			n.Uses(func(u ir.Reg) {
				get(u).cost += weights[k]
				e := perIns*at + calling
				if n.Op == ir.Bin && n.B.R == u && n.A.R != u && !n.Alu.Commutes() && !negation(n) {
					e = perIns*at + writing + 1 // must not share a register with the result
				}
				until(u, e)
			})
			if isCall(n) {
				calls = append(calls, perIns*at+calling)
			}
			hints(n, get)
		}
		for _, r := range open {
			if end[r] != 0 {
				get(r).add(perIns*at+2, end[r])
				end[r] = 0
			}
		}
		open = open[:0]
	}
	for i, p := range f.Params {
		if r := all[p]; r != nil {
			r.wants = append(r.wants, asm.R1+asm.Register(i))
		}
	}
	for _, r := range all {
		if r != nil {
			slices.Reverse(r.segs)
			rs = append(rs, r)
		}
	}
	return rs, calls, perIns*total + writing + 1
}

// hints notes which registers save moves: those that helpers take and give, and those of operands that become results.
func hints(n *ir.Ins, get func(ir.Reg) *liveRange) {
	switch n.Op {
	case ir.Call:
		for i, a := range n.Args {
			if a.R != 0 {
				r := get(a.R)
				r.wants = append(r.wants, asm.R1+asm.Register(i))
			}
		}
		if n.Dst != 0 {
			r := get(n.Dst)
			r.wants = append(r.wants, asm.R0)
		}
	case ir.Ret:
		if n.A.R != 0 {
			r := get(n.A.R)
			r.wants = append(r.wants, asm.R0)
		}
	case ir.Mov, ir.Bin, ir.Ext, ir.Bswap:
		pair(get, n.Dst, n.A.R)
		if n.Op == ir.Bin && (n.Alu.Commutes() || n.A.IsImm()) {
			pair(get, n.Dst, n.B.R)
		}
	case ir.Addr:
		pair(get, n.Dst, n.Base)
	}
}

func pair(get func(ir.Reg) *liveRange, a, b ir.Reg) {
	if a != 0 && b != 0 && a != b {
		ra, rb := get(a), get(b)
		ra.partners = append(ra.partners, b)
		rb.partners = append(rb.partners, a)
	}
}

// depths gives each block a weight: eight times as much in a loop as around it.
func depths(f *ir.Func) []float64 {
	w := make([]float64, len(f.Blocks))
	for i := range w {
		w[i] = 1
	}
	for i, b := range f.Blocks {
		for _, s := range b.Succs() {
			for k := s.ID; k <= i; k++ { // a jump back: by place, which is near enough
				w[k] = min(w[k]*8, 512)
			}
		}
	}
	return w
}

// isCall says if the instruction destroys R0 … R5.
func isCall(n *ir.Ins) bool { return n.Op == ir.Call }
