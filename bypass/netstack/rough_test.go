package netstack_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/tpacket"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

// rough is a link that loses, repeats, reorders and corrupts packets, in percent each: what netem does, also to packets of AF_XDP, which pass no
// queueing discipline, and on kernels without it.
type rough struct {
	lose, repeat, reorder, corrupt float64
	seed                           uint64
}

// forward carries packets from one queue to another until the context ends.
func (r rough) forward(ctx context.Context, from, to *tpacket.Queue, sending, own *sync.Mutex) error {
	rnd := rand.New(rand.NewPCG(r.seed, 1))
	happens := func(percent float64) bool { return rnd.Float64()*100 < percent }
	var late []byte // goes behind the next one
	send := func(b []byte) {
		sending.Lock()
		defer sending.Unlock()
		var room [1][]byte
		if to.Room(room[:]) == 1 && len(b) <= len(room[0]) {
			to.Put([]int{copy(room[0], b)})
			to.Kick()
		}
	}
	var got [32]tpacket.Packet
	for {
		n, err := from.Recv(got[:])
		if err != nil {
			return err
		}
		for _, p := range got[:n] {
			b := p.Bytes
			if len(b) < 54 || b[12] != 8 || b[13] != 0 { // not IP: ARP is no matter here
				send(b)
				continue
			}
			if happens(r.corrupt) {
				b[34+rnd.IntN(len(b)-34)] ^= 1 << rnd.IntN(8) // TCP's: IP's own header has another sum
			}
			switch {
			case happens(r.lose):
				continue
			case late == nil && happens(r.reorder):
				late = append([]byte(nil), b...)
				continue
			case happens(r.repeat):
				send(b)
			}
			send(b)
			if late != nil {
				send(late)
				late = nil
			}
		}
		from.Free(got[:n])
		if n > 0 {
			continue
		}
		own.Lock() // the other way's packets are sent by this queue
		ready, err := from.Prepare()
		own.Unlock()
		if err != nil {
			return err
		}
		if !ready {
			if err := from.Park(ctx); err != nil {
				return nil // the context has ended
			}
		}
	}
}

// newRoughSite is newSite with such a link between the hosts: each has a veth pair of its own, between whose other ends packets are carried.
func newRoughSite(t *testing.T, o netstack.Options, r rough) *site {
	t.Helper()
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	var pairs [2]*topology.Pair
	for i := range pairs {
		p, err := topology.NewPair("va", "vb")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		})
		pairs[i] = p
	}
	var ends [2][]*tpacket.Queue
	for i, h := range []topology.Host{pairs[0].B, pairs[1].A} {
		if err := h.NS.Do(func() error {
			l, err := netlink.LinkByName(h.Dev)
			if err != nil {
				return err
			}
			all, err := netlink.AddrList(l, unix.AF_INET)
			if err != nil {
				return err
			}
			for _, a := range all { // nobody is there
				if err := netlink.AddrDel(l, &a); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		var err error
		if ends[i], err = tpacket.Open(xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", h.FD())}, 1, tpacket.Options{Slots: 4096}); err != nil {
			t.Fatal(err)
		}
		if err := ends[i][0].Filter([]bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 1 << 18}}); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var sending [2]sync.Mutex
	for i := range ends {
		wg.Go(func() {
			r := r
			r.seed += uint64(i)
			if err := r.forward(ctx, ends[i][0], ends[1-i][0], &sending[1-i], &sending[i]); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		for _, e := range ends {
			if err := e[0].Close(); err != nil {
				t.Error(err)
			}
		}
	})
	limit := 10 * time.Minute
	if ktest.Soak() {
		limit = time.Hour
	}
	patient, stop := context.WithTimeout(t.Context(), limit)
	t.Cleanup(stop)
	p := &topology.Pair{A: pairs[0].A, B: pairs[1].B}
	at := func(h topology.Host) xsk.Device {
		return xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", h.FD())}
	}
	w := &site{t: t, a: at(p.A), b: at(p.B), p: p, patient: patient}
	w.s = w.open(w.a, o)
	return w
}

// TestRough is TestLoss on such a link, where all packets suffer.
func TestRough(t *testing.T) {
	if ktest.InGuest() && !ktest.Soak() {
		t.Skip("the same as on the machine")
	}
	for _, o := range []netstack.Options{{Backend: netstack.XDP, Checksums: netstack.ChecksumVerify}, {Backend: netstack.Packet, Checksums: netstack.ChecksumVerify}} {
		for _, kernel := range []bool{true, false} {
			name := o.Backend.String() + " and " + o.Backend.String()
			if kernel {
				name = o.Backend.String() + " and the kernel"
			}
			t.Run(name, func(t *testing.T) {
				w := newRoughSite(t, o, rough{lose: 1, repeat: 1, reorder: 2, corrupt: 1, seed: 7})
				transfer(t, w, o, kernel)
			})
		}
	}
}
