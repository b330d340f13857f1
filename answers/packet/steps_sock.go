package packet

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/wire/header"
)

// isCopy says if what was dropped is a copy: the packet itself went on, or was taken.
func isCopy(s *scene) bool {
	if s.in(captures...) {
		return true
	}
	return s.pkt.Received && !s.hop.Last
}

// captures are the functions that give packets to packet sockets (net/packet/af_packet.c).
var captures = []string{"packet_rcv", "tpacket_rcv", "packet_rcv_spkt", "dev_queue_xmit_nit"}

// copyDropped: a capture socket, or another that gets copies, had no room.
func copyDropped(s *scene) *finding {
	if !s.in(captures...) {
		return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, fix: "nothing to mend: not a loss",
			cause: "only a copy of it was dropped: another socket was given the packet"}
	}
	return &finding{class: ClassFalseLoss, culprit: Culprit{"kind": "socket", "netns": s.ns(), "proto": "packet", "field": "rcvbuf"}, certain: true,
		cause: "only a copy for a packet socket (a capture) is dropped: its receive buffer is full; the packet itself goes on",
		fix:   "raise the capture's buffer; not a network loss"}
}

// pingReply: root's ping has a raw socket, which gets a copy; the reply itself finds no ping socket and is freed
// (icmp_rcv, ping_rcv).
func pingReply(s *scene) *finding {
	for _, k := range s.st.Sockets {
		if k.Proto == "raw" {
			return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, fix: "nothing to mend: not a loss",
				cause: "a raw socket (root's ping) has a copy of each echo reply; the original is freed as no ping socket wants it"}
		}
	}
	if s.asked() || s.pkt.Received {
		return &finding{class: ClassFalseLoss, culprit: Culprit{}, fix: "nothing to mend: not a loss",
			cause: "the echo reply's original is freed after the raw socket that asked got its copy"}
	}
	return &finding{culprit: Culprit{"kind": "socket", "netns": s.ns(), "proto": "icmp", "state": "absent"},
		cause: "an echo reply that nobody here asked for", fix: "look for who sends requests with this source"}
}

// asked says if the reply's request was sent from here.
func (s *scene) asked() bool {
	for _, f := range s.rec.Flows {
		if req, _ := f.Tuple.echo(); req && f.Tuple.Src == s.hop.View.Dst && f.Tuple.Dst == s.hop.View.Src {
			return true
		}
	}
	return false
}

// noSocket: nobody wanted it, or nobody who might have it.
func noSocket(s *scene) *finding {
	if f := s.misrouted(); f != nil {
		return f
	}
	v := &s.hop.View
	proto := protoName(v.Proto)
	c := Culprit{"kind": "socket", "netns": s.ns(), "proto": proto, "local": v.Dst.String(), "state": "absent"}
	answer := map[string]string{"udp": "ICMP port unreachable", "tcp": "RST"}[proto]
	f := &finding{culprit: c, certain: true, fix: "start the service, or send to the right port"}
	near := s.almost(proto)
	switch {
	case near != nil:
		c["local"], c["state"] = near.local, near.state
		f.cause, f.fix = near.cause, near.fix
	case proto == "tcp" && v.Flags&header.SYN == 0:
		f.cause = fmt.Sprintf("%s has no connection %v > %v and no listener; it answers %s", s.ns(), v.Src, v.Dst, answer)
		f.fix = "keep the flow on the host that has its state; the connection was closed, or never was here"
	default:
		f.cause = fmt.Sprintf("no %s socket in %s is bound to port %d on %v; the kernel answers %s", strings.ToUpper(proto), s.ns(), v.Dst.Port(), v.Dst.Addr(), answer)
	}
	return f
}

// candidate is a socket that has the port but not the packet.
type candidate struct{ local, state, cause, fix string }

// almost finds the socket that came nearest and says why it did not get the packet; nil if none has the port.
func (s *scene) almost(proto string) *candidate {
	for _, c := range s.sockets(proto) {
		k := c.Socket
		who := fmt.Sprintf("the socket on port %d", k.Local.Port())
		if k.Owner != "" {
			who += " of " + k.Owner
		}
		local, v := k.Local.String(), &s.hop.View
		switch c.Why {
		case "device":
			dev := s.st.LinkName(k.Dev)
			return &candidate{fmt.Sprintf("%v%%%s:%d", k.Local.Addr(), dev, k.Local.Port()), "wrong-device",
				fmt.Sprintf("%s is bound to device %s, packets arrive on %s", who, dev, s.loss.Dev), "drop SO_BINDTODEVICE, or bind to " + s.loss.Dev}
		case "address":
			return &candidate{local, "wrong-address", fmt.Sprintf("%s is bound to %v, packets are for %v", who, k.Local.Addr(), v.Dst.Addr()),
				"bind to " + v.Dst.Addr().String() + " or to all addresses"}
		case "family":
			return &candidate{local, "v6only", who + " takes the other version of IP only (IPV6_V6ONLY)", "turn IPV6_V6ONLY off, or bind to both"}
		case "connected":
			if proto == "tcp" {
				continue // somebody else's connection
			}
			return &candidate{local, "connected", fmt.Sprintf("%s is connected to %v, packets come from %v", who, k.Remote, v.Src),
				"send from that address, or do not connect the socket"}
		}
	}
	return nil
}

