package header

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/fathom-trace/fathom/internal/oracle"
)

// packet reads bytes written in hexadecimal with spaces.
func packet(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	macs = "020000000002 020000000001"
	ip4  = "45000028 00010000 40060000 0a000001 0a000002" // TCP, 20 bytes behind it
	tcp  = "9c400050 00000007 00000000 5002faf0 00000000"
	udp  = "13880035 0008 0000"
)

func TestWalk(t *testing.T) {
	for _, tt := range []struct {
		name, pkt string
		first     Kind
		want      string
	}{
		{"tcp", macs + "0800" + ip4 + tcp, KindEthernet, "Ethernet 0+14, IPv4 14+20, TCP 34+20; payload 54 of 54, status 0"},
		{"padding", macs + "0800 4500001c 00010000 40110000 0a000001 0a000002" + udp + "000000", KindEthernet,
			"Ethernet 0+14, IPv4 14+20, UDP 34+8; payload 42 of 42, status 0"},
		{"vlan in vlan", macs + "88a80064 810000c8 0800" + ip4 + tcp, KindEthernet,
			"Ethernet 0+14, VLAN 14+4, VLAN 18+4, IPv4 22+20, TCP 42+20; payload 62 of 62, status 0"},
		{"options", "47000024 00010000 40110000 0a000001 0a000002 01010101 01010100" + udp, KindIP, "IPv4 0+28, UDP 28+8; payload 36 of 36, status 0"},
		{"fragment", "4500001c 00010010 40110000 0a000001 0a000002" + udp, KindIP, "IPv4 0+20; payload 20 of 28, status 3"},
		{"cut", macs + "0800" + ip4 + "9c40", KindEthernet, "Ethernet 0+14, IPv4 14+20; payload 34 of 36, status 1"},
		{"bad length", "44000028 00010000 40060000 0a000001 0a000002", KindIP, "; payload 0 of 20, status 2"},
		{"extension headers", "60000000 0018 0040" + strings.Repeat("00", 31) + "01" + "2c00 000000000000 1100 0000 00000001" + udp, KindIP,
			"IPv6 0+40, IPv6 extension 40+8, IPv6 extension 48+8, UDP 56+8; payload 64 of 64, status 0"},
		{"later fragment of IPv6", "60000000 0010 2c40" + strings.Repeat("00", 32) + "1100 0009 00000001" + udp, KindIP,
			"IPv6 0+40, IPv6 extension 40+8; payload 48 of 56, status 3"},
		{"ipip", "4500003c 00010000 40040000 0a000001 0a000002" + ip4 + tcp, KindIP, "IPv4 0+20, IPv4 20+20, TCP 40+20; payload 60 of 60, status 0"},
		{"gre with key", "45000044 00010000 402f0000 0a000001 0a000002 20000800 00000005" + ip4 + tcp, KindIP,
			"IPv4 0+20, GRE 20+8, IPv4 28+20, TCP 48+20; payload 68 of 68, status 0"},
		{"mpls", macs + "8847 00064040 00065140" + ip4 + tcp, KindEthernet, "Ethernet 0+14, MPLS 14+4, MPLS 18+4, IPv4 22+20, TCP 42+20; payload 62 of 62, status 0"},
		{"vxlan", "4500005a 00010000 40110000 0a000001 0a000002 138812b5 0046 0000 08000000 00000500" + macs + "0800" + ip4 + tcp, KindIP,
			"IPv4 0+20, UDP 20+8, VXLAN 28+8, Ethernet 36+14, IPv4 50+20, TCP 70+20; payload 90 of 90, status 0"},
		{"geneve", "45000050 00010000 40110000 0a000001 0a000002 138817c1 003c 0000 01000800 00000500 01020304" + ip4 + tcp, KindIP,
			"IPv4 0+20, UDP 20+8, Geneve 28+12, IPv4 40+20, TCP 60+20; payload 80 of 80, status 0"},
		{"arp", macs + "0806 0001080006040001 020000000001 0a000001 000000000000 0a000002", KindEthernet, "Ethernet 0+14, ARP 14+28; payload 42 of 42, status 0"},
		{"unknown", macs + "88cc 0102", KindEthernet, "Ethernet 0+14; payload 14 of 16, status 4"},
		{"pppoe", macs + "8864 11000001 002a 0021" + ip4 + tcp, KindEthernet, "Ethernet 0+14, PPPoE 14+8, IPv4 22+20, TCP 42+20; payload 62 of 62, status 0"},
		{"deep", strings.Repeat(macs+"6558", 30), KindEthernet, "Ethernet 0+14, " + "…"},
	} {
		var s Stack
		s.Walk(packet(t, tt.pkt), tt.first)
		var parts []string
		for _, l := range s.Found() {
			parts = append(parts, fmt.Sprintf("%v %d+%d", l.Kind, l.Off, l.Len))
		}
		got := fmt.Sprintf("%s; payload %d of %d, status %d", strings.Join(parts, ", "), s.Payload, s.End, s.Status)
		if before, ok := strings.CutSuffix(tt.want, "…"); ok && s.Status == Deep {
			got, tt.want = got[:len(before)], before
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, diff)
		}
	}
}

