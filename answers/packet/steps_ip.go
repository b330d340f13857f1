package packet

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/fathom-trace/fathom/netstate"
)

// family is how settings call the packet's version of IP.
func (s *scene) family() string {
	if s.hop.View.Dst.Addr().Is6() {
		return "ipv6"
	}
	return "ipv4"
}

// ipv6Off: IPv6 is turned off on the device.
func ipv6Off(s *scene) *finding {
	v, key, _ := s.st.DevSysctl(6, s.loss.Dev, "disable_ipv6")
	return &finding{culprit: s.blame(key, v), certain: v == 1,
		cause: fmt.Sprintf("IPv6 is off on %s: %s=%d", s.loss.Dev, key, v), fix: "sysctl -w " + key + "=0"}
}

// checksumWrong: a checksum of the packet is.
func checksumWrong(s *scene) *finding {
	what := map[string]string{"IP_CSUM": "ip", "UDP_CSUM": "udp", "TCP_CSUM": "tcp", "ICMP_CSUM": "icmp"}[s.loss.Reason]
	if what == "" {
		what = protoName(s.hop.View.Proto)
	}
	name := map[string]string{"ip": "IP header", "udp": "UDP", "tcp": "TCP", "icmp": "ICMP"}[what]
	fix := "find the device that corrupts packets"
	if what == "udp" || what == "tcp" {
		fix = "check the offload settings of the path (ethtool -K), then look for a device that corrupts packets"
	}
	return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": what + ".csum"}, certain: true,
		cause: "the " + name + " checksum is wrong", fix: fix}
}

// headerWrong: lengths that contradict each other, a hop limit that is used up, a packet larger than the way on.
func headerWrong(s *scene) *finding {
	forward := s.in("ip_forward", "ip6_forward", "ip6_forward_proxy_check")
	switch {
	case s.reason("PKT_TOO_BIG"):
		return tooBig(s)
	case forward && s.hop.View.TTL <= 1:
		return expired(s)
	}
	if f := s.flaw(); f != nil {
		return f
	}
	return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": protoName(s.hop.View.Proto) + ".header"},
		cause: fmt.Sprintf("its headers are malformed (%s)", words(s.loss.Reason)), fix: "look at what sends them: a capture shows the header"}
}

// expired: the packet has passed as many routers as it may.
func expired(s *scene) *finding {
	ttl := s.hop.View.TTL
	return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "ttl", "value": int(ttl)}, certain: true,
		cause: fmt.Sprintf("its TTL is %d and reaches 0 in %s; ICMP time exceeded is sent", ttl, s.ns()), fix: "raise the TTL, or break the loop"}
}

// tooBig: the packet does not fit the way on and may not be cut.
func tooBig(s *scene) *finding {
	c := Culprit{"kind": "link", "netns": s.ns(), "dev": s.loss.Dev}
	size := s.hop.View.IPLen
	if size == 0 {
		size = int(s.hop.Len)
	}
	mtu, dev := s.mtu(s.route())
	if dev == "" {
		return &finding{culprit: c, cause: fmt.Sprintf("%d bytes do not fit the way on and may not be fragmented", size)}
	}
	c["dev"], c["mtu"] = dev, mtu
	return &finding{culprit: c, certain: size > mtu, fix: "let ICMP type 3 code 4 back to the sender, clamp the MSS, or lower the sender's MTU",
		cause: fmt.Sprintf("%d-byte packet with DF, and %s has MTU %d; ICMP fragmentation needed is sent", size, dev, mtu)}
}

// fragmentLost: parts of a packet never came, or came wrong.
func fragmentLost(s *scene) *finding {
	c := Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "ip.frag"}
	if s.reason("FRAG_TOO_FAR") {
		return &finding{culprit: c, cause: "fragments come too far out of order", fix: "look for reordering; ipfrag_max_dist"}
	}
	return &finding{culprit: c, certain: s.reason("FRAG_REASM_TIMEOUT"),
		cause: "some fragments arrive, the others never do; the reassembly timer (ipfrag_time) expires",
		fix:   "find where the other fragments are dropped: often a firewall, as they have no ports"}
}

// protocolUnknown: nothing handles the protocol over IP.
func protocolUnknown(s *scene) *finding {
	p := s.hop.View.Proto
	return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "ip.protocol", "value": int(p)},
		certain: s.reason("IP_NOPROTO"), cause: fmt.Sprintf("nothing handles IP protocol %d in %s; ICMP protocol unreachable is sent", p, s.ns()),
		fix: "load the module, or start the program, for this protocol"}
}

