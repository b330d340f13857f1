package why

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
)

var guests = ktest.Config{Modules: []string{"veth"}}

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// What is sent: from sender to target, and a frame of a type that nobody handles (IEEE 802's first for experiments), behind
// which the others have been through.
const (
	port     = 9999
	sentinel = 0x88b5
)

var (
	sender  = netip.MustParseAddr("192.0.2.2")
	target  = netip.MustParseAddr("192.0.2.1")
	ours    = net.HardwareAddr{2, 0, 0, 0, 0, 1} // of the device in question
	theirs  = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	anybody = net.HardwareAddr{255, 255, 255, 255, 255, 255}
)

// site is a namespace with the device in question, "q", and one that sends to it, through "s".
type site struct {
	t        *testing.T
	here     netns.NS
	there    netns.NS
	h        *netlink.Handle // here
	q        netlink.Link
	tx       int // packet socket there: it sends, and receives answers
	rx       int // packet socket here
	udp      int // bound to the port here
	reader   *live.Reader
	closeAll []func() error
}

func (s *site) check(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func newSite(t *testing.T) *site {
	s := &site{t: t}
	t.Cleanup(func() {
		for i := len(s.closeAll) - 1; i >= 0; i-- {
			if err := s.closeAll[i](); err != nil {
				t.Error(err)
			}
		}
	})
	s.here, s.there = s.space(), s.space()
	s.h = s.handle(s.here)
	far := s.handle(s.there)
	s.check(far.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "s", HardwareAddr: theirs}, PeerName: "q", PeerHardwareAddr: ours, PeerNamespace: netlink.NsFd(s.here.FD())}))
	peer, err := far.LinkByName("s")
	s.check(err)
	s.check(far.LinkSetUp(peer))
	s.q, err = s.h.LinkByName("q")
	s.check(err)
	s.tx = s.packetSocket(s.there, peer.Attrs().Index)
	s.rx = s.packetSocket(s.here, s.q.Attrs().Index)
	s.check(s.here.Do(func() error {
		s.udp, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		s.closeAll = append(s.closeAll, func() error { return unix.Close(s.udp) })
		return unix.Bind(s.udp, &unix.SockaddrInet4{Port: port})
	}))
	s.reader, err = live.OpenNS(s.here)
	s.check(err)
	s.closeAll = append(s.closeAll, s.reader.Close)
	return s
}

func (s *site) space() netns.NS {
	ns, err := netns.New()
	s.check(err)
	s.closeAll = append(s.closeAll, ns.Close)
	return ns
}

func (s *site) handle(ns netns.NS) *netlink.Handle {
	h, err := netlink.NewHandleAt(nsh.NsHandle(ns.FD()), unix.NETLINK_ROUTE)
	s.check(err)
	s.closeAll = append(s.closeAll, func() error { h.Close(); return nil })
	return h
}

// packetSocket receives all frames of a device.
func (s *site) packetSocket(ns netns.NS, index int) (fd int) {
	s.check(ns.Do(func() (err error) {
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		s.closeAll = append(s.closeAll, func() error { return unix.Close(fd) })
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap(unix.ETH_P_ALL), Ifindex: index})
	}))
	return fd
}

func swap(v uint16) uint16 { return v<<8 | v>>8 }

// ethernet puts a header before a payload.
func ethernet(to net.HardwareAddr, typ uint16, payload []byte) []byte {
	b := append(append(append([]byte(nil), to...), theirs...), byte(typ>>8), byte(typ))
	return append(b, payload...)
}

// arpRequest asks for target.
func arpRequest() []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	b = append(append(b, theirs...), sender.AsSlice()...)
	return ethernet(anybody, unix.ETH_P_ARP, append(append(b, make([]byte, 6)...), target.AsSlice()...))
}

// datagram is a UDP datagram without a checksum.
func datagram(mac net.HardwareAddr, to netip.Addr) []byte {
	udp := []byte{0, 1, port >> 8, port & 0xff, 0, 9, 0, 0, 'x'}
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, sender.AsSlice()...), to.AsSlice()...)
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return ethernet(mac, unix.ETH_P_IP, append(ip, udp...))
}

// seen is what was observed of a frame.
type seen struct {
	raw      bool // a packet socket received it
	answer   bool // an answer of ARP came
	socket   bool // a UDP socket received it
	counters map[string]int64
}

// drain takes all there is from a socket.
func drain(fd int) (frames [][]byte) {
	for {
		b := make([]byte, 2048)
		n, _, err := unix.Recvfrom(fd, b, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return frames
		case err == nil:
			frames = append(frames, b[:n])
		case !errors.Is(err, unix.ENETDOWN): // told once when the device goes down
			return frames
		}
	}
}

// sentinels counts the frames that say that those before them have been dealt with: each has its number.
var sentinels uint64

func sentinelFrame() []byte {
	sentinels++
	return ethernet(ours, sentinel, binary.BigEndian.AppendUint64(make([]byte, 42), sentinels))
}

// isSentinel says whether a frame is the one made last.
func isSentinel(f []byte) bool {
	return etherType(f) == sentinel && binary.BigEndian.Uint64(f[14+42:]) == sentinels
}

