package header

import (
	"encoding/binary"
	"net/netip"
)

// options writes TCP options.
func (t *text) options(opts []byte) {
	t.str(", options [")
	first := true
	for len(opts) > 0 {
		if !first {
			t.str(",")
		}
		first = false
		if opts[0] == OptEnd {
			t.str("eol")
			break
		}
		kind, data, rest, ok := NextOption(opts)
		if !ok {
			t.str("bad opt")
			break
		}
		t.option(kind, data)
		opts = rest
	}
	t.str("]")
}

func (t *text) option(kind uint8, data []byte) {
	word := func(i int) int { return int(binary.BigEndian.Uint32(data[4*i:])) }
	switch {
	case kind == OptNop:
		t.str("nop")
	case kind == OptMSS && len(data) == 2:
		t.part("mss ", int(binary.BigEndian.Uint16(data)))
	case kind == OptScale && len(data) == 1:
		t.part("wscale ", int(data[0]))
	case kind == OptSackOK && len(data) == 0:
		t.str("sackOK")
	case kind == OptSack && len(data)%8 == 0 && len(data) > 0:
		t.part("sack ", len(data)/8)
		t.str(" ")
		for i := 0; i < len(data)/4; i += 2 {
			t.part("{", word(i))
			t.part(":", word(i+1))
			t.str("}")
		}
	case kind == OptTimestamp && len(data) == 8:
		t.part("TS val ", word(0))
		t.part(" ecr ", word(1))
	default:
		t.part("unknown-", int(kind))
		if len(data) > 0 {
			t.str(" 0x")
			for _, c := range data {
				t.b = append(t.b, "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
			}
		}
	}
}

// quoted gives the packet that an ICMP error is about: it begins behind the ICMP header.
func (t *text) quoted(l Layer) (dst netip.Addr, proto uint8, port int, ok bool) {
	var s Stack
	b := t.pkt[l.Off+l.Len : t.s.End]
	s.Walk(b, KindIP)
	if s.N == 0 {
		return dst, 0, 0, false
	}
	h := s.Layers[0].Bytes(b)
	if s.Layers[0].Kind == KindIPv4 {
		dst, proto = IPv4(h).Dst(), IPv4(h).Proto()
	} else {
		dst, proto = IPv6(h).Dst(), IPv6(h).NextHeader()
	}
	if rest := b[s.Layers[0].Len:]; len(rest) >= 4 { // an error need not have more of it than the ports
		port = int(UDP(rest).DstPort())
	}
	return dst, proto, port, true
}

// protoName gives the name of a protocol over IP for "port unreachable".
func (t *text) protoName(p uint8) {
	switch p {
	case ProtoTCP:
		t.str("tcp")
	case ProtoUDP:
		t.str("udp")
	case ProtoSCTP:
		t.str("sctp")
	default:
		t.part("protocol ", int(p))
	}
}

func (t *text) icmp(h ICMP, l Layer) {
	t.str("ICMP ")
	switch h.Type() {
	case ICMPEcho:
		t.echo("echo request", h)
	case ICMPEchoReply:
		t.echo("echo reply", h)
	case ICMPUnreachable:
		t.unreachable(h, l)
	case ICMPTimeExceeded:
		if h.Code() == 0 {
			t.str("time exceeded in-transit")
		} else {
			t.str("ip reassembly time exceeded")
		}
	case ICMPRedirect:
		t.str("redirect")
		if dst, _, _, ok := t.quoted(l); ok {
			t.str(" ")
			t.addr(dst)
		}
		t.str(" to ")
		t.addr(netip.AddrFrom4([4]byte(h[4:8])))
	default:
		t.part("type-#", int(h.Type()))
	}
	t.part(", length ", t.payload(l)+l.Len)
}

func (t *text) echo(what string, h ICMP) {
	t.str(what)
	t.part(", id ", int(h.ID()))
	t.part(", seq ", int(h.Seq()))
}

func (t *text) unreachable(h ICMP, l Layer) {
	dst, proto, port, ok := t.quoted(l)
	if !ok {
		t.part("unreachable, code ", int(h.Code()))
		return
	}
	switch h.Code() {
	case 0:
		t.str("net ")
	case 1, 4, 10, 13:
		if h.Code() != 4 {
			t.str("host ")
		}
	}
	t.addr(dst)
	switch h.Code() {
	case 2:
		t.part(" protocol ", int(proto))
		t.str(" unreachable")
	case 3:
		t.str(" ")
		t.protoName(proto)
		t.part(" port ", port)
		t.str(" unreachable")
	case 4:
		t.str(" unreachable - need to frag")
		if h.MTU() != 0 {
			t.part(" (mtu ", int(h.MTU()))
			t.str(")")
		}
	case 10, 13:
		t.str(" unreachable - admin prohibited")
		if h.Code() == 13 {
			t.str(" filter")
		}
	case 0, 1:
		t.str(" unreachable")
	default:
		t.part(" unreachable, code ", int(h.Code()))
	}
}

func (t *text) icmp6(h ICMP, l Layer) {
	t.str("ICMP6, ")
	target := func(what string) {
		t.str(what)
		if b := t.pkt[l.Off:t.s.End]; len(b) >= 24 {
			t.addr(netip.AddrFrom16([16]byte(b[8:24])))
		}
	}
	switch h.Type() {
	case ICMPv6Echo:
		t.echo("echo request", h)
	case ICMPv6EchoReply:
		t.echo("echo reply", h)
	case ICMPv6Unreachable:
		t.unreachable6(h, l)
	case ICMPv6TooBig:
		t.part("packet too big, mtu ", int(h.MTU6()))
	case ICMPv6TimeExceeded:
		t.str("time exceeded in-transit")
		if dst, _, _, ok := t.quoted(l); ok {
			t.str(" for ")
			t.addr(dst)
		}
	case ICMPv6RouterSol:
		t.str("router solicitation")
	case ICMPv6RouterAdv:
		t.str("router advertisement")
	case ICMPv6NeighborSol:
		target("neighbor solicitation, who has ")
	case ICMPv6NeighborAdv:
		target("neighbor advertisement, tgt is ")
	default:
		t.part("type-#", int(h.Type()))
	}
	t.part(", length ", t.payload(l)+l.Len)
}

func (t *text) unreachable6(h ICMP, l Layer) {
	t.str("destination unreachable, ")
	why := [...]string{"unreachable route ", "unreachable prohibited ", "beyond scope ", "unreachable address ", "unreachable port"}
	dst, proto, port, ok := t.quoted(l)
	switch {
	case int(h.Code()) >= len(why) || !ok:
		t.part("code ", int(h.Code()))
	case h.Code() == 4:
		t.str(why[4] + ", ")
		t.addr(dst)
		t.str(" ")
		t.protoName(proto)
		t.part(" port ", port)
	default:
		t.str(why[h.Code()])
		t.addr(dst)
	}
}
