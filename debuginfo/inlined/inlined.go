// Package inlined finds in debug information into which functions a compiler put another: DWARF 5, 3.3.8
// (DW_TAG_inlined_subroutine with DW_AT_abstract_origin).
package inlined

import (
	"debug/dwarf"
	"fmt"
	"slices"
)

// Into lists the functions that hold inlined code of the function name, sorted: those the code stands in, whatever it was
// inlined through. It is empty if there are none. It reads all units: seconds, for a whole kernel.
func Into(d *dwarf.Data, name string) ([]string, error) {
	var out []string
	r := d.Reader()
	for {
		cu, err := r.Next()
		if err != nil {
			return nil, fmt.Errorf("read debug information: %w", err)
		}
		if cu == nil {
			break
		}
		if cu.Tag != dwarf.TagCompileUnit && cu.Tag != dwarf.TagPartialUnit || !cu.Children {
			r.SkipChildren()
			continue
		}
		u := unit{name: name, names: map[dwarf.Offset]string{}, same: map[dwarf.Offset]dwarf.Offset{}, origins: map[dwarf.Offset]bool{}}
		if err := u.read(r); err != nil {
			return nil, fmt.Errorf("read debug information: %w", err)
		}
		out = append(out, u.into()...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// unit is a compilation unit. An instance may come before the abstract function it is one of, so both are kept to its end.
type unit struct {
	name    string
	names   map[dwarf.Offset]string       // of functions
	same    map[dwarf.Offset]dwarf.Offset // concrete functions, to the abstract ones that have their names
	origins map[dwarf.Offset]bool         // the functions of the name
	found   []instance
}

// instance is a place into which something was inlined.
type instance struct{ origin, in dwarf.Offset }

// read reads up to the end of the unit. Functions nest only in inlined blocks, so the last function is the one around.
func (u *unit) read(r *dwarf.Reader) error {
	var around []dwarf.Offset // the function around each open entry
	in := dwarf.Offset(0)
	for depth := 1; depth > 0; {
		e, err := r.Next()
		if err != nil {
			return err
		}
		if e == nil {
			return nil
		}
		if e.Tag == 0 {
			depth--
			if n := len(around); n > 0 {
				in, around = around[n-1], around[:n-1]
			}
			continue
		}
		self := in
		switch e.Tag {
		case dwarf.TagSubprogram:
			self = e.Offset
			u.function(e)
		case dwarf.TagInlinedSubroutine:
			if o, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok {
				u.found = append(u.found, instance{o, in})
			}
		}
		if e.Children {
			depth++
			around = append(around, in)
			in = self
		}
	}
	return nil
}

// function remembers a function's name; a concrete one may have it from its abstract one.
func (u *unit) function(e *dwarf.Entry) {
	if n, ok := e.Val(dwarf.AttrName).(string); ok {
		u.names[e.Offset] = n
		if n == u.name {
			u.origins[e.Offset] = true
		}
		return
	}
	if o, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset); ok {
		u.same[e.Offset] = o
	}
}

func (u *unit) into() (out []string) {
	for _, f := range u.found {
		if !u.origins[f.origin] {
			continue
		}
		n := u.names[f.in]
		if o, ok := u.same[f.in]; ok {
			n = u.names[o]
		}
		if n != "" && n != u.name {
			out = append(out, n)
		}
	}
	return out
}
