package packet

import (
	"slices"
	"strings"
	"time"
)

// rebuilding is how long after a packet was given to a device its copy may come out of it; ns.
const rebuilding = uint64(time.Second)

// rebuilt gives the packet that a new one is a copy of: a driver's XDP takes the memory of packets that it cannot write
// into anew, and frees the old without an event (veth_convert_skb_to_xdp_buff in drivers/net/veth.c). It comes out of the
// driver as it went in. Of several that are alike, it is the oldest.
func (t *Tracker) rebuilt(h *Hop) *Packet {
	xdp := func(fn string) bool { return strings.Contains(fn, "xdp") }
	if h.Kind == Queue || h.Kind == Enqueued || !xdp(h.Func) && !slices.ContainsFunc(h.Path, xdp) {
		return nil
	}
	for _, p := range t.order {
		if p.state != Open || len(p.Hops) == 0 {
			continue
		}
		was := p.Hops[len(p.Hops)-1]
		a, b := &was.View, &h.View
		if was.Kind != Xmit || a.Tuple != b.Tuple || a.ID != b.ID || a.Seq != b.Seq || h.Time-was.Time > rebuilding {
			continue
		}
		t.forget(p)
		p.skbs, p.head = append(p.skbs, h.Skb), h.Head
		t.bySkb[h.Skb], t.byHead[h.Head] = p, p
		return p
	}
	return nil
}
