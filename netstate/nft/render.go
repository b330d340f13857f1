package nft

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// piece is a match or statement of the text. nft leaves out matches that a later one implies.
type piece struct {
	text string
	gone bool
}

// renderer writes one rule.
type renderer struct {
	set     *Ruleset
	links   map[int]string
	chain   *Chain
	regs    map[int]operand
	out     []piece
	l3      string // header of the network layer that is known: "ip", "ip6", "arp"
	l4      int    // IP protocol that is known, or −1
	dep2    int    // the piece that said what link it is, or −1
	dep3    int    // the piece that said so, or −1
	dep4    int
	dep4Pl  bool // it was a field of the network header
	icmp    int  // type of ICMP that is known, or −1
	depType int
	from    *pendingRange // a comparison ≥ that may be the beginning of a range
}

type pendingRange struct {
	slot  int
	data  []byte
	piece int
}

// describe fills in what a rule's expressions say: text, verdict, counters.
func (s *Ruleset) describe(c *Chain, rule *Rule, links map[int]string) {
	r := &renderer{set: s, links: links, chain: c, regs: map[int]operand{}, l4: -1, dep2: -1, dep3: -1, dep4: -1, icmp: -1, depType: -1}
	switch c.Family {
	case "ip", "ip6", "arp":
		r.l3 = c.Family
	}
	exprs := rule.Exprs()
	for _, e := range exprs {
		r.expr(e)
	}
	var w []string
	for _, p := range r.out {
		if !p.gone && p.text != "" {
			w = append(w, p.text)
		}
	}
	rule.Text = strings.Join(w, " ")
	rule.Packets, rule.Bytes, rule.Counts = rule.counter()
	rule.Verdict, rule.Target = mainVerdict(exprs)
	for _, e := range exprs {
		if e.Name == "match" && e.Attrs.String(1) == "comment" && rule.Comment == "" {
			rule.Comment = nlattr.Text(e.Attrs.Get(3))
		}
	}
}

// mainVerdict is what a rule does when it matches.
func mainVerdict(exprs []Expr) (verdict, target string) {
	for _, e := range exprs {
		switch e.Name {
		case "immediate":
			if v, t := verdictOf(e.Attrs.Nested(2)); v != "" {
				return v, t
			}
		case "reject", "queue", "synproxy", "tproxy":
			return e.Name, ""
		case "masq":
			return "masquerade", ""
		case "redir":
			return "redirect", ""
		case "nat":
			return []string{"snat", "dnat"}[min(e.Attrs.BE32(1), 1)], ""
		case "target":
			return xtVerdict(e.Attrs.String(1), e.Attrs.Get(3)), ""
		case "payload":
			if e.Attrs.Has(5) {
				verdict = "set"
			}
		case "lookup":
			if e.Attrs.Has(3) && slot(e.Attrs.BE32(3)) < 0 {
				verdict = "vmap"
			}
		}
	}
	return verdict, ""
}

// add appends a piece and returns its number.
func (r *renderer) add(format string, args ...any) int {
	r.out = append(r.out, piece{text: fmt.Sprintf(format, args...)})
	return len(r.out) - 1
}

// expr takes one expression: it loads a register, compares one, or is a statement.
func (r *renderer) expr(e Expr) {
	if e.Name != "cmp" {
		r.from = nil
	}
	if loads[e.Name] && e.Attrs.Has(destination(e.Name)) {
		o := loadOperand(e)
		o.kind = e.Name
		o = r.derived(e, o)
		r.store(e.Attrs.BE32(destination(e.Name)), o)
		return
	}
	switch e.Name {
	case "cmp":
		r.cmp(e)
	case "bitwise":
		r.bitwise(e)
	case "byteorder":
		o := r.load(e.Attrs.BE32(1))
		o.big = e.Attrs.BE32(3) == 1
		r.store(e.Attrs.BE32(2), o)
	case "range":
		r.rangeExpr(e)
	case "lookup":
		r.lookup(e)
	case "immediate":
		r.immediate(e)
	default:
		r.statement(e)
	}
}

