package opt

import (
	"math"
	"math/bits"

	"github.com/fathom-trace/fathom/ir"
)

// span is what is known of a value: its least and greatest as an unsigned and as a signed number.
type span struct {
	lo, hi   uint64
	slo, shi int64
}

var anything = span{0, math.MaxUint64, math.MinInt64, math.MaxInt64}

func exactly(v int64) span { return span{uint64(v), uint64(v), v, v} }

// below gives 0 … hi.
func below(hi uint64) span { return span{hi: hi, slo: math.MinInt64, shi: math.MaxInt64}.both() }

// between gives the signed numbers lo … hi.
func between(lo, hi int64) span { return span{0, math.MaxUint64, lo, hi}.both() }

// both lets each half learn from the other.
func (s span) both() span {
	if s.hi <= math.MaxInt64 { // no sign bit
		s.slo, s.shi = max(s.slo, int64(s.lo)), min(s.shi, int64(s.hi))
	} else if s.lo > math.MaxInt64 { // all negative
		s.slo, s.shi = max(s.slo, int64(s.lo)), min(s.shi, int64(s.hi))
	}
	if s.slo >= 0 || s.shi < 0 {
		s.lo, s.hi = max(s.lo, uint64(s.slo)), min(s.hi, uint64(s.shi))
	}
	return s
}

// empty says that no value fits: the place cannot be reached.
func (s span) empty() bool { return s.lo > s.hi || s.slo > s.shi }

// isConst gives the only value.
func (s span) isConst() (int64, bool) { return int64(s.lo), s.lo == s.hi }

// fits says if a value is unchanged when it is cut to size bytes and extended.
func (s span) fits(size uint8, signed bool) bool {
	n := 8 * uint(size)
	if signed {
		return s.slo >= -1<<(n-1) && s.shi <= 1<<(n-1)-1
	}
	return n >= 64 || s.hi < 1<<n
}

// given gives s where it is known that v c n holds.
func (s span) given(c ir.Cond, n int64) span {
	u := uint64(n)
	switch c {
	case ir.Eq:
		s.lo, s.hi, s.slo, s.shi = max(s.lo, u), min(s.hi, u), max(s.slo, n), min(s.shi, n)
	case ir.Ne:
		s = s.without(n)
	case ir.Lt:
		if u == 0 {
			return span{1, 0, 1, 0}
		}
		s.hi = min(s.hi, u-1)
	case ir.Le:
		s.hi = min(s.hi, u)
	case ir.Gt:
		if u == math.MaxUint64 {
			return span{1, 0, 1, 0}
		}
		s.lo = max(s.lo, u+1)
	case ir.Ge:
		s.lo = max(s.lo, u)
	case ir.SLt:
		if n == math.MinInt64 {
			return span{1, 0, 1, 0}
		}
		s.shi = min(s.shi, n-1)
	case ir.SLe:
		s.shi = min(s.shi, n)
	case ir.SGt:
		if n == math.MaxInt64 {
			return span{1, 0, 1, 0}
		}
		s.slo = max(s.slo, n+1)
	case ir.SGe:
		s.slo = max(s.slo, n)
	}
	if s.empty() {
		return s
	}
	return s.both()
}

// without drops n where it is an end.
func (s span) without(n int64) span {
	u := uint64(n)
	if s.lo == u && s.hi == u {
		return span{1, 0, 1, 0}
	}
	if s.lo == u {
		s.lo++
	}
	if s.hi == u {
		s.hi--
	}
	if s.slo == n && s.slo < math.MaxInt64 {
		s.slo++
	}
	if s.shi == n && s.shi > math.MinInt64 {
		s.shi--
	}
	return s
}

// decides says if v c n is known, and how.
func (s span) decides(c ir.Cond, n int64) (holds, known bool) {
	if c == ir.Set {
		if bits.Len64(s.hi) <= bits.TrailingZeros64(uint64(n)) {
			return false, true
		}
		return false, false
	}
	if s.given(c, n).empty() {
		return false, true
	}
	if s.given(c.Not(), n).empty() {
		return true, true
	}
	return false, false
}

// spanOf gives what the operation of n tells of its result, its operands being in a and b. It tells no more than the
// kernel's verifier finds out by itself (of division, for one, that is nothing): a check that is left out because of it is
// one the verifier does not need to see.
func spanOf(n *ir.Ins, a, b span) span {
	switch n.Op {
	case ir.Const:
		return exactly(n.A.Imm)
	case ir.Mov:
		return a
	case ir.Load, ir.Field:
		return loaded(n.Size, n.Signed)
	case ir.Ext:
		if a.fits(n.Size, n.Signed) {
			return a
		}
		return loaded(n.Size, n.Signed)
	case ir.Bin:
		return computed(n.Alu, a, b)
	}
	return anything
}

func loaded(size uint8, signed bool) span {
	switch {
	case size == 0 || size >= 8:
		return anything
	case signed:
		return between(-1<<(8*size-1), 1<<(8*size-1)-1)
	}
	return below(1<<(8*size) - 1)
}

// computed gives the span of an arithmetic result.
func computed(op ir.Alu, a, b span) span {
	c, known := b.isConst()
	switch op {
	case ir.And:
		return below(min(a.hi, b.hi))
	case ir.Shr:
		if known {
			n := uint64(c) & 63
			return span{a.lo >> n, a.hi >> n, math.MinInt64, math.MaxInt64}.both()
		}
	case ir.Shl:
		if known {
			if n := uint64(c) & 63; a.hi <= math.MaxUint64>>n {
				return span{a.lo << n, a.hi << n, math.MinInt64, math.MaxInt64}.both()
			}
		}
	case ir.Sar:
		if known {
			n := uint64(c) & 63
			return between(a.slo>>n, a.shi>>n)
		}
	case ir.Add:
		lo, c1 := bits.Add64(a.lo, b.lo, 0)
		hi, c2 := bits.Add64(a.hi, b.hi, 0)
		if c1 == 0 && c2 == 0 {
			return span{lo, hi, math.MinInt64, math.MaxInt64}.both()
		}
	case ir.Sub:
		if a.lo >= b.hi {
			return span{a.lo - b.hi, a.hi - b.lo, math.MinInt64, math.MaxInt64}.both()
		}
	case ir.Mul:
		if o, _ := bits.Mul64(a.hi, b.hi); o == 0 {
			return span{a.lo * b.lo, a.hi * b.hi, math.MinInt64, math.MaxInt64}.both()
		}
	case ir.Or, ir.Xor:
		if n := bits.Len64(a.hi | b.hi); n < 64 {
			return below(1<<n - 1)
		}
	}
	return anything
}