func etherType(b []byte) uint16 { return binary.BigEndian.Uint16(b[12:]) }

// send sends a frame and then the sentinel, and tells what was seen.
func (s *site) send(frame []byte) (out seen) {
	s.t.Helper()
	for _, fd := range []int{s.tx, s.rx, s.udp} {
		drain(fd)
	}
	before := s.reader.Read(live.Counters)
	// The first sentinel says that the frame has been dealt with; the second, sent after that, comes behind the answer.
	for _, fs := range [][][]byte{{frame}, nil} {
		for _, f := range append(fs, sentinelFrame()) {
			if _, err := unix.Write(s.tx, f); err != nil && !errors.Is(err, unix.ENOBUFS) { // no carrier: the queue takes nothing
				s.t.Fatal(err)
			}
		}
		through, began := false, time.Now()
		for !through && time.Since(began) < 30*time.Second {
			for _, f := range drain(s.rx) {
				out.raw = out.raw || string(f[:14]) == string(frame[:14])
				through = through || isSentinel(f)
			}
			if s.down() && time.Since(began) > 100*time.Millisecond { // nothing will come
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	for _, f := range drain(s.tx) {
		out.answer = out.answer || etherType(f) == unix.ETH_P_ARP && f[21] == 2
	}
	out.socket = len(drain(s.udp)) > 0
	out.counters = netstate.Diff(before, s.reader.Read(live.Counters))
	return out
}

func (s *site) down() bool {
	l, err := s.h.LinkByIndex(s.q.Attrs().Index)
	return err == nil && l.Attrs().Flags&net.FlagUp == 0
}

// set sets a setting of the device.
func (s *site) set(name, value string) error {
	return s.here.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/q/"+name, []byte(value), 0) })
}

// TestNineVerdicts, which are twelve with a setting that changes one of them, provokes the three kinds of frames in the three states of a device, and compares what happens with what
// Explain says of the state as it was read.
func TestNineVerdicts(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	s := newSite(t)
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: target.AsSlice(), Mask: net.CIDRMask(24, 32)}}
	frames := map[Frame][]byte{ARP: arpRequest(), Unicast: datagram(ours, target), Broadcast: datagram(anybody, netip.AddrFrom4([4]byte{255, 255, 255, 255}))}
	for _, state := range []struct {
		name  string
		enter func() error
		want  map[Frame]Verdict
	}{
		{"down", func() error { return nil }, map[Frame]Verdict{ARP: NotReceived, Unicast: NotReceived, Broadcast: NotReceived}},
		{"up without an address", func() error { return s.h.LinkSetUp(s.q) }, map[Frame]Verdict{ARP: Ignored, Unicast: Dropped, Broadcast: Delivered}},
		{"up without an address, rp_filter", func() error { return s.set("rp_filter", "1") }, map[Frame]Verdict{ARP: Ignored, Unicast: Dropped, Broadcast: Dropped}},
		{"up with an address", func() error { return s.h.AddrAdd(s.q, addr) }, map[Frame]Verdict{ARP: Answered, Unicast: Delivered, Broadcast: Delivered}},
	} {
		s.check(state.enter())
		s.settle(state.name == "down")
		a, err := Explain(s.reader.Read(live.Links|live.Addrs|live.Routes|live.Rules|live.Sysctls), "q", Question{Dst: target, Src: sender})
		s.check(err)
		if len(a.Rows) != 3 {
			t.Fatalf("%d rows", len(a.Rows))
		}
		for _, r := range a.Rows {
			t.Run(fmt.Sprintf("%s, %s", state.name, r.Frame), func(t *testing.T) {
				if r.Verdict != state.want[r.Frame] {
					t.Errorf("said %s, want %s", r.Verdict, state.want[r.Frame])
				}
				s.compare(t, r, s.send(frames[r.Frame]))
			})
		}
	}
}

// settle waits until the device is in its state: the carrier comes a little later, and the other end's queue takes frames
// later still.
func (s *site) settle(down bool) {
	for deadline := time.Now().Add(30 * time.Second); !down && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if l, ok := s.reader.Read(live.Links).LinkByName("q"); !ok || l.Flags&iffLowerUp == 0 {
			continue
		}
		_, _ = unix.Write(s.tx, sentinelFrame()) // what the queue does not take does not come
		if slices.ContainsFunc(drain(s.rx), func(f []byte) bool { return etherType(f) == sentinel }) {
			return
		}
	}
}

// compare holds a verdict against what happened.
func (s *site) compare(t *testing.T, r Row, got seen) {
	t.Helper()
	want := seen{raw: r.Raw, answer: r.Verdict == Answered, socket: r.Verdict == Delivered}
	if got.raw != want.raw || got.answer != want.answer || got.socket != want.socket {
		t.Errorf("said %s; packet socket %v, answer %v, UDP socket %v", r.Verdict, got.raw, got.answer, got.socket)
	}
	if r.Counter != "" && got.counters[r.Counter] != 1 {
		t.Errorf("%s went up by %d: %v", r.Counter, got.counters[r.Counter], got.counters)
	}
	if r.Counter == "" && got.counters["Ip.InAddrErrors"] != 0 {
		t.Errorf("Ip.InAddrErrors went up: %v", got.counters)
	}
}
