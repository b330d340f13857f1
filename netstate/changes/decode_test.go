package changes

import (
	"encoding/binary"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// attr is an attribute of a message under construction.
type attr struct {
	typ  uint16
	data any // string, uint32, []byte
}

// build makes a netlink message: header, fixed bytes, attributes.
func build(typ, flags uint16, fixed []byte, as ...attr) []byte {
	b := append(make([]byte, headerLen), fixed...)
	for _, a := range as {
		switch d := a.data.(type) {
		case string:
			b = nlattr.Append(b, a.typ, append([]byte(d), 0))
		case uint32:
			b = nlattr.AppendU32(b, a.typ, d)
		case []byte:
			b = nlattr.Append(b, a.typ, d)
		}
	}
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	binary.NativeEndian.PutUint16(b[4:], typ)
	binary.NativeEndian.PutUint16(b[6:], flags)
	binary.NativeEndian.PutUint32(b[12:], 4242)
	return b
}

// fixed makes a message's fixed part, whose numbers are of one, two or four bytes.
func fixed(ns ...any) (b []byte) {
	for _, n := range ns {
		switch n := n.(type) {
		case int:
			b = append(b, byte(n))
		case uint16:
			b = binary.NativeEndian.AppendUint16(b, n)
		case uint32:
			b = binary.NativeEndian.AppendUint32(b, n)
		}
	}
	return b
}

func cacheinfo(preferred, valid uint32) []byte {
	return fixed(preferred, valid, uint32(0), uint32(0))
}

// addrMessage is RTM_NEWADDR or RTM_DELADDR of 192.0.2.9/24 on link 3.
func addrMessage(typ uint16, preferred, valid uint32) []byte {
	return build(typ, 0, fixed(unix.AF_INET, 24, 0x80, 0, uint32(3)), attr{unix.IFA_LOCAL, []byte{192, 0, 2, 9}}, attr{unix.IFA_ADDRESS, []byte{192, 0, 2, 9}},
		attr{unix.IFA_FLAGS, uint32(0x80)}, attr{unix.IFA_CACHEINFO, cacheinfo(preferred, valid)})
}

func linkMessage(typ uint16, name string, flags uint32, more ...attr) []byte {
	return build(typ, 0, fixed(unix.AF_UNSPEC, 0, uint16(1), uint32(3), flags, uint32(0)), append([]attr{{unix.IFLA_IFNAME, name}, {unix.IFLA_MTU, uint32(1500)}, {unix.IFLA_OPERSTATE, []byte{6}}}, more...)...)
}

func routeMessage(typ, flags uint16, via byte) []byte {
	return build(typ, flags, fixed(unix.AF_INET, 24, 0, 0, unix.RT_TABLE_MAIN, 3, 0, unix.RTN_UNICAST, uint32(0)),
		attr{unix.RTA_DST, []byte{10, 1, 2, 0}}, attr{unix.RTA_GATEWAY, []byte{192, 0, 2, via}}, attr{unix.RTA_OIF, uint32(3)}, attr{unix.RTA_TABLE, uint32(254)})
}

func nsidMessage(typ uint16, id uint32) []byte {
	return build(typ, 0, fixed(0, 0, 0, 0), attr{netnsaNSID, id})
}

var seeds = map[string][]byte{
	"addr":         addrMessage(unix.RTM_NEWADDR, forever, forever),
	"lease":        addrMessage(unix.RTM_NEWADDR, 0, 3600),
	"addr removed": addrMessage(unix.RTM_DELADDR, forever, forever),
	"link":         linkMessage(unix.RTM_NEWLINK, "eth0", 0x11043, attr{iflaCarrier, []byte{1}}),
	"link moved":   linkMessage(unix.RTM_DELLINK, "eth0", 0x1002, attr{iflaNewNSID, uint32(7)}),
	"route":        routeMessage(unix.RTM_NEWROUTE, unix.NLM_F_REPLACE, 1),
	"neigh":        build(unix.RTM_NEWNEIGH, 0, fixed(unix.AF_INET, 0, uint16(0), uint32(3), uint16(2), 0, 1), attr{unix.NDA_DST, []byte{192, 0, 2, 1}}, attr{unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1}}),
	"rule":         build(unix.RTM_NEWRULE, 0, fixed(unix.AF_INET, 0, 24, 0, unix.RT_TABLE_MAIN, 0, 0, 1, uint32(0)), attr{2, []byte{10, 0, 0, 0}}, attr{6, uint32(100)}),
	"namespace":    nsidMessage(unix.RTM_DELNSID, 5),
	"bridge port":  build(unix.RTM_NEWLINK, 0, fixed(unix.AF_BRIDGE, 0, uint16(1), uint32(3), uint32(0), uint32(0)), attr{unix.IFLA_IFNAME, "p"}),
	"fdb":          build(unix.RTM_NEWNEIGH, 0, fixed(unix.AF_BRIDGE, 0, uint16(0), uint32(3), uint16(2), 0, 1), attr{unix.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 1}}),
	"cached route": build(unix.RTM_NEWROUTE, 0, fixed(unix.AF_INET, 24, 0, 0, 254, 3, 0, 1, uint32(unix.RTM_F_CLONED)), attr{unix.RTA_DST, []byte{10, 1, 2, 0}}),
	"other":        build(unix.NLMSG_DONE, 0, fixed(uint32(0))),
}

