package live_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// kernelSays asks the kernel for the way of a flow, as ip route get does: "unicast dev 3 via 10.1.0.2 table 100", or an errno.
func kernelSays(t *testing.T, c *netlink.Conn, f netstate.Flow) string {
	t.Helper()
	bits := f.Dst.BitLen()
	b := make([]byte, 12)
	b[0], b[1], b[3] = unix.AF_INET, byte(bits), f.TOS
	if f.Dst.Is6() {
		b[0] = unix.AF_INET6
	}
	binary.LittleEndian.PutUint32(b[8:], unix.RTM_F_LOOKUP_TABLE)
	b = nlattr.Append(b, unix.RTA_DST, f.Dst.AsSlice())
	if f.Src.IsValid() {
		b[2] = byte(bits)
		b = nlattr.Append(b, unix.RTA_SRC, f.Src.AsSlice())
	}
	for typ, n := range map[uint16]int{unix.RTA_IIF: f.IIF, unix.RTA_OIF: f.OIF, unix.RTA_MARK: int(f.Mark)} {
		if n != 0 {
			b = nlattr.AppendU32(b, typ, uint32(n))
		}
	}
	msgs, err := c.Execute(netlink.Message{Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request}, Data: b})
	if err != nil {
		var n unix.Errno
		errors.As(err, &n)
		return unix.ErrnoName(n)
	}
	a, err := nlattr.ParseAt(msgs[0].Data, 12)
	if err != nil {
		t.Fatal(err)
	}
	types := []string{"", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit"}
	typ := types[msgs[0].Data[7]]
	if e := int32(a.Nested(unix.RTA_CACHEINFO).U32(0)); e != 0 {
		return "?"
	}
	if ci := a.Get(unix.RTA_CACHEINFO); len(ci) >= 16 && f.Dst.Is6() { // struct rta_cacheinfo: error is the fourth word
		if e := int32(binary.LittleEndian.Uint32(ci[12:])); e < 0 {
			return unix.ErrnoName(unix.Errno(-e))
		}
	}
	out := fmt.Sprintf("%s table %d", typ, a.U32(unix.RTA_TABLE))
	if typ == "unicast" || typ == "multicast" {
		via, _ := netip.AddrFromSlice(a.Get(unix.RTA_GATEWAY))
		out += fmt.Sprintf(" dev %d via %v", a.U32(unix.RTA_OIF), via)
	}
	return out
}

// weSay is the same out of a state; several where the kernel may choose.
func weSay(s *netstate.State, f netstate.Flow) []string {
	d := s.FIB(f)
	if !d.OK() {
		if f.IIF != 0 && d.Type == "" { // a packet that came in is told that the host is not to be reached
			return []string{"EHOSTUNREACH", "ENETUNREACH"}
		}
		return []string{d.Errno}
	}
	table := tableOf(d)
	out := fmt.Sprintf("%s table %d", d.Type, table)
	if d.Type != "unicast" && d.Type != "multicast" {
		return []string{out}
	}
	hops := d.Hops
	if hops == nil {
		hops = []netstate.Hop{{Link: d.Link, Via: d.Via}}
	}
	var all []string
	for _, h := range hops {
		all = append(all, fmt.Sprintf("%s dev %d via %v", out, h.Link, h.Via))
	}
	return all
}

func tableOf(d netstate.Decision) int {
	if d.Route != nil {
		return d.Route.Table
	}
	return 0
}

