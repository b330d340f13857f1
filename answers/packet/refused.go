package packet

import (
	"fmt"
	"net/netip"

	"github.com/fathom-trace/fathom/netstate"
)

// errno names an error of the kernel.
func (r *Recording) errno(n int32) string {
	if s := r.Errnos[n]; s != "" {
		return s
	}
	return fmt.Sprintf("errno %d", n)
}

// refusal is the verdict on system calls that failed: what they would have sent never was a packet, or was dropped while
// the call went on.
func (r *Recording) refusal(x *Refusal) *Verdict {
	t := Tuple{Proto: x.L4, Dst: x.To, Src: netip.AddrPortFrom(netip.Addr{}, x.Port)}
	name := r.errno(x.Reason)
	v := &Verdict{Class: ClassErrno, Flow: fmt.Sprintf("%s %v", protoName(x.L4), x.To), Netns: r.NS(x.Netns), Function: x.Call, Reason: name, Errno: name,
		Sent: x.Count, Count: x.Count, Sender: Process{x.PID, x.Comm}}
	st := r.State(x.Netns)
	if st == nil {
		st = &netstate.State{}
	}
	f := r.whyRefused(st, x, t, name)
	v.take(f)
	if d, _ := f.culprit["dev"].(string); d != "" {
		v.Dev = d
	}
	v.refusal = x
	return v
}

// whyRefused draws the object to blame from the error and what routing says of the address.
func (r *Recording) whyRefused(st *netstate.State, x *Refusal, t Tuple, name string) *finding {
	ns, dst := r.NS(x.Netns), t.Dst.Addr()
	d := wayOut(st, dst)
	who := fmt.Sprintf("%s(%s[%d])", x.Call, x.Comm, x.PID)
	if dst.IsValid() {
		switch {
		case d.Type == "blackhole" || d.Type == "unreachable" || d.Type == "prohibit":
			return refusedByRoute(&scene{rec: r, st: st, loss: &Loss{Netns: x.Netns}}, d)
		case name == "ENETUNREACH" || name == "EHOSTUNREACH" && !d.OK():
			return &finding{culprit: Culprit{"kind": "route", "netns": ns, "dst": dst.String(), "state": "absent"}, certain: !d.OK(),
				cause: fmt.Sprintf("%s has no route for %v: no packet is built", ns, dst), fix: fmt.Sprintf("ip route add %v via …", prefixOf(dst))}
		}
	}
	out, _ := st.LinkByIndex(d.Link)
	switch name {
	case "EMSGSIZE":
		if out != nil {
			mtu, _ := (&scene{st: st}).mtu(d)
			return &finding{culprit: Culprit{"kind": "link", "netns": ns, "dev": out.Name, "mtu": mtu}, certain: true,
				cause: fmt.Sprintf("the datagram is larger than the way to %v takes (%s has MTU %d) and may not be fragmented", dst, out.Name, mtu),
				fix:   "send less at a time, allow fragmentation (IP_MTU_DISCOVER), or raise the MTU"}
		}
	case "EPERM":
		if f := r.outputRule(st, x, t); f != nil {
			return f
		}
		if f := blockedOut(st, ns, t); f != nil {
			return f
		}
	case "EHOSTUNREACH":
		for _, n := range st.Neighs {
			if hop := nextOf(d, dst); n.Addr == hop && (n.State == "failed" || n.State == "incomplete") {
				s := &scene{rec: r, st: st, loss: &Loss{Netns: x.Netns, Dev: st.LinkName(n.Link), Ifidx: uint32(n.Link), Reason: "NEIGH_FAILED"}, hop: &Hop{View: View{Tuple: t}}}
				return neighbourFailed(s)
			}
		}
	case "ENETDOWN":
		if out != nil {
			return &finding{culprit: Culprit{"kind": "link", "netns": ns, "dev": out.Name, "field": "state", "value": "down"}, certain: true,
				cause: out.Name + " is down", fix: "ip link set " + out.Name + " up"}
		}
	case "ENOBUFS":
		if out != nil {
			return &finding{culprit: Culprit{"kind": "qdisc", "netns": ns, "dev": out.Name}, cause: fmt.Sprintf("the queue of %s, or the socket's send buffer, is full", out.Name),
				fix: "pace the sender, or raise the limit: tc -s qdisc show dev " + out.Name}
		}
	case "EADDRNOTAVAIL":
		return &finding{culprit: Culprit{"kind": "address", "netns": ns, "state": "absent"}, cause: "there is no local address, or no free port, for " + x.To.String(),
			fix: "give the device an address; widen net.ipv4.ip_local_port_range"}
	case "ECONNREFUSED":
		return &finding{culprit: Culprit{"kind": "socket", "proto": protoName(x.L4), "local": x.To.String(), "state": "absent"},
			cause: fmt.Sprintf("%v refuses: nobody listens there, or a rule rejects", x.To), fix: "start the service, or look at the firewall of that host"}
	case "ETIMEDOUT":
		return &finding{culprit: Culprit{"kind": "peer", "addr": x.To.String()}, cause: fmt.Sprintf("%v does not answer", x.To), fix: "follow the packets: fathom packet host " + dst.String()}
	case "EACCES":
		return &finding{culprit: Culprit{"kind": "socket", "netns": ns, "proto": protoName(x.L4), "field": "SO_BROADCAST"},
			cause: fmt.Sprintf("%v is a broadcast address, or a rule prohibits it", dst), fix: "set SO_BROADCAST"}
	}
	return &finding{culprit: Culprit{"kind": "syscall", "netns": ns, "name": x.Call, "errno": name}, cause: fmt.Sprintf("%s fails with %s", who, name)}
}

func nextOf(d netstate.Decision, dst netip.Addr) netip.Addr {
	if d.Via.IsValid() {
		return d.Via
	}
	return dst
}

// prefixOf is the network that a route would be for: /24, /64.
func prefixOf(a netip.Addr) netip.Prefix {
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p
}

// blockedOut finds the IPsec policy that blocks what is sent from here (xfrm_lookup_with_ifid in net/xfrm/xfrm_policy.c).
func blockedOut(st *netstate.State, ns string, t Tuple) *finding {
	src := wayOut(st, t.Dst.Addr()).Src
	for _, p := range st.Policies {
		if p.Dir == "out" && p.Action == "block" && p.Dst.Contains(t.Dst.Addr()) && (!src.IsValid() || p.Src.Contains(src)) {
			return &finding{culprit: Culprit{"kind": "xfrm", "netns": ns, "dir": "out", "action": p.Action, "index": p.Index, "src": p.Src.String(), "dst": p.Dst.String()},
				certain: src.IsValid(), cause: fmt.Sprintf("the IPsec policy %v > %v dir out of %s: block", p.Src, p.Dst, ns),
				fix: fmt.Sprintf("ip xfrm policy delete index %d dir out", p.Index)}
		}
	}
	return nil
}

// outputRule finds the rule that refuses what is sent from here.
func (r *Recording) outputRule(st *netstate.State, x *Refusal, t Tuple) *finding {
	v := View{Tuple: t}
	if t.Dst.Addr().Is6() {
		v.Ether = etherIPv6
	} else {
		v.Ether = etherIPv4
	}
	v.pkt = t.Packet()
	s := &scene{rec: r, st: st, flow: &Flow{Netns: x.Netns, Tuple: t}, loss: &Loss{Netns: x.Netns}, hop: &Hop{View: v}, pkt: &Packet{}}
	return s.judge("output")
}
