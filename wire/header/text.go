package header

import (
	"net/netip"
	"strconv"
)

// Append renders a packet on one line as tcpdump -n does without a link-layer header, and appends it to dst:
//
//	IP 10.0.0.1.5000 > 10.0.0.2.53: UDP, length 12
//	IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 7, win 64240, options [mss 1460], length 0
//
// Sequence numbers are absolute. Tunnels and labels stand before what they carry. What is cut off is said to be.
func Append(dst, pkt []byte, first Kind) []byte {
	t := text{b: dst, pkt: pkt}
	t.s.Walk(pkt, first)
	for t.i = 0; t.i < t.s.N; t.i++ {
		t.layer(t.s.Layers[t.i])
	}
	t.rest()
	return t.b
}

// text is a line being written.
type text struct {
	b   []byte
	pkt []byte
	s   Stack
	i   int
	ip  Layer // the last IP header
}

func (t *text) str(s string)            { t.b = append(t.b, s...) }
func (t *text) num(n int)               { t.b = strconv.AppendInt(t.b, int64(n), 10) }
func (t *text) part(s string, n int)    { t.str(s); t.num(n) }
func (t *text) addr(a netip.Addr)       { t.b = a.AppendTo(t.b) }
func (t *text) hex(n uint64, width int) { t.b = appendHex(t.b, n, width) }

func appendHex(b []byte, n uint64, width int) []byte {
	b = append(b, "0x"...)
	for i := width - 1; i >= 0; i-- {
		b = append(b, "0123456789abcdef"[n>>(4*i)&15])
	}
	return b
}

