package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// xtText writes a match or target of iptables in the words of nft, where its data is simple (include/uapi/linux/netfilter/
// xt_*.h); others are named: xt match "recent".
func (r *renderer) xtText(e Expr) string {
	name, rev, info := e.Attrs.String(1), e.Attrs.BE32(2), e.Attrs.Get(3)
	text := ""
	switch {
	case e.Name == "target":
		text = r.xtTarget(name, rev, info)
	case name == "comment":
		return "" // Rule.Comment has it
	case name == "conntrack" && rev >= 2:
		text = xtState(info)
	case name == "multiport" && rev == 1 && len(info) >= 48:
		text = r.xtPorts(info)
	}
	if text == "" {
		text = fmt.Sprintf("xt %s \"%s\"", e.Name, name)
	}
	return text
}

func (r *renderer) xtTarget(name string, rev uint32, info []byte) string {
	switch v := xtVerdict(name, info); {
	case name == "LOG" && len(info) > 2: // struct xt_log_info: level, flags, prefix
		if prefix := nlattr.Text(info[2:]); prefix != "" {
			return fmt.Sprintf("log prefix \"%s\"", prefix)
		}
		return "log"
	case v == "accept" || v == "drop" || v == "return":
		return v
	case v == "reject" && len(info) > 0:
		return xtReject(r.chain.Family, info[0])
	case v == "dnat" || v == "snat" || v == "masquerade" || v == "redirect":
		if name == "NETMAP" {
			return ""
		}
		if addr, port := xtRange(r.chain.Family, name, rev, info); addr.IsValid() || port != 0 {
			return v + " to " + endpoint(addr, port)
		}
		return v
	}
	return ""
}

// xtReject is enum ipt_reject_with and its like of IPv6.
func xtReject(family string, with uint8) string {
	kinds := []string{"icmp net-unreachable", "icmp host-unreachable", "icmp prot-unreachable", "", "", "icmp net-prohibited", "icmp host-prohibited", "tcp reset", "icmp admin-prohibited"}
	if family == "ip6" {
		kinds = []string{"icmpv6 no-route", "icmpv6 admin-prohibited", "", "icmpv6 addr-unreachable", "", "", "tcp reset", "icmpv6 policy-fail", "icmpv6 reject-route"}
	}
	if int(with) < len(kinds) && kinds[with] != "" {
		return "reject with " + kinds[with]
	}
	return "reject"
}

// xtRange reads where NAT goes: struct nf_nat_range2, or the older one of IPv4, which has a count before it. port is the
// first of several.
func xtRange(family, name string, rev uint32, info []byte) (addr netip.Addr, port uint16) {
	const ips, ports = 1, 2 // NF_NAT_RANGE_MAP_IPS, NF_NAT_RANGE_PROTO_SPECIFIED
	flagsAt, addrAt, portAt, n := 0, 4, 36, 16
	if family == "ip" && rev == 0 {
		flagsAt, addrAt, portAt, n = 4, 8, 16, 4
	} else if family == "ip" {
		n = 4
	}
	if len(info) < portAt+4 {
		return addr, 0
	}
	flags := binary.LittleEndian.Uint32(info[flagsAt:])
	if flags&ips != 0 {
		addr, _ = netip.AddrFromSlice(info[addrAt : addrAt+n])
	}
	if flags&ports != 0 {
		port = binary.BigEndian.Uint16(info[portAt:])
	}
	return addr, port
}

// endpoint writes an address, a port, or both.
func endpoint(addr netip.Addr, port uint16) string {
	switch {
	case addr.IsValid() && port != 0:
		return netip.AddrPortFrom(addr, port).String()
	case addr.IsValid():
		return addr.String()
	case port != 0:
		return fmt.Sprintf(":%d", port)
	}
	return ""
}

// Where struct xt_conntrack_mtinfo2 and 3 have flags and states: behind eight addresses of 16 bytes, two numbers, five ports.
const (
	xtFlagsAt = 8*16 + 2*4 + 5*2
	xtState1  = 1 // XT_CONNTRACK_STATE
)

var xtStates = []struct {
	name string
	bit  uint16
}{{"invalid", 1}, {"established", 2}, {"related", 4}, {"new", 8}, {"untracked", 1 << 8}}

// xtState writes a match of conntrack that asks for the state alone.
func xtState(info []byte) string {
	if len(info) < xtFlagsAt+6 || binary.LittleEndian.Uint16(info[xtFlagsAt:]) != xtState1 {
		return ""
	}
	mask := binary.LittleEndian.Uint16(info[xtFlagsAt+4:])
	var w []string
	for _, x := range xtStates {
		if mask&x.bit != 0 {
			w = append(w, x.name)
		}
	}
	if binary.LittleEndian.Uint16(info[xtFlagsAt+2:])&xtState1 != 0 {
		return "ct state != " + strings.Join(w, ",")
	}
	return "ct state " + strings.Join(w, ",")
}

