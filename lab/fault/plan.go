package fault

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/fathom-trace/fathom/internal/netns"
)

// plan is a network before it is made, by the roles of its hosts: a sends, b receives, r is between them.
type plan struct {
	roles []string // in the order they are named
	names map[string]string
	kinds map[string]string   // "host", "router", "bridge"
	props map[string][]string // in the lab's language
	links [][2]*end
}

// end is one end of a link.
type end struct {
	role, dev string
	mac       net.HardwareAddr
	addr      netip.Addr // invalid: none
	bits      int
	opts      string // further options in the lab's language
	six       bool   // with IPv6
}

// port is the address of a service at an end.
func (e *end) port(p int) netip.AddrPort { return netip.AddrPortFrom(e.addr, uint16(p)) }

// text is the end in the lab's language.
func (e *end) text(node string) string {
	if e.addr.IsValid() {
		node += fmt.Sprintf(":%v/%d", e.addr, e.bits)
	}
	opts := fmt.Sprintf("dev=%s mac=%v", e.dev, e.mac)
	if !e.six {
		opts += " ipv6=off"
	}
	return fmt.Sprintf("%s{%s}", node, strings.TrimSpace(opts+" "+e.opts))
}

// end draws one end of a link. addr may be "".
func (s *Scene) end(role, addr string) *end {
	e := &end{role: role, dev: s.deck.Word(), mac: s.deck.MAC(), bits: 24}
	if addr != "" {
		e.addr = netip.MustParseAddr(addr)
		if e.six = e.addr.Is6(); e.six {
			e.bits = 64
		}
	}
	return e
}

// host adds a property, in the lab's language.
func (s *Scene) host(role, format string, args ...any) {
	s.plan.add(role)
	s.plan.props[role] = append(s.plan.props[role], fmt.Sprintf(format, args...))
}

func (p *plan) add(role string) {
	if p.kinds[role] == "" {
		p.roles, p.kinds[role] = append(p.roles, role), "host"
	}
}

// link joins two ends. Neighbours are known on both sides unless one is to ask for them.
func (s *Scene) link(x, y *end, ask ...bool) {
	s.plan.add(x.role)
	s.plan.add(y.role)
	s.plan.links = append(s.plan.links, [2]*end{x, y})
	s.loose(x)
	s.loose(y)
	if x.addr.IsValid() && y.addr.IsValid() && len(ask) == 0 {
		s.know(x, y)
		s.know(y, x)
	}
}

// loose turns the reverse path filter off, which a namespace has from its machine.
func (s *Scene) loose(e *end) {
	s.host(e.role, "sysctl net.ipv4.conf.all.rp_filter=0")
	s.host(e.role, "sysctl net.ipv4.conf.%s.rp_filter=0", e.dev)
}

// know tells one end of a neighbour.
func (s *Scene) know(e, of *end) { s.host(e.role, "neigh %v lladdr %v dev %s", of.addr, of.mac, e.dev) }

// up makes the network.
func (s *Scene) up() error {
	p := &s.plan
	var t strings.Builder
	for _, r := range p.roles {
		p.names[r] = s.deck.Word()
	}
	for _, l := range p.links {
		fmt.Fprintf(&t, "%s -- %s\n", l[0].text(p.names[l[0].role]), l[1].text(p.names[l[1].role]))
	}
	for _, r := range p.roles {
		fmt.Fprintf(&t, "%s %s {\n\t%s\n}\n", p.kinds[r], p.names[r], strings.Join(p.props[r], "\n\t"))
	}
	if err := s.labs.UpWhile(s.name, t.String(), os.Getpid()); err != nil {
		return err
	}
	lab, err := s.labs.Find(s.name)
	if err != nil {
		return err
	}
	for _, r := range p.roles {
		h, _ := lab.Host(p.names[r])
		if s.ns[r], err = netns.Open(h.NS); err != nil {
			return err
		}
		s.Netns[r] = h.NS
	}
	return nil
}

// beside gives a host a second device, whose other end is at c, which nobody speaks to.
func (s *Scene) beside(role string) *end {
	e := s.end(role, "")
	s.link(e, s.end("c", ""))
	return e
}

// pair is two hosts, a and b, on one link.
func (s *Scene) pair() (a, b *end) {
	n := s.deck.Net()
	a, b = s.end("a", n+".0.1"), s.end("b", n+".0.2")
	s.link(a, b)
	return a, b
}

// pair6 is two hosts that speak IPv6.
func (s *Scene) pair6() (a, b *end) {
	n := s.deck.Net6()
	a, b = s.end("a", n+"::1"), s.end("b", n+"::2")
	s.link(a, b)
	return a, b
}

// routed is two hosts with a router between them: a - ra - rb - b.
func (s *Scene) routed() (a, ra, rb, b *end) {
	n := s.deck.Net()
	return s.router(n+".1.%d", n+".2.%d")
}

// routed6 is the same with IPv6.
func (s *Scene) routed6() (a, ra, rb, b *end) {
	n := s.deck.Net6()
	return s.router(n+":1::%x", n+":2::%x")
}

func (s *Scene) router(left, right string) (a, ra, rb, b *end) {
	a, ra = s.end("a", fmt.Sprintf(left, 1)), s.end("r", fmt.Sprintf(left, 254))
	b, rb = s.end("b", fmt.Sprintf(right, 2)), s.end("r", fmt.Sprintf(right, 254))
	s.link(a, ra)
	s.link(b, rb)
	s.plan.kinds["r"] = "router"
	s.host("a", "route default via %v", ra.addr)
	s.host("b", "route default via %v", rb.addr)
	return a, ra, rb, b
}

// bridged is two hosts with a bridge between them: a - pa - pb - b.
func (s *Scene) bridged() (a, pa, pb, b *end) {
	n := s.deck.Net()
	a, b = s.end("a", n+".0.1"), s.end("b", n+".0.2")
	pa, pb = s.end("r", ""), s.end("r", "")
	s.link(a, pa)
	s.link(b, pb)
	s.plan.kinds["r"] = "bridge"
	s.know(a, b)
	s.know(b, a)
	return a, pa, pb, b
}
