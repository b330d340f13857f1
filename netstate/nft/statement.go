package nft

import (
	"fmt"
	"slices"
	"strings"
)

// immediate is a verdict, or a value for what follows.
func (r *renderer) immediate(e Expr) {
	data := e.Attrs.Nested(2)
	if v, t := verdictOf(data); v != "" {
		r.add("%s", strings.TrimSpace(v+" "+t))
		return
	}
	d := data.Get(dataValue)
	r.store(e.Attrs.BE32(1), operand{imm: d, len: len(d)})
}

// setValue writes what a statement puts somewhere, as a value of that place's type.
func (r *renderer) setValue(reg uint32, typ uint32, big bool) string {
	o := r.load(reg)
	if o.imm != nil {
		return r.value(typ, big, o.imm)
	}
	r.imply(o)
	text := r.name(o)
	if o.xor != nil {
		return text + bits(typ, o, o.mask, o.xor)
	}
	if o.mask != nil {
		text += " & " + value(typ, o.big, o.mask)
	}
	return text
}

// statement is everything that does something; what is not known is named, never left out.
func (r *renderer) statement(e Expr) {
	a := e.Attrs
	switch e.Name {
	case "counter":
		r.add("counter")
	case "notrack":
		r.add("notrack")
	case "last":
		r.add("last used never")
	case "limit":
		r.add("%s", limitText(a.BE64(1), a.BE64(2), a.BE32(3), a.BE32(4), a.BE32(5)&1 != 0))
	case "quota":
		r.add("quota %s%s", over(a.BE32(2)&1 != 0), byteCount(a.BE64(1)))
	case "connlimit":
		r.add("ct count %s%d", over(a.BE32(2)&1 != 0), a.BE32(1))
	case "log":
		r.add("%s", logText(e))
	case "queue":
		r.add("%s", r.queue(e))
	case "reject":
		r.reject(a.BE32(1), a.U8(2))
	case "meta":
		k := metaKeys[a.BE32(2)]
		name := k.name
		if !strings.HasPrefix(name, "meta ") {
			name = "meta " + name
		}
		r.add("%s set %s", name, r.setValue(a.BE32(3), k.typ, false))
	case "ct":
		k := ctKeys[a.BE32(2)]
		r.add("ct %s set %s", k.name, r.setValue(a.BE32(4), k.typ, false))
	case "payload":
		r.setPayload(e)
	case "exthdr":
		o := exthdr(e)
		r.imply(o)
		if a.Has(7) {
			r.add("%s set %s", r.name(o), r.setValue(a.BE32(7), r.typeOf(o), true))
		} else {
			r.add("reset %s", strings.TrimPrefix(r.name(o), "exthdr "))
		}
	case "nat", "masq", "redir", "tproxy":
		r.nat(e)
	case "dup", "fwd":
		r.add("%s", r.copyTo(e))
	case "objref":
		r.object(e)
	case "dynset":
		r.dynset(e)
	case "flow_offload":
		r.add("flow add @%s", a.String(1))
	case "synproxy":
		r.add("synproxy mss %d wscale %d", a.BE16(1), a.U8(2))
	case "match", "target":
		r.add("%s", r.xtText(e))
	default:
		r.add("[%s]", e.Name)
	}
}

func over(inv bool) string {
	if inv {
		return "over "
	}
	return ""
}

var rateUnits = map[uint64]string{1: "second", 60: "minute", 3600: "hour", 86400: "day", 604800: "week"}

// limitText writes a limit. A burst of 5 packets or 5 bytes is what nft takes if nothing is said, and leaves out.
func limitText(rate, unit uint64, burst, typ uint32, inv bool) string {
	per := rateUnits[unit]
	if per == "" {
		per = fmt.Sprint(unit)
	}
	if typ == 1 {
		text := fmt.Sprintf("limit rate %s%s/%s", over(inv), byteCount(rate), per)
		if burst != 0 && burst != 5 {
			text += " burst " + byteCount(uint64(burst))
		}
		return text
	}
	text := fmt.Sprintf("limit rate %s%d/%s", over(inv), rate, per)
	if burst != 0 && burst != 5 {
		text += fmt.Sprintf(" burst %d packets", burst)
	}
	return text
}

func byteCount(n uint64) string {
	units := []string{"bytes", "kbytes", "mbytes"}
	i := 0
	for ; i < len(units)-1 && n != 0 && n%1024 == 0; i++ {
		n /= 1024
	}
	return fmt.Sprintf("%d %s", n, units[i])
}

