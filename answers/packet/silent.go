package packet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/netstate"
)

// counter is a counter of losses: who counts there, and in words what.
type counter struct {
	fn   string // the kernel's function that counts
	what string
	// reasons and functions of events that account for it.
	reasons []string
}

// lossCounters are the counters that move when something is lost, by name (net/ipv4/proc.c, include/uapi/linux/snmp.h), of
// those that are not told by an event on every kernel.
var lossCounters = map[string]counter{
	"TcpExt.ListenOverflows":        {"tcp_conn_request, tcp_v4_syn_recv_sock", "the accept queue of a listener was full", []string{"TCP_LISTEN_OVERFLOW"}},
	"TcpExt.ListenDrops":            {"tcp_listendrop", "a listener did not take a connection", nil},
	"TcpExt.TCPReqQFullDrop":        {"tcp_syn_flood_action", "the SYN queue of a listener was full", nil},
	"TcpExt.TCPReqQFullDoCookies":   {"tcp_syn_flood_action", "the SYN queue of a listener was full: cookies were sent", nil},
	"TcpExt.TCPBacklogDrop":         {"tcp_add_backlog", "a socket in use had too much waiting", []string{"SOCKET_BACKLOG"}},
	"TcpExt.TCPRcvQDrop":            {"tcp_data_queue", "the receive buffer of a connection was full", []string{"PROTO_MEM", "SOCKET_RCVBUFF"}},
	"TcpExt.TCPMD5NotFound":         {"tcp_inbound_md5_hash", "a signature was missing", []string{"TCP_MD5NOTFOUND"}},
	"TcpExt.IPReversePathFilter":    {"ip_rcv_finish_core", "the reverse path filter refused", []string{"IP_RPFILTER"}},
	"TcpExt.PAWSEstab":              {"tcp_validate_incoming", "segments with old time stamps", []string{"TCP_RFC7323_PAWS"}},
	"Udp.RcvbufErrors":              {"__udp_queue_rcv_skb", "the receive buffer of a UDP socket was full", []string{"SOCKET_RCVBUFF"}},
	"Udp.SndbufErrors":              {"udp_sendmsg", "a UDP socket could not send: its buffer, or a queue, was full", sendQueueFull},
	"Udp.InCsumErrors":              {"udp_queue_rcv_one_skb, __udp4_lib_rcv (udp_rcv)", "UDP checksums were wrong", []string{"UDP_CSUM"}},
	"Udp6.RcvbufErrors":             {"__udpv6_queue_rcv_skb", "the receive buffer of a UDP socket was full", []string{"SOCKET_RCVBUFF"}},
	"Udp6.InCsumErrors":             {"udpv6_queue_rcv_one_skb", "UDP checksums were wrong", []string{"UDP_CSUM"}},
	"Tcp.InCsumErrors":              {"tcp_v4_rcv", "TCP checksums were wrong", []string{"TCP_CSUM"}},
	"Icmp.InCsumErrors":             {"icmp_rcv", "ICMP checksums were wrong", []string{"ICMP_CSUM"}},
	"Ip.InHdrErrors":                {"ip_rcv_core, ip_forward", "IP headers were wrong, or the TTL used up", []string{"IP_CSUM", "IP_INHDR"}},
	"Ip.InAddrErrors":               {"ip_error", "packets for others, and no forwarding", []string{"IP_INADDRERRORS"}},
	"Ip.InUnknownProtos":            {"ip_protocol_deliver_rcu", "nothing takes the protocol", []string{"IP_NOPROTO"}},
	"Ip.InDiscards":                 {"ip_rcv_core", "there was no memory", []string{"NOMEM"}},
	"Ip.OutDiscards":                {"ip_output", "there was no room or memory to send", sendQueueFull},
	"Ip.OutNoRoutes":                {"ip_route_output_key", "there was no route", []string{"IP_OUTNOROUTES"}},
	"Ip.ReasmFails":                 {"ip_expire, ip_defrag", "fragments could not be put together", []string{"FRAG_REASM_TIMEOUT", "FRAG_TOO_FAR"}},
	"Ip.FragFails":                  {"ip_forward, ip_fragment", "packets were too large and may not be fragmented", []string{"PKT_TOO_BIG"}},
	"IpExt.InNoRoutes":              {"ip_error", "there was no route", []string{"IP_INNOROUTES"}},
	"IpExt.InTruncatedPkts":         {"ip_rcv_core", "packets were shorter than their header says", []string{"PKT_TOO_SMALL"}},
	"Ip6.InDiscards":                {"ip6_rcv_core", "IPv6 is off on the device, or there was no memory", []string{"IPV6DISABLED"}},
	"Ip6.InNoRoutes":                {"ip6_pkt_drop", "there was no route", nil},
	"Ip6.InHdrErrors":               {"ip6_forward, ip6_rcv_core", "IPv6 headers were wrong, or the hop limit used up", []string{"IP_INHDR"}},
	"softnet.dropped":               {"enqueue_to_backlog", "the backlog of a CPU was full", []string{"CPU_BACKLOG"}},
	"nf_conntrack.drop":             {"nf_conntrack_in", "the connection table was full", nil},
	"nf_conntrack.insert_failed":    {"__nf_conntrack_confirm", "two packets of a new flow raced", nil},
	"arp_cache.unresolved_discards": {"__neigh_event_send", "too many packets waited for an address", []string{"NEIGH_QUEUEFULL"}},
}

