package traffic

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/wire/header"
)

// TestFrames: what is made reads as what was asked for, and checksums are right but for those that are not to be.
func TestFrames(t *testing.T) {
	four := Frame{From: netip.MustParseAddrPort("10.0.0.1:1000"), To: netip.MustParseAddrPort("10.0.0.2:53"), Proto: unix.IPPROTO_UDP, Payload: []byte("hello")}
	six := Frame{From: netip.MustParseAddrPort("[fd00::1]:1000"), To: netip.MustParseAddrPort("[fd00::2]:80"), Proto: unix.IPPROTO_TCP, Flags: header.ACK, Ack: 7}
	with := func(f Frame, change func(*Frame)) Frame { change(&f); return f }
	for _, tt := range []struct {
		name string
		f    Frame
		want string
		sum  header.Result
	}{
		{"UDP", four, "10.0.0.1.1000 > 10.0.0.2.53: UDP", header.Right},
		{"TCP over IPv6", six, "fd00::1.1000 > fd00::2.80: Flags [.]", header.Right},
		{"wrong UDP", with(four, func(f *Frame) { f.BadL4 = true }), "UDP", header.Wrong},
		{"wrong TCP", with(six, func(f *Frame) { f.BadL4 = true }), "[.]", header.Wrong},
		{"wrong ICMP", with(four, func(f *Frame) { f.Proto, f.BadL4 = unix.IPPROTO_ICMP, true }), "ICMP echo request", header.Wrong},
		{"ICMP", with(four, func(f *Frame) { f.Proto = unix.IPPROTO_ICMP }), "ICMP echo request", header.Right},
		{"VLAN", with(four, func(f *Frame) { f.VLAN = 42 }), "vlan 42", header.Right},
		{"first fragment", with(four, func(f *Frame) { f.MF, f.Payload = true, make([]byte, 32) }), "length 32", header.Unchecked},
		{"EtherType", Frame{EtherType: 0x88b5, Payload: []byte("x")}, "0x88b5", header.Unchecked},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.f.Dst, tt.f.Src = net.HardwareAddr{2, 0, 0, 0, 0, 2}, net.HardwareAddr{2, 0, 0, 0, 0, 1}
			b := tt.f.Bytes()
			if got := string(header.Append(nil, b, header.KindEthernet)); !strings.Contains(got, tt.want) {
				t.Errorf("%s, want %q", got, tt.want)
			}
			var s header.Stack
			s.Walk(b, header.KindEthernet)
			if got := s.Verify(b); tt.sum != header.Unchecked && got != tt.sum {
				t.Errorf("its checksum is %v, want %v", got, tt.sum)
			}
			if l, ok := s.Last(header.KindIPv4); ok {
				if h := header.IPv4(l.Bytes(b)); h.Checksum() != h.Compute() {
					t.Errorf("the header's checksum is %#x, want %#x", h.Checksum(), h.Compute())
				}
			}
		})
	}
	bad := with(four, func(f *Frame) { f.BadIP = true }).Bytes()
	if h := header.IPv4(bad[2:]); h.Checksum() == h.Compute() { // no MAC addresses: the type comes first, in 2 bytes
		t.Error("a header that is to be wrong is right")
	}
}
