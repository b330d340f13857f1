package filter

import (
	"net/netip"
	"strconv"
	"strings"
)

// id gives the test of an address, a number or a name with its qualifiers.
func (g *gen) id(n *idNode) *test {
	switch n.id.kind {
	case kNum:
		return g.numberID(n, n.id.num, 32)
	case kV4:
		return g.v4ID(n)
	case kV6:
		return g.v6ID(n)
	case kMAC:
		return g.macID(n)
	}
	return g.nameID(n)
}

// numberID: a number is a port, a protocol, or an IPv4 address of bits bits.
func (g *gen) numberID(n *idNode, v uint32, bits int) *test {
	q := n.q
	switch q.addr {
	case asPort, asPortRange:
		if v > 65535 {
			return g.fail(n.id, "port "+n.id.text+" is above 65535", "")
		}
		return g.ports(n, v, v, q.proto)
	case asGateway:
		return g.fail(n.id, "gateway wants the name of a host", "")
	case asProto:
		return g.ipProto(n.id, v, q.proto)
	case asProtoChain:
		return g.protoChain(n.id, v, q.proto)
	}
	if q.proto == pLink {
		return g.fail(n.id, "this is not a MAC address", "write six bytes: 02:00:00:00:00:01")
	}
	mask := uint32(0xffffffff)
	switch {
	case n.id.kind == kNum && q.addr == asNet:
		v, mask = netNumber(v)
	default:
		v <<= 32 - bits
		mask <<= 32 - bits
	}
	return g.host4(n, v, mask, q.proto)
}

// netNumber shifts a network number to the left and gives its mask: net 10 is 10.0.0.0/8.
func netNumber(v uint32) (addr, mask uint32) {
	mask = 0xffffffff
	for v != 0 && v&0xff000000 == 0 {
		v <<= 8
		mask <<= 8
	}
	return v, mask
}

// parseV4 reads 1 to 4 numbers with dots and says how many bits they are.
func parseV4(s string) (v uint32, bits int, ok bool) {
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return 0, 0, false
		}
		v = v<<8 | uint32(n)
		bits += 8
	}
	return v, bits, true
}

func (g *gen) v4ID(n *idNode) *test {
	if n.q.proto == pDECnet {
		return g.decnet(n)
	}
	v, bits, ok := parseV4(n.id.text)
	if !ok {
		return g.fail(n.id, quote(n.id.text)+" is not an IPv4 address: every part is a decimal number up to 255", "")
	}
	if n.len == nil && n.mask == nil {
		if n.q.addr >= asPort {
			return g.fail(n.id, "an address where "+addrWord(n.q.addr)+" wants a number or a name", "")
		}
		return g.numberID(n, v, bits)
	}
	mask, what := uint32(0), ""
	if n.len != nil {
		what = "/" + n.len.text
		if n.len.num > 32 {
			return g.fail(*n.len, "a prefix of IPv4 has at most 32 bits", "")
		}
		mask = uint32(uint64(0xffffffff) << (32 - n.len.num))
	} else {
		what = " mask " + n.mask.text
		m, mbits, ok := parseV4(n.mask.text)
		if !ok {
			return g.fail(*n.mask, quote(n.mask.text)+" is not a mask", "")
		}
		mask = m << (32 - mbits)
	}
	v <<= 32 - bits
	if v&^mask != 0 {
		net := netip.AddrFrom4([4]byte{byte(v & mask >> 24), byte(v & mask >> 16), byte(v & mask >> 8), byte(v & mask)})
		return g.fail(n.id, "the address has bits outside its network", "did you mean "+net.String()+what+"?")
	}
	if n.q.addr != asNet {
		return g.fail(n.after, "only a net has a mask", "write: net "+n.id.text+what)
	}
	return g.host4(n, v, mask, n.q.proto)
}

func addrWord(a addrType) string {
	for w, b := range addrTypes {
		if a == b {
			return w
		}
	}
	return "host"
}

