package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/types"
)

// maxWords is the largest argument, in 64-bit words, that may be in registers (package ctype/abi).
const maxWords = 2

// wordsArg gives an argument of a user function that is no single number: a struct or 128-bit integer passed by value.
// A small one is put together from its words, wherever they are; a large one is on the stack as a whole.
func (x *fn) wordsArg(f types.Field) value {
	words := (f.Type.Size + 7) / 8
	if words > maxWords {
		d := x.f.NewReg()
		x.add(ir.Ins{Op: ir.Arg, Dst: d, Imm: int64(f.Index), Name: ir.ArgAddress})
		return refTo(f.Type, ir.R(d), types.User)
	}
	m := slotMem(x.temp(8 * words))
	for i := range words {
		d := x.f.NewReg()
		x.add(ir.Ins{Op: ir.Arg, Dst: d, Imm: int64(f.Index + i)})
		x.store(m.at(8*i), 8, ir.R(d))
	}
	return inMem(f.Type, m)
}
