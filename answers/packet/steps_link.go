package packet

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
)

// xdpDropped: an XDP program on the device decided.
func xdpDropped(s *scene) *finding {
	c := Culprit{"kind": "xdp", "netns": s.ns(), "dev": s.loss.Dev, "action": "XDP_DROP"}
	var prog *netstate.Prog
	if s.dev != nil && len(s.dev.XDP) > 0 {
		prog = &s.dev.XDP[0]
		c["mode"], c["id"] = prog.Mode, prog.ID
		if prog.Name != "" {
			c["name"] = prog.Name
		}
	}
	who := xdpProgram(prog, s.loss.Dev)
	t := s.trouble()
	switch {
	case t == nil:
		return &finding{culprit: c, cause: who + " returns XDP_DROP", fix: xdpOff(s.loss.Dev, prog), certain: prog != nil}
	case t.Reason < 0:
		return s.redirectFailed(t, who)
	}
	action := [...]string{"XDP_ABORTED", "XDP_DROP", "XDP_PASS", "XDP_TX", "XDP_REDIRECT"} // enum xdp_action, include/uapi/linux/bpf.h
	c["action"] = "an unknown action"
	if int(t.Reason) < len(action) {
		c["action"] = action[t.Reason]
	}
	return &finding{culprit: c, cause: fmt.Sprintf("%s returns %s", who, c["action"]), fix: "mend the program: it fails at this packet", certain: true}
}

func xdpProgram(p *netstate.Prog, dev string) string {
	if p == nil {
		return "the XDP program on " + dev
	}
	name := fmt.Sprintf("id %d", p.ID)
	if p.Name != "" {
		name = fmt.Sprintf("%s (id %d)", p.Name, p.ID)
	}
	return fmt.Sprintf("the XDP program %s on %s (%s)", name, dev, p.Mode)
}

func xdpOff(dev string, p *netstate.Prog) string {
	how := "xdp"
	if p != nil && p.Mode == "generic" {
		how = "xdpgeneric"
	}
	return fmt.Sprintf("ip link set dev %s %s off", dev, how)
}

// trouble finds what the device reported just before the packet was freed on this CPU.
func (s *scene) trouble() *Trouble {
	for _, t := range s.rec.Troubles {
		if t.Netns == s.loss.Netns && t.Ifindex == s.loss.Ifidx {
			return t
		}
	}
	return nil
}

// xskMap is BPF_MAP_TYPE_XSKMAP (include/uapi/linux/bpf.h).
const xskMap = 17

// redirectFailed: the program chose another way and that was closed. Into AF_XDP it is the socket's fill ring that is empty
// (xsk_rcv in net/xdp/xsk.c: -ENOMEM, before -ENOSPC), its receive ring that is full (-ENOBUFS), or no socket at all.
func (s *scene) redirectFailed(t *Trouble, who string) *finding {
	err := s.rec.errno(-t.Reason)
	if t.MapType != xskMap {
		return &finding{culprit: Culprit{"kind": "xdp", "netns": s.ns(), "dev": s.loss.Dev, "action": "XDP_REDIRECT", "errno": err},
			cause: fmt.Sprintf("%s redirects, and that fails with %s", who, err), fix: "look at the map it redirects through"}
	}
	queue := int(t.Mark)
	c := Culprit{"kind": "xsk", "netns": s.ns(), "dev": s.loss.Dev, "queue": queue}
	f := &finding{culprit: c, certain: true}
	switch err {
	case "ENOMEM", "ENOSPC":
		c["field"], c["value"] = "fill ring", "empty"
		f.cause, f.fix = fmt.Sprintf("packets are redirected to an AF_XDP socket of queue %d whose fill ring is empty", queue), "refill the fill ring"
	case "ENOBUFS":
		c["field"], c["value"] = "rx ring", "full"
		f.cause = fmt.Sprintf("packets are redirected to an AF_XDP socket of queue %d whose receive ring is full", queue)
		f.fix = "read the receive ring faster, or make it larger"
	default:
		c["errno"] = err
		f.cause = fmt.Sprintf("packets are redirected to entry %d of a map of AF_XDP sockets, and that fails with %s", queue, err)
		f.fix, f.certain = "bind the socket to this device and queue, and put it into the map", false
	}
	return f
}

