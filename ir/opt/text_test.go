package opt

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/ir"
)

// parse reads functions as ir.Func.String writes them, as far as tests need it. Slots are "name+off" with the sizes given;
// a slot named x… is shared with callbacks.
func parse(t *testing.T, text string) *ir.Func {
	t.Helper()
	u := &ir.Unit{Name: "u"}
	f := &ir.Func{Name: "f", Unit: u, Entry: true}
	u.Entry = f
	p := &parser{f: f, u: u, blocks: map[string]*ir.Block{}, maps: map[string]*ir.Map{}}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, l := range lines {
		if name, ok := strings.CutSuffix(strings.TrimSpace(l), ":"); ok {
			p.blocks[name] = f.NewBlock()
		}
	}
	if len(p.blocks) == 0 {
		p.at = f.NewBlock()
	}
	for _, l := range lines {
		l = strings.TrimSpace(l)
		if name, ok := strings.CutSuffix(l, ":"); ok {
			p.at = p.blocks[name]
			continue
		}
		if l == "" {
			continue
		}
		n, ok := p.ins(l)
		if !ok {
			t.Fatalf("cannot read %q", l)
		}
		p.at.Ins = append(p.at.Ins, n)
	}
	if err := u.Check(); err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return f
}

type parser struct {
	f      *ir.Func
	u      *ir.Unit
	at     *ir.Block
	blocks map[string]*ir.Block
	maps   map[string]*ir.Map
}

// form is how one instruction is written: a pattern and what its groups mean.
type form struct {
	re   *regexp.Regexp
	make func(p *parser, g []string) ir.Ins
}

const (
	reVal = `(v\d+|-?\d+)`
	reMem = `\[(\w+)\+(\d+)\]`
)

func pattern(s string) *regexp.Regexp {
	s = strings.NewReplacer("VAL", reVal, "MEM", reMem, "DST", `(v\d+) = `).Replace(s)
	return regexp.MustCompile("^" + s + "$")
}

var forms = []form{
	{pattern(`goto (\w+)`), func(p *parser, g []string) ir.Ins { return ir.Ins{Op: ir.Jump, Then: p.blocks[g[1]]} }},
	{pattern(`return VAL`), func(p *parser, g []string) ir.Ins { return ir.Ins{Op: ir.Ret, A: p.val(g[1])} }},
	{pattern(`if VAL (\S+) VAL goto (\w+) else (\w+)`), func(p *parser, g []string) ir.Ins {
		return ir.Ins{Op: ir.Branch, A: p.val(g[1]), Cond: cond(g[2]), B: p.val(g[3]), Then: p.blocks[g[4]], Else: p.blocks[g[5]]}
	}},
	{pattern(`([us])(\d+)MEM = VAL`), func(p *parser, g []string) ir.Ins {
		return p.mem(ir.Ins{Op: ir.Store, Size: width(g[2]), A: p.val(g[5])}, g[3], g[4])
	}},
	{pattern(`zero MEM, (\d+)`), func(p *parser, g []string) ir.Ins { return p.mem(ir.Ins{Op: ir.Zero, Imm: integer(g[3])}, g[1], g[2]) }},
	{pattern(`output MEM, (\d+)`), func(p *parser, g []string) ir.Ins {
		return p.mem(ir.Ins{Op: ir.Output, Imm: integer(g[3])}, g[1], g[2])
	}},
	{pattern(`count filtered`), func(*parser, []string) ir.Ins { return ir.Ins{Op: ir.Count, Imm: ir.Filtered} }},
	{pattern(`(?:DST)?call #(\d+)\[([^]]*)\]`), func(p *parser, g []string) ir.Ins {
		n := ir.Ins{Op: ir.Call, Dst: p.reg(g[1]), Fn: int32(integer(g[2]))}
		for _, a := range strings.Fields(g[3]) {
			n.Args = append(n.Args, p.val(a))
		}
		return n
	}},
	{pattern(`DST&MEM`), func(p *parser, g []string) ir.Ins { return p.mem(ir.Ins{Op: ir.Addr, Dst: p.reg(g[1])}, g[2], g[3]) }},
	{pattern(`DSTmap (\S+)`), func(p *parser, g []string) ir.Ins { return ir.Ins{Op: ir.MapPtr, Dst: p.reg(g[1]), Map: p.table(g[2])} }},
	{pattern(`DST([us])(\d+)MEM`), func(p *parser, g []string) ir.Ins {
		return p.mem(ir.Ins{Op: ir.Load, Dst: p.reg(g[1]), Signed: g[2] == "s", Size: width(g[3])}, g[4], g[5])
	}},
	{pattern(`DST([us])(\d+)\(VAL\)`), func(p *parser, g []string) ir.Ins {
		return ir.Ins{Op: ir.Ext, Dst: p.reg(g[1]), Signed: g[2] == "s", Size: width(g[3]), A: p.val(g[4])}
	}},
	{pattern(`DSTarg (\d)`), func(p *parser, g []string) ir.Ins { return ir.Ins{Op: ir.Arg, Dst: p.reg(g[1]), Imm: integer(g[2])} }},
	{pattern(`DSTVAL (\S+) VAL`), func(p *parser, g []string) ir.Ins {
		return ir.Ins{Op: ir.Bin, Dst: p.reg(g[1]), A: p.val(g[2]), Alu: alu(g[3]), B: p.val(g[4])}
	}},
	{pattern(`DSTVAL`), func(p *parser, g []string) ir.Ins {
		n := ir.Ins{Op: ir.Mov, Dst: p.reg(g[1]), A: p.val(g[2])}
		if n.A.IsImm() {
			n.Op = ir.Const
		}
		return n
	}},
}

