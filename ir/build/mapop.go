package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// Flags of bpf_map_update_elem.
const (
	bpfAny     = 0
	bpfNoExist = 1
)

// key builds the key of a map access; maps without key are arrays and have none.
func (x *fn) key(m *ir.Map, e syntax.Expr) mem {
	k := slotMem(x.temp(max(8, m.KeySize)))
	x.keyInto(k, m, e)
	return k
}

func (x *fn) keyInto(k mem, m *ir.Map, e syntax.Expr) {
	if m.Key == nil || e == nil {
		x.zero(k, m.KeySize)
		return
	}
	if m.Bucketed {
		x.zero(k.at(m.Key.Size), m.KeySize-8-m.Key.Size)
	}
	if t, ok := e.(*syntax.Tuple); ok && m.Key.Kind == types.Tuple && len(t.Elems) == len(m.Key.Fields) {
		x.zeroGaps(k, m.Key)
		for i, f := range m.Key.Fields {
			x.into(k.at(f.Off), f.Type, t.Elems[i])
		}
		return
	}
	x.into(k, m.Key, e)
}

// lookup gives the address of an element, 0 if there is none.
func (x *fn) lookup(m *ir.Map, k mem) ir.Val {
	return x.call(ir.FnMapLookup, x.mapPtr(m), x.addr(k))
}

// update stores an element and gives 0, or what went wrong, of which only 32 bits mean something: before Linux 6.4 maps give an
// int, and the call is to the map's own function (map_update_elem of struct bpf_map_ops).
func (x *fn) update(m *ir.Map, k, v mem, flags int64) ir.Val {
	rc := x.call(ir.FnMapUpdate, x.mapPtr(m), x.addr(k), x.addr(v), ir.Imm(flags))
	return rc
}

func (x *fn) lost(rc ir.Val) {
	bad, end := x.block(), x.block()
	x.branch(ir.Ne, rc, ir.Imm(0), bad, end)
	x.at(bad)
	x.count(ir.LostMap)
	if x.b.opts.Failures {
		x.failure(x.ext(rc, 4, true), "map_update_elem")
	}
	x.jump(end)
	x.at(end)
}

// elem gives the place of a map without key: its address is known when the program is loaded.
func (x *fn) elem(m *ir.Map) mem {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.MapValue, Dst: d, Map: m})
	return mem{base: d}
}

// mapRead reads @x or @x[k]; what is not there is 0.
func (x *fn) mapRead(e *syntax.MapRef) value {
	m := x.b.maps[e.Name]
	if m == nil {
		return scalarOf(types.Int64, ir.Imm(0))
	}
	if m.Kind == ir.Array {
		el := inMem(m.Value, x.elem(m))
		if m.Value.IsScalar() {
			return scalarOf(m.Value, x.load(el.m, size8(m.ValueSize), m.Value.Signed))
		}
		s := slotMem(x.temp(m.ValueSize))
		x.copyMem(s, el.m, m.ValueSize)
		return inMem(m.Value, s)
	}
	k := x.key(m, e.Key)
	if m.Kind.PerCPU() {
		if m.Value.CastableAgg() {
			return x.sumElem(m, k)
		}
	}
	p := x.lookup(m, k)
	some, none, end := x.block(), x.block(), x.block()
	if m.Value.IsScalar() {
		d := x.f.NewReg()
		x.branch(ir.Ne, p, ir.Imm(0), some, none)
		x.at(some)
		x.mov(d, x.load(mem{base: p.R}, size8(m.ValueSize), m.Value.Signed))
		x.jump(end)
		x.at(none)
		x.mov(d, ir.Imm(0))
		x.jump(end)
		x.at(end)
		return scalarOf(m.Value, ir.R(d))
	}
	s := slotMem(x.temp(m.ValueSize))
	x.branch(ir.Ne, p, ir.Imm(0), some, none)
	x.at(some)
	x.copyMem(s, mem{base: p.R}, m.ValueSize)
	x.jump(end)
	x.at(none)
	x.zero(s, m.ValueSize)
	x.jump(end)
	x.at(end)
	return inMem(m.Value, s)
}

