package packet

import "testing"

// TestMembers: what was merged behind another packet and is freed with it has its fate, and is no loss of its own.
func TestMembers(t *testing.T) {
	const flow = "tcp 10.0.0.1:40000 > 10.0.0.2:80"
	for _, c := range []struct {
		name   string
		story  []seen
		want   sums
		losses int
	}{
		{"dropped", []seen{
			{tcp(100, 5), "rx_entry skb=1 ns=1 dev=1"}, {tcp(140, 6), "rx_entry skb=2 ns=1 dev=1"}, {tcp(180, 7), "rx_entry skb=3 ns=1 dev=1"},
			{tcp(100, 5), "rx skb=1 ns=1 dev=1 gso=3"}, {tcp(100, 5), "drop skb=1 ns=1 by=nft_do_chain path=nft_do_chain,ip_local_deliver reason=9 gso=3 last"},
			{tcp(140, 6), "drop skb=2 ns=1 by=skb_release_data path=nft_do_chain,ip_local_deliver reason=9 last"},
			{tcp(180, 7), "drop skb=3 ns=1 by=skb_release_data path=nft_do_chain,ip_local_deliver reason=9 last"},
		}, sums{flow, 3, 0, 3, 0}, 1},
		{"received, as Linux 6.1 tells it", []seen{
			{tcp(100, 5), "rx_entry skb=1 ns=1 dev=1"}, {tcp(140, 6), "rx_entry skb=2 ns=1 dev=1"},
			{tcp(100, 5), "rx skb=1 ns=1 dev=1 gso=2"}, {tcp(100, 5), "consume skb=1 ns=1 by=tcp_recvmsg_locked path=tcp_recvmsg_locked gso=2 last"},
			{tcp(140, 6), "drop skb=2 ns=1 by=skb_release_data path=tcp_recvmsg_locked last"},
		}, sums{flow, 2, 2, 0, 0}, 0},
		{"received, as later ones do", []seen{
			{tcp(100, 5), "rx_entry skb=1 ns=1 dev=1"}, {tcp(140, 6), "rx_entry skb=2 ns=1 dev=1"},
			{tcp(100, 5), "rx skb=1 ns=1 dev=1 gso=2"}, {tcp(100, 5), "consume skb=1 ns=1 by=tcp_recvmsg_locked path=tcp_recvmsg_locked gso=2 last"},
			{tcp(140, 6), "consume skb=2 ns=1 by=skb_release_data path=tcp_recvmsg_locked last"},
		}, sums{flow, 2, 2, 0, 0}, 0},
		{"told of as one", []seen{
			{tcp(100, 5), "rx skb=1 ns=1 dev=1 gso=3"}, {tcp(100, 5), "drop skb=1 ns=1 by=nft_do_chain path=nft_do_chain reason=9 gso=3 last"},
			{tcp(140, 6), "drop skb=2 ns=1 by=skb_release_data path=nft_do_chain reason=9 last"},
		}, sums{flow, 3, 0, 3, 0}, 1},
		{"another's loss on another CPU", []seen{
			{tcp(100, 5), "rx_entry skb=1 ns=1 dev=1"}, {tcp(140, 6), "rx_entry skb=2 ns=1 dev=1"},
			{tcp(100, 5), "drop skb=1 ns=1 by=nft_do_chain path=nft_do_chain reason=9 last cpu=1"},
			{tcp(140, 6), "drop skb=2 ns=1 by=skb_release_data path=tcp_recvmsg_locked last"},
		}, sums{flow, 2, 1, 1, 0}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for _, s := range c.story {
				w.see(s.d.bytes(), s.what)
			}
			if got := w.sums(); len(got) != 1 || got[0] != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			if got := w.Flows()[0].Losses; len(got) != c.losses || len(got) > 0 && got[0].Func != "nft_do_chain" {
				t.Errorf("%d losses: %+v", len(got), got)
			}
		})
	}
}
