package fault

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"

	"github.com/fathom-trace/fathom/lab/attach"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// Faults of links: bridges, VLANs, MAC addresses, queues, traffic control and XDP.

func vlanUnknown(s *Scene) error {
	a, b := s.pair()
	vlan := uint16(2 + s.deck.IntN(4000))
	if err := s.up(); err != nil {
		return err
	}
	f := udpFrame(a, b, s.deck.Port(), s.deck.Port(), 30)
	f.VLAN = vlan
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame { return f })
	s.drops("ip_rcv_core", "OTHERHOST")
	s.blame("link", "b", "dev", fmt.Sprintf("%s.%d", b.dev, vlan), "state", "absent")
	s.at("b", b.dev)
	return nil
}

func wrongMAC(s *Scene) error {
	a, b := s.pair()
	if err := s.up(); err != nil {
		return err
	}
	f := udpFrame(a, b, s.deck.Port(), s.deck.Port(), 30)
	f.Dst = s.deck.MAC()
	s.frames(a, s.few(), 0, 0, func(int) traffic.Frame { return f })
	s.drops("ip_rcv_core", "OTHERHOST")
	s.blame("packet", "b", "field", "eth.dst")
	s.at("b", b.dev)
	return nil
}

// staleNeighbour is a permanent neighbour with a MAC address that another interface of the bridge's has: the switch floods.
func staleNeighbour(s *Scene) error {
	n := s.deck.Net()
	a, b := s.end("a", n+".0.1"), s.end("b", n+".0.2")
	s.link(a, b, true)
	s.host("a", "neigh %v lladdr %v dev %s", b.addr, s.deck.MAC(), a.dev)
	s.know(b, a)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("ip_rcv_core", "OTHERHOST")
	s.blame("packet", "b", "field", "eth.dst")
	s.at("b", b.dev)
	return nil
}

func bridgeListening(s *Scene) error {
	a, pa, _, b := s.bridged()
	s.idle = true // the bridge, as long as no port of its forwards
	s.host("r", "stp on 30s")
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	send := s.send
	s.send = func(ctx context.Context) error { // listening begins when the port comes up
		if err := s.flap(pa, a); err != nil {
			return err
		}
		return send(ctx)
	}
	s.drops("br_handle_frame", "NOT_SPECIFIED")
	s.dropsSince("6.18", "br_handle_frame", "BRIDGE_INGRESS_STP_STATE")
	s.blame("bridge", "r", "dev", pa.dev, "field", "state", "value", "listening")
	return nil
}

// flap sets an interface down and up again, and waits until both it and the interface at its other end can send.
func (s *Scene) flap(e, peer *end) error {
	h, err := s.netlink(e)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(e.dev)
	if err != nil {
		return err
	}
	if err := errors.Join(h.LinkSetDown(l), h.LinkSetUp(l)); err != nil {
		return err
	}
	there, err := s.netlink(peer)
	if err != nil {
		return err
	}
	defer there.Close()
	return errors.Join(awaitLink(h, e.dev, true), awaitLink(there, peer.dev, true))
}

// netlink speaks to the kernel where an end is.
func (s *Scene) netlink(e *end) (*netlink.Handle, error) {
	return netlink.NewHandleAt(vns.NsHandle(s.ns[e.role].FD()), unix.NETLINK_ROUTE)
}

