// Package btftypes fills the C type model from BTF (Documentation/bpf/btf.rst). Types are converted when they are
// first asked for, so a question about one struct does not pay for the other hundred thousand types of a kernel.
package btftypes

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/ctype"
)

// Modules gives the BTF of a kernel module by name, or an error when there is none.
type Modules func(name string) (*btf.Spec, error)

// Lookup finds types in a kernel's BTF and, for functions and types that it lacks, in its modules'.
type Lookup struct {
	spec    *btf.Spec
	modules Modules
	loaded  map[string]*btf.Spec
	seen    map[btf.Type]ctype.Type
	enums   map[string]enumValue
	raw     func() ([]byte, error) // reads the bytes of spec; nil if nobody can
	bytes   []byte
}

type enumValue struct {
	e *ctype.Enum
	v int64
}

var _ ctype.Lookup = (*Lookup)(nil)

// New returns a Lookup over spec, which must stay unchanged; modules may be nil.
func New(spec *btf.Spec, modules Modules) *Lookup {
	return &Lookup{spec: spec, modules: modules, loaded: map[string]*btf.Spec{}, seen: map[btf.Type]ctype.Type{}}
}

// Load makes the types of a module known to ByName, EnumValue and Func.
func (l *Lookup) Load(module string) error {
	if _, ok := l.loaded[module]; ok || module == "" || module == "vmlinux" {
		return nil
	}
	if l.modules == nil {
		return fmt.Errorf("module %s: %w", module, ctype.ErrNotFound)
	}
	s, err := l.modules(module)
	if err != nil {
		return fmt.Errorf("module %s: %w", module, err)
	}
	l.loaded[module] = s
	l.enums = nil
	return nil
}

func (l *Lookup) specs() []*btf.Spec {
	all := []*btf.Spec{l.spec}
	for _, s := range l.loaded {
		all = append(all, s)
	}
	return all
}

// ByName implements ctype.Lookup.
func (l *Lookup) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	for _, s := range l.specs() {
		ts, err := s.AnyTypesByName(name)
		if err != nil {
			continue
		}
		if t := pick(ts, kind); t != nil {
			return l.Convert(t), nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ctype.ErrNotFound)
}

func pick(ts []btf.Type, kind ctype.Kind) btf.Type {
	for _, t := range ts {
		var k ctype.Kind
		switch t.(type) {
		case *btf.Struct:
			k = ctype.KindStruct
		case *btf.Union:
			k = ctype.KindUnion
		case *btf.Enum:
			k = ctype.KindEnum
		case *btf.Typedef:
			k = ctype.KindTypedef
		case *btf.Int, *btf.Float:
			k = ctype.KindBase
		default:
			continue
		}
		if k == kind || kind == ctype.Any {
			return t
		}
	}
	return nil
}

// EnumValue implements ctype.Lookup. Without SetRaw, the first call reads all enums.
func (l *Lookup) EnumValue(name string) (*ctype.Enum, int64, bool) {
	if v, found, ok := l.rawEnum(name); found || ok && len(l.loaded) == 0 {
		return v.e, v.v, found
	}
	if l.enums == nil {
		l.enums = map[string]enumValue{}
		for _, s := range l.specs() {
			l.indexEnums(s)
		}
	}
	e, ok := l.enums[name]
	return e.e, e.v, ok
}

func (l *Lookup) indexEnums(s *btf.Spec) {
	for t, err := range s.All() {
		if err != nil {
			return
		}
		e, ok := t.(*btf.Enum)
		if !ok {
			continue
		}
		c := l.Convert(e).(*ctype.Enum)
		for _, v := range c.Values {
			if _, dup := l.enums[v.Name]; !dup {
				l.enums[v.Name] = enumValue{c, v.Value}
			}
		}
	}
}

