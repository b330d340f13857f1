package netstack

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/fathom-trace/fathom/bypass/xsk"
	wire "github.com/fathom-trace/fathom/wire/header"
)

// sink is a queue that remembers what was sent, and in how many goes.
type sink struct {
	mu    sync.Mutex
	sent  []string
	kicks int
	bufs  [burst][]byte
}

func (s *sink) recv() ([]arrived, error)   { return nil, nil }
func (s *sink) free()                      {}
func (s *sink) prepare() (bool, error)     { return false, nil }
func (s *sink) park(context.Context) error { return nil }
func (s *sink) calm()                      {}
func (s *sink) stats() (xsk.Stats, error)  { return xsk.Stats{}, nil }
func (s *sink) room(n int) [][]byte {
	for i := range s.bufs[:n] {
		s.bufs[i] = make([]byte, 2048)
	}
	return s.bufs[:n]
}

func (s *sink) put(packets [][]byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range packets {
		tcp := header.TCP(b[wire.EthernetLen+header.IPv4MinimumSize:])
		s.sent = append(s.sent, fmt.Sprintf("%d:%s:%d:%d", tcp.SourcePort(), strings.ReplaceAll(tcp.Flags().String(), " ", ""), tcp.AckNumber(), len(tcp.Payload())))
	}
	return len(packets), nil
}

func (s *sink) kick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kicks++
}

func (s *sink) kicked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kicks
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.sent, " ")
}

// segment is a packet of TCP that gVisor could have made.
type segment struct {
	from    uint16 // the port that tells connections apart
	flags   header.TCPFlags
	ack     uint32
	payload int
	shut    bool // the window
	sack    bool
}

var segmentTo = netip.MustParseAddr("10.77.0.2")

func (s segment) packet() *stack.PacketBuffer {
	opts := []byte{header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionTS, header.TCPOptionTSLength, 0, 0, 0, 1, 0, 0, 0, 2}
	if s.sack {
		opts = append(opts, header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionSACK, 10, 0, 0, 0, 1, 0, 0, 0, 2)
	}
	size := header.TCPMinimumSize + len(opts)
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.IPv4MinimumSize + size, Payload: buffer.MakeWithData(make([]byte, s.payload))})
	window := uint16(1000)
	if s.shut {
		window = 0
	}
	tcp := header.TCP(p.TransportHeader().Push(size))
	tcp.Encode(&header.TCPFields{SrcPort: s.from, DstPort: 80, AckNum: s.ack, DataOffset: uint8(size), Flags: s.flags, WindowSize: window})
	copy(tcp[header.TCPMinimumSize:], opts)
	p.TransportProtocolNumber, p.NetworkProtocolNumber = header.TCPProtocolNumber, header.IPv4ProtocolNumber
	to := tcpip.AddrFrom4(segmentTo.As4())
	header.IPv4(p.NetworkHeader().Push(header.IPv4MinimumSize)).Encode(&header.IPv4Fields{TotalLength: uint16(p.Size()), TTL: 64, Protocol: uint8(header.TCPProtocolNumber),
		SrcAddr: tcpip.AddrFrom4([4]byte{10, 77, 0, 1}), DstAddr: to})
	p.EgressRoute.RemoteAddress = to
	return p
}

// ackLink is a link with one lane, whose neighbour is known.
func ackLink(s *sink, delay time.Duration) *link {
	near := &neighbours{mtu: 1500, hops: map[netip.Addr]*hop{}}
	near.learn(segmentTo, [6]byte{2, 0, 0, 0, 0, 2})
	l := newLink([]queue{s}, near, true, 2000)
	l.lanes[0].acks.delay = delay
	return l
}

func (s segment) send(t *testing.T, l *link) {
	t.Helper()
	p := s.packet()
	p.Hash = uint32(s.from)
	defer p.DecRef()
	if err := l.write([]*stack.PacketBuffer{p}); err != nil {
		t.Fatal(err)
	}
}

