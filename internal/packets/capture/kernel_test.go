package capture

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lab/topology"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

var guests = ktest.Config{Modules: []string{"veth"}}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// world is the machine; the test closes it.
func world(t *testing.T) *probe.World {
	t.Helper()
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	users := usersym.New(usersym.Options{})
	w := probe.NewWorld(l, users, 0)
	t.Cleanup(func() { w.Close(); users.Close() })
	return w
}

// TestAccounts: each run of a program on a tracepoint of packets was told, found the ring full, or was filtered; also when
// far more match than the ring has room for, and whichever way fields are read.
func TestAccounts(t *testing.T) {
	ktest.Need(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		t.Fatal(err)
	}
	defer stats.Close()
	w := world(t)
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	defer pair.Close()
	for name, types := range map[string]*types{"typed": newTypes(w), "copied": nil} {
		t.Run(name, func(t *testing.T) {
			if name == "typed" && types == nil {
				t.Skip("this kernel has no " + rdonlyCast)
			}
			c, err := open(w, Options{Filter: "udp dst port 9 and not icmp", CPUs: 4, Ring: 1 << 18}, ways{types: types})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			const n = 5000
			flood(t, pair, 9, n)
			flood(t, pair, 10, n)
			c.Stop()
			kinds := map[packet.Kind]int{}
			var told, runs, filtered, lost, all uint64
			for began := time.Now(); ; time.Sleep(10 * time.Millisecond) { // programs may run yet
				told += tell(t, c, kinds)
				runs, filtered, lost, all = 0, 0, 0, 0
				for _, a := range c.sess.Accounts() {
					all += a.LostRing
					if a.Unit.Provider != "rawtracepoint" || strings.HasSuffix(a.Unit.Name, "sys_exit") {
						continue // calls that went well are not counted
					}
					runs, filtered, lost = runs+a.Runs, filtered+a.Filtered, lost+a.LostRing
				}
				if runs == told+lost+filtered || time.Since(began) > 30*time.Second {
					break
				}
			}
			t.Logf("%d runs: %d told, %d found the ring full, %d filtered; %v", runs, told, lost, filtered, kinds)
			if runs != told+lost+filtered {
				t.Errorf("%d runs, but %d told + %d lost + %d filtered", runs, told, lost, filtered)
			}
			if told == 0 || lost == 0 || filtered < n {
				t.Error("there was no flood")
			}
			if l := c.Lost(); l.Ring != all { // with calls that others on this machine made
				t.Errorf("Lost says %d, the programs %d", l.Ring, all)
			}
		})
	}
}

// flood sends datagrams from a pair's one end to a port of the other.
func flood(t *testing.T, p *topology.Pair, port, n int) {
	t.Helper()
	err := p.A.NS.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range n {
			_ = unix.Sendto(fd, make([]byte, 100), 0, &unix.SockaddrInet4{Port: port, Addr: netip.MustParseAddr("10.77.0.2").As4()}) // refused by ICMP at times
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tell reads all events, counts those of packets, and all by their kinds.
func tell(t *testing.T, c *Capture, kinds map[packet.Kind]int) (n uint64) {
	t.Helper()
	for {
		e, ok, err := c.Next(time.Now().Add(10 * time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return n
		}
		if kinds[e.Kind]++; e.Kind == packet.Refused {
			continue
		}
		if n++; e.Skb == 0 && e.Kind != packet.XDPError {
			t.Errorf("%s of no packet", e.Kind)
		}
	}
}

// BenchmarkOpen is what packets wait for until they are seen.
func BenchmarkOpen(b *testing.B) {
	ktest.Need(b, ktest.BTF, ktest.RawTracepoint)
	for b.Loop() {
		l, err := live.Open(live.Options{})
		if err != nil {
			b.Fatal(err)
		}
		users := usersym.New(usersym.Options{})
		w := probe.NewWorld(l, users, 0)
		c, err := Open(w, Options{Filter: "udp port 9", CPUs: 2, Functions: packet.Landmarks()})
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
		w.Close()
		users.Close()
	}
}
