package opt

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ir"
)

// mergeable bounds the length of blocks that are compared: the alike are short ends, such as counting a loss.
const mergeable = 12

// tails makes one block of those that do the same: the same instructions on the same registers, or on registers of their
// own, and then the same way on.
func tails(f *ir.Func) bool {
	first := map[string]*ir.Block{}
	to := make([]*ir.Block, len(f.Blocks))
	var out []ir.RegSet
	changed := false
	for _, b := range f.Blocks {
		if len(b.Ins) > mergeable || b.ID == 0 {
			continue
		}
		if out == nil {
			out = ir.Liveness(f)
		}
		k := shape(b, out[b.ID])
		if have := first[k]; have != nil {
			to[b.ID], changed = have, true
			continue
		}
		first[k] = b
	}
	if !changed {
		return false
	}
	for _, b := range f.Blocks {
		t := b.Term()
		if t.Then != nil && to[t.Then.ID] != nil {
			t.Then = to[t.Then.ID]
		}
		if t.Else != nil && to[t.Else.ID] != nil {
			t.Else = to[t.Else.ID]
		}
	}
	prune(f)
	return true
}

// shape gives a block as text in which registers that live only in it are numbered by appearance.
func shape(b *ir.Block, out ir.RegSet) string {
	own := map[ir.Reg]ir.Reg{}
	name := func(r ir.Reg) ir.Reg {
		if o, ok := own[r]; ok {
			return o
		}
		return r
	}
	var s strings.Builder
	for i := range b.Ins {
		n := b.Ins[i]
		n.Args = append([]ir.Val(nil), n.Args...)
		n.Replace(func(r ir.Reg) ir.Val { return ir.R(name(r)) })
		n.Base = name(n.Base)
		if d := n.Dst; d != 0 && !out.Has(d) {
			own[d] = -ir.Reg(len(own) + 1)
			n.Dst = own[d]
		}
		fmt.Fprintf(&s, "%s|%p|%p|%v|%v\n", n.String(), n.Slot, n.Map, n.Size, n.Args)
	}
	return s.String()
}
