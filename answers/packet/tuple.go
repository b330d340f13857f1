package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/wire/header"
)

// Protocols over IP (IANA) that have names here.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// EtherTypes.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// Tuple is what makes packets a flow: of TCP, UDP and their like addresses and ports; of ICMP echoes the identifier as both
// ports; of others what there is.
type Tuple struct {
	Ether uint16         `json:"ether,omitempty"` // EtherType
	Proto uint8          `json:"proto,omitempty"` // over IP
	Src   netip.AddrPort `json:"src,omitzero"`
	Dst   netip.AddrPort `json:"dst,omitzero"`
	// Kind is the type and code of an ICMP message, type<<8 | code, or the operation of ARP.
	Kind uint16 `json:"kind,omitempty"`
	// Hosts are the addresses of a frame that is not of IP, "src > dst".
	Hosts string `json:"hosts,omitempty"`
}

// Reverse gives the tuple of answers.
func (t Tuple) Reverse() Tuple {
	t.Src, t.Dst = t.Dst, t.Src
	return t
}

// IP says if the tuple is one of IPv4 or IPv6.
func (t Tuple) IP() bool { return t.Dst.IsValid() && t.Ether != etherARP }

// echo is the type of an ICMP message that asks (or, turned round, answers) an echo.
func (t Tuple) echo() (request, reply bool) {
	switch {
	case t.Proto == protoICMP:
		return t.Kind>>8 == header.ICMPEcho, t.Kind>>8 == header.ICMPEchoReply
	case t.Proto == protoICMPv6:
		return t.Kind>>8 == 128, t.Kind>>8 == 129 // RFC 4443
	}
	return false, false
}

// icmpError says if the packet reports an error about another.
func (t Tuple) icmpError() bool {
	switch t.Proto {
	case protoICMP:
		switch t.Kind >> 8 {
		case 3, 4, 5, 11, 12: // RFC 792
			return true
		}
	case protoICMPv6:
		return t.Kind>>8 < 128 // RFC 4443
	}
	return false
}

var protoNames = map[uint8]string{protoICMP: "icmp", 2: "igmp", protoTCP: "tcp", protoUDP: "udp", 47: "gre", 50: "esp", 51: "ah",
	protoICMPv6: "icmp6", 89: "ospf", 112: "vrrp", 132: "sctp"}

// protoName is the name of a protocol over IP, its number if it has none.
func protoName(p uint8) string {
	if n := protoNames[p]; n != "" {
		return n
	}
	return fmt.Sprintf("proto %d", p)
}

// String writes a tuple as people do: "udp 10.0.0.1:4711 > 10.0.0.2:9".
func (t Tuple) String() string {
	request, reply := t.echo()
	switch {
	case t.Ether == etherARP:
		op := map[uint16]string{1: "request", 2: "reply"}[t.Kind]
		return fmt.Sprintf("arp %s %v > %v", op, t.Src.Addr(), t.Dst.Addr())
	case !t.Dst.IsValid():
		return fmt.Sprintf("ethertype 0x%04x %s", t.Ether, t.Hosts)
	case request, reply:
		return fmt.Sprintf("%s echo %s %v > %v id %d", protoName(t.Proto), map[bool]string{true: "request", false: "reply"}[request],
			t.Src.Addr(), t.Dst.Addr(), t.Src.Port())
	case t.Proto == protoICMP || t.Proto == protoICMPv6:
		return fmt.Sprintf("%s type %d code %d %v > %v", protoName(t.Proto), t.Kind>>8, t.Kind&255, t.Src.Addr(), t.Dst.Addr())
	case t.Src.Port() == 0 && t.Dst.Port() == 0:
		return fmt.Sprintf("%s %v > %v", protoName(t.Proto), t.Src.Addr(), t.Dst.Addr())
	}
	return fmt.Sprintf("%s %v > %v", protoName(t.Proto), t.Src, t.Dst)
}

// group is the tuple without the port it was sent from, which clients choose anew each time.
func (t Tuple) group() string {
	if t.Proto == protoTCP || t.Proto == protoUDP {
		return fmt.Sprintf("%s %v > %v", protoName(t.Proto), t.Src.Addr(), t.Dst)
	}
	return t.String()
}

