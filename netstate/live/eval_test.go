package live_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/live"
	"github.com/fathom-trace/fathom/netstate/nft"
)

const testMark = 0x77

// randomMatch is a match that some of randomPacket's packets meet.
func randomMatch(r *rand.Rand) string {
	addr := func() string { return fmt.Sprintf("127.%d.%d.%d", r.IntN(2), r.IntN(2), 1+r.IntN(3)) }
	port := func() int { return 1 + r.IntN(8) }
	not := []string{"", "!= "}[r.IntN(2)]
	l4 := []string{"udp", "tcp"}[r.IntN(2)]
	all := []string{
		"ip saddr " + not + addr(), "ip daddr " + not + addr(),
		fmt.Sprintf("ip daddr %s127.%d.0.0/%d", not, r.IntN(2), 16), fmt.Sprintf("ip saddr 127.0.%d.0/%d", r.IntN(2), 23+r.IntN(6)),
		fmt.Sprintf("ip daddr { %s, 127.1.0.0/16 }", addr()[:9]), fmt.Sprintf("ip saddr 127.0.0.1-127.0.%d.2", r.IntN(2)),
		fmt.Sprintf("ip ttl < %d", 60+r.IntN(8)), fmt.Sprintf("ip dscp %s%s", not, []string{"ef", "cs1", "cs0"}[r.IntN(3)]),
		fmt.Sprintf("ip length > %d", 28+r.IntN(30)), "ip protocol " + not + l4, "meta l4proto { udp, icmp }",
		fmt.Sprintf("%s dport %s%d", l4, not, port()), fmt.Sprintf("%s sport %d-%d", l4, 1+r.IntN(4), 5+r.IntN(4)),
		fmt.Sprintf("%s dport { %d, %d-%d }", l4, 1+r.IntN(2), 4, 5+r.IntN(4)), fmt.Sprintf("th dport %d", port()),
		"tcp flags syn", "tcp flags & (syn|ack) == syn", "tcp flags != ack", "tcp flags { syn, ack }",
		"icmp type echo-request", "icmp type { echo-reply, destination-unreachable }",
		fmt.Sprintf("ip saddr . %s dport { %s . %d, %s . %d }", l4, addr(), port(), addr(), port()),
		fmt.Sprintf("ip saddr . udp dport { 127.0.0.0/16 . 1-%d }", port()),
		"ip daddr @some", "ip daddr != @some", "iifname \"lo\"", "iif lo", "iifname \"l*\"", "oifname != \"lo\"", "meta nfproto ipv4", "meta protocol ip6",
		fmt.Sprintf("meta mark & 0xf == %d", 7+r.IntN(2)), "meta mark 0x70-0x80", fmt.Sprintf("meta length %d-%d", 28, 30+r.IntN(40)),
		fmt.Sprintf("ip id %s%d", not, r.IntN(3)), "ip frag-off & 0x4000 != 0", "fib daddr type local", "fib saddr type != local", "fib daddr . iif type { local, broadcast }",
		"fib saddr . iif oif missing", "fib daddr oif lo", "@nh,64,8 0x40", "meta pkttype host",
		fmt.Sprintf("udp dport %d limit rate 1/day burst 1 packets", port()),
	}
	return all[r.IntN(len(all))]
}

// protocols counts what a match says of the transport protocol: nft refuses rules that contradict themselves.
func protocols(match string) int {
	n := 0
	for _, p := range []string{"tcp ", "udp ", "icmp ", "l4proto", "ip protocol", "th ", "ip6"} {
		if strings.Contains(match, p) {
			n++
		}
	}
	return n
}

