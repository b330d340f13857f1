package topology_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/lab/topology/spec"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// labChild, as environment, makes the test binary take labs up and down until it is killed. Its value is the folder of
// leases.
const labChild = "FATHOM_LAB_CHILD"

// envKills is how many kills a run has; make soak sets 200.
const envKills = "FATHOM_KILLS"

const pairText = "a:192.0.2.1/30 -- b:192.0.2.2/30"

// person is someone whom no one else on the machine is.
func person(n int) string { return fmt.Sprintf("t%d-%d", n, os.Getpid()) }

func labsOf(t *testing.T, n int) topology.Labs {
	t.Helper()
	ktest.Need(t, ktest.NetNS)
	return topology.Labs{Dir: lease.Dir{Path: filepath.Join(t.TempDir(), "run")}, Person: person(n)}
}

// names lists the namespaces of this test process's persons.
func names() []string {
	all, _ := filepath.Glob(fmt.Sprintf("%s/fathom.t*-%d.*", netns.RunDir, os.Getpid()))
	return all
}

func TestLab(t *testing.T) {
	l := labsOf(t, 1)
	if err := l.Up("x", pairText); err != nil {
		t.Fatal(err)
	}
	if err := l.Up("x", pairText); !errors.Is(err, lease.ErrTaken) {
		t.Errorf("made twice: %v", err)
	}
	// Another person's lab of the same name and addresses is another.
	other := topology.Labs{Dir: l.Dir, Person: person(2)}
	if err := other.Up("x", pairText); err != nil {
		t.Fatal(err)
	}
	mine, err := l.Find("x")
	if err != nil {
		t.Fatal(err)
	}
	a, b := open(t, mine, "a"), open(t, mine, "b")
	r, err := traffic.UDP(t.Context(), traffic.Flow{From: a, To: b, Addr: netip.MustParseAddrPort("192.0.2.2:0"), Messages: 5, Size: 100})
	if err != nil || r.Received.Messages != 5 {
		t.Errorf("%+v: %v", r, err)
	}
	if gone, err := l.Dir.Clean(cleaners); len(gone) != 0 || err != nil {
		t.Error("what was kept is cleaned:", gone, err)
	}
	if err := l.Down(mine); err != nil {
		t.Error(err)
	}
	if theirs, err := other.Find("x"); err != nil || len(names()) != 2 {
		t.Error("the other's lab:", names(), err)
	} else if err := other.Down(theirs); err != nil {
		t.Error(err)
	}
	if left := names(); len(left) != 0 {
		t.Error("left:", left)
	}
	if all, err := l.Dir.List(); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
}

var cleaners = map[string]lease.Cleaner{topology.LeaseKind: topology.Clean}

func open(t *testing.T, l topology.Lab, host string) netns.NS {
	t.Helper()
	h, ok := l.Host(host)
	if !ok {
		t.Fatalf("no host %s in %+v", host, l)
	}
	ns, err := netns.Open(h.NS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// TestLabFails: what cannot be made leaves nothing, neither namespaces nor records.
func TestLabFails(t *testing.T) {
	l := labsOf(t, 3)
	for _, text := range []string{
		"a{mca=1} -- b", "a -- a", // no network
		"a:192.0.2.1/30 -- b; host a { route 203.0.113.0/24 via 198.51.100.1 }", // the kernel refuses: unreachable
		"a -- b; host b { sysctl net.ipv4.nosuch=1 }",
	} {
		if err := l.Up("bad", text); err == nil {
			t.Errorf("%s: made", text)
		}
	}
	if left := names(); len(left) != 0 {
		t.Error("left:", left)
	}
	if all, err := l.Dir.List(); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
}

// TestTenHosts: up in under a second, and down too, if not too much else is done.
func TestTenHosts(t *testing.T) {
	l := labsOf(t, 4)
	up, down := time.Hour, time.Hour
	for began := time.Now(); (up > time.Second || down > time.Second) && time.Since(began) < time.Minute; {
		u, d := tenHosts(t, l)
		t.Logf("up in %v, down in %v", u, d)
		if up, down = min(up, u), min(down, d); ktest.InGuest() { // it is emulated
			return
		}
	}
	if up > time.Second || down > time.Second {
		t.Error("it took over a second")
	}
}

// tenHosts takes ten hosts at a switch up and down.
func tenHosts(t *testing.T, l topology.Labs) (up, down time.Duration) {
	t.Helper()
	text := "bridge sw\n"
	for i := range 10 {
		text += fmt.Sprintf("h%d:10.0.0.%d/24 -- sw\n", i, i+1)
	}
	start := time.Now()
	if err := l.Up("ten", text); err != nil {
		t.Fatal(err)
	}
	up = time.Since(start)
	lab, err := l.Find("ten")
	if err != nil {
		t.Fatal(err)
	}
	from, to := open(t, lab, "h0"), open(t, lab, "h9")
	if r, err := traffic.UDP(t.Context(), traffic.Flow{From: from, To: to, Addr: netip.MustParseAddrPort("10.0.0.10:0"), Messages: 5, Size: 100}); err != nil {
		t.Errorf("%+v: %v", r, err)
	}
	start = time.Now()
	if err := l.Down(lab); err != nil {
		t.Error(err)
	}
	return up, time.Since(start)
}

// TestLabKilled: kill -9 at random moments of up and down. After each, cleaning leaves what a person kept and nothing else.
func TestLabKilled(t *testing.T) {
	l := labsOf(t, 5)
	kills := 30
	if n, err := strconv.Atoi(os.Getenv(envKills)); err == nil {
		kills = n
	}
	kept := topology.Labs{Dir: l.Dir, Person: person(6)}
	if err := kept.Up("kept", pairText); err != nil {
		t.Fatal(err)
	}
	work := topology.Labs{Dir: l.Dir, Person: person(5)}
	found := 0
	for range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), labChild+"="+l.Dir.Path, labChild+"_PERSON="+work.Person)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		gone, err := l.Dir.Clean(cleaners)
		if err != nil {
			t.Fatal(err)
		}
		found += len(gone)
		// A lab that was kept when the child died is the person's, to be taken down by name.
		mine, err := work.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, lab := range mine {
			if err := work.Down(lab); err != nil {
				t.Fatal(err)
			}
		}
		if left := names(); len(left) != 2 || !strings.Contains(left[0], ".kept.") {
			t.Fatal("there are:", left)
		}
	}
	t.Logf("%d kills, %d orphans", kills, found)
	lab, err := kept.Find("kept")
	if err == nil {
		err = kept.Down(lab)
	}
	if err != nil || len(names()) != 0 {
		t.Error(names(), err)
	}
}

