package filter

import (
	"net/netip"
	"strconv"
	"strings"
)

// nameID gives the test of a name: of a host, a network, a port, a protocol.
func (g *gen) nameID(n *idNode) *test {
	name, q := n.id.text, n.q
	switch q.addr {
	case asNet:
		if g.opts.Names.Net != nil {
			if v, ok := g.opts.Names.Net(name); ok && v != 0 {
				addr, mask := netNumber(v)
				return g.host4(n, addr, mask, q.proto)
			}
		}
		return g.fail(n.id, "unknown network "+quote(name), "write its address: net 10.0.0.0/8")
	case asPort:
		return g.namedPort(n)
	case asPortRange:
		return g.portRange(n)
	case asProto, asProtoChain:
		v, ok := g.namedProto(n)
		switch {
		case !ok:
			return constant(false)
		case q.addr == asProto:
			return g.ipProto(n.id, v, q.proto)
		}
		return g.protoChain(n.id, v, q.proto)
	case asGateway:
		return g.gateway(n)
	}
	switch q.proto {
	case pLink:
		if g.opts.Names.Ether != nil {
			if mac, ok := g.opts.Names.Ether(name); ok {
				return g.mac(n, mac)
			}
		}
		return g.fail(n.id, "no MAC address known for "+quote(name), "write it: 02:00:00:00:00:01")
	case pDECnet:
		return g.fail(n.id, "DECnet names cannot be translated", "")
	}
	return g.namedHost(n)
}

// lookup gives the addresses of a host.
func (g *gen) lookup(name string) []netip.Addr {
	if g.opts.Names.Host == nil {
		return nil
	}
	return g.opts.Names.Host(name)
}

func (g *gen) namedHost(n *idNode) *test {
	p4, p6 := n.q.proto, n.q.proto
	if g.untyped && n.q.proto == pAny {
		p4, p6 = pIP, pIP6
	}
	addrs := g.lookup(n.id.text)
	var t *test
	for _, a := range addrs {
		switch {
		case a.Unmap().Is4() && p4 != pIP6:
			b := a.Unmap().As4()
			v := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
			t = or(t, g.host4(n, v, 0xffffffff, p4))
		case a.Is6() && !a.Is4In6() && p6 != pIP:
			t = or(t, g.host6(n, a, 128, p6))
		}
	}
	if t == nil {
		msg, hint := "unknown host "+quote(n.id.text), ""
		if len(addrs) > 0 {
			msg += " for " + n.q.proto.String()
		}
		if w := closest(n.id.text); w != "" {
			hint = "did you mean " + w + "?"
		}
		return g.fail(n.id, msg, hint)
	}
	return t
}

// gateway is "ether host NAME and not host NAME".
func (g *gen) gateway(n *idNode) *test {
	if p := n.q.proto; p != pAny && p != pIP && p != pARP && p != pRARP {
		return g.fail(n.id, "gateway goes with ip, arp and rarp, not with "+p.String(), "")
	}
	if g.opts.Names.Ether == nil {
		return g.fail(n.id, "gateway wants a name with a MAC address, and none are known here", "write: ether host MAC and not host ADDRESS")
	}
	mac, ok := g.opts.Names.Ether(n.id.text)
	if !ok {
		return g.fail(n.id, "no MAC address known for "+quote(n.id.text), "write: ether host MAC and not host ADDRESS")
	}
	return and(g.mac(n, mac), not(g.namedHost(n)))
}

// namedPort looks a port up; a name that belongs to one protocol tests for that one.
func (g *gen) namedPort(n *idNode) *test {
	if !hasPorts(n.q.proto) {
		return g.fail(n.id, quote(n.q.proto.String())+" has no ports", "")
	}
	port, p, ok := g.opts.Names.port(n.id.text)
	if !ok {
		return g.fail(n.id, "unknown port "+quote(n.id.text), "")
	}
	if n.q.proto != pAny && p != pAny && p != n.q.proto {
		return g.fail(n.id, "port "+quote(n.id.text)+" is a port of "+p.String(), "")
	}
	return g.ports(n, uint32(port), uint32(port), max(p, n.q.proto))
}

// portRange reads first-last, both a number or both a name.
func (g *gen) portRange(n *idNode) *test {
	if !hasPorts(n.q.proto) {
		return g.fail(n.id, quote(n.q.proto.String())+" has no ports", "")
	}
	lo, hi, found := strings.Cut(n.id.text, "-")
	first, p1, ok1 := g.rangeEnd(lo)
	last, p2, ok2 := g.rangeEnd(hi)
	switch {
	case !found || !ok1 || !ok2:
		return g.fail(n.id, quote(n.id.text)+" is not a range of ports", "write it as in: portrange 6000-6008")
	case max(first, last) > 65535:
		return g.fail(n.id, "a port is at most 65535", "")
	}
	p := p1
	if p1 != p2 {
		p = pAny
	}
	if n.q.proto != pAny && p != pAny && p != n.q.proto {
		return g.fail(n.id, "ports in "+quote(n.id.text)+" are ports of "+p.String(), "")
	}
	return g.ports(n, uint32(first), uint32(last), max(p, n.q.proto))
}

func (g *gen) rangeEnd(s string) (int, proto, bool) {
	if v, err := strconv.Atoi(s); err == nil && v >= 0 {
		return v, pAny, true
	}
	return g.opts.Names.port(s)
}

func (g *gen) namedProto(n *idNode) (uint32, bool) {
	name := n.id.text
	var v uint32
	ok, what := false, "ip"
	switch n.q.proto {
	case pAny, pIP, pIP6:
		v, ok = ipProtocol(name)
	case pLink:
		what = "ether"
		v, ok = etherProtocols[name]
	case pISO:
		what = "iso"
		v, ok = osiProtocols[name]
	default:
		g.fail(n.id, quote(n.q.proto.String())+" has no field for a protocol inside it", "ip, ip6, ether and iso have one")
		return 0, false
	}
	if !ok {
		g.fail(n.id, "unknown "+what+" protocol "+quote(name), "write its number")
	}
	return v, ok
}

// ports tests for ports from first to last of p, over IPv6 and IPv4.
func (g *gen) ports(n *idNode, first, last uint32, p proto) *test {
	if !hasPorts(p) {
		return g.fail(n.id, quote(p.String())+" has no ports", "")
	}
	kinds := []proto{p}
	if p == pAny {
		kinds = []proto{pSCTP, pTCP, pUDP}
	}
	if first > last {
		first, last = last, first
	}
	return or(g.portsOf(n, etIP6, kinds, first, last), g.portsOf(n, etIP, kinds, first, last))
}

func (g *gen) portsOf(n *idNode, et uint32, kinds []proto, first, last uint32) *test {
	ip := g.linkProto(n.id, et)
	var all *test
	for _, p := range kinds {
		trans, guard := atTrans4, (*test)(nil)
		if et == etIP {
			guard = and(g.eq(atNet, 9, 1, transport[p]), g.firstFragment())
		} else {
			trans, guard = atTrans6, g.eq(atNet, 6, 1, transport[p])
		}
		all = or(all, and(guard, both2(n.q.dir, func(src bool) *test {
			off := uint32(2)
			if src {
				off = 0
			}
			if first == last && n.q.addr == asPort {
				return g.eq(trans, off, 2, first)
			}
			return and(g.ge(trans, off, 2, first), not(g.gt(trans, off, 2, last)))
		})))
	}
	return and(ip, all)
}

// firstFragment says that the fragment offset of IPv4 is 0: only there a transport header follows.
func (g *gen) firstFragment() *test { return not(g.set(atNet, 6, 2, 0x1fff)) }
