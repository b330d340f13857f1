package live_test

import (
	"fmt"
	"os/exec"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate/live"
	"github.com/fathom-trace/fathom/netstate/nft"
)

// TestIptables: rules that iptables-nft made, some with matches and targets of xtables, decide as iptables means them.
func TestIptables(t *testing.T) {
	s := newSpace(t)
	s.setup("ip link set lo up")
	prog := "iptables-nft"
	if _, err := exec.LookPath(prog); err != nil {
		prog = "iptables"
	}
	for _, rule := range []string{
		"-A INPUT -p tcp --dport 80 -m comment --comment web -j DROP",
		"-A INPUT -p udp -m multiport --dports 1,5:7 -j REJECT",
		"-A INPUT -m conntrack --ctstate INVALID -j DROP",
		"-A INPUT -p udp -m mark --mark 0x5/0xff -j DROP",
		"-A INPUT -p udp --dport 8 -j LOG",
		"-A INPUT -p udp --dport 8 -m limit --limit 5/min -j ACCEPT",
		"-A INPUT -p udp --dport 8 -m statistic --mode random --probability 0.5 -j DROP",
		"-A INPUT -p udp --dport 8 -j ACCEPT",
		"-P INPUT DROP",
		"-t nat -A PREROUTING -p udp --dport 53 -j DNAT --to-destination 10.0.0.9:5353",
	} {
		s.run(prog + " " + rule)
	}
	state := s.Read(live.NFT)
	udp := func(port byte) []byte {
		return []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, port, 0, 8, 0, 0}
	}
	tcp := slices.Concat([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0, 9, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2}, make([]byte, 6))
	tests := []struct {
		name  string
		p     nft.Packet
		want  string
		maybe []string
	}{
		{"port", nft.Packet{Data: tcp, CtState: "new"}, "drop 0", nil},
		{"multiport", nft.Packet{Data: udp(6), CtState: "new"}, "reject 1", nil},
		{"invalid", nft.Packet{Data: udp(9), CtState: "invalid"}, "drop 2", nil},
		{"mark", nft.Packet{Data: udp(9), CtState: "new", Mark: 0x105}, "drop 3", nil},
		{"limit and chance", nft.Packet{Data: udp(8), CtState: "new"}, "accept 7", []string{"accept", "drop"}},
		{"policy", nft.Packet{Data: udp(9), CtState: "new"}, "drop policy", nil},
	}
	for _, tt := range tests {
		tt.p.IIF, tt.p.IIFName = 1, "lo"
		out := state.Firewall().Eval(tt.p, "input")
		got := out.Verdict + " policy"
		if out.By != nil && out.By.Rule != nil {
			i := slices.IndexFunc(out.By.Chain.Rules, func(r nft.Rule) bool { return r.Handle == out.By.Rule.Handle })
			got = fmt.Sprint(out.Verdict, " ", i)
		}
		var maybe []string
		for _, m := range out.Maybe {
			maybe = append(maybe, m.Verdict)
		}
		if got != tt.want || !slices.Equal(maybe, tt.maybe) {
			t.Errorf("%s: %s %v, want %s %v", tt.name, got, maybe, tt.want, tt.maybe)
		}
	}
	var texts []string
	for _, c := range state.Chains {
		for _, r := range c.Rules {
			texts = append(texts, r.Text)
		}
	}
	want := []string{
		"udp dport 53 counter dnat to 10.0.0.9:5353", "tcp dport 80 counter drop", "udp dport { 1, 5-7 } counter reject", "ct state invalid counter drop",
		"meta l4proto udp meta mark & 0x000000ff == 0x00000005 counter drop", "udp dport 8 counter log",
		"udp dport 8 limit rate 5/minute counter accept", `udp dport 8 xt match "statistic" counter drop`, "udp dport 8 counter accept",
	}
	if d := cmp.Diff(want, texts); d != "" || state.Chains[1].Rules[0].Comment != "web" {
		t.Error(d)
	}
	out := state.Firewall().Eval(nft.Packet{Data: udp(53), IIF: 1, IIFName: "lo"}, "prerouting")
	if len(out.Changes) != 1 || out.Changes[0].Verdict != "dnat" || out.Changes[0].To != "10.0.0.9:5353" {
		t.Errorf("%+v", out)
	}
}