// routed says if routing decided.
func routed(s *scene) bool {
	return s.reason("IP_RPFILTER", "IP_LOCALNET", "IP_INVALID_SOURCE", "IP_LOCAL_SOURCE", "IP_INVALID_DEST", "IP_INADDRERRORS", "IP_INNOROUTES",
		"IP_OUTNOROUTES", "UNICAST_IN_L2_MULTICAST", "IP_TUNNEL_ECN") ||
		s.in("ip_rcv_finish_core", "ip_error", "ip_forward", "ip6_forward", "ip6_pkt_drop", "ip6_pkt_discard", "ip6_pkt_prohibit", "dst_discard",
			"ip_mc_input", "ip6_mc_input", "ip_route_input_noref", "ip_rcv_finish", "ip6_rcv_finish", "ip_mr_input", "ip6_rcv_core", "dst_discard_out")
}

// routeDropped goes through what routing an incoming packet decides, in its order (ip_rcv_finish_core in
// net/ipv4/ip_input.c, ip_route_input_slow in net/ipv4/route.c).
func routeDropped(s *scene) *finding {
	src, dst := s.hop.View.Src.Addr(), s.hop.View.Dst.Addr()
	if !dst.IsValid() {
		return nil
	}
	r := s.route()
	switch {
	case s.reason("UNICAST_IN_L2_MULTICAST"):
		return unicastInMulticast(s)
	case src.IsLoopback() || dst.IsLoopback():
		return loopbackOnWire(s, src, dst)
	case s.reason("IP_RPFILTER"):
		return reversePath(s, src)
	case dst.IsMulticast():
		return notJoined(s, dst)
	case s.reason("IP_LOCAL_SOURCE", "IP_INVALID_SOURCE") || s.st.HasAddr(src) && arriving(s.hop):
		return sourceWrong(s, src)
	case s.hop.View.TTL <= 1 && s.in("ip_forward", "ip6_forward"):
		return expired(s)
	case r.Type == "blackhole" || r.Type == "unreachable" || r.Type == "prohibit" || r.Type == "throw":
		return refusedByRoute(s, r)
	case r.Type == "unicast" && !s.forwards():
		return notForwarded(s, dst)
	case !r.OK() && !s.forwards():
		return notForwarded(s, dst)
	case !r.OK():
		return noRoute(s, dst)
	case !s.st.ReversePath(s.asks()).OK:
		return reversePath(s, src)
	}
	return nil
}

// forwards says if the device may forward what is not for this host (IN_DEV_FORWARD in include/linux/inetdevice.h).
func (s *scene) forwards() bool {
	_, v := s.setting(s.loss.Dev, "forwarding")
	return v != 0
}

func notForwarded(s *scene, dst netip.Addr) *finding {
	key := "net.ipv4.ip_forward"
	if s.family() == "ipv6" {
		key = "net.ipv6.conf.all.forwarding"
	} else if s.st.Sysctls[key] == "1" {
		key, _ = s.setting(s.loss.Dev, "forwarding")
	}
	if s.meant() {
		bits := 32
		if dst.Is6() {
			bits = 128
		}
		for _, a := range s.st.Addrs {
			if a.Link == int(s.loss.Ifidx) && a.Prefix.Addr().Is4() == dst.Is4() && a.Prefix.Bits() < bits && a.Prefix.Masked().Contains(dst) {
				bits = a.Prefix.Bits()
			}
		}
		return &finding{culprit: Culprit{"kind": "address", "netns": s.ns(), "dev": s.loss.Dev, "addr": dst.String(), "state": "absent"}, certain: true,
			cause: fmt.Sprintf("%s has no address %v, and %s does not forward", s.loss.Dev, dst, s.ns()),
			fix:   fmt.Sprintf("ip addr add %v/%d dev %s", dst, bits, s.loss.Dev)}
	}
	return &finding{culprit: Culprit{"kind": "sysctl", "netns": s.ns(), "key": key, "value": "0"}, certain: s.st.Sysctls[key] == "0",
		cause: fmt.Sprintf("the packet is not for %s and %s is 0", s.ns(), key), fix: "sysctl -w " + key + "=1"}
}

// meant says if the packet was meant for this host and no other: nobody else is behind it, as it has one device at most
// that is up beside the loopback, or the sender takes it for its neighbour.
func (s *scene) meant() bool {
	dst := s.hop.View.Dst.Addr()
	for inode := range s.near() {
		if uint32(inode) == s.loss.Netns {
			continue
		}
		for _, a := range s.rec.State(uint32(inode)).Addrs {
			if a.Prefix.Addr() == dst {
				return false // someone else has it
			}
		}
	}
	if sender := s.rec.State(s.flow.Netns); sender != nil && s.flow.Netns != s.loss.Netns {
		r := wayOut(sender, dst)
		return r.Type == "unicast" && !r.Via.IsValid()
	}
	up := 0
	for _, l := range s.st.Links {
		if l.Name != "lo" && l.Flags&1 != 0 {
			up++
		}
	}
	return up <= 1
}

