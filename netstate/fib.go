package netstate

import (
	"net/netip"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Flow is what routing looks at. Zero values are those of a packet that says nothing of it.
type Flow struct {
	Src, Dst     netip.Addr
	IIF          int // index of the device it came in by; 0: it is sent from here
	OIF          int // index of the device it must leave by; 0: any
	Mark         uint32
	TOS          uint8
	Proto        uint8 // IP protocol
	SPort, DPort uint16
	UID          uint32 // of who sends
}

// Decision is what routing decides for a flow, and why. Pointers are into the State.
type Decision struct {
	// Type is that of the route: "unicast", "local", "broadcast", "multicast", "blackhole", "unreachable", "prohibit"; of a
	// rule "blackhole", "unreachable" or "prohibit"; "" if nothing matched.
	Type  string
	Rule  *Rule  // that decided itself or named the table; nil without rules
	Route *Route // nil if a rule decided, or nothing
	Link  int    // device it leaves by, or is delivered through
	Via   netip.Addr
	Src   netip.Addr // address it is sent from, if the route says one
	Hops  []Hop      // of a route with several ways, those that can be taken: the kernel chooses by a hash
	Errno string     // what a sender is told: "ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL"; "" if it goes
}

// OK reports that packets pass.
func (d Decision) OK() bool { return d.Errno == "" }

const (
	tableDefault = 253
	tableMain    = 254
	tableLocal   = 255

	hopDead     = 1
	hopLinkDown = 16
	dscpMask    = 0x1c // what IPv4 routes compare of the TOS (IPTOS_RT_MASK)
	loopback    = 1    // index of lo, which packets sent from here come in by
	maxRules    = 1 << 14
)

// errnos are what routes and rules of a type answer.
var errnos = map[string]string{"blackhole": "EINVAL", "unreachable": "EHOSTUNREACH", "prohibit": "EACCES"}

// FIB looks a flow up as the kernel would: rules by priority, in each table the longest prefix that can be used (fib_lookup
// in net/ipv4/fib_rules.c and fib_trie.c, fib6_rule_lookup in net/ipv6/fib6_rules.c). It knows nothing of redirects and path
// MTUs learned. A multicast or broadcast destination is looked up, too, if it is sent from here; received ones do not
// depend on routes, and get their type alone.
func (s *State) FIB(f Flow) Decision {
	f.Src, f.Dst = f.Src.Unmap(), f.Dst.Unmap()
	if f.IIF != 0 {
		if f.Dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			return Decision{Type: "broadcast", Link: f.IIF}
		}
		if f.Dst.IsMulticast() {
			return Decision{Type: "multicast", Link: f.IIF}
		}
	}
	d := s.lookup(f)
	if d.Type == "" {
		d.Errno = "ENETUNREACH"
	}
	if !d.OK() && f.IIF == 0 && f.OIF != 0 && f.Dst.Is4() && s.vrfTable(Flow{OIF: f.OIF}) == 0 {
		d = Decision{Type: "unicast", Link: f.OIF} // no route, but a device: the kernel takes it for a neighbour
	}
	if d.OK() && f.IIF == 0 && f.Dst.Is4() {
		switch {
		case f.Dst.IsMulticast():
			d.Type = "multicast"
		case f.Dst == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			d.Type = "broadcast"
		}
	}
	return d
}

// lookup walks the rules.
func (s *State) lookup(f Flow) Decision {
	family := 4
	if f.Dst.Is6() {
		family = 6
	}
	rules := s.rulesOf(family)
	for i, n := 0, 0; i < len(rules) && n < maxRules; n++ {
		r := rules[i]
		i++
		if r.matches(s, f) == r.Invert {
			continue
		}
		switch r.Action {
		case "goto":
			i = slices.IndexFunc(rules, func(x *Rule) bool { return x.Priority >= r.Goto })
			if i < 0 || rules[i].Priority != r.Goto {
				return Decision{}
			}
		case "nop":
		case "lookup":
			table := r.Table
			if r.L3MDev {
				table = s.vrfTable(f)
			}
			if d, ok := s.table(family, table, f, r); ok {
				return d
			}
		default:
			d := Decision{Type: r.Action, Rule: r, Errno: errnos[r.Action]}
			if r.Action == "unreachable" {
				d.Errno = "ENETUNREACH"
			}
			return d
		}
	}
	return Decision{}
}

// rulesOf are the rules of a family; without any, those that a kernel begins with.
func (s *State) rulesOf(family int) []*Rule {
	var out []*Rule
	for i := range s.Rules {
		if s.Rules[i].Family == family {
			out = append(out, &s.Rules[i])
		}
	}
	if out == nil {
		for _, t := range []int{tableLocal, tableMain, tableDefault} {
			out = append(out, &Rule{Family: family, Action: "lookup", Table: t})
		}
	}
	return out
}

