package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// tseriesBucket is the size of one interval of a tseries: its number since the epoch of TAI, the value, and for averages
// the count, else the time of the value.
const tseriesBucket = 24

// Where the parts of a bucket are.
const (
	tsEpoch = 0
	tsValue = 8
	tsMeta  = 16
)

// timeSeries puts a value in the bucket of the interval it falls into. A series has as many buckets as it keeps
// intervals, used in turn: one whose interval is over begins anew.
func timeSeries(x *fn, m *ir.Map, l *syntax.MapRef, c *syntax.Call) {
	b := m.Value.Bounds
	n := x.regVal(x.val(c.Args[0]))
	now := x.regVal(x.seriesClock())
	epoch := x.regVal(x.bin(ir.Div, now, x.wide(b.Step)))
	k := x.bucketKey(m, l.Key, x.bin(ir.Mod, epoch, x.wide(max(1, b.Max))))
	meta := now
	if b.Agg != "" {
		meta = ir.Imm(1)
	}
	set := func(e mem) {
		x.store(e.at(tsEpoch), 8, epoch)
		x.store(e.at(tsValue), 8, n)
		x.store(e.at(tsMeta), 8, meta)
	}
	x.aggregateAt(m, k, func(e mem) {
		same, fresh, end := x.block(), x.block(), x.block()
		x.branch(ir.Eq, x.load(e.at(tsEpoch), 8, false), epoch, same, fresh)
		x.at(same)
		x.seriesMerge(m.Value, e, n, set)
		x.jump(end)
		x.at(fresh)
		set(e)
		x.jump(end)
		x.at(end)
	}, set)
}

// seriesMerge combines a value with what its interval has already.
func (x *fn) seriesMerge(t *types.Type, e mem, n ir.Val, set func(mem)) {
	switch t.Bounds.Agg {
	case "avg", "sum":
		x.store(e.at(tsValue), 8, x.bin(ir.Add, x.load(e.at(tsValue), 8, false), n))
		x.store(e.at(tsMeta), 8, x.bin(ir.Add, x.load(e.at(tsMeta), 8, false), ir.Imm(1)))
	case "min", "max":
		cond := ir.Lt
		if t.Bounds.Agg == "max" {
			cond = ir.Gt
		}
		if t.Signed {
			cond = signedCond[cond]
		}
		take, end := x.block(), x.block()
		x.branch(cond, n, x.load(e.at(tsValue), 8, false), take, end)
		x.at(take)
		set(e)
		x.jump(end)
		x.at(end)
	default:
		set(e)
	}
}

// seriesClock is TAI: it has no leap seconds, so intervals are all of one length.
func (x *fn) seriesClock() ir.Val {
	if m := x.b.maps[x.b.opts.ClockMap]; m != nil && m.Kind == ir.Array && m.Value.IsInt() {
		return x.load(x.elem(m), size8(m.ValueSize), m.Value.Signed)
	}
	return x.bin(ir.Add, x.call(ir.FnKtimeGetBootNs), x.wide(x.b.opts.TAIOffset))
}