// near are the namespaces that can be reached from that of the loss over links: others on the machine may use the same
// addresses for networks of their own.
func (s *scene) near() map[uint64]bool {
	all, seen := s.rec.all(), map[uint64]bool{}
	for next := []uint64{uint64(s.loss.Netns)}; len(next) > 0; {
		inode := next[0]
		next = next[1:]
		if seen[inode] || all[inode] == nil {
			continue
		}
		seen[inode] = true
		for _, l := range all[inode].Links {
			if l.PeerNS != 0 {
				next = append(next, l.PeerNS)
			}
		}
	}
	return seen
}

func noRoute(s *scene, dst netip.Addr) *finding {
	return &finding{culprit: Culprit{"kind": "route", "netns": s.ns(), "dst": dst.String(), "state": "absent"}, certain: true,
		cause: fmt.Sprintf("%s has no route for %v", s.ns(), dst), fix: fmt.Sprintf("add a route to %v, or a default route, in %s", dst, s.ns())}
}

// refusedByRoute: the table, or a rule before it, says that the packet goes nowhere.
func refusedByRoute(s *scene, r netstate.Decision) *finding {
	if r.Route == nil && r.Rule != nil {
		return &finding{culprit: Culprit{"kind": "rule", "netns": s.ns(), "pref": r.Rule.Priority, "action": r.Rule.Action, "rule": r.Rule.Text}, certain: true,
			cause: fmt.Sprintf("%s has the policy rule '%s'", s.ns(), r.Rule.Text), fix: "ip rule del pref " + strconv.Itoa(r.Rule.Priority)}
	}
	dst := r.Route.Dst
	return &finding{culprit: Culprit{"kind": "route", "netns": s.ns(), "dst": dst.String(), "type": r.Type, "table": r.Route.Table}, certain: true,
		cause: fmt.Sprintf("%s has the route '%s %v'", s.ns(), r.Type, dst), fix: fmt.Sprintf("ip route del %s %v", r.Type, dst)}
}

// reversePath: the way back to the source is not the way it came (rp_filter).
func reversePath(s *scene, src netip.Addr) *finding {
	rp := s.st.ReversePath(s.asks())
	how := fmt.Sprintf("there is no route back to %v", src)
	if l, ok := s.st.LinkByIndex(rp.Back.Link); ok && rp.Back.OK() {
		how = fmt.Sprintf("the route back to %v is through %s, the packet came in on %s", src, l.Name, s.loss.Dev)
	}
	return &finding{culprit: s.blame(rp.Key, rp.Mode), certain: !rp.OK,
		cause: fmt.Sprintf("%s, and %s=%d", how, rp.Key, rp.Mode), fix: fmt.Sprintf("sysctl -w %s=2, or mend the return route", rp.Key)}
}

// loopbackOnWire: addresses of 127/8 that came through a device (route_localnet).
func loopbackOnWire(s *scene, src, dst netip.Addr) *finding {
	key, v := s.setting(s.loss.Dev, "route_localnet")
	if src.IsLoopback() {
		return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "saddr", "value": src.String()}, certain: true,
			cause: fmt.Sprintf("a loopback source address may not arrive from a wire (%s=%d)", key, v), fix: "mend the sender's NAT"}
	}
	return &finding{culprit: s.blame(key, v), certain: v == 0,
		cause: fmt.Sprintf("%v is a loopback address that came in on %s, and %s=%d", dst, s.loss.Dev, key, v),
		fix:   "sysctl -w " + key + "=1 (anything on that network can then reach local-only services)"}
}

// sourceWrong: the source cannot be: it is this host's own, or no address of a host.
func sourceWrong(s *scene, src netip.Addr) *finding {
	c := Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "saddr", "value": src.String()}
	if s.st.HasAddr(src) {
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("the source %v is %s's own address: it cannot come from a wire", src, s.ns()),
			fix: "look for a duplicate address or a loop; accept_local=1 allows it"}
	}
	return &finding{culprit: c, cause: fmt.Sprintf("%v cannot be a source", src), fix: "mend the sender"}
}

func unicastInMulticast(s *scene) *finding {
	key, v := s.setting(s.loss.Dev, "drop_unicast_in_l2_multicast")
	return &finding{culprit: s.blame(key, v), certain: v != 0,
		cause: fmt.Sprintf("the frame is a broadcast or multicast with a unicast IP address inside, and %s=%d", key, v), fix: "sysctl -w " + key + "=0"}
}

