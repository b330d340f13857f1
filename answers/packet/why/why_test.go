package why

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
)

const (
	up      = iffUp | iffLowerUp
	ipLo    = "127.0.0.1/8"
	address = "192.0.2.1/24"
)

// host is a namespace with lo and eth0, whose flags and address ("" for none) are given, and a second device eth1 with
// 198.51.100.1/24.
func host(flags uint32, addr string, change ...func(*netstate.State)) *netstate.State {
	local := func(p string, link int, typ string) netstate.Route {
		return netstate.Route{Family: 4, Table: 255, Type: typ, Dst: netip.MustParsePrefix(p), Link: link}
	}
	st := &netstate.State{
		NS:    netstate.Namespace{Name: "init"},
		Links: []netstate.Link{{Index: 1, Name: "lo", Flags: up}, {Index: 2, Name: "eth0", Flags: flags}, {Index: 3, Name: "eth1", Flags: up}},
		Addrs: []netstate.Addr{{Link: 1, Prefix: netip.MustParsePrefix(ipLo), Scope: 254}, {Link: 3, Prefix: netip.MustParsePrefix("198.51.100.1/24")}},
		Rules: []netstate.Rule{{Family: 4, Action: "lookup", Table: 255}, {Family: 4, Priority: 32766, Action: "lookup", Table: 254}},
		Routes: []netstate.Route{local("127.0.0.0/8", 1, "local"), local("198.51.100.1/32", 3, "local"),
			{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("198.51.100.0/24"), Link: 3}},
		Sysctls: map[string]string{"net.ipv4.conf.eth0.forwarding": "0", "net.ipv4.conf.all.rp_filter": "0"},
	}
	if addr != "" {
		p := netip.MustParsePrefix(addr)
		st.Addrs = append(st.Addrs, netstate.Addr{Link: 2, Prefix: p})
		st.Routes = append(st.Routes, local(p.Addr().String()+"/32", 2, "local"), netstate.Route{Family: 4, Table: 254, Type: "unicast", Dst: p.Masked(), Link: 2})
	}
	for _, c := range change {
		c(st)
	}
	return st
}

func set(key, value string) func(*netstate.State) {
	return func(st *netstate.State) { st.Sysctls["net.ipv4.conf."+key] = value }
}

// route adds 10.0.0.0/8 through a link.
func route(link int) func(*netstate.State) {
	return func(st *netstate.State) {
		st.Routes = append(st.Routes, netstate.Route{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("10.0.0.0/8"), Link: link})
	}
}

// say puts rows on a line: verdict, step, reason of ARP, unicast, broadcast.
func say(a *Answer) string {
	var out []string
	for _, r := range a.Rows {
		s := string(r.Verdict) + " " + r.Step
		if r.Reason != "" {
			s += " " + r.Reason
		}
		if !r.Raw {
			s += " (nobody)"
		}
		out = append(out, s)
	}
	return strings.Join(out, ", ")
}

