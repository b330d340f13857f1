package build

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// literal puts a string constant in a slot.
func (x *fn) literal(s string) value {
	t := types.StringT(len(s) + 1)
	m := slotMem(x.temp(t.Size))
	x.storeLiteral(m, s, t.Size)
	return inMem(t, m)
}

// storeLiteral writes s and zeroes up to size bytes; a string that fills size has no NUL.
func (x *fn) storeLiteral(m mem, s string, size int) {
	b := make([]byte, size)
	copy(b, s)
	for off := 0; off < size; {
		w := word(size-off, int(m.off)+off)
		var v [8]byte
		copy(v[:], b[off:off+w])
		x.store(m.at(off), w, ir.Imm(int64(binary.LittleEndian.Uint64(v[:]))))
		off += w
	}
}

// literalOf gives the constant an expression is, if it is one.
func (x *fn) literalOf(e syntax.Expr) (string, bool) {
	if c, ok := x.in.Consts[e]; ok && c.IsStr {
		return c.Str, true
	}
	if s, ok := e.(*syntax.StrLit); ok {
		return s.Value, true
	}
	return "", false
}

// putString stores a string in t.Size bytes: what does not fit is cut, what is left is zero, or as it was if x is loose.
func (x *fn) putString(dst mem, t *types.Type, v value) {
	loose := x.loose
	x.loose = false
	switch {
	case v.form == ref:
		if !loose { // a read that fails clears all
			x.zero(dst, t.Size)
		}
		n := t.Size
		if v.t.Kind == types.String && v.t.Size > 0 {
			n = min(n, v.t.Size)
		}
		x.readStr(dst, ir.Imm(int64(n)), v.v, v.space)
	case v.form == direct:
		n := min(t.Size, v.t.Size)
		x.copyMem(dst, v.m, n)
		if rest := t.Size - n; loose {
			x.zero(dst.at(n), min(1, rest))
		} else {
			x.zero(dst.at(n), rest)
		}
	default:
		x.zero(dst, t.Size)
	}
}

// readStr copies a NUL-terminated string of at most n bytes; it gives the length with NUL, or 0 where it cannot be read.
func (x *fn) readStr(dst mem, n ir.Val, addr ir.Val, s types.Space) ir.Val {
	rc := x.call(readStrHelper(s), x.addr(dst), n, addr)
	x.failed(rc, map[bool]string{true: "probe_read_user_str", false: "probe_read_kernel_str"}[s == types.User])
	return rc
}

// asString gives a value as a string in BPF memory.
func (x *fn) asString(v value) value {
	if v.form == direct {
		return v
	}
	m := slotMem(x.temp(v.t.Size))
	x.putString(m, v.t, v)
	return inMem(v.t, m)
}

// compareStrings compares for equality, up to and with the NUL.
func (x *fn) compareStrings(e *syntax.Binary, a value, c ir.Cond, yes, no *ir.Block) {
	if c == ir.Ne {
		yes, no = no, yes
	}
	if s, ok := x.literalOf(e.Y); ok {
		x.equalLiteral(x.asString(a), s, yes, no)
		return
	}
	b := x.asString(x.expr(e.Y))
	if s, ok := x.literalOf(e.X); ok {
		x.equalLiteral(b, s, yes, no)
		return
	}
	x.equalStrings(x.asString(a), b, yes, no)
}

// equalLiteral compares with a constant by words.
func (x *fn) equalLiteral(v value, s string, yes, no *ir.Block) {
	b := append([]byte(s), 0)
	if len(b) > v.t.Size {
		if len(s) > v.t.Size {
			x.jump(no)
			return
		}
		b = b[:v.t.Size]
	}
	for off := 0; off < len(b); {
		w := word(len(b)-off, int(v.m.off)+off)
		var want [8]byte
		copy(want[:], b[off:off+w])
		next := x.block()
		x.branch(ir.Eq, x.load(v.m.at(off), w, false), x.wide(int64(binary.LittleEndian.Uint64(want[:]))), next, no)
		x.at(next)
		off += w
	}
	x.jump(yes)
}

// wide gives a constant as an operand: what does not fit an instruction goes through a register.
func (x *fn) wide(n int64) ir.Val {
	if n == int64(int32(n)) {
		return ir.Imm(n)
	}
	return ir.R(x.reg(ir.Imm(n)))
}

// equalStrings walks both strings in a loop the verifier can bound.
func (x *fn) equalStrings(a, b value, yes, no *ir.Block) {
	n := min(a.t.Size, b.t.Size)
	pa, pb, i := x.addr(a.m), x.addr(b.m), x.f.NewReg()
	head, body, same, next := x.block(), x.block(), x.block(), x.block()
	x.mov(i, ir.Imm(0))
	x.jump(head)
	x.at(head)
	x.branch(ir.Lt, ir.R(i), ir.Imm(int64(n)), body, yes)
	x.at(body)
	ca := x.load(mem{base: x.bin(ir.Add, pa, ir.R(i)).R}, 1, false)
	cb := x.load(mem{base: x.bin(ir.Add, pb, ir.R(i)).R}, 1, false)
	x.branch(ir.Eq, ca, cb, same, no)
	x.at(same)
	x.branch(ir.Eq, ca, ir.Imm(0), yes, next)
	x.at(next)
	x.add(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: i, A: ir.R(i), B: ir.Imm(1)})
	x.jump(head)
}
