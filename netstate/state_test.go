package netstate_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
)

func TestDiff(t *testing.T) {
	a := &netstate.State{Counters: map[string]uint64{"Udp.NoPorts": 1, "Tcp.CurrEstab": 5, "gone": 3, "same": 2}}
	b := &netstate.State{Counters: map[string]uint64{"Udp.NoPorts": 4, "Tcp.CurrEstab": 3, "new": 7, "same": 2}}
	if d := cmp.Diff(map[string]int64{"Udp.NoPorts": 3, "Tcp.CurrEstab": -2, "new": 7}, netstate.Diff(a, b)); d != "" {
		t.Error(d)
	}
}

func TestDevSysctl(t *testing.T) {
	tests := []struct {
		name     string
		family   int
		all, dev string
		want     string
	}{
		{"rp_filter", 4, "1", "2", "2 net.ipv4.conf.a/1.rp_filter"},
		{"rp_filter", 4, "2", "1", "2 net.ipv4.conf.all.rp_filter"},
		{"route_localnet", 4, "0", "0", "0 net.ipv4.conf.a/1.route_localnet"},
		{"accept_local", 4, "1", "0", "1 net.ipv4.conf.all.accept_local"},
		{"forwarding", 4, "1", "0", "0 net.ipv4.conf.a/1.forwarding"},
		{"bc_forwarding", 4, "0", "1", "0 net.ipv4.conf.all.bc_forwarding"},
		{"forwarding", 6, "0", "1", "0 net.ipv6.conf.all.forwarding"},
		{"disable_ipv6", 6, "0", "1", "1 net.ipv6.conf.a/1.disable_ipv6"},
	}
	for _, tt := range tests {
		prefix := fmt.Sprintf("net.ipv%d.conf.", tt.family)
		s := &netstate.State{Sysctls: map[string]string{prefix + "all." + tt.name: tt.all, prefix + "a/1." + tt.name: tt.dev}}
		v, key, ok := s.DevSysctl(tt.family, "a.1", tt.name)
		if got := fmt.Sprint(v, " ", key); got != tt.want || !ok {
			t.Errorf("%+v: %s %v", tt, got, ok)
		}
	}
	if _, _, ok := new(netstate.State).DevSysctl(4, "x", "rp_filter"); ok {
		t.Error("known without having been read")
	}
}

func socket(proto, local, remote, state string, dev, family int) netstate.Socket {
	return netstate.Socket{Proto: proto, Local: netip.MustParseAddrPort(local), Remote: netip.MustParseAddrPort(remote), State: state, Dev: dev, Family: family}
}

func TestSocketsFor(t *testing.T) {
	local, remote := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:5")
	md5 := socket("tcp", "0.0.0.0:80", "0.0.0.0:0", "listen", 0, 4)
	md5.MD5 = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	six := socket("tcp", "[::]:80", "[::]:0", "listen", 0, 6)
	only := six
	only.V6Only = true
	tests := []struct {
		name    string
		sockets []netstate.Socket
		want    []string
	}{
		{"nobody", nil, nil},
		{"port", []netstate.Socket{socket("tcp", "0.0.0.0:81", "0.0.0.0:0", "listen", 0, 4)}, []string{"false port"}},
		{"address", []netstate.Socket{socket("tcp", "10.0.0.9:80", "0.0.0.0:0", "listen", 0, 4)}, []string{"false address"}},
		{"device", []netstate.Socket{socket("tcp", "0.0.0.0:80", "0.0.0.0:0", "listen", 3, 4)}, []string{"false device"}},
		{"exact before any", []netstate.Socket{socket("tcp", "0.0.0.0:80", "0.0.0.0:0", "listen", 2, 4), socket("tcp", "10.0.0.1:80", "0.0.0.0:0", "listen", 0, 4)}, []string{"true ", "false better"}},
		{"connection before listener", []netstate.Socket{socket("tcp", "10.0.0.1:80", "0.0.0.0:0", "listen", 0, 4), socket("tcp", "10.0.0.1:80", "10.0.0.2:5", "established", 0, 4)}, []string{"true ", "false better"}},
		{"connected elsewhere", []netstate.Socket{socket("tcp", "10.0.0.1:80", "10.0.0.3:5", "established", 0, 4)}, []string{"false connected"}},
		{"closed", []netstate.Socket{socket("tcp", "0.0.0.0:80", "0.0.0.0:0", "close", 0, 4)}, []string{"false state"}},
		{"both families", []netstate.Socket{six}, []string{"true "}},
		{"IPv6 only", []netstate.Socket{only}, []string{"false family"}},
		{"unsigned", []netstate.Socket{md5}, []string{"true md5"}},
	}
	for _, tt := range tests {
		s := &netstate.State{Sockets: tt.sockets}
		var got []string
		for _, c := range s.SocketsFor("tcp", local, remote, 2) {
			got = append(got, fmt.Sprint(c.Chosen, " ", c.Why))
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestFIB: what the test against the kernel cannot meet by chance: rules that loop, VRFs, no rules at all.
func TestFIB(t *testing.T) {
	ten := netip.MustParseAddr("10.0.0.1")
	s := &netstate.State{
		Links: []netstate.Link{{Index: 1, Name: "lo"}, {Index: 2, Name: "a", Master: 3}, {Index: 3, Name: "red", Kind: "vrf", Table: 10}},
		Rules: []netstate.Rule{{Family: 4, Priority: 5, Action: "nop"}, {Family: 4, Priority: 6, Action: "goto", Goto: 5}},
		Routes: []netstate.Route{
			{Family: 4, Table: 10, Type: "unicast", Dst: netip.MustParsePrefix("10.0.0.0/8"), Link: 2},
			{Family: 4, Table: 254, Type: "prohibit", Dst: netip.MustParsePrefix("10.0.0.0/8")},
		},
	}
	if d := s.FIB(netstate.Flow{Dst: ten}); d.Errno != "ENETUNREACH" {
		t.Errorf("rules that loop: %+v", d)
	}
	s.Rules = nil
	if d := s.FIB(netstate.Flow{Dst: ten}); d.Errno != "EACCES" {
		t.Errorf("no rules: %+v", d)
	}
	s.Rules = []netstate.Rule{{Family: 4, Action: "lookup", L3MDev: true}, {Family: 4, Action: "lookup", Table: 254}}
	if d := s.FIB(netstate.Flow{Dst: ten, IIF: 2}); d.Link != 2 || !d.OK() {
		t.Errorf("in a VRF: %+v", d)
	}
	if d := s.FIB(netstate.Flow{Dst: netip.MustParseAddr("239.1.1.1"), IIF: 2}); d.Type != "multicast" {
		t.Errorf("multicast: %+v", d)
	}
}
