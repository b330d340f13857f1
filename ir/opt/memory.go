package opt

import (
	"math/bits"

	"github.com/fathom-trace/fathom/ir"
)

// tracked bounds the bytes of slots that are followed one by one; larger slots are left as they are.
const tracked = 4096

// memory follows the bytes of a function's own slots: stores that nobody reads go, zeroing shrinks to what is not
// overwritten anyway, a load of what was just stored is the value. Slots that callbacks share, and those whose address is
// reckoned with, are left alone.
func memory(f *ir.Func) bool {
	m := &memer{f: f, g: analyse(f), at: map[*ir.Slot]int{}}
	m.choose()
	if len(m.at) == 0 {
		return false
	}
	m.forward()
	m.backward()
	return m.changed
}

type memer struct {
	f       *ir.Func
	g       *graph
	at      map[*ir.Slot]int // where a slot's bytes are in a set of all bytes
	size    int
	changed bool
}

// choose finds the slots to follow.
func (m *memer) choose() {
	wild := map[*ir.Slot]bool{}
	var slots []*ir.Slot
	see := func(s *ir.Slot) {
		if _, ok := m.at[s]; !ok && s != nil {
			m.at[s] = 0
			slots = append(slots, s)
		}
	}
	for _, b := range m.f.Blocks {
		for i := range b.Ins {
			n := &b.Ins[i]
			see(n.Slot)
			if n.Op == ir.Addr && n.Slot != nil && (n.Dst == 0 || !m.g.plain.Has(n.Dst)) {
				wild[n.Slot] = true
			}
			m.escapes(n, wild)
		}
	}
	m.at = map[*ir.Slot]int{}
	for _, s := range slots {
		if s.Shared || wild[s] || m.size+s.Size > tracked {
			continue
		}
		m.at[s] = m.size
		m.size += s.Size
	}
}

// escapes marks slots whose address n uses for anything but a helper's argument or the source of a copy.
func (m *memer) escapes(n *ir.Ins, wild map[*ir.Slot]bool) {
	mark := func(r ir.Reg) {
		if d := m.g.def(r); d != nil && d.Op == ir.Addr && d.Slot != nil {
			wild[d.Slot] = true
		}
	}
	if n.A.R != 0 && n.Op != ir.Copy {
		mark(n.A.R)
	}
	if n.B.R != 0 {
		mark(n.B.R)
	}
	if n.Base != 0 {
		mark(n.Base)
	}
}

// part is bytes of a slot, by place in the set of all bytes.
type part struct{ lo, hi int }

func (m *memer) part(s *ir.Slot, off int32, n int) (part, bool) {
	at, ok := m.at[s]
	if !ok {
		return part{}, false
	}
	lo := at + int(off)
	if n <= 0 {
		n = s.Size - int(off)
	}
	return part{lo, min(lo+n, at+s.Size)}, true
}

// address gives the bytes of a slot that a register points at, to the end of the slot or n of them.
func (m *memer) address(a ir.Val, n int) (part, bool) {
	d := m.g.def(a.R)
	if d == nil || d.Op != ir.Addr || d.Slot == nil {
		return part{}, false
	}
	return m.part(d.Slot, d.Off, n)
}

// touch says what a helper does to bytes it is given the address of.
type touch uint8

const (
	unknown touch = iota // may read and write
	reads
	fills  // writes all of it
	writes // writes some of it
)

// touched calls fn for the parts of slots that n reads or writes through addresses.
func (m *memer) touched(n *ir.Ins, fn func(part, touch)) {
	if n.Op == ir.Copy {
		if p, ok := m.address(n.A, int(n.Imm)); ok {
			fn(p, reads)
		}
		return
	}
	if n.Op != ir.Call {
		return
	}
	for i, a := range n.Args {
		how, size := m.argument(n, i)
		if p, ok := m.address(a, size); ok {
			fn(p, how)
		}
	}
}

// argument says what the helper of n does with argument i; size 0 is to the end of the slot.
func (m *memer) argument(n *ir.Ins, i int) (how touch, size int) {
	constant := func(k int) int {
		if k < len(n.Args) && n.Args[k].IsImm() {
			return int(n.Args[k].Imm)
		}
		return 0
	}
	switch n.Fn {
	case ir.FnCurrentComm: // whole on some kernels, to the NUL on others such as 6.1
		if i == 0 {
			return writes, constant(1)
		}
	case ir.FnProbeReadKernel, ir.FnProbeReadUser:
		if i == 0 { // whole, also when it fails: then with zeroes
			if size := constant(1); size > 0 {
				return fills, size
			}
			return writes, 0
		}
	case ir.FnProbeReadKernelStr, ir.FnProbeReadUserStr:
		if i == 0 {
			return writes, constant(1)
		}
	case ir.FnMapLookup, ir.FnMapLookupPerCPU, ir.FnMapDelete, ir.FnMapUpdate:
		if d := m.g.def(n.Args[0].R); d != nil && d.Op == ir.MapPtr {
			return reads, []int{1: d.Map.KeySize, 2: d.Map.ValueSize, 3: 0, 4: 0}[i]
		}
	case ir.FnRingbufOutput:
		if i == 1 {
			return reads, constant(2)
		}
	}
	return unknown, 0
}