func (p *parser) ins(line string) (ir.Ins, bool) {
	for _, f := range forms {
		if g := f.re.FindStringSubmatch(line); g != nil {
			return f.make(p, g), true
		}
	}
	return ir.Ins{}, false
}

func (p *parser) reg(s string) ir.Reg {
	if s == "" {
		return 0
	}
	r := int(integer(s[1:]))
	p.f.Regs = max(p.f.Regs, r)
	return ir.Reg(r)
}

func (p *parser) val(s string) ir.Val {
	if s[0] == 'v' {
		return ir.R(p.reg(s))
	}
	return ir.Imm(integer(s))
}

func (p *parser) mem(n ir.Ins, base, off string) ir.Ins {
	n.Off = int32(integer(off))
	if base[0] == 'v' {
		n.Base = p.reg(base)
		return n
	}
	for _, s := range p.u.Slots {
		if s.Name == base {
			n.Slot = s
		}
	}
	if n.Slot == nil {
		n.Slot = p.u.NewSlot(base, 64)
		n.Slot.Shared = base[0] == 'x'
	}
	return n
}

func (p *parser) table(name string) *ir.Map {
	if p.maps[name] == nil {
		p.maps[name] = &ir.Map{Name: name, KeySize: 8, ValueSize: 8}
	}
	return p.maps[name]
}

func integer(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		panic(err)
	}
	return n
}

func width(bits string) uint8 { return uint8(integer(bits) / 8) }

// alu and cond find an operation by how it is printed.
func alu(s string) ir.Alu {
	for a := ir.Add; a <= ir.Sar; a++ {
		n := ir.Ins{Op: ir.Bin, Alu: a}
		if n.String() == fmt.Sprintf("0 %s 0", s) {
			return a
		}
	}
	panic("no operation " + s)
}

func cond(s string) ir.Cond {
	for c := ir.Eq; c <= ir.Set; c++ {
		n := ir.Ins{Op: ir.Branch, Cond: c, Then: &ir.Block{}, Else: &ir.Block{}}
		if n.String() == fmt.Sprintf("if 0 %s 0 goto b0 else b0", s) {
			return c
		}
	}
	panic("no comparison " + s)
}
