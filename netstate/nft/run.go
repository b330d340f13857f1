package nft

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// truth of a match.
type truth int

const (
	no truth = iota
	yes
	maybe
)

// match is how a rule ended.
type match struct {
	match           truth
	unknown         string
	verdict, target string
	counted         bool // its counter was reached
}

const regBytes = 64

// machine is the registers of nftables while a rule runs.
type machine struct {
	*eval
	chain   *Chain
	rule    *Rule
	regs    [regBytes]byte
	unknown [regBytes / 4]string // why a register is not known
	reason  string               // why the rule is not known to match so far
	reached string               // why it is not known that the rule is reached
	verdict string
	target  string
	counted bool
}

// rule runs a rule. An expression that can be decided and fails settles it, whatever else is unknown.
func (e *eval) rule(c *Chain, rule *Rule, reached string) match {
	m := &machine{eval: e, chain: c, rule: rule, reached: reached}
	for _, x := range rule.Exprs() {
		switch t, why := m.run(x); t {
		case no:
			return match{counted: m.counted, unknown: m.reason}
		case maybe:
			m.reason = cmp.Or(m.reason, why)
		}
		if m.verdict != "" {
			break
		}
	}
	out := match{match: yes, verdict: m.verdict, target: m.target}
	if m.reason != "" {
		out.match, out.unknown = maybe, m.reason
	}
	return out
}

// set puts a value in a register.
func (m *machine) set(reg uint32, d []byte) {
	at := slot(reg)
	if at < 0 {
		return
	}
	n := (len(d) + 3) &^ 3
	clear(m.regs[at:min(at+n, regBytes)])
	copy(m.regs[at:], d)
	for i := at / 4; i < min(at+max(n, 4), regBytes)/4; i++ {
		m.unknown[i] = ""
	}
}

// forget says that a register of n bytes is not known.
func (m *machine) forget(reg uint32, n int, why string) {
	at := slot(reg)
	for i := at / 4; at >= 0 && i < min(at+max(n, 4), regBytes)/4; i++ {
		m.unknown[i] = why
	}
}

// get reads n bytes from a register on; why is "" if they are known.
func (m *machine) get(reg uint32, n int) (d []byte, why string) {
	at := slot(reg)
	if at < 0 || n < 0 || at+n > regBytes {
		return nil, "a register that does not exist"
	}
	for i := at / 4; i <= (at+max(n, 1)-1)/4; i++ {
		if m.unknown[i] != "" {
			return nil, m.unknown[i]
		}
	}
	return m.regs[at : at+n], ""
}

// run executes one expression.
func (m *machine) run(x Expr) (truth, string) {
	a := x.Attrs
	switch x.Name {
	case "payload":
		if a.Has(5) {
			return yes, m.writePayload(a)
		}
		return m.payload(a)
	case "meta":
		return m.meta(a)
	case "ct":
		return m.ct(a)
	case "exthdr":
		return m.exthdr(a)
	case "fib":
		return m.fib(a)
	case "cmp":
		return m.compare(a.BE32(1), a.Nested(3).Get(dataValue), func(d, with []byte) bool { return compared(a.BE32(2), bytes.Compare(d, with)) })
	case "range":
		return m.inRange(a)
	case "bitwise":
		m.bitwise(a)
	case "byteorder":
		m.byteorder(a)
	case "lookup":
		return m.lookup(a)
	case "immediate":
		m.immediate(a)
	case "nat", "masq", "redir":
		m.nat(x)
	case "reject", "queue", "synproxy":
		m.verdict = x.Name
	case "tproxy":
		m.change("tproxy", "")
	case "fwd":
		m.verdict = "stolen"
	case "notrack":
		if m.certain() {
			m.pkt.CtState = "untracked"
		}
	case "counter":
		m.counted = true
	case "log", "dup", "last", "flow_offload":
	case "target":
		m.compat(a)
	case "match":
		return m.compatMatch(a)
	case "objref":
		if kind := a.BE32(1); kind == 2 || kind == 4 || kind == 5 {
			return maybe, objectKinds[kind] + " " + a.String(2)
		}
	case "limit":
		return maybe, limitText(a.BE64(1), a.BE64(2), a.BE32(3), a.BE32(4), a.BE32(5)&1 != 0)
	case "quota", "connlimit", "dynset":
		return maybe, x.Name
	default:
		if loads[x.Name] {
			m.forget(a.BE32(destination(x.Name)), 16, x.Name)
			return yes, ""
		}
		return maybe, x.Name
	}
	return yes, ""
}

