package gen

import (
	"math/bits"
	"sort"

	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/ir"
)

// loc is where a virtual register lives: a machine register, or with spill != 0 a stack offset.
type loc struct {
	reg   asm.Register
	spill int16
	used  bool
}

// R0 and R5 are kept free for the emitter: spilled operands and large constants pass through them.
const (
	tmpA = asm.R0
	tmpB = asm.R5
)

// interval is the range of positions a register is live in: instruction i reads at 2i and writes at 2i+1.
type interval struct {
	reg        ir.Reg
	start, end int
	calls      bool // live across a call: R1 … R5 do not survive
	hint       asm.Register
	hinted     bool
	weight     int
}

// allocate gives every register of f a place, by linear scan over live intervals (Poletto and Sarkar, 1999).
// newSpill gives the stack offset of a fresh 8-byte spill slot.
func allocate(f *ir.Func, newSpill func() int16) []loc {
	ivs := intervals(f)
	locs := make([]loc, f.Regs+1)
	sort.SliceStable(ivs, func(i, j int) bool { return ivs[i].start < ivs[j].start })
	var active []*interval
	var busy uint16
	for _, iv := range ivs {
		keep := active[:0]
		for _, a := range active {
			if a.end <= iv.start {
				busy &^= 1 << locs[a.reg].reg
				continue
			}
			keep = append(keep, a)
		}
		active = keep
		if r, ok := choose(iv, busy); ok {
			locs[iv.reg] = loc{reg: r, used: true}
			busy |= 1 << r
			active = append(active, iv)
			continue
		}
		active = evict(iv, active, locs, newSpill)
	}
	return locs
}

func choose(iv *interval, busy uint16) (asm.Register, bool) {
	allowed := uint16(1<<asm.R6 | 1<<asm.R7 | 1<<asm.R8 | 1<<asm.R9)
	if !iv.calls {
		allowed |= 1<<asm.R1 | 1<<asm.R2 | 1<<asm.R3 | 1<<asm.R4
	}
	free := allowed &^ busy
	if free == 0 {
		return 0, false
	}
	if iv.hinted && free&(1<<iv.hint) != 0 {
		return iv.hint, true
	}
	// The lowest register: what dies before the next call leaves R6 … R9 to those that do not.
	return asm.Register(bits.TrailingZeros16(free)), true
}

// evict spills iv, or in its place an active interval that is used less densely.
func evict(iv *interval, active []*interval, locs []loc, newSpill func() int16) []*interval {
	worst := -1
	for i, a := range active {
		r := locs[a.reg].reg
		if iv.calls && r < asm.R6 {
			continue
		}
		if worst < 0 || a.density() < active[worst].density() {
			worst = i
		}
	}
	if worst >= 0 && active[worst].density() < iv.density() {
		v := active[worst]
		locs[iv.reg] = loc{reg: locs[v.reg].reg, used: true}
		locs[v.reg] = loc{spill: newSpill(), used: true}
		active[worst] = iv
		return active
	}
	locs[iv.reg] = loc{spill: newSpill(), used: true}
	return active
}

func (iv *interval) density() float64 { return float64(iv.weight) / float64(iv.end-iv.start+1) }

