package netstack_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/internal/netns"
)

// mtu sets both ends' MTU.
func (w *site) mtu(n int) {
	w.t.Helper()
	for ns, dev := range map[netns.NS]string{w.p.A.NS: w.a.Name, w.p.B.NS: w.b.Name} {
		if err := ns.Do(func() error {
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			return netlink.LinkSetMTU(l, n)
		}); err != nil {
			w.t.Fatal(err)
		}
	}
}

// TestInstead: where AF_XDP cannot be had it is AF_PACKET, which is said with the reason; not where somebody has the device, or where what was
// asked for only AF_XDP has.
func TestInstead(t *testing.T) {
	asOn612(t)
	w := newSite(t, netstack.Options{})
	if b, why := w.s.Backend(); b != netstack.XDP || why != nil {
		t.Errorf("%v: %v", b, why)
	}
	var h *held.Error
	if _, err := netstack.Open(w.a, netstack.Options{Queues: []int{0}}); !errors.As(err, &h) && !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a device that somebody has: %v", err)
	}
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	w.mtu(9000) // more than a frame of AF_XDP's
	if _, err := netstack.Open(w.a, netstack.Options{Mode: steer.Generic}); err == nil || !strings.Contains(err.Error(), "MTU 9000") {
		t.Errorf("generic mode: %v", err)
	}
	s := w.open(w.a, netstack.Options{})
	if b, why := s.Backend(); b != netstack.Packet || why == nil || !strings.Contains(why.Error(), "MTU 9000") {
		t.Errorf("%v: %v", b, why)
	}
	l, err := s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := w.dialKernel("tcp", ours+":9000")
	if err != nil {
		t.Fatal(err)
	}
	stream(t, l, c, 1<<18)
	if st, err := s.Stats(); err != nil || st.Received == 0 || st.NoRoom > 0 {
		t.Errorf("%+v: %v", st, err)
	}
	for _, name := range []string{"auto", "xdp", "packet"} {
		if b, err := netstack.ParseBackend(name); err != nil || b.String() != name {
			t.Errorf("%s is read as %v: %v", name, b, err)
		}
	}
}

// TestSpared: with AF_PACKET, too, only what is for the stack's ports by its device is kept from the kernel: what comes to them by another one is
// refused as nobody listens there, and other ports are the kernel's.
func TestSpared(t *testing.T) {
	asOn612(t)
	w := newSite(t, netstack.Options{Backend: netstack.Packet})
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := w.p.A.NS.Do(func() error {
		if c, err := (&net.Dialer{}).DialContext(w.patient, "tcp", "127.0.0.1:9000"); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("by lo: %v, %w", c, err)
		}
		k, err := net.Listen("tcp", ours+":9002")
		if err != nil {
			return err
		}
		defer k.Close()
		c, err := w.dialKernel("tcp", ours+":9002")
		if err != nil {
			return err
		}
		defer c.Close()
		n, err := k.Accept()
		if err != nil {
			return err
		}
		return n.Close()
	}); err != nil {
		t.Error(err)
	}
	if c, err := w.dialKernel("tcp", ours+":9003"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody's port: %v, %v", c, err)
	}
}

// TestShares: several sockets of AF_PACKET share what comes, and each connection's packets are in order.
func TestShares(t *testing.T) {
	asOn612(t)
	w := newSite(t, netstack.Options{Backend: netstack.Packet, Queues: []int{0, 1, 2}})
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			c, err := w.dialKernel("tcp", ours+":9000")
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			stop := context.AfterFunc(w.patient, func() { c.Close() })
			defer stop()
			want := strings.Repeat(fmt.Sprint("connection ", i, " "), 5000)
			wg.Go(func() {
				if _, err := io.WriteString(c, want); err != nil {
					t.Error(err)
				}
			})
			got := make([]byte, len(want))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	wg.Wait()
}
