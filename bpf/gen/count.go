package gen

import (
	"fmt"
	"math/bits"
	"slices"

	"github.com/fathom-trace/fathom/ir"
)

// inlineCounts is the number of places up to which a counter is counted where the loss is seen; more share a function.
const inlineCounts = 1

// expandCounts makes code of u's Count instructions, and gives the functions that this code calls.
func expandCounts(u *ir.Unit, to counters) []*ir.Func {
	var sites [ir.NumCounters]int
	for _, f := range u.Funcs() {
		for _, b := range f.Blocks {
			for i := range b.Ins {
				if n := &b.Ins[i]; n.Op == ir.Count {
					sites[n.Imm]++
				}
			}
		}
	}
	var subs []*ir.Func
	var sub [ir.NumCounters]*ir.Func
	for c, n := range sites {
		if n > inlineCounts {
			sub[c] = countFunc(u, to, c)
			subs = append(subs, sub[c])
		}
	}
	for _, f := range u.Funcs() {
		for k := 0; k < len(f.Blocks); k++ { // grows on the way
			b := f.Blocks[k]
			for i := range b.Ins {
				n := &b.Ins[i]
				if n.Op != ir.Count {
					continue
				}
				if s := sub[n.Imm]; s != nil {
					*n = ir.Ins{Op: ir.Call, Callee: s, Span: n.Span}
					continue
				}
				to.count(f, b, i)
				break
			}
		}
		for i, b := range f.Blocks {
			b.ID = i
		}
	}
	return subs
}

// countFunc is a function of its own that counts.
func countFunc(u *ir.Unit, to counters, counter int) *ir.Func {
	f := &ir.Func{Name: fmt.Sprintf("%s_count%d", u.Name, counter), Unit: u}
	b := f.NewBlock()
	b.Ins = []ir.Ins{{Op: ir.Count, Imm: int64(counter)}, {Op: ir.Ret}}
	to.count(f, b, 0)
	return f
}

// counters is where a program counts: see ir.CounterBytes.
type counters struct {
	m     *ir.Map
	bytes int // for each CPU
}

func countersOf(p *ir.Program) counters { return counters{p.Counters, ir.CounterBytes(len(p.Units))} }

// count replaces instruction i of b by one addition in the part of this CPU, where nobody else counts meanwhile.
func (c counters) count(f *ir.Func, b *ir.Block, i int) {
	n := b.Ins[i]
	cpu, in, off, base, at, v, w := f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg()
	place := int32(8 * (f.Unit.Index*ir.NumCounters + int(n.Imm)))
	cpus := c.m.ValueSize / c.bytes
	b.Ins = slices.Concat(b.Ins[:i:i], []ir.Ins{
		{Op: ir.Call, Dst: cpu, Fn: ir.FnSmpProcessorID, Span: n.Span},
		{Op: ir.Bin, Alu: ir.And, Dst: in, A: ir.R(cpu), B: ir.Imm(int64(cpus - 1)), Span: n.Span}, // for the verifier
		{Op: ir.Bin, Alu: ir.Shl, Dst: off, A: ir.R(in), B: ir.Imm(int64(bits.TrailingZeros(uint(c.bytes)))), Span: n.Span},
		{Op: ir.MapValue, Dst: base, Map: c.m, Off: place, Span: n.Span},
		{Op: ir.Bin, Alu: ir.Add, Dst: at, A: ir.R(base), B: ir.R(off), Span: n.Span},
		{Op: ir.Load, Dst: v, Size: 8, Base: at, Span: n.Span},
		{Op: ir.Bin, Alu: ir.Add, Dst: w, A: ir.R(v), B: ir.Imm(1), Span: n.Span},
		{Op: ir.Store, Size: 8, Base: at, A: ir.R(w), Span: n.Span},
	}, b.Ins[i+1:])
}
