package fault

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// Faults of routing: no way, a way that refuses, a source that should not come this way, a packet too large or too old.

// far draws an address that nobody has (RFC 5737).
func (s *Scene) far() netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(1 + s.deck.IntN(254))})
}

func noRouteLocal(s *Scene) error {
	s.pair()
	if err := s.up(); err != nil {
		return err
	}
	dst := s.far()
	s.refused("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: s.few()}, "ENETUNREACH")
	s.blame("route", "a", "dst", dst, "state", "absent")
	s.counter("a", "Ip.OutNoRoutes", 3)
	return nil
}

// refused sends datagrams that the system call refuses.
func (s *Scene) refused(role string, d datagrams, errno string) {
	s.Answer.Class, s.Answer.Errno = "errno", errno
	s.silent()
	s.datagrams(role, d)
}

// typedRouteLocal is a route of a type that refuses, on the sender.
func typedRouteLocal(typ, errno string) func(*Scene) error {
	return func(s *Scene) error {
		_, b := s.pair()
		dst := s.far()
		s.host("a", "route %s %v/24", typ, netip.PrefixFrom(dst, 24).Masked().Addr())
		s.host("a", "route default via %v", b.addr)
		if err := s.up(); err != nil {
			return err
		}
		s.refused("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: s.few()}, errno)
		s.blame("route", "a", "dst", netip.PrefixFrom(dst, 24).Masked(), "type", typ)
		return nil
	}
}

// typedRouteForward is such a route on the router.
func typedRouteForward(typ string) func(*Scene) error {
	return func(s *Scene) error {
		_, ra, _, _ := s.routed()
		dst := s.far()
		s.host("r", "route %s %v/24", typ, netip.PrefixFrom(dst, 24).Masked().Addr())
		if err := s.up(); err != nil {
			return err
		}
		s.datagrams("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: s.few(), pause: gap})
		s.drops("ip_error", "NOT_SPECIFIED")
		s.blame("route", "r", "dst", netip.PrefixFrom(dst, 24).Masked(), "type", typ)
		s.at("r", ra.dev)
		return nil
	}
}

func noRouteForward(s *Scene) error {
	_, ra, _, _ := s.routed()
	if err := s.up(); err != nil {
		return err
	}
	dst := s.far()
	s.datagrams("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: s.few(), pause: gap})
	s.drops("ip_error", "IP_INNOROUTES")
	s.blame("route", "r", "dst", dst, "state", "absent")
	s.at("r", ra.dev)
	s.counter("r", "IpExt.InNoRoutes", 3)
	return nil
}

func prohibitRule(s *Scene) error {
	a, ra, _, b := s.routed()
	pref := 10 + s.deck.IntN(1000)
	s.host("r", "rule from %v to %v/32 prohibit priority %d", a.addr, b.addr, pref)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few(), pause: gap})
	s.drops("ip_error", "NOT_SPECIFIED")
	s.blame("rule", "r", "pref", pref, "action", "prohibit")
	s.at("r", ra.dev)
	return nil
}

func prohibitRuleLocal(s *Scene) error {
	_, b := s.pair()
	pref := 10 + s.deck.IntN(1000)
	s.host("a", "rule to %v/32 prohibit priority %d", b.addr, pref)
	if err := s.up(); err != nil {
		return err
	}
	s.refused("a", datagrams{to: b.port(s.deck.Port()), count: s.few()}, "EACCES")
	s.blame("rule", "a", "pref", pref, "action", "prohibit")
	return nil
}

func forwardingOff(s *Scene) error {
	_, ra, _, b := s.routed()
	s.host("r", "sysctl net.ipv4.ip_forward=0")
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("ip_error", "IP_INADDRERRORS")
	s.blame("sysctl", "r", "key", "net.ipv4.ip_forward", "value", "0")
	s.at("r", ra.dev)
	s.counter("r", "Ip.InAddrErrors", 3)
	return nil
}

func forwardingOff6(s *Scene) error {
	_, ra, _, b := s.routed6()
	s.host("r", "sysctl net.ipv6.conf.all.forwarding=0")
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("ip6_forward", "IP_INADDRERRORS")
	s.blame("sysctl", "r", "key", "net.ipv6.conf.all.forwarding", "value", "0")
	s.at("r", ra.dev)
	return nil
}

func hopLimit6(s *Scene) error {
	_, ra, _, b := s.routed6()
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few(), ttl: 1, pause: gap})
	s.drops("ip6_forward", "IP_INHDR")
	s.blame("packet", "r", "field", "ttl", "value", 1)
	s.at("r", ra.dev)
	s.counter("r", "Ip6.InHdrErrors", 3)
	return nil
}

