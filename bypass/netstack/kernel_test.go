package netstack_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

var guests = ktest.Config{Modules: []string{"veth", "sch_netem", "bridge"}}

func TestMain(m *testing.M) {
	if dev := os.Getenv(victim); dev != "" {
		hold(dev)
		return
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// site is two hosts on a veth pair: a has a stack of ours, b the kernel's, or another of ours.
type site struct {
	t       *testing.T
	a, b    xsk.Device
	p       *topology.Pair
	s       *netstack.Stack
	patient context.Context
}

func newSite(t *testing.T, o netstack.Options) *site {
	t.Helper()
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	p, err := topology.NewPair("va", "vb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	at := func(h topology.Host) xsk.Device {
		return xsk.Device{Name: h.Dev, NetNS: fmt.Sprintf("/proc/self/fd/%d", h.FD())}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	w := &site{t: t, a: at(p.A), b: at(p.B), p: p, patient: ctx}
	w.s = w.open(w.a, o)
	return w
}

func (w *site) open(dev xsk.Device, o netstack.Options) *netstack.Stack {
	w.t.Helper()
	if o.Queues == nil {
		o.Queues = []int{0}
	}
	s, err := netstack.Open(dev, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return s
}

// kernel runs f in b's namespace.
func (w *site) kernel(f func() error) {
	w.t.Helper()
	if err := w.p.B.NS.Do(f); err != nil {
		w.t.Fatal(err)
	}
}

// dialKernel connects from b through the kernel.
func (w *site) dialKernel(network, addr string) (c net.Conn, err error) {
	_ = w.p.B.NS.Do(func() error { // the error is given
		c, err = (&net.Dialer{}).DialContext(w.patient, network, addr)
		return nil
	})
	return c, err
}

// each runs a test with each backend.
func each(t *testing.T, test func(*testing.T, netstack.Options)) {
	for _, b := range []netstack.Backend{netstack.XDP, netstack.Packet} {
		t.Run(b.String(), func(t *testing.T) { test(t, netstack.Options{Backend: b}) })
	}
}

// eachHere runs it with AF_XDP only where time is short: in guests.
func eachHere(t *testing.T, test func(*testing.T, netstack.Options)) {
	if ktest.InGuest() && !ktest.Soak() {
		test(t, netstack.Options{Backend: netstack.XDP})
		return
	}
	each(t, test)
}

// asOn612 skips what is the same on both guests' kernels.
func asOn612(t *testing.T) {
	t.Helper()
	if ktest.Where() == "debian-6.1" && !ktest.Soak() {
		t.Skip("the same as on debian-6.12: with make soak")
	}
}

const ours, theirs = "10.77.0.1", "10.77.0.2"

// TestHTTP serves a page by net/http over our TCP to the kernel's, and asks the kernel's for one: nothing of net/http is changed.
func TestHTTP(t *testing.T) { each(t, overHTTP) }

func overHTTP(t *testing.T, o netstack.Options) {
	w := newSite(t, o)
	page := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintf(rw, "hello %s\n", r.RemoteAddr) })
	get := func(dial func(context.Context, string, string) (net.Conn, error), addr string) string {
		t.Helper()
		c := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		r, err := http.NewRequestWithContext(w.patient, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	l, err := w.s.Listen("tcp", ours+":8080")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: page}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	kernel := func(_ context.Context, network, addr string) (net.Conn, error) { return w.dialKernel(network, addr) }
	for range 3 {
		if got := get(kernel, ours+":8080"); !strings.HasPrefix(got, "hello "+theirs+":") {
			t.Errorf("%q", got)
		}
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
	if _, err := w.dialKernel("tcp", ours+":8080"); !errors.Is(err, syscall.ECONNREFUSED) { // the kernel's again
		t.Errorf("dial a port that was closed: %v", err)
	}

	var kl net.Listener
	w.kernel(func() (err error) { kl, err = net.Listen("tcp", theirs+":80"); return err })
	other := &http.Server{Handler: page}
	go func() { served <- other.Serve(kl) }()
	defer func() { other.Close(); <-served }()
	for range 3 {
		if got := get(w.s.DialContext, theirs+":80"); !strings.HasPrefix(got, "hello "+ours+":") {
			t.Errorf("%q", got)
		}
	}
}

// TestStream sends megabytes both ways at once, between our TCP and the kernel's and between two of ours: all arrive as they were.
func TestStream(t *testing.T) { each(t, overStream) }

func overStream(t *testing.T, o netstack.Options) {
	asOn612(t)
	size := 8 << 20
	if ktest.InGuest() {
		size = 1 << 17
	}
	t.Run("kernel", func(t *testing.T) {
		w := newSite(t, o)
		w.toOurs(w.s, size)
		var kl net.Listener
		w.kernel(func() (err error) { kl, err = net.Listen("tcp", theirs+":9001"); return err })
		defer kl.Close()
		c, err := w.s.DialContext(w.patient, "tcp", theirs+":9001")
		if err != nil {
			t.Fatal(err)
		}
		stream(t, kl, c, size)
	})
	t.Run("ours", func(t *testing.T) {
		w := newSite(t, o)
		other := w.open(w.b, o)
		l, err := other.Listen("tcp", ":9000")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := w.s.DialContext(w.patient, "tcp", theirs+":9000")
		if err != nil {
			t.Fatal(err)
		}
		stream(t, l, c, size)
	})
}

// TestVerified: where checksums are verified nothing is lost by that: no segment has to be sent again.
func TestVerified(t *testing.T) { eachHere(t, overVerified) }

func overVerified(t *testing.T, o netstack.Options) {
	o.Checksums = netstack.ChecksumVerify
	w := newSite(t, o)
	w.finishChecksums()
	const size = 1 << 18
	w.toOurs(w.s, size)
	st, err := w.s.Stats()
	if err != nil || st.BadChecksums > 0 || st.Queues.RxBytes > 2*size {
		t.Errorf("%d bytes came for %d: %+v, %v", st.Queues.RxBytes, size, st, err)
	}
}

// TestUnfinished: where checksums are verified, packets that need none are taken all the same: those whose checksum the kernel left to a device.
func TestUnfinished(t *testing.T) {
	w := newSite(t, netstack.Options{Backend: netstack.Packet, Checksums: netstack.ChecksumVerify})
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { <-ctx.Done(); l.Close() }()
	c, err := w.dialKernel("tcp", ours+":9000")
	if err != nil {
		t.Fatal(err)
	}
	stream(t, l, c, 1<<18)
	in, err := w.s.ListenPacket("udp", ":4000")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	w.kernelUDP().send(ours+":4000", "one")
	b := make([]byte, 100)
	in.SetReadDeadline(time.Now().Add(time.Minute))
	if n, _, err := in.ReadFrom(b); err != nil || string(b[:n]) != "one" {
		t.Errorf("%q: %v", b[:n], err)
	}
	if st, err := w.s.Stats(); err != nil || st.BadChecksums > 0 {
		t.Errorf("%+v, %v", st, err)
	}
}

// toOurs connects from b's kernel to a stack and sends so many bytes both ways, as stream does.
func (w *site) toOurs(s *netstack.Stack, size int) {
	w.t.Helper()
	l, err := s.Listen("tcp", ":9000")
	if err != nil {
		w.t.Fatal(err)
	}
	defer l.Close()
	c, err := w.dialKernel("tcp", ours+":9000")
	if err != nil {
		w.t.Fatal(err)
	}
	stream(w.t, l, c, size)
}

// stream sends bytes from both ends of a connection, closes each direction by itself, and compares.
func stream(t *testing.T, l net.Listener, client net.Conn, size int) {
	t.Helper()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i, ends := range [][2]net.Conn{{client, server}, {server, client}} {
		sent, got := sha256.New(), sha256.New()
		wg.Go(func() {
			r := rand.NewChaCha8([32]byte{byte(i)})
			if _, err := io.Copy(ends[0], io.TeeReader(io.LimitReader(r, int64(size)), sent)); err != nil {
				t.Error("send:", err)
			}
			if err := ends[0].(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Error("close sending:", err)
			}
		})
		var rg sync.WaitGroup
		rg.Go(func() {
			n, err := io.Copy(got, ends[1])
			if err != nil || n != int64(size) {
				t.Errorf("%d bytes of %d received: %v", n, size, err)
			}
		})
		wg.Go(func() { rg.Wait() })
		defer func() {
			if a, b := fmt.Sprintf("%x", sent.Sum(nil)), fmt.Sprintf("%x", got.Sum(nil)); a != b {
				t.Errorf("direction %d: what was received is not what was sent", i)
			}
		}()
	}
	wg.Wait()
	for _, c := range []net.Conn{client, server} {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRefused: errors are those that package net gives.
func TestRefused(t *testing.T) { eachHere(t, overRefused) }

func overRefused(t *testing.T, o netstack.Options) {
	asOn612(t)
	w := newSite(t, o)
	if _, err := w.s.DialContext(w.patient, "tcp", theirs+":1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	if _, err := w.s.DialContext(w.patient, "tcp", "10.77.0.99:1"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("nobody is there: %v", err)
	}
	if _, err := w.s.DialContext(w.patient, "tcp", "192.0.2.1:1"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("no route: %v", err)
	}
	if _, err := w.s.DialContext(w.patient, "tcp", ours+":1"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("the host itself: %v", err)
	}
	ctx, cancel := context.WithCancel(w.patient)
	cancel()
	if _, err := w.s.DialContext(ctx, "tcp", theirs+":1"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.Listen("tcp", ":9000"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port of ours: %v", err)
	}
	err = w.p.A.NS.Do(func() error {
		l, err := net.Listen("tcp", ":9000")
		if err == nil {
			l.Close()
		}
		return err
	})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("the kernel gave away a port of ours: %v", err)
	}
	closed := make(chan error, 1)
	go func() { time.Sleep(20 * time.Millisecond); closed <- l.Close() }()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept of a closed listener: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if l, err = w.s.Listen("tcp", ":9000"); err != nil {
		t.Errorf("the port is not free again: %v", err)
	}
	c, err := w.dialKernel("tcp", ours+":9000")
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("deadline: %v", err)
	}
	s.SetReadDeadline(time.Time{})
	if err := c.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := s.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("reset: %v", err)
	}
}

// TestMany opens and closes connections, some at once: the kernel's end is always answered.
func TestMany(t *testing.T) { eachHere(t, overMany) }

func overMany(t *testing.T, o netstack.Options) {
	asOn612(t)
	n := 2000
	switch {
	case ktest.Soak() && !ktest.InGuest():
		n = 10_000
	case ktest.InGuest():
		n = 64
	}
	w := newSite(t, o)
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	var kl net.Listener
	w.kernel(func() (err error) { kl, err = net.Listen("tcp", theirs+":9001"); return err })
	echo(t, kl)
	for name, dial := range map[string]func() (net.Conn, error){
		"accepted": func() (net.Conn, error) { return w.dialKernel("tcp", ours+":9000") },
		"made":     func() (net.Conn, error) { return w.s.DialContext(w.patient, "tcp", theirs+":9001") },
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for at := range 8 {
				wg.Go(func() {
					for i := range n / 8 {
						c, err := dial()
						if err != nil {
							t.Errorf("connection %d of %d: %v", i, at, err)
							return
						}
						want := fmt.Sprint(at, " ", i)
						if _, err := c.Write([]byte(want)); err != nil {
							t.Error(err)
						}
						c.SetReadDeadline(time.Now().Add(time.Minute))
						got := make([]byte, len(want))
						if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
							t.Errorf("connection %d of %d: %q, %v", i, at, got, err)
						}
						c.Close()
					}
				})
			}
			wg.Wait()
		})
	}
	st, err := w.s.Stats()
	t.Logf("%+v: %v", st, err)
}

// echo sends back what comes, until the test ends.
func echo(t *testing.T, l net.Listener) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // the other end says what is wrong
			})
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
}

