package traffic_test

import (
	"context"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/lab/topology"
)

// wide adds a pair of devices with several queues to a host.
func wide(t *testing.T, h topology.Host, queues int) (a, b xsk.Device) {
	t.Helper()
	if err := h.Do(func() error {
		nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer nl.Close()
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "qa", NumTxQueues: queues, NumRxQueues: queues}, PeerName: "qb", PeerNumTxQueues: uint32(queues), PeerNumRxQueues: uint32(queues)}
		if err := nl.LinkAdd(v); err != nil {
			return err
		}
		for _, name := range []string{"qa", "qb"} {
			l, err := nl.LinkByName(name)
			if err == nil {
				err = nl.LinkSetUp(l)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	ns := fmt.Sprintf("/proc/self/fd/%d", h.FD())
	return xsk.Device{Name: "qa", NetNS: ns}, xsk.Device{Name: "qb", NetNS: ns}
}

// TestQueues: all queues of a device are found, and what is sent on one arrives on that of the same number, each with its goroutine.
func TestQueues(t *testing.T) {
	p, _, _ := pair(t)
	const queues, each = 3, 500
	a, b := wide(t, p.A, queues)
	left, err := traffic.Open(t.Context(), traffic.Config{Device: a, NoProgram: true, Queue: xsk.Options{NoRX: true}})
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	right, err := traffic.Open(t.Context(), traffic.Config{Device: b, Rules: toPort(t, 4096), Queue: xsk.Options{Wait: xsk.SpinYield}})
	if err != nil {
		t.Fatal(err)
	}
	defer right.Close()
	if len(left.Queues) != queues || len(right.Queues) != queues {
		t.Fatalf("%d and %d queues of %d", len(left.Queues), len(right.Queues), queues)
	}
	la, err := traffic.Of(a)
	if err != nil {
		t.Fatal(err)
	}
	lb, err := traffic.Of(b)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddrPort("192.0.2.1:4096")
	tm, err := traffic.NewTemplate(traffic.Flow{SrcMAC: la.MAC, DstMAC: lb.MAC, Src: addr, Dst: addr}, 60)
	if err != nil {
		t.Fatal(err)
	}
	var accounts [queues]traffic.Account
	var came atomic.Uint64
	ctx, cancel := context.WithTimeout(t.Context(), stuck)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		done <- right.Each(ctx, func(ctx context.Context, i int, q *xsk.Queue) error {
			return traffic.Receive(ctx, q, 64, func(n int) bool { came.Add(uint64(n)); return true }, &accounts[i])
		})
	}()
	if err := left.Each(ctx, func(ctx context.Context, i int, q *xsk.Queue) error {
		_, err := traffic.Send(ctx, q, traffic.SendOptions{Template: tm, Stream: i, Count: each * uint64(1+i), Batch: 32})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// Nothing holds the senders back, so that a machine that is late may drop frames; it counts them.
	const sent = each * (1 + 2 + 3)
	dropped := func() uint64 { return missing(t, left.Queues[0]) + missing(t, right.Queues[0], right.Queues[1:]...) }
	for ctx.Err() == nil && came.Load()+dropped() < sent {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for i := range accounts {
		a := &accounts[i]
		if want := each * uint64(1+i); a.Corrupt+a.Twice+a.Foreign != 0 || a.Packets > want || a.Packets < want-min(want, dropped()) {
			t.Errorf("queue %d: %+v", i, a)
		}
	}
	if n := dropped(); came.Load()+n != sent {
		t.Errorf("of %d sent %d came and %d are counted as dropped", sent, came.Load(), n)
	}
	onTheWay, err := traffic.Dropped(a)
	if err != nil {
		t.Fatal(err)
	}
	hits(t, right.Program, sent-onTheWay)
}

// TestRoundTrips: answers are timed, and those that do not come are lost.
func TestRoundTrips(t *testing.T) {
	_, a, b := pair(t)
	left := open(t, traffic.Config{Device: a, Rules: toPort(t, 4096)})
	tm := template(t, a, b, 60)
	var times traffic.Times
	if lost, err := traffic.RoundTrips(t.Context(), left.Queues[0], tm, 2, 10*time.Millisecond, times.Add); err != nil || lost != 2 || times.Count() != 0 {
		t.Errorf("nobody answers: %d lost, %d came, %v", lost, times.Count(), err)
	}
	right := open(t, traffic.Config{Device: b, Rules: toPort(t, 4096)})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- traffic.Forward(ctx, right.Queues[0], right.Queues[0], 64, xsk.Netpoll, traffic.Turn) }()
	lost, err := traffic.RoundTrips(t.Context(), left.Queues[0], tm, 100, time.Minute, times.Add)
	if err != nil || lost != 0 || times.Count() != 100 || times.At(0) <= 0 {
		t.Errorf("%d lost, %d came, the least in %v: %v", lost, times.Count(), times.At(0), err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