// loads are the expressions that put something in a register.
var loads = map[string]bool{
	"payload": true, "meta": true, "ct": true, "rt": true, "socket": true, "fib": true, "exthdr": true, "numgen": true, "hash": true, "osf": true,
	"xfrm": true, "tunnel": true,
}

// destination is the attribute that names the register an expression writes.
func destination(name string) uint16 {
	switch name {
	case "socket", "hash", "tunnel":
		return 2
	}
	return 1
}

func (r *renderer) load(reg uint32) operand {
	o, ok := r.regs[slot(reg)]
	if !ok {
		o.text = fmt.Sprintf("[reg %d]", reg)
	}
	return o
}

func (r *renderer) store(reg uint32, o operand) { r.regs[slot(reg)] = o }

// loadOperand says what an expression loads.
func loadOperand(e Expr) operand {
	a := e.Attrs
	named := func(keys map[uint32]key, k uint32) operand {
		x, ok := keys[k]
		if !ok {
			return operand{text: fmt.Sprintf("[%s %d]", e.Name, k), typ: tHex, key: k}
		}
		return operand{text: x.name, typ: x.typ, len: x.len, key: k}
	}
	switch e.Name {
	case "payload":
		return operand{isPl: true, base: a.BE32(2), off: int(a.BE32(3)), len: int(a.BE32(4))}
	case "meta":
		return named(metaKeys, a.BE32(2))
	case "rt":
		return named(rtKeys, a.BE32(2))
	case "socket":
		o := named(socketKeys, a.BE32(1))
		if a.Has(3) {
			o.text += fmt.Sprintf(" level %d", a.BE32(3))
		}
		return o
	case "ct":
		o := named(ctKeys, a.BE32(2))
		dir := ""
		if a.Has(3) {
			dir = value(tCtDir, false, a.Get(3)) + " "
		}
		o.text = "ct " + dir + o.text
		return o
	case "fib":
		return fib(a.BE32(2), a.BE32(3))
	case "exthdr":
		return exthdr(e)
	case "numgen":
		o := operand{text: []string{"numgen inc", "numgen random"}[min(a.BE32(3), 1)] + fmt.Sprintf(" mod %d", a.BE32(2)), typ: tHostNumber, len: 4}
		if off := a.BE32(4); off != 0 {
			o.text += fmt.Sprintf(" offset %d", off)
		}
		return o
	case "osf":
		return operand{text: "osf name", typ: tString, len: 16}
	}
	return operand{text: "[" + e.Name + "]", typ: tHex}
}

// derived finishes operands that are made of others.
func (r *renderer) derived(e Expr, o operand) operand {
	if e.Name != "hash" {
		return o
	}
	a := e.Attrs
	text := "symhash"
	if a.BE32(7) == 0 {
		text = "jhash " + strings.Join(r.concat(slot(a.BE32(1)), int(a.BE32(3))), " . ")
	}
	text += fmt.Sprintf(" mod %d", a.BE32(4))
	if a.Has(5) && a.BE32(7) == 0 {
		text += fmt.Sprintf(" seed 0x%x", a.BE32(5))
	}
	if off := a.BE32(6); off != 0 {
		text += fmt.Sprintf(" offset %d", off)
	}
	return operand{text: text, typ: tHostNumber, len: 4}
}

// concat names the registers that n bytes from a slot on are made of.
func (r *renderer) concat(at, n int) []string {
	var out []string
	for end := at + n; at < end; {
		o, ok := r.regs[at]
		if !ok {
			break
		}
		r.imply(o)
		out = append(out, r.name(o))
		at += (max(o.len, 1) + 3) &^ 3
	}
	return out
}

