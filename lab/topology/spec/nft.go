package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

var (
	hooks    = []string{"prerouting", "input", "forward", "output", "postrouting"}
	devHooks = []string{"ingress", "egress"}
	verdicts = []string{"accept", "drop", "reject", "reset", "masquerade", "snat", "dnat", "rewrite", "jump", "goto"}
)

// nft reads WHERE { [not] MATCH } VERDICT: a part of nft(8)'s language, one rule a line. WHERE is a hook, a hook of a
// device, or a chain that others jump to.
//
//	nft input udp dport 53 drop
//	nft postrouting oif eth1 masquerade
//	nft prerouting tcp dport 80 dnat 10.0.1.2:8080
//	nft ingress eth0 udp drop
//	nft input jump known; nft chain known saddr @bad drop
func nft(n *Node, w *words) error {
	r := NFTRule{Pos: w.pos}
	hook, err := w.take("the hook")
	if err != nil {
		return err
	}
	switch {
	case hook == "chain":
		r.Chain, err = w.take("the chain's name")
		if err == nil {
			err = w.fail(nftName(r.Chain))
		}
	case slices.Contains(devHooks, hook):
		r.Hook = hook
		r.Dev, err = w.take("the interface")
	case slices.Contains(hooks, hook):
		r.Hook = hook
	default:
		return &Error{w.pos, fmt.Sprintf("no hook %q", hook), "hooks: " + strings.Join(append(hooks, devHooks...), " ") + ", or chain NAME"}
	}
	if err != nil {
		return err
	}
	for {
		word, err := w.take("a verdict: " + strings.Join(verdicts, ", "))
		if err != nil {
			return err
		}
		not := word == "not"
		if not {
			if word, err = w.take("what is not to match"); err != nil {
				return err
			}
		}
		if slices.Contains(verdicts, word) {
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
		if set, ok := strings.CutPrefix(val, "@"); ok {
			m.Text = set
			break
		}
		m.Net, err = network(val)
	case "ct":
		m.Text = val
		if !slices.Contains([]string{"invalid", "new", "established", "related"}, val) {
			err = fmt.Errorf("no state %q of a connection: invalid new established related", val)
		}
	case "over":
		return over(w, val)
	case "sport", "dport":
		var n int
		n, err = number(val, 0, 65535)
		m.Num = uint32(n)
	case "mark":
		m.Num, err = mark(val)
	default:
		return m, unknown(w.pos, key, []string{"iif", "oif", "saddr", "daddr", "tcp", "udp", "icmp", "icmpv6", "sport", "dport", "mark", "ct", "over", "not"})
	}
	return m, w.fail(err)
}

// over reads N/UNIT [burst N]: what comes faster matches.
func over(w *words, val string) (m Match, err error) {
	m = Match{Key: "over", Burst: 5} // nft(8)'s burst
	many, unit, _ := strings.Cut(val, "/")
	n, err := number(many, 1, 1<<30)
	if err != nil || !slices.Contains([]string{"second", "minute", "hour"}, unit) {
		return m, w.fail(fmt.Errorf("%q is no limit such as 5/minute", val))
	}
	m.Num, m.Text = uint32(n), unit
	if len(w.toks) > 1 && w.toks[0].text == "burst" {
		w.take("")
		b, _ := w.take("")
		if n, err = number(b, 1, 1<<30); err != nil {
			return m, w.fail(err)
		}
		m.Burst = uint32(n)
	}
	return m, nil
}

// nftName accepts what nft(8) takes for a name without quotes.
func nftName(s string) error { return validNameErr(s, 31) }

// nftTable reads NAME, the table of the host's rules.
func nftTable(n *Node, w *words) (err error) {
	if n.Table, err = w.take("the table's name"); err != nil {
		return err
	}
	return w.fail(nftName(n.Table))
}

// nftSet reads NAME ADDRESS,ADDRESS.
func nftSet(n *Node, w *words) error {
	var s NFTSet
	var err error
	if s.Name, err = w.take("the set's name"); err == nil {
		err = w.fail(nftName(s.Name))
	}
	if err != nil {
		return err
	}
	list, err := w.take("its addresses")
	if err != nil {
		return err
	}
	for a := range strings.SplitSeq(list, ",") {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return w.fail(err)
		}
		if len(s.Addrs) > 0 && addr.Is4() != s.Addrs[0].Is4() {
			return w.fail(fmt.Errorf("%v and %v are of two families", s.Addrs[0], addr))
		}
		s.Addrs = append(s.Addrs, addr)
	}
	n.Sets = append(n.Sets, s)
	return nil
}

// nftPolicy reads HOOK accept|drop.
func nftPolicy(n *Node, w *words) error {
	p := NFTPolicy{Pos: w.pos}
	var err error
	if p.Hook, err = w.take("the hook"); err != nil {
		return err
	}
	if !slices.Contains(hooks, p.Hook) {
		return &Error{w.pos, fmt.Sprintf("no hook %q", p.Hook), "hooks: " + strings.Join(hooks, " ")}
	}
	if p.Does, err = w.take("accept or drop"); err != nil {
		return err
	}
	if p.Does != "accept" && p.Does != "drop" {
		return &Error{Pos: w.pos, Msg: fmt.Sprintf("%q is neither accept nor drop", p.Does)}
	}
	n.Policy = append(n.Policy, p)
	return nil
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
	if (v == "reject" || v == "reset") && (r.Hook == "prerouting" || r.Hook == "postrouting" || r.Dev != "") {
		return &Error{w.pos, r.Hook + " has no " + v, v + " is for input, forward and output"}
	}
	if v == "jump" || v == "goto" {
		var err error
		if r.Target, err = w.take("the chain"); err != nil {
			return err
		}
	}
	if v == "snat" || v == "dnat" || v == "rewrite" {
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
	tcp := slices.ContainsFunc(r.Matches, func(m Match) bool { return m.Key == "proto" && !m.Not && m.Text == "tcp" })
	switch {
	case v == "reset" && !tcp:
		return &Error{w.pos, "only TCP has a reset", "tcp dport 80 reset"}
	case v == "rewrite" && r.NAT.Port() != 0:
		return &Error{Pos: w.pos, Msg: "rewrite is of an address, without a port"}
	}
	if (port || r.NAT.Port() != 0) && !l4 {
		return &Error{r.Pos, "a port without its protocol", "udp dport 53"}
	}
	n.NFT = append(n.NFT, r)
	return nil
}