// matches compares a flow with what a rule selects, inversion apart.
func (r *Rule) matches(s *State, f Flow) bool {
	iif := f.IIF
	if iif == 0 {
		iif = loopback
	}
	dev := func(name string, index int) bool {
		l, ok := s.LinkByName(name)
		return ok && (l.Index == index || l.Table != 0 && s.master(index) == l.Index)
	}
	switch {
	case r.IIF != "" && !dev(r.IIF, iif),
		r.OIF != "" && !dev(r.OIF, f.OIF),
		(r.Mark^f.Mark)&r.Mask != 0,
		r.TunID != 0,
		r.L3MDev && s.vrfTable(f) == 0,
		r.UID != nil && !r.UID.Has(f.UID),
		r.From.IsValid() && !r.From.Contains(f.Src),
		r.To.IsValid() && !r.To.Contains(f.Dst),
		r.TOS != 0 && r.TOS != f.TOS,
		r.IPProto != 0 && r.IPProto != f.Proto,
		r.SPort != Range{} && !r.SPort.Has(uint32(f.SPort)),
		r.DPort != Range{} && !r.DPort.Has(uint32(f.DPort)):
		return false
	}
	return true
}

func (s *State) master(index int) int {
	if l, ok := s.LinkByIndex(index); ok {
		return l.Master
	}
	return 0
}

// vrfTable is the table of the VRF a flow is in, by the device it leaves by or came in by; 0 if it is in none.
func (s *State) vrfTable(f Flow) int {
	for _, i := range []int{f.OIF, f.IIF} {
		for range 2 {
			l, ok := s.LinkByIndex(i)
			if !ok {
				break
			}
			if l.Table != 0 {
				return l.Table
			}
			i = l.Master
		}
	}
	return 0
}

// table looks a flow up in a table. ok is false if the next rule is to be asked.
func (s *State) table(family, table int, f Flow, r *Rule) (Decision, bool) {
	best := s.candidates(family, table, f)
	for _, c := range best {
		if family == 6 && f.OIF != 0 && c.Link != f.OIF && (c.Type == "throw" || errnos[c.Type] != "") {
			continue // refusals of IPv6 are routes by lo
		}
		if c.Type == "throw" {
			return Decision{}, false
		}
		d := Decision{Type: c.Type, Rule: r, Route: c, Errno: errnos[c.Type], Src: c.Src}
		if d.Errno != "" {
			return d, true
		}
		if d.Hops = s.usable(c, f); len(d.Hops) == 0 {
			continue
		}
		d.Link, d.Via = d.Hops[0].Link, d.Hops[0].Via
		if len(d.Hops) == 1 {
			d.Hops = nil
		}
		if r.suppresses(s, c, d.Link) {
			return Decision{}, false
		}
		return d, true
	}
	return Decision{}, false
}

// candidates are the routes of a table to a flow's destination, the one to be taken first.
func (s *State) candidates(family, table int, f Flow) []*Route {
	var out []*Route
	for i := range s.Routes {
		r := &s.Routes[i]
		switch {
		case r.Family != family || r.Table != table || !r.Dst.Contains(f.Dst),
			family == 4 && r.TOS != 0 && r.TOS != f.TOS&dscpMask,
			r.From.IsValid() && !r.From.Contains(f.Src):
		default:
			out = append(out, r)
		}
	}
	sorting.Stable(out, func(a, b *Route) int {
		for _, d := range []int{b.Dst.Bits() - a.Dst.Bits(), b.From.Bits() - a.From.Bits(), int(b.TOS) - int(a.TOS), a.Metric - b.Metric, prefOrder(a) - prefOrder(b)} {
			if d != 0 {
				return d
			}
		}
		return 0
	})
	return out
}

// prefOrder sorts preferences of routers: high (1), medium (0), low (3).
func prefOrder(r *Route) int { return map[uint8]int{1: 0, 0: 1, 3: 2}[r.Pref] }

// usable are the ways of a route that are alive and go where the flow must go.
func (s *State) usable(r *Route, f Flow) []Hop {
	hops := r.Hops
	if hops == nil {
		hops = []Hop{{Via: r.Via, Link: r.Link, Flags: r.Flags}}
	}
	var out []Hop
	for _, h := range hops {
		if h.Flags&hopDead != 0 || f.OIF != 0 && h.Link != f.OIF && s.master(h.Link) != f.OIF {
			continue
		}
		if h.Flags&hopLinkDown != 0 {
			if v, _, _ := s.DevSysctl(r.Family, s.LinkName(h.Link), "ignore_routes_with_linkdown"); v != 0 {
				continue
			}
		}
		out = append(out, h)
	}
	return out
}

// suppresses reports whether a rule does not take a route it found.
func (r *Rule) suppresses(s *State, c *Route, link int) bool {
	if r.SuppressPrefix != nil && c.Dst.Bits() <= *r.SuppressPrefix {
		return true
	}
	l, ok := s.LinkByIndex(link)
	return r.SuppressGroup != nil && ok && l.Group == *r.SuppressGroup
}
