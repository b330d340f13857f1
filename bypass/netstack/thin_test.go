package netstack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	wire "github.com/fathom-trace/fathom/wire/header"
)

// ackFrame is an acknowledgement in Ethernet, changed by f.
func ackFrame(v6 bool, ack uint32, f func(tcp header.TCP)) []byte {
	p := large(rand.New(rand.NewPCG(1, 2)), v6, nil, 1000, header.TCPFlagAck)
	defer p.DecRef()
	tcp := header.TCP(p.TransportHeader().Slice())
	tcp.SetAckNumber(ack)
	if f != nil {
		f(tcp)
	}
	b := make([]byte, wire.EthernetLen, 100)
	proto := header.IPv4ProtocolNumber
	if v6 {
		proto = header.IPv6ProtocolNumber
	}
	b[12], b[13] = byte(proto>>8), byte(proto)
	return append(b, p.ToView().AsSlice()...)
}

// TestSupersedes: of two packets the first goes only if it is an acknowledgement, and the second says more.
func TestSupersedes(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a := ackFrame(v6, 1000, nil)
		for _, c := range []struct {
			name  string
			first []byte
			then  []byte
			want  bool
		}{
			{"more", a, ackFrame(v6, 1001, nil), true},
			{"numbers begin anew", ackFrame(v6, 0xfffffff0, nil), ackFrame(v6, 5, nil), true},
			{"padded to 60 bytes and more", append(slices.Clone(a), 0, 0, 0), append(ackFrame(v6, 1001, nil), 0), true},
			{"the same again", a, ackFrame(v6, 1000, nil), false},
			{"less", a, ackFrame(v6, 999, nil), false},
			{"another port", a, ackFrame(v6, 1001, func(tcp header.TCP) { tcp.SetSourcePort(81) }), false},
			{"another number", a, ackFrame(v6, 1001, func(tcp header.TCP) { tcp.SetSequenceNumber(7) }), false},
			{"an end", a, ackFrame(v6, 1001, func(tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagFin)) }), false},
			{"a reset first", ackFrame(v6, 1000, func(tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagRst)) }), ackFrame(v6, 1001, nil), false},
			{"a hole first", ackFrame(v6, 1000, func(tcp header.TCP) { tcp[header.TCPMinimumSize+2] = header.TCPOptionSACK }), ackFrame(v6, 1001, nil), false},
			{"data first", ackFrame(v6, 1000, func(tcp header.TCP) { tcp.SetDataOffset(header.TCPMinimumSize) }), ackFrame(v6, 1001, nil), false},
			{"cut", a, ackFrame(v6, 1001, nil)[:50], false},
		} {
			if got := supersedes(c.then, c.first); got != c.want {
				t.Errorf("IPv6 %t, %s: %t", v6, c.name, got)
			}
		}
		if supersedes(ackFrame(!v6, 1001, nil), a) {
			t.Error("of another protocol")
		}
	}
	fragment := ackFrame(false, 1001, nil)
	fragment[wire.EthernetLen+6] = 0x20 // more follow
	if supersedes(fragment, ackFrame(false, 1000, nil)) {
		t.Error("a fragment")
	}
}

// told is what gVisor is given.
type told struct{ acks []uint32 }

func (d *told) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, p *stack.PacketBuffer) {
	d.acks = append(d.acks, header.TCP(p.Data().AsRange().ToSlice()[header.IPv4MinimumSize:]).AckNumber())
}
func (d *told) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// TestThinned: of a burst of acknowledgements those are told that no other one behind them says more than; where checksums are verified, all are.
func TestThinned(t *testing.T) {
	var burst []arrived
	for _, n := range []uint32{10, 20, 30, 30, 30, 40, 50} {
		burst = append(burst, arrived{b: ackFrame(false, n, nil)})
	}
	for trust, want := range map[bool]string{true: "[30 30 50]", false: "[10 20 30 30 30 40 50]"} {
		l := newLink([]queue{&sink{}}, &neighbours{mtu: 1500, hops: map[netip.Addr]*hop{}}, trust, 2048)
		d := &told{}
		l.Attach(d)
		l.lanes[0].deliver(burst)
		if got := fmt.Sprint(d.acks); got != want || l.received.Load() != 7 {
			t.Errorf("trusting %t: %s are told, want %s; %d received", trust, got, want, l.received.Load())
		}
	}
}

// TestStreams: who gets the end of a message is waited for, who gets a part of more, or only hears that some arrived, is not.
func TestStreams(t *testing.T) {
	l := newLink([]queue{&sink{}}, &neighbours{mtu: 1500, hops: map[netip.Addr]*hop{}}, true, 2048)
	data := func(n int) []byte {
		return append(ackFrame(false, 1, func(tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagPsh)) }), make([]byte, n)...)
	}
	for _, c := range []struct {
		name string
		b    []byte
		want bool
	}{
		{"an acknowledgement", ackFrame(false, 1, nil), true}, {"a full packet", data(1448), true}, {"the end of a message", data(700), false}, {"nothing", nil, false},
	} {
		if got := l.streams(c.b); got != c.want {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

// FuzzAcknowledgement: whatever comes, looking at it ends, and what is taken for an acknowledgement is one in full.
func FuzzAcknowledgement(f *testing.F) {
	f.Add(ackFrame(false, 1, nil))
	f.Add(ackFrame(true, 1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, tcp := acknowledgement(b); tcp != nil && (tcp.Flags() != header.TCPFlagAck || len(tcp.Payload()) > 0) {
			t.Errorf("%x", b)
		}
	})
}