// TestAcks: what says nothing new is not sent, all else is, in its order.
func TestAcks(t *testing.T) {
	const ack, push, fin, syn = header.TCPFlagAck, header.TCPFlagAck | header.TCPFlagPsh, header.TCPFlagAck | header.TCPFlagFin, header.TCPFlagSyn
	begin := segment{from: 1, flags: syn | ack, ack: 100}
	for _, c := range []struct {
		what  string
		sends []segment
		now   string // what is sent at once
		then  string // what was held
	}{
		{"the first of a connection", []segment{{from: 1, flags: syn}, {from: 1, flags: ack, ack: 7}}, "1:S:0:0 1:A:7:0", ""},
		{"one that waits", []segment{begin, {from: 1, flags: ack, ack: 110}}, "1:SA:100:0", "1:A:110:0"},
		{"data says it too", []segment{begin, {from: 1, flags: ack, ack: 110}, {from: 1, flags: push, ack: 110, payload: 9}}, "1:SA:100:0 1:PA:110:9", ""},
		{"so does the end", []segment{begin, {from: 1, flags: ack, ack: 110}, {from: 1, flags: fin, ack: 111}}, "1:SA:100:0 1:FA:111:0", ""},
		{"every second one", []segment{begin, {from: 1, flags: ack, ack: 110}, {from: 1, flags: ack, ack: 120}, {from: 1, flags: ack, ack: 130}}, "1:SA:100:0 1:A:120:0", "1:A:130:0"},
		{"much that came", []segment{begin, {from: 1, flags: ack, ack: 1601}, {from: 1, flags: ack, ack: 3100}, {from: 1, flags: ack, ack: 4600}}, "1:SA:100:0 1:A:1601:0 1:A:4600:0", ""},
		{"one that is said again", []segment{begin, {from: 1, flags: ack, ack: 110}, {from: 1, flags: ack, ack: 110}, {from: 1, flags: ack, ack: 110}},
			"1:SA:100:0 1:A:110:0 1:A:110:0 1:A:110:0", ""},
		{"a hole", []segment{begin, {from: 1, flags: ack, ack: 110}, {from: 1, flags: ack, ack: 120, sack: true}}, "1:SA:100:0 1:A:110:0 1:A:120:0", ""},
		{"a window that is shut", []segment{begin, {from: 1, flags: ack, ack: 110, shut: true}}, "1:SA:100:0 1:A:110:0", ""},
		{"numbers that begin again", []segment{{from: 1, flags: syn | ack, ack: 0xfffffff0}, {from: 1, flags: ack, ack: 5}, {from: 1, flags: ack, ack: 9}}, "1:SA:4294967280:0 1:A:9:0", ""},
		{"two connections", []segment{begin, {from: 2, flags: syn | ack, ack: 50}, {from: 1, flags: ack, ack: 110}, {from: 2, flags: ack, ack: 60}, {from: 2, flags: push, ack: 60, payload: 1}},
			"1:SA:100:0 2:SA:50:0 2:PA:60:1", "1:A:110:0"},
		{"two in one place", []segment{begin, {from: 1, flags: ack, ack: 110}, {from: 1 + 1<<connBits, flags: ack, ack: 60}}, "1:SA:100:0 1:A:110:0 129:A:60:0", ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			s := &sink{}
			l := ackLink(s, time.Hour)
			for _, g := range c.sends {
				g.send(t, l)
			}
			if s.String() != c.now {
				t.Errorf("sent %s, want %s", s, c.now)
			}
			l.end()
			if want := strings.TrimSpace(c.now + " " + c.then); s.String() != want {
				t.Errorf("sent %s in the end, want %s", s, want)
			}
		})
	}
}

// TestAckDelay: what nothing took the place of is sent after a while, and the kernel is told.
func TestAckDelay(t *testing.T) {
	s := &sink{}
	l := ackLink(s, time.Millisecond)
	segment{from: 1, flags: header.TCPFlagAck | header.TCPFlagSyn, ack: 100}.send(t, l)
	for i := range uint32(3) { // the timer runs again and again
		segment{from: 1, flags: header.TCPFlagAck, ack: 110 + i}.send(t, l)
		want := fmt.Sprintf("1:A:%d:0", 110+i)
		for end := time.Now().Add(time.Minute); !strings.HasSuffix(s.String(), want) || s.kicked() < int(i)+2; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("sent %s in %d goes, want %s behind", s, s.kicked(), want)
			}
		}
	}
}
