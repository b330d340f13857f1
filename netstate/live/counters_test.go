package live_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// TestCounters: datagrams to a port where nobody listens are counted, by names that others use.
func TestCounters(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSpace(t)
	h := s.handle()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	try(t, "lo", err)
	before := s.Read(live.Counters)
	for _, name := range []string{
		"Ip.InAddrErrors", "TcpExt.ListenOverflows", "IpExt.InNoRoutes", "Udp.RcvbufErrors", "Icmp.OutDestUnreachs", "rt_cache.in_martian_dst",
		"softnet.dropped", "link.lo.rx_dropped", "iplink.lo.rx_nohandler",
	} {
		if _, ok := before.Counters[name]; !ok {
			t.Errorf("no %s", name)
		}
	}
	from, to := netip.MustParseAddrPort("127.0.0.1:5"), netip.MustParseAddrPort("127.0.0.2:6")
	const n = 7
	for range n {
		s.send([][]byte{datagram(from, to)})
	}
	var d map[string]int64
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if d = netstate.Diff(before, s.Read(live.Counters)); d["Udp.NoPorts"] >= n || time.Now().After(deadline) {
			break
		}
	}
	if d["Udp.NoPorts"] != n || d["link.lo.rx_packets"] < n || d["iplink.lo.rx_packets"] != d["link.lo.rx_packets"] || d["Ip.DefaultTTL"] != 0 {
		t.Errorf("%v", d)
	}
	if d := netstate.Diff(before, before); len(d) != 0 {
		t.Error(d)
	}
}

// TestCountersOfTools: the same numbers as iproute2 prints.
func TestCountersOfTools(t *testing.T) {
	s := newSpace(t)
	s.setup(network)
	s.send([][]byte{datagram(netip.MustParseAddrPort("127.0.0.1:5"), netip.MustParseAddrPort("127.0.0.2:6"))})
	got := s.Read(live.Counters)
	n := 0
	objects := s.objects("ip -s -s -j link")
	then := s.Read(live.Counters) // a solicitation of IPv6 may have been sent meanwhile
	for _, o := range objects {
		stats, _ := o["stats64"].(map[string]any)
		for _, side := range []string{"rx", "tx"} {
			for name, v := range stats[side].(map[string]any) {
				if name == "carrier_changes" {
					continue
				}
				key := fmt.Sprintf("iplink.%s.%s_%s", o["ifname"], side, name)
				before, ok := got.Counters[key]
				after := then.Counters[key]
				if says, _ := v.(float64); !ok || float64(before) > says || says > float64(after) {
					t.Errorf("%s: %d, then %d; ip says %v", key, before, after, v)
				}
				n++
			}
		}
	}
	drops := map[string]float64{}
	for _, o := range s.objects("tc -s -j qdisc show") {
		if d, ok := o["drops"].(float64); ok {
			drops[fmt.Sprintf("tc.%s.drops", o["dev"])] += d
		}
	}
	for key, v := range drops {
		if x, ok := got.Counters[key]; !ok || float64(x) != v {
			t.Errorf("%s: %d, tc says %v", key, x, v)
		}
	}
	if n == 0 || len(drops) == 0 {
		t.Error("nothing compared")
	}
}

// TestSysctls: the settings are those of sysctl(8).
func TestSysctls(t *testing.T) {
	s := newSpace(t)
	s.setup("ip link add va.1 type veth peer name vb\nsysctl -qw net/ipv4/conf/va.1/rp_filter=2 net.ipv4.conf.all.rp_filter=1")
	got := s.Read(live.Sysctls | live.Links)
	n := 0
	for line := range strings.Lines(string(s.run("-sysctl -a -r ^net"))) {
		key, v, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " = ")
		if !ok || strings.Contains(key, "random") || strings.Contains(got.Sysctls[key], "\n") {
			continue
		}
		if n++; got.Sysctls[key] != v {
			t.Errorf("%s: %q, sysctl says %q", key, got.Sysctls[key], v)
		}
	}
	if n < 100 {
		t.Error(n)
	}
	deciding := s.Read(live.Deciding).Sysctls
	for k, v := range deciding {
		if got.Sysctls[k] != v {
			t.Errorf("%s: %q of all, %q of those that decide", k, got.Sysctls[k], v)
		}
	}
	for _, k := range []string{"net.ipv4.ip_forward", "net.ipv4.conf.va/1.rp_filter", "net.ipv6.conf.all.forwarding", "net.ipv4.neigh.lo.unres_qlen_bytes"} {
		if _, ok := deciding[k]; !ok {
			t.Errorf("%s is not among those that decide", k)
		}
	}
	if v, key, ok := got.DevSysctl(4, "va.1", "rp_filter"); v != 2 || key != "net.ipv4.conf.va/1.rp_filter" || !ok {
		t.Error(v, key, ok)
	}
	if v, key, _ := got.DevSysctl(4, "vb", "rp_filter"); v != 1 || key != "net.ipv4.conf.all.rp_filter" {
		t.Error(v, key)
	}
}

// TestKept: a state is the same after it was written and read.
func TestKept(t *testing.T) {
	s := newSpace(t)
	s.setup(network)
	a := s.Read(live.All)
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var back netstate.State
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil || string(again) != string(b) {
		t.Error(err, "not the same")
	}
	f := netstate.Flow{Src: netip.MustParseAddr("10.1.0.1"), Dst: netip.MustParseAddr("10.5.1.1"), Proto: 6, DPort: 85}
	if d := back.FIB(f); d.Errno != "EINVAL" || d.Route == nil || d.Route.Type != "blackhole" {
		t.Errorf("%+v", d)
	}
}

// BenchmarkRead is what a look costs: the counters alone are read before and after everything that is watched.
func BenchmarkRead(b *testing.B) {
	r, err := live.Open("")
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for name, parts := range map[string]live.Parts{"counters": live.Counters, "all": live.All} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r.Read(parts)
			}
		})
	}
}
