package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// strConcat joins two strings; what does not fit is cut.
func strConcat(x *fn, c *syntax.Call, t *types.Type) value {
	a, b := x.asString(x.expr(c.Args[0])), x.asString(x.expr(c.Args[1]))
	// Twice the room: the verifier adds the greatest length of the one to that of the other.
	m := slotMem(x.temp(2 * t.Size))
	x.zero(m, t.Size)
	x.copyMem(m, a.m, min(t.Size, a.t.Size))
	n := x.clamp(x.strlen(inMem(types.StringT(min(t.Size, a.t.Size)), m)), int64(t.Size))
	dst := x.bin(ir.Add, x.addr(m), n)
	rc := x.call(ir.FnProbeReadKernelStr, dst, ir.Imm(int64(min(t.Size, b.t.Size))), x.addr(b.m))
	x.failed(rc, "probe_read_kernel_str")
	x.store(m.at(t.Size-1), 1, ir.Imm(0))
	return inMem(t, m)
}

// memcmp gives the difference of the first bytes that differ.
func memcmp(x *fn, c *syntax.Call, t *types.Type) value {
	limit := int64(x.b.info.Config.MaxStrlen)
	if n, ok := x.in.Consts[c.Args[2]]; ok {
		limit = max(1, n.Int)
	} else if l, ok := c.Args[2].(*syntax.IntLit); ok {
		limit = max(1, int64(l.Value))
	}
	n := x.regVal(x.clamp(x.val(c.Args[2]), limit))
	a, b := x.addr(x.bytes(c.Args[0], limit)), x.addr(x.bytes(c.Args[1], limit))
	i, d := x.f.NewReg(), x.f.NewReg()
	head, body, in, next, end := x.block(), x.block(), x.block(), x.block(), x.block()
	x.mov(i, ir.Imm(0))
	x.mov(d, ir.Imm(0))
	x.jump(head)
	x.at(head)
	x.branch(ir.Lt, ir.R(i), ir.Imm(limit), in, end)
	x.at(in)
	x.branch(ir.Lt, ir.R(i), n, body, end)
	x.at(body)
	ca := x.load(mem{base: x.bin(ir.Add, a, ir.R(i)).R}, 1, false)
	cb := x.load(mem{base: x.bin(ir.Add, b, ir.R(i)).R}, 1, false)
	x.mov(d, x.bin(ir.Sub, ca, cb))
	x.branch(ir.Ne, ca, cb, end, next)
	x.at(next)
	x.add(ir.Ins{Op: ir.Bin, Alu: ir.Add, Dst: i, A: ir.R(i), B: ir.Imm(1)})
	x.jump(head)
	x.at(end)
	return scalarOf(t, ir.R(d))
}

// bytes gives n bytes of an object, or of what a pointer points at; what the object lacks is zero.
func (x *fn) bytes(e syntax.Expr, n int64) mem {
	v := x.expr(e)
	if v.form == direct && int64(v.t.Size) >= n {
		return v.m
	}
	m := slotMem(x.temp(int(n)))
	switch {
	case v.form == direct:
		x.copyMem(m, v.m, v.t.Size)
		x.zero(m.at(v.t.Size), int(n)-v.t.Size)
	case v.form == ref:
		x.read(m, int(n), v.v, v.space)
	case v.t.Kind == types.Ptr:
		x.read(m, int(n), x.scalarVal(v), x.space(v.t.Space))
	default:
		x.zero(m, int(n))
		x.store(m, int(min(n, 8)), x.scalarVal(v))
	}
	return m
}

// perCPUKaddr adds a CPU's offset, which the kernel keeps in __per_cpu_offset, to a symbol of its per-CPU section. A CPU
// that does not exist has no such symbol: 0.
func perCPUKaddr(x *fn, c *syntax.Call, t *types.Type) value {
	name, _ := x.literalOf(c.Args[0])
	sym, ok := x.kaddr(name)
	offsets, has := x.kaddr("__per_cpu_offset")
	if !ok || !has {
		x.b.errorf(c.Span, "percpu_kaddr() needs the addresses of __per_cpu_offset and %s, which cannot be read here", name)
		return scalarOf(t, ir.Imm(0))
	}
	cpu := ir.Val{}
	if len(c.Args) > 1 {
		cpu = x.regVal(x.val(c.Args[1]))
	} else {
		cpu = x.call(ir.FnSmpProcessorID)
	}
	d := x.f.NewReg()
	in, end := x.block(), x.block()
	x.mov(d, ir.Imm(0))
	x.branch(ir.Lt, cpu, ir.Imm(int64(x.b.opts.NumCPU)), in, end)
	x.at(in)
	m := slotMem(x.temp(8))
	at := x.bin(ir.Add, x.wide(int64(offsets)), x.bin(ir.Mul, cpu, ir.Imm(8)))
	x.read(m, 8, at, types.Kernel)
	x.mov(d, x.bin(ir.Add, x.load(m, 8, false), x.wide(int64(sym))))
	x.jump(end)
	x.at(end)
	return scalarOf(t, ir.R(d))
}

func (x *fn) kaddr(name string) (uint64, bool) {
	if x.b.opts.Kaddr == nil {
		return 0, false
	}
	return x.b.opts.Kaddr(name)
}
