package filter

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestErrors(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		{"tcp prot 80", `tcp prot 80
    ^^^^ unexpected "prot"; expected and, or, or the end
    did you mean port?`},
		{"host 10.0.0.256", `host 10.0.0.256
     ^^^^^^^^^^ "10.0.0.256" is not an IPv4 address: every part is a decimal number up to 255`},
		{"net 10.0.0.1/8", `net 10.0.0.1/8
    ^^^^^^^^ the address has bits outside its network
    did you mean 10.0.0.0/8?`},
		{"net 2001:db8::1/32", `net 2001:db8::1/32
    ^^^^^^^^^^^ the address has bits outside its network
    did you mean 2001:db8::/32?`},
		{"10.0.0.1", `10.0.0.1
^^^^^^^^ unexpected "10.0.0.1"; expected something to test
an address wants a word before it: host 10.0.0.1`},
		{"tcp or 443", `tcp or 443
       ^^^ "443" inherits nothing: what stands before it has no host, net, port or proto
       write what it is, as in: port 443`},
		{"ip and", `ip and
      ^ the expression ends here; expected something to test`},
		{"(ip or arp", `(ip or arp
          ^ the expression ends here; expected and, or, or )`},
		{"ip[0:3] = 1", `ip[0:3] = 1
     ^ bytes are read by 1, 2 or 4`},
		{"tcp[tcpflag] & 2 != 0", `tcp[tcpflag] & 2 != 0
    ^^^^^^^ unexpected "tcpflag"; expected a number, len, or bytes like ip[0]
    did you mean tcpflags?`},
		{"port 70000", `port 70000
     ^^^^^ port 70000 is above 65535`},
		{"port htttp", `port htttp
     ^^^^^ unknown port "htttp"`},
		{"icmp port 80", `icmp port 80
          ^^ "icmp" has no ports`},
		{"ip and inbound", `ip and inbound
       ^^^^^^^ the bytes of a packet do not say its direction on this link type
       only the Linux cooked headers do`},
		{"ifname eth0", `ifname eth0
^^^^^^ "on" is a word for pf, which no link type here carries`},
		{"host 02:00:00:00:00:01", `host 02:00:00:00:00:01
     ^^^^^^^^^^^^^^^^^ a MAC address goes with ether
     write: ether host 02:00:00:00:00:01`},
		{"vlan 5000", `vlan 5000
     ^^^^ the largest number of vlan is 4095`},
		{"ip # tcp", `ip # tcp
   ^ unexpected character "#"`},
		{"ip[0] / 0 = 1", `ip[0] / 0 = 1
        ^ division by zero`},
		{"ip[8] = 089", `ip[8] = 089
        ^^^ number 089 starts with 0, so it is octal, and has the digit 8`},
		{"host nosuch", `host nosuch
     ^^^^^^ unknown host "nosuch"`},
		{"ip and ip6", `ip and ip6
^^^^^^^^^^ no packet can match this`},
		{"host ä", `host ä
     ^ unexpected character "\xc3"`},
	} {
		_, err := Compile(tt.expr, Options{})
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%q: %v, want an error", tt.expr, err)
			continue
		}
		if diff := cmp.Diff(tt.want, e.Text()); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", tt.expr, diff)
		}
		if !strings.HasPrefix(e.Error(), "filter, column ") {
			t.Errorf("%q: %s", tt.expr, e.Error())
		}
	}
}

// known has names for tests.
func known() Names {
	return Names{
		Host: func(name string) []netip.Addr {
			if name != "gw" {
				return nil
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")}
		},
		Ether: func(name string) ([6]byte, bool) { return [6]byte{2, 0, 0, 0, 0, 1}, name == "gw" },
		Net:   func(name string) (uint32, bool) { return 10, name == "lab" },
		Port:  func(name string) (uint16, string, bool) { return 8125, "udp", name == "stats" },
	}
}

// TestNames: an expression with names has the verdicts of one with numbers.
func TestNames(t *testing.T) {
	for _, tt := range []struct{ named, plain string }{
		{"host gw", "host 10.0.0.1 or host 2001:db8::1"},
		{"ip host gw", "ip host 10.0.0.1"},
		{"src gw", "src host 10.0.0.1 or src host 2001:db8::1"},
		{"ether host gw", "ether host 02:00:00:00:00:01"},
		{"gateway gw", "ether host 02:00:00:00:00:01 and not (host 10.0.0.1 or host 2001:db8::1)"},
		{"net lab", "net 10.0.0.0/8"},
		{"port stats", "udp port 8125"},
		{"port http", "tcp port 80"},
		{"port domain", "port 53"},
		{"portrange http-https", "portrange 80-443"},
		{"ip proto ospf", "ip proto 89"},
		{"ether proto loopback", "ether proto 0x9000"},
	} {
		equivalent(t, tt.named, tt.plain, Options{Names: known()})
	}
}

// equivalent compares two expressions on many packets.
func equivalent(t *testing.T, x, y string, o Options) {
	t.Helper()
	fx, err := Compile(x, o)
	if err != nil {
		t.Error(err)
		return
	}
	fy, err := Compile(y, o)
	if err != nil {
		t.Error(err)
		return
	}
	p, matches := packets{rand.New(rand.NewPCG(5, 5))}, 0
	for range 3000 {
		pkt := p.packet(o.Link)
		got, want := fx.Match(pkt, len(pkt)), fy.Match(pkt, len(pkt))
		if got {
			matches++
		}
		if len(pkt) > 90 && got != want { // shorter ones may fail different loads
			t.Errorf("%q: %v, but %q: %v on % x", x, got, y, want, pkt)
			return
		}
	}
	if matches == 0 && !strings.Contains(x, "stats") && !strings.Contains(x, "range") {
		t.Errorf("%q matches no packet at all", x)
	}
}

// TestVXLAN has packets by hand: the oracle's libpcap does not know the word.
func TestVXLAN(t *testing.T) {
	eth := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0}
	ip := func(proto byte, dst byte, body []byte) []byte {
		return cat2([]byte{0x45, 0}, be16(uint16(20+len(body))), be32(0), []byte{64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, dst}, body)
	}
	tcp := cat2(be16(4000), be16(80), make([]byte, 16))
	outer := func(vni uint32, flags byte) []byte {
		inner := cat2(eth, ip(ipTCP, 7, tcp))
		return cat2(eth, ip(ipUDP, 2, cat2(be16(9), be16(vxlanPort), be16(uint16(16+len(inner))), be16(0), []byte{flags, 0, 0, 0}, be32(vni<<8), inner)))
	}
	for _, tt := range []struct {
		expr string
		pkt  []byte
		want bool
	}{
		{"vxlan", outer(5, 8), true},
		{"vxlan", outer(5, 0), false},
		{"vxlan 5", outer(5, 8), true},
		{"vxlan 6", outer(5, 8), false},
		{"vxlan 5 and tcp port 80", outer(5, 8), true},
		{"tcp port 80", outer(5, 8), false},
		{"vxlan and host 10.0.0.7", outer(5, 8), true},
		{"vxlan and host 10.0.0.2", outer(5, 8), false},
		{"host 10.0.0.2 and vxlan and host 10.0.0.7", outer(5, 8), true},
		{"vxlan and ether dst 02:00:00:00:00:02", outer(5, 8), true},
		{"vxlan and tcp[2:2] = 80", outer(5, 8), true},
		{"vxlan and vlan", outer(5, 8), false},
		{"vxlan", outer(5, 8)[:42], false},
	} {
		f, err := Compile(tt.expr, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Match(tt.pkt, len(tt.pkt)); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.expr, got, tt.want)
		}
	}
}