func (g *gen) v6ID(n *idNode) *test {
	addr, err := netip.ParseAddr(n.id.text)
	if err != nil {
		return g.fail(n.id, quote(n.id.text)+" is not an IPv6 address", "")
	}
	bits := uint32(128)
	if n.len != nil {
		if bits = n.len.num; bits > 128 {
			return g.fail(*n.len, "a prefix of IPv6 has at most 128 bits", "")
		}
	}
	if net, _ := addr.Prefix(int(bits)); net.Addr() != addr {
		return g.fail(n.id, "the address has bits outside its network", "did you mean "+net.String()+"?")
	}
	switch {
	case n.q.addr > asNet:
		return g.fail(n.id, "an address where "+addrWord(n.q.addr)+" wants a number or a name", "")
	case n.q.addr != asNet && bits != 128:
		return g.fail(n.after, "only a net has a mask", "write: net "+n.id.text+"/"+n.len.text)
	}
	return g.host6(n, addr, int(bits), n.q.proto)
}

// parseMAC reads a MAC address the scanner has accepted.
func parseMAC(s string) (mac [6]byte) {
	if i := strings.IndexAny(s, ":-."); i < 0 || i == 4 {
		s = strings.ReplaceAll(s, ".", "")
		for j := range mac {
			mac[j] = nibble(s[2*j])<<4 | nibble(s[2*j+1])
		}
		return mac
	}
	for j, part := range strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' || r == '.' }) {
		for _, c := range []byte(part) {
			mac[j] = mac[j]<<4 | nibble(c)
		}
	}
	return mac
}

func (g *gen) macID(n *idNode) *test {
	if n.q.proto != pLink || n.q.addr > asHost {
		return g.fail(n.id, "a MAC address goes with ether", "write: ether host "+n.id.text)
	}
	return g.mac(n, parseMAC(n.id.text))
}

// mac tests the addresses of an Ethernet header.
func (g *gen) mac(n *idNode, mac [6]byte) *test {
	if g.link != Ethernet {
		return g.fail(n.id, "MAC addresses are in Ethernet headers only", "")
	}
	return and(g.tunnelHeader(), g.macs(mac, n.q.dir))
}

func (g *gen) macs(mac [6]byte, dir direction) *test {
	return both2(dir, func(src bool) *test {
		if src {
			return g.bytes(atLink, 6, mac[:])
		}
		return g.bytes(atLink, 0, mac[:])
	})
}

// both2 joins the tests of source and destination as the direction wants.
func both2(dir direction, test func(src bool) *test) *test {
	switch dir {
	case dirSrc:
		return test(true)
	case dirDst:
		return test(false)
	case dirAnd:
		return and(test(true), test(false))
	}
	return or(test(true), test(false))
}

// host4 tests IPv4 addresses, also those in ARP.
func (g *gen) host4(n *idNode, addr, mask uint32, p proto) *test {
	at := func(et, src, dst uint32) *test {
		return both2(n.q.dir, func(isSrc bool) *test {
			off := dst
			if isSrc {
				off = src
			}
			return and(g.linkProto(n.id, et), g.masked(atNet, off, 4, addr, mask))
		})
	}
	switch p {
	case pAny:
		ip := at(etIP, 12, 16)
		if g.labels > 0 {
			return ip
		}
		return or(ip, at(etARP, 14, 24), at(etRARP, 14, 24))
	case pIP:
		return at(etIP, 12, 16)
	case pARP:
		return at(etARP, 14, 24)
	case pRARP:
		return at(etRARP, 14, 24)
	case pDECnet:
		return g.decnetHost(n, addr)
	}
	return g.fail(n.id, quote(p.String())+" headers have no IPv4 address", "ip, arp and rarp have")
}

// host6 tests IPv6 addresses.
func (g *gen) host6(n *idNode, addr netip.Addr, bits int, p proto) *test {
	if p != pAny && p != pIP6 {
		return g.fail(n.id, quote(p.String())+" headers have no IPv6 address", "ip6 has")
	}
	a := addr.As16()
	return both2(n.q.dir, func(src bool) *test {
		off := uint32(24)
		if src {
			off = 8
		}
		t := g.linkProto(n.id, etIP6)
		for i := range uint32(4) {
			mask := uint32(uint64(0xffffffff) << (32 - min(max(bits-32*int(i), 0), 32)))
			w := uint32(a[4*i])<<24 | uint32(a[4*i+1])<<16 | uint32(a[4*i+2])<<8 | uint32(a[4*i+3])
			t = and(t, g.masked(atNet, off+4*i, 4, w, mask))
		}
		return t
	})
}