// assignMap is @x = v, @x[k] op= v and the aggregations.
func (x *fn) assignMap(l *syntax.MapRef, op syntax.Op, rhs syntax.Expr) {
	m := x.b.maps[l.Name]
	if m == nil {
		return
	}
	if c, ok := rhs.(*syntax.Call); ok && op == syntax.ASSIGN {
		if agg := x.b.aggs[c.Name]; agg != nil {
			agg(x, m, l, c)
			return
		}
	}
	if b, ok := rhs.(*syntax.BlockExpr); ok && op == syntax.ASSIGN && m.Value.IsAgg() && b.Result != nil {
		x.stmts(b.Stmts)
		x.assignMap(l, op, b.Result)
		return
	}
	if op != syntax.ASSIGN {
		x.compound(m, l, op, rhs)
		return
	}
	if m.Kind == ir.Array {
		x.into(x.elem(m), m.Value, rhs)
		return
	}
	// The value first: it may be made of the old element.
	v := slotMem(x.temp(max(8, m.ValueSize)))
	x.into(v, m.Value, rhs)
	k := x.key(m, l.Key)
	x.lost(x.update(m, k, v, bpfAny))
}

// compound is @x op= v: addition in one atomic step where the size allows, so that no update is lost.
func (x *fn) compound(m *ir.Map, l *syntax.MapRef, op syntax.Op, rhs syntax.Expr) {
	r := x.expr(rhs)
	rv := x.scalarVal(r)
	if op == syntax.ADD && m.Value.IsInt() && m.ValueSize >= 4 {
		x.addTo(m, l.Key, rv)
		return
	}
	x.modify(m, l.Key, func(old ir.Val) ir.Val { return x.arith(op, m.Value, m.Value, r.t, old, rv) })
}

// addTo adds to an element atomically, creating it.
func (x *fn) addTo(m *ir.Map, key syntax.Expr, by ir.Val) {
	size := uint8(size8(m.ValueSize))
	if m.Kind == ir.Array {
		e := x.elem(m)
		x.add(ir.Ins{Op: ir.AtomicAdd, Size: size, Base: e.base, A: ir.R(x.reg(by))})
		return
	}
	k := x.key(m, key)
	p := x.lookup(m, k)
	some, none, retry, end := x.block(), x.block(), x.block(), x.block()
	x.branch(ir.Ne, p, ir.Imm(0), some, none)
	x.at(some)
	x.add(ir.Ins{Op: ir.AtomicAdd, Size: size, Base: p.R, A: ir.R(x.reg(by))})
	x.jump(end)
	x.at(none)
	v := slotMem(x.temp(8))
	x.store(v, int(size), by)
	rc := x.update(m, k, v, bpfNoExist)
	x.branch(ir.Eq, rc, ir.Imm(0), end, retry)
	x.at(retry) // somebody else created it just now, or the map is full
	p2 := x.lookup(m, k)
	again, full := x.block(), x.block()
	x.branch(ir.Ne, p2, ir.Imm(0), again, full)
	x.at(again)
	x.add(ir.Ins{Op: ir.AtomicAdd, Size: size, Base: p2.R, A: ir.R(x.reg(by))})
	x.jump(end)
	x.at(full)
	x.count(ir.LostMap)
	x.jump(end)
	x.at(end)
}

// modify replaces an element by a function of its old value and gives both; a missing element counts as 0.
func (x *fn) modify(m *ir.Map, key syntax.Expr, f func(ir.Val) ir.Val) (old, new ir.Val) {
	size := size8(m.ValueSize)
	if m.Kind == ir.Array {
		e := x.elem(m)
		old = x.load(e, size, m.Value.Signed)
		new = f(old)
		x.store(e, size, new)
		return old, new
	}
	k := x.key(m, key)
	p := x.lookup(m, k)
	o := x.f.NewReg()
	some, none, end := x.block(), x.block(), x.block()
	x.branch(ir.Ne, p, ir.Imm(0), some, none)
	x.at(some)
	x.mov(o, x.load(mem{base: p.R}, size, m.Value.Signed))
	x.jump(end)
	x.at(none)
	x.mov(o, ir.Imm(0))
	x.jump(end)
	x.at(end)
	old = ir.R(o)
	new = f(old)
	v := slotMem(x.temp(8))
	x.store(v, size, new)
	x.lost(x.update(m, k, v, bpfAny))
	return old, new
}

