package spec

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// endKeys are the options of a link's end.
var endKeys = map[string]func(*Iface, string) error{
	"dev": func(i *Iface, s string) error { i.Dev = s; return devName(s) },
	"mac": func(i *Iface, s string) (err error) { i.MAC, err = mac(s); return err },
	"mtu": func(i *Iface, s string) (err error) { i.MTU, err = number(s, 68, 65535); return err },
	"queues": func(i *Iface, s string) (err error) {
		i.Queues, err = number(s, 1, 4096)
		return err
	},
	"ipv6": func(i *Iface, s string) error { on, err := onOff(s); i.NoIPv6 = !on; return err },
	"vlan": func(i *Iface, s string) error {
		n, err := number(s, 1, 4094)
		i.Access = uint16(n)
		return err
	},
	"trunk": func(i *Iface, s string) error {
		for v := range strings.SplitSeq(s, ",") {
			n, err := number(v, 1, 4094)
			if err != nil {
				return err
			}
			i.Trunk = append(i.Trunk, uint16(n))
		}
		return nil
	},
	"netem": func(i *Iface, s string) (err error) { i.Qdisc, err = netem(s); return err },
	"tbf":   func(i *Iface, s string) (err error) { i.Qdisc, err = tbf(s); return err },
	"rate": func(i *Iface, s string) error {
		r, err := rate(s)
		if i.Qdisc == nil {
			i.Qdisc = &Qdisc{}
		}
		i.Qdisc.Rate, i.Qdisc.Burst = r, 32<<10
		return err
	},
}

// properties are what stands in a declaration.
var properties = map[string]func(*Node, *words) error{
	"route":  route,
	"rule":   rule,
	"neigh":  neigh,
	"sysctl": sysctl,
	"nft":    nft,
	"table":  nftTable,
	"set":    nftSet,
	"policy": nftPolicy,
	"tc":     tcFilter,
	"xfrm":   xfrm,
	"down":   down,
	"stp":    stp,
	"tun":    device("tun"),
	"tap":    device("tap"),
	"dummy":  device("dummy"),
	"vlan":   vlan,
}

func number(s string, from, to int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < from || n > to {
		return 0, fmt.Errorf("%q is no number from %d to %d", s, from, to)
	}
	return n, nil
}

func onOff(s string) (bool, error) {
	if s != "on" && s != "off" {
		return false, fmt.Errorf("%q is neither on nor off", s)
	}
	return s == "on", nil
}

// devName is dev_valid_name (net/core/dev.c) with names of ours only: up to 15 letters.
func devName(s string) error {
	if s == "lo" {
		return errors.New("lo is every host's loopback")
	}
	return validNameErr(s, 15)
}

func validNameErr(s string, most int) error {
	var e *Error
	if err := validName(Pos{}, "interface name", s, most); errors.As(err, &e) {
		return fmt.Errorf("%s: %s", e.Msg, e.Hint)
	}
	return nil
}

func mac(s string) (net.HardwareAddr, error) {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 {
		return nil, fmt.Errorf("%q is no MAC address", s)
	}
	if m[0]&1 != 0 {
		return nil, fmt.Errorf("%s is a group's address, not an interface's", s)
	}
	return m, nil
}

// rate reads bits a second, as tc does: 10mbit, 500kbit, 1gbit, and gives bytes a second.
func rate(s string) (uint64, error) {
	for _, u := range []struct {
		suffix string
		bits   float64
	}{{"kbit", 1e3}, {"mbit", 1e6}, {"gbit", 1e9}, {"bit", 1}} {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			f, err := strconv.ParseFloat(n, 64)
			if err == nil && f*u.bits >= 8 && f*u.bits <= 1e13 {
				return uint64(f * u.bits / 8), nil
			}
		}
	}
	return 0, fmt.Errorf("%q is no rate such as 10mbit", s)
}

func percent(s string) (float64, error) {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return 0, fmt.Errorf("%q is no percentage", s)
	}
	return f, nil
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > time.Hour {
		return 0, fmt.Errorf("%q is no time such as 10ms", s)
	}
	return d, nil
}

