package dwarftypes

import (
	"debug/dwarf"
	"strings"
)

// maxNesting bounds chains of typedefs and qualifiers, and classes within classes.
const maxNesting = 16

// entryAt reads the entry at an offset; nil if there is none.
func entryAt(d *dwarf.Data, off dwarf.Offset) *dwarf.Entry {
	r := d.Reader()
	r.Seek(off)
	e, err := r.Next()
	if err != nil {
		return nil
	}
	return e
}

// unqualified gives the type that the type at off is without typedefs and qualifiers.
func unqualified(d *dwarf.Data, off dwarf.Offset) *dwarf.Entry {
	for range maxNesting {
		e := entryAt(d, off)
		if e == nil {
			return nil
		}
		switch e.Tag {
		case dwarf.TagTypedef, dwarf.TagConstType, dwarf.TagVolatileType:
			var ok bool
			if off, ok = e.Val(dwarf.AttrType).(dwarf.Offset); !ok {
				return nil
			}
		default:
			return e
		}
	}
	return nil
}

// byReference reports a type of which not a value is passed but the address of a copy: a C++ class that is not trivial for
// the purposes of calls (Itanium C++ ABI, section 1.1). Clang says so with DW_AT_calling_convention (DWARF 5, section
// 5.7.1.1); of what GCC writes it is to be concluded.
func byReference(d *dwarf.Data, off dwarf.Offset, depth int) bool {
	const passByReference, passByValue = 4, 5
	e := unqualified(d, off)
	if e == nil || depth > maxNesting || e.Tag != dwarf.TagStructType && e.Tag != dwarf.TagClassType && e.Tag != dwarf.TagUnionType {
		return false
	}
	if cc, ok := e.Val(dwarf.AttrCalling).(int64); ok && (cc == passByReference || cc == passByValue) {
		return cc == passByReference
	}
	class, _ := e.Val(dwarf.AttrName).(string)
	class, _, _ = strings.Cut(class, "<")
	found := false
	eachChild(d, e, func(c *dwarf.Entry) {
		name, _ := c.Val(dwarf.AttrName).(string)
		switch c.Tag {
		case dwarf.TagMember, dwarf.TagInheritance:
			t, ok := c.Val(dwarf.AttrType).(dwarf.Offset)
			found = found || strings.HasPrefix(name, "_vptr") || ok && byReference(d, t, depth+1)
		case dwarf.TagSubprogram:
			if c.Val(dwarf.AttrDefaulted) == nil && class != "" {
				found = found || name == "~"+class || name == class && copies(d, c, e.Offset)
			}
		}
	})
	return found
}

// copies reports a constructor that takes a reference to its own class and nothing else.
func copies(d *dwarf.Data, fn *dwarf.Entry, class dwarf.Offset) bool {
	n, own := 0, false
	eachChild(d, fn, func(c *dwarf.Entry) {
		if c.Tag != dwarf.TagFormalParameter || c.Val(dwarf.AttrArtificial) != nil {
			return
		}
		n++
		off, _ := c.Val(dwarf.AttrType).(dwarf.Offset)
		if t := entryAt(d, off); t != nil && (t.Tag == dwarf.TagReferenceType || t.Tag == dwarf.TagRvalueReferenceType) {
			to, _ := t.Val(dwarf.AttrType).(dwarf.Offset)
			target := unqualified(d, to)
			own = target != nil && target.Offset == class
		}
	})
	return n == 1 && own
}

// eachChild visits the children of e.
func eachChild(d *dwarf.Data, e *dwarf.Entry, visit func(*dwarf.Entry)) {
	if !e.Children {
		return
	}
	r := d.Reader()
	r.Seek(e.Offset)
	if _, err := r.Next(); err != nil {
		return
	}
	for {
		c, err := r.Next()
		if err != nil || c == nil || c.Tag == 0 {
			return
		}
		visit(c)
		r.SkipChildren()
	}
}
