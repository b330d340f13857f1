package core

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/oops"
)

// argRegs are the registers of the first arguments, in the System V calling convention.
var argRegs = []string{"RDI", "RSI", "RDX", "RCX", "R8", "R9"}

// callClobbers are the registers that a call does not preserve.
var callClobbers = []string{"RAX", "RCX", "RDX", "RSI", "RDI", "R8", "R9", "R10", "R11"}

// field names the member that the faulting instruction touched. The types of registers start as those of the function's
// arguments, from BTF, and follow copies and loads through typed pointers. The code is followed as it stands and not along
// its jumps, so a type survives only what certainly keeps it; where none reaches the instruction, there is no answer.
func (s *Session) field(r oops.Report) string {
	at := s.t.Symbols().ByName(r.RIP.Symbol)
	if len(at) != 1 || r.RIP.Off > 1<<16 {
		return ""
	}
	types := s.arguments(r.RIP.Module, r.RIP.Symbol)
	if len(types) == 0 {
		return ""
	}
	code := make([]byte, r.RIP.Off+15)
	if s.t.ReadVirt(code, at[0]) != nil {
		return ""
	}
	for _, in := range disasm.Decode(disasm.AMD64, code, 0, nil) {
		if in.Addr == r.RIP.Off {
			return touched(in, types)
		}
		if in.Addr > r.RIP.Off {
			break
		}
		follow(in, types)
	}
	return ""
}

// arguments are the types of the registers in which a function gets its arguments.
func (s *Session) arguments(module, function string) map[string]ctype.Type {
	types := map[string]ctype.Type{}
	fn, err := s.t.Types().Func(module, function)
	if err != nil {
		return types
	}
	for i, p := range fn.Params[:min(len(fn.Params), len(argRegs))] {
		types[argRegs[i]] = p.Type
	}
	return types
}

// touched names what a memory operand is, if its base has a type.
func touched(in disasm.Inst, types map[string]ctype.Type) string {
	t, name, ok := member(in, types)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%s of %s, at offset %#x; %s holds the pointer", name, t, in.Mem.Disp, in.Mem.Base)
}

// member is the struct and the member in it that a memory operand is.
func member(in disasm.Inst, types map[string]ctype.Type) (of, name string, ok bool) {
	if in.Mem == nil || in.Mem.Index != "" {
		return "", "", false
	}
	p, ok := ctype.Strip(types[in.Mem.Base]).(*ctype.Ptr)
	if !ok {
		return "", "", false
	}
	name, _, ok = memberAt(p.Elem, int(in.Mem.Disp))
	return ctype.Name(p.Elem), name, ok
}

// follow keeps the types of registers over an instruction.
func follow(in disasm.Inst, types map[string]ctype.Type) {
	if in.Call {
		for _, r := range callClobbers {
			delete(types, r)
		}
		return
	}
	var t ctype.Type
	switch {
	case in.Copy != "":
		t = types[in.Copy]
	case in.Load && in.Mem != nil && in.Mem.Index == "":
		if p, ok := ctype.Strip(types[in.Mem.Base]).(*ctype.Ptr); ok {
			_, t, _ = memberAt(p.Elem, int(in.Mem.Disp))
		}
	}
	for _, r := range in.Writes {
		delete(types, r)
	}
	if t != nil && len(in.Writes) == 1 {
		types[in.Writes[0]] = t
	}
}

// memberAt finds the member at a byte offset, inside members that are structs too.
func memberAt(t ctype.Type, off int) (name string, typ ctype.Type, ok bool) {
	s, isStruct := ctype.Strip(t).(*ctype.Struct)
	if !isStruct {
		return "", nil, false
	}
	for _, m := range s.Members() {
		start := m.BitOff / 8
		if off < start || off >= start+max(ctype.Size(m.Type), 1) {
			continue
		}
		if in, t, ok := memberAt(m.Type, off-start); ok {
			return strings.TrimPrefix(m.Name+"."+in, "."), t, true
		}
		if off == start && m.Name != "" {
			return m.Name, m.Type, true
		}
	}
	return "", nil, false
}
