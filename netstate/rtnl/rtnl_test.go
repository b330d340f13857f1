package rtnl_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
	"github.com/fathom-trace/fathom/netstate/rtnl"
)

var compare = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// pack writes numbers in the order and size they are given: uint8, uint16, uint32, uint64.
func pack(values ...any) []byte {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, binary.LittleEndian, v)
	}
	return b
}

func attrs(head []byte, pairs ...any) []byte {
	for i := 0; i < len(pairs); i += 2 {
		var d []byte
		switch v := pairs[i+1].(type) {
		case string:
			d = append([]byte(v), 0)
		case []byte:
			d = v
		default:
			d = pack(v)
		}
		head = nlattr.Append(head, uint16(pairs[i].(int)), d)
	}
	return head
}

func ifinfo(index uint32) []byte {
	return pack(uint8(0), uint8(0), uint16(1), index, uint32(0x1003), uint32(0))
}

func TestLink(t *testing.T) {
	nsid := 3
	tests := []struct {
		name string
		msg  []byte
		want netstate.Link
	}{
		{"veth", attrs(ifinfo(7), 3, "va", 4, uint32(1500), 1, []byte{2, 0, 0, 0, 0, 1}, 5, uint32(9), 37, uint32(3), 16, uint8(6), 18, attrs(nil, 1, "veth")),
			netstate.Link{Index: 7, Name: "va", Kind: "veth", MAC: "02:00:00:00:00:01", MTU: 1500, Flags: 0x1003, Oper: "up", Lower: 9, NSID: &nsid}},
		{"vlan", attrs(ifinfo(8), 3, "va.42", 18, attrs(nil, 1, "vlan", 2, attrs(nil, 1, uint16(42)))),
			netstate.Link{Index: 8, Name: "va.42", Kind: "vlan", Flags: 0x1003, VLAN: 42}},
		{"bridge", attrs(ifinfo(9), 3, "br0", 18, attrs(nil, 1, "bridge", 2, attrs(nil, 1, uint32(1500), 5, uint32(1), 7, uint8(1)))),
			netstate.Link{Index: 9, Name: "br0", Kind: "bridge", Flags: 0x1003, Bridge: &netstate.Bridge{STP: true, VLANFiltering: true, ForwardDelay: 15 * time.Second}}},
		{"port", attrs(ifinfo(10), 3, "p1", 10, uint32(9), 18, attrs(nil, 1, "veth", 4, "bridge", 5, attrs(nil, 1, uint8(1)))),
			netstate.Link{Index: 10, Name: "p1", Kind: "veth", Flags: 0x1003, Master: 9, Port: &netstate.Port{State: "listening"}}},
		{"xdp", attrs(ifinfo(11), 3, "x", 43, attrs(nil, 2, uint8(4), 5, uint32(1), 6, uint32(2))),
			netstate.Link{Index: 11, Name: "x", Flags: 0x1003, XDP: []netstate.Prog{{ID: 1, Mode: "native"}, {ID: 2, Mode: "generic"}}}},
		{"one xdp", attrs(ifinfo(11), 3, "x", 43, attrs(nil, 2, uint8(2), 4, uint32(5))),
			netstate.Link{Index: 11, Name: "x", Flags: 0x1003, XDP: []netstate.Prog{{ID: 5, Mode: "generic"}}}},
	}
	for _, tt := range tests {
		got, err := rtnl.DecodeLink(tt.msg)
		if d := cmp.Diff(tt.want, got.Link); d != "" || err != nil {
			t.Errorf("%s: %s %v", tt.name, d, err)
		}
	}
	got, err := rtnl.DecodeLink(attrs(ifinfo(1), 3, "lo", 23, pack(uint64(1), uint64(2), uint64(3))))
	if d := cmp.Diff(map[string]uint64{"rx_packets": 1, "tx_packets": 2, "rx_bytes": 3}, got.Stats); d != "" || err != nil {
		t.Error("a kernel with fewer counters:", d, err)
	}
}

func TestVLANs(t *testing.T) {
	info := func(flags, vid uint16) []byte { return pack(flags, vid) }
	msg := attrs(ifinfo(5), 26, attrs(nil, 2, info(2|4, 1), 2, info(8, 10), 2, info(16, 12)))
	index, pvid, vlans, err := rtnl.DecodeVLANs(msg)
	if index != 5 || pvid != 1 || !cmp.Equal(vlans, []uint16{1, 10, 11, 12}) || err != nil {
		t.Error(index, pvid, vlans, err)
	}
}

