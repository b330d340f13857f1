package probe

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"

	"github.com/fathom-trace/fathom/bpf/gen"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/check"
)

// KfuncID gives the number by which programs call a function of the kernel: that of its BTF.
func (w *World) KfuncID(name string) (btf.TypeID, error) {
	if id, ok := w.kfuncs[name]; ok {
		return id, nil
	}
	t, err := w.live.Types()
	if err != nil {
		return 0, err
	}
	id, ok := t.FuncID(name)
	if !ok {
		return 0, fmt.Errorf("kernel function %s: %w", name, ctype.ErrNotFound)
	}
	if w.kfuncs == nil {
		w.kfuncs = map[string]btf.TypeID{}
	}
	w.kfuncs[name] = btf.TypeID(id)
	return btf.TypeID(id), nil
}

// TypeID gives the number of the first type of the kernel that has a kind and a name.
func (w *World) TypeID(kind ctype.Kind, name string) (id uint32, ok bool) {
	t, err := w.live.Types()
	if err != nil {
		return 0, false
	}
	return t.ID(kind, name)
}

// Expect says which types and functions of the kernel will be asked for: all are found in one walk over its types.
func (w *World) Expect(names []string) {
	if t, err := w.live.Types(); err == nil { // who asks is told
		t.Expect(names)
	}
}

// Lacks says if the kernel has not got a helper for probes of its functions, by trying; one that cannot be tried is taken to be there.
func (w *World) Lacks(fn int32) bool {
	if lacks, ok := w.lacking[fn]; ok {
		return lacks
	}
	if w.lacking == nil {
		w.lacking = map[int32]bool{}
	}
	w.lacking[fn] = errors.Is(features.HaveProgramHelper(ebpf.Kprobe, asm.BuiltinFunc(fn)), ebpf.ErrNotSupported)
	return w.lacking[fn]
}

// Kfunc implements check.World by trying: a program of t's kind that calls the function is given to the verifier, which
// looks at who may call it before it looks at the arguments (check_kfunc_call in kernel/bpf/verifier.c).
func (w *World) Kfunc(t check.Target, name string) bool {
	id, err := w.KfuncID(name)
	typ, at, ok := gen.ProgramType(t.Provider)
	if err != nil || !ok {
		return false
	}
	call := asm.Instruction{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(id)}
	spec := &ebpf.ProgramSpec{Type: typ, AttachType: at, License: "GPL", Instructions: asm.Instructions{call, asm.Mov.Imm(asm.R0, 0), asm.Return()}}
	if typ == ebpf.Tracing {
		spec.AttachTo = t.Func
	}
	p, err := ebpf.NewProgram(spec)
	if err == nil {
		p.Close()
		return true
	}
	var ve *ebpf.VerifierError
	if !errors.As(err, &ve) {
		return false
	}
	for _, l := range ve.Log {
		if strings.Contains(l, "is not allowed") {
			return false
		}
	}
	return len(ve.Log) > 0
}
