package filter

import (
	"strconv"
	"strings"
)

// word gives the test of a primitive that is a word of its own.
func (g *gen) word(n *wordNode) *test {
	switch n.word.text {
	case "broadcast":
		return g.broadcast(n)
	case "multicast":
		return g.multicast(n)
	case "less":
		return not(&test{code: []ins{{opLen, 0}}, jump: jGt, k: n.args[0].num})
	case "greater":
		return &test{code: []ins{{opLen, 0}}, jump: jGe, k: n.args[0].num}
	case "byte":
		return g.byteOp(n)
	case "inbound":
		return not(g.outbound(n))
	case "outbound":
		return g.outbound(n)
	case "ifindex":
		if g.link != SLL2 && g.opts.Metadata {
			return meta(opLoadW, metaIfindex, n.args[0].num)
		}
		if g.link != SLL2 {
			return g.fail(n.word, "the index of the interface is in the cooked header of version 2 only", "")
		}
		return g.eq(atLink, 4, 4, n.args[0].num)
	case "vlan":
		return g.vlan(n)
	case "mpls":
		return g.mpls(n)
	case "pppoed":
		return g.linkProto(n.word, etPPPoED)
	case "pppoes":
		return g.pppoes(n)
	case "geneve", "vxlan":
		return g.tunnelWord(n)
	}
	return g.llc(n)
}

func (g *gen) broadcast(n *wordNode) *test {
	switch n.q.proto {
	case pAny, pLink:
		if g.link != Ethernet {
			return g.fail(n.word, "this link type has no broadcast address", "")
		}
		return and(g.tunnelHeader(), g.macs([6]byte{255, 255, 255, 255, 255, 255}, dirDst))
	case pIP:
		host := ^g.opts.Netmask
		ip := g.linkProto(n.word, etIP)
		return and(ip, or(g.masked(atNet, 16, 4, 0, host), g.masked(atNet, 16, 4, host, host)))
	}
	return g.fail(n.word, "broadcast goes with ether and ip, not with "+n.q.text, "")
}

func (g *gen) multicast(n *wordNode) *test {
	switch n.q.proto {
	case pAny, pLink:
		if g.link != Ethernet {
			return g.fail(n.word, "this link type has no multicast addresses", "ip multicast and ip6 multicast look at the IP header")
		}
		return and(g.tunnelHeader(), g.set(atLink, 0, 1, 1))
	case pIP:
		return and(g.linkProto(n.word, etIP), g.ge(atNet, 16, 1, 224))
	case pIP6:
		return and(g.linkProto(n.word, etIP6), g.eq(atNet, 24, 1, 255))
	}
	return g.fail(n.word, "multicast goes with ether, ip and ip6, not with "+n.q.text, "")
}

// byteOp tests one byte from the start of the packet.
func (g *gen) byteOp(n *wordNode) *test {
	at, v := n.args[0].num, n.args[1].num
	switch n.oper {
	case "=":
		return g.eq(atLink, at, 1, v)
	case "<":
		return not(g.ge(atLink, at, 1, v))
	case ">":
		return g.gt(atLink, at, 1, v)
	case "&":
		return g.set(atLink, at, 1, v)
	}
	t := g.eq(atLink, at, 1, 0) // a byte or a number is not 0
	t.code = append(t.code, ins{opAlu | opOr, v})
	return not(t)
}

// outbound reads the packet type of the cooked headers (PACKET_OUTGOING in include/uapi/linux/if_packet.h).
func (g *gen) outbound(n *wordNode) *test {
	const outgoing = 4
	switch g.link {
	case SLL:
		return g.eq(atLink, 0, 2, outgoing)
	case SLL2:
		return g.eq(atLink, 10, 1, outgoing)
	}
	if g.opts.Metadata {
		return meta(opLoadH, metaType, outgoing)
	}
	return g.fail(n.word, "the bytes of a packet do not say its direction on this link type", "only the Linux cooked headers do")
}

// meta compares what the kernel knows of a packet.
func meta(op uint16, at, k uint32) *test { return &test{code: []ins{{op, at}}, jump: jEq, k: k} }

// limited checks the number behind a word.
func (g *gen) limited(n *wordNode, most uint32) bool {
	if n.given && n.args[0].num > most {
		g.fail(n.args[0], "the largest number of "+n.word.text+" is "+strconv.Itoa(int(most)), "")
		return false
	}
	return true
}

// vlan tests for a tag, and moves what follows behind it.
func (g *gen) vlan(n *wordNode) *test {
	switch {
	case g.labels > 0:
		return g.fail(n.word, "no VLAN tag stands behind MPLS", "")
	case g.link != Ethernet:
		return g.fail(n.word, "VLAN tags are in Ethernet headers only", "")
	case !g.limited(n, 0xfff):
		return constant(false)
	}
	t := or(g.linkProto(n.word, etOldQinQ), or(g.linkProto(n.word, etVLAN), g.linkProto(n.word, etQinQ)))
	if n.given {
		t = and(t, g.masked(atNet, 0, 2, n.args[0].num, 0xfff))
	}
	if g.opts.Metadata && g.linkType == (offset{base: 12, v: -1}) {
		return g.outerTag(n, t)
	}
	g.payload.base += tagLen
	g.linkType.base += tagLen
	return t
}

