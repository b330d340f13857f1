package packet

import (
	"slices"
	"strings"
	"time"
)

// rebuilding is how long after a packet was given to a device its copy may come out of it; ns.
const rebuilding = uint64(time.Second)

// inDrivers is how many packets, of those seen last, may be in drivers at a time.
const inDrivers = 512

// rebuilt gives the packet that a new one is a copy of: a driver's XDP copies packets that it cannot write into, and frees
// the old one, with an event or without (veth_convert_skb_to_xdp_buff in drivers/net/veth.c). The copy looks as what went
// into the driver. Of several that are alike, it is that of the oldest.
func (t *Tracker) rebuilt(h *Hop) *Packet {
	xdp := func(fn string) bool { return strings.Contains(fn, "xdp") }
	if h.Kind == Queue || h.Kind == Enqueued || !xdp(h.Func) && !slices.ContainsFunc(h.Path, xdp) {
		return nil
	}
	for _, p := range t.order[max(0, len(t.order)-inDrivers):] {
		if p.state != Open || len(p.Hops) == 0 {
			continue
		}
		was := lastEvent(p.Hops)
		if was.GSO > 1 && h.Kind == Xmit && h.GSO <= 1 {
			continue // the first of the segments that it was divided into, not a copy
		}
		a, b := &was.View, &h.View
		gone := was.Kind == Consume && (len(was.Path) == 0 || slices.ContainsFunc(was.Path, xdp)) // without a stack, by whom is not known
		if was.Kind != Xmit && !gone || a.Tuple != b.Tuple || a.ID != b.ID || a.Seq != b.Seq || h.Time-was.Time > rebuilding {
			continue
		}
		t.forget(p)
		p.skbs, p.head = append(p.skbs, h.Skb), h.Head
		t.bySkb[h.Skb], t.byHead[h.Head] = p, p
		return p
	}
	return nil
}

// lastPlace is the last of hops at which the packet itself was somewhere: a copy of it that went, such as the one that a
// neighbour is asked with, was elsewhere.
func lastPlace(hops []*Hop) *Hop {
	for _, h := range slices.Backward(hops) {
		if h.Kind != Step && (h.Kind != Consume || h.Last) {
			return h
		}
	}
	return lastEvent(hops)
}

// lastEvent is the last of hops, not empty, at which a packet was somewhere: no function that only has it in its hands,
// unless there is nothing else.
func lastEvent(hops []*Hop) *Hop {
	for _, h := range slices.Backward(hops) {
		if h.Kind != Step {
			return h
		}
	}
	return hops[0]
}
