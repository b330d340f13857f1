package dead

import (
	"errors"
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
)

// World is a dead kernel as the checker sees it.
type World struct{ t kernel.Target }

var _ check.Place = (*World)(nil)

// NewWorld returns the World of a kernel.
func NewWorld(t kernel.Target) *World { return &World{t} }

// Iterators are the kinds of objects that programs can run over, in the order of help texts, by the names that the kernel's
// own iterators have, with what their contexts hold.
func Iterators() [][2]string {
	var out [][2]string
	for _, k := range kinds {
		out = append(out, [2]string{k.name, k.doc})
	}
	return out
}

// Types implements check.World.
func (w *World) Types() ctype.Lookup { return w.t.Types() }

// Expand implements check.World.
func (w *World) Expand(p check.AttachPoint) ([]check.Target, error) {
	if p.Provider.Name != "iter" {
		return nil, errors.New(w.NoProbe(p))
	}
	if p.Module != "" {
		return nil, fmt.Errorf("iter:%s:%s: a dump has no place to pin programs at", p.Func, p.Module)
	}
	if _, ok := find(p.Func); !ok {
		return nil, fmt.Errorf("iter:%s cannot be walked in a dump: there are %s", p.Func, names())
	}
	if _, err := w.context(p.Func); err != nil {
		return nil, fmt.Errorf("iter:%s: this kernel has no such iterator: %w", p.Func, err)
	}
	return []check.Target{{Provider: "iter", Func: p.Func, Name: "iter:" + p.Func}}, nil
}

// context is the struct that programs of an iterator are given the address of.
func (w *World) context(name string) (*ctype.Struct, error) {
	t, err := w.t.Types().ByName(ctype.KindStruct, "bpf_iter__"+name)
	if err != nil {
		return nil, err
	}
	s, ok := t.(*ctype.Struct)
	if !ok {
		return nil, fmt.Errorf("bpf_iter__%s is no struct", name)
	}
	return s, nil
}

// Args implements check.World.
func (w *World) Args(t check.Target) (*types.Type, *types.Type, error) {
	s, err := w.context(t.Func)
	if err != nil {
		return nil, nil, err
	}
	return types.PtrTo(types.FromC(s, types.Kernel), types.Kernel), nil, nil
}

// UserTypes implements check.World: a dump has no files of programs.
func (w *World) UserTypes(string) ctype.Lookup { return nil }

// Suggest implements check.World.
func (w *World) Suggest(check.AttachPoint) []string { return nil }

// Kallsyms implements check.World.
func (w *World) Kallsyms(name string) (uint64, bool) {
	if at := w.t.Symbols().ByName(name); len(at) > 0 && at[0] != 0 {
		return at[0], true
	}
	return 0, false
}

// Kfunc implements check.World: the kernel's functions are not executed.
func (w *World) Kfunc(check.Target, string) bool { return false }

// Usyms implements check.World.
func (w *World) Usyms(string, string) (addr, size uint64, ok bool) { return 0, 0, false }
