package spec

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// show writes a topology in one line a thing, for tests.
func show(t *Topology) string {
	var b strings.Builder
	for _, n := range t.Nodes {
		fmt.Fprintf(&b, "%v %s stp=%t vlans=%t\n", n.Kind, n.Name, n.STP, n.VLANs)
		for _, i := range n.Ifaces {
			fmt.Fprintf(&b, "  %s %v mac=%v mtu=%d queues=%d noipv6=%t vlan=%d trunk=%v\n", i.Dev, i.Addrs, i.MAC, i.MTU, i.Queues, i.NoIPv6, i.Access, i.Trunk)
		}
		for _, d := range n.Own {
			fmt.Fprintf(&b, "  %s %s %v parent=%s id=%d queues=%d\n", d.Kind, d.Name, d.Addrs, d.Parent, d.VLAN, d.Queues)
		}
		for _, r := range n.NFT {
			fmt.Fprintf(&b, "  nft %s%s%s %d matches %s%s %v\n", r.Hook, r.Dev, r.Chain, len(r.Matches), r.Verdict, r.Target, r.NAT)
		}
		for _, s := range n.Sets {
			fmt.Fprintf(&b, "  set %s %v\n", s.Name, s.Addrs)
		}
		for _, p := range n.Policy {
			fmt.Fprintf(&b, "  policy %s %s\n", p.Hook, p.Does)
		}
		for _, f := range n.TC {
			fmt.Fprintf(&b, "  tc %s %s %d\n", f.Dev, f.Way, f.Prio)
		}
		for _, p := range n.XFRM {
			fmt.Fprintf(&b, "  xfrm %s %v %v\n", p.Dir, p.Src, p.Dst)
		}
		for _, s := range n.Sysctls {
			fmt.Fprintf(&b, "  %s=%s\n", s.Key, s.Value)
		}
	}
	for _, l := range t.Links {
		fmt.Fprintf(&b, "%s.%s -- %s.%s\n", l.A.Node.Name, l.A.Dev, l.B.Node.Name, l.B.Dev)
	}
	return b.String()
}

