// Package dwarftypes fills the C type model from DWARF: types by name, prototypes of functions, and the addresses of
// source lines. Nothing is read before it is asked for; a question about one function reads one unit.
//
// Entries are decoded by the standard library's debug/dwarf (DWARF 2 to 5). Not read: C++ members functions and templates
// as such, variant parts, and location expressions.
package dwarftypes

import (
	"debug/dwarf"
	"fmt"
	"path"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
)

// Lookup finds types in the debug information of one program.
type Lookup struct {
	data  []*dwarf.Data
	units [][]unit // by data; nil until read
	first *unit    // where names are looked for first
	conv  map[dwarf.Type]ctype.Type
	known map[key]ctype.Type
	enums map[string]enumValue
}

type unit struct {
	data  *dwarf.Data
	entry *dwarf.Entry
}

type key struct {
	kind ctype.Kind
	name string
}

type enumValue struct {
	e *ctype.Enum
	v int64
}

var _ ctype.Lookup = (*Lookup)(nil)

// New returns a Lookup over debug information: that of the program itself, then what it keeps in other files.
func New(data ...*dwarf.Data) *Lookup {
	return &Lookup{data: data, conv: map[dwarf.Type]ctype.Type{}, known: map[key]ctype.Type{}}
}

// guard turns a panic of the standard library's decoder, which does not promise to stand hostile input, into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("read DWARF: %v", p)
	}
}

// all gives the units of all files, those of first first.
func (l *Lookup) all() []unit {
	if l.units == nil {
		l.units = make([][]unit, len(l.data))
		for i, d := range l.data {
			l.units[i] = readUnits(d)
		}
	}
	var out []unit
	if l.first != nil {
		out = append(out, *l.first)
	}
	for _, us := range l.units {
		out = append(out, us...)
	}
	return out
}

// maxPadding bounds the empty entries between two units.
const maxPadding = 1 << 16

func readUnits(d *dwarf.Data) (out []unit) {
	r := d.Reader()
	for empty := 0; empty < maxPadding; {
		e, err := r.Next()
		if err != nil || e == nil {
			return out
		}
		if e.Tag == 0 {
			empty++
			continue
		}
		if len(out) > 0 && e.Offset <= out[len(out)-1].entry.Offset {
			return out // damaged data can lead the reader in a circle
		}
		empty = 0
		out = append(out, unit{d, e})
		r.SkipChildren()
	}
	return out
}

// tags of the entries a kind of name may belong to.
var tags = map[dwarf.Tag]ctype.Kind{
	dwarf.TagStructType: ctype.KindStruct, dwarf.TagClassType: ctype.KindStruct, dwarf.TagUnionType: ctype.KindUnion,
	dwarf.TagEnumerationType: ctype.KindEnum, dwarf.TagTypedef: ctype.KindTypedef, dwarf.TagBaseType: ctype.KindBase,
}

// ByName implements ctype.Lookup. Declarations without a body do not count.
func (l *Lookup) ByName(kind ctype.Kind, name string) (t ctype.Type, err error) {
	defer guard(&err)
	kinds := []ctype.Kind{kind}
	if kind == ctype.Any {
		kinds = []ctype.Kind{ctype.KindStruct, ctype.KindUnion, ctype.KindEnum, ctype.KindTypedef, ctype.KindBase}
	}
	for _, k := range kinds {
		t, ok := l.known[key{k, name}]
		if !ok {
			t = l.find(k, name)
			l.known[key{k, name}] = t
		}
		if t != nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ctype.ErrNotFound)
}

// find looks through the top level of all units. C++ names inside namespaces are looked for by their last part.
func (l *Lookup) find(kind ctype.Kind, name string) ctype.Type {
	if i := strings.LastIndex(name, "::"); i >= 0 {
		name = name[i+2:]
	}
	for _, u := range l.all() {
		var found ctype.Type
		u.walk(func(e *dwarf.Entry) bool {
			if tags[e.Tag] != kind || e.Val(dwarf.AttrDeclaration) != nil {
				return true
			}
			if n, _ := e.Val(dwarf.AttrName).(string); n == name {
				found = l.typeAt(u.data, e.Offset)
			}
			return found == nil
		})
		if found != nil {
			return found
		}
	}
	return nil
}

// walk calls f for the entries at the top level of a unit and of its namespaces, until f gives false.
func (u unit) walk(f func(*dwarf.Entry) bool) {
	r := u.data.Reader()
	r.Seek(u.entry.Offset)
	if _, err := r.Next(); err != nil || !u.entry.Children {
		return
	}
	for depth := 1; depth > 0; {
		e, err := r.Next()
		switch {
		case err != nil || e == nil:
			return
		case e.Tag == 0:
			depth--
		case e.Tag == dwarf.TagNamespace && e.Children:
			depth++
		default:
			if !f(e) {
				return
			}
			if e.Children {
				r.SkipChildren()
			}
		}
	}
}

// EnumValue implements ctype.Lookup. The first call reads all enums.
func (l *Lookup) EnumValue(name string) (e *ctype.Enum, v int64, ok bool) {
	if l.enums == nil {
		l.enums = map[string]enumValue{}
		l.readEnums()
	}
	x, ok := l.enums[name]
	return x.e, x.v, ok
}

func (l *Lookup) readEnums() {
	var err error // damaged information gives what could be read
	defer guard(&err)
	for _, u := range l.all() {
		u.walk(func(e *dwarf.Entry) bool {
			if e.Tag != dwarf.TagEnumerationType {
				return true
			}
			if t, ok := l.typeAt(u.data, e.Offset).(*ctype.Enum); ok {
				for _, v := range t.Values {
					if _, dup := l.enums[v.Name]; !dup {
						l.enums[v.Name] = enumValue{t, v.Value}
					}
				}
			}
			return true
		})
	}
}

