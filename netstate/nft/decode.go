package nft

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/netstate/nlattr"
)

// Messages of NFNL_SUBSYS_NFTABLES that ask for a dump; their answers have one less (NFT_MSG_NEW…).
const (
	subsys     = 10 << 8
	GetTable   = subsys | 1
	GetChain   = subsys | 4
	GetRule    = subsys | 7
	GetSet     = subsys | 10
	GetSetElem = subsys | 13
)

// Address families of tables (NFPROTO_…).
var families = map[uint8]string{1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}

// Request is the body of a dump of everything of a kind: struct nfgenmsg.
func Request() []byte { return make([]byte, nfgenmsg) }

// ElemRequest asks for the elements of a set.
func ElemRequest(s Set) []byte {
	b := make([]byte, nfgenmsg)
	for n, name := range families {
		if name == s.Family {
			b[0] = n
		}
	}
	b = nlattr.Append(b, 1, append([]byte(s.Table), 0))
	return nlattr.Append(b, 2, append([]byte(s.Name), 0))
}

const (
	nfgenmsg = 4

	listElem  = 1
	exprName  = 1
	exprData  = 2
	dataValue = 1
	dataVerd  = 2
	verdCode  = 1
	verdChain = 2
)

// Decoder puts a ruleset together out of the answers to dumps: tables first, then chains, rules, sets and elements.
type Decoder struct {
	Links   map[int]string     // names by index, for rules that know a link by that
	dormant map[[2]string]bool // tables that are switched off
	set     Ruleset
}

// Add takes the payload of one message: typ is the low byte of its type.
func (d *Decoder) Add(typ uint16, b []byte) error {
	a, err := nlattr.ParseAt(b, nfgenmsg)
	if err != nil {
		return err
	}
	fam, ok := families[b[0]]
	if !ok {
		fam = fmt.Sprint(b[0])
	}
	switch typ | subsys {
	case GetTable - 1:
		if a.BE32(2)&1 != 0 {
			if d.dormant == nil {
				d.dormant = map[[2]string]bool{}
			}
			d.dormant[[2]string{fam, a.String(1)}] = true
		}
	case GetChain - 1:
		d.set.Chains = append(d.set.Chains, d.chain(fam, a))
	case GetRule - 1:
		d.rule(fam, a)
	case GetSet - 1:
		d.set.Sets = append(d.set.Sets, decodeSet(fam, a))
	case GetSetElem - 1:
		if s := d.set.find(fam, a.String(1), a.String(2)); s != nil {
			for _, e := range a.Nested(3) {
				x, _ := nlattr.Parse(e.Data)
				s.Elems = append(s.Elems, decodeElem(x))
			}
		}
	}
	return nil
}

// Sets are the sets that were met so far: their elements have to be asked for one by one.
func (d *Decoder) Sets() []Set { return d.set.Sets }

// Ruleset finishes: rules get their texts, chains stand in the order of hook and priority, those without a hook at the end.
func (d *Decoder) Ruleset() Ruleset {
	r := d.set
	r.Describe(d.Links)
	sorting.Stable(r.Chains, func(a, b Chain) int {
		return cmp.Or(cmp.Compare(hookOrder(a.Hook), hookOrder(b.Hook)), cmp.Compare(a.Priority, b.Priority))
	})
	return r
}

// Describe writes the text of every rule, what it does and what it counted, out of its expressions. links are the names of
// devices by index, for rules that know a device by that.
func (s *Ruleset) Describe(links map[int]string) {
	for i := range s.Chains {
		c := &s.Chains[i]
		for j := range c.Rules {
			s.describe(c, &c.Rules[j], links)
		}
	}
}

var hookNames = []string{"ingress", "prerouting", "input", "forward", "output", "postrouting", "egress", ""}

func hookOrder(h string) int { return slices.Index(hookNames, h) }

// hookName names a hook: its number means something else in each kind of family.
func hookName(fam string, n uint32) string {
	names := []string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
	switch fam {
	case "netdev":
		names = []string{"ingress", "egress"}
	case "arp":
		names = []string{"input", "output", "forward"}
	}
	if int(n) < len(names) {
		return names[n]
	}
	return fmt.Sprint(n)
}

func (d *Decoder) chain(fam string, a nlattr.Attrs) Chain {
	c := Chain{Family: fam, Table: a.String(1), Handle: a.BE64(2), Name: a.String(3), Type: a.String(7)}
	c.Dormant = d.dormant[[2]string{fam, c.Table}]
	h := a.Nested(4)
	if h == nil {
		return c
	}
	c.Hook, c.Priority = hookName(fam, h.BE32(1)), int(int32(h.BE32(2)))
	c.Policy = "accept"
	if a.Has(5) && a.BE32(5) == 0 {
		c.Policy = "drop"
	}
	if dev := h.String(3); dev != "" {
		c.Devs = []string{dev}
	}
	for _, x := range h.Nested(4) {
		if dev := nlattr.Text(x.Data); len(c.Devs) == 0 || c.Devs[0] != dev {
			c.Devs = append(c.Devs, dev)
		}
	}
	return c
}

