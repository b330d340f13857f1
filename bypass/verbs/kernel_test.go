package verbs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fathom-trace/fathom/bypass/verbs"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate/rdma"
)

// guests have soft-RoCE, with the checksum that it asks the crypto API for, and two kinds of network devices to put it on.
var guests = ktest.Config{Modules: []string{"rdma_rxe", "crc32_generic", "dummy", "veth"}}

// victim is set in a process that TestKill kills: the device it is to hold.
const victim = "FATHOM_VERBS_VICTIM"

func TestMain(m *testing.M) {
	if dev := os.Getenv(victim); dev != "" {
		fmt.Println(hold(dev))
		return
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) {
	c := guests
	files, err := pingpongFiles()
	if err != nil {
		t.Fatal(err)
	}
	c.Files = files
	ktest.Guests(t, c)
}

// patience is how long a test waits for what must come.
const patience = 2 * time.Minute

// device makes an RDMA device in software, rd0, over a network device that leads nowhere: what it sends itself it receives.
func device(t *testing.T) string {
	t.Helper()
	ktest.NeedGuest(t, ktest.Modules)
	l := &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "under0"}}
	address(t, l, "10.9.0.1/24")
	soft(t, "rd0", "under0")
	return "rd0"
}

// address makes a network device and gives it an address.
func address(t *testing.T, l netlink.Link, addr string) {
	t.Helper()
	if err := netlink.LinkAdd(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.LinkDel(l); err != nil {
			t.Error(err)
		}
	})
	up(t, l, addr)
}

func up(t *testing.T, l netlink.Link, addr string) {
	t.Helper()
	a, err := netlink.ParseAddr(addr)
	if err == nil {
		err = errors.Join(netlink.AddrAdd(l, a), netlink.LinkSetUp(l))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// soft puts an RDMA device on a network device, and waits until it has the address, which comes by a work item.
func soft(t *testing.T, name, over string) {
	t.Helper()
	if err := netlink.RdmaLinkAdd(name, "rxe", over); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netlink.RdmaLinkDel(name); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		for _, g := range rdma.Addresses(name, 1) {
			if g.Addr.Is4In6() && g.Type == rdma.RoCE2 && g.Dev == over {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("%s has no IPv4 address", name)
		}
	}
}

// find gives what is said of a device.
func find(t *testing.T, name string) rdma.Device {
	t.Helper()
	all, err := verbs.Devices()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Name == name {
			return d
		}
	}
	t.Fatalf("no device %s among %+v", name, all)
	return rdma.Device{}
}

// used waits until as much of a device is in use as before: what belonged to a process that is gone is taken apart soon after.
func used(t *testing.T, name string, want []rdma.Used) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got := find(t, name).Used
		if fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s has in use %v, and had %v", name, got, want)
		}
	}
}

// end is one end of a connection, with its own open device.
type end struct {
	x   *verbs.Context
	d   *verbs.ProtectionDomain
	mem *verbs.Memory
	cq  *verbs.CompletionQueue
	qp  *verbs.QueuePair
}

// depth is how many messages an end has room for, mostLen how long they are.
const (
	depth   = 16
	mostLen = 9000
)

// open opens an end. The first half of its memory is for what comes, the second for what goes.
func open(dev string) (e *end, err error) {
	e = &end{}
	if e.x, err = verbs.Open(dev); err != nil {
		return nil, err
	}
	if e.d, err = e.x.NewProtectionDomain(); err == nil {
		e.mem, err = e.d.RegisterMemory(2*depth*mostLen, verbs.LocalWrite|verbs.RemoteRead|verbs.RemoteWrite)
	}
	if err == nil {
		e.cq, err = e.x.NewCompletionQueue(2 * depth)
	}
	if err == nil {
		e.qp, err = e.d.NewQueuePair(verbs.QueuePairOptions{Send: e.cq, Receive: e.cq, SendDepth: depth, ReceiveDepth: depth, Segments: 2, Peer: verbs.RemoteRead | verbs.RemoteWrite})
	}
	if err != nil {
		return nil, errors.Join(err, e.x.Close())
	}
	return e, nil
}

// room names the memory of a receive.
func (e *end) room(slot int) verbs.Segment { return e.mem.Segment(slot*mostLen, mostLen) }

// data is memory of what is sent.
func (e *end) data(slot int) (at int, b []byte) {
	at = (depth + slot) * mostLen
	return at, e.mem.Bytes()[at : at+mostLen]
}