// View is a packet taken apart: where its headers are in an event's bytes.
type View struct {
	Tuple
	Frag   uint32 // identification of a fragment; 0 of whole packets
	More   bool   // a fragment after which more follow
	First  bool   // not a fragment, or the first of them: it has ports
	ID     uint32 // of IPv4 the identification
	TTL    uint8  // hop limit
	DF     bool
	Flags  uint8  // of TCP
	Seq    uint32 // of TCP; of ICMP echo its number
	IPLen  int    // as the IP header has it
	TCP    int    // where the header of TCP begins, from that of IP on; 0 if there is none
	TCPEnd int    // where it ends
	SrcMAC [6]byte
	DstMAC [6]byte
	HasMAC bool
	VLAN   uint16 // number, with Tagged
	Tagged bool   // it has a tag, among its bytes or beside them
	// Inner is the tuple of the packet that an ICMP error is about, or that a tunnel carries.
	Inner Tuple
	pkt   []byte
}

// Look takes the bytes of an event apart.
func Look(e *Event) (v View) {
	if len(e.Bytes) == 0 {
		v.Ether = e.Proto
		return v
	}
	v.First = true
	v.Ether = e.Proto
	if e.L2 && e.L3 >= header.EthernetLen && len(e.Bytes) >= header.EthernetLen {
		h := header.Ethernet(e.Bytes)
		v.SrcMAC, v.DstMAC, v.HasMAC = h.Src(), h.Dst(), true
		if v.Ether == 0 {
			v.Ether = h.Type()
		}
	}
	if int(e.L3) > len(e.Bytes) {
		return v
	}
	v.pkt = e.Bytes[e.L3:]
	v.VLAN, v.Tagged = e.VLAN&0xfff, e.Tagged
	v.untag(e)
	v.network()
	if v.HasMAC && !v.Dst.IsValid() {
		v.Hosts = fmt.Sprintf("%s > %s", mac(v.SrcMAC), mac(v.DstMAC))
	}
	return v
}

// untag reads VLAN tags among the bytes (IEEE 802.1Q, 802.1ad): the network header is behind them, or still at the first.
func (v *View) untag(e *Event) {
	tagged := func(t uint16) bool { return t == 0x8100 || t == 0x88a8 }
	if !tagged(v.Ether) {
		return
	}
	b := v.pkt
	if e.L2 && e.L3 >= header.EthernetLen+4 && tagged(header.Ethernet(e.Bytes).Type()) {
		b = e.Bytes[header.EthernetLen:]
	}
	for tagged(v.Ether) && len(b) >= 4 {
		v.VLAN, v.Tagged = binary.BigEndian.Uint16(b)&0xfff, true
		v.Ether, b = binary.BigEndian.Uint16(b[2:]), b[4:]
	}
	v.pkt = b
}

// network walks from the network header on.
func (v *View) network() {
	first := header.KindIP
	switch v.Ether {
	case etherIPv4, etherIPv6:
	case etherARP:
		first = header.KindARP
	default:
		return
	}
	var st header.Stack
	st.Walk(v.pkt, first)
	v.Tuple = tupleOf(&st, v.pkt, v.Ether, v)
	if v.icmpError() {
		v.inner(&st)
		return
	}
	v.carried(&st)
}

// inner reads the packet inside of an ICMP error.
func (v *View) inner(st *header.Stack) {
	l, ok := st.Last(header.KindICMP)
	if !ok {
		l, ok = st.Last(header.KindICMPv6)
	}
	if at := l.Off + 8; ok && at < len(v.pkt) {
		var s header.Stack
		in := v.pkt[at:]
		s.Walk(in, header.KindIP)
		v.Inner = tupleOf(&s, in, v.Ether, nil)
	}
}

// carried reads the packet inside of a tunnel: what begins with the second header of IP.
func (v *View) carried(st *header.Stack) {
	n := 0
	for _, l := range st.Found() {
		if l.Kind != header.KindIPv4 && l.Kind != header.KindIPv6 {
			continue
		}
		if n++; n == 2 {
			var s header.Stack
			in := v.pkt[l.Off:]
			s.Walk(in, header.KindIP)
			ether := uint16(etherIPv4)
			if l.Kind == header.KindIPv6 {
				ether = etherIPv6
			}
			v.Inner = tupleOf(&s, in, ether, nil)
			return
		}
	}
}