func TestAppend(t *testing.T) {
	for _, tt := range []struct{ pkt, want string }{
		{macs + "0800 45000028 00010000 40110000 0a000001 0a000002 13880035 0014 0000" + strings.Repeat("00", 12), "IP 10.0.0.1.5000 > 10.0.0.2.53: UDP, length 12"},
		{macs + "0800" + ip4 + tcp, "IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 7, win 64240, length 0"},
		{macs + "8100 a064 0800" + ip4 + tcp, "vlan 100, p 5, IP 10.0.0.1.40000 > 10.0.0.2.80: Flags [S], seq 7, win 64240, length 0"},
		{macs + "0800" + ip4 + "9c40", "IP 10.0.0.1 > 10.0.0.2: [|cut]"},
		{macs + "0806 0001080006040001 020000000001 0a000001 000000000000 0a000002", "ARP, Request who-has 10.0.0.2 tell 10.0.0.1, length 28"},
		{macs + "0800 45000054 00010000 40010000 0a000001 0a000002 0800000000050001" + strings.Repeat("00", 56), "IP 10.0.0.1 > 10.0.0.2: ICMP echo request, id 5, seq 1, length 64"},
		{macs + "0800 45000038 00010000 40010000 0a000002 0a000001 0303000000000000 4500001c 00010000 40110000 0a000001 0a000002" + udp,
			"IP 10.0.0.2 > 10.0.0.1: ICMP 10.0.0.2 udp port 53 unreachable, length 36"},
		{macs + "0800 4500004e 00010000 40110000 0a000001 0a000002 138812b5 003a 0000 08000000 00000500" + macs + "0800 4500001c 00010000 40110000 0b000001 0b000002" + udp,
			"IP 10.0.0.1.5000 > 10.0.0.2.4789: VXLAN, vni 5: IP 11.0.0.1.5000 > 11.0.0.2.53: UDP, length 0"},
		{macs + "0800 4500001c 00012010 40110000 0a000001 0a000002" + udp, "IP 10.0.0.1 > 10.0.0.2: frag of proto 17, offset 128, length 8"},
		{macs + "0800 4500001c 00010000 40590000 0a000001 0a000002" + udp, "IP 10.0.0.1 > 10.0.0.2: ip-proto-89, length 8"},
		{macs + "88cc 0102", "ethertype 0x88cc, length 2"},
	} {
		if diff := cmp.Diff(tt.want, string(Append(nil, packet(t, tt.pkt), KindEthernet))); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.pkt, diff)
		}
	}
}

// maker makes packets with gopacket, which computes lengths and checksums.
type maker struct{ *rand.Rand }

func (m maker) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(m.Uint32())
	}
	return b
}