// netem reads tc-netem(8)'s words: delay TIME [JITTER], loss P, duplicate P, corrupt P, reorder P, rate R, limit N.
func netem(s string) (*Qdisc, error) {
	q := &Qdisc{Netem: true}
	f := strings.Fields(s)
	for len(f) > 0 {
		if len(f) < 2 {
			return nil, fmt.Errorf("%s has no value", f[0])
		}
		var err error
		key, val := f[0], f[1]
		f = f[2:]
		switch key {
		case "delay":
			q.Delay, err = duration(val)
			if len(f) > 0 && err == nil && f[0][0] >= '0' && f[0][0] <= '9' {
				q.Jitter, err = duration(f[0])
				f = f[1:]
			}
		case "loss":
			q.Loss, err = percent(val)
		case "duplicate":
			q.Duplicate, err = percent(val)
		case "corrupt":
			q.Corrupt, err = percent(val)
		case "reorder":
			q.Reorder, err = percent(val)
		case "rate":
			q.Rate, err = rate(val)
		case "limit":
			var n int
			n, err = number(val, 1, 1<<30)
			q.Limit = uint32(n)
		default:
			err = fmt.Errorf("unknown key %q: there are delay loss duplicate corrupt reorder rate limit", key)
		}
		if err != nil {
			return nil, err
		}
	}
	return q, nil
}

// tbf reads tc-tbf(8)'s words: rate R, burst BYTES, limit BYTES.
func tbf(s string) (*Qdisc, error) {
	q := &Qdisc{Burst: 32 << 10}
	f := strings.Fields(s)
	for ; len(f) > 1; f = f[2:] {
		var n int
		var err error
		switch f[0] {
		case "rate":
			q.Rate, err = rate(f[1])
		case "burst":
			n, err = number(f[1], 1, 1<<30)
			q.Burst = uint32(n)
		case "limit":
			n, err = number(f[1], 1, 1<<30)
			q.Limit = uint32(n)
		default:
			err = fmt.Errorf("unknown key %q: there are rate burst limit", f[0])
		}
		if err != nil {
			return nil, err
		}
	}
	switch {
	case len(f) > 0:
		return nil, fmt.Errorf("%s has no value", f[0])
	case q.Rate == 0:
		return nil, errors.New("tbf needs a rate")
	}
	return q, nil
}

