package live_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// TestFiles reads /proc from testdata, as any user in the process's own namespace.
func TestFiles(t *testing.T) {
	r := reader(t, "")
	r.Proc = "testdata/proc"
	s := r.Read(live.Counters | live.Groups | live.Sysctls)
	for name, want := range map[string]uint64{"Udp.NoPorts": 7, "rt_cache.in_martian_dst": 11} {
		if s.Counters[name] != want {
			t.Errorf("%s: %d, want %d", name, s.Counters[name], want)
		}
	}
	sysctls := map[string]string{"net.ipv4.conf.all.rp_filter": "1", "net.ipv4.conf.eth0/5.rp_filter": "2", "net.ipv4.ip_local_port_range": "32768\t60999"}
	if d := cmp.Diff(sysctls, s.Sysctls); d != "" {
		t.Error(d)
	}
	groups := []netstate.Group{{Link: 2, Addr: netip.MustParseAddr("ff02::1")}}
	if d := cmp.Diff(groups, s.Groups, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

// TestMissing: what is not there is named; the rest is read.
func TestMissing(t *testing.T) {
	r := reader(t, "")
	r.Proc = "testdata/nothing"
	s := r.Read(live.Links | live.Sysctls)
	if len(s.Missing) != 1 || s.Missing[0].What != "sysctls" || len(s.Links) == 0 {
		t.Errorf("%+v", s)
	}
	if _, err := live.Open("no such namespace"); err == nil {
		t.Error("no error")
	}
}