// notJoined: nobody here listens to the group.
func notJoined(s *scene, group netip.Addr) *finding {
	for _, g := range s.st.Groups {
		if g.Addr == group && g.Link == int(s.loss.Ifidx) {
			return nil
		}
	}
	if v := &s.hop.View; v.Proto == protoICMPv6 && v.Kind>>8 >= 133 && v.Kind>>8 <= 137 { // RFC 4861
		return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, fix: "nothing to mend",
			cause: fmt.Sprintf("neighbour discovery to %v, which only those that it is meant for take: %s is none", group, s.ns())}
	}
	if v := &s.hop.View; v.Proto == protoICMPv6 && (v.Kind>>8 == 132 || v.Kind>>8 == 143) { // Done of RFC 2710, Report of RFC 3810
		return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, fix: "nothing to mend",
			cause: fmt.Sprintf("a report on who listens to which group (MLD), for multicast routers: %s is none", s.ns())}
	}
	return &finding{culprit: Culprit{"kind": "membership", "netns": s.ns(), "dev": s.loss.Dev, "group": group.String(), "state": "absent"}, certain: true,
		cause: fmt.Sprintf("no socket in %s joined %v on %s, and %s is no multicast router for it", s.ns(), group, s.loss.Dev, s.ns()),
		fix:   "join the group on " + s.loss.Dev + " (IP_ADD_MEMBERSHIP)"}
}

// neighbourFailed: the next hop's link address could not be found.
func neighbourFailed(s *scene) *finding {
	dst := s.nextHop()
	dev := s.loss.Dev
	if s.reason("NEIGH_QUEUEFULL") {
		key := fmt.Sprintf("net.%s.neigh.%s.unres_qlen_bytes", s.family(), netstate.SysctlName(dev))
		v := s.st.Sysctls[key]
		return &finding{culprit: Culprit{"kind": "sysctl", "netns": s.ns(), "key": key, "value": v}, certain: v != "",
			cause: fmt.Sprintf("packets wait for the address of %v: their queue (%s=%s) overflows before it is answered", dst, key, v),
			fix:   "raise " + key + ", or find out why the answer is late"}
	}
	if f := silentNeighbour(s, dst); f != nil {
		return f
	}
	ask := "ARP"
	if dst.Is6() {
		ask = "neighbour solicitation"
	}
	return &finding{culprit: Culprit{"kind": "neigh", "netns": s.ns(), "dev": dev, "dst": dst.String(), "state": "FAILED"}, certain: s.reason("NEIGH_FAILED"),
		cause: fmt.Sprintf("nobody answers %s for %v on %s; the entry becomes FAILED and what waits for it is dropped", ask, dst, dev),
		fix:   "check the address, the VLAN and the cabling"}
}

// nextHop is the neighbour that the packet was to be given to.
func (s *scene) nextHop() netip.Addr {
	if r := s.route(); r.Via.IsValid() {
		return r.Via
	}
	return s.hop.View.Dst.Addr()
}

// silentNeighbour finds another namespace that has the address and does not answer for it.
func silentNeighbour(s *scene, dst netip.Addr) *finding {
	for inode := range s.near() {
		if uint32(inode) == s.loss.Netns {
			continue
		}
		st := s.rec.State(uint32(inode))
		for _, a := range st.Addrs {
			l, ok := st.LinkByIndex(a.Link)
			if a.Prefix.Addr() != dst || !ok {
				continue
			}
			name := s.rec.NS(uint32(inode))
			if l.Flags&1 == 0 { // IFF_UP
				return &finding{culprit: Culprit{"kind": "link", "netns": name, "dev": l.Name, "field": "state", "value": "down"}, certain: true,
					cause: fmt.Sprintf("%v is on %s of %s, which is down: nobody answers for it", dst, l.Name, name), fix: "ip link set " + l.Name + " up"}
			}
			if v, key, _ := st.DevSysctl(4, l.Name, "arp_ignore"); v > 0 && dst.Is4() {
				return &finding{culprit: Culprit{"kind": "sysctl", "netns": name, "key": key, "value": strconv.Itoa(v)}, certain: true,
					cause: fmt.Sprintf("%v is on %s of %s, and %s=%d keeps it from answering ARP", dst, l.Name, name, key, v), fix: "sysctl -w " + key + "=0"}
			}
			if l.Flags&0x80 != 0 { // IFF_NOARP
				return &finding{culprit: Culprit{"kind": "link", "netns": name, "dev": l.Name, "field": "arp", "value": "off"}, certain: true,
					cause: fmt.Sprintf("%s of %s, which has %v, does not do ARP", l.Name, name, dst), fix: "ip link set " + l.Name + " arp on"}
			}
		}
	}
	return nil
}
