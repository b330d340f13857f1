package netstack

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// packet makes a datagram with right checksums.
func packet(from, to netip.AddrPort, payload string) []byte {
	u := make([]byte, 8, 8+len(payload))
	binary.BigEndian.PutUint16(u, from.Port())
	binary.BigEndian.PutUint16(u[2:], to.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = append(u, payload...)
	binary.BigEndian.PutUint16(u[6:], ^sumUDP(from.Addr(), to.Addr(), u))
	var ip []byte
	if from.Addr().Is4() {
		ip = make([]byte, 20)
		ip[0], ip[8], ip[9] = 0x45, 64, 17
		binary.BigEndian.PutUint16(ip[2:], uint16(20+len(u)))
		copy(ip[12:], from.Addr().AsSlice())
		copy(ip[16:], to.Addr().AsSlice())
		binary.BigEndian.PutUint16(ip[10:], ^checksum.Checksum(ip, 0))
	} else {
		ip = make([]byte, 40)
		ip[0], ip[6], ip[7] = 0x60, 17, 64
		binary.BigEndian.PutUint16(ip[4:], uint16(len(u)))
		copy(ip[8:], from.Addr().AsSlice())
		copy(ip[24:], to.Addr().AsSlice())
	}
	return append(ip, u...)
}

var ends = [][2]netip.AddrPort{
	{netip.MustParseAddrPort("10.0.0.1:1000"), netip.MustParseAddrPort("10.0.0.2:2000")},
	{netip.MustParseAddrPort("[fd00::1]:1000"), netip.MustParseAddrPort("[fd00::2]:2000")},
}

// TestParseUDP: what was written is read, a changed bit is found, and what is no whole datagram is left to gVisor.
func TestParseUDP(t *testing.T) {
	for _, e := range ends {
		p := packet(e[0], e[1], "hello")
		d, ok := parseUDP(protocol(e[0].Addr()), append(p, 0, 0, 0)) // Ethernet's padding
		if !ok || d.from != e[0] || d.to != e[1] || string(d.payload) != "hello" || !d.whole() {
			t.Errorf("%+v, %v", d, ok)
		}
		for i := range len(p) {
			if _, ok := parseUDP(protocol(e[0].Addr()), p[:i]); ok {
				t.Errorf("%d of %d bytes are a datagram", i, len(p))
			}
		}
		for bit := range 8 * 5 {
			q := append([]byte(nil), p...)
			q[len(q)-1-bit/8] ^= 1 << (bit % 8)
			if d, ok := parseUDP(protocol(e[0].Addr()), q); !ok || d.whole() {
				t.Errorf("bit %d changed: whole", bit)
			}
		}
		d.udp[6], d.udp[7] = 0, 0
		if d.whole() != e[0].Addr().Is4() {
			t.Errorf("no checksum, %s: %v", e[0], d.whole())
		}
	}
	p := packet(ends[0][0], ends[0][1], "hello")
	p[6] = 0x20 // a fragment
	if _, ok := parseUDP(header.IPv4ProtocolNumber, p); ok {
		t.Error("a fragment is a datagram")
	}
}

func FuzzParseUDP(f *testing.F) {
	for _, e := range ends {
		f.Add(e[0].Addr().Is4(), packet(e[0], e[1], "hello"))
	}
	f.Fuzz(func(t *testing.T, four bool, b []byte) {
		proto := header.IPv6ProtocolNumber
		if four {
			proto = header.IPv4ProtocolNumber
		}
		d, ok := parseUDP(proto, b)
		if !ok {
			return
		}
		d.whole()
		if len(d.payload)+8 != len(d.udp) || len(d.udp) > len(b) || d.from.Addr().Is4() != four {
			t.Errorf("%+v of %d bytes", d, len(b))
		}
	})
}

// TestFilter: the rules that steer packets are read as they are meant: "and" does not bind closer than "or" in tcpdump's language.
func TestFilter(t *testing.T) {
	got := portFilter("tcp", 80, 80, []string{"dst host 10.0.0.1", "dst host fd00::1"}, true)
	want := "(dst host 10.0.0.1 or dst host fd00::1) and ((tcp dst portrange 80-80 and not ip[6:2] & 0x3fff != 0) or (icmp[0] = 3 and icmp[17] = 6 and icmp[28:2] = 80) or (icmp6[0] <= 2 and icmp6[14] = 6 and icmp6[48:2] = 80))"
	if got != want {
		t.Errorf("\n%s\n%s", got, want)
	}
}
