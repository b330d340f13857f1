package view

import (
	"bytes"
	"math/bits"
	"slices"
	"strconv"

	"github.com/fathom-trace/fathom/lang/types"
)

// bucket is one row of a histogram: [lo, hi), open where noLo or noHi. For hist both are unsigned: hi may be 1<<63.
type bucket struct {
	k          uint64 // its number in the map's keys
	lo, hi     int64
	noLo, noHi bool
	n          uint64
}

// maxRows bounds what a histogram prints.
const maxRows = 1 << 16

// buckets gives the rows from the lowest to the highest that has a count, empty ones between them included. Counts are
// divided by div, but for lhist, where bpftrace takes no notice of it.
func buckets(t *types.Type, counts map[uint64]uint64, div uint64) []bucket {
	var used []uint64
	last := lastBucket(t)
	for k, n := range counts {
		if n > 0 && k <= last {
			used = append(used, k)
		}
	}
	if len(used) == 0 {
		return nil
	}
	if t.Kind == types.LHist || div == 0 {
		div = 1
	}
	slices.Sort(used)
	var out []bucket
	for k := used[0]; k <= used[len(used)-1] && len(out) < maxRows; k++ {
		b := bounds(t, k)
		b.n = counts[k] / div
		out = append(out, b)
	}
	return out
}

// lastBucket gives the number of the highest bucket of t.
func lastBucket(t *types.Type) uint64 {
	if t.Kind == types.LHist {
		return uint64(t.Bounds.Max-t.Bounds.Min)/uint64(max(1, t.Bounds.Step)) + 1
	}
	return (64 - histBits(t)) << histBits(t)
}

// histBits gives k: there are 1<<k buckets between two powers of two.
func histBits(t *types.Type) uint64 { return uint64(min(max(t.Bounds.Bits, 0), 8)) }

// bounds is the inverse of the numbering in ir/build: histogram and linear.
func bounds(t *types.Type, k uint64) bucket {
	b := bucket{k: k, noLo: k == 0}
	if t.Kind == types.LHist {
		step := max(1, t.Bounds.Step)
		b.hi = t.Bounds.Min + int64(k)*step
		b.lo = b.hi - step
		b.noHi = b.hi > t.Bounds.Max
		return b
	}
	if k > 0 {
		b.lo, b.hi = int64(floor(k-1, histBits(t))), int64(floor(k, histBits(t)))
	}
	return b
}

// floor gives the lowest value of the jth bucket from zero up: 1<<k values stand alone, then every power of two has
// 1<<k buckets.
func floor(j, k uint64) uint64 {
	if j <= 2<<k {
		return j
	}
	return (1<<k | j&(1<<k-1)) << (j>>k - 1)
}

// barWidth is the length of the longest bar.
const barWidth = 52

func histogram(dst []byte, t *types.Type, counts map[uint64]uint64, div uint64) []byte {
	rows := buckets(t, counts, div)
	var most uint64
	for _, r := range rows {
		most = max(most, r.n)
	}
	for _, r := range rows {
		from := len(dst)
		dst = pad(r.label(dst, t), from, 16, true, ' ')
		from = len(dst)
		dst = pad(strconv.AppendUint(dst, r.n, 10), from, 8, false, ' ')
		n := 0
		if most > 0 {
			n = min(int(float32(r.n)/float32(most)*barWidth), barWidth)
		}
		dst = append(dst, " |"...)
		dst = append(dst, bytes.Repeat([]byte{'@'}, n)...)
		dst = append(dst, bytes.Repeat([]byte{' '}, barWidth-n)...)
		dst = append(dst, "|\n"...)
	}
	return dst
}

func (b bucket) label(dst []byte, t *types.Type) []byte {
	if b.noLo {
		return append(b.bound(append(dst, "(..., "...), t, b.k, b.hi), ')')
	}
	dst = b.bound(append(dst, '['), t, b.k-1, b.lo)
	switch {
	case b.noHi:
		return append(dst, ", ...)"...)
	case b.hi == b.lo+1:
		return append(dst, ']')
	}
	return append(b.bound(append(dst, ", "...), t, b.k, b.hi), ')')
}

// bound appends n, the lowest value of bucket j+1, in the units bpftrace chooses.
func (b bucket) bound(dst []byte, t *types.Type, j uint64, n int64) []byte {
	if t.Kind == types.LHist {
		return linearBound(dst, t, n)
	}
	k := histBits(t)
	if j <= 2<<k {
		return strconv.AppendInt(dst, n, 10)
	}
	// The unit follows the exponent of the smallest step, so that 1024 is 1024 where four buckets share a power of two.
	const units = "KMGTPE"
	unit := (j>>k - 1) / 10
	dst = strconv.AppendUint(dst, uint64(n)>>(10*unit), 10)
	if unit > 0 && unit <= uint64(len(units)) {
		dst = append(dst, units[unit-1])
	}
	return dst
}

// linearBound uses K and M only where all bounds can be written so: where the step can.
func linearBound(dst []byte, t *types.Type, n int64) []byte {
	if zeros := bits.TrailingZeros64(uint64(n)); n != 0 && t.Bounds.Step%1024 == 0 {
		switch {
		case zeros >= 20:
			return append(strconv.AppendInt(dst, n/(1<<20), 10), 'M')
		case zeros >= 10:
			return append(strconv.AppendInt(dst, n/(1<<10), 10), 'K')
		}
	}
	return strconv.AppendInt(dst, n, 10)
}
