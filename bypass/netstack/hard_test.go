package netstack_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/internal/oracle"
)

// victim is set in a process that TestKill kills: the device it is to hold.
const victim = "FATHOM_NETSTACK_VICTIM"

// hold listens on a device, and has a connection, until the process is killed.
func hold(dev string) {
	dev, way, _ := strings.Cut(dev, ",")
	name, ns, _ := strings.Cut(dev, "@")
	b, err := netstack.ParseBackend(way)
	var s *netstack.Stack
	if err == nil {
		s, err = netstack.Open(xsk.Device{Name: name, NetNS: ns}, netstack.Options{Queues: []int{0}, Backend: b})
	}
	if err == nil {
		_, err = s.Listen("tcp", ":9000")
	}
	if err == nil {
		_, err = s.Dial("tcp", theirs+":9001")
	}
	fmt.Println("held", err)
	for {
		time.Sleep(time.Hour)
	}
}

// lossy makes what a host sends suffer.
func (w *site) lossy(ns netns.NS, dev string, n netlink.NetemQdiscAttrs) {
	w.t.Helper()
	err := ns.Do(func() error {
		l, err := netlink.LinkByName(dev)
		if err != nil {
			return err
		}
		return netlink.QdiscReplace(netlink.NewNetem(netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(1, 0)}, n))
	})
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EOPNOTSUPP) {
		ktest.Unsupported(w.t, fmt.Errorf("sch_netem: %w", err))
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// TestLoss sends through a link that loses, repeats, reorders and corrupts packets: what arrives is what was sent, and what was corrupted is
// counted. Checksums are verified there. What AF_XDP sends passes no queueing discipline, so only the kernel's packets suffer there, data and
// acknowledgements; with AF_PACKET all do, also between two stacks of ours.
func TestLoss(t *testing.T) {
	for _, tt := range []struct {
		name   string
		o      netstack.Options
		kernel bool
	}{
		{"xdp and the kernel", netstack.Options{Backend: netstack.XDP, Checksums: netstack.ChecksumVerify}, true},
		{"packet and the kernel", netstack.Options{Backend: netstack.Packet, Checksums: netstack.ChecksumVerify}, true},
		{"packet and packet", netstack.Options{Backend: netstack.Packet, Checksums: netstack.ChecksumVerify}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if ktest.InGuest() && !ktest.Soak() && tt.o.Backend != netstack.XDP {
				t.Skip("the same as on the machine")
			}
			lossy(t, tt.o, tt.kernel)
		})
	}
}

// lossySize is how much is sent each way. FATHOM_SOAK_BYTES says another number for make soak.
func lossySize(t *testing.T) int {
	t.Helper()
	switch n := os.Getenv("FATHOM_SOAK_BYTES"); {
	case n != "" && ktest.Soak():
		size, err := strconv.Atoi(n)
		if err != nil {
			t.Fatal(err)
		}
		return size
	case ktest.InGuest():
		return 1 << 17
	case ktest.Soak():
		return 1 << 30
	}
	return 2 << 20
}

func lossy(t *testing.T, o netstack.Options, kernel bool) {
	w := newSite(t, o)
	w.lossy(w.p.B.NS, w.b.Name, netlink.NetemQdiscAttrs{Latency: 1000, Jitter: 500, Loss: 3, Duplicate: 1, ReorderProb: 2, CorruptProb: 5})
	w.lossy(w.p.A.NS, w.a.Name, netlink.NetemQdiscAttrs{Latency: 1000, Jitter: 500, Loss: 1, Duplicate: 5, ReorderProb: 5, CorruptProb: 2})
	transfer(t, w, o, kernel)
}

// transfer sends both ways between a stack and the kernel, or another stack.
func transfer(t *testing.T, w *site, o netstack.Options, kernel bool) {
	size := lossySize(t)
	w.finishChecksums()
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func() (net.Conn, error) { return w.dialKernel("tcp", ours+":9000") }
	if !kernel {
		other := w.open(w.b, o)
		dial = func() (net.Conn, error) { return other.DialContext(w.patient, "tcp", ours+":9000") }
	}
	began := time.Now()
	for times := 1; ; times++ {
		c, err := dial()
		if err != nil {
			t.Fatal(err)
		}
		stream(t, l, c, size)
		st, err := w.s.Stats()
		if err != nil {
			t.Fatal(err)
		}
		if st.BadChecksums > 0 {
			t.Logf("%d bytes each way, %d times, in %v, %d segments sent again, %d packets with a wrong checksum", size, times, time.Since(began), st.Retransmits, st.BadChecksums)
			return
		}
		if times == 20 { // of few packets it may be none: which ones suffer is chance
			t.Fatalf("none was corrupted in %d times: %+v", times, st)
		}
	}
}

