package opt

import (
	"math"
	"math/rand/v2"
	"testing"

	"github.com/fathom-trace/fathom/ir"
)

// near gives numbers at which mistakes are made.
func near(r *rand.Rand) int64 {
	edges := []int64{0, 1, -1, math.MinInt64, math.MaxInt64, math.MaxUint32, math.MaxInt32, math.MinInt32, 255, 256, 1 << 40}
	v := edges[r.IntN(len(edges))]
	if r.IntN(2) == 0 {
		v += int64(r.IntN(5)) - 2
	}
	return v
}

// around gives a span that holds v.
func around(r *rand.Rand, v int64) span {
	s := anything
	for range r.IntN(4) {
		c := ir.Cond(r.IntN(int(ir.Set)))
		if n := near(r); c.Eval(v, n) {
			s = s.given(c, n)
		} else {
			s = s.given(c.Not(), n)
		}
	}
	return s
}

func (s span) holds(v int64) bool {
	return uint64(v) >= s.lo && uint64(v) <= s.hi && v >= s.slo && v <= s.shi
}

// TestSpan computes with numbers and with the spans around them: the one stays within the other.
func TestSpan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300000 {
		a, b := near(r), near(r)
		sa, sb := around(r, a), around(r, b)
		if r.IntN(3) == 0 {
			sb = exactly(b)
		}
		if !sa.holds(a) {
			t.Fatalf("%d is not in %+v", a, sa)
		}
		n := ir.Ins{Op: ir.Bin, Alu: ir.Alu(r.IntN(int(ir.Sar) + 1))}
		if got, s := n.Alu.Eval(a, b), spanOf(&n, sa, sb); !s.holds(got) {
			t.Fatalf("%d %v %d is %d, not in %+v; operands in %+v and %+v", a, n.Alu, b, got, s, sa, sb)
		}
		n = ir.Ins{Op: ir.Ext, Size: 1 << r.IntN(4), Signed: r.IntN(2) == 0}
		if got, s := ir.Extend(a, n.Size, n.Signed), spanOf(&n, sa, sb); !s.holds(got) {
			t.Fatalf("%v of %d is %d, not in %+v", n.String(), a, got, s)
		}
		if sa.fits(n.Size, n.Signed) && ir.Extend(a, n.Size, n.Signed) != a {
			t.Fatalf("%d of %+v does not fit %d bytes, signed %v", a, sa, n.Size, n.Signed)
		}
		c := ir.Cond(r.IntN(int(ir.Set) + 1))
		if holds, known := sa.decides(c, b); known && holds != c.Eval(a, b) {
			t.Fatalf("%d %v %d is taken to be %v; %+v", a, c, b, holds, sa)
		}
	}
}