// misrouted finds out that the packet came here because its address was rewritten on the way, or that it answers one whose
// address was.
func (s *scene) misrouted() *finding {
	for _, w := range s.flow.Rewritten {
		if w.From.Dst == w.To.Dst {
			continue
		}
		c, rule := s.rec.rewriter(w)
		return &finding{class: ClassMisroute, culprit: c, certain: rule != "",
			cause: fmt.Sprintf("%s rewrites %v to %v, where nobody listens", or(rule, "a rule in "+s.rec.NS(w.Netns)), w.From.Dst, w.To.Dst),
			fix:   "point the rule at a live backend"}
	}
	now := s.hop.View.Tuple
	for _, f := range s.rec.Flows {
		for _, w := range f.Rewritten {
			asked := f.Tuple
			if w.From.Dst == w.To.Dst || w.To.Dst != now.Src || asked.Src != now.Dst || asked.Dst == now.Src {
				continue
			}
			c, rule := s.rec.rewriter(w)
			return &finding{class: ClassMisroute, culprit: c, certain: rule != "", fix: "use dnat, which keeps state, so that answers are translated back",
				cause: fmt.Sprintf("%s sent to %v, which %s rewrites to %v without translating back: the answer comes from %v, and %s has no such connection",
					s.ns(), asked.Dst, or(rule, "a rule"), w.To.Dst, now.Src, s.ns())}
		}
	}
	return nil
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// queueFull: the socket is there and has no room.
func queueFull(s *scene) *finding {
	v := &s.hop.View
	proto := protoName(v.Proto)
	c := Culprit{"kind": "socket", "netns": s.ns(), "proto": proto, "local": v.Dst.String(), "field": "rcvbuf"}
	f := &finding{culprit: c, fix: "read faster, or raise SO_RCVBUF (net.core.rmem_max bounds it)",
		cause: "the receive buffer of the socket is full: its reader does not drain it"}
	if s.reason("PROTO_MEM") {
		key := fmt.Sprintf("net.ipv4.%s_mem", proto)
		return &finding{culprit: Culprit{"kind": "sysctl", "netns": "init", "key": key}, cause: "all sockets of " + proto + " together have used up their memory (" + key + ")",
			fix: "raise " + key + ", or find who does not read"}
	}
	if s.reason("SOCKET_BACKLOG") {
		c["field"] = "backlog"
	}
	if k := s.taker(proto); k != nil {
		c["local"] = k.Local.String()
		f.certain = true
		f.cause = fmt.Sprintf("the receive buffer of %d bytes (SO_RCVBUF) is full: %s does not drain it", k.RcvBuf, or(k.Owner, "its reader"))
	}
	return f
}

// taker is the socket that a packet is for.
func (s *scene) taker(proto string) *netstate.Socket {
	for _, c := range s.sockets(proto) {
		if c.Chosen {
			return c.Socket
		}
	}
	return nil
}

// socketFilter: a program on the socket refused it.
func socketFilter(s *scene) *finding {
	v := &s.hop.View
	proto := protoName(v.Proto)
	c := Culprit{"kind": "socket", "netns": s.ns(), "proto": proto, "local": v.Dst.String(), "field": "filter"}
	if k := s.taker(proto); k != nil {
		c["local"] = k.Local.String()
	}
	return &finding{culprit: c, certain: s.reason("SOCKET_FILTER"), cause: "the socket's BPF filter (SO_ATTACH_FILTER or SO_ATTACH_BPF) refuses it",
		fix: "mend the filter, or detach it (SO_DETACH_FILTER)"}
}

// signature: the peers do not agree on signing (RFC 2385, RFC 5925).
func signature(s *scene) *finding {
	v := &s.hop.View
	c := Culprit{"kind": "socket", "netns": s.ns(), "proto": "tcp", "local": v.Dst.String(), "field": "TCP_MD5SIG"}
	if k := s.taker("tcp"); k != nil {
		c["local"] = k.Local.String()
	}
	if strings.HasPrefix(s.loss.Reason, "TCP_AO") {
		c["field"] = "TCP_AO"
	}
	what := map[string]string{
		"TCP_MD5NOTFOUND":   fmt.Sprintf("the socket requires an MD5 signature (RFC 2385) from %v, and the segment has none", v.Src.Addr()),
		"TCP_MD5UNEXPECTED": fmt.Sprintf("%v signs with MD5, and the socket has no key for it", v.Src.Addr()),
		"TCP_MD5FAILURE":    fmt.Sprintf("the MD5 signature of %v is wrong: the keys differ", v.Src.Addr()),
	}[s.loss.Reason]
	return &finding{culprit: c, certain: true, cause: or(what, "the segment's signature is not what the socket wants: "+words(s.loss.Reason)),
		fix: "configure the same key on both ends"}
}

// listenerFull: nobody accepts, or too many handshakes are under way.
func listenerFull(s *scene) *finding {
	return s.rec.overflow(s.loss.Netns, s.hop.View.Dst)
}

// overflow is the finding for a listener that takes no more connections.
func (r *Recording) overflow(ns uint32, dst netip.AddrPort) *finding {
	c := Culprit{"kind": "socket", "netns": r.NS(ns), "proto": "tcp", "local": dst.String(), "field": "backlog"}
	f := &finding{culprit: c, cause: "the accept queue of the listener is full: the application does not call accept()",
		fix: "accept faster; raise the backlog of listen() and net.core.somaxconn"}
	if st := r.end(ns); st != nil {
		for _, k := range st.Sockets {
			if k.Proto == "tcp" && k.State == "listen" && k.Local.Port() == dst.Port() {
				c["local"] = k.Local.String()
				f.certain = true
				f.cause = fmt.Sprintf("the accept queue is full (%d wait, backlog %d): %s does not call accept(), so SYNs and final ACKs are ignored", k.RecvQ, k.SendQ, or(k.Owner, "the application"))
			}
		}
	}
	return f
}

// tcpState: TCP did not want the segment as its connection is.
func tcpState(s *scene) *finding {
	v := &s.hop.View
	c := Culprit{"kind": "socket", "netns": s.ns(), "proto": "tcp", "local": v.Dst.String(), "state": words(s.loss.Reason)}
	if v.Flags&header.RST != 0 {
		return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, cause: "a reset: it ends the connection and is freed", fix: "look at why the other end reset it"}
	}
	// Linux 6.1 has no reason for it, and a counter.
	if s.reason("TCP_MINTTL") || s.reason("NOT_SPECIFIED", "") && s.at("tcp_v4_rcv", "tcp_v6_rcv") && s.rec.moved(s.loss.Netns, "TcpExt.TCPMinTTLDrop") > 0 {
		delete(c, "state")
		c["field"] = "IP_MINTTL"
		if k := s.taker("tcp"); k != nil {
			c["local"] = k.Local.String()
		}
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("the socket wants a higher TTL than %d, which the segment has left (IP_MINTTL, RFC 5082)", v.TTL),
			fix: "send with TTL 255 and from a neighbour, or lower IP_MINTTL"}
	}
	return &finding{culprit: c, cause: fmt.Sprintf("TCP discards the segment: %s (%s)", words(s.loss.Reason), s.loss.Func),
		fix: "normal for old and repeated segments; many of them mean reordering, or two paths"}
}

// icmp6Done: older kernels (6.1) free each ICMPv6 message as lost when they have dealt with it (icmpv6_rcv in
// net/ipv6/icmp.c); what is wrong with one has a reason or a counter.
func icmp6Done(s *scene) *finding {
	if n := s.rec.moved(s.loss.Netns, "Icmp6.InErrors"); n > 0 {
		return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "icmp6"},
			cause: "the ICMPv6 message is malformed, or its checksum is wrong", fix: "look at what sends it: a capture shows the header"}
	}
	return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, cause: "the ICMPv6 message was dealt with: this kernel frees all of them as if they were lost",
		fix: "nothing to mend: not a loss"}
}

// closing: the socket went away with what was in its queue.
func closing(s *scene) *finding {
	return &finding{class: ClassFalseLoss, culprit: Culprit{"kind": "socket", "netns": s.ns(), "proto": protoName(s.hop.View.Proto), "field": "close"},
		certain: s.reason("QUEUE_PURGE"), cause: "the socket was closed with data that nobody had read", fix: "not lost on the network: read before close"}
}