func logText(e Expr) string {
	a := e.Attrs
	w := []string{"log"}
	if a.Has(2) && a.String(2) != "" {
		w = append(w, fmt.Sprintf("prefix \"%s\"", a.String(2)))
	}
	if a.Has(1) {
		w = append(w, fmt.Sprintf("group %d", a.BE16(1)))
		if n := a.BE32(3); n != 0 {
			w = append(w, fmt.Sprintf("snaplen %d", n))
		}
		if n := a.BE16(4); n != 0 {
			w = append(w, fmt.Sprintf("queue-threshold %d", n))
		}
		return strings.Join(w, " ")
	}
	levels := []string{"emerg", "alert", "crit", "err", "warn", "notice", "info", "debug", "audit"}
	if n := a.BE32(5); a.Has(5) && n != 4 && int(n) < len(levels) {
		w = append(w, "level "+levels[n])
	}
	f := a.BE32(6)
	if f&0x2f == 0x2f {
		return strings.Join(append(w, "flags all"), " ")
	}
	if f&3 != 0 {
		w = append(w, "flags tcp "+[]string{"", "sequence", "options", "sequence,options"}[f&3])
	}
	for _, x := range []struct {
		bit  uint32
		name string
	}{{4, "ip options"}, {8, "skuid"}, {32, "ether"}} {
		if f&x.bit != 0 {
			w = append(w, "flags "+x.name)
		}
	}
	return strings.Join(w, " ")
}

func (r *renderer) queue(e Expr) string {
	a := e.Attrs
	text := "queue"
	var f []string
	if a.BE16(3)&1 != 0 {
		f = append(f, "bypass")
	}
	if a.BE16(3)&2 != 0 {
		f = append(f, "fanout")
	}
	if f != nil {
		text += " flags " + strings.Join(f, ",")
	}
	if a.Has(4) {
		return text + " to " + r.setValue(a.BE32(4), tHostNumber, false)
	}
	text += fmt.Sprintf(" to %d", a.BE16(1))
	if n := a.BE16(2); n > 1 {
		text += fmt.Sprintf("-%d", a.BE16(1)+n-1)
	}
	return text
}

// reject writes how a packet is refused; the family's usual answer is not said.
func (r *renderer) reject(typ uint32, code uint8) {
	word := ""
	switch typ {
	case 0: // ICMP of the family
		name, codes, usual := "icmp", uint32(tICMPCode), uint8(3)
		if r.l3 == "ip6" {
			name, codes, usual = "icmpv6", tICMP6Code, 4
		}
		if code != usual || r.chain.Family != "ip" && r.chain.Family != "ip6" {
			word = " with " + name + " " + value(codes, false, []byte{code})
		}
		if r.chain.Family != "ip" && r.chain.Family != "ip6" {
			r.drop3()
		}
	case 1:
		word = " with tcp reset"
	case 2:
		if code != 1 {
			word = " with icmpx " + value(tICMPxCode, false, []byte{code})
		}
	default:
		word = fmt.Sprintf(" [type %d]", typ)
	}
	r.add("reject%s", word)
}

func (r *renderer) setPayload(e Expr) {
	a := e.Attrs
	o := operand{isPl: true, base: a.BE32(2), off: int(a.BE32(3)), len: int(a.BE32(4))}
	src := r.load(a.BE32(5))
	r.imply(o)
	if src.isPl && src.base == o.base && src.off == o.off && src.xor != nil { // a part of what was read is written back
		inverse := make([]byte, len(src.mask))
		for i := range inverse {
			inverse[i] = ^src.mask[i]
		}
		if p, ok := r.bitField(o, inverse); ok {
			r.add("%s %s set %s", p.header, p.name, value(p.typ, true, p.of(src.xor)))
			return
		}
	}
	r.add("%s set %s", r.name(o), r.setValue(a.BE32(5), r.typeOf(o), true))
}

var natFlags = []struct {
	bit  uint32
	name string
}{{4, "random"}, {16, "fully-random"}, {8, "persistent"}}

// nat writes the statements that rewrite addresses and ports, or steer to a local socket.
func (r *renderer) nat(e Expr) {
	a := e.Attrs
	word, fam := "", uint32(0)
	var addrs, ports [2]uint32
	var flags uint32
	switch e.Name {
	case "nat":
		word, fam, flags = []string{"snat", "dnat"}[min(a.BE32(1), 1)], a.BE32(2), a.BE32(7)
		addrs, ports = [2]uint32{a.BE32(3), a.BE32(4)}, [2]uint32{a.BE32(5), a.BE32(6)}
	case "masq":
		word, flags, ports = "masquerade", a.BE32(1), [2]uint32{a.BE32(2), a.BE32(3)}
	case "redir":
		word, flags, ports = "redirect", a.BE32(3), [2]uint32{a.BE32(1), a.BE32(2)}
	case "tproxy":
		word, fam, addrs, ports = "tproxy", a.BE32(1), [2]uint32{a.BE32(2)}, [2]uint32{a.BE32(3)}
	}
	typ := uint32(tIPAddr)
	if fam == 10 {
		typ = tIP6Addr
	}
	to := r.span(addrs, typ)
	_, known := r.regs[slot(ports[0])]
	if o := r.load(addrs[0]); addrs[0] != 0 && o.data != nil && len(keyTypes(o.data.DataType)) > 1 { // the port comes with the address
		known = false
		word += map[uint32]string{2: " ip", 10: " ip6"}[fam]
	}
	if flags&64 != 0 {
		word += map[uint32]string{2: " ip", 10: " ip6"}[fam] + " prefix"
	}
	if ports[0] != 0 && known {
		if to != "" && typ == tIP6Addr && r.load(addrs[0]).imm != nil {
			to = "[" + to + "]"
		}
		to += ":" + r.span(ports, tService)
	}
	if to != "" {
		if r.chain.Family == "inet" && !strings.Contains(word, " ip") && (fam == 2 || fam == 10) && (addrs[0] != 0 || e.Name == "tproxy") {
			word += map[uint32]string{2: " ip", 10: " ip6"}[fam]
			if addrs[0] != 0 && r.l3 != "" {
				r.drop3()
			}
		}
		word += " to " + to
	}
	var f []string
	for _, x := range natFlags {
		if flags&x.bit != 0 {
			f = append(f, x.name)
		}
	}
	r.add("%s", strings.TrimSpace(word+" "+strings.Join(f, ",")))
}