// certain reports whether the rule is known to have come so far: then what it changes is changed.
func (m *machine) certain() bool { return m.reached == "" && m.reason == "" }

func (m *machine) change(verdict, to string) {
	m.out.Changes = append(m.out.Changes, Step{
		Chain: m.chain, Rule: m.rule, Verdict: verdict, To: to, Unknown: cmp.Or(m.reached, m.reason),
	})
}

// compared is the result of an operator of cmp.
func compared(op uint32, order int) bool {
	switch op {
	case 0:
		return order == 0
	case 1:
		return order != 0
	case 2:
		return order < 0
	case 3:
		return order <= 0
	case 4:
		return order > 0
	case 5:
		return order >= 0
	}
	return false
}

func toTruth(b bool) truth {
	if b {
		return yes
	}
	return no
}

func (m *machine) compare(reg uint32, with []byte, f func(d, with []byte) bool) (truth, string) {
	d, why := m.get(reg, len(with))
	if why != "" {
		return maybe, why
	}
	return toTruth(f(d, with)), ""
}

func (m *machine) inRange(a nlattr.Attrs) (truth, string) {
	from, to := a.Nested(3).Get(dataValue), a.Nested(4).Get(dataValue)
	return m.compare(a.BE32(1), from, func(d, from []byte) bool {
		in := bytes.Compare(d, from) >= 0 && bytes.Compare(d, to) <= 0
		return in == (a.BE32(2) == 0)
	})
}

var baseTexts = []string{"the link header", "the network header", "the transport header", "the data behind the headers"}

func (m *machine) payload(a nlattr.Attrs) (truth, string) {
	base, n := a.BE32(2), int(a.BE32(4))
	d, known, ok := m.pkt.bytes(base, int(a.BE32(3)), n)
	switch {
	case !ok:
		return no, ""
	case !known:
		m.forget(a.BE32(1), n, baseTexts[min(int(base), len(baseTexts)-1)])
	default:
		m.set(a.BE32(1), d)
	}
	return yes, ""
}

// writePayload rewrites the packet. Checksums, which the kernel mends, are left.
func (m *machine) writePayload(a nlattr.Attrs) string {
	n := int(a.BE32(4))
	src, why := m.get(a.BE32(5), n)
	to := ""
	if dst, known, ok := m.pkt.bytes(a.BE32(2), int(a.BE32(3)), n); why == "" {
		to = hexOrAddr(src)
		if m.certain() && known && ok {
			copy(dst, src)
		}
	}
	m.change("set", to)
	return ""
}

func hexOrAddr(d []byte) string {
	if a, ok := netip.AddrFromSlice(d); ok {
		return a.String()
	}
	return fmt.Sprintf("0x%x", d)
}

func (m *machine) bitwise(a nlattr.Attrs) {
	n := int(a.BE32(3))
	d, why := m.get(a.BE32(1), n)
	if why != "" {
		m.forget(a.BE32(2), n, why)
		return
	}
	out := slices.Clone(d)
	switch a.BE32(6) {
	case 0:
		mask, xor := a.Nested(4).Get(dataValue), a.Nested(5).Get(dataValue)
		for i := range out {
			out[i] = out[i]&at(mask, i) ^ at(xor, i)
		}
	case 1, 2: // nft shifts numbers of four bytes, the highest first
		shift := a.Nested(7).BE32(dataValue) & 31
		if n != 4 {
			m.forget(a.BE32(2), n, "a shift of more than four bytes")
			return
		}
		v := binary.LittleEndian.Uint32(out)
		if a.BE32(6) == 1 {
			v <<= shift
		} else {
			v >>= shift
		}
		binary.LittleEndian.PutUint32(out, v)
	default:
		m.forget(a.BE32(2), n, "bitwise")
		return
	}
	m.set(a.BE32(2), out)
}