func ttlExpired(s *Scene) error {
	_, ra, _, b := s.routed()
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few(), ttl: 1, pause: gap})
	s.drops("ip_forward", "IP_INHDR")
	s.blame("packet", "r", "field", "ttl", "value", 1)
	s.at("r", ra.dev)
	s.counter("r", "Ip.InHdrErrors", 3)
	return nil
}

// narrow makes the link behind the router one of a small MTU and sends what does not fit and may not be cut.
func narrow(s *Scene) (rb *end, mtu int) {
	a, ra, rb, b := s.routed()
	mtu = 1200 + s.deck.IntN(150)
	for _, l := range s.plan.links {
		for _, e := range l {
			if e == rb || e == b {
				e.opts = fmt.Sprintf("mtu=%d", mtu)
			}
		}
	}
	from, to := s.deck.Port(), s.deck.Port()
	s.frames(a, s.few(), gap, 0, func(int) traffic.Frame {
		f := udpFrame(a, b, from, to, 1400)
		f.Dst, f.DF = ra.mac, true
		return f
	})
	return rb, mtu
}

func mtuForward(s *Scene) error {
	rb, mtu := narrow(s)
	if err := s.up(); err != nil {
		return err
	}
	s.drops("ip_forward", "PKT_TOO_BIG")
	s.blame("link", "r", "dev", rb.dev, "mtu", mtu)
	s.counter("r", "Ip.FragFails", 3)
	return nil
}

func fragNeededBlocked(s *Scene) error {
	table := s.table("r")
	s.host("r", "nft output icmp drop")
	narrow(s)
	if err := s.up(); err != nil {
		return err
	}
	s.nftDrop()
	s.drops("ip_forward", "PKT_TOO_BIG")
	s.blame("nft", "r", "table", "inet "+table, "chain", "output", "hook", "output", "rule", "meta l4proto icmp counter drop")
	s.counter("r", "Ip.FragFails", 3)
	return nil
}

func mtuLocal(s *Scene) error {
	a, b := s.pair()
	mtu := 1000 + s.deck.IntN(300)
	a.opts = fmt.Sprintf("mtu=%d", mtu)
	if err := s.up(); err != nil {
		return err
	}
	s.refused("a", datagrams{to: b.port(s.deck.Port()), count: s.few(), size: 1400, df: true}, "EMSGSIZE")
	s.blame("link", "a", "dev", a.dev, "mtu", mtu)
	return nil
}

func rpFilter(s *Scene) error {
	a, b := s.pair()
	other := s.beside("b").dev
	src := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + s.deck.IntN(254))})
	port, from := s.deck.Port(), s.deck.Port()
	s.host("b", "route 192.0.2.0/24 dev %s", other)
	s.host("b", "sysctl net.ipv4.conf.%s.rp_filter=1", b.dev)
	return rpFilterScene(s, a, b, src, from, port, b.dev)
}

func rpFilterAll(s *Scene) error {
	a, b := s.pair()
	other := s.beside("b").dev
	src := netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + s.deck.IntN(254))})
	port, from := s.deck.Port(), s.deck.Port()
	s.host("b", "route 192.0.2.0/24 dev %s", other)
	s.host("b", "sysctl net.ipv4.conf.all.rp_filter=1")
	return rpFilterScene(s, a, b, src, from, port, "all")
}

func rpFilterScene(s *Scene, a, b *end, src netip.Addr, from, port int, conf string) error {
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: netip.AddrPortFrom(any4, uint16(port))}); err != nil {
		return err
	}
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame {
		f := udpFrame(a, b, from, port, 20)
		f.From = netip.AddrPortFrom(src, uint16(from))
		return f
	})
	s.drops("ip_rcv_finish_core", "IP_RPFILTER")
	s.blame("sysctl", "b", "key", "net.ipv4.conf."+conf+".rp_filter", "value", "1")
	s.at("b", b.dev)
	s.counter("b", "TcpExt.IPReversePathFilter", 3)
	return nil
}

func martianSource(s *Scene) error {
	a, b := s.pair()
	src := netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + s.deck.IntN(254))})
	port, from := s.deck.Port(), s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame {
		f := udpFrame(a, b, from, port, 20)
		f.From = netip.AddrPortFrom(src, uint16(from))
		return f
	})
	s.drops("ip_rcv_finish_core", "NOT_SPECIFIED")
	s.dropsSince("6.18", "ip_rcv_finish_core", "IP_LOCALNET")
	s.blame("packet", "b", "field", "saddr", "value", src)
	s.at("b", b.dev)
	return nil
}

