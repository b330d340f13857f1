package tpacket_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/tpacket"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/topology"
)

func TestMain(m *testing.M) { ktest.Main(m, ktest.Config{}) }

// ours has packets of a type of Ethernet that nobody else uses come (IEEE's first for experiments).
const experiment = 0x88b5

var ours = []bpf.RawInstruction{
	{Op: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12}, {Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: experiment, Jf: 1},
	{Op: unix.BPF_RET | unix.BPF_K, K: 1 << 18}, {Op: unix.BPF_RET | unix.BPF_K},
}

type site struct {
	t   *testing.T
	p   *topology.Pair
	ctx context.Context
}

func newSite(t *testing.T) *site {
	t.Helper()
	ktest.Need(t, ktest.NetNS)
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	return &site{t, p, ctx}
}

func (w *site) open(h topology.Host, n int, o tpacket.Options) []*tpacket.Queue {
	w.t.Helper()
	all, err := tpacket.Open(xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", h.FD())}, n, o)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, q := range all {
		if err := q.Filter(ours); err != nil {
			w.t.Fatal(err)
		}
		w.t.Cleanup(func() {
			if err := q.Close(); err != nil && !errors.Is(err, tpacket.ErrClosed) {
				w.t.Error(err)
			}
		})
	}
	return all
}

// frame is a packet with a number, padded so that it has size bytes.
func frame(number, size int) []byte {
	b := bytes.Repeat([]byte{byte(number)}, size)
	copy(b, []byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1})
	binary.BigEndian.PutUint16(b[12:], experiment)
	binary.BigEndian.PutUint32(b[14:], uint32(number))
	return b
}

// send puts packets from first on, until what is full says so, and says which comes next.
func send(q *tpacket.Queue, first, last, size int) int {
	var room [64][]byte
	var sizes []int
	n := q.Room(room[:min(64, last-first)])
	for i := range n {
		sizes = append(sizes, copy(room[i], frame(first+i, size)))
	}
	q.Put(sizes)
	q.Kick()
	return first + n
}

// TestRings: what is sent by one ring is received by another, in order, whole and once, by every way to wait; the ring goes round more than once.
func TestRings(t *testing.T) {
	for _, how := range []xsk.Wait{xsk.Netpoll, xsk.Poll, xsk.SpinYield} {
		t.Run(how.String(), func(t *testing.T) {
			w := newSite(t)
			a, b := w.open(w.p.A, 1, tpacket.Options{Slots: 64})[0], w.open(w.p.B, 1, tpacket.Options{Slots: 64, Wait: how})[0]
			const all, size = 5000, 200
			var got [64]tpacket.Packet
			for sent, want := 0, 0; want < all; {
				if sent < all && sent-want < 64 {
					sent = send(a, sent, min(all, want+64), size) // no more than there is room for
				}
				n, err := b.Recv(got[:])
				if err != nil {
					t.Fatal(err)
				}
				for _, p := range got[:n] {
					if !bytes.Equal(p.Bytes, frame(want, size)) {
						t.Fatalf("%d bytes, wanted number %d: %x", len(p.Bytes), want, p.Bytes[:18])
					}
					want++
				}
				b.Free(got[:n])
				if ready, err := b.Prepare(); err != nil {
					t.Fatal(err)
				} else if n > 0 || ready {
					continue
				}
				if err := b.Park(w.ctx); err != nil {
					t.Fatalf("%v after %d of %d", err, want, sent)
				}
			}
			st, err := b.Stats()
			if err != nil || st.RxPackets != all || st.RxBytes != all*size || st.Kernel.RxRingFull+st.Kernel.RxDropped > 0 {
				t.Errorf("%+v: %v", st, err)
			}
			if st, err := a.Stats(); err != nil || st.TxPackets != all {
				t.Errorf("%+v: %v", st, err)
			}
			ctx, cancel := context.WithCancel(w.ctx)
			cancel()
			if err := b.Park(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("a context that has ended: %v", err)
			}
		})
	}
}