const tagLen = 4

// outerTag tests for the outermost tag where the device may have taken it out of the packet: only if it has not, what follows is
// moved. inPacket is the test for a tag among the bytes.
func (g *gen) outerTag(n *wordNode, inPacket *test) *test {
	v := g.newVar(n.word)
	shift := &test{code: []ins{{opImm, tagLen}, {opStore, uint32(v)}}, jump: jAlways}
	taken := meta(opLoadB, metaTagged, 1)
	if n.given {
		tag := meta(opLoadB, metaTag, n.args[0].num)
		tag.code = append(tag.code, ins{opAlu | opAnd, 0xfff})
		taken = and(taken, tag)
	}
	g.payload.v, g.linkType.v = v, v
	return or(taken, and(not(meta(opLoadB, metaTagged, 1)), shift, inPacket))
}

// mpls tests for a label, and moves what follows behind it.
func (g *gen) mpls(n *wordNode) *test {
	var t *test
	switch {
	case !g.limited(n, 0xfffff):
		return constant(false)
	case g.labels > 0: // the one before is not the last
		t = g.masked(atLabel, 2, 1, 0, 1)
	case g.link == linkPPP:
		t = g.linkProto(n.word, pppMPLS)
	case g.link != Ethernet:
		return g.fail(n.word, "MPLS labels are looked for behind Ethernet headers only", "")
	default:
		t = g.linkProto(n.word, etMPLS)
	}
	if n.given {
		t = and(t, g.masked(atNet, 0, 4, n.args[0].num<<12, 0xfffff000))
	}
	g.netISO += 4
	g.net += 4
	g.labels++
	return t
}

// pppoes tests for a PPPoE session; PPP is the link type of what follows.
func (g *gen) pppoes(n *wordNode) *test {
	if !g.limited(n, 0xffff) {
		return constant(false)
	}
	t := g.linkProto(n.word, etPPPoES)
	if n.given {
		t = and(t, g.masked(atNet, 0, 4, n.args[0].num, 0xffff))
	}
	const pppoeLen = 6
	g.pushLink(linkPPP, offset{base: g.payload.base + g.net + pppoeLen, v: g.payload.v})
	g.linkType = g.linkHdr
	g.payload.base = g.linkHdr.base + 2
	g.net, g.netISO = 0, 0
	return t
}

// llc tests for IEEE 802.2 and its kind of frame.
func (g *gen) llc(n *wordNode) *test {
	if g.link != Ethernet {
		return g.fail(n.word, "IEEE 802.2 is looked for in Ethernet frames only", "")
	}
	t := and(g.isLength(), not(g.eq(atLLC, 0, 2, 0xffff)))
	if !n.given {
		return t
	}
	name := n.args[0]
	if name.text == "i" {
		return and(t, not(g.set(atLLC, 2, 1, 1)))
	}
	k, ok := llcKinds[name.text]
	if !ok {
		return g.fail(name, "unknown kind of IEEE 802.2 frame "+quote(name.text), "")
	}
	return and(t, g.masked(atLLC, 2, 1, k[1], k[0]))
}

// decnet reads area.node.
func (g *gen) decnet(n *idNode) *test {
	if n.len != nil || n.mask != nil {
		return g.fail(n.after, "DECnet addresses have no mask", "")
	}
	a, b, _ := strings.Cut(n.id.text, ".")
	area, err1 := strconv.ParseUint(a, 10, 32)
	node, err2 := strconv.ParseUint(b, 10, 32)
	if err1 != nil || err2 != nil || area > 63 || node > 1023 {
		return g.fail(n.id, quote(n.id.text)+" is not a DECnet address: an area up to 63 and a node up to 1023", "")
	}
	return g.decnetHost(n, uint32(area<<10|node))
}

// decnetHost tests the addresses of long and short DECnet headers, with and without the byte of padding before them.
func (g *gen) decnetHost(n *idNode, addr uint32) *test {
	swap := addr&0xff<<8 | addr>>8&0xff
	header := func(size int, v, mask, at uint32) *test {
		return and(g.masked(atNet, 2, size, v, mask), g.eq(atNet, at, 2, swap))
	}
	return both2(n.q.dir, func(src bool) *test {
		short, long := uint32(1), uint32(7)
		if src {
			short, long = 3, 15
		}
		dn := g.linkProto(n.id, etDECnet)
		return and(dn, or(header(1, 2, 7, 2+short), or(header(2, 0x8102, 0xff07, 3+short),
			or(header(1, 6, 7, 2+long), header(2, 0x8106, 0xff07, 3+long)))))
	})
}
