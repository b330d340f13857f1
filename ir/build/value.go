package build

import (
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// form says how a value is held.
type form uint8

const (
	scalar form = iota // in a register or constant: v
	direct             // bytes the program may access: m
	ref                // bytes at address v in space, to be read when wanted
)

// value is what an expression gives.
type value struct {
	t     *types.Type
	form  form
	v     ir.Val
	m     mem
	space types.Space
	// bit is set for a bitfield of a ref or direct value: its bits within the t.Size bytes.
	bitOff, bitSize int
}

func scalarOf(t *types.Type, v ir.Val) value { return value{t: t, v: v} }

func inMem(t *types.Type, m mem) value { return value{t: t, form: direct, m: m} }

func refTo(t *types.Type, addr ir.Val, s types.Space) value {
	return value{t: t, form: ref, v: addr, space: s}
}

// readHelper gives the helper that reads memory of a space.
func readHelper(s types.Space) int32 {
	if s == types.User {
		return ir.FnProbeReadUser
	}
	return ir.FnProbeReadKernel
}

func readStrHelper(s types.Space) int32 {
	if s == types.User {
		return ir.FnProbeReadUserStr
	}
	return ir.FnProbeReadKernelStr
}

// read copies n bytes at addr in space to dst. What cannot be read is zero, and counted.
func (x *fn) read(dst mem, n int, addr ir.Val, s types.Space) {
	if n == 0 {
		return
	}
	rc := x.call(readHelper(s), x.addr(dst), ir.Imm(int64(n)), addr)
	x.failed(rc, map[bool]string{true: "probe_read_user", false: "probe_read_kernel"}[s == types.User])
}

// failed counts a failed helper, and reports it with -k.
func (x *fn) failed(rc ir.Val, helper string) {
	bad, end := x.block(), x.block()
	x.branch(ir.SLt, rc, ir.Imm(0), bad, end)
	x.at(bad)
	x.count(ir.ReadFail)
	if x.b.opts.Failures {
		x.failure(rc, helper)
	}
	x.jump(end)
	x.at(end)
}

func (x *fn) failure(rc ir.Val, helper string) {
	id := x.b.event(&ir.Event{Kind: ir.EvFail, Text: helper, Span: x.span, Payload: types.TupleOf(types.Int64)})
	x.send(id, []value{scalarOf(types.Int64, rc)})
}

// scalarVal gives v in a register, reading it where it is.
func (x *fn) scalarVal(v value) ir.Val {
	switch v.form {
	case scalar:
		return v.v
	case direct:
		if v.t.CastableAgg() {
			return x.aggInt(v)
		}
		return x.bits(x.load(v.m, size8(v.t.Size), v.t.Signed && v.bitSize == 0), v)
	}
	n := size8(v.t.Size)
	tmp := x.temp(8)
	x.read(slotMem(tmp), n, v.v, v.space)
	return x.bits(x.load(slotMem(tmp), n, v.t.Signed && v.bitSize == 0), v)
}

func size8(n int) int {
	switch {
	case n >= 8:
		return 8
	case n >= 4:
		return 4
	case n >= 2:
		return 2
	}
	return 1
}

// bits cuts a bitfield out of its unit.
func (x *fn) bits(u ir.Val, v value) ir.Val {
	if v.bitSize == 0 {
		return u
	}
	u = x.bin(ir.Shl, u, ir.Imm(int64(64-v.bitOff-v.bitSize)))
	op := ir.Shr
	if v.t.Signed {
		op = ir.Sar
	}
	return x.bin(op, u, ir.Imm(int64(64-v.bitSize)))
}

// convert gives scalar v of type from as type to.
func (x *fn) convert(v ir.Val, from, to *types.Type) ir.Val {
	if to.Kind == types.Bool && from.Kind != types.Bool {
		return x.truth(v)
	}
	if !to.IsInt() || to.Size >= 8 || from.IsInt() && (to.Size > from.Size || to.Size == from.Size && to.Signed == from.Signed) &&
		(from.Signed == to.Signed || !from.Signed) {
		return v
	}
	return x.ext(v, to.Size, to.Signed)
}

// truth gives 1 if v is not 0, else 0.
func (x *fn) truth(v ir.Val) ir.Val {
	if v.IsImm() {
		if v.Imm != 0 {
			return ir.Imm(1)
		}
		return v
	}
	d := x.f.NewReg()
	yes, end := x.block(), x.block()
	x.mov(d, ir.Imm(0))
	x.branch(ir.Ne, v, ir.Imm(0), yes, end)
	x.at(yes)
	x.mov(d, ir.Imm(1))
	x.jump(end)
	x.at(end)
	return ir.R(d)
}

// toMem gives v as directly accessible bytes.
func (x *fn) toMem(v value) mem {
	if v.form == direct && v.bitSize == 0 {
		return v.m
	}
	s := slotMem(x.temp(max(8, v.t.Size)))
	x.put(s, v.t, v)
	return s
}

// put stores v at dst as a value of type t: all t.Size bytes are written.
func (x *fn) put(dst mem, t *types.Type, v value) {
	switch {
	case t.Kind == types.String:
		x.putString(dst, t, v)
	case t.Kind == types.Tuple, t.Kind == types.Record:
		x.putTuple(dst, t, v)
	case t.IsScalar() && v.form == ref && v.bitSize == 0 && v.t.IsScalar() && t.Kind != types.Bool && t.Size == v.t.Size && t.Size == size8(t.Size):
		x.read(dst, t.Size, v.v, v.space)
	case t.IsScalar():
		x.store(dst, max(1, size8(t.Size)), x.convert(x.scalarVal(v), v.t, t))
	case v.form == direct:
		n := min(t.Size, v.t.Size)
		x.copyMem(dst, v.m, n)
		x.zero(dst.at(n), t.Size-n)
	case v.form == ref:
		x.read(dst, t.Size, v.v, v.space)
	case t.Kind == types.Array: // an integer as an array of its bytes
		n := size8(t.Size)
		x.store(dst, n, v.v)
		x.zero(dst.at(n), t.Size-n)
	default:
		x.store(dst, min(8, size8(t.Size)), v.v)
		x.zero(dst.at(8), t.Size-8)
	}
}

// putTuple stores element by element, as the two may be laid out differently.
func (x *fn) putTuple(dst mem, t *types.Type, v value) {
	if v.form == ref {
		s := slotMem(x.temp(v.t.Size))
		x.read(s, v.t.Size, v.v, v.space)
		v = inMem(v.t, s)
	}
	if v.form != direct || len(v.t.Fields) != len(t.Fields) {
		return
	}
	if types.Equal(t, v.t) {
		x.copyMem(dst, v.m, t.Size)
		return
	}
	x.zeroGaps(dst, t)
	for i, f := range t.Fields {
		from := v.t.Fields[i]
		if t.Kind == types.Record { // records match by name
			if g, ok := v.t.Field(f.Name); ok {
				from = g
			}
		}
		x.put(dst.at(f.Off), f.Type, inMem(from.Type, v.m.at(from.Off)))
	}
}

// member gives a member of a struct value.
func (x *fn) member(v value, m ctype.Member) value {
	t := types.FromC(m.Type, v.space)
	off := m.BitOff / 8
	out := v
	out.t, out.bitOff, out.bitSize = t, 0, 0
	if m.BitSize > 0 { // the smallest unit of the declared size that holds the field
		unit := 8 * t.Size
		start := m.BitOff / unit * unit
		if m.BitOff+m.BitSize > start+unit { // packed: starts at its byte
			start = m.BitOff &^ 7
		}
		off, out.bitOff, out.bitSize = start/8, m.BitOff-start, m.BitSize
	}
	if v.form == direct {
		out.m = v.m.at(off)
		return out
	}
	out.v = x.bin(ir.Add, v.v, ir.Imm(int64(off)))
	return out
}
