package spec

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// finish gives names to interfaces and finds what no single statement shows.
func (t *Topology) finish() error {
	if err := t.names(); err != nil {
		return err
	}
	if err := t.addresses(); err != nil {
		return err
	}
	for _, n := range t.Nodes {
		if err := n.check(); err != nil {
			return err
		}
		if err := n.chains(); err != nil {
			return err
		}
	}
	return t.loops()
}

// names gives unnamed interfaces ethN, N being the first that is free, and finds names used twice.
func (t *Topology) names() error {
	for _, n := range t.Nodes {
		used := map[string]Pos{"lo": {}}
		if n.Kind == Bridge {
			used["br0"] = n.Pos
		}
		use := func(name string, pos Pos) error {
			if at, ok := used[name]; ok {
				return &Error{Pos: pos, Msg: fmt.Sprintf("%s has two interfaces %s, the other at %v", n.Name, name, at)}
			}
			used[name] = pos
			return nil
		}
		for _, i := range n.Ifaces {
			if i.Dev != "" {
				if err := use(i.Dev, i.Pos); err != nil {
					return err
				}
			}
		}
		for _, d := range n.Own {
			if err := use(d.Name, d.Pos); err != nil {
				return err
			}
		}
		next := 0
		for _, i := range n.Ifaces {
			for i.Dev == "" {
				name := fmt.Sprintf("eth%d", next)
				if _, taken := used[name]; !taken {
					i.Dev = name
					used[name] = i.Pos
				}
				next++
			}
		}
	}
	return nil
}

