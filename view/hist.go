package view

import (
	"bytes"
	"sort"
	"strconv"

	"github.com/fathom-trace/fathom/lang/types"
)

// bucket is one row of a histogram: [lo, hi), open where noLo or noHi.
type bucket struct {
	lo, hi     int64
	noLo, noHi bool
	n          uint64
}

// buckets gives the rows from the lowest to the highest that has a count, empty ones between them included.
func buckets(t *types.Type, counts map[uint64]uint64) []bucket {
	var used []uint64
	for k, n := range counts {
		if n > 0 {
			used = append(used, k)
		}
	}
	if len(used) == 0 {
		return nil
	}
	sort.Slice(used, func(i, j int) bool { return used[i] < used[j] })
	const most = 1 << 16
	var out []bucket
	for k := used[0]; k <= used[len(used)-1] && len(out) < most; k++ {
		b := bounds(t, k)
		b.n = counts[k]
		out = append(out, b)
	}
	return out
}

// bounds is the inverse of the numbering in ir/build: histogram and linear.
func bounds(t *types.Type, k uint64) bucket {
	if t.Kind == types.LHist {
		b := t.Bounds
		step := max(1, b.Step)
		last := uint64((b.Max-b.Min)/step) + 1
		switch {
		case k == 0:
			return bucket{hi: b.Min, noLo: true}
		case k >= last:
			return bucket{lo: b.Max, noHi: true}
		}
		lo := b.Min + int64(k-1)*step
		return bucket{lo: lo, hi: lo + step}
	}
	bits := uint(min(max(t.Bounds.Bits, 0), 8))
	switch {
	case k == 0:
		return bucket{hi: 0, noLo: true}
	case k <= 1<<bits:
		return bucket{lo: int64(k - 1), hi: int64(k)}
	}
	// k-1 = (exponent-bits+1)<<bits | low
	e, low := (k-1)>>bits, (k-1)&(1<<bits-1)
	sh := uint(e - 1)
	if sh+bits > 62 {
		return bucket{lo: 1 << 62, noHi: true}
	}
	lo := int64((1<<bits | low) << sh)
	return bucket{lo: lo, hi: lo + 1<<sh}
}

// barWidth is the length of the longest bar.
const barWidth = 52

func (o *Output) histogram(dst []byte, t *types.Type, counts map[uint64]uint64, div uint64) []byte {
	rows := buckets(t, counts)
	var most uint64
	for i := range rows {
		rows[i].n /= div
		most = max(most, rows[i].n)
	}
	for _, r := range rows {
		from := len(dst)
		dst = r.label(dst, t.Kind == types.Hist)
		dst = pad(dst, from, 16, true, ' ')
		from = len(dst)
		dst = strconv.AppendUint(dst, r.n, 10)
		dst = pad(dst, from, 8, false, ' ')
		dst = append(dst, " |"...)
		n := 0
		if most > 0 {
			n = int(float32(r.n) / float32(most) * barWidth)
		}
		dst = append(dst, bytes.Repeat([]byte{'@'}, n)...)
		dst = append(dst, bytes.Repeat([]byte{' '}, barWidth-n)...)
		dst = append(dst, "|\n"...)
	}
	return dst
}

func (b bucket) label(dst []byte, short bool) []byte {
	num := func(n int64) {
		if short {
			dst = scaled(dst, n)
		} else {
			dst = strconv.AppendInt(dst, n, 10)
		}
	}
	switch {
	case b.noLo:
		dst = append(dst, "(..., "...)
		num(b.hi)
		return append(dst, ')')
	case b.noHi:
		dst = append(dst, '[')
		num(b.lo)
		return append(dst, ", ...)"...)
	case b.hi == b.lo+1:
		dst = append(dst, '[')
		num(b.lo)
		return append(dst, ']')
	}
	dst = append(dst, '[')
	num(b.lo)
	dst = append(dst, ", "...)
	num(b.hi)
	return append(dst, ')')
}

// scaled writes 1024 as 1K and so on, where nothing is lost.
func scaled(dst []byte, n int64) []byte {
	const units = "KMGTPE"
	i := -1
	for n >= 1024 && n%1024 == 0 && i+1 < len(units) {
		n /= 1024
		i++
	}
	dst = strconv.AppendInt(dst, n, 10)
	if i >= 0 {
		dst = append(dst, units[i])
	}
	return dst
}