// incMap is @x++ and its kin. Where nobody wants the value, it is one atomic addition.
func (x *fn) incMap(l *syntax.MapRef, op ir.Alu, postfix bool, t *types.Type) value {
	m := x.b.maps[l.Name]
	if m == nil {
		return scalarOf(t, ir.Imm(0))
	}
	unused := x.unused
	x.unused = false
	by := int64(1)
	if op == ir.Sub {
		by = -1
	}
	if m.Value.Kind == types.Ptr {
		by *= int64(elemSize(m.Value))
	}
	if m.Value.IsInt() && m.ValueSize >= 4 && unused {
		x.addTo(m, l.Key, ir.Imm(by))
		return value{t: types.VoidT}
	}
	old, n := x.modify(m, l.Key, func(o ir.Val) ir.Val {
		v := x.bin(ir.Add, o, ir.Imm(by))
		if m.Value.IsInt() {
			v = x.ext(v, m.Value.Size, m.Value.Signed)
		}
		return v
	})
	if postfix {
		return scalarOf(m.Value, old)
	}
	return scalarOf(m.Value, n)
}

// aggregation writes one sample to an element.
type aggregation func(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call)

// aggregations has a row for each function that may only stand on the right of @x =.
func aggregations() map[string]aggregation {
	return map[string]aggregation{
		"count": func(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) {
			x.aggregate(m, l.Key, func(e mem) {
				x.store(e, 8, x.bin(ir.Add, x.load(e, 8, false), ir.Imm(1)))
			}, func(v mem) { x.store(v, 8, ir.Imm(1)) })
		},
		"sum": func(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) {
			n := x.val(c.Args[0])
			x.aggregate(m, l.Key, func(e mem) {
				x.store(e, 8, x.bin(ir.Add, x.load(e, 8, false), n))
			}, func(v mem) { x.store(v, 8, n) })
		},
		"avg": average, "stats": average,
		"min":     func(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) { extreme(x, m, l, c, ir.Lt) },
		"max":     func(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) { extreme(x, m, l, c, ir.Gt) },
		"hist":    histogram,
		"lhist":   linear,
		"tseries": timeSeries,
	}
}

// aggregate updates this CPU's element in place, or creates it. Nobody else writes it, so no atomics are needed.
func (x *fn) aggregate(m *ir.Map, key syntax.Expr, upd, first func(mem)) {
	k := slotMem(x.temp(8))
	if m.Key == nil {
		x.store(k, 4, ir.Imm(0))
	} else {
		k = x.key(m, key)
	}
	x.aggregateAt(m, k, upd, first)
}

func (x *fn) aggregateAt(m *ir.Map, k mem, upd, first func(mem)) {
	p := x.lookup(m, k)
	some, none, end := x.block(), x.block(), x.block()
	x.branch(ir.Ne, p, ir.Imm(0), some, none)
	x.at(some)
	upd(mem{base: p.R})
	x.jump(end)
	x.at(none)
	if m.Kind != ir.PerCPUArray {
		v := slotMem(x.temp(max(8, m.ValueSize)))
		first(v)
		// A new element of a per-CPU map is zero on the other CPUs (kernel/bpf/hashtab.c, pcpu_init_value).
		x.lost(x.update(m, k, v, bpfAny))
	}
	x.jump(end)
	x.at(end)
}

// average keeps total and count.
func average(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) {
	n := x.val(c.Args[0])
	x.aggregate(m, l.Key, func(e mem) {
		x.store(e, 8, x.bin(ir.Add, x.load(e, 8, false), n))
		x.store(e.at(8), 8, x.bin(ir.Add, x.load(e.at(8), 8, false), ir.Imm(1)))
	}, func(v mem) {
		x.store(v, 8, n)
		x.store(v.at(8), 8, ir.Imm(1))
	})
}

