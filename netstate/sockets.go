package netstate

import (
	"net/netip"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Candidate is a socket that might receive a packet.
type Candidate struct {
	Socket *Socket
	Chosen bool
	// Why it does not receive: "port", "address" (bound to another one), "device" (bound to another one), "connected" (to
	// somebody else), "family" (the other one, or IPv6 only), "state" (it is not listening), "better" (another one fits more
	// closely); of one that is chosen "md5": it refuses what is not signed. "" if it does.
	Why   string
	score int
}

// SocketsFor says which sockets would get a packet that came in by a link from remote to local, and why others would not:
// first those that are chosen, then those that came near. proto is "tcp", "udp", "udplite" or "raw"; of the latter the IP
// protocol is local's port. link 0 is any. The rules are those of __udp4_lib_lookup, __inet_lookup and their IPv6 kin; a
// group of sockets that share a port (SO_REUSEPORT), and sockets with equal claims, are all chosen: the kernel takes one.
func (s *State) SocketsFor(proto string, local, remote netip.AddrPort, link int) []Candidate {
	local, remote = unmap(local), unmap(remote)
	l3, _, _ := s.DevAccept(proto)
	master := s.master(link)
	if m, ok := s.LinkByIndex(master); !ok || m.Table == 0 {
		master = 0
	}
	var out []Candidate
	best := 0
	for i := range s.Sockets {
		sk := &s.Sockets[i]
		if sk.Proto != proto {
			continue
		}
		c := Candidate{Socket: sk}
		c.Why, c.score = claim(sk, local, remote)
		if c.Why == "" && link != 0 && !fits(sk.Dev, link, master, l3) {
			c.Why = "device"
		}
		if c.Why == "" {
			if sk.Dev != 0 {
				c.score += 4
			}
			best = max(best, c.score)
		}
		out = append(out, c)
	}
	for i := range out {
		c := &out[i]
		switch {
		case c.Why != "":
		case proto == "raw" || local.Addr().IsMulticast() && proto != "tcp", c.score == best: // everybody gets a copy
			c.Chosen = true
			if slices.ContainsFunc(c.Socket.MD5, func(p netip.Prefix) bool { return p.Contains(remote.Addr()) }) {
				c.Why = "md5"
			}
		default:
			c.Why = "better"
		}
	}
	sorting.Stable(out, func(a, b Candidate) int { return nearness(a) - nearness(b) })
	return out
}

// nearness sorts candidates by how close they came.
func nearness(c Candidate) int {
	if c.Chosen {
		return 0
	}
	return 1 + slices.Index([]string{"better", "device", "address", "family", "connected", "state", "port"}, c.Why)
}

// unmap takes IPv4 out of IPv6.
func unmap(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// claim compares a socket's addresses with a packet's; why is "" if they fit.
func claim(sk *Socket, local, remote netip.AddrPort) (why string, score int) {
	at, to := unmap(sk.Local), unmap(sk.Remote)
	if sk.Proto == "raw" {
		if sk.Number != int(local.Port()) {
			return "port", 0
		}
		to, at = netip.AddrPortFrom(to.Addr(), 0), netip.AddrPortFrom(at.Addr(), local.Port())
	}
	if at.Port() != local.Port() {
		return "port", 0
	}
	four := local.Addr().Is4()
	wild := !at.Addr().IsValid() || at.Addr().IsUnspecified()
	switch {
	case four && sk.Family == 6 && (sk.V6Only || !wild && at.Addr().Is6()), !four && sk.Family == 4:
		return "family", 0
	case !wild && at.Addr() != local.Addr():
		return "address", 0
	}
	if !wild {
		score += 32 // the kernel looks for exact addresses first
	}
	if four == (sk.Family == 4) {
		score++
	}
	connected := to.Addr().IsValid() && !to.Addr().IsUnspecified()
	switch {
	case connected && (to.Addr() != remote.Addr() || to.Port() != 0 && to.Port() != remote.Port()):
		return "connected", 0
	case connected && sk.Proto == "tcp":
		return "", score + 128 // a connection comes before any listener
	case connected:
		score += 8
	case sk.Proto == "tcp" && sk.State != "listen":
		return "state", 0
	}
	return "", score
}

// fits is inet_bound_dev_eq: master is the VRF that link is in, which a socket that is bound to nothing takes packets of
// only with l3mdev_accept.
func fits(bound, link, master int, accept bool) bool {
	if bound == 0 {
		return master == 0 || accept
	}
	return bound == link || bound == master
}

// DevAccept is whether sockets that are bound to nothing take packets out of VRFs, and the key that says so.
func (s *State) DevAccept(proto string) (on bool, key string, ok bool) {
	key = "net.ipv4." + proto + "_l3mdev_accept"
	if proto == "udplite" {
		key = "net.ipv4.udp_l3mdev_accept"
	}
	n, ok := s.number(key)
	return n != 0 || proto == "raw" && !ok, key, ok
}
