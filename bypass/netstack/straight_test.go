package netstack

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/header/parse"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	wire "github.com/fathom-trace/fathom/wire/header"
)

// layers are gVisor's, and say which of them got a packet.
type layers struct{ got []string }

func (d *layers) DeliverNetworkPacket(_ tcpip.NetworkProtocolNumber, p *stack.PacketBuffer) {
	d.got = append(d.got, fmt.Sprintf("ip %d", p.Data().Size()))
}

func (d *layers) DeliverTransportPacket(_ tcpip.TransportProtocolNumber, p *stack.PacketBuffer) stack.TransportPacketDisposition {
	sound := ""
	if p.RXChecksumValidated {
		sound = " sound"
	}
	d.got = append(d.got, fmt.Sprintf("tcp %d+%d+%d%s", len(p.NetworkHeader().Slice()), len(p.TransportHeader().Slice()), p.Data().Size(), sound))
	return stack.TransportPacketHandled
}
func (d *layers) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

// partFrame is a packet of TCP with data in Ethernet, which f changes.
func partFrame(v6 bool, seq uint32, data string, f func(ip []byte, tcp header.TCP)) []byte {
	p := large(rand.New(rand.NewPCG(1, 2)), v6, []byte(data), 1000, header.TCPFlagAck)
	defer p.DecRef()
	header.TCP(p.TransportHeader().Slice()).SetSequenceNumber(seq)
	b := append(make([]byte, wire.EthernetLen), p.ToView().AsSlice()...)
	b[12], b[13] = byte(p.NetworkProtocolNumber>>8), byte(p.NetworkProtocolNumber)
	if f != nil {
		f(b[wire.EthernetLen:], header.TCP(b[wire.EthernetLen+len(p.NetworkHeader().Slice()):]))
	}
	return b
}

// TestStraight: what comes of a connection of which something was sent goes to TCP, without what fills up its frame; all else is IP's.
func TestStraight(t *testing.T) {
	type change = func(ip []byte, tcp header.TCP)
	one := func(v6 bool, f change) []arrived { return []arrived{{b: partFrame(v6, 1, "abc", f), sound: true}} }
	for _, c := range []struct {
		name string
		gets []arrived
		want string
	}{
		{"IPv4", one(false, nil), "tcp 20+32+3 sound"},
		{"IPv6", one(true, nil), "tcp 40+32+3 sound"},
		{"padded", []arrived{{b: append(partFrame(false, 1, "", nil), 0, 0, 0), sound: true}}, "tcp 20+32+0 sound"},
		{"another port", one(false, func(_ []byte, tcp header.TCP) { tcp.SetSourcePort(81) }), "ip 55"},
		{"another address", one(true, func(ip []byte, _ header.TCP) { ip[20]++ }), "ip 75"},
		{"one that begins", one(false, func(_ []byte, tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagAck | header.TCPFlagSyn)) }), "ip 55"},
		{"a reset", one(false, func(_ []byte, tcp header.TCP) { tcp.SetFlags(uint8(header.TCPFlagRst)) }), "tcp 20+32+3 sound"},
		{"a fragment", one(false, func(ip []byte, _ header.TCP) { ip[6] = 0x20 }), "ip 55"},
		{"the end of one", one(false, func(ip []byte, _ header.TCP) { ip[7] = 8 }), "ip 55"},
		{"not to be cut", one(false, func(ip []byte, _ header.TCP) { ip[6] = 0x40 }), "tcp 20+32+3 sound"},
		{"with options", one(false, func(ip []byte, _ header.TCP) { ip[0] = 0x46 }), "ip 55"},
		{"with headers of IPv6 between", one(true, func(ip []byte, _ header.TCP) { ip[6] = 0 }), "ip 75"},
		{"another version", one(true, func(ip []byte, _ header.TCP) { ip[0] = 0x40 }), "ip 75"},
		{"cut", one(false, func(ip []byte, _ header.TCP) { header.IPv4(ip).SetTotalLength(56) }), "ip 55"},
		{"TCP's header cut", one(false, func(ip []byte, _ header.TCP) { header.IPv4(ip).SetTotalLength(51) }), "ip 55"},
		{"TCP's header too small", one(false, func(_ []byte, tcp header.TCP) { tcp.SetDataOffset(16) }), "ip 55"},
		{"UDP", one(false, func(ip []byte, _ header.TCP) { ip[9] = uint8(header.UDPProtocolNumber) }), "ip 55"},
		{"nobody verified it", []arrived{{b: partFrame(false, 1, "abc", nil)}}, "tcp 20+32+3"},
		{"nor IPv6", []arrived{{b: partFrame(true, 1, "abc", nil)}}, "tcp 40+32+3"},
		{"nobody verified it, and it is wrong", []arrived{{b: partFrame(false, 1, "abc", func(ip []byte, _ header.TCP) { ip[8]++ })}}, "ip 55"},
		{"two that are one", []arrived{{b: partFrame(false, 1, "abc", nil), sound: true}, {b: partFrame(false, 4, "def", nil), sound: true}}, "tcp 20+32+6 sound"},
		{"two of which one is not verified", []arrived{{b: partFrame(true, 1, "abc", nil), sound: true}, {b: partFrame(true, 4, "def", nil)}}, "tcp 40+32+3 sound, tcp 40+32+3"},
		{"two that are another's", []arrived{
			{b: partFrame(false, 1, "abc", func(_ []byte, tcp header.TCP) { tcp.SetSourcePort(81) }), sound: true},
			{b: partFrame(false, 4, "def", func(_ []byte, tcp header.TCP) { tcp.SetSourcePort(81) }), sound: true}}, "ip 55, ip 55"},
	} {
		l := newLink([]queue{&sink{}}, &neighbours{mtu: 1500, hops: map[netip.Addr]*hop{}}, false, 2048)
		for _, v6 := range []bool{false, true} {
			proto := header.IPv4ProtocolNumber
			if v6 {
				proto = header.IPv6ProtocolNumber
			}
			b := partFrame(v6, 1, "", nil)[wire.EthernetLen:]
			p, _ := partOf(proto, b, len(b))
			l.flows.sent(&p.conn)
		}
		d := &layers{}
		l.Attach(d)
		l.lanes[0].deliver(c.gets)
		if got := strings.Join(d.got, ", "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		l.flows.forget()
		d.got = nil
		if l.lanes[0].deliver(c.gets); strings.Contains(fmt.Sprint(d.got), "tcp") {
			t.Errorf("%s: %v after the connection was forgotten", c.name, d.got)
		}
	}
}

