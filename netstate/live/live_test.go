package live_test

import (
	"slices"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

var guests = ktest.Config{Modules: []string{
	"veth", "bridge", "8021q", "dummy", "vrf?", "sch_netem", "sch_tbf", "sch_fq_codel?", "sch_ingress", "cls_matchall", "cls_u32?", "cls_flower?", "cls_bpf", "act_gact",
	"act_mirred", "act_police", "nf_tables", "nft_reject_inet", "nft_nat", "nft_masq", "nft_chain_nat", "nft_ct", "nft_limit", "tcp_diag", "udp_diag", "raw_diag",
	"af_packet_diag", "xsk_diag?", "xfrm_user",
}}

func TestMain(m *testing.M) { ktest.Main(m, guests) }

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

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
