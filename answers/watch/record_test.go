package watch

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/changes"
)

// told makes a record as a Watcher does, without a kernel.
func told(c *changes.Change, who *Who, stack string) *Record {
	r := &Record{Type: "change", Time: c.Time, Kind: c.Kind, Act: c.Act, Dev: c.Dev, NetNS: c.NS.Name, Inode: c.NS.Inode}
	r.describe(c, func(i int) string { return map[int]string{0: "", 3: "eth0", 4: "br0"}[i] }, func(int) (netstate.Namespace, bool) { return netstate.Namespace{Name: "red"}, true })
	why := explain(strings.Fields(stack))
	r.Who, r.How, r.Request = who, why.how, why.request
	if why.via != why.how {
		r.Via = why.via
	}
	r.because(why, c.Silent)
	return r
}

func TestRecord(t *testing.T) {
	at := time.Date(2026, 11, 21, 11, 5, 44, 294e6, time.UTC)
	uid := uint32(0)
	ns := netstate.Namespace{Inode: 7, Name: "blue"}
	nm := &Who{PID: 300, Comm: "NetworkManager", UID: &uid, User: "root", Cgroup: "/system.slice/NetworkManager.service", Unit: "NetworkManager.service", Parents: []Proc{{1, "systemd"}}, Evidence: Seen}
	ip := &Who{PID: 512, Comm: "ip", UID: &uid, Cgroup: "/x", Parents: []Proc{{500, "dhclient-script"}, {400, "dhclient"}, {1, "systemd"}}, Evidence: Seen}
	lease := &changes.AddrInfo{Addr: netstate.Addr{Link: 3, Prefix: netip.MustParsePrefix("192.0.2.9/24"), Flags: 0x80}}
	renewed := &changes.AddrInfo{Addr: netstate.Addr{Link: 3, Prefix: netip.MustParsePrefix("192.0.2.9/24"), Valid: time.Hour}}
	link := func(flags uint32, oper string, master int) *changes.Object {
		return &changes.Object{Link: &changes.LinkInfo{Link: netstate.Link{Index: 3, Name: "eth0", MTU: 1500, Flags: flags, Oper: oper, Master: master}}}
	}
	seven := 7
	moved := link(0x1003, "up", 0)
	moved.Link.MovedTo = &seven
	var got strings.Builder
	for _, tt := range []struct {
		c     *changes.Change
		who   *Who
		stack string
	}{
		{&changes.Change{Kind: changes.Addr, Act: changes.Removed, Old: &changes.Object{Addr: lease}}, nm, "__inet_del_ifa inet_rtm_deladdr netlink_rcv_skb"},
		{&changes.Change{Kind: changes.Addr, Act: changes.Changed, Old: &changes.Object{Addr: lease}, New: &changes.Object{Addr: renewed}}, ip, "inet_rtm_newaddr netlink_rcv_skb"},
		{&changes.Change{Kind: changes.Link, Act: changes.Changed, Old: link(0x1003, "up", 0), New: link(0x1002, "down", 4)}, ip, "netif_change_flags do_setlink rtnl_newlink netlink_rcv_skb"},
		{&changes.Change{Kind: changes.Link, Act: changes.Removed, Old: moved}, ip, "__dev_change_net_namespace do_setlink netlink_rcv_skb"},
		{&changes.Change{Kind: changes.Route, Act: changes.Added, New: &changes.Object{Route: &netstate.Route{Family: 4, Table: 100, Type: "unicast", Dst: netip.MustParsePrefix("0.0.0.0/0"),
			Hops: []netstate.Hop{{Via: netip.MustParseAddr("192.0.2.1"), Link: 3}, {Link: 4}}, Metric: 5}}}, nm, "inet_rtm_newroute netlink_rcv_skb"},
		{&changes.Change{Kind: changes.Neigh, Act: changes.Changed, Old: &changes.Object{Neigh: &netstate.Neigh{Link: 3, Addr: netip.MustParseAddr("192.0.2.1"), MAC: "02:00:00:00:00:01", State: "stale"}},
			New: &changes.Object{Neigh: &netstate.Neigh{Link: 3, Addr: netip.MustParseAddr("192.0.2.1"), MAC: "02:00:00:00:00:02", State: "reachable"}}}, nil, "arp_process handle_softirqs"},
		{&changes.Change{Kind: changes.Sysctl, Act: changes.Changed, Old: &changes.Object{Sysctl: &changes.Setting{Name: "net.ipv4.tcp_rmem", Value: "1\t2\t3"}}, New: &changes.Object{Sysctl: &changes.Setting{Name: "net.ipv4.tcp_rmem", Value: "4\t5\t6"}}, Silent: changes.Polled}, nil, ""},
	} {
		tt.c.Time, tt.c.NS = at, ns
		if tt.c.Kind != changes.Sysctl {
			tt.c.Dev = "eth0"
		}
		if err := told(tt.c, tt.who, tt.stack).WriteText(&got, false); err != nil {
			t.Fatal(err)
		}
	}
	want := `11:05:44.294 addr removed 192.0.2.9/24 from eth0 [netns blue]
    because NetworkManager[300] (root, NetworkManager.service, run by systemd[1]) asked for it by netlink RTM_DELADDR
11:05:44.294 addr changed 192.0.2.9/24 on eth0 [netns blue], no longer permanent, valid for 1h0m0s
    because ip[512] (uid 0, cgroup /x, run by dhclient-script[500] < dhclient[400]) asked for it by netlink RTM_NEWADDR
11:05:44.294 link changed eth0 [netns blue], no longer up, state up → down, master none → br0
    because ip[512] (uid 0, cgroup /x, run by dhclient-script[500] < dhclient[400]) asked for it by netlink RTM_NEWLINK
11:05:44.294 link removed eth0 [netns blue], moved to network namespace red
    because the link was moved to another network namespace: ip[512] (uid 0, cgroup /x, run by dhclient-script[500] < dhclient[400]) asked for that by netlink
11:05:44.294 route added default nexthop via 192.0.2.1 dev eth0 nexthop dev br0 table 100 metric 5 [netns blue]
    because NetworkManager[300] (root, NetworkManager.service, run by systemd[1]) asked for it by netlink RTM_NEWROUTE
11:05:44.294 neigh changed 192.0.2.1 dev eth0 02:00:00:00:00:02 [netns blue], stale → reachable, mac 02:00:00:00:00:01 → 02:00:00:00:00:02
    because the neighbour was heard of: an ARP or ND packet came in
11:05:44.294 sysctl changed net.ipv4.tcp_rmem = 4 5 6 [netns blue], was 1 2 3
    because nobody was seen: found by reading again
`
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}