// network reads a destination: a prefix, an address, or "default" of the family of via.
func network(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is neither a network nor an address", s)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

var routeTypes = []string{"unicast", "blackhole", "unreachable", "prohibit"}

// route reads [TYPE] DESTINATION [via A] [dev D] [src A] [metric N] [table N] [mtu N], as ip-route(8) has it.
func route(n *Node, w *words) error {
	r := Route{Pos: w.pos, Type: "unicast"}
	dst, err := w.take("the route's destination")
	if err == nil && slices.Contains(routeTypes, dst) {
		r.Type = dst
		dst, err = w.take("the route's destination")
	}
	if err != nil {
		return err
	}
	isDefault := dst == "default" || dst == "default6"
	if !isDefault {
		if r.Dst, err = network(dst); err != nil {
			return w.fail(err)
		}
	}
	for w.more() {
		key, _ := w.take("")
		val, err := w.take("the value of " + key)
		if err != nil {
			return err
		}
		switch key {
		case "via":
			r.Via, err = netip.ParseAddr(val)
		case "src":
			r.Src, err = netip.ParseAddr(val)
		case "dev":
			r.Dev = val
		case "metric":
			r.Metric, err = number(val, 1, 1<<31-1)
		case "table":
			r.Table, err = number(val, 1, 1<<31-1)
		case "mtu":
			r.MTU, err = number(val, 68, 65535)
		default:
			return unknown(w.pos, key, []string{"via", "dev", "src", "metric", "table", "mtu"})
		}
		if err != nil {
			return w.fail(err)
		}
	}
	if isDefault {
		r.Dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Via.Is6() || dst == "default6" {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	if r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4() {
		return &Error{Pos: r.Pos, Msg: fmt.Sprintf("route to %v via %v: two families of addresses", r.Dst, r.Via)}
	}
	if r.Type == "unicast" && !r.Via.IsValid() && r.Dev == "" {
		return &Error{r.Pos, "a route leads nowhere", "add via ADDRESS or dev NAME, or make it blackhole, unreachable or prohibit"}
	}
	n.Routes = append(n.Routes, r)
	return nil
}

// rule reads [from P] [to P] [iif D] [oif D] [fwmark N] (table N | blackhole | unreachable | prohibit) [priority N], as
// ip-rule(8) has it.
func rule(n *Node, w *words) error {
	r := Rule{Pos: w.pos}
	for w.more() {
		key, _ := w.take("")
		if key != "unicast" && slices.Contains(routeTypes, key) {
			r.Action = key
			continue
		}
		val, err := w.take("the value of " + key)
		if err != nil {
			return err
		}
		switch key {
		case "from":
			r.From, err = network(val)
		case "to":
			r.To, err = network(val)
		case "iif":
			r.IIF = val
		case "oif":
			r.OIF = val
		case "fwmark":
			r.Mark, err = mark(val)
		case "table":
			r.Table, err = number(val, 1, 1<<31-1)
		case "priority":
			r.Priority, err = number(val, 1, 1<<31-1)
		default:
			return unknown(w.pos, key, []string{"from", "to", "iif", "oif", "fwmark", "table", "priority"})
		}
		if err != nil {
			return w.fail(err)
		}
	}
	switch {
	case r.Table == 0 && r.Action == "":
		return &Error{r.Pos, "a rule needs a table", "table 100"}
	case r.Table != 0 && r.Action != "":
		return &Error{Pos: r.Pos, Msg: "a rule has a table or is " + r.Action}
	}
	n.Rules = append(n.Rules, r)
	return nil
}

func mark(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is no mark", s)
	}
	return uint32(n), nil
}

// neigh reads ADDRESS lladdr MAC dev NAME, as ip-neighbour(8) has it.
func neigh(n *Node, w *words) error {
	e := Neighbour{Pos: w.pos}
	a, err := w.take("the neighbour's address")
	if err != nil {
		return err
	}
	if e.Addr, err = netip.ParseAddr(a); err != nil {
		return w.fail(err)
	}
	for w.more() {
		key, _ := w.take("")
		val, err := w.take("the value of " + key)
		if err != nil {
			return err
		}
		switch key {
		case "lladdr":
			if e.MAC, err = mac(val); err != nil {
				return w.fail(err)
			}
		case "dev":
			e.Dev = val
		default:
			return unknown(w.pos, key, []string{"lladdr", "dev"})
		}
	}
	if e.MAC == nil || e.Dev == "" {
		return &Error{e.Pos, "a neighbour needs its MAC and the interface", "neigh 10.0.0.2 lladdr 00:00:00:00:00:02 dev eth0"}
	}
	n.Neigh = append(n.Neigh, e)
	return nil
}

// sysctl reads KEY=VALUE.
func sysctl(n *Node, w *words) error {
	kv, err := w.take("KEY=VALUE")
	if err != nil {
		return err
	}
	key, val, ok := strings.Cut(kv, "=")
	key = strings.ReplaceAll(key, "/", ".")
	switch {
	case !ok:
		return &Error{w.pos, key + " has no value", key + "=…"}
	case !strings.HasPrefix(key, "net.") || strings.Contains(key, ".."):
		return &Error{w.pos, fmt.Sprintf("sysctl %s is not of a namespace: it would be the machine's", key), "only net.… can be set"}
	}
	n.Sysctls = append(n.Sysctls, Sysctl{w.pos, key, val})
	return nil
}

func stp(n *Node, w *words) error {
	s, err := w.take("on or off")
	if err != nil {
		return err
	}
	if n.Kind != Bridge {
		return &Error{w.pos, fmt.Sprintf("%s is a %v: only bridges have STP", n.Name, n.Kind), "bridge " + n.Name + " { stp on }"}
	}
	if n.STP, err = onOff(s); err == nil && w.more() { // 802.1D allows 2 to 30 s
		s, _ = w.take("")
		if n.Delay, err = duration(s); err == nil && (n.Delay < 2*time.Second || n.Delay > 30*time.Second) {
			err = fmt.Errorf("ports wait from 2s to 30s, not %v", n.Delay)
		}
	}
	return w.fail(err)
}

// down reads DEV.
func down(n *Node, w *words) error {
	dev, err := w.take("the interface")
	if err != nil {
		return err
	}
	n.Down = append(n.Down, dev)
	return w.fail(devName(dev))
}

// tcFilter reads DEV ingress|egress drop [prio N].
func tcFilter(n *Node, w *words) error {
	f := TCFilter{Pos: w.pos}
	var err error
	if f.Dev, err = w.take("the interface"); err != nil {
		return err
	}
	if f.Way, err = w.take("ingress or egress"); err != nil {
		return err
	}
	if f.Way != "ingress" && f.Way != "egress" {
		return &Error{w.pos, fmt.Sprintf("%q is neither ingress nor egress", f.Way), "tc eth0 ingress drop"}
	}
	if v, err := w.take("drop"); err != nil || v != "drop" {
		return &Error{w.pos, "a filter drops, and does nothing else here", "tc eth0 ingress drop"}
	}
	if w.more() {
		if key, _ := w.take(""); key != "prio" {
			return unknown(w.pos, key, []string{"prio"})
		}
		val, err := w.take("the value of prio")
		if err != nil {
			return err
		}
		if f.Prio, err = number(val, 1, 65535); err != nil {
			return w.fail(err)
		}
	}
	n.TC = append(n.TC, f)
	return nil
}

// xfrm reads in|out|fwd SOURCE DESTINATION block.
func xfrm(n *Node, w *words) error {
	p := XFRMPolicy{Pos: w.pos}
	var err error
	if p.Dir, err = w.take("in, out or fwd"); err != nil {
		return err
	}
	if !slices.Contains([]string{"in", "out", "fwd"}, p.Dir) {
		return &Error{w.pos, fmt.Sprintf("no direction %q", p.Dir), "in, out or fwd"}
	}
	for _, to := range []*netip.Prefix{&p.Src, &p.Dst} {
		s, err := w.take("the source and the destination")
		if err != nil {
			return err
		}
		if *to, err = network(s); err != nil {
			return w.fail(err)
		}
	}
	if v, err := w.take("block"); err != nil || v != "block" {
		return &Error{w.pos, "a policy blocks, and does nothing else here", "xfrm in 10.0.0.0/8 10.0.0.1 block"}
	}
	n.XFRM = append(n.XFRM, p)
	return nil
}

// device reads NAME [PREFIX…] [queues=N].
func device(kind string) func(*Node, *words) error {
	return func(n *Node, w *words) error {
		d := Device{Pos: w.pos, Kind: kind}
		var err error
		if d.Name, err = w.take("the interface's name"); err != nil {
			return err
		}
		if err := devName(d.Name); err != nil {
			return w.fail(err)
		}
		return d.rest(n, w)
	}
}

// vlan reads NAME PARENT ID [PREFIX…].
func vlan(n *Node, w *words) error {
	d := Device{Pos: w.pos, Kind: "vlan"}
	var err error
	if d.Name, err = w.take("the interface's name"); err == nil {
		err = w.fail(devName(d.Name))
	}
	if err == nil {
		d.Parent, err = w.take("the interface below it")
	}
	if err != nil {
		return err
	}
	id, err := w.take("the VLAN's number")
	if err != nil {
		return err
	}
	v, err := number(id, 1, 4094)
	if err != nil {
		return w.fail(err)
	}
	d.VLAN = uint16(v)
	return d.rest(n, w)
}

func (d Device) rest(n *Node, w *words) error {
	for w.more() {
		s, _ := w.take("")
		if q, ok := strings.CutPrefix(s, "queues="); ok && (d.Kind == "tun" || d.Kind == "tap") {
			var err error
			if d.Queues, err = number(q, 1, 256); err != nil {
				return w.fail(err)
			}
			continue
		}
		p, err := prefixes(w.pos, s)
		if err != nil {
			return err
		}
		d.Addrs = append(d.Addrs, p...)
	}
	n.Own = append(n.Own, d)
	return nil
}
