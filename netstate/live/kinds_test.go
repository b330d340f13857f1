package live_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// handle is netlink in the namespace: guests have no ip(8).
func (s space) handle() *netlink.Handle {
	s.t.Helper()
	var h *netlink.Handle
	err := s.NS.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(h.Close)
	return h
}

// try fails the test, or skips it where a kernel has no code for what was asked.
func try(t *testing.T, what string, err error) {
	t.Helper()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPROTONOSUPPORT) {
		if ktest.InGuest() {
			t.Fatalf("%s: %v", what, err)
		}
		t.Skipf("%s: %v", what, err)
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

func (s space) addLink(h *netlink.Handle, l netlink.Link) netlink.Link {
	s.t.Helper()
	try(s.t, "add "+l.Type(), h.LinkAdd(l))
	got, err := h.LinkByName(l.Attrs().Name)
	if err == nil {
		err = h.LinkSetUp(got)
	}
	try(s.t, "set up "+l.Attrs().Name, err)
	return got
}

func veth(a, b string) *netlink.Veth {
	return &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}
}

// TestBridge: a bridge with STP and VLANs, its port, a VLAN device.
func TestBridge(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSpace(t)
	h := s.handle()
	on := true
	s.addLink(h, veth("p1", "x1"))
	br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}, VlanFiltering: &on}
	s.addLink(h, br)
	p, _ := h.LinkByName("p1")
	try(t, "stp", s.write("/sys/class/net/br0/bridge/stp_state", "1"))
	try(t, "join", h.LinkSetMaster(p, br))
	try(t, "vlan", h.BridgeVlanAdd(p, 10, false, true, false, true))
	try(t, "vlan", h.BridgeVlanDel(p, 1, true, true, false, true))
	x, _ := h.LinkByName("x1")
	try(t, "set up x1", h.LinkSetUp(x))
	s.addLink(h, &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "x1.42", ParentIndex: x.Attrs().Index}, VlanId: 42})
	got := s.Read(live.Links)
	b, _ := got.LinkByName("br0")
	port, _ := got.LinkByName("p1")
	v, _ := got.LinkByName("x1.42")
	if got.Missing != nil || b == nil || port == nil || v == nil {
		t.Fatalf("%+v", got)
	}
	if b.Kind != "bridge" || !b.Bridge.STP || !b.Bridge.VLANFiltering || b.Bridge.ForwardDelay.Seconds() != 15 {
		t.Errorf("bridge: %+v", b.Bridge)
	}
	if port.Master != b.Index || port.Port == nil || port.Port.PVID != 0 || !cmp.Equal(port.Port.VLANs, []uint16{10}) {
		t.Errorf("port: %+v", port.Port)
	}
	if v.Kind != "vlan" || v.VLAN != 42 || v.Lower != x.Attrs().Index {
		t.Errorf("vlan: %+v", v)
	}
}

// write writes a file of sysfs as it is in the namespace, which needs a mount of its own.
func (s space) write(path, text string) error {
	return s.NS.Do(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
			return err
		}
		return writeFile(path, text)
	})
}

func writeFile(path, text string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(text))
	return err
}