// sendQueueFull are the reasons of queueing disciplines that did not take a packet, of which the sender is told (net_xmit_errno in
// include/linux/netdevice.h).
var sendQueueFull = []string{"QDISC_DROP", "QDISC_OVERLIMIT", "QDISC_CONGESTED"}

// Movement is a counter that went up, and how much of it events account for.
type Movement struct {
	Netns    string `json:"netns"`
	Name     string `json:"name"`
	Moved    uint64 `json:"moved"`
	By       uint64 `json:"explained"`
	Function string `json:"function"`
	What     string `json:"what"`
}

// Movements gives the loss counters that moved, by namespace and name.
func (r *Recording) Movements() (out []Movement) {
	for inode, st := range r.After {
		if r.Before[inode] == nil {
			continue
		}
		for name := range st.Counters {
			c, ok := lossCounters[name]
			n := r.moved(uint32(inode), name)
			if !ok || n == 0 {
				continue
			}
			out = append(out, Movement{Netns: r.NS(uint32(inode)), Name: name, Moved: n, By: min(n, r.explained(uint32(inode), c)), Function: c.fn, What: c.what})
		}
	}
	sorting.By(out, func(a, b Movement) int { return strings.Compare(a.Netns+a.Name, b.Netns+b.Name) })
	return out
}

// explained counts the losses that events told of and that a counter counts too.
func (r *Recording) explained(ns uint32, c counter) (n uint64) {
	for _, f := range r.Flows {
		for _, l := range f.Losses {
			if l.Netns == ns && slices.Contains(c.reasons, l.Reason) {
				n += l.Count
			}
		}
	}
	return n
}

// silent adds what only counters tell: connections that a listener did not take, copies that a capture lost.
func (r *Recording) silent(vs []*Verdict) []*Verdict {
	r.waiting(vs)
	wait := r.handshakes(vs)
	for _, v := range vs {
		if v.flow == nil || v.loss != nil || v.Class == ClassMisroute {
			continue
		}
		last := v.lastHop()
		if last == nil {
			continue
		}
		if k := (listener{last.Netns, last.View.Dst}); v.flow.Tuple.Proto == protoTCP && wait[k] >= v.flow.Packets {
			wait[k] -= v.flow.Packets
			continue
		}
		if r.listenerSilent(v, last) {
			continue
		}
		r.captureSilent(v)
	}
	return vs
}