func (m maker) packet(t *testing.T) []byte {
	v6 := m.IntN(2) == 0
	var ip gopacket.NetworkLayer
	var stack []gopacket.SerializableLayer
	proto := []layers.IPProtocol{layers.IPProtocolTCP, layers.IPProtocolUDP, layers.IPProtocolICMPv4, layers.IPProtocolSCTP}[m.IntN(4)]
	if v6 && proto == layers.IPProtocolICMPv4 {
		proto = layers.IPProtocolICMPv6
	}
	eth := &layers.Ethernet{SrcMAC: m.bytes(6), DstMAC: m.bytes(6), EthernetType: layers.EthernetTypeIPv4}
	if v6 {
		eth.EthernetType = layers.EthernetTypeIPv6
		h := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: proto, SrcIP: m.bytes(16), DstIP: m.bytes(16)}
		h.SrcIP[0], h.DstIP[0] = 0x20, 0x20
		ip, stack = h, append(stack, eth, h)
	} else {
		h := &layers.IPv4{Version: 4, TTL: 64, Id: uint16(m.Uint32()), Protocol: proto, SrcIP: m.bytes(4), DstIP: m.bytes(4)}
		ip, stack = h, append(stack, eth, h)
	}
	sport, dport := uint16(30000+m.IntN(400)), uint16(30000+m.IntN(400)) // nothing tcpdump looks into
	switch proto {
	case layers.IPProtocolTCP:
		h := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: m.Uint32(), Ack: m.Uint32(), Window: uint16(m.Uint32()),
			SYN: m.IntN(2) == 0, ACK: m.IntN(2) == 0, FIN: m.IntN(4) == 0, RST: m.IntN(4) == 0, PSH: m.IntN(2) == 0, ECE: m.IntN(9) == 0}
		if m.IntN(2) == 0 {
			h.Options = []layers.TCPOption{{OptionType: 2, OptionLength: 4, OptionData: m.bytes(2)}, {OptionType: 4, OptionLength: 2},
				{OptionType: 8, OptionLength: 10, OptionData: m.bytes(8)}, {OptionType: 1, OptionLength: 1}, {OptionType: 3, OptionLength: 3, OptionData: m.bytes(1)}}
		}
		_ = h.SetNetworkLayerForChecksum(ip)
		stack = append(stack, h)
	case layers.IPProtocolUDP:
		h := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
		_ = h.SetNetworkLayerForChecksum(ip)
		stack = append(stack, h)
	case layers.IPProtocolICMPv4:
		stack = append(stack, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode([]uint8{0, 8}[m.IntN(2)], 0), Id: uint16(m.Uint32()), Seq: uint16(m.Uint32())})
	case layers.IPProtocolICMPv6:
		h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode([]uint8{128, 129}[m.IntN(2)], 0)}
		_ = h.SetNetworkLayerForChecksum(ip)
		stack = append(stack, h, &layers.ICMPv6Echo{Identifier: uint16(m.Uint32()), SeqNumber: uint16(m.Uint32())})
	case layers.IPProtocolSCTP:
		stack = append(stack, &layers.SCTP{SrcPort: layers.SCTPPort(sport), DstPort: layers.SCTPPort(dport), VerificationTag: m.Uint32()})
	}
	stack = append(stack, gopacket.Payload(m.bytes(4*m.IntN(20)+m.IntN(4))))
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// TestGopacket compares fields and checksums with gopacket's, and finds every flipped bit of the payload.
func TestGopacket(t *testing.T) {
	m := maker{rand.New(rand.NewPCG(1, 2))}
	for range 2000 {
		pkt := m.packet(t)
		var s Stack
		s.Walk(pkt, KindEthernet)
		if s.Status != Done || s.N != 3 {
			t.Fatalf("%d layers, status %d, of % x", s.N, s.Status, pkt)
		}
		p := gopacket.NewPacket(pkt, layers.LayerTypeEthernet, gopacket.NoCopy)
		b := s.Layers[2].Bytes(pkt)
		var got, want any
		switch h := p.Layers()[2].(type) {
		case *layers.TCP:
			got = []any{TCP(b).SrcPort(), TCP(b).DstPort(), TCP(b).Seq(), TCP(b).Ack(), TCP(b).Window(), TCP(b).Checksum(), TCP(b).HeaderLen()}
			want = []any{uint16(h.SrcPort), uint16(h.DstPort), h.Seq, h.Ack, h.Window, h.Checksum, int(h.DataOffset) * 4}
		case *layers.UDP:
			got = []any{UDP(b).SrcPort(), UDP(b).DstPort(), UDP(b).Len(), UDP(b).Checksum()}
			want = []any{uint16(h.SrcPort), uint16(h.DstPort), int(h.Length), h.Checksum}
		case *layers.SCTP:
			got, want = []any{SCTP(b).SrcPort(), SCTP(b).Tag()}, []any{uint16(h.SrcPort), h.VerificationTag}
		case *layers.ICMPv4:
			got, want = []any{ICMP(b).Type(), ICMP(b).ID(), ICMP(b).Seq()}, []any{h.TypeCode.Type(), h.Id, h.Seq}
		case *layers.ICMPv6:
			got, want = []any{ICMP(b).Type(), ICMP(b).Checksum()}, []any{h.TypeCode.Type(), h.Checksum}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("% x: (-gopacket +we)\n%s", pkt, diff)
		}
		if r := s.Verify(pkt); r != Right {
			t.Fatalf("checksum %v of % x", r, pkt)
		}
		if l := s.Layers[1]; l.Kind == KindIPv4 && IPv4(l.Bytes(pkt)).Compute() != IPv4(l.Bytes(pkt)).Checksum() {
			t.Fatalf("header checksum of % x", pkt)
		}
		pkt[s.Layers[2].Off+1] ^= 1 << m.IntN(8)
		if r := s.Verify(pkt); r != Wrong {
			t.Fatalf("checksum %v of % x, which has a flipped bit", r, pkt)
		}
	}
}

