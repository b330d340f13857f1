package packet

import (
	"net/netip"
	"testing"

	"github.com/fathom-trace/fathom/netstate"
)

// TestNotJoined: what speaks to multicast routers, or to one neighbour by a group, is not lost where nobody listens; data is.
func TestNotJoined(t *testing.T) {
	for _, c := range []struct {
		group string
		proto uint8
		kind  uint16 // of ICMPv6
		want  Class
	}{
		{"ff02::16", protoICMPv6, 143, ClassFalseLoss}, {"ff02::2", protoICMPv6, 132, ClassFalseLoss}, {"ff02::1:ff00:2", protoICMPv6, 135, ClassFalseLoss},
		{"ff02::5", protoICMPv6, 128, ""}, {"ff05::7", protoUDP, 0, ""},
	} {
		var v View
		v.Proto, v.Kind = c.proto, c.kind<<8
		s := &scene{rec: &Recording{}, loss: &Loss{Netns: 1, Ifidx: 2, Dev: "eth0"}, hop: &Hop{View: v}, st: &netstate.State{}}
		if f := notJoined(s, netip.MustParseAddr(c.group)); f == nil || f.class != c.want {
			t.Errorf("%s %d: %+v", c.group, c.kind, f)
		}
	}
	group := netip.MustParseAddr("ff05::7")
	s := &scene{rec: &Recording{}, loss: &Loss{Ifidx: 2}, hop: &Hop{}, st: &netstate.State{Groups: []netstate.Group{{Link: 2, Addr: group}}}}
	if f := notJoined(s, group); f != nil {
		t.Errorf("somebody joined: %+v", f)
	}
}