// randomRules is a table whose chains jump about; every rule counts.
func randomRules(r *rand.Rand) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet t {\n set some { type ipv4_addr; flags interval; elements = { 127.0.0.1, 127.1.0.0/24 } }\n")
	verdicts := []string{"accept", "drop", "return", "jump c%d", "goto c%d", "", "", "continue", "vmap"}
	for c := 3; c >= 0; c-- {
		fmt.Fprintf(&b, " chain c%d {\n", c)
		if c == 0 {
			fmt.Fprintf(&b, "  type filter hook input priority 0; policy %s;\n", []string{"accept", "drop"}[r.IntN(2)])
			fmt.Fprintf(&b, "  meta mark != %d accept\n  counter\n", testMark)
		}
		for range 4 + r.IntN(5) {
			v := verdicts[r.IntN(len(verdicts))]
			switch {
			case strings.Contains(v, "%d") && c == 3:
				v = "accept"
			case strings.Contains(v, "%d"):
				v = fmt.Sprintf(v, c+1+r.IntN(3-c))
			case v == "vmap":
				v = fmt.Sprintf("counter ip protocol vmap { udp : %s, tcp : %s }", []string{"drop", "continue"}[r.IntN(2)], []string{"accept", "return"}[r.IntN(2)])
				fmt.Fprintf(&b, "  %s %s\n", randomMatch(r), v)
				continue
			}
			match := randomMatch(r)
			if r.IntN(3) == 0 && !strings.Contains(match, "limit") {
				other := randomMatch(r)
				if !strings.Contains(other, "limit") && protocols(match+" "+other) <= 1 {
					match += " " + other
				}
			}
			fmt.Fprintf(&b, "  %s counter %s\n", match, v)
		}
		b.WriteString(" }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// randomPacket is an IPv4 packet for the loopback.
func randomPacket(r *rand.Rand) []byte {
	body := make([]byte, 20+r.IntN(20))
	proto := []byte{1, 6, 17}[r.IntN(3)]
	switch proto {
	case 1:
		body[0] = []byte{0, 3, 8}[r.IntN(3)]
	default:
		binary.BigEndian.PutUint16(body, uint16(1+r.IntN(8)))
		binary.BigEndian.PutUint16(body[2:], uint16(1+r.IntN(8)))
		if proto == 6 {
			body[12], body[13] = 0x50, byte(r.IntN(64))
		} else {
			binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
		}
	}
	p := append([]byte{0x45, []byte{0, 0xb8, 0x20}[r.IntN(3)], 0, 0, 0, byte(1 + r.IntN(2)), byte(r.IntN(2) << 6), 0, byte(60 + r.IntN(8)), proto, 0, 0,
		127, byte(r.IntN(2)), byte(r.IntN(2)), byte(1 + r.IntN(3)), 127, byte(r.IntN(2)), byte(r.IntN(2)), byte(1 + r.IntN(3))}, body...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	return p
}

// send puts packets on the loopback of the namespace.
func (s space) send(packets [][]byte) {
	s.t.Helper()
	err := s.NS.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, testMark); err != nil {
			return err
		}
		for _, p := range packets {
			if err := unix.Sendto(fd, p, 0, &unix.SockaddrInet4{Addr: [4]byte(p[16:20])}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestEval: random rules and packets; each rule's counter in the kernel is what Eval says it should be. Rules with a limit
// may match or not: Eval must have them as possible, and what it says of the others must hold whatever they did.
func TestEval(t *testing.T) {
	ktest.Need(t, ktest.NetNS)
	rules, sure := 0, 0
	for seed := range rounds(12) {
		r := rand.New(rand.NewPCG(seed, 5))
		s := newSpace(t)
		s.setup("ip link set lo up")
		text := randomRules(r)
		file := filepath.Join(t.TempDir(), "rules")
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		s.run("nft -f " + file)
		var packets [][]byte
		for range 150 {
			packets = append(packets, randomPacket(r))
		}
		state := s.Read(live.NFT | live.Links | live.Routes | live.Rules)
		least, most := expect(state, packets)
		s.send(packets)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			state = s.Read(live.NFT)
			c := chainOf(state.Chains, "c0")
			if c.Rules[1].Packets == uint64(len(packets)) || time.Now().After(deadline) {
				break
			}
		}
		for _, c := range state.Chains {
			for _, rule := range c.Rules {
				if !rule.Counts {
					continue
				}
				rules++
				key := fmt.Sprint(c.Name, rule.Handle)
				if rule.Packets < least[key] || rule.Packets > most[key] {
					t.Errorf("seed %d, %s %d %q: %d packets, should be %d to %d\n%s", seed, c.Name, rule.Handle, rule.Text, rule.Packets, least[key], most[key], text)
				}
				if least[key] == most[key] {
					sure++
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d rules, %d of them sure", rules, sure)
	if sure < rules/2 {
		t.Error("too little is decided")
	}
}

func chainOf(all []nft.Chain, name string) nft.Chain {
	for _, c := range all {
		if c.Name == name {
			return c
		}
	}
	return nft.Chain{}
}

// expect counts how often each rule matches at least and at most. Where a packet met a rule that cannot be decided, all
// that follows is only possible.
func expect(s *netstate.State, packets [][]byte) (least, most map[string]uint64) {
	least, most = map[string]uint64{}, map[string]uint64{}
	host := uint8(0)
	for _, p := range packets {
		x := s.Packet(p, 1, 0)
		x.Mark, x.PktType = testMark, &host
		out := s.Firewall().Eval(x, "input")
		open := false
		for _, m := range out.Trail {
			key := fmt.Sprint(m.Chain.Name, m.Rule.Handle)
			most[key]++
			if m.Unknown != "" {
				open = true
			} else if !open {
				least[key]++
			}
		}
	}
	return least, most
}