// tcDropped: traffic control's classifiers, or programs of tcx.
func tcDropped(s *scene) *finding {
	side := "ingress"
	if s.reason("TC_EGRESS") || s.in("sch_handle_egress") || s.hop.Type == Outgoing {
		side = "egress"
	}
	var found []netstate.Filter
	for _, f := range s.st.Filters {
		if f.Link == int(s.loss.Ifidx) && f.Parent == side {
			found = append(found, f)
		}
	}
	best := s.guilty(found)
	if best == nil {
		return &finding{culprit: Culprit{"kind": "tc", "netns": s.ns(), "dev": s.loss.Dev, "parent": side},
			cause: fmt.Sprintf("traffic control drops it at %s of %s", side, s.loss.Dev), fix: fmt.Sprintf("tc filter show dev %s %s", s.loss.Dev, side)}
	}
	if best.Kind == "tcx" {
		c := Culprit{"kind": "tcx", "netns": s.ns(), "dev": s.loss.Dev, "parent": side, "action": "TC_ACT_SHOT"}
		name := ""
		if best.Prog != nil {
			c["id"], c["name"] = best.Prog.ID, best.Prog.Name
			name = fmt.Sprintf(" %s (id %d)", best.Prog.Name, best.Prog.ID)
		}
		return &finding{culprit: c, certain: len(found) == 1, fix: fmt.Sprintf("bpftool net detach tcx_%s dev %s", side, s.loss.Dev),
			cause: fmt.Sprintf("the BPF program%s on tcx %s of %s returns TC_ACT_SHOT; tc filter does not show it", name, side, s.loss.Dev)}
	}
	c := Culprit{"kind": "tc", "netns": s.ns(), "dev": s.loss.Dev, "parent": side, "prio": best.Prio, "filter": best.Kind, "action": "drop"}
	what := best.Kind
	if best.Prog != nil {
		c["id"] = best.Prog.ID
		what = fmt.Sprintf("bpf program %s (id %d)", best.Prog.Name, best.Prog.ID)
	}
	return &finding{culprit: c, certain: true, fix: fmt.Sprintf("tc filter del dev %s %s prio %d", s.loss.Dev, side, best.Prio),
		cause: fmt.Sprintf("%s with action drop at %s of %s (prio %d)", what, side, s.loss.Dev, best.Prio)}
}

// guilty chooses among filters: the one whose drops went up, else one that drops.
func (s *scene) guilty(fs []netstate.Filter) *netstate.Filter {
	was := map[string]uint64{}
	if b := s.rec.Before[uint64(s.loss.Netns)]; b != nil {
		for _, f := range b.Filters {
			was[filterKey(f)] = f.Drops
		}
	}
	var best *netstate.Filter
	for i, f := range fs {
		drops := f.Kind == "tcx"
		for _, a := range f.Acts {
			drops = drops || strings.Contains(a, "drop") || strings.Contains(a, "shot")
		}
		if f.Kind == "bpf" && f.Prog != nil {
			drops = true
		}
		switch {
		case f.Drops > was[filterKey(f)]:
			return &fs[i]
		case drops && best == nil:
			best = &fs[i]
		}
	}
	return best
}

func filterKey(f netstate.Filter) string {
	return fmt.Sprint(f.Link, f.Parent, f.Prio, f.Kind, f.Handle)
}

// lowerUp is IFF_LOWER_UP (include/uapi/linux/if.h): the driver has a carrier.
const lowerUp = 1 << 16