// program loads a BPF program that returns a number.
func program(t *testing.T, typ ebpf.ProgramType, name string, ret int32) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: typ, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, ret), asm.Return()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestPrograms: XDP, tcx and cls_bpf programs with their names.
func TestPrograms(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.XDP)
	s := newSpace(t)
	h := s.handle()
	l := s.addLink(h, veth("va", "vb"))
	xdp := program(t, ebpf.XDP, "deny_all", 1)
	try(t, "xdp", h2xdp(s, l, xdp))
	shot := program(t, ebpf.SchedCLS, "shot", 2)
	var tcx link.Link
	err := s.NS.Do(func() (err error) {
		tcx, err = link.AttachTCX(link.TCXOptions{Interface: l.Attrs().Index, Program: shot, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if err == nil {
		defer tcx.Close()
	}
	got := s.Read(live.All)
	id := func(p *ebpf.Program) uint32 { i, _ := p.Info(); n, _ := i.ID(); return uint32(n) }
	va, _ := got.LinkByName("va")
	if d := cmp.Diff([]netstate.Prog{{ID: id(xdp), Name: "deny_all", Mode: "generic"}}, va.XDP); d != "" || unexpected(got) != nil {
		t.Error(d, got.Missing)
	}
	if tcx != nil {
		want := []netstate.Filter{{Link: va.Index, Parent: "ingress", Prio: 1, Kind: "tcx", Prog: &netstate.Prog{ID: id(shot), Name: "shot"}}}
		if d := cmp.Diff(want, got.Filters); d != "" {
			t.Error(d)
		}
	} else if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
		t.Error("attach tcx:", err)
	}
}

func h2xdp(s space, l netlink.Link, p *ebpf.Program) error {
	const generic = 1 << 1 // XDP_FLAGS_SKB_MODE
	return s.NS.Do(func() error {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		return netlink.LinkSetXdpFdWithFlags(l, p.FD(), generic)
	})
}

// TestTC: qdiscs with limits, filters with actions.
func TestTC(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSpace(t)
	h := s.handle()
	l := s.addLink(h, veth("va", "vb"))
	i := l.Attrs().Index
	try(t, "tbf", h.QdiscAdd(&netlink.Tbf{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: i, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}, Rate: 1 << 17, Limit: 3000, Buffer: 5000}))
	try(t, "clsact", h.QdiscAdd(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{LinkIndex: i, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT}}))
	try(t, "matchall", h.FilterAdd(&netlink.MatchAll{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: i, Parent: netlink.HANDLE_MIN_INGRESS, Priority: 7, Protocol: unix.ETH_P_ALL},
		Actions:     []netlink.Action{&netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: netlink.TC_ACT_SHOT}}},
	}))
	shot := program(t, ebpf.SchedCLS, "mine", 2)
	try(t, "cls_bpf", h.FilterAdd(&netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{LinkIndex: i, Parent: netlink.HANDLE_MIN_EGRESS, Handle: 1, Priority: 3, Protocol: unix.ETH_P_ALL},
		Fd:          shot.FD(), Name: "file.o:[sec]", DirectAction: true,
	}))
	got := s.Read(live.All)
	var lines []string
	for _, q := range got.Qdiscs {
		if q.Link == i {
			lines = append(lines, fmt.Sprintf("qdisc %s limit %d%s", q.Kind, q.Limit, q.Unit))
		}
	}
	for _, f := range got.Filters {
		line := fmt.Sprintf("filter %s prio %d %s %v", f.Parent, f.Prio, f.Kind, f.Acts)
		if f.Prog != nil {
			line += fmt.Sprintf(" %s %s %v", f.Prog.Name, f.Prog.Mode, f.Prog.ID != 0)
		}
		lines = append(lines, line)
	}
	want := []string{"qdisc tbf limit 3000b", "qdisc clsact limit 0", "filter ingress prio 7 matchall [gact drop]", "filter egress prio 3 bpf [] mine direct-action true"}
	if d := cmp.Diff(want, lines); d != "" || unexpected(got) != nil {
		t.Error(d, got.Missing)
	}
	if _, ok := got.Counters["tc.va.drops"]; !ok {
		t.Error("no counter")
	}
}

// TestPeer: a veth whose other end is elsewhere says where.
func TestPeer(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s, other := newSpace(t), newSpace(t)
	h := s.handle()
	s.addLink(h, veth("va", "vb"))
	vb, err := h.LinkByName("vb")
	if err == nil {
		err = h.LinkSetNsFd(vb, other.FD())
	}
	try(t, "move", err)
	va, _ := s.Read(live.Links).LinkByName("va")
	far, ok := other.Read(live.Links).LinkByIndex(va.Lower)
	if va.PeerNS != other.Reader.NS().Inode || !ok || far.Name != "vb" || far.PeerNS != s.Reader.NS().Inode {
		t.Errorf("%+v in %+v, %+v", va, other.Reader.NS(), far)
	}
}

// TestOpenInode: a namespace without a name is found by who holds it.
func TestOpenInode(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSpace(t)
	r, err := live.OpenInode(s.Reader.NS().Inode)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if r.NS().Inode != s.Reader.NS().Inode {
		t.Error(r.NS())
	}
	if _, err := live.OpenInode(1); err == nil {
		t.Error("found what does not exist")
	}
	self, err := netns.Current()
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	me, err := live.OpenNS(self)
	if err != nil {
		t.Fatal(err)
	}
	defer me.Close()
	if name := me.NS().Name; name == "" {
		t.Error("no name")
	}
}

// TestPolicies: an IPsec policy that blocks.
func TestPolicies(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSpace(t)
	var h *netlink.Handle
	err := s.NS.Do(func() (err error) { h, err = netlink.NewHandle(unix.NETLINK_XFRM); return err })
	try(t, "xfrm", err)
	defer h.Close()
	src, dst := netip.MustParsePrefix("10.9.0.0/24"), netip.MustParsePrefix("10.8.0.0/24")
	try(t, "policy", h.XfrmPolicyAdd(&netlink.XfrmPolicy{
		Src: ipNet(src), Dst: ipNet(dst), Dir: netlink.XFRM_DIR_IN, Priority: 5, Action: netlink.XFRM_POLICY_BLOCK,
	}))
	got := s.Read(live.Policies)
	if len(got.Policies) != 1 || got.Missing != nil {
		t.Fatalf("%+v", got)
	}
	p := got.Policies[0]
	p.Index = 0
	if d := cmp.Diff(netstate.Policy{Dir: "in", Src: src, Dst: dst, Action: "block", Prio: 5}, p, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

// TestEthtool: drivers' counters are those of ethtool -S.
func TestEthtool(t *testing.T) {
	s := newSpace(t)
	need(t, "ethtool")
	s.setup("ip link add va type veth peer name vb\nip link set va up\nip link set vb up")
	got := s.Read(live.Ethtool)
	n := 0
	for line := range strings.Lines(string(s.run("ethtool -S va"))) {
		name, v, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		n++
		if x, ok := got.Counters["ethtool.va."+name]; !ok || fmt.Sprint(x) != v {
			t.Errorf("%s: %d, ethtool %s", name, x, v)
		}
	}
	if n == 0 {
		t.Error("nothing compared")
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
