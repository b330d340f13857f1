package fault

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/lab/topology/traffic"
	"github.com/fathom-trace/fathom/wire/header"
)

// Faults of nftables: a rule that drops, rejects or rewrites.

// table draws the name of a role's table.
func (s *Scene) table(role string) string {
	name := s.deck.Word()
	s.host(role, "table %s", name)
	return name
}

// nftDrop says what event tells of a rule's drop: later kernels' nftables frees the packet itself, before that what calls
// it does. Debian's 6.1.192 does, its 6.1.176 does not.
func (s *Scene) nftDrop() {
	s.drops("nft_do_chain", "NETFILTER_DROP")
	for _, events := range s.Answer.Drops {
		for i := range events {
			if events[i].Function == "nft_do_chain" {
				events[i].Else = "nf_hook_slow"
			}
		}
	}
}

// sysctl sets a setting of a namespace when all else is made.
func (s *Scene) sysctl(role, key, value string) error {
	return s.ns[role].Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(key, ".", "/"), []byte(value), 0)
	})
}

// andThen sends, and waits.
func (s *Scene) andThen(send func(context.Context) error, d time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := send(ctx); err != nil {
			return err
		}
		return wait(ctx, d)
	}
}

// nftHook is a rule that drops datagrams to a port at a hook, of two hosts or of the router between them.
func nftHook(hook string) func(*Scene) error {
	return func(s *Scene) error {
		role, port, to := "b", s.deck.Port(), netip.AddrPort{}
		switch hook {
		case "forward":
			_, _, _, b := s.routed()
			role, to = "r", b.port(port)
		default:
			_, b := s.pair()
			to = b.port(port)
			if hook == "output" {
				role = "a"
			}
		}
		table := s.table(role)
		s.host(role, "nft %s udp dport %d drop", hook, port)
		s.host(role, "nft %s udp dport %d drop", hook, s.deck.Port()) // another that does not match
		if err := s.up(); err != nil {
			return err
		}
		s.datagrams("a", datagrams{to: to, count: s.few()})
		if hook == "output" {
			s.lostAtSend("EPERM")
		}
		s.nftDrop()
		s.blame("nft", role, "table", "inet "+table, "chain", hook, "hook", hook, "rule", fmt.Sprintf("udp dport %d counter drop", port))
		return nil
	}
}

// lostAtSend is for packets that are built and lost while the system call waits, which then fails: they count as sent.
func (s *Scene) lostAtSend(errno string) {
	s.Answer.Errno = errno
	send := s.send
	s.send = func(ctx context.Context) error {
		if err := send(ctx); err != nil {
			return err
		}
		for _, n := range s.failed {
			s.sent += n
		}
		return nil
	}
}

func nftNetdev(way string) func(*Scene) error {
	return func(s *Scene) error {
		a, b := s.pair()
		port := s.deck.Port()
		role, dev := "b", b.dev
		if way == "egress" {
			role, dev = "a", a.dev
		}
		table := s.table(role)
		s.host(role, "nft %s %s udp dport %d drop", way, dev, port)
		if err := s.up(); err != nil {
			return err
		}
		s.datagrams("a", datagrams{to: b.port(port), count: s.few()})
		if way == "egress" {
			s.lostAtSend("")
		}
		s.nftDrop()
		s.blame("nft", role, "table", "netdev "+table, "chain", way+"_"+dev, "hook", way, "rule", fmt.Sprintf("udp dport %d counter drop", port))
		s.at(role, dev)
		return nil
	}
}

// nftSetInChain is a set that is looked into in a chain that the hook's jumps to.
func nftSetInChain(s *Scene) error {
	a, b := s.pair()
	table, chain, set, port := s.table("b"), s.deck.Word(), s.deck.Word(), s.deck.Port()
	s.host("b", "set %s %v,%v", set, a.addr, s.far())
	s.host("b", "nft input udp dport %d jump %s", port, chain)
	s.host("b", "nft chain %s saddr @%s drop", chain, set)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few()})
	s.nftDrop()
	s.blame("nft", "b", "table", "inet "+table, "chain", chain, "rule", fmt.Sprintf("ip saddr @%s counter drop", set))
	return nil
}