// must opens an end for a test.
func must(t *testing.T, dev string) *end {
	t.Helper()
	e, err := open(dev)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.x.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// connected opens two ends and connects them.
func connected(t *testing.T, devA, devB string, path verbs.Path) (a, b *end) {
	t.Helper()
	a, b = must(t, devA), must(t, devB)
	for _, err := range []error{a.qp.Connect(b.qp.Endpoint(), path), b.qp.Connect(a.qp.Endpoint(), path)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

// next waits for one completion.
func (e *end) next(t *testing.T) verbs.Completion {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var c [1]verbs.Completion
	for e.cq.Poll(c[:]) == 0 {
		if err := e.cq.Wait(ctx); err != nil {
			t.Fatal(err)
		}
	}
	return c[0]
}

// message makes message i of a sender: of any length, with bytes that no other message has.
func message(sender byte, i int) []byte {
	r := rand.NewChaCha8([32]byte{sender, byte(i), byte(i >> 8), byte(i >> 16)})
	n := r.Uint64() % 300
	if i%8 == 0 {
		n = r.Uint64() % mostLen
	}
	b := make([]byte, n)
	_, _ = r.Read(b) // cannot fail
	return b
}

// talk sends n messages and receives n, as fast as there is room, and checks what came. wait is how it waits.
func (e *end) talk(ctx context.Context, me, peer byte, n int, wait func(context.Context) error) error {
	for i := range depth {
		if _, err := e.qp.PostReceive(verbs.Receive{ID: uint64(i), Segments: []verbs.Segment{e.room(i)}}); err != nil {
			return err
		}
	}
	return e.rest(ctx, me, peer, n, wait)
}

func (e *end) rest(ctx context.Context, me, peer byte, n int, wait func(context.Context) error) error {
	var done [8]verbs.Completion
	sent, acked, received := 0, 0, 0
	for acked < n || received < n {
		for ; sent < n && sent-acked < depth; sent++ {
			m := message(me, sent)
			at, b := e.data(sent % depth)
			copy(b, m)
			half := len(m) / 2
			w := verbs.Send{ID: uint64(1000 + sent), Segments: []verbs.Segment{e.mem.Segment(at, half), e.mem.Segment(at+half, len(m)-half)}}
			if _, err := e.qp.PostSend(w); err != nil {
				return fmt.Errorf("send %d: %w", sent, err)
			}
		}
		if err := wait(ctx); err != nil {
			return fmt.Errorf("%d sent, %d acknowledged, %d received: %w", sent, acked, received, err)
		}
		for _, c := range done[:e.cq.Poll(done[:])] {
			if err := c.Err(); err != nil {
				return err
			}
			if c.Op == verbs.OpSend {
				if c.ID != uint64(1000+acked) {
					return fmt.Errorf("send %d completed, not %d", c.ID, 1000+acked)
				}
				acked++
				continue
			}
			slot := received % depth
			want := message(peer, received)
			if got := e.mem.Bytes()[slot*mostLen : slot*mostLen+c.Bytes]; c.ID != uint64(slot) || !bytes.Equal(got, want) {
				return fmt.Errorf("message %d: %d bytes in receive %d, not the %d in %d", received, c.Bytes, c.ID, len(want), slot)
			}
			received++
			if _, err := e.qp.PostReceive(verbs.Receive{ID: uint64(slot), Segments: []verbs.Segment{e.room(slot)}}); err != nil {
				return err
			}
		}
	}
	return nil
}

// both has two ends talk.
func both(t *testing.T, a, b *end, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = a.talk(ctx, 'a', 'b', n, a.cq.Wait) })
	wg.Go(func() { errs[1] = b.talk(ctx, 'b', 'a', n, b.cq.Spin) })
	wg.Wait()
	if err := errors.Join(errs[0], errs[1]); err != nil {
		t.Fatal(err)
	}
}

// TestSendReceive: messages of any length go both ways at once, one end sleeping and one spinning; each arrives once, in order, as it was.
func TestSendReceive(t *testing.T) {
	dev := device(t)
	before := find(t, dev).Used
	t.Run("talk", func(t *testing.T) {
		a, b := connected(t, dev, dev, verbs.Path{})
		if d := a.x.Device(); d.Driver != "rxe" || d.Parent != "under0" || !d.Ports[0].Active() || a.x.MTU() != 1024 {
			t.Errorf("opened %+v with an MTU of %d", d, a.x.MTU())
		}
		if now := fmt.Sprint(find(t, dev).Used); now == fmt.Sprint(before) {
			t.Errorf("the kernel says %s is in use with two queue pairs, as without", now)
		}
		start := time.Now()
		both(t, a, b, 2000)
		t.Logf("4000 messages in %v", time.Since(start))
	})
	used(t, dev, before)
}