// TestSix: the same over IPv6, by a link-local address and a global one.
func TestSix(t *testing.T) { eachHere(t, overSix) }

func overSix(t *testing.T, o netstack.Options) {
	asOn612(t)
	w := newSite(t, o)
	for ns, a := range map[netns.NS]string{w.p.A.NS: "fd00::1/64", w.p.B.NS: "fd00::2/64"} {
		dev := map[string]string{"fd00::1/64": w.a.Name, "fd00::2/64": w.b.Name}[a]
		if err := ns.Do(func() error {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+dev+"/accept_dad", []byte("0"), 0); err != nil {
				return err
			}
			l, err := netlink.LinkByName(dev)
			if err != nil {
				return err
			}
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			addr.Flags = 0x02 // IFA_F_NODAD
			return netlink.AddrAdd(l, addr)
		}); err != nil {
			if errors.Is(err, os.ErrNotExist) {
				ktest.Unsupported(t, fmt.Errorf("IPv6: %w", err))
			}
			t.Fatal(err)
		}
	}
	l, err := w.s.Listen("tcp", ":9000") // the address, which came later, is followed
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var c net.Conn
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err = w.dialKernel("tcp", "[fd00::1]:9000"); err == nil {
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal(err)
		}
	}
	stream(t, l, c, 1<<14)
	var kl net.Listener
	w.kernel(func() (err error) { kl, err = net.Listen("tcp", "[fd00::2]:9001"); return err })
	defer kl.Close()
	if c, err = w.s.DialContext(w.patient, "tcp", "[fd00::2]:9001"); err != nil {
		t.Fatal(err)
	}
	stream(t, kl, c, 1<<14)
	in, err := w.s.HandleUDP("udp6", "[fd00::1]:4001", echoBack)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var u net.Conn
	w.kernel(func() (err error) { u, err = net.Dial("udp", "[fd00::1]:4001"); return err })
	defer u.Close()
	if _, err := u.Write([]byte("six")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 10)
	u.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := u.Read(b); err != nil || string(b[:n]) != "six" {
		t.Errorf("%q: %v", b[:n], err)
	}
}

// TestKill: of a process that is killed no program, port or connection is left.
func TestKill(t *testing.T) { eachHere(t, overKill) }

func overKill(t *testing.T, o netstack.Options) {
	w := newSite(t, o)
	if err := w.s.Close(); err != nil { // the device is for another process
		t.Fatal(err)
	}
	var kl net.Listener
	w.kernel(func() (err error) { kl, err = net.Listen("tcp", theirs+":9001"); return err })
	defer kl.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), victim+"="+fmt.Sprintf("va@/proc/%d/fd/%d,%v", os.Getpid(), w.p.A.FD(), o.Backend))
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var said [64]byte
	n, _ := out.Read(said[:])
	if got := string(said[:n]); got != "held <nil>\n" {
		t.Error(got)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if err := w.p.A.NS.Do(func() error {
		ifi, err := net.InterfaceByName(w.a.Name)
		if err != nil {
			return err
		}
		ps, err := held.On(ifi.Index)
		for began := time.Now(); err == nil && len(ps) > 0 && time.Since(began) < time.Minute; time.Sleep(10 * time.Millisecond) {
			ps, err = held.On(ifi.Index) // whoever looks at all links of the machine has each for a moment
		}
		if err != nil || len(ps) > 0 {
			t.Errorf("left: %+v, %v", ps, err)
		}
		for _, port := range []string{":9000", ":61000"} {
			l, err := net.Listen("tcp", port)
			if err != nil {
				t.Errorf("%s is not free again: %v", port, err)
				continue
			}
			l.Close()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestTools: a program that is not ours talks to it.
func TestTools(t *testing.T) { eachHere(t, overTools) }

func overTools(t *testing.T, o netstack.Options) {
	if ktest.InGuest() {
		t.Skip("there are no tools in a guest")
	}
	w := newSite(t, o)
	l, err := w.s.Listen("tcp", ":9000")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, l)
	python := oracle.Path(t, "python3")
	var out []byte
	w.kernel(func() error {
		cmd := exec.Command(python, "-c", `
import socket
s = socket.create_connection(("`+ours+`", 9000), timeout=60)
sent = bytes(range(256)) * 4096
s.setblocking(False)
got, at = b"", 0
import select
while len(got) < len(sent):
    r, w, _ = select.select([s], [s] if at < len(sent) else [], [], 60)
    if w: at += s.send(sent[at:at + 65536])
    if r: got += s.recv(65536)
s.setblocking(True)
s.shutdown(socket.SHUT_WR)
print(got == sent, s.recv(1))
`)
		out, err = cmd.CombinedOutput()
		return nil
	})
	if err != nil || string(out) != "True b''\n" {
		t.Errorf("%s: %v", out, err)
	}
}