// intervals computes live ranges by backward data flow over the blocks in their order.
func intervals(f *ir.Func) []*interval {
	pos := make([]int, len(f.Blocks)+1)
	for i, b := range f.Blocks {
		pos[i+1] = pos[i] + len(b.Ins)
	}
	in := liveness(f)
	ivs := make([]*interval, f.Regs+1)
	touch := func(r ir.Reg, at int) *interval {
		iv := ivs[r]
		if iv == nil {
			iv = &interval{reg: r, start: at, end: at}
			ivs[r] = iv
		}
		iv.start, iv.end = min(iv.start, at), max(iv.end, at)
		return iv
	}
	var calls []int
	for bi, b := range f.Blocks {
		in[bi].each(func(r ir.Reg) { touch(r, 2*pos[bi]) })
		for _, s := range b.Succs() {
			in[s.ID].each(func(r ir.Reg) { touch(r, 2*pos[bi+1]) })
		}
		for i := range b.Ins {
			n := &b.Ins[i]
			at := 2 * (pos[bi] + i)
			uses(n, func(r ir.Reg) { touch(r, at).weight++ })
			if n.Dst != 0 {
				iv := touch(n.Dst, at+1)
				iv.end = max(iv.end, at+2)
				iv.weight++
			}
			if isCall(n) {
				calls = append(calls, at)
			}
			hint(n, ivs)
		}
	}
	for i, p := range f.Params {
		if iv := ivs[p]; iv != nil {
			iv.start = -1
			iv.hint, iv.hinted = asm.R1+asm.Register(i), true
		}
	}
	var out []*interval
	for _, iv := range ivs {
		if iv == nil {
			continue
		}
		k := sort.SearchInts(calls, iv.start)
		for ; k < len(calls) && calls[k] < iv.end; k++ {
			if calls[k] >= iv.start && iv.end > calls[k]+1 && iv.start <= calls[k] {
				iv.calls = true
				break
			}
		}
		out = append(out, iv)
	}
	return out
}

// hint asks for a copy to live where its source does, and for arguments to be born in their argument registers.
func hint(n *ir.Ins, ivs []*interval) {
	if n.Op != ir.Call {
		return
	}
	for i, a := range n.Args {
		if a.R != 0 && ivs[a.R] != nil && !ivs[a.R].hinted && i < 4 {
			ivs[a.R].hint, ivs[a.R].hinted = asm.R1+asm.Register(i), true
		}
	}
}

// isCall says if the instruction clobbers R1 … R5 when emitted.
func isCall(n *ir.Ins) bool { return n.Op == ir.Call }

// uses calls fn for every register an instruction reads.
func uses(n *ir.Ins, fn func(ir.Reg)) {
	if n.A.R != 0 {
		fn(n.A.R)
	}
	if n.B.R != 0 {
		fn(n.B.R)
	}
	if n.Base != 0 {
		fn(n.Base)
	}
	for _, a := range n.Args {
		if a.R != 0 {
			fn(a.R)
		}
	}
}

// set is a set of registers.
type set []uint64

func newSet(n int) set          { return make(set, n/64+1) }
func (s set) add(r ir.Reg)      { s[r/64] |= 1 << (r % 64) }
func (s set) has(r ir.Reg) bool { return s[r/64]&(1<<(r%64)) != 0 }
func (s set) each(fn func(ir.Reg)) {
	for w, v := range s {
		for ; v != 0; v &= v - 1 {
			fn(ir.Reg(w*64 + bits.TrailingZeros64(v)))
		}
	}
}

// liveness gives the registers live on entry to each block.
func liveness(f *ir.Func) []set {
	n := len(f.Blocks)
	in, gen, kill := make([]set, n), make([]set, n), make([]set, n)
	for i, b := range f.Blocks {
		in[i], gen[i], kill[i] = newSet(f.Regs+1), newSet(f.Regs+1), newSet(f.Regs+1)
		for j := range b.Ins {
			uses(&b.Ins[j], func(r ir.Reg) {
				if !kill[i].has(r) {
					gen[i].add(r)
				}
			})
			if d := b.Ins[j].Dst; d != 0 {
				kill[i].add(d)
			}
		}
	}
	for changed := true; changed; {
		changed = false
		for i := n - 1; i >= 0; i-- {
			for w := range in[i] {
				var out uint64
				for _, s := range f.Blocks[i].Succs() {
					out |= in[s.ID][w]
				}
				if v := gen[i][w] | out&^kill[i][w]; v != in[i][w] {
					in[i][w], changed = v, true
				}
			}
		}
	}
	return in
}
