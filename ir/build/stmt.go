package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

func (x *fn) stmts(ss []syntax.Stmt) {
	for _, s := range ss {
		if sp := s.Where(); sp.Src != nil {
			x.span = sp
		}
		mark := len(x.tmp)
		x.stmt(s)
		x.endStmt(mark)
	}
}

// onlyPID leaves out runs for other processes than the one asked for, where the event is everybody's.
func (x *fn) onlyPID() {
	switch x.in.Provider.Name {
	case "kprobe", "kretprobe", "fentry", "fexit", "tracepoint", "rawtracepoint":
	default:
		return
	}
	if x.b.opts.PID == 0 {
		return
	}
	yes, no := x.block(), x.block()
	mark := len(x.tmp)
	x.branch(ir.Eq, x.bin(ir.Shr, x.pidTgid(), ir.Imm(32)), ir.Imm(int64(x.b.opts.PID)), yes, no)
	x.at(no)
	x.count(ir.Filtered)
	x.ret(x.u.Pass())
	x.at(yes)
	x.endStmt(mark)
}

func (x *fn) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.ExprStmt:
		x.effect(s.X)
	case *syntax.Assign:
		x.assign(s)
	case *syntax.Let:
		x.let(s)
	case *syntax.If:
		x.ifStmt(s)
	case *syntax.Block:
		x.stmts(s.Stmts)
	case *syntax.Unroll:
		x.unroll(s)
	case *syntax.While:
		x.while(s)
	case *syntax.For:
		x.forStmt(s)
	case *syntax.Jump:
		x.jumpStmt(s)
	}
}

func (x *fn) ifStmt(s *syntax.If) {
	if c, ok := x.in.Consts[s.Cond]; ok && !c.IsStr {
		if c.Int != 0 {
			x.stmts(s.Then.Stmts)
		} else if s.Else != nil {
			x.stmts([]syntax.Stmt{s.Else})
		}
		return
	}
	yes, no, end := x.block(), x.block(), x.block()
	x.cond(s.Cond, yes, no)
	x.at(yes)
	x.stmts(s.Then.Stmts)
	x.jump(end)
	x.at(no)
	if s.Else != nil {
		x.stmts([]syntax.Stmt{s.Else})
	}
	x.jump(end)
	x.at(end)
}

func (x *fn) unroll(s *syntax.Unroll) {
	n := x.in.Consts[s.N].Int
	if l, ok := s.N.(*syntax.IntLit); ok {
		n = int64(l.Value)
	}
	end := x.block()
	for range n {
		next := x.block()
		x.loops = append(x.loops, loop{brk: end, cont: next})
		x.stmts(s.Body.Stmts)
		x.loops = x.loops[:len(x.loops)-1]
		x.jump(next)
		x.at(next)
	}
	x.jump(end)
	x.at(end)
}

func (x *fn) jumpStmt(s *syntax.Jump) {
	switch s.Tok {
	case "return":
		x.returnStmt(s)
	case "break", "continue":
		if len(x.loops) == 0 {
			return
		}
		l := x.loops[len(x.loops)-1]
		switch {
		case l.callback && s.Tok == "break":
			x.ret(ir.Imm(1))
		case l.callback:
			x.ret(ir.Imm(0))
		case s.Tok == "break":
			x.jump(l.brk)
		default:
			x.jump(l.cont)
		}
	}
}

func (x *fn) returnStmt(s *syntax.Jump) {
	v := x.u.Pass()
	if s.Value != nil {
		v = x.val(s.Value)
	}
	if x.f.Entry {
		x.ret(v)
		return
	}
	flag := ir.Imm(1)
	if x.u.Pass() != ir.Imm(0) {
		flag = x.bin(ir.Or, x.bin(ir.Shl, v, flag), flag)
	}
	x.store(slotMem(x.returned()), 8, flag)
	x.ret(ir.Imm(1))
}

// returned is the flag by which callbacks end the whole program: 1, and above that bit the program's result where others
// have its event, too. Elsewhere the kernel wants a constant.
func (x *fn) returned() *ir.Slot {
	top := x
	for top.parent != nil {
		top = top.parent
	}
	if top.retFlag == nil {
		top.retFlag = top.u.NewSlot("returned", 8)
		top.retFlag.Shared, top.retFlag.Big = true, true
		first := top.f.Blocks[0]
		first.Ins = append([]ir.Ins{{Op: ir.Store, Size: 8, Slot: top.retFlag}}, first.Ins...)
	}
	return top.retFlag
}