// upAndDown is the child of TestLabKilled.
func upAndDown(dir, person string) {
	l := topology.Labs{Dir: lease.Dir{Path: dir}, Person: person}
	for {
		err := l.Up("work", pairText)
		lab, ferr := l.Find("work")
		if err = errors.Join(err, ferr); err == nil {
			err = l.Down(lab)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
}

// TestEverything: routers, bridges with VLANs and STP, own devices, rules, filters and qdiscs, looked at from within.
func TestEverything(t *testing.T) {
	ktest.NeedGuest(t, ktest.NetNS)
	top, err := spec.Parse(`
		bridge sw { stp on }
		a:10.0.1.1/24,fd00:1::1/64{netem="delay 20ms" queues=4 mac=02:00:00:00:00:01} -- sw{vlan=10}
		b:10.0.1.2/24{mtu=1400 rate=10mbit} -- sw{vlan=10}
		x:10.0.1.3/24 -- sw{vlan=20}
		r:10.0.1.254/24,fd00:1::fe/64 -- sw{vlan=10}
		r:10.0.2.254/24 -- c:10.0.2.1/24{ipv6=off}
		router r
		host a {
			route default via 10.0.1.254
			route blackhole 10.9.0.0/16 table 100
			rule from 10.0.1.1 table 100 priority 50
			sysctl net.ipv4.tcp_ecn=1
			tap tap0 10.5.0.1/24 queues=2; tun tun0; dummy d0 10.6.0.1/24; vlan v5 d0 5
			neigh 10.0.1.77 lladdr 02:00:00:00:00:77 dev eth0
		}
		host c {
			route default via 10.0.2.254
			nft input udp dport 53 drop
			nft input tcp dport 81 reject
			nft prerouting udp dport 54 dnat 10.0.2.1:55
			nft postrouting oif eth0 daddr 10.0.1.0/24 udp dport 99 masquerade
		}`)
	if err != nil {
		t.Fatal(err)
	}
	n, err := topology.Build(top)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	a, _ := n.NS("a")
	b, _ := n.NS("b")
	c, _ := n.NS("c")
	x, _ := n.NS("x")
	flow := func(from, to netns.NS, addr string) error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := traffic.UDP(ctx, traffic.Flow{From: from, To: to, Addr: netip.MustParseAddrPort(addr), Messages: 3, Size: 100})
		return err
	}
	for began := time.Now(); flow(b, a, "10.0.1.1:0") != nil || flow(a, c, "10.0.2.1:4001") != nil; { // STP listens and learns for two seconds each
		if time.Since(began) > time.Minute {
			t.Fatal("the switch does not forward")
		}
	}
	start := time.Now()
	if err := flow(a, c, "10.0.2.1:4000"); err != nil {
		t.Error("through the router:", err)
	}
	if d := time.Since(start); d < 20*time.Millisecond {
		t.Errorf("netem's 20 ms took %v", d)
	}
	if err := flow(b, a, "10.0.1.1:0"); err != nil {
		t.Error("within a VLAN:", err)
	}
	if err := flow(x, a, "10.0.1.1:0"); err == nil {
		t.Error("x reaches a from another VLAN")
	}
	if err := flow(a, c, "10.0.2.1:53"); !errors.Is(err, traffic.ErrLost) {
		t.Error("port 53 is to be dropped:", err)
	}
	_ = a.Do(func() error {
		d, err := net.InterfaceByName("eth0")
		if err != nil || d.HardwareAddr.String() != "02:00:00:00:00:01" {
			t.Errorf("%+v: %v", d, err)
		}
		ecn, err := os.ReadFile("/proc/sys/net/ipv4/tcp_ecn")
		if err != nil || strings.TrimSpace(string(ecn)) != "1" {
			t.Errorf("tcp_ecn %s: %v", ecn, err)
		}
		for _, dev := range []string{"tap0", "tun0", "d0", "v5"} {
			if _, err := net.InterfaceByName(dev); err != nil {
				t.Error(dev, err)
			}
		}
		_, err = net.DialTimeout("udp", "10.9.0.1:1", time.Second)
		if err == nil {
			t.Error("10.9.0.1 can be reached")
		}
		return nil
	})
	if ecn, err := os.ReadFile("/proc/sys/net/ipv4/tcp_ecn"); err != nil || strings.TrimSpace(string(ecn)) == "1" {
		t.Errorf("the machine's tcp_ecn is %s: %v", ecn, err)
	}
	conn, err := nftables.New(nftables.WithNetNSFd(c.FD()))
	if err != nil {
		t.Fatal(err)
	}
	chains, err := conn.ListChains()
	var got []string
	for _, ch := range chains {
		got = append(got, ch.Name)
	}
	if want := []string{"input", "prerouting_nat", "postrouting_nat"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("chains %v: %v", got, err)
	}
}
