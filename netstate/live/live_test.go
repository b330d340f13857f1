package live_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// modules are those of the rules in testdata, and of what the tests make.
const modules = `veth bridge 8021q dummy vrf sch_tbf sch_ingress cls_matchall cls_u32 cls_flower cls_bpf act_gact act_mirred act_police
	tcp_diag udp_diag raw_diag af_packet_diag xsk_diag xfrm_user
	nf_tables nf_conntrack nft_reject_inet nft_reject_ipv4 nft_reject_ipv6 nft_reject_bridge nft_nat nft_masq nft_redir nft_chain_nat nft_ct nft_limit
	nft_fib_inet nft_fib_ipv4 nft_fib_ipv6 nft_log nf_log_syslog nft_quota nft_queue nft_objref nft_connlimit nft_numgen nft_hash nft_socket
	nft_tproxy nft_dup_ipv4 nft_dup_ipv6 nft_fwd_netdev nft_dup_netdev nft_osf nft_xfrm nft_synproxy nft_meta_bridge nft_compat nfnetlink_log nfnetlink_queue`

// guests have the tools of this machine, if it has them.
func guests() ktest.Config {
	c := ktest.Config{Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}}
	for _, m := range strings.Fields(modules) {
		c.Modules = append(c.Modules, m+"?")
	}
	have := map[string]bool{}
	if _, err := os.Stat("/etc/protocols"); err == nil { // where they find names
		c.Files = append(c.Files, guest.File{Name: "/etc/protocols", Path: "/etc/protocols"})
	}
	for _, name := range []string{"ip", "tc", "nft", "sysctl", "ethtool"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		files, err := guest.Program(path)
		if err != nil {
			continue
		}
		for _, f := range files {
			if !have[f.Name] {
				have[f.Name] = true
				c.Files = append(c.Files, f)
			}
		}
	}
	return c
}

func TestMain(m *testing.M) { ktest.Main(m, ktest.Config{}) }

func TestGuest(t *testing.T) { ktest.Guests(t, guests()) }

// rounds is how often a random test is repeated: emulated machines start programs slowly.
func rounds(n int) uint64 {
	if ktest.InGuest() || testing.Short() {
		return 2
	}
	return uint64(n)
}

// reader opens a namespace and closes it after the test.
func reader(t *testing.T, ref string) *live.Reader {
	t.Helper()
	r, err := live.Open(ref)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// unexpected is what is missing of a state and must not be: kernels may be built without diagnosis of AF_XDP.
func unexpected(s *netstate.State) []netstate.Missing {
	out := slices.DeleteFunc(slices.Clone(s.Missing), func(m netstate.Missing) bool { return m.What == "sockets AF_XDP" })
	if len(out) == 0 {
		return nil
	}
	return out
}