// echoBack answers with what came.
func echoBack(_ netip.AddrPort, payload []byte) netstack.Reply {
	return func(room []byte) int { return copy(room, payload) }
}

// TestUDP: datagrams of a socket that is like the kernel's, of a handler, and of a group that the kernel joins.
func TestUDP(t *testing.T) { each(t, overUDP) }

func overUDP(t *testing.T, o netstack.Options) {
	for _, o := range []netstack.Options{{Backend: o.Backend, Checksums: netstack.ChecksumTrust}, {Backend: o.Backend, Checksums: netstack.ChecksumVerify}} {
		t.Run(fmt.Sprint("checksums ", o.Checksums), func(t *testing.T) {
			w := newSite(t, o)
			if o.Checksums == netstack.ChecksumVerify {
				w.finishChecksums()
			}
			pc, err := w.s.ListenPacket("udp", ":4000")
			if err != nil {
				t.Fatal(err)
			}
			defer pc.Close()
			in, err := w.s.HandleUDP("udp", ours+":4001", func(from netip.AddrPort, payload []byte) netstack.Reply {
				return func(room []byte) int { return copy(room, from.Addr().String()+" "+string(payload)) }
			})
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			k := w.kernelUDP()
			k.send(ours+":4000", "one")
			b := make([]byte, 100)
			pc.SetReadDeadline(time.Now().Add(time.Minute))
			n, from, err := pc.ReadFrom(b)
			if err != nil || string(b[:n]) != "one" {
				t.Fatalf("%q from %v: %v", b[:n], from, err)
			}
			if _, err := pc.WriteTo([]byte("two"), from); err != nil {
				t.Fatal(err)
			}
			k.want("two")
			k.send(ours+":4001", "three")
			k.want(theirs + " three")

			c, err := w.s.DialContext(w.patient, "udp", k.addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte("four")); err != nil {
				t.Fatal(err)
			}
			back := k.want("four")
			k.send(back, "five")
			c.SetReadDeadline(time.Now().Add(time.Minute))
			if n, err := c.Read(b); err != nil || string(b[:n]) != "five" {
				t.Fatalf("%q: %v", b[:n], err)
			}

			none, err := w.s.DialContext(w.patient, "udp", theirs+":1")
			if err != nil {
				t.Fatal(err)
			}
			defer none.Close()
			for began := time.Now(); err == nil && time.Since(began) < 30*time.Second; time.Sleep(time.Millisecond) { // ICMP says so a little later
				_, err = none.Write([]byte("to nobody"))
			}
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("a port that nobody has: %v", err)
			}

			heard := make(chan string, 1)
			group, err := w.s.HandleUDP("udp", "239.1.2.3:4002", func(_ netip.AddrPort, payload []byte) netstack.Reply {
				heard <- string(payload)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			defer group.Close()
			w.kernel(func() error { return w.route("239.0.0.0/8") })
			k.send("239.1.2.3:4002", "tick")
			select {
			case got := <-heard:
				if got != "tick" {
					t.Error(got)
				}
			case <-w.patient.Done():
				t.Error("nothing came from the group")
			}
			if st, err := w.s.Stats(); err != nil || st.BadChecksums != 0 {
				t.Errorf("%+v: %v", st, err)
			}
		})
	}
}

// finishChecksums has the kernel compute the checksums of what b sends: on veth it does not, for nothing can go wrong there.
func (w *site) finishChecksums() {
	w.t.Helper()
	w.kernel(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
		req := struct { // struct ifreq
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(req.name[:], w.b.Name)
		if _, _, no := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req))); no != 0 {
			return no
		}
		return nil
	})
}

