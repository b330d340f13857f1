package build

import (
	"github.com/fathom-trace/fathom/debuginfo/usdt"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// usdtArg reads an argument of a statically defined probe from where its note says. All targets of an instance that asks
// for arguments have the same operands.
func (x *fn) usdtArg(n int, at syntax.Span, t *types.Type) value {
	none := scalarOf(t, ir.Imm(0))
	if len(x.in.Targets) == 0 {
		return none
	}
	target := x.in.Targets[0]
	args, err := usdt.ParseArgs(target.USDT, x.b.opts.Arch)
	switch {
	case n < len(args) && args[n].Float:
		x.b.errorf(at, "arg%d of %s is a floating-point number, which programs in the kernel cannot read", n, target.Name)
		return none
	case n < len(args):
		return scalarOf(t, x.operand(args[n]))
	case err != nil:
		x.b.errorf(at, "arg%d of %s cannot be read: %v", n, target.Name, err)
		return none
	}
	x.b.errorf(at, "%s has %d arguments", target.Name, len(args))
	return none
}

func (x *fn) operand(a usdt.Arg) ir.Val {
	switch a.Kind {
	case usdt.Const:
		return x.ext(x.wide(a.Off), a.Size, a.Signed)
	case usdt.Reg:
		v := x.cpuReg(a.Reg)
		if a.High {
			v = x.bin(ir.Shr, v, ir.Imm(8))
		}
		return x.ext(v, a.Size, a.Signed)
	}
	addr := x.wide(a.Off)
	if a.Reg != "" {
		addr = x.bin(ir.Add, x.cpuReg(a.Reg), addr)
	}
	if a.Index != "" {
		addr = x.bin(ir.Add, addr, x.bin(ir.Mul, x.cpuReg(a.Index), ir.Imm(a.Scale)))
	}
	m := slotMem(x.temp(8))
	x.zero(m, 8)
	x.read(m, a.Size, addr, types.User)
	return x.load(m, a.Size, a.Signed)
}

func (x *fn) cpuReg(name string) ir.Val {
	d := x.f.NewReg()
	x.add(ir.Ins{Op: ir.CPUReg, Dst: d, Name: name})
	return ir.R(d)
}
