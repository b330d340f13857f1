package why

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/fathom-trace/fathom/netstate"
)

// arp is arp_rcv and arp_process.
func (s *scene) arp() Row {
	if s.l.Flags&iffNoARP != 0 {
		return Row{Verdict: Dropped, Step: "arp_rcv", Because: s.l.Name + " does no ARP (IFF_NOARP)", Fix: "ip link set dev " + s.l.Name + " arp on"}
	}
	silent := Row{Verdict: Ignored, Step: "arp_process"}
	if !s.local() {
		return s.proxied(silent)
	}
	if reason, because := s.validate(); reason != "" {
		silent.Because = "who asks is not believed: " + because
		silent.Fix = s.disbelieved(reason, because).Fix
		return silent
	}
	if because, fix := s.arpIgnored(); because != "" {
		silent.Because, silent.Fix = because, fix
		return silent
	}
	r := Row{Verdict: Answered, Step: "arp_process", Because: fmt.Sprintf("%s is an address of %s", s.q.Dst, s.l.Name)}
	if on := s.owner(); on != s.l.Name {
		r.Because = fmt.Sprintf("%s is an address of this namespace, on %s: addresses belong to the host, not to a device (arp_ignore=0)", s.q.Dst, on)
	}
	return r
}

// proxied is what is done about an address that is not ours.
func (s *scene) proxied(silent Row) Row {
	silent.Because = "the address that is asked for is not one of this namespace: nobody answers for it"
	if len(s.addrs) == 0 {
		silent.Because = s.l.Name + " has no address, so none that is asked for is its: the request is consumed without an answer"
	}
	silent.Fix = s.addFix()
	forward, _ := s.setting("forwarding", alone)
	proxy, key := s.setting("proxy_arp", either)
	if d, ok := s.lookup(s.q.Dst, s.l.Index); forward != 0 && proxy != 0 && ok && d.Type == "unicast" && d.Link != s.l.Index {
		return Row{Verdict: Answered, Step: "arp_process", Because: fmt.Sprintf("%s=1: it answers for %s, which it reaches through %s", key, s.q.Dst, s.st.LinkName(d.Link))}
	}
	return silent
}

// arpIgnored applies arp_ignore and arp_filter (arp_ignore and arp_filter in net/ipv4/arp.c).
func (s *scene) arpIgnored() (because, fix string) {
	v, key := s.setting("arp_ignore", larger)
	here := slices.ContainsFunc(s.addrs, func(p netip.Prefix) bool { return p.Addr() == s.q.Dst })
	near := slices.ContainsFunc(s.addrs, func(p netip.Prefix) bool { return p.Addr() == s.q.Dst && p.Contains(s.q.Src) })
	switch {
	case v == 8, v == 1 && !here, v == 2 && !near, v == 3 && !here && s.hostScope():
		return fmt.Sprintf("%s=%d: it does not answer for %s here", key, v, s.q.Dst), "sysctl -w " + key + "=0"
	}
	if f, key := s.setting("arp_filter", either); f != 0 {
		if d, ok := s.lookup(s.q.Src, 0); ok && d.Link != s.l.Index {
			return fmt.Sprintf("%s=1: the way back to %s is not through %s", key, s.q.Src, s.l.Name), "sysctl -w " + key + "=0"
		}
	}
	return "", ""
}

// hostScope says if the address is one for this host only (RT_SCOPE_HOST).
func (s *scene) hostScope() bool {
	const rtScopeHost = 254
	return slices.ContainsFunc(s.st.Addrs, func(a netstate.Addr) bool { return a.Prefix.Addr() == s.q.Dst && a.Scope == rtScopeHost })
}

// unicast is ip_rcv, ip_route_input_slow, and what its result does.
func (s *scene) unicast() Row {
	if s.local() {
		return s.deliver(fmt.Sprintf("%s is an address of this namespace: sockets that are bound to it, or to any address, receive it", s.q.Dst))
	}
	forward, key := s.setting("forwarding", alone)
	if forward == 0 {
		because := fmt.Sprintf("the packet is for an address that this namespace does not have, and %s=0: ip_rcv takes it, routing finds no way (EHOSTUNREACH)", key)
		if len(s.addrs) == 0 {
			because = fmt.Sprintf("%s has no address, so there is no local route that its packets could match, and %s=0: ip_rcv takes the packet, routing finds no way (EHOSTUNREACH)", s.l.Name, key)
		}
		return Row{Verdict: Dropped, Step: "ip_error", Reason: "IP_INADDRERRORS", Counter: "Ip.InAddrErrors", Because: because, Fix: s.addFix()}
	}
	d, ok := s.lookup(s.q.Dst, s.l.Index)
	switch {
	case !ok:
		return Row{Verdict: Refused, Step: "ip_error", Counter: "IpExt.InNoRoutes", Because: fmt.Sprintf("%s=1, and there is no route on: ICMP network unreachable is sent", key), Fix: s.addFix()}
	case d.Type != "unicast":
		return Row{Verdict: Refused, Step: "ip_error", Because: fmt.Sprintf("the route to %s says %s", s.q.Dst, d.Type)}
	}
	if reason, because := s.validate(); reason != "" {
		return s.disbelieved(reason, because)
	}
	return Row{Verdict: Forwarded, Step: "ip_forward", Because: fmt.Sprintf("%s=1: it goes on through %s", key, s.st.LinkName(d.Link))}
}

