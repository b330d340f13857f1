package netstate

import (
	"net/netip"
	"slices"
)

// ReversePath is what the check of a source address comes to.
type ReversePath struct {
	OK   bool
	Mode int    // effective rp_filter: 0 off, 1 strict, 2 loose
	Key  string // the setting that Mode comes from: "net.ipv4.conf.all.rp_filter"
	// Why is the reason of a refusal: "local" (the address is one of ours; accept_local decides), "device" (the way back
	// leaves by another one), "route" (there is no way back), "type" (the way back is no unicast route).
	Why  string
	Back Decision // the way back, from Dst to Src
}

// ReversePath checks the source of an IPv4 packet that came in by a device, as fib_validate_source of
// net/ipv4/fib_frontend.c does. IPv6 has no such check: it is always OK there.
func (s *State) ReversePath(f Flow) ReversePath {
	dev := s.LinkName(f.IIF)
	if !f.Src.Unmap().Is4() {
		return ReversePath{OK: true}
	}
	mode, key, _ := s.DevSysctl(4, dev, "rp_filter")
	p := ReversePath{Mode: mode, Key: key}
	local, _, _ := s.DevSysctl(4, dev, "accept_local")
	// The way back is asked for as if it came in by the device the packet leaves by (OIF), or was sent from here.
	back := Flow{Src: f.Dst, Dst: f.Src, TOS: f.TOS, Proto: f.Proto, SPort: f.DPort, DPort: f.SPort, IIF: f.OIF}
	if v, _, _ := s.DevSysctl(4, dev, "src_valid_mark"); v != 0 {
		back.Mark = f.Mark
	}
	p.Back = s.lookup(back)
	redirects, _, _ := s.DevSysctl(4, dev, "send_redirects")
	lax := mode == 0 && (f.IIF != f.OIF || redirects == 0) // a redirect needs to know the way back
	switch b := p.Back; {
	case lax && local != 0:
	case lax && !s.customRouting():
		if s.HasAddr(f.Src) {
			p.Why = "local"
		}
	case b.Type == "" || !b.OK():
		if mode != 0 {
			p.Why = "route"
		}
	case b.Type == "local" && local == 0:
		p.Why = "local"
	case b.Type != "unicast" && b.Type != "local":
		p.Why = "type"
	case s.leavesBy(b, f.IIF):
	case !s.hasAddrs(f.IIF) && mode != 0: // a device without an address has no way back of its own
		p.Why = "route"
	case mode == 1:
		p.Why = "device"
	}
	p.OK = p.Why == ""
	return p
}

func (s *State) leavesBy(d Decision, dev int) bool {
	if d.Link == dev || d.Link != 0 && s.master(dev) == d.Link {
		return true
	}
	for _, h := range d.Hops {
		if h.Link == dev {
			return true
		}
	}
	return false
}

// customRouting reports whether policy rules, or routes of the local table, were added to what the kernel makes itself.
func (s *State) customRouting() bool {
	n := 0
	for _, r := range s.Rules {
		if r.Family == 4 {
			n++
		}
	}
	const kernel = 2 // RTPROT_KERNEL
	return n > 3 || slices.ContainsFunc(s.Routes, func(r Route) bool { return r.Family == 4 && r.Table == tableLocal && r.Proto != kernel })
}

// HasAddr reports whether an address is one of the namespace's own.
func (s *State) HasAddr(a netip.Addr) bool {
	for _, x := range s.Addrs {
		if x.Prefix.Addr() == a.Unmap() {
			return true
		}
	}
	return false
}

func (s *State) hasAddrs(link int) bool {
	for _, x := range s.Addrs {
		if x.Link == link && x.Prefix.Addr().Is4() {
			return true
		}
	}
	return false
}
