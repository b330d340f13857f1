package filter

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
)

// packets makes packets of every shape the language speaks of, from small pools of addresses and ports, so that filters
// that name them match often; some are cut short.
type packets struct{ *rand.Rand }

var (
	macPool = [][]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {255, 255, 255, 255, 255, 255}, {1, 0, 0x5e, 0, 0, 1}, {0x33, 0x33, 0, 0, 0, 1}}
	v4Pool  = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.9", "192.168.0.1", "224.0.0.1", "255.255.255.255", "172.16.5.4", "0.0.0.10"}
	v6Pool  = []string{"fe80::1", "2001:db8::1", "2001:db8::2", "2001:db8:1::5", "ff02::1", "::1", "::", "::ffff:10.0.0.1", "1:2:3:4:5:6:7:8"}
	ports   = []uint16{80, 443, 53, 22, 123, 8080, 1024, 1500, 67, 6081, 4789, 0, 65535, 161}
)

func pick[T any](p packets, from []T) T { return from[p.IntN(len(from))] }

func (p packets) chance(n int) bool { return p.IntN(n) == 0 }

func (p packets) junk(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(p.Uint32())
	}
	return b
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

// packet makes one packet of a link type.
func (p packets) packet(l Link) []byte {
	var b []byte
	switch l {
	case Ethernet:
		b = p.ethernet(0)
	case Raw:
		_, b = p.network(0)
		if p.chance(20) {
			b = p.junk(p.IntN(80))
		}
	case SLL:
		et, body := p.network(0)
		if p.chance(8) {
			et, body = pick(p, []uint16{1, 4}), p.llc()
		}
		b = cat2(be16(uint16(p.IntN(6))), be16(1), be16(6), pick(p, macPool), be16(0), be16(et), body)
	case SLL2:
		et, body := p.network(0)
		b = cat2(be16(et), be16(0), be32(uint32(p.IntN(4))), be16(1), []byte{byte(p.IntN(6)), 6}, pick(p, macPool), be16(0), body)
	case Null, Loop:
		et, body := p.network(0)
		family := uint32(p.IntN(12))
		if et == etIP && !p.chance(10) {
			family = 2
		} else if et == etIP6 && !p.chance(10) {
			family = 10
		}
		b = cat2(be32(family), body)
		if l == Null {
			binary.LittleEndian.PutUint32(b, family)
		}
	}
	if p.chance(4) {
		b = b[:p.IntN(len(b)+1)]
	}
	return b
}

func cat2(parts ...[]byte) []byte {
	var b []byte
	for _, x := range parts {
		b = append(b, x...)
	}
	return b
}

func (p packets) ethernet(depth int) []byte {
	head := cat2(pick(p, macPool), pick(p, macPool))
	for i := p.IntN(6) - 3; i > 0; i-- {
		head = cat2(head, be16(pick(p, []uint16{etVLAN, etVLAN, etQinQ, etOldQinQ})), be16(pick(p, []uint16{100, 200, 0x2064, 5, 0, 4095})))
	}
	switch p.IntN(14) {
	case 0:
		body := p.llc()
		return cat2(head, be16(uint16(len(body))), body)
	case 1, 2:
		labels := []byte(nil)
		for i := p.IntN(3); i >= 0; i-- {
			bottom := uint32(0)
			if i == 0 && !p.chance(6) {
				bottom = 0x100
			}
			labels = cat2(labels, be32(pick(p, []uint32{100, 200, 1000, 0xfffff})<<12|bottom|64))
		}
		_, body := p.network(depth)
		return cat2(head, be16(etMPLS), labels, body)
	case 3, 4:
		et, body := p.network(depth)
		return cat2(head, be16(etPPPoES), []byte{0x11, 0}, be16(pick(p, []uint16{1, 0x27, 5})), be16(uint16(len(body)+2)),
			be16(uint16(pppProto(uint32(et)))), body)
	case 5:
		return cat2(head, be16(pick(p, []uint16{etPPPoED, etATalk, etAARP, etIPX, etLoopback, etLAT, etMOPDL, 1501, 0x88cc})), p.junk(p.IntN(60)))
	case 6:
		if p.chance(2) {
			return cat2(head, be16(etDECnet), p.decnet())
		}
	}
	et, body := p.network(depth)
	return cat2(head, be16(et), body)
}

func (p packets) decnet() []byte {
	b := p.junk(30)
	addr := []byte{0x02, 0x04}
	switch p.IntN(4) {
	case 0:
		b[2] = 2
		copy(b[2+1:], addr)
		copy(b[2+3:], addr)
	case 1:
		b[2], b[3] = 0x81, 2
		copy(b[3+1:], addr)
		copy(b[3+3:], addr)
	case 2:
		b[2] = 6
		copy(b[2+7:], addr)
	case 3:
		b[2], b[3] = 0x81, 6
		copy(b[3+15:], addr)
	}
	return b
}

func (p packets) llc() []byte {
	sap := pick(p, []byte{0x42, 0xfe, 0xe0, 0xf0, 0xaa, 0x06, 0xff})
	ctl := pick(p, []byte{3, 0x63, 0x43, 0x0f, 0x6f, 0xe3, 0xaf, 0x87, 1, 5, 9, 0, 0x10})
	switch {
	case sap == 0xaa:
		return cat2([]byte{sap, sap, 3}, pick(p, [][]byte{{0, 0, 0}, {8, 0, 7}}), be16(pick(p, []uint16{etIPX, etATalk, etAARP, etIP})), p.junk(40))
	case sap == 0xfe:
		return cat2([]byte{sap, sap, 3, pick(p, []byte{0x81, 0x82, 0x83}), 0, 0, 0, byte(p.IntN(30))}, p.junk(40))
	}
	return cat2([]byte{sap, sap, ctl}, p.junk(p.IntN(50)))
}

