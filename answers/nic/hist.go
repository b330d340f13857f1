package nic

import "math/bits"

// Histograms of nanoseconds: 16 buckets for each power of two, so a quantile is off by at most a sixteenth. Programs count
// in them (code.count), and this reads them.
const (
	histSub   = 16
	histSize  = 1024 // buckets that there can be, rounded up
	subBits   = 4
	histFirst = 1 << subBits // below it each number has a bucket
)

// bucketTop is the largest number of a bucket.
func bucketTop(b int) uint64 {
	if b < histFirst {
		return uint64(b)
	}
	e := b/histSub + subBits - 1
	if e > 63 {
		return ^uint64(0)
	}
	low := uint64(histSub+b%histSub) << (e - subBits)
	return low + 1<<(e-subBits) - 1
}

// bucketOf is the bucket of a number, as programs find it.
func bucketOf(ns uint64) int {
	if ns < histFirst {
		return int(ns)
	}
	e := bits.Len64(ns) - 1
	return (e-subBits+1)*histSub + int(ns>>(e-subBits)&(histSub-1))
}

// Hist is how long something took, how often.
type Hist struct {
	Count   uint64
	Sum     uint64 // ns
	Max     uint64 // ns
	buckets [histSize]uint64
}

// Add counts a time.
func (h *Hist) Add(ns uint64) {
	h.merge(Hist{Count: 1, Sum: ns, Max: ns})
	h.buckets[bucketOf(ns)]++
}

// Join adds all that another one counted.
func (h *Hist) Join(o *Hist) {
	h.merge(*o)
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
}

func (h *Hist) merge(o Hist) {
	h.Count, h.Sum, h.Max = h.Count+o.Count, h.Sum+o.Sum, max(h.Max, o.Max)
}

// Quantile gives the time that a part of all, between 0 and 1, did not exceed; 0 if there was nothing.
func (h *Hist) Quantile(part float64) uint64 {
	var total uint64
	for _, n := range h.buckets {
		total += n
	}
	if total == 0 {
		return 0
	}
	want, seen := uint64(part*float64(total)), uint64(0)
	if want >= total {
		want = total - 1
	}
	for b, n := range h.buckets {
		if seen += n; seen > want {
			return min(bucketTop(b), max(h.Max, 1))
		}
	}
	return h.Max
}

// Mean is the average; 0 if there was nothing.
func (h *Hist) Mean() uint64 {
	if h.Count == 0 {
		return 0
	}
	return h.Sum / h.Count
}

// Powers are the counts by powers of two, with the exponent of the first that is not 0.
func (h *Hist) Powers() (first int, counts []uint64) {
	var by [65]uint64
	for b, n := range h.buckets {
		by[bits.Len64(bucketTop(b))] += n
	}
	last := -1
	first = -1
	for i, n := range by {
		if n > 0 {
			if first < 0 {
				first = i
			}
			last = i
		}
	}
	if first < 0 {
		return 0, nil
	}
	return first, by[first : last+1]
}