// TestSentFlows: a connection is known once something of it was sent that says it is one; gVisor's device has the way to TCP.
func TestSentFlows(t *testing.T) {
	for _, c := range []struct {
		s    segment
		want string
	}{
		{segment{from: 80, flags: header.TCPFlagAck, ack: 1}, "tcp 20+32+0 sound"},
		{segment{from: 80, flags: header.TCPFlagSyn | header.TCPFlagAck, ack: 1}, "ip 52"},
		{segment{from: 80, flags: header.TCPFlagRst | header.TCPFlagAck, ack: 1}, "ip 52"},
		{segment{from: 81, flags: header.TCPFlagAck, ack: 1}, "ip 52"},
	} {
		l, d := ackLink(&sink{}, time.Hour), &layers{}
		l.Attach(d)
		c.s.send(t, l)
		back := ackFrame(false, 9, func(tcp header.TCP) { tcp.SetSourcePort(80); tcp.SetDestinationPort(80) })
		copy(back[wire.EthernetLen+12:], []byte{10, 77, 0, 2, 10, 77, 0, 1})
		l.lanes[0].deliver([]arrived{{b: back}})
		if got := strings.Join(d.got, ", "); got != c.want {
			t.Errorf("sent %+v: %s, want %s", c.s, got, c.want)
		}
	}
	l := ackLink(&sink{}, time.Hour)
	gv, err := protocols(l, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gv.Destroy()
	if l.inward.Load().tcp == nil {
		t.Error("gVisor's device has no way past IP")
	}
}

// FuzzPartOf: what goes past IP is what gVisor's own IP would take as it is, with the same headers.
func FuzzPartOf(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(v6, partFrame(v6, 1, "abc", nil)[wire.EthernetLen:])
	}
	f.Fuzz(func(t *testing.T, v6 bool, b []byte) {
		proto := header.IPv4ProtocolNumber
		if v6 {
			proto = header.IPv6ProtocolNumber
		}
		t1, ok := partOf(proto, b, len(b))
		if !ok {
			return
		}
		p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
		defer p.DecRef()
		if v6 {
			next, _, _, _, parsed := parse.IPv6(p)
			ok = parsed && next == header.TCPProtocolNumber && header.IPv6(b).IsValid(len(b))
		} else {
			ok = parse.IPv4(p) && header.IPv4(b).IsValid(len(b)) && header.IPv4(b).TransportProtocol() == header.TCPProtocolNumber
		}
		if !ok || !parse.TCP(p) || len(p.NetworkHeader().Slice()) != t1.net || len(p.TransportHeader().Slice()) != t1.tcp || t1.net+t1.tcp+p.Data().Size() != t1.total {
			t.Errorf("%x: %+v", b, t1)
		}
	})
}