// nftPolicyDrop is a chain that drops what no rule accepts.
func nftPolicyDrop(s *Scene) error {
	_, b := s.pair()
	table, port := s.table("b"), s.deck.Port()
	s.host("b", "policy input drop")
	s.host("b", "nft input udp dport %d accept", s.deck.Port())
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few()})
	s.nftDrop()
	s.blame("nft", "b", "table", "inet "+table, "chain", "input", "hook", "input", "policy", "drop")
	return nil
}

func nftRateLimit(s *Scene) error {
	_, b := s.pair()
	table, port, burst := s.table("b"), s.deck.Port(), 2+s.deck.IntN(5)
	s.host("b", "nft input udp dport %d over 1/minute burst %d drop", port, burst)
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: b.port(port)}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: 20})
	s.nftDrop()
	s.blame("nft", "b", "table", "inet "+table, "chain", "input", "hook", "input", "rule", fmt.Sprintf("limit rate over 1/minute burst %d packets drop", burst))
	return nil
}

func nftReject(s *Scene) error {
	_, b := s.pair()
	table, port := s.table("b"), s.deck.Port()
	s.host("b", "nft input tcp dport %d reset", port)
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "tcp", addr: b.port(port), backlog: 8}); err != nil {
		return err
	}
	s.connects("a", b.port(port), s.few(), time.Second)
	s.Answer.Errno = "ECONNREFUSED"
	s.nftDrop()
	s.blame("nft", "b", "table", "inet "+table, "chain", "input", "hook", "input", "rule", fmt.Sprintf("tcp dport %d counter reject with tcp reset", port))
	return nil
}

func conntrackInvalid(s *Scene) error {
	a, b := s.pair()
	table, port, from := s.table("b"), s.deck.Port(), s.deck.Port()
	s.host("b", "nft input ct invalid drop")
	if err := s.up(); err != nil {
		return err
	}
	if err := s.sysctl("b", "net.netfilter.nf_conntrack_tcp_loose", "0"); err != nil {
		return err
	}
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame {
		f := udpFrame(a, b, from, port, 0)
		f.Proto, f.Flags, f.Seq, f.Ack = header.ProtoTCP, header.ACK, 1000, 5000
		return f
	})
	s.nftDrop()
	s.blame("nft", "b", "table", "inet "+table, "chain", "input", "hook", "input", "rule", "ct state invalid counter drop")
	return nil
}

func dnatWrongBackend(s *Scene) error {
	_, ra, _, b := s.routed()
	table, port, dead := s.table("r"), s.deck.Port(), s.deck.Port()
	s.host("r", "nft prerouting daddr %v udp dport %d dnat %v", ra.addr, port, b.port(dead))
	if err := s.up(); err != nil {
		return err
	}
	s.Answer.Class = "misroute"
	s.datagrams("a", datagrams{to: ra.port(port), count: s.few(), pause: gap})
	s.drops("__udp4_lib_rcv", "NO_SOCKET")
	s.blame("nft", "r", "table", "inet "+table, "chain", "prerouting_nat", "rule", "dnat ip to "+b.port(dead).String())
	return nil
}

func rewriteNoSNAT(s *Scene) error {
	a, b := s.pair()
	vip := b.addr
	for range 5 + s.deck.IntN(60) {
		vip = vip.Next()
	}
	table, port := s.table("b"), s.deck.Port()
	s.host("a", "neigh %v lladdr %v dev %s", vip, b.mac, a.dev)
	s.host("b", "nft prerouting daddr %v rewrite %v", vip, b.addr)
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "tcp", addr: b.port(port), backlog: 8, beside: true}); err != nil {
		return err
	}
	s.Answer.Class, s.Answer.Errno = "misroute", "timeout"
	s.connects("a", netip.AddrPortFrom(vip, uint16(port)), 1, 1500*time.Millisecond)
	s.drops("tcp_v4_rcv", "NO_SOCKET")
	s.dropsSince("6.1", "tcp_v4_rcv", "NOT_SPECIFIED")
	s.blame("nft", "b", "table", "inet "+table, "chain", "prerouting_raw", "rule", fmt.Sprintf("ip daddr set %v", b.addr))
	return nil
}

