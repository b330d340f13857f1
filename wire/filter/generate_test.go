package filter

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// generated gives expressions made from the grammar.
func generated(seed uint64, n int) []expression {
	g := expressionMaker{packets{rand.New(rand.NewPCG(seed, 2))}}
	var out []expression
	for range n {
		e := expression{text: g.expr(3)}
		if g.chance(5) {
			e.link = Link(g.IntN(int(Loop) + 1))
		}
		out = append(out, e)
	}
	return out
}

// expressionMaker walks the grammar at random.
type expressionMaker struct{ packets }

func (g expressionMaker) word(s string) string { return pick(g.packets, strings.Fields(s)) }

func (g expressionMaker) expr(depth int) string {
	s := g.term(depth)
	for range g.IntN(3) {
		s += " " + g.word("and or and or && ||") + " " + g.term(depth)
	}
	return s
}

func (g expressionMaker) term(depth int) string {
	switch {
	case g.chance(5):
		return g.word("not !") + " " + g.term(depth-1)
	case depth > 0 && g.chance(5):
		return "(" + g.expr(depth-1) + ")"
	case g.chance(4):
		return g.arith(2) + " " + g.word("= == != < <= > >=") + " " + g.arith(2)
	}
	return g.primitive()
}

func (g expressionMaker) primitive() string {
	dir := g.word("src dst - - -")
	if dir == "-" {
		dir = pick(g.packets, []string{"", "src or dst", "src and dst"})
	}
	number := func(s string) string { return g.word(s) }
	more := func(f func() string) string {
		s := f()
		for range max(0, g.IntN(4)-2) {
			s += " " + g.word("or and") + " " + f()
		}
		return s
	}
	v4 := func() string { return pick(g.packets, v4Pool) }
	v6 := func() string { return pick(g.packets, v6Pool) }
	port := func() string { return fmt.Sprint(pick(g.packets, ports)) }
	switch g.IntN(14) {
	case 0, 1:
		return pick(g.packets, []string{"", "ip ", "arp "}) + dir + " host " + more(v4)
	case 2:
		return pick(g.packets, []string{"", "ip6 "}) + dir + " host " + more(v6)
	case 3, 4:
		return pick(g.packets, []string{"", "tcp ", "udp ", "sctp "}) + dir + " port " + more(port)
	case 5:
		return pick(g.packets, []string{"", "tcp ", "udp "}) + dir + " portrange " + port() + "-" + port()
	case 6:
		return dir + " net " + g.word("10.0.0.0/8 10.0.0.0/31 192.168.0.0/16 172.16.0.0/12 2001:db8::/32 fe80::/10 10 10.0")
	case 7:
		return g.word("ip ip6 arp rarp tcp udp sctp icmp icmp6 stp iso llc igmp ah")
	case 8:
		return "vlan " + number("100 200 5 0 4095")
	case 9:
		return g.word("vlan mpls pppoes geneve pppoed vlan")
	case 10:
		return g.word("mpls geneve pppoes") + " " + number("100 1 5 7")
	case 11:
		return g.word("ip ip6") + " proto " + number("6 17 58 132 44 0")
	case 12:
		return g.word("less greater") + " " + number("64 40 100 80")
	}
	return "ether " + strings.Replace(dir, "src and dst", "dst", 1) + " host " + g.word("02:00:00:00:00:01 02:00:00:00:00:02 ff:ff:ff:ff:ff:ff")
}

func (g expressionMaker) arith(depth int) string {
	switch {
	case depth > 0 && g.chance(2):
		return g.arith(depth-1) + " " + g.word("+ - * & | ^ / % << >>") + " " + g.arith(depth-1)
	case depth > 0 && g.chance(6):
		return "(" + g.arith(depth-1) + ")"
	case g.chance(8):
		return "len"
	case g.chance(2):
		return fmt.Sprint(pick(g.packets, []int{1, 2, 3, 4, 7, 16, 255, 1024, 0x800}))
	}
	at := fmt.Sprint(g.IntN(24))
	if depth > 0 && g.chance(4) {
		at = g.arith(depth - 1)
	}
	return g.word("ip ip tcp tcp udp ip6 icmp ether icmp6 arp") + "[" + at + pick(g.packets, []string{"", ":2", ":4", ":1"}) + "]"
}
