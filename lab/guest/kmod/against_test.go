package kmod

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
)

// given are types by name, as a kernel might have them.
type given map[string][]ctype.Type

func (g given) AllByName(kind ctype.Kind, name string) []ctype.Type {
	if kind != ctype.KindStruct {
		return nil
	}
	return g[name]
}

// TestLayouts: a module's structs from the kernel's headers are compared with all that the kernel has of the name, what the
// kernel does not have is left out, and differences are bounded.
func TestLayouts(t *testing.T) {
	module, err := os.ReadFile(compiled(t, "struct same { long a; int b; };\nstruct moved { int a; long b; };\nstruct own { int x; };\n",
		"struct same s; struct moved m; struct own o;\n"))
	if err != nil {
		t.Fatal(err)
	}
	long, short := &ctype.Int{Name: "long", Size: 8, Signed: true}, &ctype.Int{Name: "int", Size: 4, Signed: true}
	of := func(name string, size int, ms ...ctype.Member) ctype.Type {
		return ctype.NewStruct(name, false, size, func() []ctype.Member { return ms })
	}
	kernel := given{
		"same":  {of("same", 4, ctype.Member{Name: "other", Type: short}), of("same", 16, ctype.Member{Name: "a", Type: long}, ctype.Member{Name: "b", Type: short, BitOff: 64})},
		"moved": {of("moved", 24, ctype.Member{Name: "a", Type: short}, ctype.Member{Name: "c", Type: long, BitOff: 64}, ctype.Member{Name: "b", Type: long, BitOff: 128})},
	}
	compared, differ, diff, err := Layouts(module, kernel, 10)
	want := []Mismatch{{"size of struct moved", "16", "24"}, {"struct moved.b", "offset 8", "offset 16"}}
	if err != nil || compared != 2 || differ != 1 || !cmp.Equal(want, diff) {
		t.Errorf("%v, %d compared, %d differ\n%s", err, compared, differ, cmp.Diff(want, diff))
	}
	if _, _, diff, _ := Layouts(module, kernel, 1); len(diff) != 1 {
		t.Errorf("%d differences, 1 wanted", len(diff))
	}
	if _, _, _, err := Layouts([]byte("no module"), kernel, 1); err == nil {
		t.Error("no module, and no error")
	}
}
