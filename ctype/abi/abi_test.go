package abi

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
)

func TestPlace(t *testing.T) {
	i32, i64 := &ctype.Int{Name: "int", Size: 4, Signed: true}, &ctype.Int{Name: "long", Size: 8, Signed: true}
	f64, ld := &ctype.Float{Name: "double", Size: 8}, &ctype.Float{Name: "long double", Size: 16}
	ptr := &ctype.Ptr{Elem: ctype.Void{}}
	st := func(size int, elem ctype.Type) *ctype.Struct {
		return ctype.NewStruct("s", false, size, func() []ctype.Member { return []ctype.Member{{Name: "m", Type: elem}} })
	}
	pair, big := st(16, &ctype.Array{Elem: i64, Len: 2}), st(32, &ctype.Array{Elem: i64, Len: 4})
	mixed := st(16, &ctype.Array{Elem: f64, Len: 2})
	half := ctype.NewStruct("half", false, 16, func() []ctype.Member {
		return []ctype.Member{{Name: "d", Type: f64}, {Name: "i", Type: i32, BitOff: 64}}
	})
	for _, c := range []struct {
		name   string
		params []ctype.Type
		result ctype.Type
		amd    []Place
		arm    []Place
	}{
		{"integers run out", []ctype.Type{i32, i32, i32, i32, i32, i32, i32, i64}, i32,
			[]Place{{0, 1, false}, {1, 1, false}, {2, 1, false}, {3, 1, false}, {4, 1, false}, {5, 1, false}, {6, 1, false}, {7, 1, false}},
			[]Place{{0, 1, false}, {1, 1, false}, {2, 1, false}, {3, 1, false}, {4, 1, false}, {5, 1, false}, {6, 1, false}, {7, 1, false}}},
		{"numbers between", []ctype.Type{f64, ptr, f64, i32}, ctype.Void{},
			[]Place{{-1, 1, false}, {0, 1, false}, {-1, 1, false}, {1, 1, false}},
			[]Place{{-1, 1, false}, {0, 1, false}, {-1, 1, false}, {1, 1, false}}},
		{"a pair without room does not keep others out on x86", []ctype.Type{i32, i32, i32, i32, i32, pair, i32}, i32,
			[]Place{{0, 1, false}, {1, 1, false}, {2, 1, false}, {3, 1, false}, {4, 1, false}, {6, 2, false}, {5, 1, false}},
			[]Place{{0, 1, false}, {1, 1, false}, {2, 1, false}, {3, 1, false}, {4, 1, false}, {5, 2, false}, {7, 1, false}}},
		{"after a pair without room all are on the stack on arm64", []ctype.Type{pair, pair, pair, i32, pair, i32}, i32,
			[]Place{{0, 2, false}, {2, 2, false}, {4, 2, false}, {6, 1, false}, {7, 2, false}, {9, 1, false}},
			[]Place{{0, 2, false}, {2, 2, false}, {4, 2, false}, {6, 1, false}, {8, 2, false}, {10, 1, false}}},
		{"large structs", []ctype.Type{big, ptr}, i32, []Place{{6, 4, false}, {0, 1, false}}, []Place{{0, 1, true}, {1, 1, false}}},
		{"large result", []ctype.Type{ptr}, big, []Place{{1, 1, false}}, []Place{{0, 1, false}}},
		{"small result", []ctype.Type{ptr}, pair, []Place{{0, 1, false}}, []Place{{0, 1, false}}},
		{"floats in structs", []ctype.Type{mixed, i32}, mixed, []Place{{-1, 2, false}, {0, 1, false}}, []Place{{-1, 2, false}, {0, 1, false}}},
		{"a number and an integer in a struct", []ctype.Type{half, i32}, i32, []Place{{-1, 2, false}, {1, 1, false}}, []Place{{0, 2, false}, {2, 1, false}}},
		{"vector registers run out", []ctype.Type{f64, f64, f64, f64, f64, f64, f64, f64, f64, big, i32}, i32,
			[]Place{{-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false},
				{6, 1, false}, {7, 4, false}, {0, 1, false}},
			[]Place{{-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false}, {-1, 1, false},
				{8, 1, false}, {0, 1, true}, {1, 1, false}}},
		{"long double, nothing", []ctype.Type{ld, st(0, i32), i32}, nil, []Place{{6, 2, false}, {-1, 0, false}, {0, 1, false}},
			[]Place{{-1, 2, false}, {-1, 0, false}, {0, 1, false}}},
	} {
		f := &ctype.Func{Result: c.result}
		for _, p := range c.params {
			f.Params = append(f.Params, ctype.Param{Type: p})
		}
		if d := cmp.Diff(c.amd, AMD64.Place(f)); d != "" {
			t.Errorf("%s, amd64: %s", c.name, d)
		}
		if d := cmp.Diff(c.arm, ARM64.Place(f)); d != "" {
			t.Errorf("%s, arm64: %s", c.name, d)
		}
	}
}