// Faults of what a packet is.

// badFrame is a frame that is wrong in itself, to a socket that would take it.
func badFrame(function, reason, field string, counter string, change func(*Scene, *traffic.Frame)) func(*Scene) error {
	return func(s *Scene) error {
		a, b := s.pair()
		port, from := s.deck.Port(), s.deck.Port()
		if err := s.up(); err != nil {
			return err
		}
		if err := s.serve("b", socket{proto: "udp", addr: b.port(port)}); err != nil {
			return err
		}
		f := udpFrame(a, b, from, port, 20+s.deck.IntN(40))
		change(s, &f)
		s.frames(a, s.few(), gap, 0, func(i int) traffic.Frame { f.ID++; return f })
		s.drops(function, reason)
		s.blame("packet", "b", "field", field)
		s.at("b", b.dev)
		if counter != "" {
			s.counter("b", counter, 3)
		}
		return nil
	}
}

// sourceRouted is a frame whose sender chose its way: an option that nobody follows by default.
func sourceRouted(s *Scene) error {
	f := badFrame("ip_rcv_finish_core", "NOT_SPECIFIED", "ip.options", "", func(_ *Scene, f *traffic.Frame) {
		via := f.From.Addr().As4()
		f.Options = append([]byte{131, 7, 4}, append(via[:], 0)...) // loose source route (RFC 791), one hop
	})
	key := "net.ipv4.conf.all.accept_source_route"
	s.host("b", "sysctl %s=0", key)
	if err := f(s); err != nil {
		return err
	}
	s.Answer.Culprit = map[string]any{}
	s.blame("sysctl", "b", "key", key, "value", "0")
	return nil
}

func unknownProtocol(s *Scene) error {
	proto := uint8(200 + s.deck.IntN(50))
	err := badFrame("ip_local_deliver_finish", "IP_NOPROTO", "ip.protocol", "Ip.InUnknownProtos", func(_ *Scene, f *traffic.Frame) { f.Proto = proto })(s)
	s.blame("packet", "b", "value", int(proto))
	return err
}

func unknownEtherType(s *Scene) error {
	et := uint16(0x88b5 + s.deck.IntN(2))
	err := badFrame("__netif_receive_skb_core", "UNHANDLED_PROTO", "ethertype", "", func(_ *Scene, f *traffic.Frame) {
		*f = traffic.Frame{Dst: f.Dst, Src: f.Src, EtherType: et, Payload: []byte("hello")}
	})(s)
	s.Answer.Dst = nil
	s.blame("packet", "b", "value", fmt.Sprintf("%#x", et))
	return err
}

func unicastInBroadcast(s *Scene) error {
	a, b := s.pair()
	key := "net.ipv4.conf." + b.dev + ".drop_unicast_in_l2_multicast"
	s.host("b", "sysctl %s=1", key)
	if err := s.up(); err != nil {
		return err
	}
	f := udpFrame(a, b, s.deck.Port(), s.deck.Port(), 30)
	for i := range f.Dst {
		f.Dst = append(f.Dst[:i:i], append([]byte{0xff}, f.Dst[i+1:]...)...)
	}
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame { return f })
	s.drops("ip_rcv_finish_core", "UNICAST_IN_L2_MULTICAST")
	s.blame("sysctl", "b", "key", key, "value", "1")
	s.at("b", b.dev)
	return nil
}

func fragmentMissing(s *Scene) error {
	a, b := s.pair()
	s.host("b", "sysctl net.ipv4.ipfrag_time=1")
	if err := s.up(); err != nil {
		return err
	}
	n, f := s.few(), udpFrame(a, b, s.deck.Port(), s.deck.Port(), 512)
	f.MF, f.ID = true, uint16(s.deck.Uint32())
	s.frames(a, n, 0, 3*time.Second, func(i int) traffic.Frame { f.ID++; return f })
	s.drops("ip_expire", "NOT_SPECIFIED")
	s.dropsSince("6.12", "ip_expire", "FRAG_REASM_TIMEOUT")
	s.blame("packet", "b", "field", "ip.frag")
	s.counter("b", "Ip.ReasmTimeout", 1)
	return nil
}