// TestWireLength: len is about the packet as it was, not as it was captured.
func TestWireLength(t *testing.T) {
	f, err := Compile("greater 1000 and ip", Options{})
	if err != nil {
		t.Fatal(err)
	}
	pkt := cat2(make([]byte, 12), be16(etIP), make([]byte, 20))
	if !f.Match(pkt, 1400) || f.Match(pkt, len(pkt)) {
		t.Error("the length on the wire does not count")
	}
}

// TestLong: jumps over more than 255 instructions, and programs longer than the kernel takes.
func TestLong(t *testing.T) {
	var parts []string
	for i := range 200 {
		parts = append(parts, "host 10.1."+string(rune('0'+i%10))+"."+string(rune('0'+i/10%10))+string(rune('0'+i/100)))
	}
	long := "tcp and (" + strings.Join(parts, " or ") + ")"
	f, err := Compile(long, Options{})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := f.Classic()
	if err != nil {
		t.Fatal(err)
	}
	p := packets{rand.New(rand.NewPCG(1, 1))}
	for range 2000 {
		pkt := p.packet(Ethernet)
		if len(pkt) > 33 {
			copy(pkt[26:], []byte{10, 1, 5, byte(p.IntN(100))})
		}
		if got, want := execute(raw, pkt), f.Match(pkt, len(pkt)); got != want {
			t.Fatalf("the classic program says %v, Match %v", got, want)
		}
	}
	for len(parts) < 3000 {
		parts = append(parts, "ip[8] * "+string(rune('2'+len(parts)%7))+" + ip[9] * ip[8] = "+strings.Repeat("1", 1+len(parts)%5))
	}
	f, err = Compile(strings.Join(parts, " or "), Options{Unoptimized: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = f.Classic(); err == nil {
		t.Error("a program of more than 4096 instructions is given")
	}
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{"tcp port 80 or 443", "vlan 5 and ip[ip[0]&15:2] % 3 > -1", "geneve and (mpls or ip6 host ::1)", "ip protochain 6"} {
		f.Add(s, []byte("\x02\x00\x00\x00\x00\x01\x02\x00\x00\x00\x00\x02\x08\x00\x45\x00"))
	}
	f.Fuzz(func(t *testing.T, expr string, pkt []byte) {
		if len(expr) > 300 {
			return
		}
		for l := Ethernet; l <= Loop; l++ {
			fl, err := Compile(expr, Options{Link: l, Names: known()})
			var e *Error
			if errors.As(err, &e) {
				_ = e.Text()
				continue
			}
			raw, err := fl.Classic()
			if err != nil {
				continue
			}
			if got, want := execute(raw, pkt), fl.Match(pkt, len(pkt)); got != want {
				t.Errorf("%v %q: the classic program says %v, Match %v", l, expr, got, want)
			}
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	f, err := Compile("tcp and (port 80 or 443) and not host 10.0.0.1", Options{})
	if err != nil {
		b.Fatal(err)
	}
	p := packets{rand.New(rand.NewPCG(1, 1))}
	var pkts [64][]byte
	for i := range pkts {
		pkts[i] = p.packet(Ethernet)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		pkt := pkts[i%len(pkts)]
		f.Match(pkt, len(pkt))
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		if _, err := Compile("tcp and (port 80 or 443) and not host 10.0.0.1", Options{}); err != nil {
			b.Fatal(err)
		}
	}
}

// TestAllocs: nothing is allocated for a packet.
func TestAllocs(t *testing.T) {
	f, err := Compile("tcp port 80 and ip[ip[0] & 15] + len > 3", Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := packets{rand.New(rand.NewPCG(1, 1))}
	pkt := p.packet(Ethernet)
	if n := testing.AllocsPerRun(100, func() { f.Match(pkt, len(pkt)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