func (p packets) network(depth int) (et uint16, b []byte) {
	switch p.IntN(12) {
	case 0:
		return etARP, p.arp()
	case 1:
		return etRARP, p.arp()
	case 2, 3, 4, 5:
		return etIP6, p.ip6(depth)
	}
	return etIP, p.ip4(depth)
}

func (p packets) addr4() []byte { a := netip.MustParseAddr(pick(p, v4Pool)).As4(); return a[:] }
func (p packets) addr6() []byte { a := netip.MustParseAddr(pick(p, v6Pool)).As16(); return a[:] }

func (p packets) arp() []byte {
	return cat2([]byte{0, 1, 8, 0, 6, 4, 0, byte(1 + p.IntN(4))}, pick(p, macPool), p.addr4(), pick(p, macPool), p.addr4())
}

func (p packets) ip4(depth int) []byte {
	proto, body := p.transport(depth)
	options := p.junk(4 * max(0, p.IntN(14)-6))
	if len(options) > 40 {
		options = options[:40]
	}
	frag := pick(p, []uint16{0, 0, 0, 0, 0x4000, 0x2000, 0x2010, 0x0010, 0x1fff})
	vhl := byte(0x40 | (5 + len(options)/4))
	if p.chance(30) {
		vhl = byte(p.Uint32())
	}
	h := cat2([]byte{vhl, pick(p, []byte{0, 0, 0xb8, 16})}, be16(uint16(20+len(options)+len(body))), be16(uint16(p.Uint32())), be16(frag),
		[]byte{pick(p, []byte{64, 1, 128, 255, 63}), proto}, be16(uint16(p.Uint32())), p.addr4(), p.addr4())
	return cat2(h, options, body)
}

// ip6 has up to four extension headers; an AH is the last, because libpcap loses its place behind one.
func (p packets) ip6(depth int) []byte {
	proto, body := p.transport(depth)
	if proto == ipICMP {
		proto = ipICMP6
	}
	for i := p.IntN(9) - 4; i > 0; i-- {
		kind := pick(p, []byte{0, 60, 43, 44})
		n := p.IntN(3)
		body = cat2([]byte{proto, byte(n)}, p.junk(6+8*n), body)
		if kind == 44 {
			body = cat2([]byte{proto, 0}, p.junk(6), body[8+8*n:])
		}
		proto = kind
	}
	first := byte(0x60)
	if p.chance(30) {
		first = byte(p.Uint32())
	}
	return cat2([]byte{first, 0, 0, pick(p, []byte{0, 1})}, be16(uint16(len(body))), []byte{proto, pick(p, []byte{64, 1, 255})},
		p.addr6(), p.addr6(), body)
}

func (p packets) transport(depth int) (proto byte, b []byte) {
	ports := cat2(be16(pick(p, ports)), be16(pick(p, ports)))
	payload := pick(p, [][]byte{nil, []byte("GET / HTTP/1.1\r\n"), {0x12, 0x34, 0x56, 0x78, 0x80}, p.junk(p.IntN(30))})
	switch p.IntN(14) {
	case 0, 1, 2, 3:
		off := byte(5 + max(0, p.IntN(8)-4))
		return ipTCP, cat2(ports, p.junk(8), []byte{off << 4, pick(p, []byte{2, 0x12, 0x10, 0x18, 0x11, 4, 0xc2, 0x28})}, p.junk(6), p.junk(4*int(off-5)), payload)
	case 4, 5, 6:
		return ipUDP, cat2(ports, be16(uint16(8+len(payload))), p.junk(2), payload)
	case 7:
		return ipSCTP, cat2(ports, p.junk(8), []byte{byte(p.IntN(4))}, p.junk(15))
	case 8:
		return ipICMP, cat2([]byte{pick(p, []byte{0, 8, 3, 11, 128, 129, 135, 136}), byte(p.IntN(5))}, p.junk(2), payload)
	case 9:
		return pick(p, []byte{ipIGMP, ipIGRP, ipPIM, ipVRRP, ipESP, ipAH, 47, 89, 4, ipNone}), cat2([]byte{ipTCP, 1}, p.junk(20))
	}
	if depth > 1 {
		return ipUDP, cat2(ports, be16(8), be16(0))
	}
	return ipUDP, p.tunnel(depth)
}

// tunnel makes Geneve or VXLAN over UDP.
func (p packets) tunnel(depth int) []byte {
	vni := be32(pick(p, []uint32{100, 0xffffff, 7}) << 8)
	if p.chance(4) {
		return cat2(be16(pick(p, ports)), be16(vxlanPort), be16(8), be16(0), []byte{pick(p, []byte{8, 0}), 0, 0, 0}, vni, p.ethernet(depth+1))
	}
	options := p.junk(4 * p.IntN(4))
	et, body := uint16(etTEB), []byte(nil)
	if p.chance(3) {
		et, body = p.network(depth + 1)
	} else {
		body = p.ethernet(depth + 1)
	}
	version := pick(p, []byte{0, 0, 0, 0x40})
	return cat2(be16(pick(p, ports)), be16(genevePort), be16(8), be16(0), []byte{version | byte(len(options)/4), 0}, be16(et), vni, options, body)
}
