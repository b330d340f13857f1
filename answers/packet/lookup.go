package packet

import (
	"net/netip"

	"github.com/fathom-trace/fathom/netstate"
)

// decision is where routing sends a packet.
type decision struct {
	netstate.Route
	Rule *netstate.Rule // that chose the table, or decided itself
	Err  string         // "" or why there is none
}

// lookup is a stand-in for netstate's own.
func lookup(st *netstate.State, src, dst netip.Addr, iif int, mark uint32) (d decision) {
	fam := 4
	if dst.Is6() {
		fam = 6
	}
	for i := range st.Rules {
		r := &st.Rules[i]
		if r.Family != fam || r.From.IsValid() && !r.From.Contains(src) || r.To.IsValid() && !r.To.Contains(dst) ||
			r.Mark != mark&r.Mask && r.Mask != 0 {
			continue
		}
		if r.IIF != "" && st.LinkName(iif) != r.IIF {
			continue
		}
		switch r.Action {
		case "blackhole", "unreachable", "prohibit":
			return decision{Route: netstate.Route{Type: r.Action, Dst: r.To}, Rule: r}
		}
		best := -1
		for j := range st.Routes {
			x := &st.Routes[j]
			if x.Family == fam && x.Table == r.Table && x.Dst.Contains(dst) && (best < 0 || x.Dst.Bits() > st.Routes[best].Dst.Bits()) {
				best = j
			}
		}
		if best >= 0 {
			return decision{Route: st.Routes[best], Rule: r}
		}
	}
	return decision{Err: "ENETUNREACH"}
}

// route is where the packet of a loss was to go from there.
func (s *scene) route() decision {
	v := &s.hop.View
	return lookup(s.st, v.Src.Addr(), v.Dst.Addr(), int(s.hop.IIF), s.hop.Mark)
}

// routeBack is where an answer would go.
func (s *scene) routeBack() decision {
	v := &s.hop.View
	return lookup(s.st, v.Dst.Addr(), v.Src.Addr(), 0, 0)
}
