// Package btftypes fills the C type model from BTF (Documentation/bpf/btf.rst). A section is walked once for where its types
// begin; a type is decoded when it is asked for, so a question about one struct does not pay for the other hundred thousand
// types of a kernel. What no C compiler writes but bytes can say, such as a typedef of itself, is void.
//
// Not read: sections of data, declaration tags, and BTF.ext.
package btftypes

import (
	"fmt"
	"slices"

	"github.com/fathom-trace/fathom/ctype"
)

// Modules gives the BTF of a kernel module by name, or an error when there is none.
type Modules func(name string) (*BTF, error)

// Lookup finds types in a kernel's BTF and, for functions and types that it lacks, in its modules'.
type Lookup struct {
	parts   []*part // searched in this order, the kernel first
	all     map[*BTF]*part
	modules Modules
	loaded  map[string]*part
}

var _ ctype.Lookup = (*Lookup)(nil)

// New returns a Lookup over the types of a kernel; modules may be nil.
func New(kernel *BTF, modules Modules) *Lookup {
	l := &Lookup{modules: modules, loaded: map[string]*part{}, all: map[*BTF]*part{}}
	l.parts = []*part{l.part(kernel)}
	return l
}

// part gives the types of a section, each once: what a module shares with the kernel is one type.
func (l *Lookup) part(b *BTF) *part {
	if b == nil {
		return nil
	}
	p := l.all[b]
	if p == nil {
		p = &part{BTF: b, below: l.part(b.base), seen: map[uint32]ctype.Type{}, found: map[question][]uint32{}}
		l.all[b] = p
	}
	return p
}

// Load makes the types of a module known to ByName, EnumValue and Func.
func (l *Lookup) Load(module string) error {
	if _, ok := l.loaded[module]; ok || module == "" || module == "vmlinux" {
		return nil
	}
	if l.modules == nil {
		return fmt.Errorf("module %s: %w", module, ctype.ErrNotFound)
	}
	b, err := l.modules(module)
	if err != nil {
		return fmt.Errorf("module %s: %w", module, err)
	}
	p := l.part(b)
	l.loaded[module] = p
	l.parts = append(l.parts, p)
	return nil
}

// Expect finds types and functions of the kernel, all in one walk: to ask for one of them costs little afterwards, also if there is
// none of the name. It is for many names at once; each alone is searched for in about a third of that time.
func (l *Lookup) Expect(names []string) {
	l.parts[0].expect(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return len(n) < 3 }))
}

// FuncID gives the number of the type of a function of the kernel, by which programs call it.
func (l *Lookup) FuncID(name string) (id uint32, ok bool) {
	return first(l.parts[0].find(set(kindFunc), name))
}

// ID gives the number of the first type of the kernel that has a kind and a name.
func (l *Lookup) ID(kind ctype.Kind, name string) (id uint32, ok bool) {
	return first(l.parts[0].find(byKind(kind), name))
}

func first(ids []uint32) (uint32, bool) {
	if len(ids) == 0 {
		return 0, false
	}
	return ids[0], true
}

// ByName implements ctype.Lookup. Of types that have the same name, such as structs of files that do not know each other,
// it gives the first.
func (l *Lookup) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	for _, p := range l.parts {
		best, found := ctype.Kind(0), uint32(0)
		for _, id := range p.find(byKind(kind), name) {
			_, r := p.at(id)
			if k := kindOf(r); found == 0 || k < best {
				best, found = k, id
			}
		}
		if found != 0 {
			return p.convert(found, 0), nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ctype.ErrNotFound)
}

// kindOf is the inverse of byKind.
func kindOf(r rec) ctype.Kind {
	for k := ctype.KindStruct; k < ctype.KindBase; k++ {
		if byKind(k)>>r.kind()&1 != 0 {
			return k
		}
	}
	return ctype.KindBase
}

// AllByName gives all types of a kind and name, the kernel's first.
func (l *Lookup) AllByName(kind ctype.Kind, name string) (out []ctype.Type) {
	for _, p := range l.parts {
		for _, id := range p.find(byKind(kind), name) {
			out = append(out, p.convert(id, 0))
		}
	}
	return out
}

// EnumValue implements ctype.Lookup.
func (l *Lookup) EnumValue(name string) (*ctype.Enum, int64, bool) {
	for _, p := range l.parts {
		for id, r := range p.of(set(kindEnum, kindEnum64)) {
			for v := range r.elems() {
				if e, ok := p.enumerator(id, v, name); ok {
					return e, value(r, v), true
				}
			}
		}
	}
	return nil, 0, false
}

// Var gives the type of a variable. Kernels have types of per-CPU variables, and of others since they are told to
// (CONFIG_DEBUG_INFO_BTF with global variables, 6.16); an error is ctype.ErrNotFound.
func (l *Lookup) Var(name string) (ctype.Type, error) {
	for _, p := range l.parts {
		for _, id := range p.find(set(kindVar), name) {
			_, r := p.at(id)
			return p.convert(r.target(), 0), nil
		}
	}
	return nil, fmt.Errorf("variable %s: %w", name, ctype.ErrNotFound)
}

// Func implements ctype.Lookup.
func (l *Lookup) Func(module, name string) (*ctype.Func, error) {
	parts := l.parts
	if module != "" && module != "vmlinux" {
		if err := l.Load(module); err != nil {
			return nil, err
		}
		parts = []*part{l.loaded[module]}
	}
	for _, p := range parts {
		for _, id := range p.find(set(kindFunc), name) {
			if f, ok := p.convert(id, 0).(*ctype.Func); ok {
				c := *f
				c.Name = name
				return &c, nil
			}
		}
	}
	return nil, fmt.Errorf("function %s: %w", name, ctype.ErrNotFound)
}