// tupleOf makes a tuple of the outermost headers; v, if given, gets the rest.
func tupleOf(s *header.Stack, pkt []byte, ether uint16, v *View) Tuple {
	t := Tuple{Ether: ether}
	var src, dst netip.Addr
	port := func(a, b uint16) { t.Src, t.Dst = netip.AddrPortFrom(src, a), netip.AddrPortFrom(dst, b) }
	if v == nil {
		v = &View{}
	}
	v.First = true
	for i, l := range s.Found() {
		if i > 0 && (l.Kind == header.KindIPv4 || l.Kind == header.KindIPv6 || l.Kind == header.KindGRE) {
			return t // a tunnel's inside
		}
		b := l.Bytes(pkt)
		switch l.Kind {
		case header.KindARP:
			h := header.ARP(b)
			src, dst, t.Kind = h.Sender(), h.Target(), h.Op()
		case header.KindIPv4:
			h := header.IPv4(b)
			src, dst, t.Proto = h.Src(), h.Dst(), h.Proto()
			v.ID, v.TTL, v.DF, v.IPLen = uint32(h.ID()), h.TTL(), h.DontFragment(), h.TotalLen()
			if h.Fragment() || h.MoreFragments() {
				v.Frag, v.More, v.First = uint32(h.ID())|1<<16, h.MoreFragments(), h.FragmentOffset() == 0
			}
		case header.KindIPv6:
			h := header.IPv6(b)
			src, dst, t.Proto = h.Src(), h.Dst(), h.NextHeader()
			v.TTL, v.IPLen = h.HopLimit(), h.PayloadLen()+40
		case header.KindExtension:
			h := header.Extension(b)
			t.Proto = h.NextHeader()
			if l.Proto == 44 { // fragment header, RFC 8200
				v.Frag, v.More, v.First = h.FragmentID(), h.MoreFragments(), h.FragmentOffset() == 0
			}
		case header.KindTCP:
			h := header.TCP(b)
			port(h.SrcPort(), h.DstPort())
			v.Flags, v.Seq, v.TCP, v.TCPEnd = h.Flags(), h.Seq(), l.Off, l.Off+h.HeaderLen()
			return t
		case header.KindUDP:
			h := header.UDP(b)
			port(h.SrcPort(), h.DstPort())
			return t
		case header.KindSCTP:
			h := header.SCTP(b)
			port(h.SrcPort(), h.DstPort())
			return t
		case header.KindICMP, header.KindICMPv6:
			h := header.ICMP(b)
			t.Kind = uint16(h.Type())<<8 | uint16(h.Code())
			port(0, 0)
			if req, rep := t.echo(); req || rep {
				port(h.ID(), h.ID())
				v.Seq = uint32(h.Seq())
			}
			return t
		}
		port(0, 0)
	}
	return t
}

func mac(m [6]byte) string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// Packet makes the shortest packet of IP that has the tuple's addresses and ports, for filters; nil if it has none.
func (t Tuple) Packet() []byte {
	dst := t.Dst.Addr()
	if !dst.IsValid() {
		return nil
	}
	src := t.Src.Addr()
	n := header.IPv4Len
	if dst.Unmap().Is6() {
		n = 40
	}
	p := make([]byte, n+header.TCPLen)
	if dst = dst.Unmap(); dst.Is4() {
		p[0], p[8], p[9] = 0x45, 64, t.Proto
		binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
		if src.Unmap().Is4() {
			a := src.Unmap().As4()
			copy(p[12:], a[:])
		}
		a := dst.As4()
		copy(p[16:], a[:])
	} else {
		p[0], p[6], p[7] = 0x60, t.Proto, 64
		binary.BigEndian.PutUint16(p[4:], header.TCPLen)
		if src.IsValid() {
			a := src.As16()
			copy(p[8:], a[:])
		}
		a := dst.As16()
		copy(p[24:], a[:])
	}
	binary.BigEndian.PutUint16(p[n:], t.Src.Port())
	binary.BigEndian.PutUint16(p[n+2:], t.Dst.Port())
	p[n+12] = header.TCPLen / 4 << 4
	return p
}