func fib(result, flags uint32) operand {
	var w []string
	for i, n := range []string{"saddr", "daddr", "mark", "iif", "oif"} {
		if flags&(1<<i) != 0 {
			w = append(w, n)
		}
	}
	o := operand{text: "fib " + strings.Join(w, " . "), len: 4}
	switch result {
	case 1:
		o.text, o.typ = o.text+" oif", tIfindex
	case 2:
		o.text, o.typ, o.len = o.text+" oifname", tIfname, 16
	case 3:
		o.text, o.typ = o.text+" type", tFIBAddr
	}
	if flags&(1<<5) != 0 {
		o.typ, o.len = tBoolean, 1
		if result == 2 {
			o.text = strings.TrimSuffix(o.text, "name")
		}
	}
	return o
}

var tcpOptions = map[uint8]string{0: "eol", 1: "nop", 2: "maxseg", 3: "window", 4: "sack-perm", 5: "sack", 8: "timestamp", 30: "mptcp", 34: "fastopen", 19: "md5sig"}
var ipOptions = map[uint8]string{7: "rr", 131: "lsrr", 137: "ssrr", 148: "ra"}
var ip6Exts = map[uint8]string{0: "hbh", 43: "rt", 44: "frag", 50: "esp", 51: "ah", 60: "dst", 135: "mh"}

// exthdr is an extension header of IPv6, or an option of TCP.
func exthdr(e Expr) operand {
	a := e.Attrs
	typ := a.U8(2)
	o := operand{isPl: true, base: baseOption + uint32(typ), off: int(a.BE32(3)), len: int(a.BE32(4))}
	names, word := ip6Exts, "exthdr "
	switch a.BE32(6) {
	case 0:
	case 2:
		names, word = ipOptions, "ip option "
		o.base = 0
	case 1:
		o.base, names, word = baseTCPOpt+uint32(typ), tcpOptions, "tcp option "
	default:
		return operand{text: fmt.Sprintf("[exthdr op %d type %d]", a.BE32(6), typ), typ: tHex, len: o.len}
	}
	name, ok := names[typ]
	if !ok {
		name = fmt.Sprint(typ)
	}
	if a.BE32(5)&1 != 0 {
		return operand{text: word + name, typ: tBoolean, len: 1, base: o.base, kind: e.Name}
	}
	if _, ok := options[o.base]; !ok {
		return operand{text: fmt.Sprintf("%s%s @%d,%d", word, name, o.off*8, o.len*8), typ: tHex, len: o.len}
	}
	return o
}

var ops = []string{"", "!= ", "< ", "<= ", "> ", ">= "}

// cmp writes a comparison of a register.
func (r *renderer) cmp(e Expr) {
	reg, op, d := e.Attrs.BE32(1), e.Attrs.BE32(2), e.Attrs.Nested(3).Get(dataValue)
	o := r.load(reg)
	if int(op) >= len(ops) {
		r.add("[cmp %d]", op)
		return
	}
	if from := r.from; from != nil && from.slot == slot(reg) && op == 3 { // ≥ and ≤: a range
		r.from = nil
		r.out[from.piece].text = fmt.Sprintf("%s %s", r.name(o), r.interval(o, from.data, d))
		return
	}
	r.from = nil
	if o.isPl && op <= 1 && o.mask == nil && o.len == len(d) {
		if p := r.parts(o); len(p) > 1 { // several fields in one comparison
			if op == 0 {
				r.splice(o, p, d)
				return
			}
		}
	}
	r.imply(o)
	n := r.add("%s", r.compare(o, op, d))
	if op == 5 {
		r.from = &pendingRange{slot(reg), d, n}
	}
	r.learn(o, op, d, n)
}

// splice writes a comparison of adjacent fields one by one, as they were in the rule.
func (r *renderer) splice(o operand, parts []part, d []byte) {
	for _, p := range parts {
		one := operand{isPl: true, base: o.base, off: p.off / 8, len: p.bits / 8}
		v := p.of(d)
		if p.bits%8 != 0 {
			r.add("%s %s %s", p.header, p.name, value(p.typ, true, v))
			continue
		}
		r.imply(one)
		n := r.add("%s", r.compare(one, 0, v))
		r.learn(one, 0, v, n)
	}
}