// awaitLink waits until the kernel knows that an interface has a carrier, or that it has none.
func awaitLink(h *netlink.Handle, dev string, carrier bool) error {
	for range 500 {
		l, err := h.LinkByName(dev)
		if err != nil {
			return err
		}
		if (l.Attrs().OperState == netlink.OperUp) == carrier {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("carrier of %s is not %t: %w", dev, carrier, os.ErrDeadlineExceeded)
}

func bridgeNoPVID(s *Scene) error {
	_, pa, pb, b := s.bridged()
	pb.opts = fmt.Sprintf("vlan=%d", 2+s.deck.IntN(4000))
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("br_allowed_ingress", "NOT_SPECIFIED")
	s.blame("bridge", "r", "dev", pa.dev, "field", "pvid", "state", "absent")
	return nil
}

func bridgeVLANMismatch(s *Scene) error {
	_, pa, pb, b := s.bridged()
	v := 2 + s.deck.IntN(2000)
	pa.opts, pb.opts = fmt.Sprintf("vlan=%d", v), fmt.Sprintf("vlan=%d", v+1)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.notFlooded() // no port of the VLAN is left to give it to
	s.blame("bridge", "r", "dev", pb.dev, "field", "vlan")
	s.at("r", pa.dev, pb.dev, "br0")
	return nil
}

// peerDown is a link whose other end is down.
func peerDown(s *Scene) error {
	a, b := s.pair()
	s.idle = true
	s.host("b", "down %s", b.dev)
	if err := s.up(); err != nil {
		return err
	}
	if err := s.without(a); err != nil {
		return err
	}
	// The route stays, and a device without a carrier has a qdisc that takes nothing (noop_qdisc).
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.lostAtSend("ENOBUFS")
	s.qdiscDrop()
	s.blame("link", "a", "dev", a.dev, "field", "carrier")
	return nil
}

// without waits until the kernel knows that a device has no carrier.
func (s *Scene) without(e *end) error {
	h, err := netlink.NewHandleAt(vns.NsHandle(s.ns[e.role].FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	return awaitLink(h, e.dev, false)
}

func tcIngress(s *Scene) error {
	_, b := s.pair()
	prio := 1 + s.deck.IntN(100)
	s.host("b", "tc %s ingress drop prio %d", b.dev, prio)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("__netif_receive_skb_core", "TC_INGRESS")
	s.blame("tc", "b", "dev", b.dev, "parent", "ingress", "prio", prio, "action", "drop")
	return nil
}

func tcEgress(s *Scene) error {
	a, b := s.pair()
	prio := 1 + s.deck.IntN(100)
	s.host("a", "tc %s egress drop prio %d", a.dev, prio)
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.lostAtSend("")
	s.drops("__dev_queue_xmit", "TC_EGRESS")
	s.blame("tc", "a", "dev", a.dev, "parent", "egress", "prio", prio, "action", "drop")
	return nil
}

// tcx is a program on a device's ingress or egress.
func tcx(egress bool) func(*Scene) error {
	return func(s *Scene) error {
		a, b := s.pair()
		if err := s.up(); err != nil {
			return err
		}
		e, way, function, reason := b, "ingress", "__netif_receive_skb_core", "TC_INGRESS"
		if egress {
			e, way, function, reason = a, "egress", "__dev_queue_xmit", "TC_EGRESS"
		}
		if err := s.program(e.role, func() (*attach.Attached, error) {
			return attach.TCX(e.dev, s.deck.Word(), attach.TCShot, egress)
		}); err != nil {
			return err
		}
		s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
		if egress {
			s.lostAtSend("")
		}
		s.drops(function, reason)
		s.blame("tcx", e.role, "dev", e.dev, "parent", way, "action", "TC_ACT_SHOT")
		return nil
	}
}

// cgroupEgress is a program on the root of all cgroups that drops what goes to one port; the call that sends it fails.
func cgroupEgress(s *Scene) error {
	root := cgroupRoot()
	if root == "" {
		return fmt.Errorf("find the hierarchy of cgroups: %w", unix.ENOENT)
	}
	a, b := s.pair()
	port, name := s.deck.Port(), s.deck.Word()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.program("a", func() (*attach.Attached, error) { return attach.CgroupEgress(root, name, uint16(port)) }); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: s.few()})
	s.lostAtSend("EPERM")
	s.drops("ip_finish_output", "BPF_CGROUP_EGRESS")
	s.blame("cgroup_bpf", "a", "parent", "egress", "cgroup", "/", "name", name)
	s.at("a", a.dev)
	return nil
}

// cgroupRoot is where the unified hierarchy of cgroups is mounted, "" if it is not.
func cgroupRoot() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	return ""
}

// program attaches a program in a role's namespace.
func (s *Scene) program(role string, f func() (*attach.Attached, error)) error {
	return s.ns[role].Do(func() error {
		a, err := f()
		if err == nil {
			s.undo = append(s.undo, a.Close)
		}
		return err
	})
}

// xdp is a program of XDP with one answer.
func xdp(answer int32, name string, native bool) func(*Scene) error {
	return func(s *Scene) error {
		_, b := s.pair()
		if err := s.up(); err != nil {
			return err
		}
		if err := s.program("b", func() (*attach.Attached, error) {
			return attach.XDP(b.dev, s.deck.Word(), answer, native)
		}); err != nil {
			return err
		}
		s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
		mode := "generic"
		function := "do_xdp_generic"
		if native {
			mode, function = "native", "veth_xdp_rcv_skb"
		}
		s.drops(function, "NOT_SPECIFIED")
		s.blame("xdp", "b", "dev", b.dev, "mode", mode, "action", name)
		return nil
	}
}

func xskNoFill(s *Scene) error {
	_, b := s.pair()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.program("b", func() (*attach.Attached, error) {
		sock, err := attach.OpenSock(b.dev, 0)
		if err != nil {
			return nil, err
		}
		s.undo = append(s.undo, sock.Close)
		a, socks, _, err := attach.Redirect(b.dev, 1, false)
		if err != nil {
			return nil, err
		}
		return a, socks.Put(uint32(0), uint32(sock.FD))
	}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.drops("do_xdp_generic", "XDP")
	s.blame("xsk", "b", "dev", b.dev, "queue", 0, "field", "fill ring", "value", "empty")
	return nil
}

// qdiscDrop says what event tells of a packet that a qdisc does not take.
func (s *Scene) qdiscDrop() {
	s.drops("kfree_skb_list_reason", "QDISC_DROP")
	s.dropsSince("6.12", "__dev_queue_xmit", "QDISC_DROP")
	s.dropsSince("7.3", "__tcf_kfree_skb_list", "QDISC_DROP")
}

func tbfOverflow(s *Scene) error {
	a, b := s.pair()
	limit := 2500 + s.deck.IntN(1500)
	a.opts = fmt.Sprintf(`tbf="rate 64kbit burst 2000 limit %d"`, limit)
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: b.port(port)}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: 20, size: 900})
	s.qdiscDrop()
	s.send = s.andThen(s.send, 1500e6) // what waits leaves at 64 kbit/s
	s.blame("qdisc", "a", "dev", a.dev, "type", "tbf", "limit", limit)
	return nil
}

