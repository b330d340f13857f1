package vmcore

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// extent is a run of an address space that stands at off of a file.
type extent struct {
	at, n uint64
	off   int64
}

func (e extent) end() uint64 { return e.at + e.n }

// disjoint cuts overlapping extents so that each address has one: the last in the list that covers it. Segments of
// /proc/vmcore overlap (kernel text and direct map), those of a paging dump many times, and a flattened file rewrites its
// header: a binary search over the raw list would find holes.
func disjoint(in []extent) []extent {
	type ranked struct {
		extent
		rank int
	}
	all := make([]ranked, 0, len(in))
	for i, e := range in {
		if e.n > 0 && e.end() > e.at {
			all = append(all, ranked{e, i})
		}
	}
	sorting.By(all, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.rank, b.rank)) })
	var out []extent
	add := func(e extent) {
		if k := len(out); k > 0 && out[k-1].end() == e.at && out[k-1].off+int64(out[k-1].n) == e.off {
			out[k-1].n += e.n
			return
		}
		out = append(out, e)
	}
	open := &byRank{}
	pos, i := uint64(0), 0
	for i < len(all) || open.Len() > 0 {
		if open.Len() == 0 {
			pos = all[i].at
		}
		for i < len(all) && all[i].at <= pos {
			heap.Push(open, rankedExtent{all[i].extent, all[i].rank})
			i++
		}
		top := (*open)[0]
		if top.end() <= pos {
			heap.Pop(open)
			continue
		}
		end := top.end()
		if i < len(all) && all[i].at < end {
			end = all[i].at // what starts there may be over it
		}
		add(extent{at: pos, n: end - pos, off: top.off + int64(pos-top.at)})
		pos = end
	}
	return out
}

type rankedExtent struct {
	extent
	rank int
}

// byRank is a heap whose top is the extent that covers the others.
type byRank []rankedExtent

func (h byRank) Len() int           { return len(h) }
func (h byRank) Less(i, j int) bool { return h[i].rank > h[j].rank }
func (h byRank) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *byRank) Push(x any)        { *h = append(*h, x.(rankedExtent)) }
func (h *byRank) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}

// find gives the extent that covers at.
func find(es []extent, at uint64) (extent, bool) {
	i, ok := slices.BinarySearchFunc(es, at, func(e extent, a uint64) int { return cmp.Compare(e.at, a) })
	if !ok {
		i--
	}
	if i < 0 || at-es[i].at >= es[i].n {
		return extent{}, false
	}
	return es[i], true
}