// xtPorts writes struct xt_multiport_v1.
func (r *renderer) xtPorts(info []byte) string {
	h, ok := transports[uint8(r.l4)]
	if !ok || r.l4 < 0 || info[0] > 1 {
		return ""
	}
	r.drop4()
	var w []string
	for _, p := range xtPortRanges(info) {
		w = append(w, rangeText(tService, true, binary.BigEndian.AppendUint16(nil, p[0]), binary.BigEndian.AppendUint16(nil, p[1])))
	}
	not := ""
	if info[47] != 0 {
		not = "!= "
	}
	return fmt.Sprintf("%s %s %s{ %s }", h.name, []string{"sport", "dport"}[info[0]], not, strings.Join(w, ", "))
}

// xtPortRanges are the ports of struct xt_multiport_v1: 15 numbers, and 15 marks of those that begin a range.
func xtPortRanges(info []byte) [][2]uint16 {
	var out [][2]uint16
	for i := 0; i < min(int(info[1]), 15); i++ {
		lo := binary.LittleEndian.Uint16(info[2+2*i:])
		hi := lo
		if info[32+i] != 0 && i < 14 {
			i++
			hi = binary.LittleEndian.Uint16(info[2+2*i:])
		}
		out = append(out, [2]uint16{lo, hi})
	}
	return out
}

// compat runs a target of iptables, as far as its name tells what it does.
func (m *machine) compat(a nlattr.Attrs) {
	name := a.String(1)
	v := xtVerdict(name, a.Get(3))
	m.verdict = v
	if !slices.Contains([]string{"snat", "dnat", "masquerade", "redirect"}, v) {
		return
	}
	m.verdict = "accept"
	addr, port := xtRange(m.chain.Family, name, a.BE32(2), a.Get(3))
	certain := m.certain()
	m.change(v, endpoint(addr, port))
	if certain && name != "NETMAP" {
		m.pkt.rewrite(v == "dnat" || v == "redirect", addr, port)
	}
}

// compatMatch runs a match of iptables whose data is simple.
func (m *machine) compatMatch(a nlattr.Attrs) (truth, string) {
	name, rev, info := a.String(1), a.BE32(2), a.Get(3)
	switch {
	case name == "comment":
		return yes, ""
	case name == "mark" && rev == 1 && len(info) >= 9: // struct xt_mark_mtinfo1
		mark, mask := binary.LittleEndian.Uint32(info), binary.LittleEndian.Uint32(info[4:])
		return toTruth((m.pkt.Mark&mask == mark) != (info[8] != 0)), ""
	case name == "multiport" && rev == 1 && len(info) >= 48:
		return m.multiport(info)
	case name == "conntrack" && rev >= 2 && len(info) >= xtFlagsAt+6 && m.pkt.CtState != "":
		return m.conntrack(info)
	}
	return maybe, "xt match " + name
}

// multiport compares the source's, the destination's or either port.
func (m *machine) multiport(info []byte) (truth, string) {
	proto, at, ok := m.pkt.transport()
	if !ok || at+4 > len(m.pkt.Data) || !slices.Contains(withPorts, proto) {
		return no, ""
	}
	src, dst := binary.BigEndian.Uint16(m.pkt.Data[at:]), binary.BigEndian.Uint16(m.pkt.Data[at+2:])
	found := slices.ContainsFunc(xtPortRanges(info), func(p [2]uint16) bool {
		s, d := p[0] <= src && src <= p[1], p[0] <= dst && dst <= p[1]
		return info[0] != 1 && s || info[0] != 0 && d
	})
	return toTruth(found != (info[47] != 0)), ""
}

// withPorts are the protocols that begin with two ports.
var withPorts = []uint8{6, 17, 33, 132, 136}

// conntrack compares the state, if nothing else is asked for.
func (m *machine) conntrack(info []byte) (truth, string) {
	le := binary.LittleEndian
	match, invert, mask := le.Uint16(info[xtFlagsAt:]), le.Uint16(info[xtFlagsAt+2:]), le.Uint16(info[xtFlagsAt+4:])
	if match&^xtState1 != 0 {
		return maybe, "xt match conntrack"
	}
	in := slices.ContainsFunc(xtStates, func(x struct {
		name string
		bit  uint16
	}) bool {
		return x.name == m.pkt.CtState && mask&x.bit != 0
	})
	return toTruth(in != (invert&xtState1 != 0)), ""
}

// xtVerdict is what a target of iptables does: struct xt_standard_target has a verdict, −n−1 for NF_n or −5 for RETURN.
func xtVerdict(name string, info []byte) string {
	switch name {
	case "", "standard":
		if len(info) < 4 {
			return ""
		}
		switch v := int32(binary.LittleEndian.Uint32(info)); v {
		case -1:
			return "drop"
		case -2:
			return "accept"
		case -5:
			return "return"
		}
	case "DROP", "TARPIT", "ERROR":
		return "drop"
	case "ACCEPT":
		return "accept"
	case "RETURN":
		return "return"
	case "REJECT":
		return "reject"
	case "MASQUERADE":
		return "masquerade"
	case "DNAT", "NETMAP":
		return "dnat"
	case "SNAT":
		return "snat"
	case "REDIRECT":
		return "redirect"
	case "NFQUEUE":
		return "queue"
	}
	return ""
}
