package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// strncmp gives 0 if the first n bytes are equal, else 1.
func strncmp(x *fn, c *syntax.Call, t *types.Type) value {
	n := int(x.in.Consts[c.Args[2]].Int)
	if l, ok := c.Args[2].(*syntax.IntLit); ok {
		n = int(l.Value)
	}
	eq, ne := x.block(), x.block()
	v := x.boolValue(func() {
		a, b := x.asString(x.expr(c.Args[0])), x.asString(x.expr(c.Args[1]))
		if s, ok := x.literalOf(c.Args[1]); ok && len(s) >= n {
			x.prefix(a, s[:n], eq, ne)
			return
		}
		if s, ok := x.literalOf(c.Args[0]); ok && len(s) >= n {
			x.prefix(b, s[:n], eq, ne)
			return
		}
		a.t, b.t = types.StringT(min(n, a.t.Size)), types.StringT(min(n, b.t.Size))
		x.equalStrings(a, b, eq, ne)
	}, ne, eq)
	v.t = t
	return v
}

// prefix compares exactly len(s) bytes.
func (x *fn) prefix(v value, s string, yes, no *ir.Block) {
	if len(s) > v.t.Size {
		x.jump(no)
		return
	}
	lit := x.literal(s)
	x.compareBytes(v.m, lit.m, len(s), ir.Eq, yes, no)
}

// strlen counts the bytes before the NUL.
func strlen(x *fn, c *syntax.Call, t *types.Type) value {
	return scalarOf(t, x.strlen(x.asString(x.expr(c.Args[0]))))
}

// loopText is the length up to which strings are walked by a loop. Of longer ones the verifier would walk each length, and
// what follows for each.
const loopText = 64

func (x *fn) strlen(v value) ir.Val {
	if v.t.Size > loopText {
		return x.measure(v)
	}
	p, i := x.addr(v.m), x.f.NewReg()
	head, body, next, end := x.block(), x.block(), x.block(), x.block()
	x.mov(i, ir.Imm(0))
	x.jump(head)
	x.at(head)
	x.branch(ir.Lt, ir.R(i), ir.Imm(int64(v.t.Size)), body, end)
	x.at(body)
	ch := x.load(mem{base: x.bin(ir.Add, p, ir.R(i)).R}, 1, false)
	x.branch(ir.Eq, ch, ir.Imm(0), end, next)
	x.at(next)
	x.add(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: i, A: ir.R(i), B: ir.Imm(1)})
	x.jump(head)
	x.at(end)
	return ir.R(i)
}

// measure has the kernel copy the string: that gives its length with the NUL, also where it put one in place of the last
// byte of a string without.
func (x *fn) measure(v value) ir.Val {
	n, size := x.f.NewReg(), int64(v.t.Size)
	x.mov(n, x.bin(ir.Sub, x.call(ir.FnProbeReadKernelStr, x.addr(slotMem(x.temp(v.t.Size))), ir.Imm(size), x.addr(v.m)), ir.Imm(1)))
	full, whole, end := x.block(), x.block(), x.block()
	x.branch(ir.Eq, ir.R(n), ir.Imm(size-1), full, end)
	x.at(full)
	x.branch(ir.Ne, x.load(v.m.at(v.t.Size-1), 1, false), ir.Imm(0), whole, end)
	x.at(whole)
	x.mov(n, ir.Imm(size))
	x.jump(end)
	x.at(end)
	return ir.R(n)
}

// strcontains says if a string is in another.
func strcontains(x *fn, c *syntax.Call, t *types.Type) value {
	yes, no := x.block(), x.block()
	at := x.position(c)
	return x.boolValue(func() { x.branch(ir.Ne, at, ir.Imm(0), yes, no) }, yes, no)
}

// strstr gives where a string is in another, -1 if it is not.
func strstr(x *fn, c *syntax.Call, t *types.Type) value {
	return scalarOf(t, x.bin(ir.Sub, x.position(c), ir.Imm(1)))
}

// position looks for a string in another: bpf_loop tries each start. It gives 1 for the first, 0 for none.
func (x *fn) position(c *syntax.Call) ir.Val {
	hay, needle := x.expr(c.Args[0]), x.expr(c.Args[1])
	h, n := x.shared(hay), x.shared(needle)
	found := x.u.NewSlot("found", 8)
	found.Shared, found.Big = true, true
	x.store(slotMem(found), 8, ir.Imm(0))
	cb := x.callback(2)
	i := ir.R(cb.f.Params[0])
	if s, ok := x.literalOf(c.Args[1]); !ok || s != "" { // an empty string is in every string
		inside, past := cb.block(), cb.block()
		at := cb.bin(ir.Add, cb.addr(slotMem(h)), cb.below(i, int64(hay.t.Size)))
		cb.branch(ir.Ne, cb.load(mem{base: at.R}, 1, false), ir.Imm(0), inside, past)
		cb.at(past)
		cb.ret(ir.Imm(1)) // the string ends here
		cb.at(inside)
	}
	match, miss := cb.block(), cb.block()
	cb.matchAt(inMem(hay.t, slotMem(h)), inMem(needle.t, slotMem(n)), i, match, miss)
	cb.at(match)
	cb.store(slotMem(found), 8, cb.bin(ir.Add, i, ir.Imm(1)))
	cb.ret(ir.Imm(1))
	cb.at(miss)
	cb.endCallback()
	x.loop(c.Span, ir.Imm(int64(hay.t.Size)), cb.f)
	return x.load(slotMem(found), 8, false)
}

// below ends a callback whose index is not below n, so that the verifier knows it is.
func (x *fn) below(i ir.Val, n int64) ir.Val {
	in, out := x.block(), x.block()
	x.branch(ir.Lt, i, ir.Imm(n), in, out)
	x.at(out)
	x.ret(ir.Imm(1))
	x.at(in)
	return i
}

// shared copies a string where callbacks reach it.
func (x *fn) shared(v value) *ir.Slot {
	s := x.u.NewSlot("string", max(8, v.t.Size))
	s.Shared = true
	x.put(slotMem(s), v.t, v)
	return s
}

// matchAt compares needle with hay from i on.
func (x *fn) matchAt(hay, needle value, i ir.Val, yes, no *ir.Block) {
	j, at := x.f.NewReg(), x.f.NewReg()
	ph, pn := x.addr(hay.m), x.addr(needle.m)
	head, body, more, in, same, next := x.block(), x.block(), x.block(), x.block(), x.block(), x.block()
	x.mov(j, ir.Imm(0))
	x.jump(head)
	x.at(head)
	x.branch(ir.Lt, ir.R(j), ir.Imm(int64(needle.t.Size)), body, yes)
	x.at(body)
	nc := x.load(mem{base: x.bin(ir.Add, pn, ir.R(j)).R}, 1, false)
	x.branch(ir.Eq, nc, ir.Imm(0), yes, more)
	x.at(more)
	x.mov(at, x.bin(ir.Add, i, ir.R(j)))
	x.branch(ir.Lt, ir.R(at), ir.Imm(int64(hay.t.Size)), in, no)
	x.at(in)
	hc := x.load(mem{base: x.bin(ir.Add, ph, ir.R(at)).R}, 1, false)
	x.branch(ir.Eq, hc, nc, same, no)
	x.at(same)
	x.jump(next)
	x.at(next)
	x.add(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: j, A: ir.R(j), B: ir.Imm(1)})
	x.jump(head)
}
