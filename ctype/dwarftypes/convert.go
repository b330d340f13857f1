package dwarftypes

import (
	"debug/dwarf"

	"github.com/fathom-trace/fathom/ctype"
)

// typeAt converts the type at an offset; damaged entries are void.
func (l *Lookup) typeAt(d *dwarf.Data, off dwarf.Offset) ctype.Type {
	t, err := d.Type(off)
	if err != nil {
		return ctype.Void{}
	}
	return l.convert(t)
}

// convert gives the model of a type. Structs convert their members when they are asked for, so that types may refer to
// each other.
func (l *Lookup) convert(t dwarf.Type) ctype.Type {
	if c, ok := l.conv[t]; ok {
		return c
	}
	switch t := t.(type) {
	case *dwarf.StructType:
		return l.structure(t)
	case *dwarf.TypedefType:
		td := &ctype.Typedef{Name: t.Name}
		l.conv[t] = td
		td.Type = l.convert(t.Type)
		return td
	case *dwarf.PtrType:
		p := &ctype.Ptr{}
		if q, ok := t.Type.(*dwarf.QualType); ok && q.Qual == "const" {
			p.Tags = []string{"const"}
		}
		l.conv[t] = p
		p.Elem = l.convert(t.Type)
		return p
	}
	c := l.simple(t)
	l.conv[t] = c
	return c
}

func (l *Lookup) simple(t dwarf.Type) ctype.Type {
	switch t := t.(type) {
	case *dwarf.QualType:
		return l.convert(t.Type)
	case *dwarf.IntType:
		return integer(&t.BasicType, true, false)
	case *dwarf.UintType:
		return integer(&t.BasicType, false, false)
	case *dwarf.CharType:
		return integer(&t.BasicType, true, true)
	case *dwarf.UcharType:
		return integer(&t.BasicType, false, false) // bytes, not text
	case *dwarf.BoolType:
		return &ctype.Int{Name: t.Name, Size: int(t.ByteSize), Bool: true}
	case *dwarf.FloatType:
		return &ctype.Float{Name: t.Name, Size: int(t.ByteSize)}
	case *dwarf.ComplexType:
		return &ctype.Float{Name: t.Name, Size: int(t.ByteSize)}
	case *dwarf.ArrayType:
		return &ctype.Array{Elem: l.convert(t.Type), Len: int(max(0, t.Count))}
	case *dwarf.EnumType:
		return enum(t)
	case *dwarf.FuncType:
		f := &ctype.Func{Result: ctype.Void{}}
		if t.ReturnType != nil {
			f.Result = l.convert(t.ReturnType)
		}
		for _, p := range t.ParamType {
			f.Params = append(f.Params, ctype.Param{Type: l.convert(p)})
		}
		return f
	case *dwarf.UnsupportedType:
		if t.Tag == dwarf.TagReferenceType || t.Tag == dwarf.TagRvalueReferenceType { // addresses like any other
			return &ctype.Ptr{Elem: ctype.Void{}}
		}
	}
	return ctype.Void{}
}

func integer(t *dwarf.BasicType, signed, char bool) ctype.Type {
	return &ctype.Int{Name: t.Name, Size: int(t.ByteSize), Signed: signed, Char: char}
}

func enum(t *dwarf.EnumType) ctype.Type {
	e := &ctype.Enum{Name: t.EnumName, Size: int(t.ByteSize)}
	for _, v := range t.Val {
		e.Values = append(e.Values, ctype.EnumValue{Name: v.Name, Value: v.Val})
		e.Signed = e.Signed || v.Val < 0
	}
	return e
}

func (l *Lookup) structure(t *dwarf.StructType) ctype.Type {
	name, union := t.StructName, t.Kind == "union"
	if t.Incomplete {
		s := &ctype.Struct{Name: name, Union: union, Fwd: true}
		l.conv[t] = s
		kind := ctype.KindStruct
		if union {
			kind = ctype.KindUnion
		}
		if full, err := l.ByName(kind, name); err == nil { // another unit has its members
			l.conv[t] = full
			return full
		}
		return s
	}
	s := ctype.NewStruct(name, union, int(max(0, t.ByteSize)), func() []ctype.Member {
		ms := make([]ctype.Member, 0, len(t.Field))
		for _, f := range t.Field {
			m := ctype.Member{Name: f.Name, Type: l.convert(f.Type), BitOff: int(f.ByteOffset) * 8}
			if f.BitSize > 0 {
				m.BitSize = int(f.BitSize)
				m.BitOff = bitOffset(f)
			}
			ms = append(ms, m)
		}
		return ms
	})
	l.conv[t] = s
	return s
}

// bitOffset gives where a bitfield begins, from the start of its struct. DWARF 4 and 5 count from there, DWARF 2 and 3 from
// the high end of a storage unit.
func bitOffset(f *dwarf.StructField) int {
	if f.BitOffset != 0 || f.ByteSize != 0 {
		unit := f.ByteSize
		if unit == 0 {
			unit = f.Type.Size()
		}
		return int(8*f.ByteOffset + 8*unit - f.BitOffset - f.BitSize)
	}
	return int(8*f.ByteOffset + f.DataBitOffset)
}