// addresses finds one that two interfaces have, and MAC addresses too.
func (t *Topology) addresses() error {
	ips, macs := map[netip.Addr]string{}, map[string]string{}
	ip := func(p netip.Prefix, who string, pos Pos) error {
		if at, ok := ips[p.Addr()]; ok {
			return &Error{pos, fmt.Sprintf("address %v of %s is that of %s already", p.Addr(), who, at), "give each interface its own"}
		}
		ips[p.Addr()] = fmt.Sprintf("%s at %v", who, pos)
		return nil
	}
	for _, n := range t.Nodes {
		for _, i := range n.Ifaces {
			who := n.Name + "." + i.Dev
			for _, p := range i.Addrs {
				if err := ip(p, who, i.Pos); err != nil {
					return err
				}
			}
			if m := i.MAC.String(); m != "" {
				if at, ok := macs[m]; ok {
					return &Error{i.Pos, fmt.Sprintf("MAC %s of %s is that of %s already", m, who, at), "give each interface its own"}
				}
				macs[m] = who
			}
		}
		for _, d := range n.Own {
			for _, p := range d.Addrs {
				if err := ip(p, n.Name+"."+d.Name, d.Pos); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// check looks at what must fit within a node.
func (n *Node) check() error {
	for _, i := range n.Ifaces {
		switch vlans := i.Access != 0 || len(i.Trunk) > 0; {
		case vlans && n.Kind != Bridge:
			return &Error{i.Pos, fmt.Sprintf("%s is a %v: VLANs are of a bridge's ports", n.Name, n.Kind), fmt.Sprintf("bridge %s, or: host %s { vlan eth0.%d eth0 %[3]d }", n.Name, n.Name, max(i.Access, 1))}
		case vlans:
			n.VLANs = true
		case n.Kind == Bridge && len(i.Addrs) > 0:
			return &Error{i.Pos, fmt.Sprintf("a port of bridge %s has an address: nothing would answer there", n.Name), "give the address to a host"}
		}
		if q := i.Qdisc; q != nil && !q.Netem && q.Rate == 0 {
			return &Error{Pos: i.Pos, Msg: "an empty qdisc"}
		}
	}
	for _, d := range n.Own {
		if d.Kind == "vlan" && !n.has(d.Parent) {
			return &Error{Pos: d.Pos, Msg: fmt.Sprintf("vlan %s: %s has no interface %s", d.Name, n.Name, d.Parent), Hint: n.devices()}
		}
	}
	for _, r := range n.Routes {
		if r.Dev != "" && !n.has(r.Dev) {
			return &Error{Pos: r.Pos, Msg: fmt.Sprintf("route: %s has no interface %s", n.Name, r.Dev), Hint: n.devices()}
		}
	}
	for _, r := range n.NFT {
		if r.Dev != "" && !n.has(r.Dev) {
			return &Error{Pos: r.Pos, Msg: fmt.Sprintf("nft: %s has no interface %s", n.Name, r.Dev), Hint: n.devices()}
		}
	}
	for _, f := range n.TC {
		if !n.has(f.Dev) {
			return &Error{Pos: f.Pos, Msg: fmt.Sprintf("tc: %s has no interface %s", n.Name, f.Dev), Hint: n.devices()}
		}
	}
	for _, d := range n.Down {
		if !n.has(d) {
			return &Error{Pos: n.Pos, Msg: fmt.Sprintf("down: %s has no interface %s", n.Name, d), Hint: n.devices()}
		}
	}
	for _, e := range n.Neigh {
		if !n.has(e.Dev) {
			return &Error{Pos: e.Pos, Msg: fmt.Sprintf("neigh: %s has no interface %s", n.Name, e.Dev), Hint: n.devices()}
		}
	}
	return nil
}

// chains finds jumps to chains that are not there, and sets.
func (n *Node) chains() error {
	for _, r := range n.NFT {
		if r.Target != "" && !slices.ContainsFunc(n.NFT, func(o NFTRule) bool { return o.Chain == r.Target }) {
			return &Error{r.Pos, fmt.Sprintf("no rule is in chain %s", r.Target), "nft chain " + r.Target + " drop"}
		}
		for _, m := range r.Matches {
			if (m.Key == "saddr" || m.Key == "daddr") && m.Text != "" && !slices.ContainsFunc(n.Sets, func(s NFTSet) bool { return s.Name == m.Text }) {
				return &Error{r.Pos, fmt.Sprintf("there is no set %s", m.Text), "set " + m.Text + " 10.0.0.1,10.0.0.2"}
			}
			if strings.HasSuffix(m.Key, "addr") && m.Text != "" && r.Dev != "" {
				return &Error{Pos: r.Pos, Msg: fmt.Sprintf("set %s is of family inet: a hook of a device does not see it", m.Text)}
			}
		}
	}
	return nil
}

func (n *Node) all() []string {
	out := []string{"lo"}
	if n.Kind == Bridge {
		out = append(out, "br0")
	}
	for _, i := range n.Ifaces {
		out = append(out, i.Dev)
	}
	for _, d := range n.Own {
		out = append(out, d.Name)
	}
	return out
}

func (n *Node) has(dev string) bool { return slices.Contains(n.all(), dev) }

func (n *Node) devices() string { return "it has " + strings.Join(n.all(), " ") }

// loops finds bridges joined in a ring of which none runs STP: one broadcast would go round for ever.
func (t *Topology) loops() error {
	group := map[*Node]*Node{} // union-find over bridges without STP
	var root func(*Node) *Node
	root = func(n *Node) *Node {
		if group[n] == nil || group[n] == n {
			return n
		}
		group[n] = root(group[n])
		return group[n]
	}
	for _, l := range t.Links {
		a, b := l.A.Node, l.B.Node
		if a.Kind != Bridge || b.Kind != Bridge || a.STP || b.STP {
			continue
		}
		ra, rb := root(a), root(b)
		if ra == rb {
			return &Error{l.B.Pos, fmt.Sprintf("the link %s -- %s closes a loop of bridges without STP", a.Name, b.Name), fmt.Sprintf("bridge %s { stp on }; bridge %s { stp on }", a.Name, b.Name)}
		}
		group[ra] = rb
	}
	return nil
}