// compare writes "LEFT OP RIGHT".
func (r *renderer) compare(o operand, op uint32, d []byte) string {
	typ := r.typeOf(o)
	left := r.name(o)
	if o.isPl {
		if p, ok := r.bitField(o, o.mask); ok {
			return left + " " + ops[op] + value(p.typ, true, p.of(d))
		}
		if p := r.parts(o); len(p) == 1 && p[0].bits%8 != 0 {
			return left + " " + ops[op] + value(typ, true, p[0].of(d))
		}
		if a, ok := r.address(o); ok && len(d) == o.len {
			full := append(bytes.Clone(d), make([]byte, a.bits/8-len(d))...)
			return fmt.Sprintf("%s %s%s/%d", left, ops[op], value(a.typ, true, full), len(d)*8)
		}
	}
	if o.mask != nil {
		return r.masked(o, left, typ, op, d)
	}
	if typ == tTCPFlag && op == 0 {
		return left + " == " + value(typ, o.big, d)
	}
	if typ == tBoolean && op == 0 && len(d) > 0 {
		return left + " " + value(typ, false, d[:1])
	}
	return left + " " + ops[op] + r.value(typ, o.big, d)
}

// masked writes a comparison of some bits.
func (r *renderer) masked(o operand, left string, typ uint32, op uint32, d []byte) string {
	if n := maskLen(o.mask); n >= 0 && (typ == tIPAddr || typ == tIP6Addr) && op <= 1 {
		return fmt.Sprintf("%s %s%s/%d", left, ops[op], value(typ, true, d), n)
	}
	_, isFlags := flagNames[typ]
	isFlags = isFlags || typ == tCtLabel
	if isFlags && op == 1 && zero(d) {
		return left + " " + value(typ, o.big, o.mask)
	}
	if isFlags && op == 0 && zero(d) {
		return left + " ! " + value(typ, o.big, o.mask)
	}
	if isFlags && op <= 1 {
		return fmt.Sprintf("%s %s%s / %s", left, ops[op], value(typ, o.big, d), value(typ, o.big, o.mask))
	}
	word := ops[op]
	if op == 0 {
		word = "== "
	}
	return fmt.Sprintf("%s & %s %s%s", left, r.value(typ, o.big, o.mask), word, r.value(typ, o.big, d))
}

// value writes a value, that of a link by its name.
func (r *renderer) value(typ uint32, big bool, d []byte) string {
	if typ == tIfindex {
		if name := r.links[int(number(typ, big, d))]; name != "" {
			return `"` + name + `"`
		}
	}
	return value(typ, big, d)
}

// interval writes a range, or the prefix that it is.
func (r *renderer) interval(o operand, first, last []byte) string {
	typ := r.typeOf(o)
	if n := prefixLen(first, last); n >= 0 && (typ == tIPAddr || typ == tIP6Addr) {
		return fmt.Sprintf("%s/%d", value(typ, true, first), n)
	}
	return r.value(typ, o.big, first) + "-" + r.value(typ, o.big, last)
}

func (r *renderer) rangeExpr(e Expr) {
	o := r.load(e.Attrs.BE32(1))
	r.imply(o)
	word := ops[min(e.Attrs.BE32(2), 1)]
	r.add("%s %s%s", r.name(o), word, r.interval(o, e.Attrs.Nested(3).Get(dataValue), e.Attrs.Nested(4).Get(dataValue)))
}

// bitwise notes a mask, or a shift.
func (r *renderer) bitwise(e Expr) {
	o := r.load(e.Attrs.BE32(1))
	switch e.Attrs.BE32(6) {
	case 0:
		mask, xor := e.Attrs.Nested(4).Get(dataValue), e.Attrs.Nested(5).Get(dataValue)
		if o.isPl && o.mask == nil && !zero(xor) { // for a field that is written
			o.mask, o.xor = mask, xor
		} else if o.mask != nil || o.shift != "" || !zero(xor) { // what a statement computes
			o.text, o.isPl = r.name(o)+bits(r.typeOf(o), o, mask, xor), false
			o.typ = r.typeOf(o)
		} else {
			o.mask = mask
		}
	case 1:
		o.shift += fmt.Sprintf(" << %d", e.Attrs.Nested(7).BE32(dataValue))
	case 2:
		o.shift += fmt.Sprintf(" >> %d", e.Attrs.Nested(7).BE32(dataValue))
	}
	r.store(e.Attrs.BE32(2), o)
}