// route has packets of b to a network leave by its device.
func (w *site) route(prefix string) error {
	l, err := netlink.LinkByName(w.b.Name)
	if err != nil {
		return err
	}
	_, dst, err := net.ParseCIDR(prefix)
	if err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: dst, Scope: netlink.SCOPE_LINK})
}

// kernelUDP is a socket of UDP in b.
type kernelUDP struct {
	t *testing.T
	c *net.UDPConn
}

func (w *site) kernelUDP() *kernelUDP {
	k := &kernelUDP{t: w.t}
	w.kernel(func() (err error) {
		k.c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(theirs+":0")))
		return err
	})
	w.t.Cleanup(func() { k.c.Close() })
	return k
}

func (k *kernelUDP) addr() string { return k.c.LocalAddr().String() }

func (k *kernelUDP) send(to, text string) {
	k.t.Helper()
	if _, err := k.c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		k.t.Fatal(err)
	}
}

// segments has what is sent be cut into datagrams of so many bytes, by whoever is last to do so (UDP_SEGMENT); 0: not at all.
func (k *kernelUDP) segments(size int) {
	k.t.Helper()
	r, err := k.c.SyscallConn()
	if err != nil {
		k.t.Fatal(err)
	}
	if cerr := r.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, size) }); cerr != nil || err != nil {
		k.t.Fatal(cerr, err)
	}
}

// want waits for a datagram and says who it is from.
func (k *kernelUDP) want(text string) string {
	k.t.Helper()
	b := make([]byte, len(text)+100)
	k.c.SetReadDeadline(time.Now().Add(time.Minute))
	n, from, err := k.c.ReadFromUDPAddrPort(b)
	if err != nil || string(b[:n]) != text {
		k.t.Fatalf("%q, want %q: %v", b[:n], text, err)
	}
	return from.String()
}
