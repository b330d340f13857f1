package check

import (
	"iter"
	"slices"

	"github.com/fathom-trace/fathom/lang/types"
)

// Aggregations as map values.
func agg(k types.Kind, signed bool) *types.Type {
	size := 16
	if k == types.Sum {
		size = 8
	}
	return &types.Type{Kind: k, Size: size, Signed: signed}
}

var countT = &types.Type{Kind: types.Count, Size: 8}

// Funcs gives the table of functions and builtins, for listings and help. The rows are not to be changed.
func Funcs() iter.Seq[*Func] {
	return func(yield func(*Func) bool) {
		for _, rows := range [][]*Func{builtinRows, outputRows, mapRows, aggRows, readRows, stringRows, convertRows, compileRows} {
			for _, f := range rows {
				if !yield(f) {
					return
				}
			}
		}
	}
}

// funcTable indexes the rows by name.
func funcTable() map[string]*Func {
	t := map[string]*Func{}
	for f := range Funcs() {
		t[f.Name] = f
	}
	return t
}

// IsFunc reports names the language gives a meaning as function or builtin.
func IsFunc(name string) bool {
	return isArgN(name) || slices.ContainsFunc(slices.Collect(Funcs()), func(f *Func) bool { return f.Name == name })
}