// qdiscDropped: a queue of the device had no room, or its discipline chose this packet.
func qdiscDropped(s *scene) *finding {
	was := map[string]uint64{}
	if b := s.rec.Before[uint64(s.loss.Netns)]; b != nil {
		for _, q := range b.Qdiscs {
			was[fmt.Sprint(q.Link, q.Kind, q.Handle, q.Parent)] = q.Drops
		}
	}
	var best *netstate.Qdisc
	for i, q := range s.st.Qdiscs {
		if q.Link != int(s.loss.Ifidx) || q.Kind == "noqueue" || q.Kind == "clsact" || q.Kind == "ingress" {
			continue
		}
		moved := q.Drops > was[fmt.Sprint(q.Link, q.Kind, q.Handle, q.Parent)]
		if best == nil || moved {
			best = &s.st.Qdiscs[i]
		}
	}
	if l, ok := s.st.LinkByIndex(int(s.loss.Ifidx)); ok && l.Flags&lowerUp == 0 && (best == nil || best.Kind == "noop") {
		return &finding{culprit: Culprit{"kind": "link", "netns": s.ns(), "dev": l.Name, "field": "carrier", "value": "0"}, certain: true,
			cause: l.Name + " has no carrier: its qdisc is one that takes nothing (noop) until it has", fix: "set the other end up, or mend the cable"}
	}
	if best == nil {
		return &finding{culprit: Culprit{"kind": "qdisc", "netns": s.ns(), "dev": s.loss.Dev}, cause: "the queue of " + s.loss.Dev + " drops it",
			fix: "tc -s qdisc show dev " + s.loss.Dev}
	}
	c := Culprit{"kind": "qdisc", "netns": s.ns(), "dev": s.loss.Dev, "type": best.Kind}
	f := &finding{culprit: c, certain: true, fix: "raise its limit or rate, or pace the sender"}
	full := "its queue is full"
	if best.Limit > 0 {
		c["limit"] = best.Limit
		full = fmt.Sprintf("its queue of %d %s is full", best.Limit, map[string]string{"b": "bytes", "p": "packets"}[best.Unit])
	}
	if rate := best.Options["rate"]; rate != "" {
		full = "rate " + rate + ", " + full
	}
	f.cause = fmt.Sprintf("%s on %s: %s", best.Kind, s.loss.Dev, full)
	if loss := best.Options["loss"]; best.Kind == "netem" && loss != "" && loss != "0%" {
		c["field"], c["loss"] = "loss", loss
		f.cause = fmt.Sprintf("netem on %s loses %s of the packets", s.loss.Dev, loss)
		f.fix = fmt.Sprintf("tc qdisc change dev %s root netem loss 0%%", s.loss.Dev)
	}
	return f
}

// backlogFull: the queue of a CPU to the stack was full (enqueue_to_backlog in net/core/dev.c).
func backlogFull(s *scene) *finding {
	const key = "net.core.netdev_max_backlog"
	v := ""
	if st := s.rec.State(uint32(s.rec.Init)); st != nil {
		v = st.Sysctls[key]
	}
	return &finding{culprit: Culprit{"kind": "sysctl", "netns": "init", "key": key, "value": v}, certain: v != "",
		cause: fmt.Sprintf("the backlog of CPU %d is full: %s is %s", s.hop.CPU, key, v), fix: "raise " + key + ", or spread the load (RPS)"}
}