// broadcast is the same for 255.255.255.255, which needs no address (brd_input in ip_route_input_slow).
func (s *scene) broadcast() Row {
	because := "255.255.255.255 is for everybody, also for a device without an address: UDP sockets that are bound to the port and any address receive it"
	if len(s.addrs) == 0 {
		because += "; the broadcast address of a network is none before the device has an address in it"
	}
	return s.deliver(because)
}

// deliver delivers unless the source is not believed.
func (s *scene) deliver(because string) Row {
	if reason, why := s.validate(); reason != "" {
		return s.disbelieved(reason, why)
	}
	return Row{Verdict: Delivered, Step: "ip_local_deliver", Because: because}
}

func (s *scene) disbelieved(reason, because string) Row {
	r := Row{Verdict: Dropped, Step: "ip_rcv_finish_core", Reason: reason, Because: because}
	if reason == "IP_RPFILTER" {
		r.Counter, r.Fix = "TcpExt.IPReversePathFilter", "ip route add "+s.srcText()+" dev "+s.l.Name
	}
	return r
}

// srcText is the sender in a command.
func (s *scene) srcText() string {
	if s.q.Src.IsValid() {
		return s.q.Src.String()
	}
	return "SENDER"
}

// sender is the sender in a sentence.
func (s *scene) sender() string {
	if s.q.Src.IsValid() {
		return s.q.Src.String()
	}
	return "the sender"
}

// validate says why a source is not believed, "" if it is: fib_validate_source and __fib_validate_source.
func (s *scene) validate() (reason, because string) {
	rp, key := s.setting("rp_filter", larger)
	if s.q.Src.IsValid() && s.owns(s.q.Src) {
		if ok, _ := s.setting("accept_local", either); ok == 0 {
			return "IP_LOCAL_SOURCE", fmt.Sprintf("%s is an address of this namespace itself (accept_local=0)", s.q.Src)
		}
		return "", ""
	}
	if rp == 0 || s.q.Src.IsValid() && s.q.Src.IsUnspecified() {
		return "", ""
	}
	d, ok := s.lookup(s.q.Src, 0)
	switch {
	case !ok:
		return "IP_RPFILTER", fmt.Sprintf("there is no route back to %s, and %s=%d", s.sender(), key, rp)
	case d.Type == "unicast" && s.through(d):
		return "", ""
	case d.Type != "unicast":
		return "IP_LOCAL_SOURCE", fmt.Sprintf("%s is no address a packet may come from: its route says %s", s.q.Src, d.Type)
	case len(s.addrs) == 0:
		return "IP_RPFILTER", fmt.Sprintf("%s has no address, the way back to %s is through %s, and %s=%d", s.l.Name, s.q.Src, s.st.LinkName(d.Link), key, rp)
	case rp == 1:
		return "IP_RPFILTER", fmt.Sprintf("the way back to %s is through %s, not %s, and %s=1", s.q.Src, s.st.LinkName(d.Link), s.l.Name, key)
	}
	return "", ""
}

// through says if a route leads through the device.
func (s *scene) through(r netstate.Decision) bool {
	return r.Link == s.l.Index || slices.ContainsFunc(r.Hops, func(h netstate.Hop) bool { return h.Link == s.l.Index })
}

// local says if the address asked for is one of this namespace's.
func (s *scene) local() bool { return s.q.Dst.IsValid() && s.owns(s.q.Dst) }

// owns looks an address up as local.
func (s *scene) owns(a netip.Addr) bool {
	d, ok := s.lookup(a, 0)
	return ok && d.Type == "local"
}

// owner names the device that has the address asked for.
func (s *scene) owner() string {
	if slices.ContainsFunc(s.addrs, func(p netip.Prefix) bool { return p.Addr() == s.q.Dst }) {
		return s.l.Name
	}
	if d, ok := s.lookup(s.q.Dst, s.l.Index); ok {
		return s.st.LinkName(d.Link)
	}
	return ""
}

// plain says if a rule looks at addresses and the device only.
func plain(r netstate.Rule) bool {
	return r.OIF == "" && r.Mark == 0 && r.Mask == 0 && r.TOS == 0 && r.IPProto == 0 && r.UID == nil && r.TunID == 0
}

// lookup routes a packet to an address that comes in by a device, 0 for what is sent from here, which is what the way back to
// a sender is; ok is false if there is no route.
func (s *scene) lookup(a netip.Addr, iif int) (d netstate.Decision, ok bool) {
	if !a.IsValid() {
		return d, false
	}
	d = s.st.FIB(netstate.Flow{Dst: a, IIF: iif})
	return d, d.Type != ""
}
