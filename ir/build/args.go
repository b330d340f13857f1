package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// argsField reads args.name: a place in the event of a tracepoint, a parameter elsewhere.
func (x *fn) argsField(e *syntax.Field, args *types.Type) value {
	f, ok := args.Field(e.Name)
	if !ok {
		x.b.errorf(e.Span, "internal error: no argument %s", e.Name)
		return scalarOf(types.Int64, ir.Imm(0))
	}
	return x.argValue(f)
}

func (x *fn) argValue(f types.Field) value {
	if x.in.Provider.Name == "uprobe" && !f.Type.IsScalar() {
		return x.wordsArg(f)
	}
	d := x.f.NewReg()
	if x.in.Provider.Name != "tracepoint" {
		x.add(ir.Ins{Op: ir.Arg, Dst: d, Imm: int64(f.Index)})
		if f.Type.IsInt() {
			return scalarOf(f.Type, x.ext(ir.R(d), f.Type.Size, f.Type.Signed))
		}
		if !f.Type.IsScalar() {
			return refTo(f.Type, ir.R(d), x.space(f.Type.Space))
		}
		return scalarOf(f.Type, ir.R(d))
	}
	switch {
	case f.DataLoc, f.RelLoc:
		x.add(ir.Ins{Op: ir.Field, Dst: d, Name: f.Name, Off: int32(f.Off), Size: 4})
		base := x.f.NewReg()
		end := int32(0)
		if f.RelLoc {
			end = int32(f.Off) + 4
		}
		x.add(ir.Ins{Op: ir.Field, Dst: base, Name: f.Name, Off: end})
		return scalarOf(f.Type, x.bin(ir.Add, ir.R(base), x.bin(ir.And, ir.R(d), ir.Imm(0xffff))))
	case f.Type.IsScalar():
		x.add(ir.Ins{Op: ir.Field, Dst: d, Name: f.Name, Off: int32(f.Off), Size: uint8(size8(f.Type.Size)), Signed: f.Type.Signed})
		return x.bitsOf(f, scalarOf(f.Type, ir.R(d)))
	}
	x.add(ir.Ins{Op: ir.Field, Dst: d, Name: f.Name, Off: int32(f.Off)})
	return refTo(f.Type, ir.R(d), types.Kernel)
}

func (x *fn) bitsOf(f types.Field, v value) value {
	v.v = x.bits(v.v, value{t: f.Type, bitOff: f.BitOff, bitSize: f.BitSize})
	return v
}
