package live_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

// space is a namespace of a test and a reader of it.
type space struct {
	t *testing.T
	netns.NS
	*live.Reader
}

func newSpace(t *testing.T) space {
	t.Helper()
	ktest.Need(t, ktest.NetNS)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	r, err := live.OpenNS(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), ns.Close()); err != nil {
			t.Error(err)
		}
	})
	return space{t, ns, r}
}

// need skips where a program is missing, or fails if that must not be.
func need(t *testing.T, prog string) {
	t.Helper()
	if _, err := exec.LookPath(prog); err != nil {
		if os.Getenv("FATHOM_ORACLES") == "require" && !ktest.InGuest() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// run runs a command line in the namespace; the test ends if it fails, unless the line begins with "-".
func (s space) run(line string) []byte {
	s.t.Helper()
	line, may := strings.CutPrefix(line, "-")
	args := strings.Fields(line)
	need(s.t, args[0])
	var out, stderr bytes.Buffer
	err := s.NS.Do(func() error {
		c := exec.Command(args[0], args[1:]...)
		c.Stdout, c.Stderr = &out, &stderr
		c.Env = append(os.Environ(), "TZ=UTC") // nft writes hours in local time
		return c.Run()
	})
	if err != nil && !may {
		s.t.Fatalf("%s: %v\n%s", line, err, stderr.Bytes())
	}
	return out.Bytes()
}

func (s space) setup(lines string) {
	s.t.Helper()
	for line := range strings.Lines(lines) {
		if line = strings.TrimSpace(line); line != "" {
			s.run(line)
		}
	}
}

// objects decodes what a command prints with -j.
func (s space) objects(line string) []map[string]any {
	s.t.Helper()
	var out []map[string]any
	if b := s.run(line); len(bytes.TrimSpace(b)) > 0 {
		if err := json.Unmarshal(b, &out); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
	}
	return slices.DeleteFunc(out, func(m map[string]any) bool { return len(m) == 0 })
}

const network = `
	ip link set lo up
	ip link add va type veth peer name vb
	ip link set va addrgenmode none
	ip link set vb addrgenmode none
	ip link set va up
	ip link set vb up
	ip addr add 10.1.0.1/24 dev va
	ip addr add 10.1.0.9 peer 10.1.0.10/32 dev vb
	-ip addr add fd00::1/64 dev va nodad
	ip route add 10.6.0.0/16 nexthop via 10.1.0.2 nexthop via 10.1.0.3 weight 3
	ip route add blackhole 10.5.0.0/16 metric 7
	ip route add 10.7.0.0/16 via 10.1.0.2 mtu 1300 table 100
	ip rule add from 10.77.1.1 to 10.77.2.0/24 prohibit pref 50
	ip rule add fwmark 0x10/0xff iif va lookup 100 pref 60 suppress_prefixlength 0
	ip rule add not from 10.0.0.0/8 ipproto tcp dport 80-90 unreachable pref 70
	ip rule add oif vb tos 0x10 uidrange 5-9 lookup main pref 80
	ip rule add from all goto 32766 pref 90
	ip neigh add 10.1.0.7 lladdr 02:00:00:00:00:07 dev va nud permanent
	ip neigh add 10.1.0.8 dev va nud failed
	tc qdisc add dev va root tbf rate 1mbit burst 1k limit 3000
`

// TestIP: links, addresses, routes, rules and neighbours are what ip(8) lists.
func TestIP(t *testing.T) {
	s := newSpace(t)
	s.setup(network)
	got := s.Read(live.All)
	if m := unexpected(got); m != nil {
		t.Error(m)
	}
	dev := func(i int) string { l, _ := got.LinkByIndex(i); return l.Name }
	var lines, want []string
	add := func(to *[]string, v ...any) { *to = append(*to, strings.TrimSpace(fmt.Sprintln(v...))) }
	for _, l := range got.Links {
		add(&lines, "link", l.Index, l.Name, l.MTU, l.Oper, l.MAC, l.TxQLen)
	}
	for _, o := range s.objects("ip -j link") {
		add(&want, "link", o["ifindex"], o["ifname"], o["mtu"], strings.ToLower(o["operstate"].(string)), o["address"], o["txqlen"])
	}
	for _, a := range got.Addrs {
		add(&lines, "addr", dev(a.Link), a.Prefix.Addr(), a.Prefix.Bits())
	}
	for _, o := range s.objects("ip -j addr") {
		for _, a := range o["addr_info"].([]any) {
			a := a.(map[string]any)
			add(&want, "addr", o["ifname"], a["local"], a["prefixlen"])
		}
	}
	for _, r := range got.Rules {
		add(&lines, "rule", r.Family, r.Priority, r.Text)
	}
	for _, fam := range []int{4, 6} {
		for line := range strings.Lines(string(s.run(fmt.Sprintf("ip -%d rule", fam)))) {
			prio, text, _ := strings.Cut(strings.TrimSpace(line), ":")
			add(&want, "rule", fam, prio, strings.TrimSpace(text))
		}
		for _, o := range s.objects(fmt.Sprintf("ip -j -%d neigh", fam)) {
			add(&want, "neigh", o["dst"], o["dev"], o["lladdr"], strings.ToLower(o["state"].([]any)[0].(string)))
		}
	}
	for _, n := range got.Neighs {
		if mac := any(n.MAC); n.State != "noarp" {
			if n.MAC == "" {
				mac = nil
			}
			add(&lines, "neigh", n.Addr, dev(n.Link), mac, n.State)
		}
	}
	slices.Sort(lines)
	slices.Sort(want)
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	routes(t, s, got)
}

// routes compares every route of all tables.
func routes(t *testing.T, s space, got *netstate.State) {
	dev := func(i int) any {
		if l, ok := got.LinkByIndex(i); ok {
			return l.Name
		}
		return nil
	}
	str := func(v fmt.Stringer, ok bool) any {
		if ok {
			return v.String()
		}
		return nil
	}
	type row struct{ Table, Type, Dst, Via, Dev, Src, Metric any }
	rows := map[row]int{}
	for _, r := range got.Routes {
		dst := r.Dst.String()
		if r.Dst.IsSingleIP() {
			dst = r.Dst.Addr().String()
		} else if r.Dst.Bits() == 0 {
			dst = "default"
		}
		x := row{float64(r.Table), r.Type, dst, str(r.Via, r.Via.IsValid()), dev(r.Link), str(r.Src, r.Src.IsValid()), float64(r.Metric)}
		rows[x]++
	}
	tables := map[any]float64{nil: 254, "main": 254, "local": 255, "default": 253, "100": 100}
	for _, fam := range []int{4, 6} {
		for _, o := range s.objects(fmt.Sprintf("ip -j -%d route show table all", fam)) {
			typ, metric := o["type"], o["metric"]
			if typ == nil {
				typ = "unicast"
			}
			if metric == nil {
				metric = 0.0
			}
			rows[row{tables[o["table"]], typ, o["dst"], o["gateway"], o["dev"], o["prefsrc"], metric}]--
		}
	}
	for r, n := range rows {
		if n != 0 {
			t.Errorf("%+v: %+d times", r, n)
		}
	}
	i := slices.IndexFunc(got.Routes, func(r netstate.Route) bool { return r.Hops != nil })
	if i < 0 || len(got.Routes[i].Hops) != 2 || got.Routes[i].Hops[1].Weight != 3 || got.Routes[i].Hops[1].Via.String() != "10.1.0.3" {
		t.Errorf("hops: %+v", got.Routes)
	}
	i = slices.IndexFunc(got.Qdiscs, func(q netstate.Qdisc) bool { return q.Kind == "tbf" })
	if i < 0 || got.Qdiscs[i].Limit != 3000 || got.Qdiscs[i].Unit != "b" {
		t.Errorf("qdiscs: %+v", got.Qdiscs)
	}
}