// span writes an address or port, or the range of them that two registers hold.
func (r *renderer) span(regs [2]uint32, typ uint32) string {
	if regs[0] == 0 {
		return ""
	}
	text := r.setValue(regs[0], typ, true)
	a, b := r.load(regs[0]).imm, []byte(nil)
	if regs[1] != 0 && regs[1] != regs[0] {
		b = r.load(regs[1]).imm
	}
	if a != nil && b != nil && !slices.Equal(a, b) {
		if n := prefixLen(a, b); n >= 0 && typ != tService {
			return fmt.Sprintf("%s/%d", text, n)
		}
		return text + "-" + value(typ, true, b)
	}
	return text
}

func (r *renderer) copyTo(e Expr) string {
	a := e.Attrs
	addr, dev := a.BE32(1), a.BE32(2)
	typ := uint32(tIPAddr)
	if r.chain.Family == "ip6" {
		typ = tIP6Addr
	}
	if e.Name == "fwd" {
		addr, dev = a.BE32(2), a.BE32(1)
		if a.BE32(3) == 10 {
			typ = tIP6Addr
		}
		if addr != 0 {
			return fmt.Sprintf("fwd %s to %s device %s", map[uint32]string{10: "ip6"}[a.BE32(3)]+map[bool]string{true: "ip"}[a.BE32(3) == 2], r.setValue(addr, typ, true), r.setValue(dev, tIfindex, false))
		}
	}
	if addr == 0 {
		return e.Name + " to " + r.setValue(dev, tIfindex, false)
	}
	text := e.Name + " to " + r.setValue(addr, typ, true)
	if dev != 0 {
		text += " device " + r.setValue(dev, tIfindex, false)
	}
	return text
}

var objectKinds = map[uint32]string{1: "counter", 2: "quota", 3: "ct helper", 4: "limit", 5: "ct count", 7: "ct timeout", 8: "meta secmark", 9: "ct expectation", 10: "synproxy"}

func (r *renderer) object(e Expr) {
	a := e.Attrs
	kind := objectKinds[a.BE32(1)]
	if a.Has(4) { // by a map
		at := slot(a.BE32(3))
		text := "@" + a.String(4)
		s := r.set.find(r.chain.Family, r.chain.Table, a.String(4))
		n := 1
		if s != nil {
			n = max(s.KeyLen, 1)
			if s.Flags&setAnonymous != 0 {
				text = r.elements(s, at)
			}
		}
		r.add("counter name %s map %s", strings.Join(r.concat(at, n), " . "), text)
		return
	}
	word := " name "
	if strings.Contains(kind, "ct ") || strings.HasPrefix(kind, "meta") {
		word = " set "
	}
	r.add("%s%s\"%s\"", kind, word, a.String(2))
}

func (r *renderer) dynset(e Expr) {
	a := e.Attrs
	verb := []string{"add", "update", "delete"}[min(a.BE32(3), 2)]
	s := r.set.find(r.chain.Family, r.chain.Table, a.String(1))
	n := 1
	if s != nil {
		n = max(s.KeyLen, 1)
	}
	text := strings.Join(r.concat(slot(a.BE32(4)), n), " . ")
	if a.Has(6) {
		if ms := a.BE64(6); ms != 0 {
			text += " timeout " + duration(ms/1000)
		}
	}
	sub := &renderer{set: r.set, links: r.links, chain: r.chain, regs: r.regs, l3: r.l3, l4: r.l4, dep2: -1, dep3: -1, dep4: -1, icmp: -1, depType: -1}
	if x := a.Nested(7); x != nil {
		sub.statement(Expr{x.String(exprName), x.Nested(exprData)})
	}
	for _, item := range a.Nested(10) {
		x, _ := parseExpr(item.Data)
		sub.statement(x)
	}
	for _, p := range sub.out {
		text += " " + p.text
	}
	if d := a.BE32(5); d != 0 && s != nil {
		text += " : " + r.setValue(d, s.DataType, false)
	}
	r.add("%s @%s { %s }", verb, a.String(1), text)
}
