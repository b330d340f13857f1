package packet

import (
	"slices"
	"strings"
)

// find gives the packet that an event is about, nil if it is a new one.
func (t *Tracker) find(h *Hop) *Packet {
	p := t.bySkb[h.Skb]
	if p == nil {
		p = t.byHead[h.Head]
	}
	if p == nil || t.same(p, h) {
		return p
	}
	t.forget(p) // its memory has become another packet
	return nil
}

// same says if an event can be about a packet. The kernel frees much without an event, and its memory is soon another
// packet's: what a packet is may change on its way only as the network changes packets.
func (t *Tracker) same(p *Packet, h *Hop) bool {
	if len(p.Hops) == 0 {
		return true
	}
	was := lastPlace(p.Hops) // a function that has the packet changes nothing of where it is
	a, b := &was.View, &h.View
	freed := h.Kind == Drop || h.Kind == Consume || h.Kind == Copied
	switch {
	case a.Ether != b.Ether && a.Ether != 0 && b.Ether != 0:
		return false
	case p.state == Lost && !freed:
		return false
	case p.state == Lost && !a.Dst.IsValid() && b.Dst.IsValid():
		return false // a copy of what had no addresses has none
	case h.Proto == 0 && was.Proto != 0 && !b.Dst.IsValid():
		return false // messages of Unix sockets and of netlink are sk_buffs too
	case !moves(was, h):
		return false
	case !a.Dst.IsValid() || !b.Dst.IsValid():
		return true
	case a.Tuple == b.Tuple:
		if a.Proto == protoTCP && a.Seq != b.Seq || a.ID != b.ID {
			return false // of segments that are merged the first gives its header, and they are divided into new packets
		}
		// A router takes one off the TTL; a bridge leaves it, and so does a device on top of another.
		return h.Kind != Queue || was.Kind == Queue || was.Kind == Enqueued || a.TTL != b.TTL || handedOn(p, h)
	case carries(a.Inner, b.Tuple) || carries(b.Inner, a.Tuple):
		return true // packed into a tunnel, or taken out
	case a.Proto != b.Proto:
		return false
	case p.Received || a.icmpError() != b.icmpError():
		return false
	case a.Src.Addr() == b.Dst.Addr() && a.Dst.Addr() == b.Src.Addr():
		return false // an answer, made in the memory of the question
	}
	// Addresses were rewritten: one end at least stays, or the identification of IPv4 does, and what was sent is the same.
	return (a.Src == b.Src || a.Dst == b.Dst || a.ID != 0) && a.ID == b.ID && a.Seq == b.Seq
}

// moves says if a packet can have gone from one event to the next: into another namespace it goes through a device only.
func moves(was, h *Hop) bool {
	if was.Netns == h.Netns || was.Netns == 0 || h.Netns == 0 {
		return true
	}
	return h.Kind != Queue && h.Kind != Enqueued
}

// handedOn says if a packet that is given to a device was on its way already: a device on top of this one, a bridge, or
// what redirects at ingress had it. Softirqs run on top of whatever sent last, which is another packet. Without a stack, it
// was if this device has not had it yet.
func handedOn(p *Packet, h *Hop) bool {
	if len(h.Path) == 1 && h.Path[0] == places[h.Kind] {
		return !slices.ContainsFunc(p.Hops, func(was *Hop) bool {
			return was.Kind == Queue && was.Netns == h.Netns && was.Ifindex == h.Ifindex
		})
	}
	return slices.ContainsFunc(h.Path, func(fn string) bool {
		return (bridging(fn) || fn == "dev_hard_start_xmit" || fn == "__netif_receive_skb_core") && !elsewhere(h, fn)
	})
}

// carries says if a packet is the one inside of another, whose ports may be behind the bytes that were kept.
func carries(inner, t Tuple) bool {
	if !inner.IP() || inner == t {
		return inner.IP()
	}
	cut := inner.Src.Port() == 0 && inner.Dst.Port() == 0
	return cut && inner.Proto == t.Proto && inner.Src.Addr() == t.Src.Addr() && inner.Dst.Addr() == t.Dst.Addr()
}

func bridging(fn string) bool { return strings.HasPrefix(fn, "br_") || strings.HasPrefix(fn, "__br_") }
