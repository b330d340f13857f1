package build

import (
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
)

// walkEnds leaves when a walk over kernel objects is over: the kernel then runs the program once more, with no object
// (seq_stop of the iterators under kernel/bpf). What is walked through, a map, is there at the end too.
func (x *fn) walkEnds() {
	if x.in.Provider.Name != "iter" || len(x.in.Targets) == 0 {
		return
	}
	t, err := x.b.info.CTypes.ByName(ctype.KindStruct, "bpf_iter__"+x.in.Targets[0].Func)
	s, ok := t.(*ctype.Struct)
	if err != nil || !ok {
		return
	}
	objects := pointers(s, 0, nil)
	if len(objects) == 0 {
		return
	}
	ctx, walk := x.f.NewReg(), x.block()
	x.add(ir.Ins{Op: ir.Ctx, Dst: ctx})
	for _, off := range objects {
		next := x.block()
		x.branch(ir.Ne, x.load(mem{base: ctx, off: off}, 8, false), ir.Imm(0), walk, next)
		x.at(next)
	}
	x.ret(ir.Imm(0))
	x.at(walk)
}

// pointers gives where an iterator's context points at the object it is at (__bpf_md_ptr in include/uapi/linux/bpf.h: a
// pointer in an unnamed union).
func pointers(s *ctype.Struct, at int, offs []int32) []int32 {
	for _, m := range s.Members() {
		off := at + m.BitOff/8
		switch t := ctype.Strip(m.Type).(type) {
		case *ctype.Ptr:
			if m.Name != "meta" && m.Name != "map" {
				offs = append(offs, int32(off))
			}
		case *ctype.Struct:
			if m.Name == "" {
				offs = pointers(t, off, offs)
			}
		}
	}
	return offs
}