// TestTcpdump compares lines with tcpdump's.
func TestTcpdump(t *testing.T) {
	path := oracle.Path(t, "tcpdump")
	m := maker{rand.New(rand.NewPCG(3, 4))}
	le := binary.LittleEndian
	file := le.AppendUint32(nil, 0xa1b2c3d4)
	file = append(file, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0)
	var want []string
	add := func(pkt []byte) {
		file = le.AppendUint32(le.AppendUint32(le.AppendUint64(file, 0), uint32(len(pkt))), uint32(len(pkt)))
		file = append(file, pkt...)
		want = append(want, string(Append(nil, pkt, KindEthernet)))
	}
	for len(want) < 1000 {
		pkt := m.packet(t)
		if pkt[23] == ProtoSCTP || pkt[20] == ProtoSCTP { // tcpdump reads its chunks
			continue
		}
		add(pkt)
	}
	for _, s := range []string{
		"0806 0001080006040001 020000000001 0a000001 000000000000 0a000002",
		"0806 0001080006040002 020000000001 0a000001 020000000002 0a000002",
		"0800 45000038 00010000 40010000 0a000002 0a000001 0303000000000000 4500001c 00010000 40110000 0a000001 0a000002" + udp,
		"0800 45000038 00010000 40010000 0a000002 0a000001 0304000000000514 4500001c 00010000 40110000 0a000001 0a000002" + udp,
		"0800 45000038 00010000 40010000 0a000002 0a000001 0301000000000000 4500001c 00010000 40110000 0a000001 0a000002" + udp,
		"0800 45000038 00010000 40010000 0a000002 0a000001 030d000000000000 4500001c 00010000 40110000 0a000001 0a000002" + udp,
		"0800 45000038 00010000 40010000 0a000002 0a000001 0300000000000000 4500001c 00010000 40110000 0a000001 0a000002" + udp,
		"0800 45000038 00010000 40010000 0a000002 0a000001 0b00000000000000 4500001c 00010000 40110000 0a000001 0a000002" + udp,
		"0800 45000030 00010000 40040000 0a000001 0a000002 4500001c 00010000 40110000 0b000001 0b000002 138813890008 0000",
	} {
		add(packet(t, macs+s))
	}
	cmd := exec.Command(path, "-ntSr", "-")
	cmd.Stdin = bytes.NewReader(file)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	theirs := strings.Split(strings.TrimSpace(string(out)), "\n")
	if diff := cmp.Diff(theirs, want); diff != "" {
		t.Errorf("(-tcpdump +we)\n%s", diff)
	}
}

func FuzzWalk(f *testing.F) {
	for _, s := range []string{ip4 + tcp, "60000000 0018 0040" + strings.Repeat("00", 32) + "2c00 000000000000 1100 0000 00000001" + udp} {
		b, _ := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
		for k := KindEthernet; k <= KindIP; k++ {
			f.Add(b, uint8(k))
		}
	}
	m := maker{rand.New(rand.NewPCG(5, 6))}
	f.Add(m.bytes(100), uint8(1))
	f.Fuzz(func(t *testing.T, pkt []byte, first uint8) {
		k := Kind(first%uint8(KindIP)) + 1
		var s Stack
		s.Walk(pkt, k)
		at := 0
		for _, l := range s.Found() {
			if l.Off != at || l.Len <= 0 || l.Off+l.Len > len(pkt) {
				t.Fatalf("layer %+v of %d bytes behind %d", l, len(pkt), at)
			}
			at = l.Off + l.Len
		}
		if s.Payload != at || s.End > len(pkt) || s.Payload > s.End && s.Status == Done {
			t.Fatalf("payload %d of %d behind %d, status %d", s.Payload, s.End, at, s.Status)
		}
		s.Verify(pkt)
		if b := Append(nil, pkt, k); bytes.ContainsAny(b, "\n\x00") {
			t.Fatalf("line %q", b)
		}
	})
}

func BenchmarkWalk(b *testing.B) {
	pkt, _ := hex.DecodeString(strings.ReplaceAll(macs+"0800"+ip4+tcp, " ", ""))
	var s Stack
	b.ReportAllocs()
	for b.Loop() {
		s.Walk(pkt, KindEthernet)
	}
}

// TestAllocs: nothing is allocated for a packet.
func TestAllocs(t *testing.T) {
	pkt := packet(t, macs+"8100 a064 0800"+ip4+tcp)
	var s Stack
	line := make([]byte, 0, 200)
	if n := testing.AllocsPerRun(100, func() {
		s.Walk(pkt, KindEthernet)
		s.Verify(pkt)
		line = Append(line[:0], pkt, KindEthernet)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
