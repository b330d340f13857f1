package rtnl

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

const (
	fraDst            = 1
	fraSrc            = 2
	fraIIF            = 3
	fraGoto           = 4
	fraPriority       = 6
	fraMark           = 10
	fraTunID          = 12
	fraSuppressGroup  = 13
	fraSuppressPrefix = 14
	fraTable          = 15
	fraMask           = 16
	fraOIF            = 17
	fraL3MDev         = 19
	fraUIDRange       = 20
	fraIPProto        = 22
	fraSPort          = 23
	fraDPort          = 24

	ruleInvert = 2
	none       = 1<<32 - 1
)

var ruleActions = []string{"unspec", "lookup", "goto", "nop", "", "", "blackhole", "unreachable", "prohibit"}

// DecodeRule reads an RTM_NEWRULE message (struct fib_rule_hdr). ok is false for families other than IP.
func DecodeRule(b []byte) (r netstate.Rule, ok bool, err error) {
	const fibRuleHdr = 12
	a, err := nlattr.ParseAt(b, fibRuleHdr)
	fam := 0
	if len(b) > 0 {
		fam = family(b[0])
	}
	if err != nil || fam == 0 {
		return r, false, err
	}
	r = netstate.Rule{
		Family: fam, Priority: int(a.U32(fraPriority)), IIF: a.String(fraIIF), OIF: a.String(fraOIF), Mark: a.U32(fraMark), Mask: a.U32(fraMask),
		Invert: nlattr.U32(b[8:])&ruleInvert != 0, TOS: b[3], Table: int(b[4]), Action: name(ruleActions, int(b[7])),
		Goto: int(a.U32(fraGoto)), L3MDev: a.U8(fraL3MDev) != 0, IPProto: a.U8(fraIPProto), TunID: a.BE64(fraTunID),
		SPort: ports(a.Get(fraSPort)), DPort: ports(a.Get(fraDPort)),
	}
	if d := a.Get(fraDst); d != nil {
		r.To = prefix(fam, d, b[1])
	}
	if d := a.Get(fraSrc); d != nil {
		r.From = prefix(fam, d, b[2])
	}
	if t := a.U32(fraTable); t != 0 {
		r.Table = int(t)
	}
	if d := a.Get(fraUIDRange); len(d) >= 8 {
		r.UID = &netstate.Range{First: nlattr.U32(d), Last: nlattr.U32(d[4:])}
	}
	r.SuppressPrefix, r.SuppressGroup = optional(a, fraSuppressPrefix), optional(a, fraSuppressGroup)
	if r.Action != "lookup" {
		r.Table = 0
	}
	r.Text = RuleText(r)
	return r, true, nil
}

// optional reads a number whose absence is sent as −1.
func optional(a nlattr.Attrs, typ uint16) *int {
	if n := a.U32(typ); a.Has(typ) && n != none {
		v := int(n)
		return &v
	}
	return nil
}

func ports(d []byte) netstate.Range {
	return netstate.Range{First: uint32(nlattr.U16(d)), Last: uint32(nlattr.U16(d[min(2, len(d)):]))}
}

// RuleText writes a rule as ip-rule(8) lists it, without its priority: "from 10.77.1.1 to 10.77.2.0/24 prohibit".
func RuleText(r netstate.Rule) string {
	var w []string
	add := func(format string, args ...any) { w = append(w, fmt.Sprintf(format, args...)) }
	if r.Invert {
		add("not")
	}
	add("from %s", prefixText(r.From))
	if r.To.IsValid() {
		add("to %s", prefixText(r.To))
	}
	if r.TOS != 0 {
		add("tos %#x", r.TOS)
	}
	switch {
	case r.Mask != 0 && r.Mask != none:
		add("fwmark %#x/%#x", r.Mark, r.Mask)
	case r.Mark != 0 || r.Mask != 0:
		add("fwmark %#x", r.Mark)
	}
	if r.IIF != "" {
		add("iif %s", r.IIF)
	}
	if r.OIF != "" {
		add("oif %s", r.OIF)
	}
	if r.L3MDev {
		add("lookup [l3mdev-table]")
	}
	if r.UID != nil {
		add("uidrange %d-%d", r.UID.First, r.UID.Last)
	}
	if r.IPProto != 0 {
		add("ipproto %s", protoText(r.IPProto))
	}
	addPorts(add, "sport", r.SPort)
	addPorts(add, "dport", r.DPort)
	if r.TunID != 0 {
		add("tun_id %d", r.TunID)
	}
	switch r.Action {
	case "lookup":
		if !r.L3MDev {
			add("lookup %s", tableText(r.Table))
		}
		if r.SuppressPrefix != nil {
			add("suppress_prefixlength %d", *r.SuppressPrefix)
		}
		if r.SuppressGroup != nil {
			add("suppress_ifgroup %s", groupText(*r.SuppressGroup))
		}
	case "goto":
		add("goto %d", r.Goto)
	default:
		add("%s", r.Action)
	}
	return strings.Join(w, " ")
}

func addPorts(add func(string, ...any), what string, p netstate.Range) {
	switch {
	case p == netstate.Range{}:
	case p.First == p.Last:
		add("%s %d", what, p.First)
	default:
		add("%s %d-%d", what, p.First, p.Last)
	}
}

// prefixText leaves out the length of a prefix that is one address; none at all is "all".
func prefixText(p netip.Prefix) string {
	switch {
	case !p.IsValid() || p.Bits() == 0 && p.Addr().IsUnspecified():
		return "all"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func protoText(p uint8) string {
	if n, ok := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}[p]; ok {
		return n
	}
	return strconv.Itoa(int(p))
}

func tableText(t int) string {
	if n, ok := map[int]string{253: "default", 254: "main", 255: "local"}[t]; ok {
		return n
	}
	return strconv.Itoa(t)
}

func groupText(g int) string {
	if g == 0 {
		return "default"
	}
	return strconv.Itoa(g)
}
