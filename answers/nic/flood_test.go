package nic_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	netlive "github.com/fathom-trace/fathom/netstate/live"
)

// wire makes a veth pair between two namespaces: what arrives at the second's end is handed to CPU 0 by RPS.
func wire(t *testing.T) (a, b netns.NS) {
	t.Helper()
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "va", TxQLen: 1000}, PeerName: "vb"}); err != nil {
		t.Fatal(err)
	}
	set(t, "/sys/class/net/vb/queues/rx-0/rps_cpus", "1")
	a, b = apart(t, "va", "10.98.0.1/24"), apart(t, "vb", "10.98.0.2/24")
	t.Cleanup(func() {
		if l, err := netlink.LinkByName("va"); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	return a, b
}

// set writes a setting until the test ends.
func set(t *testing.T, path, value string) {
	t.Helper()
	old, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(path, old, 0) })
}

// flood sends datagrams from all CPUs but the first until it is stopped.
func flood(t *testing.T, from netns.NS, to net.Addr) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for cpu := 1; cpu < 4; cpu++ {
		c := listen(t, from, "10.98.0.1:0")
		wg.Go(func() {
			runtime.LockOSThread() // ends with the thread
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				t.Error(err)
				return
			}
			b := make([]byte, 64)
			for ctx.Err() == nil {
				_, _ = c.WriteTo(b, to) // a full queue is what is wanted
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// judge judges the receive path while something goes on, until a stage has a light other than green, and gives that check.
func judge(t *testing.T, r *netlive.Reader, stage string) nic.Check {
	t.Helper()
	began := time.Now()
	before := r.Receive()
	var text strings.Builder
	for time.Since(began) < time.Minute {
		time.Sleep(300 * time.Millisecond)
		h := nic.Health{Over: time.Since(began)}
		h.Checks = nic.Judge(before, r.Receive(), h.Over, nil)
		i := slices.IndexFunc(h.Checks, func(c nic.Check) bool { return c.Stage == stage })
		text.Reset()
		if err := h.WriteText(&text, false, false); err != nil {
			t.Fatal(err)
		}
		if i >= 0 && h.Checks[i].Light != nic.Green {
			t.Logf("\n%s", text.String())
			return h.Checks[i]
		}
	}
	t.Fatalf("stage %s stays green:\n%s", stage, text.String())
	return nic.Check{}
}

// TestFlood overwhelms one CPU: its backlog is what loses packets when it is short, and ksoftirqd takes over when it is not.
func TestFlood(t *testing.T) {
	ktest.NeedGuest(t, ktest.BTF, ktest.RawTracepoint, ktest.NetNS)
	if ktest.Where() == "debian-6.1" && !ktest.Soak() {
		t.Skip("the same as on debian-6.12: with make soak")
	}
	a, b := wire(t)
	sink := listen(t, b, "10.98.0.2:4000")
	r, err := netlive.OpenNS(b)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()

	t.Run("backlog", func(t *testing.T) {
		set(t, "/proc/sys/net/core/netdev_max_backlog", "1")
		defer flood(t, a, sink.LocalAddr())()
		c := judge(t, r, "backlog")
		if c.Light != nic.Red || !strings.Contains(fmt.Sprint(c.Words), "0 (") || !strings.Contains(fmt.Sprint(c.Turn), "netdev_max_backlog") {
			t.Errorf("%+v", c)
		}
	})
	t.Run("ksoftirqd", func(t *testing.T) {
		set(t, "/proc/sys/net/core/netdev_max_backlog", "100000")
		w, _, cpus := world(t)
		l, err := nic.OpenLatency(w, nic.LatencyOptions{Slow: time.Millisecond, CPUs: cpus})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		stop := flood(t, a, sink.LocalAddr())
		c := judge(t, r, "ksoftirqd")
		lost := judge(t, r, "sockets") // nobody reads
		stop()
		if lost.Light != nic.Red || !strings.Contains(fmt.Sprint(lost.Words), "10.98.0.2:4000") {
			t.Errorf("%+v", lost)
		}
		if !strings.Contains(c.Words[0], "ksoftirqd/0 took over") || len(c.Turn) == 0 {
			t.Errorf("%+v", c)
		}
		res, err := l.Result()
		if err != nil {
			t.Fatal(err)
		}
		if res.Daemon == 0 || res.Again == 0 {
			t.Errorf("NET_RX ran %d times, %d by ksoftirqd, %d again", res.Runs, res.Daemon, res.Again)
		}
	})
}
