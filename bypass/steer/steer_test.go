package steer

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFlow(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   Flow
		want string
		err  string
	}{
		{"nothing", Flow{}, "", ""},
		{"protocol", Flow{Proto: "icmp"}, "icmp", ""},
		{"port", Flow{Proto: "udp", DstPort: Ports{First: 53}}, "udp and dst port 53 and " + notFragment, ""},
		{"range", Flow{Proto: "tcp", SrcPort: Ports{1000, 2000}}, "tcp and src portrange 1000-2000 and " + notFragment, ""},
		{"addresses", Flow{Src: netip.MustParsePrefix("10.1.2.3/8"), Dst: netip.MustParsePrefix("10.0.0.1/32")}, "src net 10.0.0.0/8 and dst net 10.0.0.1/32", ""},
		{"group", Flow{VLAN: 7, Group: netip.MustParseAddr("239.1.2.3")}, "vlan 7 and dst host 239.1.2.3", ""},
		{"no group", Flow{Group: netip.MustParseAddr("10.0.0.1")}, "", "no multicast group"},
		{"no range", Flow{DstPort: Ports{9, 8}}, "", "no range"},
		{"no ports", Flow{Proto: "icmp", DstPort: Ports{First: 1}}, "", "no ports"},
		{"no protocol", Flow{Proto: "nosuch"}, "nosuch", "nosuch"},
	} {
		got, err := tt.in.Filter()
		if d := cmp.Diff(tt.want, got); d != "" || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %s %v", tt.name, d, err)
		}
	}
}

func TestBuild(t *testing.T) {
	spec, err := build([]slotted{{Rule{Filter: "udp dst port 53"}, 0}, {Rule{"tcp", Drop}, 1}, {Rule{"icmp", ToKernel}, 2}, {Rule{}, 3}}, 8, 16)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(spec.Programs[progName].Instructions); n < 20 || n > 200 {
		t.Errorf("%d instructions", n)
	}
	for _, name := range []string{mapSocks, mapHits} {
		if spec.Maps[name] == nil {
			t.Errorf("no map %s", name)
		}
	}
	if _, err := build([]slotted{{Rule{Filter: "udp prot 1"}, 0}}, 1, 1); err == nil || !strings.Contains(err.Error(), `rule "udp prot 1"`) {
		t.Error(err)
	}
}

// TestSlots: rules that stay keep their places, new ones get places that nobody has.
func TestSlots(t *testing.T) {
	p := &Program{}
	rules := func(s ...string) (out []Rule) {
		for _, f := range s {
			out = append(out, Rule{Filter: f})
		}
		return out
	}
	for _, tt := range []struct {
		rules []Rule
		want  []int
	}{
		{rules("a", "b", "c"), []int{0, 1, 2}},
		{rules("c", "a"), []int{2, 0}},
		{rules("d", "a", "a"), []int{1, 0, 3}},
		{rules("a", "e"), []int{0, 2}},
		{nil, nil},
	} {
		s, err := p.slots(tt.rules)
		if err != nil {
			t.Fatal(err)
		}
		var got []int
		for _, r := range s {
			got = append(got, r.slot)
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%v: %s", tt.rules, d)
		}
		p.rules = s
	}
	if _, err := p.slots(make([]Rule, maxRules)); err == nil {
		t.Error("too many rules are taken")
	}
}
