package packet

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
)

// noWayOut: the frame was admitted, and no port of the bridge may send it on (br_handle_frame_finish and should_deliver in
// net/bridge).
func noWayOut(s *scene, in, bridge *netstate.Link, vid uint16) *finding {
	src, dst, ok := s.macs()
	if !ok {
		return nil
	}
	if bridge.Bridge == nil || !bridge.Bridge.VLANFiltering {
		vid = 0
	} else if vid == 0 {
		vid = in.Port.PVID
	}
	behind := func(mac net.HardwareAddr) *netstate.FDB {
		i := slices.IndexFunc(s.st.FDB, func(f netstate.FDB) bool {
			l, ok := s.st.LinkByIndex(f.Port)
			return ok && (l.Master == bridge.Index || l.Index == bridge.Index) && f.VLAN == vid && strings.EqualFold(f.MAC, mac.String())
		})
		if i < 0 {
			return nil
		}
		return &s.st.FDB[i]
	}
	c := Culprit{"kind": "bridge", "netns": s.ns(), "dev": in.Name}
	if at := behind(src); in.Port.Locked && (at == nil || at.Port != in.Index) {
		c["field"], c["mac"] = "locked", src.String()
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("port %s is locked, and the bridge's table does not have the sender %v behind it", in.Name, src),
			fix: fmt.Sprintf("bridge fdb add %v dev %s master static", src, in.Name)}
	}
	if dst[0]&1 == 0 {
		if at := behind(dst); at != nil {
			return s.known(c, in, at, dst)
		}
	}
	return s.flooded(c, in, bridge, dst)
}

// macs are the addresses of the frame when it came to the bridge.
func (s *scene) macs() (src, dst net.HardwareAddr, ok bool) {
	for _, h := range slices.Backward(s.pkt.Hops) {
		if v := &h.View; v.HasMAC {
			return v.SrcMAC[:], v.DstMAC[:], true
		}
	}
	return nil, nil, false
}

// known: the table has the receiver behind one port.
func (s *scene) known(c Culprit, in *netstate.Link, at *netstate.FDB, dst net.HardwareAddr) *finding {
	out, ok := s.st.LinkByIndex(at.Port)
	if !ok || out.Port == nil {
		return nil
	}
	switch {
	case out.Index == in.Index && !in.Port.Hairpin:
		c["field"], c["mac"], c["entry"] = "fdb", dst.String(), at.Kind
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("the bridge's table has %v behind %s (%s), where the frame came from", dst, in.Name, at.Kind),
			fix: fmt.Sprintf("bridge fdb del %v dev %s master", dst, in.Name)}
	case out.Port.State != "forwarding":
		c["dev"], c["field"], c["state"] = out.Name, "state", out.Port.State
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("%v is behind port %s, which is in state %s", dst, out.Name, out.Port.State), fix: "wait until it forwards, or look at STP"}
	case in.Port.Isolated && out.Port.Isolated:
		return s.isolated(c, in, out)
	}
	return nil
}

func (s *scene) isolated(c Culprit, in, out *netstate.Link) *finding {
	c["dev"], c["field"] = out.Name, "isolated"
	return &finding{culprit: c, certain: true, cause: fmt.Sprintf("%s and %s are isolated ports: the bridge sends nothing from one to the other", in.Name, out.Name),
		fix: fmt.Sprintf("ip link set %s type bridge_slave isolated off", out.Name)}
}

// flooded: the frame is to go out of all other ports, and there is none that lets it.
func (s *scene) flooded(c Culprit, in, bridge *netstate.Link, dst net.HardwareAddr) *finding {
	what, flag := "unicast", "flood"
	switch {
	case slices.Equal(dst, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}):
		what, flag = "broadcast", "bcast_flood"
	case dst[0]&1 != 0:
		what, flag = "multicast", "mcast_flood"
	}
	var f *finding
	for i := range s.st.Links {
		switch out := &s.st.Links[i]; {
		case out.Index == in.Index || out.Master != bridge.Index || out.Port == nil:
		case out.Port.State != "forwarding":
		case slices.Contains(out.Port.NoFlood, what):
			c["dev"], c["field"], c["mac"] = out.Name, flag, dst.String()
			f = &finding{culprit: c, certain: true, cause: fmt.Sprintf("the bridge does not know where %v is, and %s does not take such %s (%s off)", dst, out.Name, what, flag),
				fix: fmt.Sprintf("ip link set %s type bridge_slave %s on", out.Name, flag)}
		case in.Port.Isolated && out.Port.Isolated:
			if f == nil {
				f = s.isolated(c, in, out)
			}
		default:
			return nil // it could go out there
		}
	}
	return f
}
