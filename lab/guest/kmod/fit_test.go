package kmod

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/oracle"
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

// FuzzHeaderStructs: debug information is what a file says it is.
func FuzzHeaderStructs(f *testing.F) {
	for _, name := range []string{"gcc", "cc"} {
		cc, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		dir := f.TempDir()
		src := filepath.Join(dir, "include", "a.c")
		out := filepath.Join(dir, "a.o")
		if os.MkdirAll(filepath.Dir(src), 0o755) == nil && os.WriteFile(src, []byte("struct s { int a:3; union { long b; char c[4]; }; } v;"), 0o644) == nil &&
			exec.Command(cc, "-g", "-c", "-o", out, src).Run() == nil {
			if b, err := os.ReadFile(out); err == nil {
				f.Add(b)
			}
		}
		break
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := elf.NewFile(bytes.NewReader(b))
		if err != nil {
			return
		}
		structs, err := headerStructs(e)
		if err != nil {
			return
		}
		for _, s := range structs {
			_ = layoutDiff(s, s)
		}
		_ = (&Kernel{crcs: map[string]uint32{"x": 1}}).versions(e)
	})
}

// compiled has a C compiler make an object, with debug information, of a.c and the header of its include folder, and gives
// where it is.
func compiled(t *testing.T, header, source string) string {
	t.Helper()
	cc, dir := oracle.Path(t, "gcc"), t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "include"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"include/a.h": header, "a.c": "#include \"include/a.h\"\n" + source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(cc, "-g", "-c", "a.c")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile: %v: %s", err, out)
	}
	return filepath.Join(dir, "a.o")
}

// TestHeaderStructs: a compiler's debug information is read as it was meant.
func TestHeaderStructs(t *testing.T) {
	object := compiled(t, "struct seen { int a:3, b:7; union { long c; char d[4]; }; const struct { short e, f; }; struct later *g; };",
		"struct own { struct seen s; int x; };\nstruct own v;\n")
	f, err := elf.Open(object)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	structs, err := headerStructs(f)
	if err != nil || len(structs) != 1 || structs[0].Name != "seen" || structs[0].Size != 32 {
		t.Fatalf("%+v: %v", structs, err)
	}
	want := []field{{"a", 0, 3}, {"b", 3, 7}, {"c", 64, 0}, {"d", 64, 0}, {"e", 128, 0}, {"f", 144, 0}, {"g", 192, 0}}
	if d := cmp.Diff(want, fields(structs[0], 0, 0), cmp.AllowUnexported(field{})); d != "" {
		t.Error(d)
	}
}