// TestVerdicts: the three states of a device, times three kinds of frames, and what settings change in them.
func TestVerdicts(t *testing.T) {
	a := netip.MustParseAddr
	none := "not received driver (nobody), not received driver (nobody), not received driver (nobody)"
	for _, tt := range []struct {
		name  string
		st    *netstate.State
		q     Question
		state string
		want  string
	}{
		{"down", host(0, ""), Question{}, "down", none},
		{"down with an address", host(0, address), Question{}, "down", none},
		{"up without an address", host(up, ""), Question{}, "up without an address",
			"ignored arp_process, dropped ip_error IP_INADDRERRORS, delivered ip_local_deliver"},
		{"up with an address", host(up, address), Question{}, "up with 192.0.2.1/24",
			"answered arp_process, delivered ip_local_deliver, delivered ip_local_deliver"},

		{"no carrier", host(iffUp, address), Question{}, "up, no carrier", none},
		{"asked for another address", host(up, address), Question{Dst: a("192.0.2.9")}, "up with 192.0.2.1/24",
			"ignored arp_process, dropped ip_error IP_INADDRERRORS, delivered ip_local_deliver"},
		{"the other device's address, none here", host(up, ""), Question{Dst: a("198.51.100.1"), Src: a("10.9.9.9")}, "up without an address",
			"answered arp_process, delivered ip_local_deliver, delivered ip_local_deliver"},
		{"the other device's address, arp_ignore", host(up, "", set("all.arp_ignore", "1")), Question{Dst: a("198.51.100.1")}, "up without an address",
			"ignored arp_process, delivered ip_local_deliver, delivered ip_local_deliver"},
		{"rp_filter, no address", host(up, "", set("eth0.rp_filter", "1")), Question{}, "up without an address",
			"ignored arp_process, dropped ip_error IP_INADDRERRORS, dropped ip_rcv_finish_core IP_RPFILTER"},
		{"rp_filter, DHCP's source", host(up, "", set("eth0.rp_filter", "1")), Question{Src: a("0.0.0.0")}, "up without an address",
			"ignored arp_process, dropped ip_error IP_INADDRERRORS, delivered ip_local_deliver"},
		{"rp_filter, the way back elsewhere", host(up, address, route(3), set("all.rp_filter", "1")), Question{Src: a("10.1.1.1")}, "up with 192.0.2.1/24",
			"ignored arp_process, dropped ip_rcv_finish_core IP_RPFILTER, dropped ip_rcv_finish_core IP_RPFILTER"},
		{"loose rp_filter, the way back elsewhere", host(up, address, route(3), set("all.rp_filter", "2")), Question{Src: a("10.1.1.1")}, "up with 192.0.2.1/24",
			"answered arp_process, delivered ip_local_deliver, delivered ip_local_deliver"},
		{"loose rp_filter, no way back", host(up, address, set("all.rp_filter", "2")), Question{Src: a("10.1.1.1")}, "up with 192.0.2.1/24",
			"ignored arp_process, dropped ip_rcv_finish_core IP_RPFILTER, dropped ip_rcv_finish_core IP_RPFILTER"},
		{"from itself", host(up, address), Question{Src: a("198.51.100.1")}, "up with 192.0.2.1/24",
			"ignored arp_process, dropped ip_rcv_finish_core IP_LOCAL_SOURCE, dropped ip_rcv_finish_core IP_LOCAL_SOURCE"},
		{"a router without a way on", host(up, "", set("eth0.forwarding", "1")), Question{Dst: a("10.1.1.1")}, "up without an address",
			"ignored arp_process, refused ip_error, delivered ip_local_deliver"},
		{"a router", host(up, "", route(3), set("eth0.forwarding", "1")), Question{Dst: a("10.1.1.1")}, "up without an address",
			"ignored arp_process, forwarded ip_forward, delivered ip_local_deliver"},
		{"a router that answers for others", host(up, "", route(3), set("eth0.forwarding", "1"), set("eth0.proxy_arp", "1")), Question{Dst: a("10.1.1.1")}, "up without an address",
			"answered arp_process, forwarded ip_forward, delivered ip_local_deliver"},
		{"no ARP", host(up|iffNoARP, address), Question{}, "up with 192.0.2.1/24", "dropped arp_rcv, delivered ip_local_deliver, delivered ip_local_deliver"},
		{"never answers", host(up, address, set("eth0.arp_ignore", "8")), Question{}, "up with 192.0.2.1/24", "ignored arp_process, delivered ip_local_deliver, delivered ip_local_deliver"},
		{"arp_filter", host(up, address, route(3), set("eth0.arp_filter", "1")), Question{Src: a("10.1.1.1")}, "up with 192.0.2.1/24", "ignored arp_process, delivered ip_local_deliver, delivered ip_local_deliver"},
		{"loopback", host(up|iffLoopback, address), Question{}, "up with 192.0.2.1/24", "delivered loopback_xmit, delivered loopback_xmit, delivered loopback_xmit"},
		{"a bridge's port", host(up, address, func(st *netstate.State) {
			st.Links[1].Master = 9
			st.Links = append(st.Links, netstate.Link{Index: 9, Name: "br0", Kind: "bridge", Flags: up})
		}), Question{}, "up with 192.0.2.1/24", "taken br_handle_frame, taken br_handle_frame, taken br_handle_frame"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Explain(tt.st, "eth0", tt.q)
			if err != nil {
				t.Fatal(err)
			}
			if got.State != tt.state {
				t.Errorf("state %q, want %q", got.State, tt.state)
			}
			if d := cmp.Diff(tt.want, say(got)); d != "" {
				t.Error(d)
			}
			for _, r := range got.Rows {
				if r.Because == "" {
					t.Errorf("%s: no reason", r.Frame)
				}
			}
		})
	}
}

func TestErrors(t *testing.T) {
	if _, err := Explain(host(up, ""), "eth9", Question{}); err == nil || !strings.Contains(err.Error(), `no device "eth9" in network namespace init`) {
		t.Error(err)
	}
	if _, err := Explain(host(up, ""), "eth0", Question{Dst: netip.MustParseAddr("::1")}); err == nil {
		t.Error("an address of IPv6 was taken")
	}
}

func TestText(t *testing.T) {
	a, err := Explain(host(up, "", set("eth0.rp_filter", "1"), func(st *netstate.State) {
		st.Links[1].XDP = []netstate.Prog{{ID: 7, Name: "drop"}}
	}), "eth0", Question{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := a.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `eth0 in network namespace init: up without an address

ARP request for an address it has not: ignored in arp_process
    because eth0 has no address, so none that is asked for is its: the request is consumed without an answer
    try: ip addr add ADDRESS/LENGTH dev eth0

packet for an address it has not: dropped in ip_error, reason IP_INADDRERRORS, counted as Ip.InAddrErrors
    because eth0 has no address, so there is no local route that its packets could match, and net.ipv4.conf.eth0.forwarding=0: ip_rcv takes the packet, routing finds no way (EHOSTUNREACH)
    try: ip addr add ADDRESS/LENGTH dev eth0

broadcast to 255.255.255.255: dropped in ip_rcv_finish_core, reason IP_RPFILTER, counted as TcpExt.IPReversePathFilter
    because there is no route back to the sender, and net.ipv4.conf.eth0.rp_filter=1
    try: ip route add SENDER dev eth0

Packet sockets (tcpdump, DHCP clients), AF_XDP sockets and XDP programs receive all of them: they come before addresses matter.
note: an XDP program (drop, number 7) sees every frame before all this
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}
