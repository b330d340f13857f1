package gen

import (
	"fmt"

	"github.com/fathom-trace/fathom/ir"
)

// inlineCounts is the number of places up to which a counter is counted where the loss is seen; more share a function.
const inlineCounts = 1

// expandCounts makes code of u's Count instructions, and gives the functions that this code calls.
func expandCounts(u *ir.Unit, counters *ir.Map) []*ir.Func {
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
			sub[c] = countFunc(u, counters, c)
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
				countHere(u, f, b, i, counters)
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
func countFunc(u *ir.Unit, counters *ir.Map, counter int) *ir.Func {
	f := &ir.Func{Name: fmt.Sprintf("%s_count%d", u.Name, counter), Unit: u}
	b := f.NewBlock()
	b.Ins = []ir.Ins{{Op: ir.Count, Imm: int64(counter)}, {Op: ir.Ret}}
	countHere(u, f, b, 0, counters)
	for i, b := range f.Blocks {
		b.ID = i
	}
	return f
}

// countHere replaces instruction i of b: what follows it moves to a block of its own.
func countHere(u *ir.Unit, f *ir.Func, b *ir.Block, i int, counters *ir.Map) {
	n := b.Ins[i]
	some, rest := f.NewBlock(), f.NewBlock()
	rest.Ins = append(rest.Ins, b.Ins[i+1:]...)
	key := u.NewSlot("counter", 8)
	m, k, p, v, w := f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg(), f.NewReg()
	off := int32(8 * n.Imm)
	b.Ins = append(b.Ins[:i:i],
		ir.Ins{Op: ir.Store, Size: 4, Slot: key, A: ir.Imm(int64(u.Index)), Span: n.Span},
		ir.Ins{Op: ir.MapPtr, Dst: m, Map: counters, Span: n.Span},
		ir.Ins{Op: ir.Addr, Dst: k, Slot: key, Span: n.Span},
		ir.Ins{Op: ir.Call, Dst: p, Fn: ir.FnMapLookup, Args: []ir.Val{ir.R(m), ir.R(k)}, Span: n.Span},
		ir.Ins{Op: ir.Branch, Cond: ir.Ne, A: ir.R(p), Then: some, Else: rest, Span: n.Span})
	some.Ins = []ir.Ins{
		{Op: ir.Load, Dst: v, Size: 8, Base: p, Off: off, Span: n.Span},
		{Op: ir.Bin, Alu: ir.Add, Dst: w, A: ir.R(v), B: ir.Imm(1), Span: n.Span},
		{Op: ir.Store, Size: 8, Base: p, Off: off, A: ir.R(w), Span: n.Span},
		{Op: ir.Jump, Then: rest, Span: n.Span},
	}
}
