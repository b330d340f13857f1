package build

import (
	"fmt"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// maxLoops is BPF_MAX_LOOPS (include/linux/bpf.h): bpf_loop goes round no more than that.
const maxLoops = 1 << 23

// captures finds the variables used in a loop other than the one that declared them: they live in memory, because a
// loop's body is a function of its own.
func captures(in *check.Instance) map[*check.Var]bool {
	home := map[*check.Var]syntax.Node{}
	out := map[*check.Var]bool{}
	var loops []syntax.Node
	var visit func(n syntax.Node)
	visit = func(n syntax.Node) {
		switch l := n.(type) {
		case *syntax.Var:
			v := in.Vars[l]
			if v == nil {
				return
			}
			var here syntax.Node
			if len(loops) > 0 {
				here = loops[len(loops)-1]
			}
			if h, ok := home[v]; !ok {
				home[v] = here
			} else if h != here {
				out[v] = true
			}
			return
		case *syntax.For:
			syntax.Children(l.Over, visit)
			loops = append(loops, l)
			visit(l.Var)
			visit(l.Body)
			loops = loops[:len(loops)-1]
			return
		case *syntax.While:
			loops = append(loops, l)
			visit(l.Cond)
			visit(l.Body)
			loops = loops[:len(loops)-1]
			return
		}
		syntax.Children(n, visit)
	}
	if in.Pred != nil {
		visit(in.Pred)
	}
	visit(in.Body)
	return out
}

// callback starts a function that a looping helper calls.
func (x *fn) callback(params int) *fn {
	f := &ir.Func{Name: fmt.Sprintf("%s_loop%d", x.u.Name, len(x.u.Calls)), Unit: x.u}
	x.u.Calls = append(x.u.Calls, f)
	for range params {
		f.Params = append(f.Params, f.NewReg())
	}
	c := &fn{b: x.b, in: x.in, u: x.u, f: f, vars: x.vars, captured: x.captured, parent: x, span: x.span,
		loops: []loop{{callback: true}}}
	c.blk = f.NewBlock()
	return c
}

// endCallback finishes the body of a callback.
func (x *fn) endCallback() {
	x.ret(ir.Imm(0))
	x.flushAlways()
}

// afterLoop ends the program if the loop's body returned from it.
func (x *fn) afterLoop() {
	top := x
	for top.parent != nil {
		top = top.parent
	}
	if top.retFlag == nil {
		return
	}
	out, go_ := x.block(), x.block()
	flag := x.load(slotMem(top.retFlag), 8, false)
	x.branch(ir.Ne, flag, ir.Imm(0), out, go_)
	x.at(out)
	switch {
	case !x.f.Entry:
		x.ret(ir.Imm(1))
	case x.u.Pass() != ir.Imm(0):
		x.ret(x.bin(ir.Shr, flag, ir.Imm(1)))
	default:
		x.ret(ir.Imm(0))
	}
	x.at(go_)
}

func (x *fn) funcPtr(f *ir.Func) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.FuncPtr, Dst: d, Callee: f})
	return ir.R(d)
}

func (x *fn) frame() ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.Frame, Dst: d})
	return ir.R(d)
}

// lacks says if the kernel is known not to have a helper.
func (x *fn) lacks(fn int32) bool { return x.b.opts.Lacks != nil && x.b.opts.Lacks(fn) }

// loop calls f n times (bpf_loop, Linux 5.17), or says that this kernel cannot.
func (x *fn) loop(at syntax.Span, n ir.Val, f *ir.Func) {
	if x.lacks(ir.FnLoop) {
		x.b.diags = append(x.b.diags, syntax.Diag{Span: at, Msg: "this kernel has no bpf_loop, which loops are made of",
			Hint: "unroll(N) { … } repeats a known number of times without; `fathom doctor` tells what this kernel has"})
	}
	x.call(ir.FnLoop, n, x.funcPtr(f), x.frame(), ir.Imm(0))
}

// while becomes bpf_loop with a body that breaks when the condition is false: the verifier looks at it once.
func (x *fn) while(s *syntax.While) {
	c := x.callback(2)
	body, done := c.block(), c.block()
	c.cond(s.Cond, body, done)
	c.at(done)
	c.ret(ir.Imm(1))
	c.at(body)
	c.stmts(s.Body.Stmts)
	c.endCallback()
	x.loop(s.Span, ir.Imm(maxLoops), c.f)
	x.afterLoop()
}

func (x *fn) forStmt(s *syntax.For) {
	if m, ok := s.Over.(*syntax.MapRef); ok {
		x.forMap(s, m)
		return
	}
	if r, ok := s.Over.(*syntax.Range); ok {
		x.forRange(s, r)
	}
}

// forRange is for ($i : lo..hi).
func (x *fn) forRange(s *syntax.For, r *syntax.Range) {
	v := x.in.Vars[s.Var]
	t := types.Int64
	if v != nil {
		t = v.Type
	}
	lo := x.valAs(r.Lo, types.Int64)
	hi := x.valAs(r.Hi, types.Int64)
	start := x.u.NewSlot("start", 8)
	start.Shared = true
	x.store(slotMem(start), 8, lo)
	// No loop of 0 rounds: where the verifier knows that number, it drops the body and then misses it.
	some, end := x.block(), x.block()
	x.branch(ir.SLt, lo, x.regVal(hi), some, end)
	x.at(some)
	n := x.bin(ir.Sub, hi, lo)

	c := x.callback(2)
	// The helper counts in 32 bits; what it passes is known to be below the number of iterations.
	i := c.bin(ir.Add, c.load(slotMem(start), 8, true), ir.R(c.f.Params[0]))
	if v != nil {
		c.setVar(v, c.ext(i, t.Size, t.Signed))
	}
	c.stmts(s.Body.Stmts)
	c.endCallback()
	x.loop(s.Span, n, c.f)
	x.afterLoop()
	x.jump(end)
	x.at(end)
}

func (x *fn) regVal(v ir.Val) ir.Val {
	if v.IsImm() {
		return x.wide(v.Imm)
	}
	return v
}

// forMap is for ($kv : @map): bpf_for_each_map_elem calls back with map, key, value, frame.
func (x *fn) forMap(s *syntax.For, ref *syntax.MapRef) {
	m := x.b.maps[ref.Name]
	v := x.in.Vars[s.Var]
	if m == nil || v == nil {
		return
	}
	c := x.callback(4)
	key, val := mem{base: c.f.Params[1]}, mem{base: c.f.Params[2]}
	st := c.place(v)
	t := v.Type
	if st.slot == nil {
		st.slot = x.u.NewSlot(v.Name, max(8, t.Size))
		x.vars[v] = st
	}
	dst := slotMem(st.slot)
	c.zeroGaps(dst, t)
	if len(t.Fields) == 2 {
		c.put(dst.at(t.Fields[0].Off), t.Fields[0].Type, inMem(m.Key, key))
		el := inMem(m.Value, val)
		if m.Kind.PerCPU() && m.Value.CastableAgg() {
			el = c.sumElem(m, key)
		}
		c.put(dst.at(t.Fields[1].Off), t.Fields[1].Type, el)
	}
	c.stmts(s.Body.Stmts)
	c.endCallback()
	x.call(ir.FnForEachMapElem, x.mapPtr(m), x.funcPtr(c.f), x.frame(), ir.Imm(0))
	x.afterLoop()
}
