package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var hooks = []string{"prerouting", "input", "forward", "output", "postrouting"}

// nft reads HOOK { [not] MATCH } VERDICT: a part of nft(8)'s language, one rule a line.
//
//	nft input udp dport 53 drop
//	nft postrouting oif eth1 masquerade
//	nft prerouting tcp dport 80 dnat 10.0.1.2:8080
func nft(n *Node, w *words) error {
	r := NFTRule{Pos: w.pos}
	var err error
	if r.Hook, err = w.take("the hook"); err != nil {
		return err
	}
	if !slices.Contains(hooks, r.Hook) {
		return &Error{w.pos, fmt.Sprintf("no hook %q", r.Hook), "hooks: " + strings.Join(hooks, " ")}
	}
	for {
		word, err := w.take("a verdict: accept, drop, reject, masquerade, snat or dnat")
		if err != nil {
			return err
		}
		not := word == "not"
		if not {
			if word, err = w.take("what is not to match"); err != nil {
				return err
			}
		}
		switch word {
		case "accept", "drop", "reject", "masquerade", "snat", "dnat":
			if not {
				return &Error{Pos: w.pos, Msg: "not stands before a match, not before " + word}
			}
			return r.verdict(n, w, word)
		}
		m, err := match(w, word)
		if err != nil {
			return err
		}
		m.Not = not
		r.Matches = append(r.Matches, m)
	}
}

// protocols can stand alone or before a port: "udp", "udp dport 53".
var protocols = []string{"tcp", "udp", "icmp", "icmpv6"}

func match(w *words, key string) (m Match, err error) {
	m.Key = key
	if slices.Contains(protocols, key) {
		return Match{Key: "proto", Text: key}, nil
	}
	val, err := w.take("the value of " + key)
	if err != nil {
		return m, err
	}
	switch key {
	case "iif", "oif":
		m.Text = val
		err = validNameErr(val, 15)
	case "saddr", "daddr":
		m.Net, err = network(val)
	case "sport", "dport":
		var n int
		n, err = number(val, 0, 65535)
		m.Num = uint32(n)
	case "mark":
		m.Num, err = mark(val)
	default:
		return m, unknown(w.pos, key, []string{"iif", "oif", "saddr", "daddr", "tcp", "udp", "icmp", "icmpv6", "sport", "dport", "mark", "not"})
	}
	return m, w.fail(err)
}

// natHooks is where the kernel allows each (net/netfilter/nft_nat.c, nft_masq.c).
var natHooks = map[string][]string{
	"masquerade": {"postrouting"}, "snat": {"postrouting", "input"}, "dnat": {"prerouting", "output"},
}

func (r NFTRule) verdict(n *Node, w *words, v string) error {
	r.Verdict = v
	if at := natHooks[v]; at != nil && !slices.Contains(at, r.Hook) {
		return &Error{w.pos, fmt.Sprintf("%s has no %s", r.Hook, v), v + " is for " + strings.Join(at, " and ")}
	}
	if v == "reject" && (r.Hook == "prerouting" || r.Hook == "postrouting") {
		return &Error{w.pos, r.Hook + " has no reject", "reject is for input, forward and output"}
	}
	if v == "snat" || v == "dnat" {
		to, err := w.take("the new address")
		if err != nil {
			return err
		}
		if a, err := netip.ParseAddr(to); err == nil {
			r.NAT = netip.AddrPortFrom(a, 0)
		} else if r.NAT, err = netip.ParseAddrPort(to); err != nil {
			return w.fail(fmt.Errorf("%q is neither ADDRESS nor ADDRESS:PORT", to))
		}
	}
	port := slices.ContainsFunc(r.Matches, func(m Match) bool { return m.Key == "sport" || m.Key == "dport" })
	l4 := slices.ContainsFunc(r.Matches, func(m Match) bool { return m.Key == "proto" && !m.Not && (m.Text == "tcp" || m.Text == "udp") })
	if (port || r.NAT.Port() != 0) && !l4 {
		return &Error{r.Pos, "a port without its protocol", "udp dport 53"}
	}
	n.NFT = append(n.NFT, r)
	return nil
}
