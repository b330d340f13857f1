package traffic_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lab/topology"
)

// listen opens a UDP socket of the kernel's in a host.
func listen(t *testing.T, h topology.Host, addr string) (c *net.UDPConn) {
	t.Helper()
	if err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// say sends a datagram from a host.
func say(t *testing.T, c *net.UDPConn, to, text string) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort([]byte(text), netip.MustParseAddrPort(to)); err != nil {
		t.Fatal(err)
	}
}

// hear reads a datagram; it is there in the end.
func hear(t *testing.T, c *net.UDPConn) string {
	t.Helper()
	var b [2048]byte
	n, _, err := c.ReadFromUDPAddrPort(b[:])
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n])
}

// take waits for n packets and gives their last bytes as text.
func take(t *testing.T, q *xsk.Queue, n int) (out []string) {
	t.Helper()
	var fs [16]xsk.Frame
	for len(out) < n {
		k, err := q.Recv(fs[:])
		if err != nil {
			t.Fatal(err)
		}
		for i := range fs[:k] {
			b := fs[i].Bytes()
			out = append(out, string(b[42:]))
		}
		q.Free(fs[:k])
		if k == 0 {
			if err := q.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	return out
}

// TestRules changes what goes past the kernel while packets come, and looks at what each rule counted.
func TestRules(t *testing.T) {
	p, _, b := pair(t)
	port := func(n uint16) steer.Rule { return toPort(t, n)[0] }
	waits := []xsk.Wait{xsk.Netpoll, xsk.Poll, xsk.Spin, xsk.SpinYield, xsk.BusyPoll}
	if ktest.InGuest() {
		waits = []xsk.Wait{xsk.Netpoll, xsk.BusyPoll} // emulated CPUs are slow; this machine tries all
	}
	for _, mode := range []steer.Mode{steer.Native, steer.Generic} {
		for _, w := range waits {
			t.Run(fmt.Sprint(mode, w), func(t *testing.T) {
				s := open(t, traffic.Config{Device: b, Rules: []steer.Rule{port(5000), {Filter: "udp dst port 5001", Action: steer.Drop}}, Steer: steer.Options{Mode: mode}, Queue: xsk.Options{Wait: w, RetryFor: time.Minute}})
				if s.Program.Mode() != mode {
					t.Errorf("it runs in %v", s.Program.Mode())
				}
				from, kernel := listen(t, p.A, "10.77.0.1:0"), listen(t, p.B, "10.77.0.2:5000")
				other := listen(t, p.B, "10.77.0.2:5002")
				say(t, from, "10.77.0.2:5000", "one") // an address that must be asked for first: ARP is the kernel's
				say(t, from, "10.77.0.2:5001", "dropped")
				say(t, from, "10.77.0.2:5002", "kernel")
				if got := take(t, s.Queues[0], 1); got[0] != "one" {
					t.Errorf("past the kernel: %q", got)
				}
				if got := hear(t, other); got != "kernel" {
					t.Errorf("to the kernel: %q", got)
				}
				hits(t, s.Program, 1, 1)
				if err := s.Program.Set([]steer.Rule{port(5002), port(5000), {Filter: "udp dst port 5003", Action: steer.ToKernel}, {Filter: "udp dst portrange 5003-5009"}}); err != nil {
					t.Fatal(err)
				}
				third := listen(t, p.B, "10.77.0.2:5003")
				for i, text := range []string{"a", "b", "c", "d"} {
					say(t, from, fmt.Sprintf("10.77.0.2:%d", []int{5000, 5002, 5003, 5009}[i]), text)
				}
				if d := cmp.Diff([]string{"a", "b", "d"}, take(t, s.Queues[0], 3)); d != "" {
					t.Error(d)
				}
				if got := hear(t, third); got != "c" {
					t.Errorf("to the kernel: %q", got)
				}
				hits(t, s.Program, 1, 2, 1, 1)
				if err := s.Program.Set(nil); err != nil {
					t.Fatal(err)
				}
				say(t, from, "10.77.0.2:5000", "back")
				if got := hear(t, kernel); got != "back" {
					t.Errorf("to the kernel: %q", got)
				}
			})
		}
	}
}

func hits(t *testing.T, p *steer.Program, want ...uint64) {
	t.Helper()
	got, err := p.Hits()
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Error(err, d)
	}
}

// TestKernelUndisturbed keeps a connection of the kernel's open on the same address while datagrams go past it.
func TestKernelUndisturbed(t *testing.T) {
	p, a, b := pair(t)
	var l net.Listener
	if err := p.B.Do(func() (err error) { l, err = net.Listen("tcp4", "10.77.0.2:22"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	if err := p.A.Do(func() (err error) { c, err = net.Dial("tcp4", "10.77.0.2:22"); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	served, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	go func() { _, _ = io.Copy(served, served) }() // ends with the connection
	ask := func(text string) {
		t.Helper()
		var got [64]byte
		if _, err := c.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if n, err := io.ReadFull(c, got[:len(text)]); err != nil || string(got[:n]) != text {
			t.Fatalf("%q %v", got[:n], err)
		}
	}
	ask("before")
	s := open(t, traffic.Config{Device: b, Rules: toPort(t, 4096)})
	tx := open(t, traffic.Config{Device: a, NoProgram: true, Queue: xsk.Options{NoRX: true}})
	ask("attached")
	tm := template(t, a, b, 60)
	for i := range 20 {
		if _, err := traffic.Send(t.Context(), tx.Queues[0], traffic.SendOptions{Template: tm, Count: 100, Batch: 50}); err != nil {
			t.Fatal(err)
		}
		ask(fmt.Sprintf("during %d", i))
	}
	hits(t, s.Program, 2000)
}

// TestSharedMemory: devices of the same number in two namespaces share frames, and forward without a copy.
func TestSharedMemory(t *testing.T) {
	p1, _, b1 := pair(t)
	p2, a2, _ := pair(t)
	u, err := xsk.NewUMEM(xsk.Memory{Frames: 1024, FrameSize: 2048, Queues: 2})
	if err != nil {
		t.Fatal(err)
	}
	in, err := u.Open(b1, 0, xsk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := u.Open(a2, 0, xsk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if in.Key() == out.Key() || in.Key().Ifindex != out.Key().Ifindex || !out.Caps().Shared {
		t.Errorf("%+v %+v %+v", in.Key(), out.Key(), out.Caps())
	}
	prog, err := steer.Attach(b1, toPort(t, 6000), steer.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := prog.Add(in); err != nil {
		t.Fatal(err)
	}
	from, to := listen(t, p1.A, "10.77.0.1:0"), listen(t, p2.B, "10.77.0.2:6000")
	la, err := traffic.Of(a2)
	if err != nil {
		t.Fatal(err)
	}
	mac, err := traffic.MACOf(a2, la, netip.MustParseAddr("10.77.0.2"))
	if err != nil {
		t.Fatal(err)
	}
	if addr, err := traffic.AddrOf(a2, la, mac); err != nil || addr.String() != "10.77.0.2" {
		t.Error(addr, err)
	}
	var fs [8]xsk.Frame
	for i := range 3000 { // more often than there are frames
		say(t, from, "10.77.0.2:6000", fmt.Sprintf("no %d", i))
		for n := 0; n == 0; {
			if err := in.Wait(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n, err = in.Recv(fs[:]); err != nil {
				t.Fatal(err)
			}
			for j := range fs[:n] {
				f := fs[j].Bytes()
				copy(f, mac)
				f[40], f[41] = 0, 0 // the sender left the checksum to the device
			}
			if sent, err := out.Send(fs[:n]); sent != n || err != nil {
				t.Fatal(sent, err)
			}
		}
		if got := hear(t, to); got != fmt.Sprintf("no %d", i) {
			t.Fatalf("%d: %q", i, got)
		}
	}
	if err := u.Close(); err == nil {
		t.Error("memory is closed while queues use it")
	}
	if err := errors.Join(prog.Close(), in.Close(), out.Close(), u.Close()); err != nil {
		t.Error(err)
	}
}

// TestTxMetadata has the kernel finish a checksum that was begun here.
func TestTxMetadata(t *testing.T) {
	p, a, b := pair(t)
	u, err := xsk.NewUMEM(xsk.Memory{Frames: 64, TxMetadata: true})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	q, err := u.Open(a, 0, xsk.Options{NoRX: true})
	if errors.Is(err, feature.ErrUnsupported) {
		ktest.Unsupported(t, err, "debian-6.1")
	} else if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	kernel := listen(t, p.B, "10.77.0.2:4096")
	tm := template(t, a, b, 100)
	for _, asked := range []bool{false, true} {
		var f [1]xsk.Frame
		if q.Alloc(f[:]) != 1 {
			t.Fatal("no frame")
		}
		f[0].SetLen(tm.Len())
		tm.Write(f[0].Bytes(), 1)
		if asked {
			if err := f[0].AskChecksum(34, 6); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := q.Send(f[:]); err != nil {
			t.Fatal(err)
		}
		if got := hear(t, kernel); len(got) != 100-42 {
			t.Errorf("asked %v: %d bytes came", asked, len(got))
		}
	}
	if s := stats(t, q); s.Kernel.TxInvalidDescs != 0 {
		t.Errorf("%+v", s)
	}
}

// TestMultiBuffer takes packets that are longer than a frame.
func TestMultiBuffer(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.XDP, ktest.AFXDP)
	p, err := topology.Join(topology.Config{MTU: 9000,
		A: topology.End{Dev: "va", Addr: netip.MustParsePrefix("10.77.0.1/24")}, B: topology.End{Dev: "vb", Addr: netip.MustParsePrefix("10.77.0.2/24")}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b := xsk.Device{Name: "vb", NetNS: fmt.Sprintf("/proc/self/fd/%d", p.B.FD())}
	s, err := traffic.Open(t.Context(), traffic.Config{Device: b, Queues: []int{0}, Rules: toPort(t, 5000), Queue: xsk.Options{MultiBuffer: true}, Steer: steer.Options{Mode: steer.Native, MultiBuffer: true}})
	if err != nil {
		ktest.Unsupported(t, err, "debian-6.1")
	}
	defer s.Close()
	if !s.Queues[0].Caps().MultiBuffer {
		t.Error("they are not on")
	}
	from := listen(t, p.A, "10.77.0.1:0")
	say(t, from, "10.77.0.2:5000", string(make([]byte, 8900)))
	n, parts := 0, 0
	var fs [8]xsk.Frame
	for done := false; !done; {
		if err := s.Queues[0].Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		k, err := s.Queues[0].Recv(fs[:])
		if err != nil {
			t.Fatal(err)
		}
		for i := range fs[:k] {
			n, parts, done = n+len(fs[i].Bytes()), parts+1, !fs[i].More()
		}
		s.Queues[0].Free(fs[:k])
	}
	if n != 8900+42 || parts < 3 {
		t.Errorf("%d bytes in %d frames", n, parts)
	}
}