// extreme keeps the least or greatest value, and a flag that there is one.
func extreme(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call, cond ir.Cond) {
	n := x.regVal(x.val(c.Args[0]))
	if m.Value.Signed {
		cond = signedCond[cond]
	}
	set := func(v mem) {
		x.store(v, 8, n)
		x.store(v.at(8), 8, ir.Imm(1))
	}
	x.aggregate(m, l.Key, func(e mem) {
		have, take, end := x.block(), x.block(), x.block()
		x.branch(ir.Ne, x.load(e.at(8), 8, false), ir.Imm(0), have, take)
		x.at(have)
		x.branch(cond, n, x.load(e, 8, false), take, end)
		x.at(take)
		set(e)
		x.jump(end)
		x.at(end)
	}, set)
}

// bucketKey builds a key whose last part is the bucket.
func (x *fn) bucketKey(m *ir.Map, key syntax.Expr, bucket ir.Val) mem {
	k := slotMem(x.temp(m.KeySize))
	if m.Key != nil {
		x.keyInto(k, m, key)
	}
	x.store(k.at(m.KeySize-8), 8, bucket)
	return k
}

func (x *fn) hit(m *ir.Map, k mem) {
	x.aggregateAt(m, k, func(e mem) {
		x.store(e, 8, x.bin(ir.Add, x.load(e, 8, false), ir.Imm(1)))
	}, func(v mem) { x.store(v, 8, ir.Imm(1)) })
}

// histogram puts a value in its power-of-two bucket: bucket 0 is below zero, 1 is zero, then 2^bits buckets between
// powers of two (see HistBucket in package view for the inverse).
func histogram(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) {
	v := x.val(c.Args[0])
	x.hit(m, x.bucketKey(m, l.Key, x.log2Bucket(v, m.Value.Bounds.Bits)))
}

// log2Bucket gives 0 for negative values, v+1 for v below 2^bits, and above that
// (log2(v)-bits+1)<<bits | the bits below the highest, plus 1.
func (x *fn) log2Bucket(v ir.Val, bits int) ir.Val {
	d, n, sh := x.f.NewReg(), x.f.NewReg(), x.f.NewReg()
	neg, pos, small, large, end := x.block(), x.block(), x.block(), x.block(), x.block()
	x.mov(n, v)
	x.branch(ir.SLt, ir.R(n), ir.Imm(0), neg, pos)
	x.at(neg)
	x.mov(d, ir.Imm(0))
	x.jump(end)
	x.at(pos)
	x.branch(ir.Lt, ir.R(n), ir.Imm(int64(1)<<bits), small, large)
	x.at(small)
	x.mov(d, x.bin(ir.Add, ir.R(n), ir.Imm(1)))
	x.jump(end)
	x.at(large)
	// log2 by halving; sh collects the exponent.
	w := x.f.NewReg()
	x.mov(w, ir.R(n))
	x.mov(sh, ir.Imm(0))
	for _, s := range []int64{32, 16, 8, 4, 2, 1} {
		up, next := x.block(), x.block()
		x.branch(ir.Ge, ir.R(w), x.wide(int64(1)<<s), up, next)
		x.at(up)
		x.mov(w, x.bin(ir.Shr, ir.R(w), ir.Imm(s)))
		x.mov(sh, x.bin(ir.Add, ir.R(sh), ir.Imm(s)))
		x.jump(next)
		x.at(next)
	}
	sub := x.bin(ir.Sub, ir.R(sh), ir.Imm(int64(bits)))
	low := x.bin(ir.And, x.bin(ir.Shr, ir.R(n), sub), ir.Imm(int64(1)<<bits-1))
	x.mov(d, x.bin(ir.Add, x.bin(ir.Or, x.bin(ir.Shl, x.bin(ir.Add, sub, ir.Imm(1)), ir.Imm(int64(bits))), low), ir.Imm(1)))
	x.jump(end)
	x.at(end)
	return ir.R(d)
}

