package packet

import (
	"cmp"
	"math/bits"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Stage is a part of packets' ways between two events, with how long it took: a histogram by powers of two.
type Stage struct {
	Name    string     `json:"stage"`
	Netns   uint32     `json:"netns"`
	Dev     string     `json:"dev,omitempty"`
	Waiting bool       `json:"waiting"` // in a queue; else somebody worked on it
	Count   uint64     `json:"count"`
	Sum     uint64     `json:"sum_ns"`
	Max     uint64     `json:"max_ns"`
	Slowest uint64     `json:"slowest"` // the packet that took longest
	Hist    [64]uint64 `json:"hist"`    // Hist[i]: those of at least 2^i ns and less than twice that
}

// Percentile is the upper bound of the power of two in which a share q, 0…1, of the packets lies; ns.
func (s *Stage) Percentile(q float64) uint64 {
	want := uint64(q*float64(s.Count) + 0.5)
	var n uint64
	for i, c := range s.Hist {
		if n += c; n >= want && c > 0 {
			return min(uint64(1)<<(i+1)-1, s.Max)
		}
	}
	return s.Max
}

// between names what happens from one event to the next; "" if that is no stage of its own.
func between(a, b Kind) (name string, waiting bool) {
	switch {
	case a == Queue && b == Xmit, a == Enqueued && (b == Dequeued || b == Xmit):
		return "queue of the device", true
	case a == RxQueue && (b == Rx || b == RxEntry):
		return "backlog of the CPU", true
	case a == Xmit && (b == RxQueue || b == Rx || b == RxEntry):
		return "wire", false
	case a == Rx && b == Copied:
		return "stack and socket", true
	case (a == Rx || a == RxEntry) && (b == Queue || b == Enqueued):
		return "forwarding", false
	case a == Rx && b == Drop, a == Rx && b == Consume:
		return "stack", false
	}
	return "", false
}

type stageKey struct {
	name, dev string
	netns     uint32
}

const mostStages = 1024

// timed notes how long a packet took since its last event that counts.
func (t *Tracker) timed(p *Packet, h *Hop) {
	if h.Kind == Step {
		return
	}
	was := p.timed
	p.timed = h
	if was == nil || h.Time < was.Time {
		return
	}
	name, waiting := between(was.Kind, h.Kind)
	if name == "" {
		return
	}
	k := stageKey{name, h.Dev, h.Netns}
	if k.dev == "" {
		k.dev, k.netns = was.Dev, was.Netns
	}
	s := t.stages[k]
	if s == nil {
		if len(t.stages) >= mostStages {
			return
		}
		s = &Stage{Name: name, Netns: k.netns, Dev: k.dev, Waiting: waiting}
		t.stages[k] = s
	}
	d := h.Time - was.Time
	s.Count++
	s.Sum += d
	s.Hist[max(0, bits.Len64(d)-1)]++
	if d >= s.Max {
		s.Max, s.Slowest = d, p.ID
	}
}

// Stages gives how long the parts of packets' ways took, those that took longest in all first.
func (t *Tracker) Stages() (out []*Stage) {
	for _, s := range t.stages {
		out = append(out, s)
	}
	sorting.By(out, func(a, b *Stage) int {
		return cmp.Or(cmp.Compare(b.Sum, a.Sum), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Dev, b.Dev), cmp.Compare(a.Netns, b.Netns))
	})
	return out
}
