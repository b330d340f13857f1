package live_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate/live"
)

// TestReversePath: the kernel refuses the source of a packet when we say so. It answers EXDEV where the way back is wrong
// and EINVAL where the source is ours or no unicast address (since drop reasons came to this lookup, EINVAL for all), after
// the lookup of the destination has gone well.
func TestReversePath(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	refused, n := 0, 0
	for seed := range rounds(4) {
		r := rand.New(rand.NewPCG(seed, 12))
		s := newSpace(t)
		randomRouting(s, r, 4)
		for _, dev := range []string{"all", "va", "vc", "vd"} {
			for _, key := range []string{"rp_filter", "accept_local", "src_valid_mark", "send_redirects"} {
				top := 2
				if key == "rp_filter" {
					top = 3
				}
				s.run(fmt.Sprintf("sysctl -qw net.ipv4.conf.%s.%s=%d", dev, key, r.IntN(top)))
			}
		}
		state := s.Read(live.All)
		c, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: s.FD()})
		if err != nil {
			t.Fatal(err)
		}
		for range 400 {
			f := randomFlow(state, r, 4)
			if f.IIF == 0 {
				continue
			}
			if r.IntN(5) == 0 {
				f.Src = state.Addrs[r.IntN(len(state.Addrs))].Prefix.Addr()
			}
			d := state.FIB(f)
			if !d.OK() || !f.Src.Is4() || f.Src.IsLoopback() || d.Type != "unicast" && d.Type != "local" || d.Hops != nil {
				continue
			}
			want := kernelSays(t, c, f)
			if d.Type == "unicast" {
				f.OIF = d.Link
			}
			got := state.ReversePath(f)
			n++
			bad := want == "EXDEV" || want == "EINVAL"
			if bad {
				refused++
			}
			why := map[string]string{"EXDEV": "route device", "EINVAL": "local type route device"}[want]
			if got.OK == bad || bad && !slices.Contains(strings.Fields(why), got.Why) {
				t.Fatalf("seed %d %+v: %+v, kernel %s\n%s\n%s", seed, f, got, want, s.run("ip rule"), s.run("ip route show table all"))
			}
		}
		c.Close()
	}
	t.Logf("%d of %d refused", refused, n)
	if refused == 0 || refused == n {
		t.Error("one sided")
	}
}
