package filter

import "slices"

// gen turns a parsed expression into tests. It goes through it from left to right: vlan, mpls, pppoes and the tunnels move
// the places where what follows looks.
type gen struct {
	expr string
	opts *Options
	err  *Error // the first

	link     Link
	linkHdr  offset // link-layer header
	linkType offset // its type field
	payload  offset // what follows it
	net      uint32 // from payload to the network-layer header
	netISO   uint32 // the same behind IEEE 802.2 without SNAP
	untyped  bool   // the link type has no type field
	labels   int    // MPLS labels read
	tunnel   bool   // the link-layer header is one inside a tunnel, and may be missing

	vars int // words of M that are offsets, from 0
}

// linkPPP is PPP inside PPPoE.
const linkPPP Link = 255

func newGen(expr string, o *Options) *gen {
	g := &gen{expr: expr, opts: o, link: o.Link}
	g.linkHdr.v, g.linkType.v, g.payload.v = -1, -1, -1
	switch o.Link {
	case Ethernet:
		g.linkType.base, g.payload.base, g.netISO = 12, 14, 3
	case Raw:
		g.untyped = true
	case SLL:
		g.linkType.base, g.payload.base = 14, 16
	case SLL2:
		g.payload.base = 20
	case Null, Loop:
		g.payload.base = 4
	}
	return g
}

// fail notes an error and gives a test to go on with.
func (g *gen) fail(t token, msg, hint string) *test {
	if g.err == nil {
		g.err = &Error{Expr: g.expr, Pos: t.pos, End: t.end, Msg: msg, Hint: hint}
	}
	return constant(false)
}

// node gives the test of a part of the expression.
func (g *gen) node(n node) *test {
	switch n := n.(type) {
	case *notNode:
		return not(g.node(n.x))
	case *binaryNode:
		x := g.node(n.x)
		y := g.node(n.y)
		if n.op.is("and") {
			return and(x, y)
		}
		return or(x, y)
	case *protoNode:
		return g.protocol(n.name)
	case *idNode:
		return g.id(n)
	case *wordNode:
		return g.word(n)
	}
	return g.relation(n.(*relNode))
}

// newVar reserves a word of M for an offset.
func (g *gen) newVar(t token) int {
	g.vars++
	if g.vars > memWords/2 {
		g.fail(t, "too many tunnels in one filter", "")
		return 0
	}
	return g.vars - 1
}

// pushLink makes what stands at o the link-layer header for the rest.
func (g *gen) pushLink(l Link, o offset) {
	g.link, g.linkHdr, g.tunnel = l, o, false
}

// linkProto tests what the link-layer header says follows: an EtherType, or up to 1500 an IEEE 802.2 SAP.
func (g *gen) linkProto(at token, v uint32) *test {
	if g.labels > 0 {
		return g.labelProto(at, v)
	}
	switch g.link {
	case Ethernet:
		return g.etherProto(v)
	case SLL:
		return g.cookedProto(v)
	case SLL2:
		return g.eq(atType, 0, 2, v)
	case Raw:
		switch v {
		case etIP:
			return g.masked(atLink, 0, 1, 0x40, 0xf0)
		case etIP6:
			return g.masked(atLink, 0, 1, 0x60, 0xf0)
		}
		return constant(false)
	case linkPPP:
		return g.eq(atType, 0, 2, pppProto(v))
	}
	return g.familyProto(v)
}

// familyProto tests the address family of NULL and LOOP headers: AF_INET, and AF_INET6 of Linux, NetBSD and OpenBSD, FreeBSD,
// and Darwin. NULL has it in the byte order of the machine that wrote it, which for every machine of today is little-endian.
func (g *gen) familyProto(v uint32) *test {
	families := map[uint32][]uint32{etIP: {2}, etIP6: {10, 24, 28, 30}}[v]
	var t *test
	for _, f := range families {
		if g.link == Null {
			f <<= 24
		}
		t = or(t, g.eq(atLink, 0, 4, f))
	}
	if t == nil {
		return constant(false)
	}
	return t
}

// isLength says that the type field is a length: IEEE 802.2 follows.
func (g *gen) isLength() *test { return not(g.gt(atType, 0, 2, maxLength)) }

// snap tests for IEEE 802.2 with SNAP.
func (g *gen) snap(org, v uint32) *test {
	return g.bytes(atLLC, 0, []byte{0xaa, 0xaa, 3, byte(org >> 16), byte(org >> 8), byte(org), byte(v >> 8), byte(v)})
}

func snapOrg(v uint32) uint32 {
	if v == etATalk {
		return 0x080007
	}
	return 0
}

func (g *gen) etherProto(v uint32) *test {
	switch {
	case v == sapISO || v == sapIP || v == sapNetBEUI: // DSAP and SSAP
		return and(g.isLength(), g.eq(atLLC, 0, 2, v<<8|v))
	case v == sapIPX: // 802.2, raw 802.3, SNAP, Ethernet II
		llc := or(g.snap(0, etIPX), or(g.eq(atLLC, 0, 1, sapIPX), g.eq(atLLC, 0, 2, 0xffff)))
		return or(g.eq(atType, 0, 2, etIPX), and(g.isLength(), llc))
	case v == etATalk || v == etAARP:
		return or(g.eq(atType, 0, 2, v), and(g.isLength(), g.snap(snapOrg(v), v)))
	case v <= maxLength:
		return and(g.isLength(), g.eq(atType, 2, 1, v))
	}
	return g.eq(atType, 0, 2, v)
}

