// Package ctype is the one model of C types in fathom. BTF, DWARF and C declarations are read into it by the packages
// below it (btftypes, dwarftypes, cdecl); everything that walks kernel data uses it. It holds types, never values,
// and knows the layout the compiler of the described program chose: sizes in bytes, member positions in bits.
package ctype

import (
	"errors"
	"fmt"
	"strings"
)

// ErrNotFound is returned by a Lookup that has no such type.
var ErrNotFound = errors.New("no such type")

// Kind tells the namespaces of C names apart.
type Kind uint8

// The kinds a type can be looked up by. Any tries struct, union, enum, typedef and base types in this order.
const (
	Any Kind = iota
	KindStruct
	KindUnion
	KindEnum
	KindTypedef
	KindBase
)

// Lookup finds types by name. Implementations are safe for use by one goroutine at a time.
type Lookup interface {
	// ByName gives the type, or an error that is ErrNotFound.
	ByName(kind Kind, name string) (Type, error)
	// EnumValue finds an enumerator by its name.
	EnumValue(name string) (*Enum, int64, bool)
	// Func gives the prototype of a function; module is "" (any), "vmlinux" or a module's name.
	Func(module, name string) (*Func, error)
}

// Type is a C type. Structs, unions, enums and typedefs are pointers and compare by identity within one Lookup.
type Type interface{ isType() }

type (
	// Void is no type: the target of void *, the result of a void function.
	Void struct{}
	// Int is a base type; Size in bytes.
	Int struct {
		Name   string
		Size   int
		Signed bool
		Bool   bool
		Char   bool // encoded as character data
	}
	// Float is a floating-point base type, which BPF cannot compute with.
	Float struct {
		Name string
		Size int
	}
	// Ptr points to Elem. Tags are BTF type tags: "user", "percpu", "rcu"; and "const" where DWARF says that of Elem.
	Ptr struct {
		Elem Type
		Tags []string
	}
	// Array has Len elements; 0 is a flexible array.
	Array struct {
		Elem Type
		Len  int
	}
	// Struct is a struct, or with Union set a union. Size in bytes; a forward declaration has Fwd set and no members.
	Struct struct {
		Name  string // "" when anonymous
		Union bool
		Fwd   bool
		Size  int
		// members is asked once: reading one struct must not read the whole kernel.
		members []Member
		load    func() []Member
	}
	// Enum has Size bytes and, if Signed, negative enumerators.
	Enum struct {
		Name   string
		Size   int
		Signed bool
		Values []EnumValue
	}
	// Typedef is another name for Type.
	Typedef struct {
		Name string
		Type Type
	}
	// Func is a prototype.
	Func struct {
		Name   string
		Params []Param
		Result Type
	}
)

// EnumValue is one enumerator.
type EnumValue struct {
	Name  string
	Value int64
}

// Param is a parameter of a Func.
type Param struct {
	Name string
	Type Type
}

// Member is a member of a Struct. BitOff counts from the start of the struct; BitSize is 0 unless it is a bitfield.
type Member struct {
	Name    string // "" for an anonymous struct or union
	Type    Type
	BitOff  int
	BitSize int
}

func (Void) isType()     {}
func (*Int) isType()     {}
func (*Float) isType()   {}
func (*Ptr) isType()     {}
func (*Array) isType()   {}
func (*Struct) isType()  {}
func (*Enum) isType()    {}
func (*Typedef) isType() {}
func (*Func) isType()    {}

// NewStruct returns a struct whose members are asked for when they are first needed.
func NewStruct(name string, union bool, size int, members func() []Member) *Struct {
	return &Struct{Name: name, Union: union, Size: size, load: members}
}

// Members gives the members in declaration order.
func (s *Struct) Members() []Member {
	if s.load != nil {
		s.members, s.load = s.load(), nil
	}
	return s.members
}

// Member finds a member by name, also inside anonymous members; BitOff is then from the start of s.
func (s *Struct) Member(name string) (Member, bool) {
	for _, m := range s.Members() {
		if m.Name == name {
			return m, true
		}
		if m.Name != "" {
			continue
		}
		if in, ok := Strip(m.Type).(*Struct); ok {
			if f, ok := in.Member(name); ok {
				f.BitOff += m.BitOff
				return f, true
			}
		}
	}
	return Member{}, false
}

// Strip removes typedefs.
func Strip(t Type) Type {
	for range 32 {
		td, ok := t.(*Typedef)
		if !ok {
			return t
		}
		t = td.Type
	}
	return Void{}
}

// User says if p carries the kernel's __user mark.
func (p *Ptr) User() bool { return p.has("user") }

// Const says if the target is known to be const.
func (p *Ptr) Const() bool { return p.has("const") }

// PerCPU says if p carries the kernel's __percpu mark.
func (p *Ptr) PerCPU() bool { return p.has("percpu") }

func (p *Ptr) has(tag string) bool {
	for _, t := range p.Tags {
		if t == tag {
			return true
		}
	}
	return false
}

// Size gives the size of t in bytes; void and functions have none. Pointers have the 8 bytes of the 64-bit kernels we know.
func Size(t Type) int {
	switch t := t.(type) {
	case *Int:
		return t.Size
	case *Float:
		return t.Size
	case *Ptr:
		return 8
	case *Array:
		return t.Len * Size(t.Elem)
	case *Struct:
		return t.Size
	case *Enum:
		return t.Size
	case *Typedef:
		return Size(Strip(t))
	}
	return 0
}

// Name gives t as C writes it, without the declared name: "struct sk_buff *", "unsigned char[16]".
func Name(t Type) string {
	switch t := t.(type) {
	case nil, Void:
		return "void"
	case *Int:
		return t.Name
	case *Float:
		return t.Name
	case *Typedef:
		return t.Name
	case *Struct:
		return strings.TrimSpace(map[bool]string{false: "struct ", true: "union "}[t.Union] + t.Name)
	case *Enum:
		return strings.TrimSpace("enum " + t.Name)
	case *Ptr:
		if f, ok := t.Elem.(*Func); ok {
			return Name(f.Result) + " (*)(" + params(f) + ")"
		}
		in := Name(t.Elem)
		if strings.HasSuffix(in, "*") {
			return in + "*"
		}
		return in + " *"
	case *Array:
		dims := ""
		var e Type = t
		for {
			a, ok := e.(*Array)
			if !ok {
				return Name(e) + dims
			}
			dims += fmt.Sprintf("[%d]", a.Len)
			e = a.Elem
		}
	case *Func:
		return Name(t.Result) + " (" + params(t) + ")"
	}
	return "?"
}

func params(f *Func) string {
	var s []string
	for _, p := range f.Params {
		s = append(s, Name(p.Type))
	}
	return strings.Join(s, ", ")
}
