package packets

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/packets/capture"
)

func TestSplit(t *testing.T) {
	mark := func(n uint32) *uint32 { return &n }
	for _, c := range []struct {
		in, rest string
		want     Options
	}{
		{"", "", Options{}},
		{"udp port 9", "udp port 9", Options{}},
		{"netns web and udp", "udp", Options{Netns: []string{"web"}}},
		{"udp and netns web", "udp", Options{Netns: []string{"web"}}},
		{"netns a && netns b && tcp", "tcp", Options{Netns: []string{"a", "b"}}},
		{"dev eth0", "", Options{Devs: []string{"eth0"}}},
		{"mark 0x10 and icmp", "icmp", Options{Mark: mark(16)}},
		{"pid 7 and comm curl", "", Options{PIDs: []uint32{7}, Comm: "curl"}},
		{"pid 7 and (udp or tcp) and port 53 and comm dig", "(udp or tcp) and port 53", Options{PIDs: []uint32{7}, Comm: "dig"}},
		{"skb.mark == 5 and udp", "udp", Options{Terms: []capture.Term{{Path: []string{"mark"}, Op: "==", Num: 5}}}},
		{"udp and skb.dev.mtu < 1500 and skb.len & 0x1", "udp", Options{Terms: []capture.Term{{Path: []string{"len"}, Op: "&", Num: 1}, {Path: []string{"dev", "mtu"}, Op: "<", Num: 1500}}}},
		{"udp and netns web and tcp", "udp and netns web and tcp", Options{}}, // in the middle it is tcpdump's, which does not know it
		{"port 9 or netns web", "port 9 or netns web", Options{}},
	} {
		var o Options
		rest, err := o.Split(c.in)
		if err != nil || rest != c.rest {
			t.Errorf("%q: %q, %v; want %q", c.in, rest, err, c.rest)
		}
		if diff := cmp.Diff(c.want.Netns, o.Netns) + cmp.Diff(c.want.Devs, o.Devs) + cmp.Diff(c.want.Mark, o.Mark) + cmp.Diff(c.want.PIDs, o.PIDs) +
			cmp.Diff(c.want.Comm, o.Comm) + cmp.Diff(c.want.Terms, o.Terms); diff != "" {
			t.Errorf("%q: -want +got\n%s", c.in, diff)
		}
	}
	for in, want := range map[string]string{
		"mark x":                   `mark x: strconv.ParseUint: parsing "x"`,
		"udp and mark 0x1ffffffff": "value out of range",
		"pid -1":                   "invalid syntax",
		"cgroup /no/such/cgroup":   "no such file or directory",
		"skb.mark":                 "no comparison",
		"udp and skb.mark == up":   `"up" is not a number`,
	} {
		if _, err := new(Options).Split(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
	var o Options
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil {
		if _, err := o.Split("cgroup / and udp"); err != nil || o.Cgroup == 0 {
			t.Errorf("the root of cgroups: %d, %v", o.Cgroup, err)
		}
	}
}

// FuzzSplit: any text is split without a panic, and what is left over is part of it.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{"netns a and udp", "udp and skb.mark == 5", "and and and", "skb. == ", "mark 1 && && dev"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var o Options
		if rest, err := o.Split(s); err == nil && len(rest) > 2*len(s) {
			t.Errorf("%q became %q", s, rest)
		}
	})
}