func (d *Decoder) rule(fam string, a nlattr.Attrs) {
	table, chain := a.String(1), a.String(2)
	for i := range d.set.Chains {
		if c := &d.set.Chains[i]; c.Family == fam && c.Table == table && c.Name == chain {
			c.Rules = append(c.Rules, Rule{Handle: a.BE64(3), Raw: slices.Clone(a.Get(4)), Comment: comment(a.Get(7))})
			return
		}
	}
}

// comment reads the user data of a rule or element (libnftnl's TLVs: type and length of a byte each); 0 is a comment.
func comment(b []byte) string {
	for len(b) >= 2 && int(b[1]) <= len(b)-2 {
		if b[0] == 0 {
			return nlattr.Text(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

func decodeSet(fam string, a nlattr.Attrs) Set {
	s := Set{
		Family: fam, Table: a.String(1), Name: a.String(2), ID: a.BE32(10), Flags: a.BE32(3),
		KeyType: a.BE32(4), KeyLen: int(a.BE32(5)), DataType: a.BE32(6), DataLen: int(a.BE32(7)),
	}
	for _, f := range a.Nested(9).Nested(2) {
		x, _ := nlattr.Parse(f.Data)
		s.Fields = append(s.Fields, int(x.BE32(1)))
	}
	return s
}

func decodeElem(a nlattr.Attrs) Elem {
	e := Elem{
		Key: slices.Clone(a.Nested(1).Get(dataValue)), End: slices.Clone(a.Nested(10).Get(dataValue)), Flags: a.BE32(3),
		Data: slices.Clone(a.Nested(2).Get(dataValue)), Comment: comment(a.Get(6)), Object: a.String(9),
	}
	e.Verdict, e.Target = verdictOf(a.Nested(2))
	return e
}

// verdictOf reads a verdict out of data; "" if it is none.
func verdictOf(data nlattr.Attrs) (verdict, target string) {
	v := data.Nested(dataVerd)
	if v == nil {
		return "", ""
	}
	switch code := int32(v.BE32(verdCode)); code & verdictMask(code) {
	case -1:
		verdict = "continue"
	case -2:
		verdict = "break"
	case -3:
		verdict = "jump"
	case -4:
		verdict = "goto"
	case -5:
		verdict = "return"
	case 0:
		verdict = "drop"
	case 1:
		verdict = "accept"
	case 2:
		verdict = "stolen"
	case 3:
		verdict = "queue"
	default:
		verdict = fmt.Sprint(code)
	}
	return verdict, v.String(verdChain)
}

// verdictMask leaves the verdict of netfilter, which may hold an errno or queue above it; those of nftables are negative.
func verdictMask(code int32) int32 {
	if code < 0 {
		return -1
	}
	return 0xff
}

// Expr is one expression of a rule, with its attributes.
type Expr struct {
	Name  string // "payload", "cmp", …
	Attrs nlattr.Attrs
}

// Exprs decodes the expressions of a rule. What is broken ends the list.
func (r Rule) Exprs() []Expr {
	list, _ := nlattr.Parse(r.Raw)
	out := make([]Expr, 0, len(list))
	for _, x := range list {
		if x.Type != listElem {
			continue
		}
		e, err := parseExpr(x.Data)
		if err != nil {
			break
		}
		out = append(out, e)
	}
	return out
}

func parseExpr(b []byte) (Expr, error) {
	a, err := nlattr.Parse(b)
	return Expr{a.String(exprName), a.Nested(exprData)}, err
}

// find looks a set up by name.
func (r *Ruleset) find(fam, table, name string) *Set {
	for i := range r.Sets {
		if s := &r.Sets[i]; s.Name == name && s.Table == table && s.Family == fam {
			return s
		}
	}
	return nil
}

// slot is where a register begins in the 64 bytes of registers, or −1 for that of verdicts. The registers of 16 bytes and
// those of 4 overlap.
func slot(reg uint32) int {
	switch {
	case reg >= 1 && reg <= 4:
		return int(reg-1) * 16
	case reg >= 8 && reg < 24:
		return int(reg-8) * 4
	}
	return -1
}

// Counter sums the counters of a rule.
func (r Rule) counter() (packets, bytes uint64, ok bool) {
	for _, e := range r.Exprs() {
		if e.Name == "counter" {
			bytes, packets, ok = bytes+e.Attrs.BE64(1), packets+e.Attrs.BE64(2), true
		}
	}
	return packets, bytes, ok
}

// CountPackets adds the packets that the rule in a message of type NFT_MSG_NEWRULE counted to its chain's counter,
// "nft.FAMILY.TABLE.CHAIN.packets", and to its own, "nft.FAMILY.TABLE.CHAIN.HANDLE.packets".
func CountPackets(into map[string]uint64, b []byte) error {
	a, err := nlattr.ParseAt(b, nfgenmsg)
	if err != nil {
		return err
	}
	if n, _, ok := (Rule{Raw: a.Get(4)}).counter(); ok {
		name := "nft." + families[b[0]] + "." + a.String(1) + "." + a.String(2)
		into[name+".packets"] += n
		into[fmt.Sprintf("%s.%d.packets", name, a.BE64(3))] += n
	}
	return nil
}
