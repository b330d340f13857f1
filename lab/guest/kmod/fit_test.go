package kmod

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
)

// buff makes a struct of members with 8 bytes each, without those that are "".
func buff(name string, members ...string) *ctype.Struct {
	var ms []ctype.Member
	for i, m := range members {
		ms = append(ms, ctype.Member{Name: m, Type: &ctype.Int{Name: "u64", Size: 8}, BitOff: 64 * i})
	}
	return ctype.NewStruct(name, false, 8*len(members), func() []ctype.Member { return ms })
}

func TestCompareStruct(t *testing.T) {
	nested := ctype.NewStruct("b", false, 24, func() []ctype.Member {
		return []ctype.Member{
			{Name: "x", Type: ctype.Void{}},
			{Type: ctype.NewStruct("", true, 16, func() []ctype.Member {
				return []ctype.Member{{Name: "y", Type: ctype.Void{}}, {Name: "z", Type: ctype.Void{}, BitOff: 64}}
			}), BitOff: 64},
		}
	})
	bits := func(off int) *ctype.Struct {
		return ctype.NewStruct("b", false, 4, func() []ctype.Member { return []ctype.Member{{Name: "f", BitOff: off, BitSize: 2, Type: ctype.Void{}}} })
	}
	for _, tt := range []struct {
		name   string
		module *ctype.Struct
		kernel []*ctype.Struct
		want   []Mismatch
	}{
		{"equal", buff("b", "x", "y"), []*ctype.Struct{buff("b", "x", "y")}, nil},
		{"of the module alone", buff("b", "x"), nil, nil},
		{"equal to the second of a name", buff("b", "x", "y"), []*ctype.Struct{buff("b", "q"), buff("b", "x", "y")}, nil},
		{"anonymous members", nested, []*ctype.Struct{buff("b", "x", "y", "z")}, nil},
		{"a member more", buff("b", "x", "processed", "y"), []*ctype.Struct{buff("b", "x", "y")}, []Mismatch{
			{"size of struct b", "24", "16"}, {"struct b.processed", "offset 8", "not there"},
		}},
		{"a member less", buff("b", "x", "y"), []*ctype.Struct{buff("b", "x", "new", "y")}, []Mismatch{
			{"size of struct b", "16", "24"}, {"struct b.y", "offset 8", "offset 16"},
		}},
		{"the last is missing", buff("b", "x"), []*ctype.Struct{buff("b", "x", "y")}, []Mismatch{
			{"size of struct b", "8", "16"}, {"struct b.y", "not there", "offset 8"},
		}},
		{"the nearer of two", buff("b", "x", "y"), []*ctype.Struct{buff("b", "q"), buff("b", "x", "z")}, []Mismatch{{"struct b.y", "offset 8", "not there"}}},
		{"bits", bits(3), []*ctype.Struct{bits(8)}, []Mismatch{{"struct b.f", "offset 0, bits 3 to 4", "offset 1, bits 0 to 1"}}},
	} {
		if d := cmp.Diff(tt.want, compareStruct(tt.module, tt.kernel)); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
}

// TestOpenKernel reads the kernels of the lab: their own modules fit them. Those of 6.1 have no debug information; what
// is compared are the versions of symbols.
func TestOpenKernel(t *testing.T) {
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	images, _ := filepath.Glob(filepath.Join(dir, "fathom", "kernels", "*", "boot", "vmlinuz-*"))
	if len(images) == 0 {
		t.Skip("no kernels in the cache")
	}
	var kernels []*Kernel
	var mods []Module
	for _, name := range images {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		k, err := OpenKernel(b)
		if err != nil {
			t.Fatal(name, err)
		}
		all, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "..", "lib", "modules", "*"))
		d, err := Open(os.DirFS(all[0]))
		if err != nil {
			t.Fatal(err)
		}
		m, err := d.Load("veth")
		if err != nil {
			t.Fatal(err)
		}
		if err := k.Fits("veth", m.ELF); err != nil {
			t.Error(name, err)
		}
		if len(k.crcs) < 5000 {
			t.Errorf("%s exports %d symbols", name, len(k.crcs))
		}
		kernels, mods = append(kernels, k), append(mods, m)
	}
	if last := len(kernels) - 1; last > 0 {
		var m *MismatchError
		if err := kernels[0].Fits("veth", mods[last].ELF); !errors.As(err, &m) || len(m.Fields) == 0 {
			t.Errorf("a module of %s fits %s: %v", images[last], images[0], err)
		}
	}
}
