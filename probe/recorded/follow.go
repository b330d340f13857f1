package recorded

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// Follows finds where a program follows a pointer out of an event: a read of memory at an address that is neither the
// program's own nor in the event itself. There is nothing to be read there.
func Follows(p *ir.Program) []syntax.Diag {
	var out []syntax.Diag
	seen := map[syntax.Span]bool{}
	for _, u := range p.Units {
		own := ownMemory(u.Entry)
		for _, b := range u.Entry.Blocks {
			for i := range b.Ins {
				n := &b.Ins[i]
				if !reads(n, own) || seen[n.Span] {
					continue
				}
				seen[n.Span] = true
				out = append(out, syntax.Diag{Span: n.Span, Severity: syntax.Error,
					Msg:  "This follows a pointer that was recorded, and what it pointed to was not",
					Hint: "its value can be printed and compared; text of events is in fields that the event itself holds"})
			}
		}
	}
	return out
}

// reads says if an instruction reads memory that is not the program's own.
func reads(n *ir.Ins, own map[ir.Reg]bool) bool {
	switch n.Op {
	case ir.Load:
		return n.Slot == nil && n.Base != 0 && !own[n.Base]
	case ir.Call:
		switch n.Fn {
		case ir.FnProbeRead, ir.FnProbeReadStr, ir.FnProbeReadUser, ir.FnProbeReadKernel, ir.FnProbeReadUserStr, ir.FnProbeReadKernelStr:
			return len(n.Args) == 3 && (n.Args[2].IsImm() || !own[n.Args[2].R])
		}
	}
	return false
}

// ownMemory finds the registers that hold addresses of the program's own memory, or in the event. A register that is
// assigned more than once is one if any of its values is.
func ownMemory(f *ir.Func) map[ir.Reg]bool {
	own := map[ir.Reg]bool{}
	for changed := true; changed; {
		changed = false
		for _, b := range f.Blocks {
			for i := range b.Ins {
				n := &b.Ins[i]
				if n.Dst == 0 || own[n.Dst] {
					continue
				}
				is := false
				switch n.Op {
				case ir.Addr, ir.MapPtr, ir.MapValue, ir.Ctx, ir.Frame, ir.FuncPtr:
					is = true
				case ir.Field:
					is = n.Size == 0
				case ir.Call:
					is = n.Fn == ir.FnMapLookup || n.Fn == ir.FnMapLookupPerCPU || n.Fn == ir.FnRingbufReserve
				case ir.Mov, ir.Bin:
					is = own[n.A.R] || own[n.B.R]
				}
				if is {
					own[n.Dst], changed = true, true
				}
			}
		}
	}
	return own
}