func martianDestination(s *Scene) error {
	a, b := s.pair()
	dst := netip.AddrFrom4([4]byte{127, 0, 0, byte(1 + s.deck.IntN(254))})
	port, from := s.deck.Port(), s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame {
		f := udpFrame(a, b, from, port, 20)
		f.To = netip.AddrPortFrom(dst, uint16(port))
		return f
	})
	s.drops("ip_rcv_finish_core", "NOT_SPECIFIED")
	s.dropsSince("6.18", "ip_rcv_finish_core", "IP_LOCALNET")
	s.blame("sysctl", "b", "key", "net.ipv4.conf."+b.dev+".route_localnet", "value", "0")
	s.at("b", b.dev)
	return nil
}

func addressMissing(s *Scene) error {
	a, b := s.pair()
	dst := b.addr
	for range 1 + s.deck.IntN(50) {
		dst = dst.Next()
	}
	s.host("a", "neigh %v lladdr %v dev %s", dst, b.mac, a.dev)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: s.few()})
	s.drops("ip_error", "IP_INADDRERRORS")
	s.blame("address", "b", "dev", b.dev, "addr", dst, "state", "absent")
	s.counter("b", "Ip.InAddrErrors", 3)
	return nil
}

func disabled6(s *Scene) error {
	_, b := s.pair6()
	if err := s.up(); err != nil {
		return err
	}
	// Set afterwards: with IPv6 off the device could not have had its address.
	key := "net.ipv6.conf." + b.dev + ".disable_ipv6"
	if err := s.sysctl("b", key, "1"); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("ip6_rcv_core", "IPV6DISABLED")
	s.blame("sysctl", "b", "key", key, "value", "1")
	s.counter("b", "Ip6.InDiscards", 3)
	return nil
}

func neighFailed(s *Scene) error {
	a, _ := s.pair()
	dst := a.addr
	for range 20 + s.deck.IntN(50) {
		dst = dst.Next()
	}
	s.host("a", "sysctl net.ipv4.neigh.%s.retrans_time_ms=200", a.dev)
	return s.neighScene(dst)
}

// neighScene sends to an address that nobody answers for, and waits until the kernel has given up.
func (s *Scene) neighScene(dst netip.Addr) error {
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: 3, size: 32})
	send := s.send
	s.send = s.andThen(send, 2*time.Second)
	s.drops("neigh_invalidate", "NEIGH_FAILED")
	s.blame("neigh", "a", "dst", dst, "state", "FAILED")
	return nil
}

func arpIgnored(s *Scene) error {
	n := s.deck.Net()
	a, b := s.end("a", n+".0.1"), s.end("b", n+".0.2")
	s.link(a, b, true)
	s.host("a", "sysctl net.ipv4.neigh.%s.retrans_time_ms=200", a.dev)
	key := "net.ipv4.conf." + b.dev + ".arp_ignore"
	s.host("b", "sysctl %s=8", key)
	if err := s.neighScene(b.addr); err != nil {
		return err
	}
	s.at("a", a.dev)
	s.Answer.Culprit = map[string]any{}
	s.blame("sysctl", "b", "key", key, "value", "8")
	return nil
}

func neighQueueFull(s *Scene) error {
	a, _ := s.pair()
	dst := a.addr
	for range 20 + s.deck.IntN(50) {
		dst = dst.Next()
	}
	limit := 2500 + s.deck.IntN(1000)
	s.host("a", "sysctl net.ipv4.neigh.%s.unres_qlen_bytes=%d", a.dev, limit)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: netip.AddrPortFrom(dst, uint16(s.deck.Port())), count: 12, size: 512})
	s.drops("__neigh_event_send", "NEIGH_QUEUEFULL")
	s.blame("sysctl", "a", "key", "net.ipv4.neigh."+a.dev+".unres_qlen_bytes", "value", fmt.Sprint(limit))
	return nil
}

func ipsecBlock(s *Scene) error {
	a, b := s.pair()
	port := s.deck.Port()
	s.host("b", "xfrm in %v %v block", a.addr, b.addr)
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: b.port(port)}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few()})
	s.drops("udp_queue_rcv_one_skb", "XFRM_POLICY")
	s.blame("xfrm", "b", "dir", "in", "action", "block")
	return nil
}

func ipsecBlockOut(s *Scene) error {
	a, b := s.pair()
	s.host("a", "xfrm out %v %v block", a.addr, b.addr)
	if err := s.up(); err != nil {
		return err
	}
	s.refused("a", datagrams{to: b.port(s.deck.Port()), count: s.few()}, "EPERM")
	s.blame("xfrm", "a", "dir", "out", "action", "block")
	return nil
}
