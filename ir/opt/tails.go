package opt

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/ir"
)

// mergeable bounds the length of blocks that are compared: the alike are short ends, such as counting a loss.
const mergeable = 12

// tails makes one block of those that do the same: the same instructions on the same registers, or on registers of their
// own, and then the same way on.
func tails(f *ir.Func) bool {
	first := map[string]*ir.Block{}
	s := &shaper{own: map[ir.Reg]ir.Reg{}, ids: map[any]uint64{}}
	to := make([]*ir.Block, len(f.Blocks))
	var out *ir.Live
	changed := false
	for _, b := range f.Blocks {
		if len(b.Ins) > mergeable || b.ID == 0 {
			continue
		}
		if out == nil {
			out = ir.Liveness(f)
		}
		k := s.shape(b, out)
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
	f.Prune()
	return true
}

// shaper gives blocks as bytes in which registers that live only in the block are numbered by appearance.
type shaper struct {
	buf []byte
	own map[ir.Reg]ir.Reg
	ids map[any]uint64 // of slots, maps and functions
}

func (s *shaper) shape(b *ir.Block, out *ir.Live) string {
	s.buf = s.buf[:0]
	clear(s.own)
	for i := range b.Ins {
		n := &b.Ins[i]
		s.put(uint64(n.Op)|uint64(n.Alu)<<8|uint64(n.Cond)<<16|uint64(n.Size)<<24, uint64(n.Off), uint64(n.Imm), uint64(n.Fn))
		if n.Signed {
			s.buf = append(s.buf, 's')
		}
		s.val(n.A)
		s.val(n.B)
		s.val(ir.R(n.Base))
		for _, a := range n.Args {
			s.val(a)
		}
		s.ref(n.Slot != nil, n.Slot)
		s.ref(n.Map != nil, n.Map)
		s.ref(n.Callee != nil, n.Callee)
		s.ref(n.Then != nil, n.Then)
		s.ref(n.Else != nil, n.Else)
		s.buf = append(s.buf, n.Name...)
		if d := n.Dst; d != 0 {
			if !out.LiveOut(b, d) {
				s.own[d] = -ir.Reg(len(s.own) + 1)
			}
			s.val(ir.R(d))
		}
	}
	return string(s.buf)
}

func (s *shaper) put(vs ...uint64) {
	for _, v := range vs {
		s.buf = binary.AppendUvarint(s.buf, v)
	}
}

func (s *shaper) val(v ir.Val) {
	if o, ok := s.own[v.R]; ok {
		v.R = o
	}
	s.put(uint64(v.R), uint64(v.Imm))
}

// ref puts a number for what p points to.
func (s *shaper) ref(some bool, p any) {
	if !some {
		s.buf = append(s.buf, 0)
		return
	}
	id, ok := s.ids[p]
	if !ok {
		id = uint64(len(s.ids) + 1)
		s.ids[p] = id
	}
	s.put(id)
}