// listener is where connections go to.
type listener struct {
	netns uint32
	addr  netip.AddrPort
}

// handshakes says how many of the segments that nobody answered wait in listeners' queues of handshakes: those came first,
// and filled the queue. What came after is in a counter of the namespace.
func (r *Recording) handshakes(vs []*Verdict) map[listener]uint64 {
	sent := map[listener]uint64{}
	for _, v := range vs {
		if v.flow == nil || v.loss != nil || v.flow.Tuple.Proto != protoTCP || r.answered(v.flow) {
			continue
		}
		if last := v.lastHop(); last != nil && r.moved(last.Netns, "TcpExt.TCPReqQFullDrop") > 0 {
			sent[listener{last.Netns, last.View.Dst}] += v.flow.Packets
		}
	}
	for k, n := range sent {
		sent[k] = n - min(n, r.moved(k.netns, "TcpExt.TCPReqQFullDrop"))
	}
	return sent
}

// waiting finds datagrams of which no event tells, as they wait for the address of a neighbour: UDP counts what it sends. Only
// where one flow alone can have sent them, and no event was lost.
func (r *Recording) waiting(vs []*Verdict) {
	if r.LostRing+r.Missed+r.Unkept > 0 || r.Losses {
		return
	}
	var found *Verdict
	for _, v := range vs {
		if v.loss == nil || v.flow.Tuple.Proto != protoUDP || v.loss.Reason != "NEIGH_QUEUEFULL" {
			continue
		}
		if found != nil {
			return
		}
		found = v
	}
	if found == nil {
		return
	}
	name := "Udp.OutDatagrams"
	if found.flow.Tuple.Dst.Addr().Is6() {
		name = "Udp6.OutDatagrams"
	}
	counted, seen := r.moved(found.flow.Netns, name), uint64(0)
	for _, f := range r.Flows {
		if f.Netns == found.flow.Netns && f.Tuple.Proto == protoUDP {
			seen += f.Packets
		}
	}
	if n := counted - min(counted, seen); n > 0 {
		found.Sent += n
		found.Unknown += n
		found.Cause += fmt.Sprintf("; %d more wait in it (%s)", n, name)
	}
}

// listenerSilent: SYNs, or the last segments of handshakes, vanish without an event when the listener has no room.
func (r *Recording) listenerSilent(v *Verdict, last *Hop) bool {
	if v.flow.Tuple.Proto != protoTCP {
		return false
	}
	n := r.moved(last.Netns, "TcpExt.ListenOverflows") + r.moved(last.Netns, "TcpExt.TCPReqQFullDrop")
	if n == 0 || !r.listens(last.Netns, last.View.Dst.Port()) {
		return false
	}
	if r.answered(v.flow) {
		return false
	}
	v.Class = ClassDrop
	v.take(r.overflow(last.Netns, last.View.Dst))
	v.Function, v.Reason = "tcp_conn_request", "ListenOverflows"
	if r.moved(last.Netns, "TcpExt.ListenOverflows") == 0 {
		v.Reason = "TCPReqQFullDrop"
		v.Cause = "the listener's queue of handshakes is full, of peers that do not finish theirs: further SYNs are ignored"
		v.Fix = "raise the backlog of listen() and net.ipv4.tcp_max_syn_backlog, turn net.ipv4.tcp_syncookies on, or find who floods"
	}
	v.Sent, v.Repeats = v.flow.Packets-v.flow.Repeated, v.flow.Repeated
	v.Delivered, v.Unknown, v.Count = 0, 0, v.Sent
	return true
}

// listens says if a TCP socket of a namespace listens on a port.
func (r *Recording) listens(ns uint32, port uint16) bool {
	st := r.end(ns)
	return st != nil && slices.ContainsFunc(st.Sockets, func(k netstate.Socket) bool {
		return k.Proto == "tcp" && k.State == "listen" && k.Local.Port() == port
	})
}