// Func implements ctype.Lookup; module is not looked at.
func (l *Lookup) Func(module, name string) (f *ctype.Func, err error) {
	defer guard(&err)
	for _, u := range l.all() {
		if f := l.funcIn(u, func(e *dwarf.Entry) bool { return named(u.data, e, name) }); f != nil {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, ctype.ErrNotFound)
}

// FuncAt gives the prototype of the function that begins at an address, as linked. Names are then looked for in its unit
// first. If no unit has the address, name finds the function.
func (l *Lookup) FuncAt(pc uint64, name string) (f *ctype.Func, err error) {
	defer guard(&err)
	at := func(e *dwarf.Entry) bool {
		low, ok := e.Val(dwarf.AttrLowpc).(uint64)
		return ok && low == pc
	}
	if len(l.data) > 0 {
		if e, err := l.data[0].Reader().SeekPC(pc); err == nil {
			u := unit{l.data[0], e}
			l.first = &u
			if f := l.funcIn(u, at); f != nil {
				return f, nil
			}
		}
	}
	if len(l.data) > 1 { // the unit found is but a skeleton
		for _, u := range l.all() {
			if u.data == l.data[0] {
				continue
			}
			if f := l.funcIn(u, at); f != nil {
				l.first = &u
				return f, nil
			}
		}
	}
	return l.Func("", name)
}

// named compares a function's name, which C++ keeps with its declaration, and its linkage name.
func named(d *dwarf.Data, e *dwarf.Entry, name string) bool {
	for range 4 {
		for _, a := range []dwarf.Attr{dwarf.AttrName, dwarf.AttrLinkageName} {
			if n, _ := e.Val(a).(string); n == name {
				return true
			}
		}
		off, ok := origin(e)
		if !ok {
			return false
		}
		r := d.Reader()
		r.Seek(off)
		next, err := r.Next()
		if err != nil || next == nil {
			return false
		}
		e = next
	}
	return false
}

func origin(e *dwarf.Entry) (dwarf.Offset, bool) {
	if off, ok := e.Val(dwarf.AttrSpecification).(dwarf.Offset); ok {
		return off, true
	}
	off, ok := e.Val(dwarf.AttrAbstractOrigin).(dwarf.Offset)
	return off, ok
}

func (l *Lookup) funcIn(u unit, is func(*dwarf.Entry) bool) *ctype.Func {
	var found *ctype.Func
	u.walk(func(e *dwarf.Entry) bool {
		if e.Tag == dwarf.TagSubprogram && is(e) {
			found = l.prototype(u.data, e)
		}
		return found == nil
	})
	return found
}

// prototype reads a function's parameters, from the declaration where the definition names none.
func (l *Lookup) prototype(d *dwarf.Data, e *dwarf.Entry) *ctype.Func {
	f := &ctype.Func{Result: ctype.Void{}}
	for range 4 {
		if n, _ := e.Val(dwarf.AttrName).(string); n != "" && f.Name == "" {
			f.Name = n
		}
		if off, ok := e.Val(dwarf.AttrType).(dwarf.Offset); ok {
			f.Result = l.typeAt(d, off)
		}
		if f.Params == nil {
			f.Params = l.params(d, e)
		}
		off, ok := origin(e)
		if !ok {
			break
		}
		r := d.Reader()
		r.Seek(off)
		next, err := r.Next()
		if err != nil || next == nil {
			break
		}
		e = next
	}
	return f
}

func (l *Lookup) params(d *dwarf.Data, e *dwarf.Entry) []ctype.Param {
	var out []ctype.Param
	if !e.Children {
		return nil
	}
	r := d.Reader()
	r.Seek(e.Offset)
	r.Next()
	for {
		c, err := r.Next()
		if err != nil || c == nil || c.Tag == 0 {
			return out
		}
		if c.Tag == dwarf.TagFormalParameter {
			p := ctype.Param{Type: ctype.Void{}}
			p.Name, _ = c.Val(dwarf.AttrName).(string)
			at := c
			if off, ok := origin(c); ok { // of an inlined function
				o := d.Reader()
				o.Seek(off)
				if oe, err := o.Next(); err == nil && oe != nil {
					at = oe
				}
			}
			if p.Name == "" {
				p.Name, _ = at.Val(dwarf.AttrName).(string)
			}
			if off, ok := at.Val(dwarf.AttrType).(dwarf.Offset); ok {
				p.Type = l.typeAt(d, off)
				if byReference(d, off, 0) {
					p.Type = &ctype.Ptr{Elem: p.Type}
				}
			}
			out = append(out, p)
		}
		if c.Children {
			r.SkipChildren()
		}
	}
}

// Lines gives the addresses, as linked, at which statements of a source line begin, in the order of the line tables. file
// is a name, or as much of the end of its path as tells it apart.
func (l *Lookup) Lines(file string, line int) (addrs []uint64, err error) {
	defer guard(&err)
	for _, u := range l.all() {
		lr, err := u.data.LineReader(u.entry)
		if err != nil || lr == nil {
			continue
		}
		var e dwarf.LineEntry
		last := 0
		for lr.Next(&e) == nil {
			if e.IsStmt && !e.EndSequence && e.Line == line && last != line && sameFile(e.File, file) {
				addrs = append(addrs, e.Address)
			}
			last = e.Line
			if e.EndSequence {
				last = 0
			}
		}
	}
	return addrs, nil
}

func sameFile(f *dwarf.LineFile, want string) bool {
	if f == nil {
		return false
	}
	have := path.Clean(f.Name)
	want = path.Clean(want)
	return have == want || strings.HasSuffix(have, "/"+strings.TrimPrefix(want, "/"))
}
