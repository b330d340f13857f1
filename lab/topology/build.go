package topology

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology/spec"
)

// Network is a topology that exists: a namespace for each node.
type Network struct {
	Spec *spec.Topology
	ns   map[string]netns.NS
}

// Build makes a topology in unnamed namespaces. What it made is gone if it fails. The owner closes it.
func Build(t *spec.Topology) (*Network, error) {
	return build(t, func(string) (netns.NS, error) { return netns.New() })
}

func build(t *spec.Topology, make func(node string) (netns.NS, error)) (n *Network, err error) {
	n = &Network{Spec: t, ns: map[string]netns.NS{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
			n = nil
		}
	}()
	for _, node := range t.Nodes {
		ns, err := make(node.Name)
		if err != nil {
			return n, fmt.Errorf("make %s: %w", node.Name, err)
		}
		n.ns[node.Name] = ns
	}
	b := builder{Network: n, nl: map[string]*netlink.Handle{}}
	defer b.close()
	return n, b.all()
}

// NS is a node's namespace, valid until Close.
func (n *Network) NS(node string) (netns.NS, bool) { ns, ok := n.ns[node]; return ns, ok }

// Close lets go of all namespaces.
func (n *Network) Close() error {
	var errs []error
	for _, ns := range n.ns {
		errs = append(errs, ns.Close())
	}
	n.ns = nil
	return errors.Join(errs...)
}

// builder is a network while it is made, with a netlink socket in each namespace.
type builder struct {
	*Network
	nl map[string]*netlink.Handle
}

func (b *builder) close() {
	for _, h := range b.nl {
		h.Close()
	}
}

// all makes devices first, since routes and rules name them.
func (b *builder) all() error {
	for _, n := range b.Spec.Nodes {
		h, err := netlink.NewHandleAt(vns.NsHandle(b.ns[n.Name].FD()), unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink in %s: %w", n.Name, err)
		}
		b.nl[n.Name] = h
		if err := b.prepare(n); err != nil {
			return at(n, n.Pos, err)
		}
	}
	for _, l := range b.Spec.Links {
		if err := b.link(l); err != nil {
			return at(l.A.Node, l.A.Pos, err)
		}
	}
	for _, n := range b.Spec.Nodes {
		if err := b.finish(n); err != nil {
			return err
		}
	}
	for _, l := range b.Spec.Links {
		for _, i := range []*spec.Iface{l.A, l.B} {
			if err := waitRunning(b.nl[i.Node.Name], i.Dev); err != nil {
				return at(i.Node, i.Pos, err)
			}
		}
	}
	for _, n := range b.Spec.Nodes {
		if err := at(n, n.Pos, b.down(n)); err != nil {
			return err
		}
	}
	return nil
}

// at says where in the text the thing stands that could not be made.
func at(n *spec.Node, pos spec.Pos, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("set up %s (%v): %w", n.Name, pos, err)
}

