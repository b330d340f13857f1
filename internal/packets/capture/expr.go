package capture

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
)

// Term is a condition on a field of a packet's sk_buff, by the kernel's types: "skb.dev.mtu < 1500",
// "skb.sk.sk_priority == 6", "skb.mark & 0xff". Pointers on the path are followed; one that cannot be gives 0.
type Term struct {
	Path []string // behind skb
	Op   string   // "==", "!=", "<", "<=", ">", ">=", "&"
	Num  int64
}

// ops are the comparisons of terms, those of two letters first; signed and not.
var ops = []struct {
	text             string
	signed, unsigned ir.Cond
}{
	{"==", ir.Eq, ir.Eq}, {"!=", ir.Ne, ir.Ne}, {"<=", ir.SLe, ir.Le}, {">=", ir.SGe, ir.Ge}, {"<", ir.SLt, ir.Lt}, {">", ir.SGt, ir.Gt}, {"&", ir.Set, ir.Set},
}

// ParseTerm reads a term; ok is false if the text is none, as it does not begin with "skb.".
func ParseTerm(text string) (t Term, ok bool, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), "skb.")
	if !ok {
		return t, false, nil
	}
	for _, op := range ops {
		path, num, found := strings.Cut(rest, op.text)
		if !found {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(num), 0, 64)
		if err != nil {
			return t, true, fmt.Errorf("%s: %q is not a number", text, strings.TrimSpace(num))
		}
		return Term{strings.Split(strings.TrimSpace(path), "."), op.text, n}, true, nil
	}
	return t, true, fmt.Errorf("%s: no comparison: ==, !=, <, <=, >, >= or &", text)
}

func (t Term) String() string {
	return fmt.Sprintf("skb.%s %s %d", strings.Join(t.Path, "."), t.Op, t.Num)
}

// reach is one step to a field: a pointer to be followed, or the field itself.
type reach struct {
	member
	follow, signed bool
}

// resolve finds the way to a term's field.
func (t Term) resolve(types ctype.Lookup) ([]reach, error) {
	s := (&finder{types: types}).structure("sk_buff")
	var way []reach
	off := 0
	for i, name := range t.Path {
		if s == nil {
			return nil, fmt.Errorf("%s: %s has no members", t, strings.Join(append([]string{"skb"}, t.Path[:i]...), "."))
		}
		m, ok := s.Member(name)
		if !ok {
			return nil, fmt.Errorf("%s: struct %s has no member %s", t, s.Name, name)
		}
		at := member{off: off + m.BitOff/8, size: ctype.Size(m.Type), bit: m.BitOff % 8, bits: m.BitSize}
		switch typ := ctype.Strip(m.Type).(type) {
		case *ctype.Struct:
			off, s = at.off, typ
			continue
		case *ctype.Ptr:
			s, _ = ctype.Strip(typ.Elem).(*ctype.Struct)
			way = append(way, reach{member: at, follow: i < len(t.Path)-1})
		case *ctype.Int:
			way, s = append(way, reach{member: at, signed: typ.Signed}), nil
		default:
			way, s = append(way, reach{member: at}), nil
		}
		off = 0
	}
	last := len(way) - 1
	if last < 0 || way[last].size > 8 || way[last].size == 0 {
		return nil, fmt.Errorf("%s: not a number", t)
	}
	return way, nil
}

// holds ends the program unless a term does.
func (c *code) holds(p *seen, t Term, way []reach) {
	u := p.u
	at, v := p.skb, ir.Imm(0)
	for _, r := range way {
		if r.bits != 0 {
			v = bitfield(u, at, r.member)
		} else {
			v = u.Int(at, r.off, r.size, r.signed)
		}
		at = v
	}
	for _, op := range ops {
		if op.text != t.Op {
			continue
		}
		cond := op.unsigned
		if way[len(way)-1].signed {
			cond = op.signed
		}
		u.Unless(cond, v, u.Var(ir.Imm(t.Num)))
	}
}

// bitfield reads bits of up to 4 bytes of memory.
func bitfield(u *emit.Unit, at ir.Val, m member) ir.Val {
	n := (m.bit + m.bits + 7) / 8
	size := 1
	for size < n {
		size *= 2
	}
	v := u.Int(at, m.off, size, false)
	return u.Bin(ir.And, u.Bin(ir.Shr, v, ir.Imm(int64(m.bit))), u.Var(ir.Imm(int64(1)<<m.bits-1)))
}