func at(d []byte, i int) byte {
	if i < len(d) {
		return d[i]
	}
	return 0
}

func (m *machine) byteorder(a nlattr.Attrs) {
	n, size := int(a.BE32(4)), int(a.BE32(5))
	d, why := m.get(a.BE32(1), n)
	if why != "" || size != 2 && size != 4 && size != 8 {
		m.forget(a.BE32(2), n, cmp.Or(why, "byteorder"))
		return
	}
	out := slices.Clone(d)
	for i := 0; i+size <= len(out); i += size {
		slices.Reverse(out[i : i+size])
	}
	m.set(a.BE32(2), out)
}

func (m *machine) immediate(a nlattr.Attrs) {
	data := a.Nested(2)
	if v, t := verdictOf(data); v != "" {
		m.verdict, m.target = v, t
		return
	}
	m.set(a.BE32(1), data.Get(dataValue))
}

// lookup finds a key in a set; of a map it loads what belongs to it.
func (m *machine) lookup(a nlattr.Attrs) (truth, string) {
	s := m.eval.set.find(m.chain.Family, m.chain.Table, a.String(1))
	if s == nil {
		return maybe, "set " + a.String(1)
	}
	inverted := a.BE32(5)&1 != 0
	key, why := m.get(a.BE32(2), s.KeyLen)
	if why != "" {
		if a.Has(3) {
			if slot(a.BE32(3)) < 0 {
				m.verdictMap(s)
			}
			m.forget(a.BE32(3), max(s.DataLen, 4), why)
		}
		return maybe, why
	}
	e, ok := s.Lookup(key)
	if ok == inverted {
		return no, ""
	}
	if a.Has(3) {
		if e.Verdict != "" {
			m.verdict, m.target = e.Verdict, e.Target
		} else {
			m.set(a.BE32(3), e.Data)
		}
	}
	return yes, ""
}

// verdictMap is a map asked with an unknown key: of what it could say, the worst.
func (m *machine) verdictMap(s *Set) {
	for _, e := range s.Elems {
		if m.verdict == "" || e.Verdict == "drop" {
			m.verdict, m.target = e.Verdict, e.Target
		}
	}
}

// Lookup finds the element a key belongs to.
func (s *Set) Lookup(key []byte) (Elem, bool) {
	if s.Flags&setInterval == 0 {
		i := slices.IndexFunc(s.Elems, func(e Elem) bool { return e.Flags&elemCatchall == 0 && bytes.Equal(e.Key, key) })
		if i < 0 {
			i = slices.IndexFunc(s.Elems, func(e Elem) bool { return e.Flags&elemCatchall != 0 })
		}
		if i < 0 {
			return Elem{}, false
		}
		return s.Elems[i], true
	}
	types := keyTypes(s.KeyType)
	concat := len(types) > 1
	var rest *Elem
	for _, e := range s.intervals(types) {
		switch {
		case e.Flags&elemCatchall != 0:
			rest = &e
		case e.End == nil: // of a concatenation, one key
			if bytes.Equal(e.Key, key) {
				return e, true
			}
		case concat:
			if s.within(key, e) {
				return e, true
			}
		case bytes.Compare(key, e.Key) >= 0 && bytes.Compare(key, e.End) <= 0:
			return e, true
		}
	}
	if rest != nil {
		return *rest, true
	}
	return Elem{}, false
}

// within compares the parts of a key, each with its own interval.
func (s *Set) within(key []byte, e Elem) bool {
	off := 0
	for _, n := range s.Fields {
		if off+n > min(len(key), len(e.Key), len(e.End)) {
			return false
		}
		k := key[off : off+n]
		if bytes.Compare(k, e.Key[off:off+n]) < 0 || bytes.Compare(k, e.End[off:off+n]) > 0 {
			return false
		}
		off += (n + 3) &^ 3
	}
	return true
}