// Protocols of the cooked header for packets without an EtherType (include/uapi/linux/if_ether.h, ETH_P_802_3, ETH_P_802_2).
const (
	cooked8023 = 1
	cooked8022 = 4
)

func (g *gen) cookedProto(v uint32) *test {
	is8022 := g.eq(atType, 0, 2, cooked8022)
	switch {
	case v == sapISO || v == sapIP || v == sapNetBEUI:
		return and(is8022, g.eq(atLLC, 0, 2, v<<8|v))
	case v == sapIPX:
		llc := and(is8022, or(g.eq(atLLC, 0, 1, sapIPX), g.snap(0, etIPX)))
		return or(g.eq(atType, 0, 2, etIPX), or(g.eq(atType, 0, 2, cooked8023), llc))
	case v == etATalk || v == etAARP:
		return or(g.eq(atType, 0, 2, v), and(is8022, g.snap(snapOrg(v), v)))
	case v <= maxLength:
		return and(is8022, g.eq(atLink, g.payload.base, 1, v))
	}
	return g.eq(atType, 0, 2, v)
}

// pppProto gives the PPP protocol number of an EtherType or SAP (RFC 1661 and IANA's registry).
func pppProto(v uint32) uint32 {
	ppp := map[uint32]uint32{
		etIP: 0x21, etIP6: 0x57, etDECnet: 0x27, etATalk: 0x29, etNS: 0x25, sapISO: 0x23, sapSTP: 0x31, sapIPX: 0x2b,
	}
	if p, ok := ppp[v]; ok {
		return p
	}
	return v
}

// labelProto tests what is behind MPLS: the bottom of the stack, then an IP version.
func (g *gen) labelProto(at token, v uint32) *test {
	bottom := g.masked(atLabel, 2, 1, 1, 1)
	switch v {
	case etIP:
		return and(bottom, g.masked(atNet, 0, 1, 0x40, 0xf0))
	case etIP6:
		return and(bottom, g.masked(atNet, 0, 1, 0x60, 0xf0))
	}
	return g.fail(at, "behind MPLS only ip and ip6 can be told apart", "")
}

// protocol tests for a protocol by its name alone.
func (g *gen) protocol(name token) *test {
	p := name.proto
	if v, ok := linkTypes[p]; ok {
		return g.linkProto(name, v)
	}
	if types, ok := isisTypes[p]; ok {
		var t *test
		for _, v := range types {
			t = or(t, g.ipProto(name, v, pISIS))
		}
		return t
	}
	switch p {
	case pTCP, pUDP, pSCTP, pPIM, pAH, pESP:
		return g.ipProto(name, transport[p], pAny)
	case pICMP, pIGMP, pIGRP, pVRRP, pCARP:
		return g.ipProto(name, transport[p], pIP)
	case pICMP6:
		return g.ipProto(name, ipICMP6, pIP6)
	case pESIS, pISIS, pCLNP:
		return g.ipProto(name, osiProtocols[p.String()], pISO)
	case pLink:
		return g.fail(name, "every packet has a link-layer header", "write what of it is meant, as in: ether host 02:00:00:00:00:01")
	}
	return g.fail(name, quote(name.text)+" is no protocol to test for", "")
}

// transport has the numbers of protocols over IP.
var transport = map[proto]uint32{
	pTCP: ipTCP, pUDP: ipUDP, pSCTP: ipSCTP, pICMP: ipICMP, pIGMP: ipIGMP, pIGRP: ipIGRP, pPIM: ipPIM, pVRRP: ipVRRP,
	pCARP: ipVRRP, pAH: ipAH, pESP: ipESP,
}

// ipProto tests for protocol v inside p.
func (g *gen) ipProto(at token, v uint32, p proto) *test {
	switch p {
	case pAny:
		return or(g.ipProto(at, v, pIP), g.ipProto(at, v, pIP6))
	case pLink:
		return g.linkProto(at, v)
	case pIP:
		return and(g.linkProto(at, etIP), g.eq(atNet, 9, 1, v))
	case pIP6: // itself, or behind a fragment header
		ip6 := g.linkProto(at, etIP6)
		return and(ip6, or(g.eq(atNet, 6, 1, v), and(g.eq(atNet, 6, 1, ipFragment), g.eq(atNet, 40, 1, v))))
	case pISO:
		return and(g.linkProto(at, sapISO), g.eq(atISO, 0, 1, v))
	case pISIS:
		return and(g.ipProto(at, osiProtocols["isis"], pISO), g.eq(atISO, 4, 1, v))
	}
	return g.fail(at, quote(p.String())+" has no field for a protocol inside it", "ip, ip6, ether, iso and isis have one")
}

// protoChain tests for protocol v anywhere in the chain of headers.
func (g *gen) protoChain(at token, v uint32, p proto) *test {
	if g.payload.v >= 0 {
		return g.fail(at, "protochain wants its header at a fixed place: not in a tunnel, nor behind a tag that may be missing", "")
	}
	net := g.payload.base + g.net
	v4 := func() *test {
		return and(g.linkProto(at, etIP), &test{op: testChain, chain: &chain{net: net, want: v}})
	}
	v6 := func() *test {
		return and(g.linkProto(at, etIP6), &test{op: testChain, chain: &chain{net: net, want: v, v6: true}})
	}
	switch p {
	case pAny:
		return or(v4(), v6())
	case pIP:
		return v4()
	case pIP6:
		return v6()
	}
	return g.fail(at, "protochain goes with ip and ip6, not with "+p.String(), "")
}

// hasPorts says if "port" can stand behind p.
func hasPorts(p proto) bool { return slices.Contains([]proto{pAny, pTCP, pUDP, pSCTP}, p) }