// bridgeDropped: a port that does not forward, a VLAN that is not admitted, a firewall of the bridge.
func bridgeDropped(s *scene) *finding {
	port := s.port()
	if port == nil {
		return &finding{culprit: Culprit{"kind": "bridge", "netns": s.ns(), "dev": s.loss.Dev}, cause: s.loss.Func + " drops it at the bridge"}
	}
	c := Culprit{"kind": "bridge", "netns": s.ns(), "dev": port.Name}
	b, _ := s.st.LinkByIndex(port.Master)
	vid := s.vlan()
	filters := b != nil && b.Bridge != nil && b.Bridge.VLANFiltering
	switch {
	case port.Port.State != "forwarding" && (s.reason("BRIDGE_INGRESS_STP_STATE", "BRIDGE_NON_FORWARDING_STATE") || !vlanStep(s)):
		c["field"], c["state"], c["value"] = "state", port.Port.State, port.Port.State
		why := ""
		if b != nil && b.Bridge != nil && b.Bridge.STP {
			why = fmt.Sprintf(": STP is on (forward delay %v)", b.Bridge.ForwardDelay)
		}
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("port %s is in state %s and does not forward%s", port.Name, port.Port.State, why),
			fix: "wait for the forward delay, set a shorter one, or turn STP off where no loop can be"}
	case !filters:
	case vid == 0 && port.Port.PVID == 0:
		c["field"], c["state"] = "pvid", "absent"
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("%s has no PVID and VLAN filtering is on, so untagged frames are not admitted", port.Name),
			fix: fmt.Sprintf("bridge vlan add vid 1 dev %s pvid untagged", port.Name)}
	case vid != 0 && !has(port.Port.VLANs, vid):
		c["field"], c["vlan"], c["state"] = "vlan", vid, "absent"
		return &finding{culprit: c, certain: true, cause: fmt.Sprintf("%s is no member of VLAN %d", port.Name, vid),
			fix: fmt.Sprintf("bridge vlan add vid %d dev %s", vid, port.Name)}
	}
	if f := noPortOfVLAN(s, port, b, vid); f != nil {
		return f
	}
	if b != nil {
		if f := noWayOut(s, port, b, vid); f != nil {
			return f
		}
	}
	return &finding{culprit: c, cause: fmt.Sprintf("%s drops it at port %s of the bridge", s.loss.Func, port.Name)}
}

// noPortOfVLAN: the frame was admitted, and no other port is a member of its VLAN (br_allowed_egress in
// net/bridge/br_vlan.c).
func noPortOfVLAN(s *scene, in, bridge *netstate.Link, vid uint16) *finding {
	if bridge == nil || bridge.Bridge == nil || !bridge.Bridge.VLANFiltering || !s.in("br_handle_frame_finish", "br_forward", "br_flood", "__br_forward") {
		return nil
	}
	if vid == 0 {
		vid = in.Port.PVID
	}
	var out *netstate.Link
	for i, l := range s.st.Links {
		switch {
		case l.Index == in.Index || l.Master != bridge.Index || l.Port == nil:
		case has(l.Port.VLANs, vid):
			return nil
		default:
			out = &s.st.Links[i]
		}
	}
	if out == nil {
		return nil
	}
	return &finding{culprit: Culprit{"kind": "bridge", "netns": s.ns(), "dev": out.Name, "field": "vlan", "vlan": vid, "state": "absent"}, certain: true,
		cause: fmt.Sprintf("the frame is of VLAN %d, and %s is no member of it", vid, out.Name), fix: fmt.Sprintf("bridge vlan add vid %d dev %s", vid, out.Name)}
}

// vlanStep says if the drop was where bridges look at VLANs.
func vlanStep(s *scene) bool {
	return s.in("br_allowed_ingress", "__allowed_ingress", "br_allowed_egress", "br_handle_vlan") || s.reason("VLAN_FILTER")
}

func has(list []uint16, v uint16) bool {
	for _, x := range list {
		if x == v {
			return true
		}
	}
	return false
}

// port finds the bridge port that the packet was at: the device of the drop, or the one it came in by.
func (s *scene) port() *netstate.Link {
	if s.dev != nil && s.dev.Port != nil {
		return s.dev
	}
	for i := len(s.pkt.Hops) - 1; i >= 0; i-- {
		h := s.pkt.Hops[i]
		if h.Netns != s.loss.Netns {
			continue
		}
		for _, n := range []uint32{h.Ifindex, h.IIF} {
			if l, ok := s.st.LinkByIndex(int(n)); ok && l.Port != nil {
				return l
			}
		}
	}
	return nil
}