func TestRoute(t *testing.T) {
	ten := netip.MustParseAddr("10.0.0.1")
	head := func(bits, table, typ uint8) []byte {
		return pack(uint8(2), bits, uint8(0), uint8(0), table, uint8(3), uint8(0), typ, uint32(0))
	}
	hop := func(link uint32, weight uint8, via netip.Addr) []byte {
		a := attrs(nil, 5, via.AsSlice())
		return append(pack(uint16(8+len(a)), uint8(0), weight-1, link), a...)
	}
	tests := []struct {
		name string
		msg  []byte
		want netstate.Route
	}{
		{"default", attrs(head(0, 254, 1), 5, ten.AsSlice(), 4, uint32(2), 6, uint32(7)),
			netstate.Route{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: ten, Link: 2, Metric: 7, Proto: 3}},
		{"blackhole", attrs(head(8, 0, 6), 1, []byte{10, 0, 0, 0}, 15, uint32(1000)),
			netstate.Route{Family: 4, Table: 1000, Type: "blackhole", Dst: netip.MustParsePrefix("10.0.0.0/8"), Proto: 3}},
		{"several", attrs(head(8, 254, 1), 1, []byte{10, 0, 0, 0}, 9, append(hop(2, 1, ten), hop(3, 4, ten)...)),
			netstate.Route{Family: 4, Table: 254, Type: "unicast", Dst: netip.MustParsePrefix("10.0.0.0/8"), Proto: 3,
				Hops: []netstate.Hop{{Via: ten, Link: 2, Weight: 1}, {Via: ten, Link: 3, Weight: 4}}}},
	}
	for _, tt := range tests {
		got, ok, err := rtnl.DecodeRoute(tt.msg)
		if d := cmp.Diff(tt.want, got, compare); d != "" || !ok || err != nil {
			t.Errorf("%s: %s %v %v", tt.name, d, ok, err)
		}
	}
}

func TestRule(t *testing.T) {
	head := func(action uint8, flags uint32) []byte {
		return pack(uint8(2), uint8(24), uint8(32), uint8(0), uint8(254), uint8(0), uint8(0), action, flags)
	}
	tests := []struct {
		msg  []byte
		want string
	}{
		{attrs(head(8, 0), 1, []byte{10, 77, 2, 0}, 2, []byte{10, 77, 1, 1}), "from 10.77.1.1 to 10.77.2.0/24 prohibit"},
		{attrs(head(1, 2), 3, "va", 10, uint32(5), 16, uint32(0xffffffff)), "not from all fwmark 0x5 iif va lookup main"},
		{attrs(head(1, 0), 15, uint32(100), 14, uint32(0), 13, uint32(0xffffffff)), "from all lookup 100 suppress_prefixlength 0"},
		{attrs(head(2, 0), 4, uint32(90)), "from all goto 90"},
		{attrs(head(1, 0), 19, uint8(1), 15, uint32(0)), "from all lookup [l3mdev-table]"},
		{attrs(head(7, 0), 22, uint8(6), 24, pack(uint16(80), uint16(90))), "from all ipproto tcp dport 80-90 unreachable"},
	}
	for _, tt := range tests {
		if got, ok, err := rtnl.DecodeRule(tt.msg); got.Text != tt.want || !ok || err != nil {
			t.Errorf("%q, want %q: %v", got.Text, tt.want, err)
		}
	}
}

func tcmsg(link, handle, parent, info uint32) []byte {
	return pack(uint32(0), link, handle, parent, info)
}

func TestQdisc(t *testing.T) {
	stats := attrs(nil, 3, pack(uint32(4), uint32(400), uint32(9), uint32(0), uint32(0)))
	opt := attrs(nil, 1, append(make([]byte, 24), pack(uint32(3000), uint32(0), uint32(0))...))
	got, err := rtnl.DecodeQdisc(attrs(tcmsg(2, 0x10000, 0xffffffff, 0), 1, "tbf", 2, opt, 7, stats))
	want := netstate.Qdisc{
		Link: 2, Kind: "tbf", Handle: 0x10000, Parent: 0xffffffff, Options: map[string]string{"limit": "3000"}, Limit: 3000, Unit: "b", Drops: 9, Backlog: 400, QLen: 4,
	}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	act := attrs(nil, 1, "gact", 2, attrs(nil, 2, pack(uint32(1), uint32(0), uint32(2), uint32(1), uint32(1))), 4, stats)
	f, err := rtnl.DecodeFilter(attrs(tcmsg(2, 1, rtnl.Ingress, 7<<16), 1, "matchall", 2, attrs(nil, 2, attrs(nil, 1, act))))
	wantF := netstate.Filter{Link: 2, Parent: "ingress", Prio: 7, Kind: "matchall", Handle: 1, Acts: []string{"gact drop"}, Drops: 9}
	if d := cmp.Diff(wantF, f); d != "" || err != nil {
		t.Error(d, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(attrs(ifinfo(10), 3, "p1", 10, uint32(9), 18, attrs(nil, 1, "veth", 4, "bridge", 5, attrs(nil, 1, uint8(1)))))
	f.Add(attrs(pack(uint8(2), uint8(8), uint8(0), uint8(0), uint8(254), uint8(3), uint8(0), uint8(1), uint32(0)), 9, make([]byte, 16)))
	f.Add(attrs(tcmsg(2, 1, rtnl.Egress, 7<<16), 1, "bpf", 2, attrs(nil, 11, uint32(5))))
	f.Add(make([]byte, 200))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = rtnl.DecodeLink(b)
		if _, _, v, _ := rtnl.DecodeVLANs(b); len(v) > 4096 {
			t.Error(len(v))
		}
		_, _, _ = rtnl.DecodeAddr(b)
		_, _, _ = rtnl.DecodeRoute(b)
		_, _, _ = rtnl.DecodeRule(b)
		_, _, _ = rtnl.DecodeNeigh(b)
		_, _, _ = rtnl.DecodeFDB(b)
		_, _ = rtnl.DecodeQdisc(b)
		_, _ = rtnl.DecodeFilter(b)
		_, _ = rtnl.DecodePolicy(b)
	})
}
