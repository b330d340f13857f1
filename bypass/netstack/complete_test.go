package netstack

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// unfinished is a packet of UDP, whose checksum says something wrong.
func unfinished(v6 bool, data string) []byte {
	u := header.UDP(append(make([]byte, header.UDPMinimumSize), data...))
	u.Encode(&header.UDPFields{SrcPort: 1, DstPort: 2, Length: uint16(len(u)), Checksum: 0x1234})
	if v6 {
		ip := header.IPv6(make([]byte, header.IPv6MinimumSize))
		ip.Encode(&header.IPv6Fields{PayloadLength: uint16(len(u)), TransportProtocol: header.UDPProtocolNumber, HopLimit: 64, SrcAddr: tcpip.AddrFrom16([16]byte{0xfd, 15: 1}), DstAddr: tcpip.AddrFrom16([16]byte{0xfd, 15: 2})})
		return append(ip, u...)
	}
	ip := header.IPv4(make([]byte, header.IPv4MinimumSize))
	ip.Encode(&header.IPv4Fields{TotalLength: header.IPv4MinimumSize + uint16(len(u)), TTL: 64, Protocol: uint8(header.UDPProtocolNumber), SrcAddr: tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), DstAddr: tcpip.AddrFrom4([4]byte{10, 0, 0, 2})})
	return append(ip, u...)
}

// TestComplete: a checksum that was left to a device is what gVisor finds right; what is none, or not whole, stays as it is.
func TestComplete(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for i := range 200 {
		v6, data := i%2 == 0, make([]byte, r.IntN(1000))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		p := large(r, v6, data, 2000, header.TCPFlagAck)
		b := p.ToView().AsSlice()
		p.DecRef()
		proto, at := header.IPv4ProtocolNumber, header.IPv4MinimumSize
		src, dst := header.IPv4(b).SourceAddress(), header.IPv4(b).DestinationAddress()
		if v6 {
			proto, at = header.IPv6ProtocolNumber, header.IPv6MinimumSize
			src, dst = header.IPv6(b).SourceAddress(), header.IPv6(b).DestinationAddress()
		}
		whole := len(b)
		b = append(b, 0, 0, 0) // what fills up a frame is none of it
		complete(proto, b)
		b = b[:whole]
		if tcp := header.TCP(b[at:]); !tcp.IsChecksumValid(src, dst, checksum.Checksum(tcp.Payload(), 0), uint16(len(tcp.Payload()))) {
			t.Fatalf("%x", b)
		}
		b = unfinished(v6, string(data))
		complete(proto, b)
		if u := header.UDP(b[at:]); !u.IsChecksumValid(src, dst, checksum.Checksum(u.Payload(), 0)) {
			t.Fatalf("%x", b)
		}
	}
	for name, f := range map[string]func([]byte) []byte{
		"none":       func(b []byte) []byte { b[26], b[27] = 0, 0; return b },
		"a fragment": func(b []byte) []byte { b[6] = 0x20; return b },
		"cut":        func(b []byte) []byte { return b[:30] },
		"another":    func(b []byte) []byte { b[9] = 1; return b },
	} {
		b := f(unfinished(false, "abc"))
		was := slices.Clone(b)
		if complete(header.IPv4ProtocolNumber, b); !bytes.Equal(b, was) {
			t.Errorf("%s: %x became %x", name, was, b)
		}
	}
}

// FuzzComplete: whatever comes, no more than two bytes change.
func FuzzComplete(f *testing.F) {
	f.Add(false, unfinished(false, "abc"))
	f.Add(true, unfinished(true, "abc"))
	f.Fuzz(func(t *testing.T, v6 bool, b []byte) {
		proto := header.IPv4ProtocolNumber
		if v6 {
			proto = header.IPv6ProtocolNumber
		}
		was, changed := slices.Clone(b), 0
		complete(proto, b)
		for i := range b {
			if b[i] != was[i] {
				changed++
			}
		}
		if changed > 2 {
			t.Errorf("%x became %x", was, b)
		}
	})
}