// prepare does what must be there before links: forwarding, addresses without a probe for duplicates, the bridge, lo.
func (b *builder) prepare(n *spec.Node) error {
	set := []spec.Sysctl{{Key: "net.ipv6.conf.default.accept_dad", Value: "0"}, {Key: "net.ipv6.conf.all.accept_dad", Value: "0"}}
	if n.Kind == spec.Router {
		set = append(set, spec.Sysctl{Key: "net.ipv4.ip_forward", Value: "1"}, spec.Sysctl{Key: "net.ipv6.conf.all.forwarding", Value: "1"})
	}
	err := b.ns[n.Name].Do(func() error {
		for _, s := range set {
			if err := setSysctl(s); err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.up(n, "lo"); err != nil || n.Kind != spec.Bridge {
		return err
	}
	br := &netlink.Bridge{LinkAttrs: attrs("br0")}
	if n.VLANs {
		var none uint16
		br.VlanFiltering, br.VlanDefaultPVID = &n.VLANs, &none
	}
	if err := b.nl[n.Name].LinkAdd(br); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if n.STP {
		if err := b.ns[n.Name].Do(func() error { return setSTP(br.Index, n.Delay) }); err != nil {
			return fmt.Errorf("turn STP on: %w", err)
		}
	}
	return b.up(n, "br0")
}

func attrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

func (b *builder) up(n *spec.Node, dev string) error {
	h := b.nl[n.Name]
	l, err := h.LinkByName(dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", dev, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", dev, err)
	}
	return nil
}

// link makes a veth pair, both ends at once in their namespaces.
func (b *builder) link(l spec.Link) error {
	a := attrs(l.A.Dev)
	a.HardwareAddr, a.MTU, a.NumTxQueues, a.NumRxQueues = l.A.MAC, l.A.MTU, l.A.Queues, l.A.Queues
	v := netlink.NewVeth(a)
	v.PeerName, v.PeerHardwareAddr, v.PeerMTU = l.B.Dev, l.B.MAC, uint32(l.B.MTU)
	v.PeerNumTxQueues, v.PeerNumRxQueues = uint32(l.B.Queues), uint32(l.B.Queues)
	v.PeerNamespace = netlink.NsFd(b.ns[l.B.Node.Name].FD())
	if err := b.nl[l.A.Node.Name].LinkAdd(v); err != nil {
		return fmt.Errorf("add veth %s.%s -- %s.%s: %w", l.A.Node.Name, l.A.Dev, l.B.Node.Name, l.B.Dev, err)
	}
	for _, i := range []*spec.Iface{l.A, l.B} {
		if err := b.iface(i); err != nil {
			return err
		}
	}
	return nil
}

// iface sets one end of a link up.
func (b *builder) iface(i *spec.Iface) error {
	n, h := i.Node, b.nl[i.Node.Name]
	link, err := h.LinkByName(i.Dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", i.Dev, err)
	}
	if i.NoIPv6 {
		s := spec.Sysctl{Key: "net.ipv6.conf." + i.Dev + ".disable_ipv6", Value: "1"}
		err := b.ns[n.Name].Do(func() error { return setSysctl(s) })
		if err != nil && !errors.Is(err, os.ErrNotExist) { // no IPv6, or an MTU too small for it
			return err
		}
	}
	if n.Kind == spec.Bridge {
		if err := b.port(h, link, i); err != nil {
			return err
		}
	}
	for _, p := range i.Addrs {
		if err := addAddress(h, link, p); err != nil {
			return err
		}
	}
	if i.Qdisc != nil {
		if err := h.QdiscAdd(qdisc(link, i.Qdisc)); err != nil {
			return fmt.Errorf("set what %s sends through: %w", i.Dev, err)
		}
	}
	return b.up(n, i.Dev)
}

// port makes an interface a port of its bridge.
func (b *builder) port(h *netlink.Handle, link netlink.Link, i *spec.Iface) error {
	br, err := h.LinkByName("br0")
	if err != nil {
		return err
	}
	if err := h.LinkSetMasterByIndex(link, br.Attrs().Index); err != nil {
		return fmt.Errorf("make %s a port: %w", i.Dev, err)
	}
	if i.Access != 0 {
		if err := h.BridgeVlanAdd(link, i.Access, true, true, false, true); err != nil {
			return fmt.Errorf("put %s into VLAN %d: %w", i.Dev, i.Access, err)
		}
	}
	for _, v := range i.Trunk {
		if err := h.BridgeVlanAdd(link, v, false, false, false, true); err != nil {
			return fmt.Errorf("put %s into VLAN %d: %w", i.Dev, v, err)
		}
	}
	return nil
}

func addAddress(h *netlink.Handle, link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = ifaNoDAD
	}
	if err := h.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add %v to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// ipNet is nil for no prefix.
func ipNet(p netip.Prefix) *net.IPNet {
	if !p.IsValid() {
		return nil
	}
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// finish makes what needs all links: own devices, sysctls, routes, rules, neighbours, filters.
func (b *builder) finish(n *spec.Node) error {
	h, ns := b.nl[n.Name], b.ns[n.Name]
	for _, d := range n.Own {
		if err := at(n, d.Pos, b.device(n, d)); err != nil {
			return err
		}
	}
	for _, s := range n.Sysctls {
		if err := at(n, s.Pos, ns.Do(func() error { return setSysctl(s) })); err != nil {
			return err
		}
	}
	for _, e := range n.Neigh {
		if err := at(n, e.Pos, addNeighbour(h, e)); err != nil {
			return err
		}
	}
	for _, r := range n.Routes {
		if err := at(n, r.Pos, addRoute(h, r)); err != nil {
			return err
		}
	}
	for _, r := range n.Rules {
		if err := at(n, r.Pos, addRule(h, r)); err != nil {
			return err
		}
	}
	for _, f := range n.TC {
		if err := at(n, f.Pos, classify(h, f)); err != nil {
			return err
		}
	}
	if len(n.XFRM) > 0 {
		if err := at(n, n.XFRM[0].Pos, block(ns, n.XFRM)); err != nil {
			return err
		}
	}
	if len(n.NFT)+len(n.Policy) > 0 {
		return at(n, n.Pos, filter(ns, n))
	}
	return nil
}

// down sets interfaces down, when all others run.
func (b *builder) down(n *spec.Node) error {
	h := b.nl[n.Name]
	for _, dev := range n.Down {
		l, err := h.LinkByName(dev)
		if err != nil {
			return fmt.Errorf("find %s: %w", dev, err)
		}
		if err := h.LinkSetDown(l); err != nil {
			return fmt.Errorf("set %s down: %w", dev, err)
		}
	}
	return nil
}

// device makes an interface without a link. Tun and tap devices stay without a process (TUNSETPERSIST).
func (b *builder) device(n *spec.Node, d spec.Device) error {
	h := b.nl[n.Name]
	var err error
	switch d.Kind {
	case "dummy":
		err = h.LinkAdd(&netlink.Dummy{LinkAttrs: attrs(d.Name)})
	case "vlan":
		parent, perr := h.LinkByName(d.Parent)
		if perr != nil {
			return fmt.Errorf("find %s: %w", d.Parent, perr)
		}
		a := attrs(d.Name)
		a.ParentIndex = parent.Attrs().Index
		err = h.LinkAdd(&netlink.Vlan{LinkAttrs: a, VlanId: int(d.VLAN), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	default:
		err = b.ns[n.Name].Do(func() error { return tunTap(d) })
	}
	if err != nil {
		return fmt.Errorf("add %s %s: %w", d.Kind, d.Name, err)
	}
	link, err := h.LinkByName(d.Name)
	if err != nil {
		return fmt.Errorf("find %s: %w", d.Name, err)
	}
	for _, p := range d.Addrs {
		if err := addAddress(h, link, p); err != nil {
			return err
		}
	}
	return b.up(n, d.Name)
}

// setSysctl writes a setting of the namespace this thread is in. Dots part the folders; in a device's name they are
// slashes, as sysctl(8) has it: none of ours has such.
func setSysctl(s spec.Sysctl) error {
	path := "/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/")
	if err := os.WriteFile(path, []byte(s.Value), 0); err != nil {
		return fmt.Errorf("set sysctl %s=%s: %w", s.Key, s.Value, err)
	}
	return nil
}

func addNeighbour(h *netlink.Handle, e spec.Neighbour) error {
	link, err := h.LinkByName(e.Dev)
	if err != nil {
		return fmt.Errorf("find %s: %w", e.Dev, err)
	}
	err = h.NeighSet(&netlink.Neigh{LinkIndex: link.Attrs().Index, State: unix.NUD_PERMANENT, IP: e.Addr.AsSlice(), HardwareAddr: e.MAC})
	if err != nil {
		return fmt.Errorf("add neighbour %v: %w", e.Addr, err)
	}
	return nil
}

var routeTypes = map[string]int{
	"unicast": unix.RTN_UNICAST, "blackhole": unix.RTN_BLACKHOLE, "unreachable": unix.RTN_UNREACHABLE, "prohibit": unix.RTN_PROHIBIT,
}

func addRoute(h *netlink.Handle, r spec.Route) error {
	nl := &netlink.Route{Dst: ipNet(r.Dst), Type: routeTypes[r.Type], Table: r.Table, Priority: r.Metric, MTU: r.MTU}
	if r.Via.IsValid() {
		nl.Gw = r.Via.AsSlice()
	}
	if r.Src.IsValid() {
		nl.Src = r.Src.AsSlice()
	}
	if r.Dev != "" {
		link, err := h.LinkByName(r.Dev)
		if err != nil {
			return fmt.Errorf("find %s: %w", r.Dev, err)
		}
		nl.LinkIndex = link.Attrs().Index
		if !r.Via.IsValid() {
			nl.Scope = netlink.SCOPE_LINK
		}
	}
	if err := h.RouteAdd(nl); err != nil {
		return fmt.Errorf("add route to %v: %w", r.Dst, err)
	}
	return nil
}

// ruleActions are FR_ACT_… of include/uapi/linux/fib_rules.h; 0 looks into a table.
var ruleActions = map[string]uint8{"blackhole": unix.FR_ACT_BLACKHOLE, "unreachable": unix.FR_ACT_UNREACHABLE, "prohibit": unix.FR_ACT_PROHIBIT}

func addRule(h *netlink.Handle, r spec.Rule) error {
	nl := netlink.NewRule()
	nl.Src, nl.Dst, nl.IifName, nl.OifName, nl.Mark = ipNet(r.From), ipNet(r.To), r.IIF, r.OIF, r.Mark
	if nl.Type = ruleActions[r.Action]; r.Action == "" {
		nl.Table = r.Table
	}
	nl.Family = unix.AF_INET
	if (r.From.IsValid() && r.From.Addr().Is6()) || (r.To.IsValid() && r.To.Addr().Is6()) {
		nl.Family = unix.AF_INET6
	}
	if r.Priority != 0 {
		nl.Priority = r.Priority
	}
	if err := h.RuleAdd(nl); err != nil {
		return fmt.Errorf("add rule for table %d: %w", r.Table, err)
	}
	return nil
}
