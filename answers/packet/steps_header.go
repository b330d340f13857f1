package packet

import (
	"encoding/binary"
	"fmt"
)

// atIPv4 says if a packet is where the kernel looks at its IPv4 header, before it takes that off.
func (s *scene) atIPv4() bool {
	return s.in("ip_rcv_core", "ip_rcv") && !s.in("ip_local_deliver_finish")
}

// flaw finds what is wrong in the headers of an IPv4 packet, as ip_rcv_core (net/ipv4/ip_input.c), __ip_options_compile
// (net/ipv4/ip_options.c), __udp4_lib_rcv and tcp_v4_rcv look at them; nil if that is not among the bytes that were kept.
func (s *scene) flaw() *finding {
	b := s.hop.View.pkt
	if len(b) < 20 || s.hop.Proto != etherIPv4 {
		return nil
	}
	bad := func(field, format string, args ...any) *finding {
		return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": field}, certain: true,
			cause: "its headers are malformed: " + fmt.Sprintf(format, args...), fix: "mend what sends it"}
	}
	head, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	switch {
	case b[0]>>4 != 4:
		return bad("ip.version", "an IPv4 packet says that it is of version %d", b[0]>>4)
	case head < 20:
		return bad("ip.ihl", "the IP header says that it has %d bytes", head)
	case total < head:
		return bad("ip.len", "the IP header says that the packet has %d bytes, fewer than the header", total)
	case s.atIPv4() && total > int(s.hop.Len):
		return bad("ip.len", "the IP header says that the packet has %d bytes, and %d came", total, s.hop.Len)
	}
	if kind, at, ok := wrongOption(b[20:min(head, len(b))]); !ok && s.in("ip_rcv_finish_core", "ip_rcv_options") {
		return bad("ip.options", "IP option %d at byte %d does not fit the header", kind, 20+at)
	}
	if len(b) < head+14 || s.hop.View.Frag != 0 {
		return nil
	}
	rest, l4 := total-head, b[head:]
	switch s.hop.View.Proto {
	case protoUDP:
		if n := int(binary.BigEndian.Uint16(l4[4:])); n < 8 || n > rest {
			return bad("udp.len", "the UDP header says %d bytes, and the IP header leaves %d", n, rest)
		}
	case protoTCP:
		if n := int(l4[12]>>4) * 4; n < 20 || n > rest {
			return bad("tcp.doff", "the TCP header says that it has %d bytes, of %d", n, rest)
		}
	}
	return nil
}

// IP options (RFC 791) that say a length of their own; those that route packets.
const (
	optEnd, optNop = 0, 1
	optLSRR        = 131
	optSSRR        = 137
)

// options calls f with the kind, the place and the bytes of each of the options, until it says no; ok is false if one does
// not fit, of the kind and at the place that are given then.
func options(b []byte, f func(kind byte, at int) bool) (kind byte, at int, ok bool) {
	for i := 0; i < len(b); {
		switch {
		case b[i] == optEnd:
			return 0, 0, true
		case b[i] == optNop:
			i++
		case i+1 >= len(b) || b[i+1] < 2 || i+int(b[i+1]) > len(b):
			return b[i], i, false
		case !f(b[i], i):
			return 0, 0, true
		default:
			i += int(b[i+1])
		}
	}
	return 0, 0, true
}

func wrongOption(b []byte) (kind byte, at int, ok bool) {
	return options(b, func(byte, int) bool { return true })
}

// sourceRouted says if the sender chose the packet's way: with an option that hosts and routers need not follow.
func sourceRouted(s *scene) bool {
	b := s.hop.View.pkt
	if len(b) < 20 || s.hop.Proto != etherIPv4 || !s.in("ip_rcv_finish_core", "ip_rcv_options", "ip_rcv_finish") {
		return false
	}
	found := false
	options(b[20:max(20, min(int(b[0]&15)*4, len(b)))], func(kind byte, _ int) bool {
		found = kind == optLSRR || kind == optSSRR
		return !found
	})
	return found
}

// sourceRouteRefused: ip_rcv_options (net/ipv4/ip_input.c).
func sourceRouteRefused(s *scene) *finding {
	key, v := s.setting(s.loss.Dev, "accept_source_route")
	if v != 0 {
		return nil
	}
	return &finding{culprit: s.blame(key, v), certain: true, cause: fmt.Sprintf("its sender chose its way (an IP option, source route), which %s does not follow: %s=0", s.ns(), key),
		fix: "send it without the option; to follow it is a risk: sysctl -w " + key + "=1"}
}
