package build

import (
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// tasks are the functions that follow pointers from a task_struct, the current one unless another is given.
func tasks() map[string]lowering {
	return map[string]lowering{
		"ppid":        taskField("real_parent", "tgid"),
		"pcomm":       taskField("real_parent", "comm"),
		"leader_tid":  taskField("group_leader", "pid"),
		"leader_comm": taskField("group_leader", "comm"),
	}
}

// taskField reads task->link->field, both found by the kernel's own types.
func taskField(link, field string) lowering {
	return func(x *fn, c *syntax.Call, t *types.Type) value {
		task := ir.Val{}
		if len(c.Args) > 0 {
			task = x.val(c.Args[0])
		} else {
			task = x.call(ir.FnCurrentTask)
		}
		ct, err := x.b.info.CTypes.ByName(ctype.KindStruct, "task_struct")
		s, ok := ct.(*ctype.Struct)
		if err != nil || !ok {
			x.b.errorf(c.Span, "%s needs the kernel's types: %v", c.Name, err)
			return scalarOf(types.Int64, ir.Imm(0))
		}
		l, ok1 := s.Member(link)
		m, ok2 := s.Member(field)
		if !ok1 || !ok2 {
			x.b.errorf(c.Span, "%s: this kernel's task_struct has no %s or no %s", c.Name, link, field)
			return scalarOf(types.Int64, ir.Imm(0))
		}
		p := x.scalarVal(x.member(refTo(types.FromC(s, types.Kernel), task, types.Kernel), l))
		return x.member(refTo(types.FromC(s, types.Kernel), p, types.Kernel), m)
	}
}

// commOf reads the name of the task with a given PID, "N/A" and a warning if there is none.
func (x *fn) commOf(c *syntax.Call, m mem) {
	ct, err := x.b.info.CTypes.ByName(ctype.KindStruct, "task_struct")
	s, ok := ct.(*ctype.Struct)
	if err != nil || !ok {
		x.b.errorf(c.Span, "comm(PID) needs the kernel's types: %v", err)
		return
	}
	name, ok := s.Member("comm")
	if !ok {
		x.b.errorf(c.Span, "comm(PID): this kernel's task_struct has no comm")
		return
	}
	x.zero(m, commLen)
	pid := x.val(c.Args[0])
	task := ir.R(x.f.NewReg())
	x.add(ir.Ins{Op: ir.Call, Dst: task.R, Name: "bpf_task_from_pid", Args: []ir.Val{pid}})
	found, none, after := x.block(), x.block(), x.block()
	x.branch(ir.Ne, task, ir.Imm(0), found, none)
	x.at(found)
	x.call(ir.FnProbeReadKernelStr, x.addr(m), ir.Imm(commLen), x.bin(ir.Add, task, ir.Imm(int64(name.BitOff/8))))
	x.add(ir.Ins{Op: ir.Call, Name: "bpf_task_release", Args: []ir.Val{task}})
	x.jump(after)
	x.at(none)
	x.store(m, 4, ir.Imm(0x412f4e)) // "N/A", little-endian
	x.send(x.b.event(&ir.Event{Kind: ir.EvWarnf, Fmt: "No such process (pid=%d)", Span: c.Span, Payload: types.TupleOf(types.Int64)}), []value{scalarOf(types.Int64, pid)})
	x.jump(after)
	x.at(after)
}

// assert ends the program with an error unless its condition holds.
func assert(x *fn, c *syntax.Call, _ *types.Type) value {
	ok, bad := x.block(), x.block()
	x.cond(c.Args[0], ok, bad)
	x.at(bad)
	msg, _ := x.literalOf(c.Args[1])
	x.send(x.b.event(&ir.Event{Kind: ir.EvErrorf, Fmt: "assert failed: " + strings.ReplaceAll(msg, "%", "%%"), Span: c.Span}), nil)
	x.exit(ir.Imm(1), c.Span)
	x.at(ok)
	return value{t: types.VoidT}
}

// nothing is a function that has done its work when the program was checked.
func nothing(*fn, *syntax.Call, *types.Type) value { return value{t: types.VoidT} }

// maxErrno is MAX_ERRNO (include/linux/err.h): pointers above -MAX_ERRNO are errors.
const maxErrno = 4095

func isErr(x *fn, c *syntax.Call, _ *types.Type) value {
	yes, no := x.block(), x.block()
	v := x.val(c.Args[0])
	return x.boolValue(func() { x.branch(ir.Ge, v, x.wide(-maxErrno), yes, no) }, yes, no)
}

// containerOf gives the object that a pointer's target is a member of.
func containerOf(x *fn, c *syntax.Call, t *types.Type) value {
	p := x.val(c.Args[0])
	name := c.Args[2].Where().Text()
	if id, ok := c.Args[2].(*syntax.Ident); ok {
		name = id.Name
	}
	if t.Kind == types.Ptr && t.Elem.Kind == types.Struct {
		if s, ok := ctype.Strip(t.Elem.C).(*ctype.Struct); ok {
			if m, ok := s.Member(name); ok {
				return scalarOf(t, x.bin(ir.Sub, p, ir.Imm(int64(m.BitOff/8))))
			}
		}
	}
	x.b.errorf(c.Span, "container_of(): no member %s", name)
	return scalarOf(t, p)
}