// bridgeProtocol: frames with which bridges talk to each other (IEEE 802.1D), come to a host that is none.
func bridgeProtocol(s *scene) *finding {
	return &finding{class: ClassFalseLoss, culprit: Culprit{}, certain: true, fix: "nothing to mend",
		cause: fmt.Sprintf("a bridge's own protocol (%s): %s is no bridge that takes part, and ignores it", s.loss.Func, s.ns())}
}

// vlan is the VLAN with which the packet came into the namespace where it was lost: the kernel takes the tag out before it
// finds that nobody wants it.
func (s *scene) vlan() uint16 {
	for _, h := range s.pkt.Hops {
		if h.Netns == s.loss.Netns && h.View.Tagged {
			return h.View.VLAN
		}
	}
	return 0
}

// otherHost: the frame has the address of somebody else (PACKET_OTHERHOST), or a VLAN that has no device here.
func otherHost(s *scene) *finding {
	if vid := s.vlan(); vid != 0 {
		name := fmt.Sprintf("%s.%d", s.loss.Dev, vid)
		return &finding{culprit: Culprit{"kind": "link", "netns": s.ns(), "dev": name, "vlan": vid, "state": "absent"}, certain: true,
			cause: fmt.Sprintf("frames carry VLAN %d, and %s has no device for it on %s", vid, s.ns(), s.loss.Dev),
			fix:   fmt.Sprintf("ip link add link %s name %s type vlan id %d", s.loss.Dev, name, vid)}
	}
	own := ""
	if s.dev != nil {
		own = s.dev.MAC
	}
	dst := mac(s.hop.View.DstMAC)
	return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "eth.dst", "value": dst}, certain: own != "" && own != dst,
		cause: fmt.Sprintf("the frame is addressed to %s, and %s is %s: the stack discards what is for other hosts", dst, s.loss.Dev, own),
		fix:   "mend the sender's neighbour entry (stale ARP, duplicate address)"}
}

// unknownEther: nobody asked for this EtherType.
func unknownEther(s *scene) *finding {
	t := fmt.Sprintf("0x%04x", s.hop.View.Ether)
	return &finding{culprit: Culprit{"kind": "packet", "netns": s.ns(), "dev": s.loss.Dev, "field": "ethertype", "value": t},
		certain: s.reason("UNHANDLED_PROTO"), cause: "nothing in the kernel and no packet socket takes EtherType " + t,
		fix: "start the program that opens a packet socket for it"}
}

// driverDropped: the device did not take it.
func driverDropped(s *scene) *finding {
	c := Culprit{"kind": "link", "netns": s.ns(), "dev": s.loss.Dev}
	f := &finding{culprit: c, cause: fmt.Sprintf("%s did not take it (%s)", s.loss.Dev, s.loss.Func)}
	const up = 1 // IFF_UP, include/uapi/linux/if.h
	if s.dev == nil {
		return f
	}
	if s.dev.Flags&up == 0 {
		c["field"], c["value"] = "state", "down"
		f.cause, f.fix, f.certain = s.loss.Dev+" is down", "ip link set "+s.loss.Dev+" up", true
	} else if s.dev.Kind == "veth" {
		if peer := s.peer(); peer != nil && peer.Flags&up == 0 {
			c["field"], c["value"] = "peer", "down"
			f.cause, f.certain = fmt.Sprintf("the other end of %s (%s) is down", s.loss.Dev, peer.Name), true
			f.fix = "ip link set " + peer.Name + " up"
		}
	}
	return f
}

// peer is the other end of a veth pair.
func (s *scene) peer() *netstate.Link {
	if s.dev == nil || s.dev.Lower == 0 {
		return nil
	}
	st := s.st
	if s.dev.PeerNS != 0 {
		st = s.rec.State(uint32(s.dev.PeerNS))
	}
	if st == nil {
		return nil
	}
	l, _ := st.LinkByIndex(s.dev.Lower)
	return l
}
