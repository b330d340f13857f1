package packet

import (
	"cmp"
	"slices"
)

// ends are the packets at the edges of a host, by the trail and, of several segments, which.
type ends struct {
	ins, outs [][]*occurrence // a segment that another trail stands for is nil
	child     []bool          // the trail is of a segment that another trail was divided into, or was merged into another
	whole     []bool          // the trail is told as one packet: there are too many segments
	// rest is the trail of what became of a segment of a trail that was divided; -1 if that cannot be told.
	rest map[piece]int
}

// piece is a segment of a trail.
type piece struct{ index, part int }

// merging is how long segments may wait to be merged, dividing how long a packet may wait to be divided; ns.
const (
	merging  = uint64(5e9)
	dividing = uint64(5e9)
)

// out is how a segment that came left the host; nil if it did not.
func (e *ends) out(i, k int) *occurrence {
	if e.ins[i][k] == nil {
		return nil
	}
	if r, ok := e.rest[piece{i, k}]; ok {
		if r < 0 || len(e.outs[r]) != 1 {
			return nil
		}
		return e.outs[r][0]
	}
	if e.child[i] || len(e.outs[i]) != len(e.ins[i]) {
		return nil
	}
	return e.outs[i][k]
}

// ends finds the packets at the edges of a host, and follows segments that it merged and divided.
func (j *Joined) ends(h int, s *Seen, total *int) *ends {
	n := len(s.Trails)
	e := &ends{ins: make([][]*occurrence, n), outs: make([][]*occurrence, n), child: make([]bool, n), whole: make([]bool, n), rest: map[piece]int{}}
	divided := make([][]*occurrence, n)
	for i := range s.Trails {
		t := &s.Trails[i]
		if t.Merged {
			j.Merged++
			continue
		}
		came, left := max(1, t.In.Seg.count()), 0
		for _, m := range []*Mark{t.Out, t.Divided} {
			if m != nil {
				left = max(1, m.Seg.count())
			}
		}
		if *total += came + left; came+left > 2 && *total > mostOccurrences || left != 0 && left != came {
			e.whole[i] = true
			j.Merged++
			continue
		}
		e.ins[i] = j.take(h, i, &t.In)
		if t.Out != nil {
			e.outs[i] = j.take(h, i, t.Out)
		}
		if t.Divided != nil {
			divided[i] = j.take(h, i, t.Divided)
		}
		if came > 1 {
			j.Parted, j.Parts = j.Parted+1, j.Parts+uint64(came)
		}
	}
	e.merged(s.Trails)
	j.Ambiguous += e.divided(s.Trails, divided)
	return e
}

// alone gives the trails of single segments that were first seen by an event, by what they look like.
func (e *ends) alone(trails []Trail, first Kind) map[uint64][]int {
	by := map[uint64][]int{}
	for i := range trails {
		if t := &trails[i]; t.First == first && t.In.Seg.count() == 1 && len(e.ins[i]) == 1 && t.Divided == nil {
			by[t.In.Head] = append(by[t.In.Head], i)
		}
	}
	return by
}

// merged finds the segments that drivers handed over and that were merged into another: they came when they were handed over,
// and the other's trail tells the rest of their way; or their own does, where the other kept them whole.
func (e *ends) merged(trails []Trail) {
	alone := e.alone(trails, RxEntry)
	if len(alone) == 0 {
		return
	}
	for i := range trails {
		t := &trails[i]
		if t.First != RxEntry || len(e.ins[i]) < 2 {
			continue
		}
		for k, o := range e.ins[i][1:] {
			for _, key := range o.keys {
				at := slices.IndexFunc(alone[key], func(x int) bool {
					m := &trails[x].In
					return !e.child[x] && same(m, o.mark) && m.Time >= t.In.Time && m.Time-t.In.Time <= merging
				})
				if at < 0 {
					continue
				}
				if x := alone[key][at]; trails[x].Out == nil {
					e.child[x], o.time = true, trails[x].In.Time
				} else {
					e.ins[i][k+1] = nil
				}
				break
			}
		}
	}
}

// divided finds the segments that packets were divided into, which devices sent one by one. Of several that look alike, as many as
// there are packets, each is that of the packet which was queued in its turn. It gives how many cannot be told apart.
func (e *ends) divided(trails []Trail, parents [][]*occurrence) (unclear uint64) {
	alone := e.alone(trails, Xmit)
	groups := map[uint64][]*occurrence{}
	for _, parts := range parents {
		for k, o := range parts {
			if e.ins[o.index][k] == nil {
				continue
			}
			for _, key := range o.keys {
				if len(alone[key]) > 0 {
					groups[key] = append(groups[key], o)
					break
				}
			}
		}
	}
	for key, from := range groups {
		to := slices.SortedFunc(slices.Values(alone[key]), func(a, b int) int { return cmp.Compare(trails[a].In.Time, trails[b].In.Time) })
		slices.SortStableFunc(from, func(a, b *occurrence) int { return cmp.Compare(a.time, b.time) })
		ok := len(from) == len(to)
		for k := 0; ok && k < len(from); k++ {
			m := &trails[to[k]].In
			ok = same(m, from[k].mark) && m.Time >= from[k].time && m.Time-from[k].time <= dividing
		}
		for k, o := range from {
			at := piece{o.index, o.part}
			if !ok {
				e.rest[at] = -1
				unclear++
				continue
			}
			e.rest[at], e.child[to[k]] = to[k], true
		}
	}
	return unclear
}

// strayKey is a stream of TCP that came to a host.
type strayKey struct {
	host   int
	stream uint64
}

// mostLength is more than a packet's bytes.
const mostLength = 1 << 16

// strayed says if a segment that left a host may be one that came to another and was not joined with any: they have bytes in
// common, and the clocks allow it.
func (j *Joined) strayed(l Leg, to int) bool {
	out := j.leaves(l)
	if out == nil || out.mark.Seg == nil {
		return false
	}
	if j.astray == nil {
		j.astray = map[strayKey][]*occurrence{}
		for h, e := range j.hosts {
			for i := range e.ins {
				for _, in := range e.ins[i] {
					if in != nil && in.mate == nil && !e.child[i] && in.mark.Seg != nil {
						k := strayKey{h, in.mark.Seg.Stream}
						j.astray[k] = append(j.astray[k], in)
					}
				}
			}
		}
		for _, list := range j.astray {
			slices.SortStableFunc(list, func(a, b *occurrence) int { return cmp.Compare(a.seg().Seq, b.seg().Seq) })
		}
	}
	s := out.seg()
	list := j.astray[strayKey{to, s.Stream}]
	from := s.Seq - mostLength // numbers begin anew behind the largest, and so does the list
	first, _ := slices.BinarySearchFunc(list, from, func(o *occurrence, seq uint32) int { return cmp.Compare(o.seg().Seq, seq) })
	for k := range list {
		in := list[(first+k)%len(list)]
		p := in.seg()
		if p.Seq-from >= mostLength+s.Len {
			return false
		}
		if s.overlaps(&p) && j.possible(out, in) {
			return true
		}
	}
	return false
}

// seg is the segment of an occurrence whose mark has one.
func (o *occurrence) seg() Seg { return o.mark.Seg.part(o.part) }

// leaves is how a leg's packet left its host.
func (j *Joined) leaves(l Leg) *occurrence {
	e := j.hosts[l.Host]
	if l.Part >= len(e.ins[l.index]) {
		return nil
	}
	return e.out(l.index, l.Part)
}