// backward finds what is read later, block by block from the end, and drops the rest.
func (m *memer) backward() {
	n := len(m.f.Blocks)
	in := make([]byteSet, n)
	for i := range in {
		in[i] = newByteSet(m.size)
	}
	live := newByteSet(m.size)
	for changed := true; changed; {
		changed = false
		for i := n - 1; i >= 0; i-- {
			m.after(i, in, live)
			b := m.f.Blocks[i]
			for j := len(b.Ins) - 1; j >= 0; j-- {
				m.step(&b.Ins[j], live)
			}
			changed = in[i].union(live) || changed
		}
	}
	for i := range m.f.Blocks {
		m.after(i, in, live)
		m.drop(m.f.Blocks[i], live)
	}
}

// after gives the bytes read after block i.
func (m *memer) after(i int, in []byteSet, live byteSet) {
	clear(live)
	for _, s := range m.f.Blocks[i].Succs() {
		live.union(in[s.ID])
	}
}

// step goes backward over n: what it writes whole is not read before it, what it reads is.
func (m *memer) step(n *ir.Ins, live byteSet) {
	if n.Slot != nil {
		if p, ok := m.part(n.Slot, n.Off, n.Width()); ok {
			switch n.Op {
			case ir.Store, ir.Zero, ir.Copy:
				live.set(p, false)
			case ir.Load, ir.AtomicAdd, ir.Output:
				live.set(p, true)
			}
		}
	}
	m.touched(n, func(p part, how touch) {
		if how == fills {
			live.set(p, false)
		}
	})
	m.touched(n, func(p part, how touch) {
		if how == reads || how == unknown {
			live.set(p, true)
		}
	})
}

// drop removes from a block what writes only bytes that are not live after it.
func (m *memer) drop(b *ir.Block, live byteSet) {
	for j := len(b.Ins) - 1; j >= 0; j-- {
		n := &b.Ins[j]
		if n.Slot != nil && (n.Op == ir.Store || n.Op == ir.Copy || n.Op == ir.Zero) {
			if p, ok := m.part(n.Slot, n.Off, n.Width()); ok {
				m.trim(n, p, live)
			}
		}
		m.step(n, live)
	}
}

// trim drops n if nobody reads what it writes. Zeroing is cut at both ends.
func (m *memer) trim(n *ir.Ins, p part, live byteSet) {
	lo, hi := live.within(p)
	switch {
	case lo == hi:
		*n = ir.Ins{Op: ir.Nop, Span: n.Span}
		m.changed = true
	case n.Op == ir.Zero && (lo > p.lo || hi < p.hi):
		n.Off += int32(lo - p.lo)
		n.Imm = int64(hi - lo)
		m.changed = true
	}
}

// forward replaces loads of what the same block stored.
func (m *memer) forward() {
	for _, b := range m.f.Blocks {
		stored := map[part]ir.Val{}
		forget := func(p part) {
			for q := range stored {
				if q.lo < p.hi && p.lo < q.hi {
					delete(stored, q)
				}
			}
		}
		for i := range b.Ins {
			n := &b.Ins[i]
			p, mine := m.part(n.Slot, n.Off, n.Width())
			switch {
			case !mine:
			case n.Op == ir.Load:
				if v, ok := stored[p]; ok {
					*n = ir.Ins{Op: ir.Ext, Dst: n.Dst, A: v, Size: n.Size, Signed: n.Signed, Span: n.Span}
					m.changed = true
				}
			case n.Op == ir.Store:
				forget(p)
				if n.A.R == 0 || m.g.plain.Has(n.A.R) {
					stored[p] = n.A
				}
			case n.Op != ir.Addr && n.Op != ir.Output:
				forget(p)
			}
			m.touched(n, func(p part, how touch) {
				if how != reads {
					forget(p)
				}
			})
		}
	}
}

// byteSet is a set of bytes of slots.
type byteSet []uint64

func newByteSet(n int) byteSet { return make(byteSet, n/64+1) }

func (s byteSet) set(p part, on bool) {
	for at := p.lo; at < p.hi; {
		n := min(64-at%64, p.hi-at)
		mask := (uint64(1)<<n - 1) << (at % 64)
		if n == 64 {
			mask = ^uint64(0)
		}
		if on {
			s[at/64] |= mask
		} else {
			s[at/64] &^= mask
		}
		at += n
	}
}

func (s byteSet) union(t byteSet) bool {
	grown := false
	for w, v := range t {
		if v&^s[w] != 0 {
			s[w] |= v
			grown = true
		}
	}
	return grown
}

// within gives the least range that holds all members in p.
func (s byteSet) within(p part) (lo, hi int) {
	lo, hi = p.hi, p.lo
	for at := p.lo; at < p.hi; {
		n := min(64-at%64, p.hi-at)
		v := s[at/64] >> (at % 64)
		if n < 64 {
			v &= 1<<n - 1
		}
		if v != 0 {
			lo = min(lo, at+bits.TrailingZeros64(v))
			hi = max(hi, at+bits.Len64(v))
		}
		at += n
	}
	if lo > hi {
		return p.lo, p.lo
	}
	return lo, hi
}
