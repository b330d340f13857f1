package probe

import (
	"errors"
	"fmt"
	"os"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/lang/check"
)

// bpfFunctions finds functions of loaded BPF programs, by the types that came with them. Programs without types, and those
// that trace functions themselves, cannot be traced (bpf_check_attach_target in kernel/bpf/verifier.c).
func bpfFunctions(p check.AttachPoint) ([]check.Target, error) {
	var out []check.Target
	for id := ebpf.ProgramID(0); ; {
		var err error
		id, err = ebpf.ProgramGetNextID(id)
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("list BPF programs: %w", err)
		}
		if p.HasAddr && uint64(id) != p.Address {
			continue
		}
		for _, name := range functionsOf(id) {
			if check.Match(p.Func, name) {
				out = append(out, check.Target{Provider: p.Provider.Name, Module: "bpf", Func: name, ProgID: uint32(id),
					Name: fmt.Sprintf("%s:bpf:%d:%s", p.Provider.Name, id, name)})
			}
		}
	}
	sortTargets(out)
	return out, nil
}

// functionsOf names the functions of a program; none if it has gone, has no types, or traces.
func functionsOf(id ebpf.ProgramID) []string {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil
	}
	defer p.Close()
	info, err := p.Info()
	if err != nil || info.Type == ebpf.Tracing {
		return nil
	}
	funcs, err := info.FuncInfos()
	if err != nil {
		return nil
	}
	var names []string
	for _, f := range funcs {
		names = append(names, f.Func.Name)
	}
	return names
}
