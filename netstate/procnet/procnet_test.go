package procnet_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/procnet"
)

var comparePort = cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })
var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestCounters(t *testing.T) {
	tests := []struct {
		file, text string
		want       map[string]uint64
	}{
		{"snmp", "Ip: Forwarding InAddrErrors\nIp: 2 5\nTcp: MaxConn OutRsts\nTcp: -1 7\n", map[string]uint64{
			"Ip.Forwarding": 2, "Ip.InAddrErrors": 5, "Tcp.MaxConn": 1<<64 - 1, "Tcp.OutRsts": 7,
		}},
		{"netstat", "TcpExt: ListenOverflows ListenDrops\nTcpExt: 1 2 3\nIpExt: InNoRoutes\n", map[string]uint64{"TcpExt.ListenOverflows": 1, "TcpExt.ListenDrops": 2}},
		{"snmp6", "Ip6InDiscards  \t4\nIcmp6InMsgs 5\nUdpLite6NoPorts 6\nUdp6NoPorts 7\nbad\n", map[string]uint64{
			"Ip6.InDiscards": 4, "Icmp6.InMsgs": 5, "UdpLite6.NoPorts": 6, "Udp6.NoPorts": 7,
		}},
		{"xfrm_stat", "XfrmInNoPols  3\n", map[string]uint64{"xfrm.XfrmInNoPols": 3}},
		{"stat/rt_cache", "entries  in_hit in_martian_dst\n00000005 00000001 0000000a\n00000005 00000002 00000001\n", map[string]uint64{
			"rt_cache.in_hit": 3, "rt_cache.in_martian_dst": 11,
		}},
		{"softnet_stat", "0000000a 00000002 00000001 0 0 0 0 0 0 00000004 00000000 0\n00000001 00000001 00000000\n", map[string]uint64{
			"softnet.processed": 11, "softnet.dropped": 3, "softnet.time_squeeze": 1, "softnet.received_rps": 4, "softnet.flow_limit": 0,
		}},
		{"dev", "Inter-| Receive\n face |bytes\n  a:b: 1 2 3 4\n", map[string]uint64{
			"link.a:b.rx_bytes": 1, "link.a:b.rx_packets": 2, "link.a:b.rx_errors": 3, "link.a:b.rx_dropped": 4,
		}},
		{"sctp/snmp", "SctpCurrEstab 1\n", map[string]uint64{"Sctp.CurrEstab": 1}},
	}
	for _, tt := range tests {
		got := map[string]uint64{}
		for _, f := range procnet.Files() {
			if f.Name == tt.file {
				f.Read(got, []byte(tt.text))
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s %q: %s", tt.file, tt.text, d)
		}
	}
}

func TestGroups(t *testing.T) {
	v4 := "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n12\tvb:     1      V3\n\t\t\t\t030201EF     1 0:00000000\t\t0\n"
	want := []netstate.Group{{Link: 1, Addr: netip.MustParseAddr("224.0.0.1")}, {Link: 12, Addr: netip.MustParseAddr("239.1.2.3")}}
	if d := cmp.Diff(want, procnet.IGMP([]byte(v4)), compareAddr); d != "" {
		t.Error(d)
	}
	v6 := "1    lo              ff020000000000000000000000000001     1 0000000C 0\nx\n"
	want = []netstate.Group{{Link: 1, Addr: netip.MustParseAddr("ff02::1")}}
	if d := cmp.Diff(want, procnet.IGMP6([]byte(v6)), compareAddr); d != "" {
		t.Error(d)
	}
}

func TestSockets(t *testing.T) {
	head := "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
	tests := []struct {
		file, line string
		want       netstate.Socket
	}{
		{"tcp", "   0: 0100007F:07E8 00000000:0000 0A 00000000:00000001 00:00000000 00000000     5        0 1579 1 0 100 0 0 10 0\n", netstate.Socket{
			Proto: "tcp", Family: 4, State: "listen", Local: netip.MustParseAddrPort("127.0.0.1:2024"), Remote: netip.MustParseAddrPort("0.0.0.0:0"),
			UID: 5, Inode: 1579, RecvQ: 1,
		}},
		{"udp6", "   7: 000080FE00000000000000000100000A:0009 00000000000000000000000000000000:0000 07 00000000:00000200 00:00000000 00000000     0        0 8 2 0 3\n", netstate.Socket{
			Proto: "udp", Family: 6, Local: netip.MustParseAddrPort("[fe80::a00:1]:9"), Remote: netip.MustParseAddrPort("[::]:0"), Inode: 8, RecvQ: 512, RcvMem: 512, Drops: 3,
		}},
		{"raw", "   1: 00000000:0001 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 9 2 0 0\n", netstate.Socket{
			Proto: "raw", Family: 4, Number: 1, Local: netip.MustParseAddrPort("0.0.0.0:0"), Remote: netip.MustParseAddrPort("0.0.0.0:0"), Inode: 9,
		}},
	}
	for _, tt := range tests {
		if d := cmp.Diff([]netstate.Socket{tt.want}, procnet.Sockets(tt.file, []byte(head+tt.line)), comparePort); d != "" {
			t.Errorf("%s: %s", tt.file, d)
		}
	}
	packet := "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n0000000012345678 3      3    0003   2     1 640    7      99\n"
	want := []netstate.Socket{{Proto: "packet", Number: 3, Dev: 2, RcvMem: 640, UID: 7, Inode: 99}}
	if d := cmp.Diff(want, procnet.Packets([]byte(packet)), comparePort); d != "" {
		t.Error(d)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add([]byte("Ip: A B\nIp: 1 2\n"))
	f.Add([]byte("1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n"))
	f.Add([]byte("   0: 0100007F:07E8 00000000:0000 0A 00000000:00000001 00:00000000 00000000     5        0 1579 1 0 100 0 0 10 0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		into := map[string]uint64{}
		for _, file := range procnet.Files() {
			file.Read(into, text)
		}
		if n := strings.Count(string(text), "\n") + 1; len(into) > 20*n+len(text) {
			t.Errorf("%d counters out of %d lines", len(into), n)
		}
		procnet.IGMP(text)
		procnet.IGMP6(text)
		procnet.Packets(text)
		procnet.Sockets("tcp", text)
		procnet.Sockets("raw6", text)
	})
}