// place gives a variable its storage when it is first met.
func (x *fn) place(v *check.Var) storage {
	if st, ok := x.vars[v]; ok && (st.f == x.f || x.captured[v]) {
		return st
	}
	st := storage{f: x.f}
	t := v.Type
	if t == nil {
		t = types.Int64
	}
	if t.IsScalar() && !x.captured[v] {
		st.reg = x.f.NewReg()
	} else {
		st.slot = x.u.NewSlot(v.Name, max(8, t.Size))
		// In map memory the verifier does not follow values: a counter on the stack would have it walk every iteration.
		st.slot.Shared, st.slot.Big = x.captured[v], x.captured[v]
	}
	x.vars[v] = st
	return st
}

// variable reads a scratch variable.
func (x *fn) variable(e *syntax.Var) value {
	v := x.in.Vars[e]
	if v == nil {
		return scalarOf(types.Int64, ir.Imm(0))
	}
	st := x.place(v)
	if st.slot != nil {
		if v.Type.IsScalar() {
			return scalarOf(v.Type, x.load(slotMem(st.slot), 8, false))
		}
		return inMem(v.Type, slotMem(st.slot))
	}
	d := x.f.NewReg() // a copy: the variable may change before the value is used
	x.mov(d, ir.R(st.reg))
	return scalarOf(v.Type, ir.R(d))
}

func (x *fn) setVar(v *check.Var, val ir.Val) {
	st := x.place(v)
	if st.slot != nil {
		x.store(slotMem(st.slot), 8, val)
		return
	}
	x.mov(st.reg, val)
}

func (x *fn) let(s *syntax.Let) {
	v := x.in.Vars[s.Var]
	if v == nil {
		return
	}
	if s.Init != nil {
		x.assignVar(v, s.Init)
		return
	}
	if v.Type.IsScalar() {
		x.setVar(v, ir.Imm(0))
		return
	}
	x.zero(slotMem(x.place(v).slot), v.Type.Size)
}

func (x *fn) assignVar(v *check.Var, e syntax.Expr) {
	if v.Type.IsScalar() {
		x.setVar(v, x.valAs(e, v.Type))
		return
	}
	// Through a temporary where the value may be made of the variable itself.
	dst := slotMem(x.place(v).slot)
	val := x.expr(e)
	x.put(dst, v.Type, val)
}

func (x *fn) assign(s *syntax.Assign) {
	switch l := s.LHS.(type) {
	case *syntax.Discard:
		x.effect(s.RHS)
	case *syntax.Var:
		v := x.in.Vars[l]
		if v == nil {
			return
		}
		if s.Op == syntax.ASSIGN {
			x.assignVar(v, s.RHS)
			return
		}
		cur := x.variable(l)
		r := x.expr(s.RHS)
		n := x.arith(s.Op, v.Type, v.Type, r.t, cur.v, x.scalarVal(r))
		x.setVar(v, n)
	case *syntax.MapRef:
		x.assignMap(l, s.Op, s.RHS)
	case *syntax.Field:
		x.b.errorf(s.Span, "fields of kernel objects cannot be assigned")
	}
}

// into evaluates e and stores it at dst as a t.
func (x *fn) into(dst mem, t *types.Type, e syntax.Expr) {
	if s, ok := x.literalOf(e); ok && t.Kind == types.String {
		if len(s) > t.Size {
			s = s[:t.Size]
		}
		x.storeLiteral(dst, s, t.Size)
		return
	}
	switch e := e.(type) {
	case *syntax.Call:
		if x.callInto(dst, t, e) {
			return
		}
	case *syntax.Ident:
		if e.Name == "comm" && t.Kind == types.String && t.Size >= commLen {
			x.commInto(dst, t.Size)
			return
		}
	}
	loose := x.loose
	x.loose = false
	v := x.expr(e)
	x.loose = loose
	x.put(dst, t, v)
	x.loose = false
}

// incDec is ++ and --, before or after.
func (x *fn) incDec(e *syntax.Unary) value {
	t := x.typeOf(e)
	op := ir.Add
	if e.Op == syntax.DEC {
		op = ir.Sub
	}
	switch l := e.X.(type) {
	case *syntax.Var:
		v := x.in.Vars[l]
		step := int64(1)
		if v.Type.Kind == types.Ptr {
			step = int64(elemSize(v.Type))
		}
		old := x.variable(l)
		n := x.bin(op, old.v, ir.Imm(step))
		if v.Type.IsInt() {
			n = x.ext(n, v.Type.Size, v.Type.Signed)
		}
		x.setVar(v, n)
		if e.Postfix {
			return old
		}
		return scalarOf(v.Type, n)
	case *syntax.MapRef:
		return x.incMap(l, op, e.Postfix, t)
	}
	return x.expr(e.X)
}
