package packet

import (
	"net/netip"
	"strconv"

	"github.com/fathom-trace/fathom/netstate"
)

// asks is what routing is asked about the packet of a loss: where it was to go from there.
func (s *scene) asks() netstate.Flow {
	v := &s.hop.View
	f := netstate.Flow{Src: v.Src.Addr(), Dst: v.Dst.Addr(), Mark: s.hop.Mark, Proto: v.Proto, SPort: v.Src.Port(), DPort: v.Dst.Port()}
	if arriving(s.hop) {
		f.IIF = int(s.loss.Ifidx)
	}
	return f
}

// route is where the packet of a loss was to go from there.
func (s *scene) route() netstate.Decision { return s.st.FIB(s.asks()) }

// mtu is the largest packet that a decision's way takes, and the device that says so.
func (s *scene) mtu(d netstate.Decision) (mtu int, dev string) {
	l, ok := s.st.LinkByIndex(d.Link)
	if !ok {
		return 0, ""
	}
	if d.Route != nil && d.Route.MTU > 0 {
		return min(l.MTU, d.Route.MTU), l.Name
	}
	return l.MTU, l.Name
}

// setting is the value of a device's setting in effect and the key that it comes from.
func (s *scene) setting(dev, name string) (key string, value int) {
	family := 4
	if s.hop.View.Dst.Addr().Is6() {
		family = 6
	}
	v, key, _ := s.st.DevSysctl(family, dev, name)
	return key, v
}

// blame makes a setting the object to blame.
func (s *scene) blame(key string, value int) Culprit {
	return Culprit{"kind": "sysctl", "netns": s.ns(), "key": key, "value": strconv.Itoa(value)}
}

// sockets are the candidates for the packet of a loss.
func (s *scene) sockets(proto string) []netstate.Candidate {
	v := &s.hop.View
	return s.st.SocketsFor(proto, v.Dst, v.Src, int(s.loss.Ifidx))
}

// wayOut is where a packet to an address would go from a namespace.
func wayOut(st *netstate.State, dst netip.Addr) netstate.Decision {
	return st.FIB(netstate.Flow{Dst: dst})
}
