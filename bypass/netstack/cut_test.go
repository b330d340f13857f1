package netstack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// large is a packet as gVisor gives it to a device that cuts: data in parts, a checksum that is to be made.
func large(r *rand.Rand, v6 bool, data []byte, mss int, flags header.TCPFlags) *stack.PacketBuffer {
	const optLen = 12
	from, to := tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), tcpip.AddrFrom4([4]byte{10, 0, 0, 2})
	if v6 {
		from, to = tcpip.AddrFrom16([16]byte{0xfd, 15: 1}), tcpip.AddrFrom16([16]byte{0xfd, 15: 2})
	}
	var b buffer.Buffer
	for rest := data; len(rest) > 0; {
		n := 1 + r.IntN(min(len(rest), 5000))
		b.Append(buffer.NewViewWithData(rest[:n]))
		rest = rest[n:]
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{ReserveHeaderBytes: header.IPv6MinimumSize + header.TCPMinimumSize + optLen, Payload: b})
	tcp := header.TCP(p.TransportHeader().Push(header.TCPMinimumSize + optLen))
	tcp.Encode(&header.TCPFields{SrcPort: 80, DstPort: 4000, SeqNum: 0xffffff00, AckNum: 7, DataOffset: header.TCPMinimumSize + optLen, Flags: flags, WindowSize: 99})
	copy(tcp[header.TCPMinimumSize:], "\x01\x01\x08\x0aabcdefgh")
	p.TransportProtocolNumber = header.TCPProtocolNumber
	size := uint16(p.Size())
	tcp.SetChecksum(header.PseudoHeaderChecksum(header.TCPProtocolNumber, from, to, size))
	p.GSOOptions = stack.GSO{Type: stack.GSOTCPv4, NeedsCsum: true, MSS: uint16(mss)}
	p.NetworkProtocolNumber = header.IPv4ProtocolNumber
	if v6 {
		p.GSOOptions.Type, p.NetworkProtocolNumber = stack.GSOTCPv6, header.IPv6ProtocolNumber
		header.IPv6(p.NetworkHeader().Push(header.IPv6MinimumSize)).Encode(&header.IPv6Fields{PayloadLength: size, TransportProtocol: header.TCPProtocolNumber, HopLimit: 64, SrcAddr: from, DstAddr: to})
		return p
	}
	ip := header.IPv4(p.NetworkHeader().Push(header.IPv4MinimumSize))
	ip.Encode(&header.IPv4Fields{TotalLength: header.IPv4MinimumSize + size, ID: 0xfffe, TTL: 64, Protocol: uint8(header.TCPProtocolNumber), SrcAddr: from, DstAddr: to})
	ip.SetChecksum(^ip.CalculateChecksum())
	return p
}

// TestCut: what is cut is, packet by packet, what TCP would have sent: nothing longer than it may be, each number and checksum right,
// all of the data once and in order, its end said by the last.
func TestCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		data := make([]byte, r.IntN(65000))
		if i%5 == 0 {
			data = data[:r.IntN(min(len(data), 3)+1)]
		}
		for j := range data {
			data[j] = byte(r.Uint32())
		}
		v6, mss, flags := i%2 == 1, 88+r.IntN(9000), header.TCPFlags(header.TCPFlagAck)
		if i%3 > 0 {
			flags |= header.TCPFlagFin | header.TCPFlagPsh
		}
		p := large(r, v6, data, mss, flags)
		c := newCut(p)
		n := c.pieces()
		if want := max(1, (len(data)+mss-1)/mss); n != want {
			t.Fatalf("%d bytes by %d make %d packets, want %d", len(data), mss, n, want)
		}
		var got []byte
		for k := range n {
			b := make([]byte, c.next())
			c.fill(b)
			one, err := piece(b, v6)
			if err != nil {
				t.Fatalf("packet %d of %d: %v", k, n, err)
			}
			want := flags
			if k < n-1 {
				want = header.TCPFlagAck
			}
			switch {
			case one.SequenceNumber() != 0xffffff00+uint32(len(got)):
				t.Fatalf("packet %d has the sequence number %d after %d bytes", k, one.SequenceNumber(), len(got))
			case one.Flags() != want:
				t.Fatalf("packet %d of %d has the flags %v", k, n, one.Flags())
			case len(one.Payload()) > mss:
				t.Fatalf("packet %d has %d bytes of data, at most %d", k, len(one.Payload()), mss)
			case !v6 && header.IPv4(b).ID() != uint16(0xfffe+k):
				t.Fatalf("packet %d has the ID %d", k, header.IPv4(b).ID())
			}
			got = append(got, one.Payload()...)
		}
		if !bytes.Equal(got, data) {
			t.Fatalf("%d bytes became %d, or others", len(data), len(got))
		}
		p.DecRef()
	}
}

// piece verifies lengths and checksums of a packet.
func piece(b []byte, v6 bool) (tcp header.TCP, err error) {
	var from, to tcpip.Address
	if ip := header.IPv4(b); v6 {
		ip := header.IPv6(b)
		if !ip.IsValid(len(b)) || int(ip.PayloadLength()) != len(b)-header.IPv6MinimumSize {
			return nil, fmt.Errorf("a length of %d for %d bytes", ip.PayloadLength(), len(b))
		}
		tcp, from, to = b[header.IPv6MinimumSize:], ip.SourceAddress(), ip.DestinationAddress()
	} else {
		if !ip.IsValid(len(b)) || int(ip.TotalLength()) != len(b) || !ip.IsChecksumValid() {
			return nil, fmt.Errorf("a length of %d for %d bytes, or a wrong checksum", ip.TotalLength(), len(b))
		}
		tcp, from, to = b[ip.HeaderLength():], ip.SourceAddress(), ip.DestinationAddress()
	}
	data := tcp.Payload()
	if !tcp.IsChecksumValid(from, to, checksum.Checksum(data, 0), uint16(len(data))) {
		return nil, fmt.Errorf("a wrong checksum of TCP")
	}
	return tcp, nil
}

// TestWhole: a packet that gVisor finished goes as it is.
func TestWhole(t *testing.T) {
	p := large(rand.New(rand.NewPCG(1, 2)), false, make([]byte, 3000), 100, header.TCPFlagAck)
	defer p.DecRef()
	p.GSOOptions = stack.GSO{}
	c := newCut(p)
	b := make([]byte, c.next())
	c.fill(b)
	if c.pieces() != 1 || !bytes.Equal(b, p.ToView().AsSlice()) {
		t.Errorf("it became %d packets, or others", c.pieces())
	}
}