// bits writes (x & mask) ^ xor in the way it was said: what mask lacks and xor has was set by "|".
func bits(typ uint32, o operand, mask, xor []byte) string {
	or, flip, and := make([]byte, len(mask)), make([]byte, len(mask)), make([]byte, len(mask))
	all := true
	for i := range mask {
		x := xor[min(i, len(xor)-1)]
		or[i], flip[i] = x&^mask[i], x&mask[i]
		and[i] = mask[i] | or[i]
		all = all && and[i] == 0xff
	}
	text := ""
	for _, x := range []struct {
		op   string
		d    []byte
		skip bool
	}{{" & ", and, all}, {" ^ ", flip, zero(flip)}, {" | ", or, zero(or)}} {
		if !x.skip {
			text += x.op + value(typ, o.big, x.d)
		}
	}
	return text
}

// learn keeps what a comparison says of the headers that follow.
func (r *renderer) learn(o operand, op uint32, d []byte, piece int) {
	if op != 0 || o.mask != nil || len(d) == 0 {
		return
	}
	l3 := func(byNumber map[uint64]string) {
		if p := byNumber[number(tInteger, true, d)]; p != "" {
			r.l3, r.dep3 = p, piece
		}
	}
	switch {
	case o.kind == "meta" && o.key == 8:
		r.dep2 = piece
	case o.kind == "meta" && o.key == 15:
		l3(map[uint64]string{2: "ip", 10: "ip6"})
	case o.kind == "meta" && o.key == 1, o.isPl && o.base == baseLink && o.len == 2 && (o.off == 12 || o.off == 16):
		l3(map[uint64]string{0x0800: "ip", 0x86dd: "ip6", 0x0806: "arp", 0x8100: "vlan"})
	case o.kind == "meta" && o.key == 16:
		r.l4, r.dep4, r.dep4Pl = int(d[0]), piece, false
	case o.isPl && o.base == baseNetwork && len(d) == 1 && (r.l3 == "ip" && o.off == 9 || r.l3 == "ip6" && o.off == 6):
		r.l4, r.dep4, r.dep4Pl = int(d[0]), piece, true
	case o.isPl && o.base == baseTransport && o.off == 0 && len(d) == 1 && (r.l4 == 1 || r.l4 == 58):
		r.icmp, r.depType = int(d[0]), piece
	}
}

// imply leaves out the matches that using an operand implies.
func (r *renderer) imply(o operand) {
	switch {
	case o.base >= baseTCPOpt:
		r.drop4()
		return
	case o.base >= baseOption:
		r.drop3()
		return
	case !o.isPl:
		return
	}
	switch o.base {
	case baseLink:
		if r.dep2 >= 0 {
			r.out[r.dep2].gone, r.dep2 = true, -1
		}
		if o.off >= 14 {
			r.drop3()
		}
	case baseNetwork:
		r.drop3()
	case baseTransport:
		switch {
		case r.l4 == 1 && r.l3 == "ip", r.l4 == 58 && r.l3 == "ip6":
			r.drop3()
		}
		if o.off >= 4 && r.depType >= 0 {
			r.out[r.depType].gone, r.depType = true, -1
		}
		switch r.chain.Family {
		case "inet", "bridge", "netdev":
			if r.dep4Pl {
				return
			}
		}
		if _, ok := r.headerAt(o); ok {
			r.drop4()
		}
	}
}

func (r *renderer) drop3() {
	if r.dep3 >= 0 {
		r.out[r.dep3].gone, r.dep3 = true, -1
	}
}

func (r *renderer) drop4() {
	if r.dep4 >= 0 {
		r.out[r.dep4].gone, r.dep4 = true, -1
	}
}
