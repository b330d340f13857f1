package dwarfline

import (
	"debug/dwarf"
)

// inst is a function on the way from the code to the function that holds it, with where it was called if it was inlined.
type inst struct {
	name               string
	callFile, callLine int
}

// maxDepth bounds how deep entries nest.
const maxDepth = 256

// chain finds the function around an address and what was inlined there, the innermost first.
func (o *Object) chain(u *unit, addr uint64) ([]inst, error) {
	r := o.d.Reader()
	r.Seek(u.entry.Offset)
	if _, err := r.Next(); err != nil || !u.entry.Children {
		return nil, err
	}
	var out []inst
	for depth := 1; depth > 0 && depth < maxDepth; {
		e, err := r.Next()
		if err != nil || e == nil {
			return out, err
		}
		if e.Tag == 0 {
			depth--
			continue
		}
		inside := false
		switch e.Tag {
		case dwarf.TagSubprogram, dwarf.TagInlinedSubroutine, dwarf.TagLexDwarfBlock, dwarf.TagNamespace:
			ranges, err := o.d.Ranges(e)
			if err != nil {
				return out, err
			}
			inside = contains(ranges, addr) || e.Tag == dwarf.TagNamespace
		}
		switch {
		case inside && e.Tag == dwarf.TagSubprogram:
			out = []inst{{name: o.name(e, 0)}}
		case inside && e.Tag == dwarf.TagInlinedSubroutine:
			file, _ := e.Val(dwarf.AttrCallFile).(int64)
			line, _ := e.Val(dwarf.AttrCallLine).(int64)
			out = append([]inst{{o.name(e, 0), int(file), int(line)}}, out...)
		}
		switch {
		case !e.Children:
		case inside:
			depth++
		default:
			r.SkipChildren()
		}
	}
	return out, nil
}

// name follows an entry to the one that has its name.
func (o *Object) name(e *dwarf.Entry, depth int) string {
	if n, ok := e.Val(dwarf.AttrName).(string); ok {
		return n
	}
	for _, a := range []dwarf.Attr{dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
		off, ok := e.Val(a).(dwarf.Offset)
		if !ok || depth > 8 {
			continue
		}
		r := o.d.Reader()
		r.Seek(off)
		if to, err := r.Next(); err == nil && to != nil {
			return o.name(to, depth+1)
		}
	}
	return ""
}