// answered says if packets came back.
func (r *Recording) answered(f *Flow) bool {
	back := f.Tuple.Reverse()
	return slices.ContainsFunc(r.Flows, func(x *Flow) bool { return x.Tuple == back })
}

// captureSilent: packet sockets count what they had no room for; the packets themselves are not touched.
func (r *Recording) captureSilent(v *Verdict) {
	seen := map[uint32]bool{}
	for _, h := range v.sample.Hops {
		if seen[h.Netns] {
			continue
		}
		seen[h.Netns] = true
		st, was := r.After[uint64(h.Netns)], r.Before[uint64(h.Netns)]
		if st == nil || was == nil {
			continue
		}
		for _, k := range st.Sockets {
			n := k.Drops - dropsOf(was, k.Inode)
			if k.Proto != "packet" || n == 0 || k.Dev != 0 && k.Dev != int(h.Ifindex) {
				continue
			}
			v.Class = ClassFalseLoss
			v.Netns, v.Dev = r.NS(h.Netns), st.LinkName(k.Dev)
			v.take(copyDropped(&scene{rec: r, loss: &Loss{Netns: h.Netns, Func: captures[0]}, hop: h}))
			v.Cause = fmt.Sprintf("%s lost %d copies: its receive buffer is full; the packets themselves went on", or(k.Owner, "a packet socket (a capture)"), n)
			return
		}
	}
}

func dropsOf(st *netstate.State, inode uint64) uint32 {
	for _, k := range st.Sockets {
		if k.Inode == inode {
			return k.Drops
		}
	}
	return 0
}

// arrived says if a packet that nobody told the end of was last seen where it belongs, or on its way out of this machine.
func (r *Recording) arrived(p *Packet) bool {
	if p == nil || len(p.Hops) == 0 {
		return false
	}
	v := &Verdict{sample: p}
	r.open(v, v.lastHop(), 1)
	return v.Delivered > 0
}

// open says of packets that nobody told the end of where they are.
func (r *Recording) open(v *Verdict, last *Hop, n uint64) {
	v.Certain = false
	if last == nil {
		v.Class, v.Unknown, v.Count, v.Cause = ClassUnknown, n, n, "nothing more was seen of them"
		return
	}
	st := r.end(last.Netns)
	if st == nil {
		st = &netstate.State{}
	}
	t := last.View.Tuple
	switch last.Kind {
	case Rx, RxQueue, RxEntry, Copied, Consume:
		d := st.FIB(netstate.Flow{Src: t.Src.Addr(), Dst: t.Dst.Addr(), IIF: int(last.Ifindex), Mark: last.Mark})
		taken := d.Type == "local" || d.Type == "broadcast" || d.Type == "multicast" || !t.Dst.IsValid() || t.Ether == etherARP || t.Dst.Addr().IsMulticast()
		if taken {
			v.Delivered += n
			v.Count = v.Delivered
			v.Cause = fmt.Sprintf("%d arrived at %s and wait, or were taken, without an event", n, r.NS(last.Netns))
			return
		}
	case Xmit:
		if l, ok := st.LinkByIndex(int(last.Ifindex)); ok && l.Kind != "veth" {
			v.Delivered += n
			v.Count = v.Delivered
			v.Cause = fmt.Sprintf("%d left through %s", n, last.Dev)
			return
		}
	case Queue, Enqueued:
		v.Class, v.Unknown, v.Count = ClassUnknown, n, n
		v.Cause = fmt.Sprintf("%d were given to the queue of %s and did not leave it", n, last.Dev)
		v.Fix = "tc -s qdisc show dev " + last.Dev
		return
	}
	v.Class, v.Unknown, v.Count = ClassUnknown, n, n
	v.Cause = fmt.Sprintf("%d were last seen in %s on %s (%s), and nobody told their end", n, r.NS(last.Netns), last.Dev, last.Func)
}