// TestLong: a packet that is longer than a slot comes whole between those that are not, and one that finds the ring full is counted.
func TestLong(t *testing.T) {
	w := newSite(t)
	for ns, dev := range map[netns.NS]string{w.p.A.NS: w.p.A.Dev, w.p.B.NS: w.p.B.Dev} {
		if err := ns.Do(func() error {
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(l, 9000)
		}); err != nil {
			t.Fatal(err)
		}
	}
	a, b := w.open(w.p.A, 1, tpacket.Options{Slots: 512, Size: 9018})[0], w.open(w.p.B, 1, tpacket.Options{Slots: 16, Size: 1514})[0]
	sizes := []int{60, 9000, 60, 5000, 1514}
	for i, size := range sizes {
		send(a, i, i+1, size)
	}
	var got [64]tpacket.Packet
	for at := 0; at < len(sizes); {
		n, err := b.Recv(got[:])
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range got[:n] {
			if !bytes.Equal(p.Bytes, frame(at, sizes[at])) {
				t.Errorf("packet %d: %d bytes, wanted %d", at, len(p.Bytes), sizes[at])
			}
			at++
		}
		b.Free(got[:n])
		if n == 0 {
			if err := b.Park(w.ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
	const burst = 500
	for sent := 0; sent < burst; {
		sent = send(a, sent, burst, 60)
		if err := w.ctx.Err(); err != nil {
			t.Fatal(err)
		}
	}
	var came uint64
	for { // who sends on veth has the other end receive before the call returns, or soon after
		n, err := b.Recv(got[:])
		if err != nil {
			t.Fatal(err)
		}
		b.Free(got[:n])
		came += uint64(n)
		st, err := b.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if came+st.Kernel.RxRingFull == burst && st.Kernel.RxRingFull > 0 {
			break
		}
		if err := w.ctx.Err(); err != nil {
			t.Fatalf("%d came, %+v: %v", came, st, err)
		}
	}
}

// TestEnds: a device that goes away ends the wait with an error, one that goes down does not; a closed queue says so.
func TestEnds(t *testing.T) {
	w := newSite(t)
	b := w.open(w.p.B, 1, tpacket.Options{})[0]
	change := func(f func(netlink.Link) error) {
		t.Helper()
		if err := w.p.B.NS.Do(func() error {
			l, err := netlink.LinkByName(w.p.B.Dev)
			if err != nil {
				return err
			}
			return f(l)
		}); err != nil {
			t.Fatal(err)
		}
	}
	change(netlink.LinkSetDown)
	if _, err := b.Prepare(); err != nil {
		t.Errorf("a device that is down: %v", err)
	}
	change(netlink.LinkSetUp)
	parked := make(chan error, 1)
	go func() {
		for {
			if _, err := b.Prepare(); err != nil {
				parked <- err
				return
			}
			if err := b.Park(w.ctx); err != nil {
				parked <- err
				return
			}
		}
	}()
	change(netlink.LinkDel)
	if err := <-parked; !errors.Is(err, syscall.ENODEV) {
		t.Errorf("a device that is gone: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := b.Recv(nil); !errors.Is(err, tpacket.ErrClosed) {
		t.Errorf("a closed queue: %v", err)
	}
	if _, err := b.Stats(); !errors.Is(err, tpacket.ErrClosed) {
		t.Errorf("its counters: %v", err)
	}
	if _, err := tpacket.Open(xsk.Device{Name: "nosuch"}, 1, tpacket.Options{}); err == nil {
		t.Error("a device that is not there is opened")
	}
}

// TestShare: several queues get each packet once, those of a flow in one queue.
func TestShare(t *testing.T) {
	w := newSite(t)
	all := w.open(w.p.B, 3, tpacket.Options{})
	udp := []bpf.RawInstruction{
		{Op: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 36}, {Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 4097, Jf: 1},
		{Op: unix.BPF_RET | unix.BPF_K, K: 1 << 18}, {Op: unix.BPF_RET | unix.BPF_K},
	}
	for _, q := range all {
		if err := q.Filter(udp); err != nil {
			t.Fatal(err)
		}
	}
	const flows, each = 16, 5
	if err := w.p.A.NS.Do(func() error {
		for range flows {
			c, err := net.Dial("udp", "10.77.0.2:4097")
			if err != nil {
				return err
			}
			defer c.Close()
			for n := 0; n < each; {
				_, err := c.Write([]byte("x"))
				if err == nil {
					n++
				} else if !errors.Is(err, syscall.ECONNREFUSED) { // for one that was sent before: nobody listens
					return err
				}
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	seen, where := map[uint16]int{}, map[uint16]int{}
	for came := 0; came < flows*each; {
		if err := w.ctx.Err(); err != nil {
			t.Fatalf("%d came: %v", came, err)
		}
		for i, q := range all {
			var got [64]tpacket.Packet
			n, err := q.Recv(got[:])
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range got[:n] {
				port := binary.BigEndian.Uint16(p.Bytes[34:])
				if at, ok := where[port]; ok && at != i {
					t.Errorf("port %d is in queues %d and %d", port, at, i)
				}
				where[port] = i
				seen[port]++
				came++
			}
			q.Free(got[:n])
		}
	}
	for port, n := range seen {
		if n != each {
			t.Errorf("%d packets from port %d", n, port)
		}
	}
}
