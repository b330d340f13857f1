package packet

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// what is what a View says, in a form to compare.
type what struct {
	Tuple, Inner string
	First        bool
	Frag         uint32
	TTL          uint8
	Seq          uint32
	VLAN         uint16
	Tagged       bool
}

func view(e Event) what {
	v := Look(&e)
	w := what{Tuple: v.Tuple.String(), First: v.First, Frag: v.Frag, TTL: v.TTL, Seq: v.Seq, VLAN: v.VLAN, Tagged: v.Tagged}
	if v.Inner.IP() {
		w.Inner = v.Inner.String()
	}
	return w
}

func TestLook(t *testing.T) {
	in := udp(a0, b0)
	in6 := datagram{proto: protoUDP, src: "[2001:db8::1]:5", dst: "[2001:db8::2]:6"}
	frame := ethernet(in.bytes())
	arp := []byte{0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 2}
	// Hop-by-hop options (0), routing (43) and a fragment header (44) between IPv6 and UDP.
	long := datagram{proto: 0, src: in6.src, dst: in6.dst, rest: append([]byte{43, 0, 1, 4, 0, 0, 0, 0, 44, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9}, in6.bytes()[40:]...)}
	later := datagram{proto: 44, src: in6.src, dst: in6.dst, rest: append([]byte{17, 0, 0, 0x80, 0, 0, 0, 9}, 1, 2, 3, 4, 5, 6, 7, 8)}
	echo := datagram{proto: protoICMP, src: "10.0.0.1:7", dst: "10.0.0.2:3", kind: 8 << 8}
	tooBig := datagram{proto: protoICMPv6, src: "[2001:db8::9]:0", dst: "[2001:db8::1]:0", kind: 2 << 8, rest: in6.bytes()}
	for _, c := range []struct {
		name string
		e    Event
		want what
	}{
		{"nothing", Event{Proto: 0x88cc}, what{Tuple: "ethertype 0x88cc "}},
		{"UDP without a link header", Event{Proto: etherIPv4, Bytes: in.bytes()}, what{Tuple: flowA, First: true, TTL: 64}},
		{"behind Ethernet", Event{Proto: etherIPv4, L2: true, L3: 14, Bytes: frame}, what{Tuple: flowA, First: true, TTL: 64}},
		{"Ethernet tells the protocol", Event{L2: true, L3: 14, Bytes: frame}, what{Tuple: flowA, First: true, TTL: 64}},
		{"a VLAN tag beside", Event{Proto: etherIPv4, L2: true, L3: 14, Bytes: frame, Tagged: true, VLAN: 0x2005}, what{Tuple: flowA, First: true, TTL: 64, VLAN: 5, Tagged: true}},
		{"a VLAN tag in band, the header at the tag", Event{Proto: 0x8100, L2: true, L3: 14, Bytes: ethernet(in.bytes(), 5)}, what{Tuple: flowA, First: true, TTL: 64, VLAN: 5, Tagged: true}},
		{"a VLAN tag in band, the header behind it", Event{Proto: 0x8100, L2: true, L3: 18, Bytes: ethernet(in.bytes(), 5)}, what{Tuple: flowA, First: true, TTL: 64, VLAN: 5, Tagged: true}},
		{"two VLAN tags", Event{Proto: 0x8100, L2: true, L3: 14, Bytes: ethernet(in.bytes(), 5, 6)}, what{Tuple: flowA, First: true, TTL: 64, VLAN: 6, Tagged: true}},
		{"ARP", Event{Proto: etherARP, Bytes: arp}, what{Tuple: "arp request 10.0.0.1 > 10.0.0.2", First: true}},
		{"an ICMP echo", Event{Proto: etherIPv4, Bytes: echo.bytes()}, what{Tuple: "icmp echo request 10.0.0.1 > 10.0.0.2 id 7", First: true, TTL: 64, Seq: 3}},
		{"an ICMP error and what it is about", Event{Proto: etherIPv4, Bytes: datagram{proto: protoICMP, src: "10.0.0.2:0", dst: "10.0.0.1:0", kind: 3<<8 | 3, rest: in.bytes()}.bytes()},
			what{Tuple: "icmp type 3 code 3 10.0.0.2 > 10.0.0.1", Inner: flowA, First: true, TTL: 64}},
		{"of IPv6", Event{Proto: etherIPv6, Bytes: tooBig.bytes()}, what{Tuple: "icmp6 type 2 code 0 2001:db8::9 > 2001:db8::1", Inner: "udp [2001:db8::1]:5 > [2001:db8::2]:6", First: true, TTL: 64}},
		{"extension headers, and the first fragment", Event{Proto: etherIPv6, Bytes: long.bytes()}, what{Tuple: "udp [2001:db8::1]:5 > [2001:db8::2]:6", First: true, TTL: 64, Frag: 9}},
		{"a later fragment", Event{Proto: etherIPv6, Bytes: later.bytes()}, what{Tuple: "udp 2001:db8::1 > 2001:db8::2", TTL: 64, Frag: 9}},
		{"a later fragment of IPv4", Event{Proto: etherIPv4, Bytes: in.with(func(d *datagram) { d.id, d.frag, d.rest = 5, 3, make([]byte, 8) }).bytes()},
			what{Tuple: "udp 10.0.0.1 > 10.0.0.2", TTL: 64, Frag: 5 | 1<<16}},
		{"cut within IP", Event{Proto: etherIPv4, Bytes: in.bytes()[:15]}, what{Tuple: "ethertype 0x0800 ", First: true}},
		{"cut within UDP", Event{Proto: etherIPv4, Bytes: in.bytes()[:24]}, what{Tuple: "udp 10.0.0.1 > 10.0.0.2", First: true, TTL: 64}},
		{"a frame of another protocol", Event{Proto: 0x88cc, L2: true, L3: 14, Bytes: frame}, what{Tuple: "ethertype 0x88cc 02:00:00:00:00:01 > 02:00:00:00:00:02", First: true}},
		{"the header beyond the bytes", Event{Proto: etherIPv4, L3: 99, Bytes: in.bytes()}, what{Tuple: "ethertype 0x0800 ", First: true}},
		{"VXLAN", Event{Proto: etherIPv4, Bytes: inside(protoUDP, vxlan, ethernet(in.bytes())).bytes()}, what{Tuple: "udp 192.0.2.1:55555 > 192.0.2.2:4789", Inner: flowA, First: true, TTL: 64}},
		{"GRE", Event{Proto: etherIPv4, Bytes: inside(47, gre, in.bytes()).bytes()}, what{Tuple: "gre 192.0.2.1 > 192.0.2.2", Inner: flowA, First: true, TTL: 64}},
		{"IPv6 in IPv4", Event{Proto: etherIPv4, Bytes: inside(41, nil, in6.bytes()).bytes()}, what{Tuple: "proto 41 192.0.2.1 > 192.0.2.2", Inner: "udp [2001:db8::1]:5 > [2001:db8::2]:6", First: true, TTL: 64}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, view(c.e)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestPacketOfTuple: the packet that a tuple is made into is seen as that tuple.
func TestPacketOfTuple(t *testing.T) {
	for _, d := range []datagram{udp(a0, b0), tcp(0, 0), {proto: protoTCP, src: "[2001:db8::1]:5", dst: "[2001:db8::2]:6"}} {
		src, dst := netip.MustParseAddrPort(d.src), netip.MustParseAddrPort(d.dst)
		e := Event{Proto: etherIPv4}
		if dst.Addr().Is6() {
			e.Proto = etherIPv6
		}
		want := Tuple{Ether: e.Proto, Proto: d.proto, Src: src, Dst: dst}
		e.Bytes = want.Packet()
		if diff := cmp.Diff(want.String(), Look(&e).Tuple.String()); diff != "" {
			t.Errorf("%v: -want +got\n%s", want, diff)
		}
	}
	if (Tuple{}).Packet() != nil {
		t.Error("a tuple without addresses made a packet")
	}
}

// FuzzLook takes any bytes apart: no panic, and nothing that is not in the bytes.
func FuzzLook(f *testing.F) {
	in := udp(a0, b0)
	for _, b := range [][]byte{in.bytes(), tcp(1, 2).bytes(), inside(47, gre, in.bytes()).bytes(), inside(protoUDP, vxlan, ethernet(in.bytes())).bytes()} {
		f.Add(b, uint16(etherIPv4), uint16(0), false)
		f.Add(ethernet(b), uint16(etherIPv4), uint16(14), true)
		f.Add(ethernet(b, 5, 6), uint16(0x8100), uint16(18), true)
		f.Add(b[:len(b)/2], uint16(0), uint16(3), true)
	}
	f.Add([]byte{0x60, 0, 0, 0, 0, 8, 0, 1}, uint16(etherIPv6), uint16(0), false)
	f.Add([]byte{0, 1, 8, 0, 6, 4, 0, 1}, uint16(etherARP), uint16(0), false)
	f.Fuzz(func(t *testing.T, b []byte, proto, l3 uint16, l2 bool) {
		v := Look(&Event{Bytes: b, Proto: proto, L3: l3, L2: l2})
		_, _, _, _ = v.Tuple.String(), v.Inner.String(), v.Tuple.group(), v.Tuple.Packet()
		if len(v.pkt) > len(b) {
			t.Errorf("%d bytes of %d", len(v.pkt), len(b))
		}
	})
}
