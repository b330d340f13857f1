package types

import "github.com/fathom-trace/fathom/ctype"

// FromC gives the language's view of a C type: char arrays are strings, other arrays keep their elements, structs stay C.
// Pointers inherit space unless their own tag says user.
func FromC(t ctype.Type, space Space) *Type {
	switch c := ctype.Strip(t).(type) {
	case *ctype.Int:
		if c.Bool {
			return BoolT
		}
		if c.Size > 8 {
			return ArrayOf(Uint64, c.Size/8)
		}
		return IntT(c.Size, c.Signed)
	case *ctype.Float:
		return IntT(min(c.Size, 8), false)
	case *ctype.Enum:
		return &Type{Kind: Enum, Size: c.Size, Signed: c.Signed, C: c, Name: c.Name}
	case *ctype.Ptr:
		if c.User() {
			space = User
		}
		return &Type{Kind: Ptr, Size: 8, Space: space, Elem: pointee(c.Elem, space)}
	case *ctype.Array:
		if e, ok := ctype.Strip(c.Elem).(*ctype.Int); ok && e.Size == 1 && e.Char {
			return StringT(c.Len)
		}
		return ArrayOf(FromC(c.Elem, space), c.Len)
	case *ctype.Struct:
		return &Type{Kind: Struct, Size: c.Size, C: c, Name: c.Name, Space: space}
	}
	return VoidT
}

// pointee stops at pointers to pointers to structs: structs are read only when a member is asked for.
func pointee(t ctype.Type, space Space) *Type {
	if f, ok := ctype.Strip(t).(*ctype.Func); ok && f != nil {
		return VoidT
	}
	return FromC(t, space)
}