// linear puts a value in a bucket of fixed width: 0 is below min, the last is max and above.
func linear(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) {
	b := m.Value.Bounds
	v := x.regVal(x.val(c.Args[0]))
	d := x.f.NewReg()
	low, notLow, high, mid, end := x.block(), x.block(), x.block(), x.block(), x.block()
	x.branch(ir.SLt, v, x.wide(b.Min), low, notLow)
	x.at(low)
	x.mov(d, ir.Imm(0))
	x.jump(end)
	x.at(notLow)
	x.branch(ir.SGe, v, x.wide(b.Max), high, mid)
	x.at(high)
	x.mov(d, ir.Imm((b.Max-b.Min)/b.Step+1))
	x.jump(end)
	x.at(mid)
	x.mov(d, x.bin(ir.Add, x.bin(ir.Div, x.bin(ir.Sub, v, x.wide(b.Min)), ir.Imm(b.Step)), ir.Imm(1)))
	x.jump(end)
	x.at(end)
	x.hit(m, x.bucketKey(m, l.Key, ir.R(d)))
}

// aggInt reads an aggregation in memory as an integer: an average is total over count.
func (x *fn) aggInt(v value) ir.Val {
	switch v.t.Kind {
	case types.Avg, types.Stats:
		op := ir.Div
		if v.t.Signed {
			op = ir.SDiv
		}
		return x.bin(op, x.load(v.m, 8, false), x.load(v.m.at(8), 8, false))
	}
	return x.load(v.m, 8, false)
}

// sumElem combines the elements of all CPUs into one of the same layout.
func (x *fn) sumElem(m *ir.Map, k mem) value {
	acc := slotMem(x.temp(16))
	x.zero(acc, 16)
	i := x.f.NewReg()
	head, body, some, next, end := x.block(), x.block(), x.block(), x.block(), x.block()
	x.mov(i, ir.Imm(0))
	x.jump(head)
	x.at(head)
	x.branch(ir.Lt, ir.R(i), ir.Imm(int64(x.b.opts.NumCPU)), body, end)
	x.at(body)
	kk := k
	if m.Key == nil {
		kk = slotMem(x.temp(8))
		x.store(kk, 4, ir.Imm(0))
	}
	p := x.call(ir.FnMapLookupPerCPU, x.mapPtr(m), x.addr(kk), ir.R(i))
	x.branch(ir.Ne, p, ir.Imm(0), some, next)
	x.at(some)
	x.combine(m, acc, mem{base: p.R})
	x.jump(next)
	x.at(next)
	x.mov(i, x.bin(ir.Add, ir.R(i), ir.Imm(1)))
	x.jump(head)
	x.at(end)
	return inMem(m.Value, acc)
}

func (x *fn) combine(m *ir.Map, acc, e mem) {
	v := x.load(e, 8, false)
	switch m.Value.Kind {
	case types.Min, types.Max:
		cond := ir.Lt
		if m.Value.Kind == types.Max {
			cond = ir.Gt
		}
		if m.Value.Signed {
			cond = signedCond[cond]
		}
		set, have, take, end := x.block(), x.block(), x.block(), x.block()
		x.branch(ir.Ne, x.load(e.at(8), 8, false), ir.Imm(0), set, end)
		x.at(set)
		x.branch(ir.Ne, x.load(acc.at(8), 8, false), ir.Imm(0), have, take)
		x.at(have)
		x.branch(cond, v, x.load(acc, 8, false), take, end)
		x.at(take)
		x.store(acc, 8, v)
		x.store(acc.at(8), 8, ir.Imm(1))
		x.jump(end)
		x.at(end)
	case types.Avg, types.Stats:
		x.store(acc.at(8), 8, x.bin(ir.Add, x.load(acc.at(8), 8, false), x.load(e.at(8), 8, false)))
		fallthrough
	default:
		x.store(acc, 8, x.bin(ir.Add, x.load(acc, 8, false), v))
	}
}
