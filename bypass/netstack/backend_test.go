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
	"github.com/fathom-trace/fathom/internal/ktest"
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
	w.mtu(9000)
	const none = 5 // no queue of the device's
	if _, err := netstack.Open(w.a, netstack.Options{Mode: steer.Generic, Queues: []int{none}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("generic mode: %v", err)
	}
	s := w.open(w.a, netstack.Options{Queues: []int{none}})
	if b, why := s.Backend(); b != netstack.Packet || !errors.Is(why, syscall.EINVAL) {
		t.Errorf("%v: %v", b, why)
	}
	w.toOurs(s, 1<<18)
	if st, err := s.Stats(); err != nil || st.Received == 0 || st.NoRoom > 0 {
		t.Errorf("%+v: %v", st, err)
	}
	for _, name := range []string{"auto", "xdp", "packet"} {
		if b, err := netstack.ParseBackend(name); err != nil || b.String() != name {
			t.Errorf("%s is read as %v: %v", name, b, err)
		}
	}
}

// TestLong: where packets are longer than a frame they go in several, both ways, by TCP and UDP, between ours and the kernel's and two of ours.
func TestLong(t *testing.T) {
	for _, m := range []steer.Mode{steer.Native, steer.Generic} {
		t.Run(m.String(), func(t *testing.T) { overLong(t, netstack.Options{Backend: netstack.XDP, Mode: m}) })
	}
}

func overLong(t *testing.T, o netstack.Options) {
	w := newSite(t, netstack.Options{Backend: netstack.Packet})
	if err := w.s.Close(); err != nil {
		t.Fatal(err)
	}
	w.mtu(9000)
	o.Queues = []int{0}
	s, err := netstack.Open(w.a, o)
	if err != nil {
		if !strings.Contains(err.Error(), "MTU 9000") {
			t.Error(err)
		}
		ktest.Unsupported(t, err, "debian-6.1")
	}
	defer s.Close()
	const size = 1 << 20
	w.toOurs(s, size)
	st, err := s.Stats()
	const segments = size / (9000 - 20 - 20 - 12) // of TCP, with its time stamps; acknowledgements come on top
	if q := st.Queues; err != nil || q.TxPackets < segments || q.TxPackets > 3*segments || q.Kernel.TxInvalidDescs > 0 || st.NoRoom > 0 {
		t.Errorf("%d packets were to be sent: %+v: %v", segments, st, err)
	}

	long := strings.Repeat("a long datagram ", 500)
	in, err := s.HandleUDP("udp", ours+":7001", echoBack)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	p, err := s.ListenPacket("udp", ours+":7002")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	k := w.kernelUDP()
	k.send(ours+":7001", long)
	k.want(long)
	k.send(ours+":7002", long)
	b := make([]byte, 9000)
	n, from, err := p.ReadFrom(b)
	if err != nil || string(b[:n]) != long {
		t.Errorf("%d bytes from %v: %v", n, from, err)
	}
	if _, err := p.WriteTo(b[:n], from); err != nil {
		t.Error(err)
	}
	k.want(long)

	other := w.open(w.b, o)
	ol, err := other.Listen("tcp", ":9003")
	if err != nil {
		t.Fatal(err)
	}
	defer ol.Close()
	c, err := s.DialContext(w.patient, "tcp", theirs+":9003")
	if err != nil {
		t.Fatal(err)
	}
	stream(t, ol, c, size)
}

// TestWholeSegments: in generic mode what the peer's kernel leaves to a device to cut comes as it is, and a stream does not stand still for it.
func TestWholeSegments(t *testing.T) {
	if ktest.Where() == "debian-6.1" {
		t.Skip("AF_XDP takes no packets of several frames before Linux 6.6")
	}
	t.Run("as asked", func(t *testing.T) {
		w := newSite(t, netstack.Options{Backend: netstack.XDP, Mode: steer.Generic})
		w.wholeSegments(w.s)
	})
	t.Run("without a driver's", func(t *testing.T) {
		w := newSite(t, netstack.Options{Backend: netstack.Packet})
		if err := w.s.Close(); err != nil {
			t.Fatal(err)
		}
		w.bridge()
		s := w.open(w.a, netstack.Options{Backend: netstack.XDP, Checksums: netstack.ChecksumTrust})
		if s.Mode() != steer.Generic {
			t.Errorf("a bridge has XDP in %v mode", s.Mode())
		}
		w.wholeSegments(s)
	})
}

// bridge puts a's device into a bridge, which has its address from then on.
func (w *site) bridge() {
	w.t.Helper()
	if err := w.p.A.NS.Do(func() error {
		port, err := netlink.LinkByName(w.a.Name)
		if err != nil {
			return err
		}
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br", HardwareAddr: port.Attrs().HardwareAddr}}
		if err := netlink.LinkAdd(b); err != nil {
			return err
		}
		a := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ours), Mask: net.CIDRMask(24, 32)}}
		return errors.Join(netlink.AddrDel(port, a), netlink.LinkSetMaster(port, b), netlink.AddrAdd(b, a), netlink.LinkSetUp(b))
	}); err != nil {
		w.t.Fatal(err)
	}
	w.a.Name = "br"
}

// wholeSegments sends a stream both ways between a stack and the kernel: packets come that are longer than the MTU.
func (w *site) wholeSegments(s *netstack.Stack) {
	t := w.t
	t.Helper()
	const size = 4 << 20
	w.toOurs(s, size)
	st, err := s.Stats()
	if q := st.Queues; err != nil || q.RxBytes < size || q.RxBytes < 1514*q.RxPackets { // acknowledgements too
		t.Errorf("%d packets of %d bytes came, cut: %v", q.RxPackets, q.RxBytes, err)
	}
}

// TestUncut: datagrams that a device was to cut come one by one, or not at all and are counted; never several as one.
func TestUncut(t *testing.T) { each(t, overUncut) }

func overUncut(t *testing.T, o netstack.Options) {
	asOn612(t)
	w := newSite(t, o)
	p, err := w.s.ListenPacket("udp", ours+":7000")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	k := w.kernelUDP()
	const one, n = 1000, 4
	k.segments(one)
	k.send(ours+":7000", strings.Repeat("x", one*n))
	k.segments(0)
	k.send(ours+":7000", "the last")
	came, b := 0, make([]byte, 10*one)
	for {
		size, _, err := p.ReadFrom(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:size]) == "the last" {
			break
		}
		if came++; size != one {
			t.Errorf("a datagram of %d bytes", size)
		}
	}
	st, err := w.s.Stats()
	if err != nil || (came != n || st.Uncut != 0) && (came != 0 || st.Uncut != 1) {
		t.Errorf("%d of %d came, %d packets of several, %v", came, n, st.Uncut, err)
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
