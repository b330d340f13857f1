package packet

import "slices"

// freesMembers is the function that frees a packet together with those that were merged behind it (GRO with a list,
// skb_shinfo(skb)->frag_list; net/core/skbuff.c): the kernel tells of each, and Linux 6.1 of a drop even where the first was received.
const freesMembers = "skb_release_data"

// dropped is the loss that a CPU told of last.
type dropped struct {
	loss *Loss
	flow *Flow
	time uint64
}

// freeing is how long it takes at most from telling of a packet that it is dropped to freeing those behind it, ns.
const freeing = 1e6

// member settles what became of a packet that is freed with the one it was merged behind: the same.
func (t *Tracker) member(p *Packet, h *Hop) {
	was := t.dropped[h.CPU]
	switch {
	case p.flow == nil || p.Received:
	case was.flow == p.flow && h.Time-was.time < freeing:
		t.lose(p, was.loss)
	case slices.ContainsFunc(h.Path, func(f string) bool { return takers[f] }):
		p.Received = true
		t.count(p, Delivered, nil)
	}
}
