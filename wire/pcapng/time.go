package pcapng

import (
	"math"
	"math/bits"
)

const second = 1_000_000_000

// time gives a time stamp in ns since 1970. What does not fit int64 is given as its largest value.
func (i *Interface) time(at uint64) int64 {
	var secs, ns uint64
	if n := uint(i.resolution & 0x7f); i.resolution&0x80 != 0 { // units of 2^-n s
		if n < 64 {
			secs, at = at>>n, at&(1<<n-1)
		}
		if n > 64 {
			at, n = at>>(n-64), 64
		}
		hi, lo := bits.Mul64(at, second)
		if n == 64 {
			ns = hi
		} else {
			ns = hi<<(64-n) | lo>>n
		}
	} else { // units of 10^-n s
		unit := uint64(1)
		for range min(n, 19) {
			unit *= 10
		}
		secs = at / unit
		hi, lo := bits.Mul64(at%unit, second)
		ns, _ = bits.Div64(hi, lo, unit)
	}
	all := float64(secs) + float64(i.offset)
	if math.Abs(all) > math.MaxInt64/second-1 {
		return math.MaxInt64
	}
	return (int64(secs)+i.offset)*second + int64(ns)
}
