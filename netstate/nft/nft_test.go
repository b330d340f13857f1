package nft_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/netstate/nft"
)

// ruleset is testdata/rules.json: what the kernel told of netstate/live/testdata/rules.nft. It is written by that package's
// TestNFT with FATHOM_UPDATE=1, after the texts were compared with nft's.
func ruleset(t testing.TB) nft.Ruleset {
	t.Helper()
	b, err := os.ReadFile("testdata/rules.json")
	if err != nil {
		t.Fatal(err)
	}
	var r nft.Ruleset
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDescribe: a ruleset that was kept says the same when it is read again.
func TestDescribe(t *testing.T) {
	want, got := ruleset(t), ruleset(t)
	n := 0
	for _, c := range got.Chains {
		for i := range c.Rules {
			c.Rules[i] = nft.Rule{Handle: c.Rules[i].Handle, Comment: c.Rules[i].Comment, Raw: c.Rules[i].Raw}
			n++
		}
	}
	got.Describe(map[int]string{1: "lo"})
	if d := cmp.Diff(want, got); d != "" || n < 300 {
		t.Error(n, d)
	}
}

// udp is a datagram from 10.0.0.1:5 to 10.77.0.100:9.
func udp() []byte {
	return []byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 77, 0, 100, 0, 5, 0, 9, 0, 8, 0, 0}
}

// TestOutcome: what is said of a packet that several rules can have dropped, one that is rewritten, and one that passes.
func TestOutcome(t *testing.T) {
	r := ruleset(t)
	out := r.Eval(nft.Packet{Data: udp(), IIF: 2, IIFName: "x", CtState: "new"}, "input")
	if out.Verdict != "drop" || out.By == nil || out.By.Rule.Text != "udp dport 9 counter drop" || out.By.Rule.Comment != "nobody" {
		t.Errorf("input: %+v", out)
	}
	if s, ok := out.Dropper(nil); !ok || s.Counter() != "nft.inet.fw.in."+handle(s)+".packets" {
		t.Errorf("dropper: %+v %v", s, ok)
	}
	p := udp()
	set := nft.Ruleset{Chains: []nft.Chain{find(t, r, "more_ip", "c")}, Sets: r.Sets}
	out = set.Eval(nft.Packet{Data: p, IIF: 2, IIFName: "x", OIF: 3, OIFName: "y", CtState: "new"}, "forward")
	if len(out.Changes) == 0 || out.Changes[0].Verdict != "set" || out.Changes[0].To != "10.77.0.2" || out.Changes[0].Rule.Text != "ip daddr 10.77.0.100 ip daddr set 10.77.0.2" {
		t.Errorf("forward: %+v", out.Changes)
	}
	if d := cmp.Diff(udp(), p); d != "" {
		t.Error("the caller's packet:", d)
	}
	out = r.Eval(nft.Packet{Data: udp(), IIF: 2, IIFName: "x", CtState: "new"}, "postrouting")
	if out.Verdict != "accept" {
		t.Errorf("postrouting: %+v", out.By)
	}
	nat := nft.Ruleset{Chains: []nft.Chain{find(t, r, "more_nat", "c")}, Sets: r.Sets}
	out = nat.Eval(nft.Packet{Data: udp()[:24], IIF: 2, IIFName: "x"}, "prerouting")
	if len(out.Changes) != 1 || out.Changes[0].Verdict != "dnat" || out.Verdict != "accept" {
		t.Errorf("prerouting: %+v", out)
	}
}

func handle(s nft.Step) string { b, _ := json.Marshal(s.Rule.Handle); return string(b) }

func find(t *testing.T, r nft.Ruleset, table, chain string) nft.Chain {
	t.Helper()
	for _, c := range r.Chains {
		if c.Table == table && c.Name == chain {
			return c
		}
	}
	t.Fatal("no chain", table, chain)
	return nft.Chain{}
}

// TestJump: the step of a rule that was jumped to names its own chain.
func TestJump(t *testing.T) {
	in, other := find(t, ruleset(t), "fw", "in"), find(t, ruleset(t), "fw", "other")
	for _, x := range in.Rules {
		if x.Text == "jump other" {
			in.Rules = []nft.Rule{x}
			break
		}
	}
	r := nft.Ruleset{Chains: []nft.Chain{in, other}}
	out := r.Eval(nft.Packet{Data: udp(), IIF: 2, IIFName: "x"}, "input")
	if out.By == nil || out.By.Chain.Name != "other" || out.By.Counter() != "nft.inet.fw.other."+handle(*out.By)+".packets" || len(out.Trail) != 2 {
		t.Errorf("%+v", out)
	}
}

// TestDropper: two rules with limits; the counter that moved says which one it was.
func TestDropper(t *testing.T) {
	limit := find(t, ruleset(t), "fw", "in")
	var rules []nft.Rule
	for _, x := range limit.Rules {
		if x.Text == "udp dport 9 limit rate over 1/minute counter drop" {
			y := x
			y.Handle += 1000
			rules = append(rules, x, y)
		}
	}
	limit.Rules = rules
	r := nft.Ruleset{Chains: []nft.Chain{limit}}
	out := r.Eval(nft.Packet{Data: udp(), IIF: 2, IIFName: "x"}, "input")
	if out.Verdict != "accept" || len(out.Maybe) != 2 || out.Maybe[0].Unknown != "limit rate over 1/minute" {
		t.Fatalf("%+v", out)
	}
	if _, ok := out.Dropper(nil); ok {
		t.Error("decided without evidence")
	}
	if s, ok := out.Dropper(map[string]int64{out.Maybe[1].Counter(): 3}); !ok || s.Rule.Handle != rules[1].Handle {
		t.Errorf("%+v %v", s, ok)
	}
}

// FuzzRule: expressions of any bytes are written and run without harm.
func FuzzRule(f *testing.F) {
	all := ruleset(f)
	for i, c := range all.Chains {
		for j, r := range c.Rules {
			if (i+j)%7 == 0 {
				f.Add(r.Raw, udp())
			}
		}
	}
	f.Fuzz(func(t *testing.T, raw, packet []byte) {
		for _, fam := range []string{"inet", "netdev", "bridge"} {
			c := nft.Chain{Family: fam, Table: "fw", Name: "c", Hook: "ingress", Devs: []string{"x"}, Rules: []nft.Rule{{Raw: raw}}}
			r := nft.Ruleset{Chains: []nft.Chain{c}, Sets: all.Sets}
			r.Describe(nil)
			r.Eval(nft.Packet{Data: packet, Link: packet, IIF: 1, IIFName: "x", Bridged: fam == "bridge"}, "ingress")
		}
	})
}

// FuzzDecode: messages of any bytes.
func FuzzDecode(f *testing.F) {
	f.Add(uint16(3), []byte{1, 0, 0, 0, 8, 0, 1, 0, 'a', 0, 0, 0})
	f.Fuzz(func(t *testing.T, typ uint16, b []byte) {
		var d nft.Decoder
		for _, x := range []uint16{0, 3, 9, 6, 12, typ} {
			_ = d.Add(x&0xff, b)
		}
		r := d.Ruleset()
		r.Eval(nft.Packet{Data: udp()}, "input")
		_ = nft.CountPackets(map[string]uint64{}, b)
	})
}