func TestDecode(t *testing.T) {
	addr := netstate.Addr{Link: 3, Prefix: netip.MustParsePrefix("192.0.2.9/24"), Flags: 0x80}
	lease := addr
	lease.Valid = time.Hour
	seven := 7
	want := map[string]*event{
		"addr":         {kind: Addr, index: 3, obj: &Object{Addr: &AddrInfo{Addr: addr}}},
		"lease":        {kind: Addr, index: 3, obj: &Object{Addr: &AddrInfo{Addr: lease, Preferred: -1}}},
		"addr removed": {kind: Addr, removed: true, index: 3, obj: &Object{Addr: &AddrInfo{Addr: addr}}},
		"link":         {kind: Link, index: 3, obj: &Object{Link: &LinkInfo{Link: netstate.Link{Index: 3, Name: "eth0", MTU: 1500, Flags: 0x11043, Oper: "up"}, Carrier: true}}},
		"link moved":   {kind: Link, removed: true, index: 3, obj: &Object{Link: &LinkInfo{Link: netstate.Link{Index: 3, Name: "eth0", MTU: 1500, Flags: 0x1002, Oper: "up"}, MovedTo: &seven}}},
		"route": {kind: Route, replace: true, index: 3, obj: &Object{Route: &netstate.Route{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("10.1.2.0/24"),
			Via: netip.MustParseAddr("192.0.2.1"), Link: 3, Proto: 3}}},
		"neigh": {kind: Neigh, index: 3, obj: &Object{Neigh: &netstate.Neigh{Link: 3, Addr: netip.MustParseAddr("192.0.2.1"), MAC: "02:00:00:00:00:01", State: "reachable"}}},
		"rule": {kind: Rule, obj: &Object{Rule: &netstate.Rule{Family: 4, Priority: 100, From: netip.MustParsePrefix("10.0.0.0/24"), Action: "lookup", Table: 254,
			Text: "from 10.0.0.0/24 lookup main"}}},
		"namespace": {kind: NetNS, removed: true, nsid: 5},
	}
	for name, b := range seeds {
		ms, err := split(b)
		if err != nil || len(ms) != 1 || ms[0].Port != 4242 {
			t.Fatalf("%s: %v %+v", name, err, ms)
		}
		got, err := decode(ms[0])
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(want[name], got, cmp.AllowUnexported(event{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestSplit(t *testing.T) {
	two := append(append([]byte(nil), seeds["addr"]...), seeds["namespace"]...)
	if ms, err := split(two); err != nil || len(ms) != 2 || ms[1].Type != unix.RTM_DELNSID {
		t.Errorf("two messages: %v %+v", err, ms)
	}
	for _, cut := range []int{1, headerLen - 1, headerLen + 1, len(seeds["addr"]) - 1} {
		if _, err := split(seeds["addr"][:cut]); err == nil {
			t.Errorf("cut to %d bytes: no error", cut)
		}
	}
	bad := append([]byte(nil), seeds["addr"]...)
	binary.NativeEndian.PutUint32(bad, 3)
	if _, err := split(bad); err == nil {
		t.Error("a length of 3: no error")
	}
}

func FuzzDecode(f *testing.F) {
	for _, b := range seeds {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		ms, _ := split(b)
		tab := newTable(netstate.Namespace{}, own)
		for _, m := range ms {
			if ev, err := decode(m); err == nil && ev != nil && ev.kind != NetNS {
				tab.apply(ev)
			}
		}
	})
}

func TestModuleEvent(t *testing.T) {
	type result struct {
		Module string
		Act    Act
		OK     bool
	}
	for in, want := range map[string]result{
		"add@/module/veth\x00ACTION=add\x00DEVPATH=/module/veth\x00SUBSYSTEM=module\x00SEQNUM=9\x00": {"veth", Added, true},
		"remove@/module/veth\x00ACTION=remove\x00SUBSYSTEM=module\x00":                               {"veth", Removed, true},
		"change@/module/veth\x00SUBSYSTEM=module\x00":                                                {},
		"add@/module/veth/holders\x00SUBSYSTEM=module\x00":                                           {},
		"add@/devices/virtual/net/v\x00SUBSYSTEM=net\x00":                                            {},
		"add@/module/veth\x00SUBSYSTEM=modules\x00":                                                  {},
		"libudev\x00\xfe\xed\xca\xfe":                                                                {},
		"":                                                                                           {},
	} {
		m, a, ok := moduleEvent([]byte(in))
		if d := cmp.Diff(want, result{m, a, ok}); d != "" {
			t.Errorf("%q: %s", in, d)
		}
	}
}

func FuzzModuleEvent(f *testing.F) {
	f.Add([]byte("add@/module/veth\x00SUBSYSTEM=module\x00"))
	f.Fuzz(func(t *testing.T, b []byte) { moduleEvent(b) })
}

func TestCgroupOf(t *testing.T) {
	for in, want := range map[string]string{
		"0::/system.slice/NetworkManager.service\n":             "/system.slice/NetworkManager.service",
		"12:cpu:/x\n1:name=systemd:/user.slice/s.scope\n0::/\n": "/user.slice/s.scope",
		"1:name=systemd:/a\n0::/b:c\n":                          "/b:c",
		"broken\n":                                              "",
	} {
		if got := cgroupOf(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSysctlNames(t *testing.T) {
	for path, want := range map[string][2]string{
		"/proc/sys/net/ipv4/conf/eth0/rp_filter":     {"net.ipv4.conf.eth0.rp_filter", "eth0"},
		"/proc/sys/net/ipv4/conf/eth0.100/rp_filter": {"net.ipv4.conf.eth0/100.rp_filter", "eth0.100"},
		"/proc/sys/net/ipv6/conf/all/disable_ipv6":   {"net.ipv6.conf.all.disable_ipv6", ""},
		"/proc/sys/kernel/panic":                     {"kernel.panic", ""},
		"/proc/1/oom_score_adj":                      {"", ""},
	} {
		name, _ := sysctlName(path)
		if got := [2]string{name, deviceOf(name)}; got != want {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
}

func TestUserName(t *testing.T) {
	if b, err := os.ReadFile("/etc/passwd"); err != nil || len(b) == 0 {
		t.Skip("no /etc/passwd")
	}
	if got := UserName(0); got != "root" {
		t.Errorf("user 0: %q", got)
	}
	if got := UserName(4000000000); got != "" {
		t.Errorf("user 4000000000: %q", got)
	}
}