func netemOverflow(s *Scene) error {
	a, b := s.pair()
	limit := 3 + s.deck.IntN(5)
	a.opts = fmt.Sprintf(`netem="delay 500ms limit %d"`, limit)
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: b.port(port)}); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: 20, size: 200})
	s.send = s.andThen(s.send, 800e6)
	s.qdiscDrop()
	s.blame("qdisc", "a", "dev", a.dev, "type", "netem", "limit", limit)
	return nil
}

func netemLoss(s *Scene) error {
	a, b := s.pair()
	a.opts = `netem="loss 100%"`
	if err := s.up(); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(s.deck.Port()), count: s.few()})
	s.lostAtSend("")
	s.qdiscDrop()
	s.blame("qdisc", "a", "dev", a.dev, "type", "netem", "field", "loss")
	return nil
}

// machine sets a setting of the whole machine, until the scene is closed.
func (s *Scene) machine(key, value string) error {
	path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
	old, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() error { return os.WriteFile(path, old, 0) })
	return os.WriteFile(path, []byte(value), 0)
}

func conntrackFull(s *Scene) error {
	a, b := s.pair()
	most := 3 + s.deck.IntN(4)
	s.host("b", "nft input ct new accept")
	port, from := s.deck.Port(), s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: b.port(port)}); err != nil {
		return err
	}
	key := "net.netfilter.nf_conntrack_max"
	if err := s.machine(key, fmt.Sprint(most)); err != nil {
		return err
	}
	s.frames(a, 20, 0, 0, func(i int) traffic.Frame {
		f := udpFrame(a, b, from+i, port, 30)
		f.ID = uint16(i)
		return f
	})
	s.drops("nf_hook_slow", "NETFILTER_DROP")
	s.blame("sysctl", "init", "key", key, "value", fmt.Sprint(most))
	s.at("b")
	return nil
}

func backlogFull(s *Scene) error {
	a, b := s.pair()
	port := s.deck.Port()
	if err := s.up(); err != nil {
		return err
	}
	h, err := netlink.NewHandleAt(vns.NsHandle(s.ns["a"].FD()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(a.dev)
	if err != nil {
		return err
	}
	if err := h.LinkSetGSOMaxSegs(l, 1); err != nil { // the burst is cut before the device
		return err
	}
	if err := s.serve("b", socket{proto: "udp", addr: netip.AddrPortFrom(any4, uint16(port))}); err != nil {
		return err
	}
	key := "net.core.netdev_max_backlog"
	if err := s.machine(key, "0"); err != nil {
		return err
	}
	s.datagrams("a", datagrams{to: b.port(port), count: 1, size: 200 * s.few(), gso: 200})
	s.drops("enqueue_to_backlog", "CPU_BACKLOG")
	s.blame("sysctl", "init", "key", key, "value", "0")
	s.at("b")
	return nil
}