// TestJSON: the fields that docs/watch.md promises.
func TestJSON(t *testing.T) {
	uid := uint32(0)
	c := &changes.Change{Kind: changes.Addr, Act: changes.Removed, Time: time.Date(2026, 11, 21, 11, 5, 44, 0, time.UTC), NS: netstate.Namespace{Inode: 7, Name: "blue"}, Dev: "eth0",
		Old: &changes.Object{Addr: &changes.AddrInfo{Addr: netstate.Addr{Link: 3, Prefix: netip.MustParsePrefix("2001:db8::9/64"), Flags: 0x80, Valid: time.Second}, Preferred: -1}}}
	r := told(c, &Who{PID: 5, Comm: "ip", UID: &uid, User: "root", Evidence: Seen}, "addrconf_ifdown __dev_notify_flags rtnl_newlink netlink_rcv_skb")
	r.Stack = []string{"addrconf_ifdown+0x1"}
	var got strings.Builder
	if err := r.WriteJSON(&got); err != nil {
		t.Fatal(err)
	}
	want := `{"type":"change","time":"2026-11-21T11:05:44Z","kind":"addr","act":"removed","netns":"blue","netns_inode":7,"dev":"eth0","what":"2001:db8::9/64 from eth0",` +
		`"old":{"link":3,"prefix":"2001:db8::9/64","flags":128,"valid_ns":1000000000,"preferred_ns":-1},"how":"link down","via":"netlink","request":"RTM_NEWLINK",` +
		`"who":{"pid":5,"comm":"ip","uid":0,"user":"root","evidence":"seen"},"because":"the link was set down, and the kernel ended IPv6 on it (addrconf_ifdown): ip[5] (root) asked for that by netlink RTM_NEWLINK","stack":["addrconf_ifdown+0x1"]}` + "\n"
	if d := cmp.Diff(want, got.String()); d != "" {
		t.Error(d)
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"net.ipv4.*", "net.ipv4.conf.eth0.rp_filter", true}, {"net.ipv4.*", "net.ipv6.conf.all.forwarding", false},
		{"*rp_filter", "net.ipv4.conf.eth0.rp_filter", true}, {"kernel.panic", "kernel.panic_on_oops", false},
		{"net.ipv4.conf.*.rp_filter", "net.ipv4.conf.eth0/100.rp_filter", true}, {"[", "x", false},
	} {
		if got := matches(tt.pattern, tt.name); got != tt.want {
			t.Errorf("%s %s: %v", tt.pattern, tt.name, got)
		}
	}
}

// TestDecodeSighting: what a program sent, cut short, and with lengths that are none.
func TestDecodeSighting(t *testing.T) {
	b := make([]byte, recSize)
	b[recKind], b[recPidTgid], b[recPidTgid+4], b[recUIDGID], b[recNetNS] = byte(recMessage), 8, 7, 3, 9
	copy(b[recComm:], "ip\x00junk")
	b[recParents] = 2
	copy(b[recParents+8:], "bash")
	b[recMsgLen], b[recMsg] = 2, 'x'
	b[recStackLen], b[recStack] = 16, 1
	got, ok := decodeSighting(b)
	want := sighting{kind: recMessage, pid: 7, tid: 8, uid: 3, comm: "ip", netns: 9, msg: []byte("x\x00"), above: []Proc{{2, "bash"}}, stack: []uint64{1}}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(sighting{})); d != "" || !ok {
		t.Error(d, ok)
	}
	if _, ok := decodeSighting(b[:recSize-1]); ok {
		t.Error("a short record was taken")
	}
	for i := range b {
		b[i] = 0xff
	}
	if got, ok := decodeSighting(b); !ok || len(got.msg) != 0 || len(got.stack) != 0 {
		t.Errorf("%+v %v", got, ok)
	}
}