// Func implements ctype.Lookup.
func (l *Lookup) Func(module, name string) (*ctype.Func, error) {
	specs := l.specs()
	if module != "" && module != "vmlinux" {
		if err := l.Load(module); err != nil {
			return nil, err
		}
		specs = []*btf.Spec{l.loaded[module]}
	}
	for _, s := range specs {
		ts, err := s.AnyTypesByName(name)
		if errors.Is(err, btf.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("function %s: %w", name, err)
		}
		for _, t := range ts {
			if f, ok := t.(*btf.Func); ok {
				c := *(l.Convert(f.Type).(*ctype.Func))
				c.Name = name
				return &c, nil
			}
		}
	}
	return nil, fmt.Errorf("function %s: %w", name, ctype.ErrNotFound)
}

// Convert gives the ctype of a BTF type. Equal BTF types of one spec give the same value.
func (l *Lookup) Convert(t btf.Type) ctype.Type {
	if c, ok := l.seen[t]; ok {
		return c
	}
	c := l.convert(t)
	l.seen[t] = c
	return c
}

func (l *Lookup) convert(t btf.Type) ctype.Type {
	switch t := t.(type) {
	case *btf.Int:
		return &ctype.Int{Name: t.Name, Size: int(t.Size), Signed: t.Encoding == btf.Signed,
			Bool: t.Encoding == btf.Bool, Char: t.Encoding == btf.Char || strings.HasSuffix(t.Name, "char")}
	case *btf.Float:
		return &ctype.Float{Name: t.Name, Size: int(t.Size)}
	case *btf.Enum:
		return enum(t)
	case *btf.Pointer:
		return l.pointer(t)
	case *btf.Array:
		return &ctype.Array{Elem: l.Convert(t.Type), Len: int(t.Nelems)}
	case *btf.Struct:
		return ctype.NewStruct(t.Name, false, int(t.Size), func() []ctype.Member { return l.members(t.Members) })
	case *btf.Union:
		return ctype.NewStruct(t.Name, true, int(t.Size), func() []ctype.Member { return l.members(t.Members) })
	case *btf.Fwd:
		return &ctype.Struct{Name: t.Name, Union: t.Kind == btf.FwdUnion, Fwd: true}
	case *btf.Typedef:
		// A struct may contain itself through a typedef: the entry must exist before its target is converted.
		td := &ctype.Typedef{Name: t.Name}
		l.seen[t] = td
		td.Type = l.Convert(t.Type)
		return td
	case *btf.FuncProto:
		f := &ctype.Func{Result: l.Convert(t.Return)}
		for _, p := range t.Params {
			f.Params = append(f.Params, ctype.Param{Name: p.Name, Type: l.Convert(p.Type)})
		}
		return f
	case *btf.Func:
		return l.Convert(t.Type)
	case *btf.Const:
		return l.Convert(t.Type)
	case *btf.Volatile:
		return l.Convert(t.Type)
	case *btf.Restrict:
		return l.Convert(t.Type)
	case *btf.TypeTag:
		return l.Convert(t.Type)
	}
	return ctype.Void{}
}

// pointer gathers the type tags that stand between a pointer and its target.
func (l *Lookup) pointer(t *btf.Pointer) ctype.Type {
	p := &ctype.Ptr{}
	l.seen[t] = p
	target := t.Target
	for range 16 {
		switch q := target.(type) {
		case *btf.TypeTag:
			p.Tags = append(p.Tags, q.Value)
			target = q.Type
			continue
		case *btf.Const:
			target = q.Type
			continue
		case *btf.Volatile:
			target = q.Type
			continue
		}
		break
	}
	p.Elem = l.Convert(target)
	return p
}

func (l *Lookup) members(ms []btf.Member) []ctype.Member {
	out := make([]ctype.Member, len(ms))
	for i, m := range ms {
		out[i] = ctype.Member{Name: m.Name, Type: l.Convert(m.Type), BitOff: int(m.Offset), BitSize: int(m.BitfieldSize)}
	}
	return out
}

func enum(t *btf.Enum) *ctype.Enum {
	e := &ctype.Enum{Name: t.Name, Size: int(t.Size), Signed: t.Signed, Values: make([]ctype.EnumValue, len(t.Values))}
	for i, v := range t.Values {
		n := int64(v.Value)
		if t.Signed && t.Size == 4 {
			n = int64(int32(v.Value))
		}
		e.Values[i] = ctype.EnumValue{Name: v.Name, Value: n}
	}
	return e
}