// randomRouting sets addresses, tables and rules.
func randomRouting(s space, r *rand.Rand, family int) {
	s.setup(`
		ip link set lo up
		ip link add va type veth peer name vb
		ip link add vc type veth peer name vd
		ip link set va up
		ip link set vb up
		ip link set vc up
		ip link set vd up
		ip link set vd group 7
	`)
	gate, net, all := "10.1.0.%d", "10.%d.%d.0/%d", "10.0.0.0/7"
	lengths := []int{8, 12, 16, 20, 24}
	if family == 4 {
		s.setup("ip addr add 10.1.0.1/24 dev va\nip addr add 10.2.0.1/24 dev vc\nip addr add 10.3.0.1/24 dev vd\n" +
			"sysctl -qw net.ipv4.conf.all.forwarding=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.va.rp_filter=0 net.ipv4.conf.vc.rp_filter=0 net.ipv4.conf.vd.rp_filter=0")
	} else {
		gate, net, all = "fd01::%d", "fd%02d:%d::/%d", "fd00::/8"
		lengths = []int{8, 16, 24, 32, 48}
		s.setup("sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0\n" +
			"ip addr add fd01::1/64 dev va nodad\nip addr add fd02::1/64 dev vc nodad\nip addr add fd03::1/64 dev vd nodad")
	}
	ip := fmt.Sprintf("-ip -%d ", family)
	devs := []string{"va", "vc", "vd"}
	for range 25 {
		n := lengths[r.IntN(len(lengths))]
		dst := fmt.Sprintf(net, 1+r.IntN(9), r.IntN(3), n)
		if p, err := netip.ParsePrefix(dst); err == nil {
			dst = p.Masked().String()
		}
		if r.IntN(12) == 0 {
			dst = "default"
		}
		table := []string{"", " table 100", " table 101"}[r.IntN(3)]
		metric := []string{"", " metric 5", " metric 9"}[r.IntN(3)]
		switch r.IntN(8) {
		case 0:
			s.run(ip + "route add " + []string{"blackhole ", "unreachable ", "prohibit ", "throw "}[r.IntN(4)] + dst + table + metric)
		case 1:
			s.run(ip + "route add " + dst + " nexthop via " + fmt.Sprintf(gate, 2+r.IntN(5)) + " nexthop via " + fmt.Sprintf(gate, 9) + table + metric)
		case 2, 3:
			s.run(ip + "route add " + dst + " dev " + devs[r.IntN(3)] + table + metric)
		case 4:
			if family == 4 {
				s.run(ip + "route add " + dst + " tos 0x10 via " + fmt.Sprintf(gate, 2+r.IntN(5)) + table + metric)
			}
		default:
			s.run(ip + "route add " + dst + " via " + fmt.Sprintf(gate, 2+r.IntN(5)) + table + metric)
		}
	}
	for i := range 6 {
		sel := []string{"from all", "from " + all, "to " + all, "fwmark 5", "fwmark 0x1/0x3", "iif va", "iif lo", "oif vc", "not from all fwmark 5", "tos 0x10"}[r.IntN(10)]
		act := []string{"lookup 100", "lookup 101", "lookup 100 suppress_prefixlength 16", "lookup main suppress_ifgroup 7", "goto 32766", "prohibit", "unreachable", "blackhole", "nop"}[r.IntN(9)]
		if (strings.Contains(act, "prohibit") || strings.Contains(act, "black") || strings.Contains(act, "unreach")) && strings.HasSuffix(sel, "all") {
			continue
		}
		s.run(ip + fmt.Sprintf("rule add %s %s pref %d", sel, act, 100*(i+1)))
	}
}

// TestFIB: for random tables, rules and flows, FIB says what the kernel says.
func TestFIB(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	n := 0
	for seed := range rounds(6) {
		r := rand.New(rand.NewPCG(seed, 11))
		family := 4 + int(seed&1)*2
		s := newSpace(t)
		randomRouting(s, r, family)
		state := s.Read(live.All)
		c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: s.FD()})
		if err != nil {
			t.Fatal(err)
		}
		for range 300 {
			f := randomFlow(state, r, family)
			want := kernelSays(t, c, f)
			ok := false
			got := weSay(state, f)
			for _, g := range got {
				ok = ok || g == want
			}
			if n++; !ok {
				t.Errorf("seed %d %+v\nwe say %q\nkernel %q", seed, f, got, want)
				if t.Failed() {
					break
				}
			}
		}
		c.Close()
		if t.Failed() {
			t.Logf("%s\n%s", s.run(fmt.Sprintf("ip -%d rule", family)), s.run(fmt.Sprintf("ip -%d route show table all", family)))
			return
		}
	}
	t.Logf("%d flows", n)
}

func randomFlow(s *netstate.State, r *rand.Rand, family int) netstate.Flow {
	addr := func() netip.Addr {
		if family == 4 {
			return netip.AddrFrom4([4]byte{10, byte(1 + r.IntN(10)), byte(r.IntN(4)), byte(2 + r.IntN(3))})
		}
		return netip.MustParseAddr(fmt.Sprintf("fd%02d:%d::%d", 1+r.IntN(10), r.IntN(4), 2+r.IntN(3)))
	}
	f := netstate.Flow{Dst: addr(), Mark: []uint32{0, 0, 5, 1}[r.IntN(4)]}
	if family == 4 {
		f.TOS = []uint8{0, 0x10}[r.IntN(2)]
	}
	dev := func() int { l, _ := s.LinkByName([]string{"va", "vc", "vd"}[r.IntN(3)]); return l.Index }
	switch r.IntN(3) {
	case 0:
		f.IIF, f.Src = dev(), addr()
	case 1:
		f.OIF = dev()
	}
	return f
}