func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"pair", "a:10.0.0.1/24 -- b:10.0.0.2/24", `
host a stp=false vlans=false
  eth0 [10.0.0.1/24] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
host b stp=false vlans=false
  eth0 [10.0.0.2/24] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
a.eth0 -- b.eth0
`},
		{"chain through a bridge, with comments", "# two hosts\na:10.0.0.1/24,fd00::1/64{dev=veth1 mac=00:00:00:00:00:01 ipv6=off} -- sw -- b{mtu=9000 queues=4}\nbridge sw\n", `
host a stp=false vlans=false
  veth1 [10.0.0.1/24 fd00::1/64] mac=00:00:00:00:00:01 mtu=0 queues=0 noipv6=true vlan=0 trunk=[]
bridge sw stp=false vlans=false
  eth0 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  eth1 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
host b stp=false vlans=false
  eth0 [] mac= mtu=9000 queues=4 noipv6=false vlan=0 trunk=[]
a.veth1 -- sw.eth0
sw.eth1 -- b.eth0
`},
		{"names that are taken are passed over", "a{dev=eth1} -- b; a -- b; a -- b", `
host a stp=false vlans=false
  eth1 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  eth0 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  eth2 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
host b stp=false vlans=false
  eth0 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  eth1 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  eth2 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
a.eth1 -- b.eth0
a.eth0 -- b.eth1
a.eth2 -- b.eth2
`},
		{"properties", `bridge s { stp on }; a -- s{vlan=10}; a -- s{trunk=10,20}
host a {
	vlan v10 eth1 10 10.1.0.1/24
	tap t0 10.2.0.1/24 queues=2; dummy d0
	sysctl net/ipv4/tcp_ecn=1
	nft input udp dport 53 not saddr 10.0.0.0/8 drop
	nft prerouting tcp dport 80 dnat 10.0.0.9:8080
}`, `
bridge s stp=true vlans=true
  eth0 [] mac= mtu=0 queues=0 noipv6=false vlan=10 trunk=[]
  eth1 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[10 20]
host a stp=false vlans=false
  eth0 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  eth1 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  vlan v10 [10.1.0.1/24] parent=eth1 id=10 queues=0
  tap t0 [10.2.0.1/24] parent= id=0 queues=2
  dummy d0 [] parent= id=0 queues=0
  nft input 3 matches drop invalid AddrPort
  nft prerouting 2 matches dnat 10.0.0.9:8080
  net.ipv4.tcp_ecn=1
a.eth0 -- s.eth0
a.eth1 -- s.eth1
`},
		{"what loses packets", `a{dev=x} -- b
host a {
	table fw; set bad 10.0.0.1,10.0.0.2; policy forward drop
	nft input jump known; nft chain known saddr @bad drop; nft ingress x udp drop
	nft input ct invalid drop; nft input udp over 5/minute burst 2 drop; nft input tcp dport 80 reset
	nft prerouting daddr 10.0.0.5 rewrite 10.0.0.6
	tc x ingress drop prio 7; xfrm in 10.0.0.0/8 10.0.0.1 block
}`, `
host a stp=false vlans=false
  x [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
  nft input 0 matches jumpknown invalid AddrPort
  nft known 1 matches drop invalid AddrPort
  nft ingressx 1 matches drop invalid AddrPort
  nft input 1 matches drop invalid AddrPort
  nft input 2 matches drop invalid AddrPort
  nft input 2 matches reset invalid AddrPort
  nft prerouting 1 matches rewrite 10.0.0.6:0
  set bad [10.0.0.1 10.0.0.2]
  policy forward drop
  tc x ingress 7
  xfrm in 10.0.0.0/8 10.0.0.1/32
host b stp=false vlans=false
  eth0 [] mac= mtu=0 queues=0 noipv6=false vlan=0 trunk=[]
a.x -- b.eth0
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), show(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRoutes(t *testing.T) {
	got, err := Parse(`host a { route default via 10.0.0.254 metric 5; route default via fd00::1; route blackhole 10.9.1.0/16 table 7
		rule from 10.0.0.1 fwmark 0x10 table 7 priority 100; neigh 10.0.0.3 lladdr 02:00:00:00:00:03 dev eth0 }
		a:10.0.0.1/24{netem="delay 10ms 2ms loss 1.5% limit 50" rate=8mbit} -- b`)
	if err != nil {
		t.Fatal(err)
	}
	n := got.Node("a")
	var routes []string
	for _, r := range n.Routes {
		routes = append(routes, fmt.Sprint(r.Type, " ", r.Dst, " ", r.Via, " ", r.Metric, " ", r.Table))
	}
	want := []string{"unicast 0.0.0.0/0 10.0.0.254 5 0", "unicast ::/0 fd00::1 0 0", "blackhole 10.9.0.0/16 invalid IP 0 7"}
	if d := cmp.Diff(want, routes); d != "" {
		t.Error(d)
	}
	r := n.Rules[0]
	if r.From != netip.MustParsePrefix("10.0.0.1/32") || r.Mark != 16 || r.Table != 7 || r.Priority != 100 {
		t.Errorf("%+v", r)
	}
	q := Qdisc{Netem: true, Delay: 10 * time.Millisecond, Jitter: 2 * time.Millisecond, Loss: 1.5, Limit: 50, Rate: 1e6, Burst: 32 << 10}
	if d := cmp.Diff(q, *n.Ifaces[0].Qdisc); d != "" {
		t.Error(d)
	}
}

// TestErrors: each names its place.
func TestErrors(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", "1:1: no host is named"},
		{"a -- ", `1:6: "" is no name`},
		{"a:10.0.0.1 -- b", `1:3: "10.0.0.1" is no address with its network's size`},
		{"a:10.0.0.1/24,10.0.0.300/24 -- b", `1:15: "10.0.0.300/24" is no address with its network's size`},
		{"a:10.0.0.1/24 -- b:10.0.0.1/8", "1:18: address 10.0.0.1 of b.eth0 is that of a.eth0 at 1:1 already"},
		{"a{mca=1} -- b", `1:3: unknown key "mca"`},
		{"a{mac=1} -- b", `1:7: mac: "1" is no MAC address`},
		{"a{mac=01:00:00:00:00:01} -- b", "1:7: mac: 01:00:00:00:00:01 is a group's address"},
		{"a{mac=02:00:00:00:00:01} -- b{mac=02:00:00:00:00:01}", "1:29: MAC 02:00:00:00:00:01 of b.eth0 is that of a.eth0 already"},
		{"a{mtu=10} -- b", `1:7: mtu: "10" is no number from 68 to 65535`},
		{"a{mtu} -- b", "1:3: mtu has no value"},
		{"a{dev=x -- b", `1:9: unknown key "--"`},
		{"a{dev=x", "1:2: { without }"},
		{"a{netem=\"delay 1ms} -- b", "1:9: quote without an end"},
		{"a -- a", "1:3: a is linked to itself: a loop"},
		{"bridge x; bridge y; bridge z\nx -- y -- z -- x", "2:16: the link z -- x closes a loop of bridges without STP"},
		{"a:10.0.0.1/24 -- b:10.0.0.2/24 -- c", "1:18: b has two links here"},
		{"a -- b c", `1:8: unexpected "c"`},
		{"host a; router a", "1:16: a is declared twice"},
		{"host a { rout default }", `1:10: unknown key "rout"`},
		{"host a { route 10.0.0.0/8 }", "1:10: a route leads nowhere"},
		{"host a { route 10.0.0.0/8 via }", "1:27: the value of via is missing"},
		{"host a { route default via fd00::1; route 10.0.0.0/8 via fd00::1 }", "1:37: route to 10.0.0.0/8 via fd00::1: two families"},
		{"host a { route 10.0.0.0/8 dev eth9 }", "1:10: route: a has no interface eth9"},
		{"host a { rule from 10.0.0.0/8 }", "1:10: a rule needs a table"},
		{"host a { rule to 10.0.0.0/8 table 5 prohibit }", "1:10: a rule has a table or is prohibit"},
		{"host a { nft input jump x }", "1:10: no rule is in chain x"},
		{"host a { nft input saddr @x drop }", "1:10: there is no set x"},
		{"host a { nft ingress eth0 drop }", "1:10: nft: a has no interface eth0"},
		{"a{dev=x} -- b; host a { nft ingress x reject }", "1:39: ingress has no reject"},
		{"host a { nft input udp reset }", "1:24: only TCP has a reset"},
		{"host a { nft input over 5 drop }", `1:25: "5" is no limit`},
		{"host a { nft input ct lost drop }", `1:23: no state "lost"`},
		{"host a { tc eth0 ingress drop }", "1:10: tc: a has no interface eth0"},
		{"host a { tc eth0 in drop }", `1:18: "in" is neither ingress nor egress`},
		{"host a { xfrm in 10.0.0.1 10.0.0.2 }", "1:27: a policy blocks"},
		{"host a { down eth0 }", "1:6: down: a has no interface eth0"},
		{"host a { set x 10.0.0.1,fd00::1 }", "1:16: 10.0.0.1 and fd00::1 are of two families"},
		{"bridge s { stp on 90s }", "1:19: ports wait from 2s to 30s"},
		{"a{tbf=\"rate 1mbit limit\"} -- b", "1:7: tbf: limit has no value"},
		{"host a { sysctl kernel.panic=1 }", "1:17: sysctl kernel.panic is not of a namespace"},
		{"host a { stp on }", "1:14: a is a host: only bridges have STP"},
		{"host a { nft input dport 53 drop }", "1:10: a port without its protocol"},
		{"host a { nft input masquerade }", "1:20: input has no masquerade"},
		{"host a { nft sideways drop }", `1:14: no hook "sideways"`},
		{"host a { vlan v 5 }", "1:17: the VLAN's number is missing"},
		{"host a { dummy x x }", `1:18: "x" is no address`},
		{"host a { dummy lo }", "1:16: lo is every host's loopback"},
		{"host a { dummy x; dummy x }", "1:19: a has two interfaces x, the other at 1:10"},
		{"a{vlan=5} -- b", "1:1: a is a host: VLANs are of a bridge's ports"},
		{"bridge s; a -- s:10.0.0.1/24", "1:16: a port of bridge s has an address"},
		{"a{dev=sixteenletters16} -- b", `1:7: dev: "sixteenletters16" is no interface name`},
		{"../../etc -- b", `1:1: "../../etc" is no name`},
	} {
		_, err := Parse(tt.in)
		var e *Error
		if !errors.As(err, &e) || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s\n got %v\nwant %s", tt.in, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"a:10.0.0.1/24 -- b:10.0.0.2/24", "bridge s { stp on }; a{vlan=5 netem=\"delay 1ms\"} -- s{trunk=1,2}",
		"a{dev=x tbf=\"rate 1mbit limit 5\"} -- b; host a { set s 10.0.0.1; nft chain c saddr @s drop; nft ingress x jump c; tc x egress drop; xfrm out 10.0.0.0/8 fd00::/8 block; down x }",
		"host a { route default via 10.0.0.1; rule from 10.0.0.0/8 table 5; nft input udp dport 5 drop; vlan v eth0 5 }\na -- b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		top, err := Parse(s)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Pos.Line < 1 || e.Pos.Col < 1 {
				t.Errorf("%q: %#v", s, err)
			}
			return
		}
		for _, n := range top.Nodes {
			for _, i := range n.Ifaces {
				if i.Dev == "" || i.Node != n {
					t.Errorf("%q: %+v", s, i)
				}
			}
		}
	})
}