func (t *text) mac(m [6]byte) {
	for i, c := range m {
		if i > 0 {
			t.b = append(t.b, ':')
		}
		t.b = append(t.b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
	}
}

// last says if this is the innermost layer.
func (t *text) last() bool { return t.i == t.s.N-1 }

// next gives the layer that follows.
func (t *text) next() Kind {
	if t.last() {
		return KindNone
	}
	return t.s.Layers[t.i+1].Kind
}

// layer writes one layer.
func (t *text) layer(l Layer) {
	h := l.Bytes(t.pkt)
	switch l.Kind {
	case KindVLAN:
		t.part("vlan ", int(VLAN(h).ID()))
		t.part(", p ", int(VLAN(h).Priority()))
		t.str(", ")
	case KindMPLS:
		t.part("MPLS (label ", int(MPLS(h).Label()))
		t.part(", tc ", int(MPLS(h).Class()))
		if MPLS(h).Bottom() {
			t.str(", [S]")
		}
		t.part(", ttl ", int(MPLS(h).TTL()))
		t.str(") ")
	case KindPPPoE:
		t.part("PPPoE [ses ", int(PPPoE(h).Session()))
		t.str("] ")
	case KindARP:
		t.arp(ARP(h), l)
	case KindIPv4, KindIPv6:
		t.address(l)
	case KindTCP:
		t.tcp(TCP(h))
	case KindUDP:
		t.udp(UDP(h), l)
	case KindSCTP:
		t.part("sctp, length ", t.s.End-l.Off)
	case KindICMP:
		t.icmp(ICMP(h), l)
	case KindICMPv6:
		t.icmp6(ICMP(h), l)
	case KindGRE:
		t.part("GREv0, length ", t.s.End-l.Off)
		t.str(": ")
	case KindVXLAN:
		t.part("VXLAN, vni ", int(VXLAN(h).VNI()))
		t.str(": ")
	case KindGeneve:
		t.part("Geneve, vni ", int(Geneve(h).VNI()))
		t.str(": ")
	}
}

// address writes addresses, with the ports of the transport header that follows.
func (t *text) address(l Layer) {
	t.ip = l
	h := l.Bytes(t.pkt)
	var src, dst netip.Addr
	if l.Kind == KindIPv4 {
		t.str("IP ")
		src, dst = IPv4(h).Src(), IPv4(h).Dst()
	} else {
		t.str("IP6 ")
		src, dst = IPv6(h).Src(), IPv6(h).Dst()
	}
	sport, dport, ports := t.ports()
	t.addr(src)
	if ports {
		t.part(".", sport)
	}
	t.str(" > ")
	t.addr(dst)
	if ports {
		t.part(".", dport)
	}
	t.str(": ")
	if l.Kind == KindIPv4 && IPv4(h).FragmentOffset() != 0 {
		t.fragment(IPv4(h).Proto(), IPv4(h).FragmentOffset(), t.s.End-t.s.Payload)
	}
}

// fragment writes a fragment that does not begin with a header.
func (t *text) fragment(proto uint8, off, n int) {
	t.part("frag of proto ", int(proto))
	t.part(", offset ", off)
	t.part(", length ", n)
}

// ports finds the ports behind the IP header and its extension headers.
func (t *text) ports() (src, dst int, ok bool) {
	for _, l := range t.s.Layers[t.i+1 : t.s.N] {
		h := l.Bytes(t.pkt)
		switch l.Kind {
		case KindExtension:
			continue
		case KindTCP, KindUDP, KindSCTP: // all begin with the ports
			return int(UDP(h).SrcPort()), int(UDP(h).DstPort()), true
		}
		return 0, 0, false
	}
	return 0, 0, false
}

// payload gives how many bytes follow l, by the IP header's length where that is known.
func (t *text) payload(l Layer) int {
	end := t.s.End
	switch t.ip.Kind {
	case KindIPv4:
		if n := IPv4(t.ip.Bytes(t.pkt)).TotalLen(); n != 0 {
			end = t.ip.Off + n
		}
	case KindIPv6:
		if n := IPv6(t.ip.Bytes(t.pkt)).PayloadLen(); n != 0 {
			end = t.ip.Off + IPv6Len + n
		}
	}
	return max(end-l.Off-l.Len, 0)
}

func (t *text) udp(h UDP, l Layer) {
	switch n := t.payload(l); {
	case t.next() == KindVXLAN || t.next() == KindGeneve:
	case h.Len() < UDPLen:
		t.part("UDP, bad length ", h.Len())
	case h.Len()-UDPLen > n:
		t.part("UDP, bad length ", h.Len()-UDPLen)
		t.part(" > ", n)
	default:
		t.part("UDP, length ", h.Len()-UDPLen)
	}
}

// tcpFlags are the letters of the flags in the order of their bits.
const tcpFlags = "FSRP.UEW"

func (t *text) tcp(h TCP) {
	l := t.s.Layers[t.i]
	n := t.payload(l)
	t.str("Flags [")
	if h.Flags() == 0 {
		t.str("none")
	}
	for i := range len(tcpFlags) {
		if h.Flags()>>i&1 != 0 {
			t.b = append(t.b, tcpFlags[i])
		}
	}
	t.str("]")
	if n > 0 || h.Flags()&(SYN|FIN|RST) != 0 {
		t.part(", seq ", int(h.Seq()))
		if n > 0 {
			t.part(":", int(h.Seq()+uint32(n)))
		}
	}
	if h.Flags()&ACK != 0 {
		t.part(", ack ", int(h.Ack()))
	}
	t.part(", win ", int(h.Window()))
	if h.Flags()&URG != 0 {
		t.part(", urg ", int(h.Urgent()))
	}
	if len(h.Options()) > 0 {
		t.options(h.Options())
	}
	t.part(", length ", n)
}

func (t *text) arp(h ARP, l Layer) {
	switch h.Op() {
	case ARPRequest:
		t.str("ARP, Request who-has ")
		t.addr(h.Target())
		if h.TargetMAC() != ([6]byte{}) {
			t.str(" (")
			t.mac(h.TargetMAC())
			t.str(")")
		}
		t.str(" tell ")
		t.addr(h.Sender())
	case ARPReply:
		t.str("ARP, Reply ")
		t.addr(h.Sender())
		t.str(" is-at ")
		t.mac(h.SenderMAC())
	case RARPRequest:
		t.str("RARP, Request who-is ")
		t.mac(h.TargetMAC())
		t.str(" tell ")
		t.mac(h.SenderMAC())
	case RARPReply:
		t.str("RARP, Reply ")
		t.mac(h.TargetMAC())
		t.str(" at ")
		t.addr(h.Target())
	default:
		t.part("ARP, operation ", int(h.Op()))
	}
	t.part(", length ", len(t.pkt)-l.Off)
}

// rest writes why the walk ended, where that is not plain from what stands there.
func (t *text) rest() {
	left := t.s.End - t.s.Payload
	switch t.s.Status {
	case Cut:
		t.str("[|cut]")
	case Bad:
		t.str("[bad header]")
	case Deep:
		t.str("[too many headers]")
	case Fragment:
		if l, ok := t.s.Last(KindExtension); ok && t.s.N > 0 && t.s.Layers[t.s.N-1] == l {
			h := Extension(l.Bytes(t.pkt))
			t.fragment(h.NextHeader(), h.FragmentOffset(), left)
		}
	case Unknown:
		if t.ip.Kind != KindNone && t.s.Layers[t.s.N-1].Kind != KindGRE {
			t.part("ip-proto-", int(t.s.Next))
			t.part(", length ", left)
			return
		}
		t.str("ethertype ")
		t.hex(uint64(t.s.Next), 4)
		t.part(", length ", left)
	case Done:
		if t.s.N > 0 && (t.s.Layers[t.s.N-1].Kind == KindExtension || t.s.Layers[t.s.N-1].Kind == KindIPv6) {
			t.part("no next header, length ", left)
		}
	}
}
