package filter

// Ports and flags of the tunnels over UDP.
const (
	genevePort = 6081 // RFC 8926
	vxlanPort  = 4789 // RFC 7348
	vxlanVNI   = 0x08 // the flag that says the VNI is valid
	udpLen     = 8
	tunnelLen  = 8 // the fixed header of both
	version6At = 40
)

// tunnelWord tests for Geneve or VXLAN over UDP, and makes the header inside the link-layer header of what follows.
func (g *gen) tunnelWord(n *wordNode) *test {
	if !g.limited(n, 0xffffff) {
		return constant(false)
	}
	x := g.newVar(n.word) // from the start of the payload to the UDP header
	over := func(et uint32, w where, start []ins) *test {
		id := &idNode{q: qual{dir: dirDst, addr: asPort}, id: n.word}
		port := uint32(genevePort)
		if n.word.is("vxlan") {
			port = vxlanPort
		}
		t := and(g.portsOf(id, et, []proto{pUDP}, port, port), g.tunnelFlags(n, w))
		if n.given {
			t = and(t, g.masked(w, udpLen+4, 4, n.args[0].num<<8, 0xffffff00))
		}
		return and(t, &test{code: append(start, ins{opStoreX, uint32(x)}), jump: jAlways})
	}
	v6 := []ins{{opXImm, version6At}}
	if g.payload.v >= 0 {
		v6 = []ins{{opXMem, uint32(g.payload.v)}, {opImm, version6At}, {opAluX | opAdd, 0}, {opTAX, 0}}
	}
	t := or(over(etIP, atTrans4, g.headerLen()), over(etIP6, atTrans6, v6))
	if n.word.is("vxlan") {
		return g.enterVXLAN(t, x)
	}
	return g.enterGeneve(n, t, x)
}

func (g *gen) tunnelFlags(n *wordNode, w where) *test {
	if n.word.is("vxlan") {
		return g.masked(w, udpLen, 1, vxlanVNI, vxlanVNI)
	}
	return g.masked(w, udpLen, 1, 0, 0xc0) // version 0
}

// enterVXLAN: an Ethernet header follows, always.
func (g *gen) enterVXLAN(t *test, x int) *test {
	at := g.payload.base + g.net + udpLen + tunnelLen
	g.pushLink(Ethernet, offset{base: at, v: x})
	g.linkType, g.payload = offset{base: at + 12, v: x}, offset{base: at + 14, v: x}
	g.net, g.netISO, g.labels, g.untyped = 0, 3, 0, false
	return t
}

// enterGeneve: behind the options follows an Ethernet header, or what the type in the Geneve header says. In that case the
// link-layer header is empty, and its type is the field of the Geneve header.
func (g *gen) enterGeneve(n *wordNode, t *test, x int) *test {
	header := g.payload.base + g.net + udpLen
	typ, hdr, pl := g.newVar(n.word), g.newVar(n.word), g.newVar(n.word)
	isEther := func() *test {
		return &test{code: []ins{{opXMem, uint32(x)}, {opLoadIH, header + 2}}, jump: jEq, k: etTEB}
	}
	always := func(code ...ins) *test { return &test{code: code, jump: jAlways} }
	options := always(
		ins{opXMem, uint32(x)}, ins{opLoadIB, header}, ins{opAlu | opAnd, 0x3f}, ins{opAlu | opMul, 4},
		ins{opAlu | opAdd, header + tunnelLen}, ins{opAluX | opAdd, 0}, ins{opStore, uint32(hdr)}, ins{opStore, uint32(pl)},
		ins{opMem, uint32(x)}, ins{opAlu | opAdd, header + 2}, ins{opStore, uint32(typ)})
	ether := always(
		ins{opMem, uint32(hdr)}, ins{opAlu | opAdd, 12}, ins{opStore, uint32(typ)}, ins{opAlu | opAdd, 2}, ins{opStore, uint32(pl)})
	g.pushLink(Ethernet, offset{v: hdr})
	g.tunnel, g.untyped = true, false
	g.linkType, g.payload = offset{v: typ}, offset{v: pl}
	g.net = 0
	return and(t, options, or(not(isEther()), ether))
}

// tunnelHeader says that a tunnel carries Ethernet; nil outside of tunnels.
func (g *gen) tunnelHeader() *test {
	if !g.tunnel {
		return nil
	}
	return not(&test{
		code: []ins{{opMem, uint32(g.linkHdr.v)}, {opXMem, uint32(g.payload.v)}},
		jump: jEq, useX: true,
	})
}
