package btftypes

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/ulikunitz/xz"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/bzimage"
)

// TestOracle compares every type of this machine's kernel with what cilium/ebpf reads.
func TestOracle(t *testing.T) {
	t.Parallel()
	raw := vmlinux(t)
	spec, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	k, err := Parse(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	l := New(k, nil)
	compare(t, l, k, spec, 1)
	compareNames(t, l, k, spec)
	again, err := Parse(headerSwapped(t, raw), nil)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, New(again, nil), again, spec, 16)
}

// headerSwapped gives BTF in the other byte order.
func headerSwapped(t *testing.T, raw []byte) []byte {
	t.Helper()
	h := rec(raw)
	hdr, at, n := le(h[4:]), le(h[8:]), le(h[12:])
	out := bytes.Clone(raw)
	out[0], out[1] = raw[1], raw[0]
	copy(out[4:], swap(raw[4:headerLen]))
	copy(out[hdr+at:], swap(raw[hdr+at:hdr+at+n]))
	return out
}

// TestOracleModules compares the types of modules with what cilium/ebpf reads, for the kernels in the cache of the lab.
func TestOracleModules(t *testing.T) {
	t.Parallel()
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Skip(err)
	}
	kernels := filepath.Join(dir, "fathom", "kernels", "*")
	images, _ := filepath.Glob(filepath.Join(kernels, "boot", "vmlinuz-*"))
	merged, _ := filepath.Glob(filepath.Join(kernels, "usr", "lib", "modules", "*", "vmlinuz"))
	images = append(images, merged...)
	if len(images) == 0 || testing.Short() {
		t.Skip("no kernels in the cache, or -short")
	}
	for _, name := range images {
		t.Run(filepath.Base(name), func(t *testing.T) { compareModules(t, name) })
	}
}

func compareModules(t *testing.T, image string) {
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = bzimage.Vmlinux(b); err != nil {
		t.Fatal(err)
	}
	raw := section(b)
	base, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	k, err := Parse(raw, nil)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, New(k, nil), k, base, 1)
	n := 0
	root := filepath.Dir(image)
	if filepath.Base(root) == "boot" {
		root = filepath.Join(root, "..", "lib", "modules")
	}
	for _, want := range []string{"veth.ko", "ext4.ko", "nf_tables.ko"} {
		_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || strings.TrimSuffix(d.Name(), ".xz") != want {
				return nil
			}
			n++
			raw := section(module(t, path))
			if len(raw) == 0 {
				t.Skip("modules have types since Linux 5.11: ", path)
			}
			spec, err := btf.LoadSplitSpecFromReader(bytes.NewReader(raw), base)
			if err != nil {
				t.Fatal(path, err)
			}
			m, err := Parse(raw, k)
			if err != nil {
				t.Fatal(path, err)
			}
			l := New(k, func(string) (*BTF, error) { return m, nil })
			if err := l.Load(want); err != nil {
				t.Fatal(err)
			}
			compare(t, l, m, spec, 1)
			return fs.SkipAll
		})
	}
	if n == 0 {
		t.Errorf("no modules below %s", root)
	}
}

// module reads a module's file, packed or not.
func module(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".xz") {
		if r, err = xz.NewReader(f); err != nil {
			t.Fatal(err)
		}
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(path, err)
	}
	return b
}

// section gives the section .BTF of an ELF file; nil if there is none.
func section(file []byte) []byte {
	f, err := elf.NewFile(bytes.NewReader(file))
	if err != nil || f.Section(".BTF") == nil {
		return nil
	}
	b, err := f.Section(".BTF").Data()
	if err != nil {
		return nil
	}
	return b
}

// compare compares every step-th type of b.
func compare(t *testing.T, l *Lookup, b *BTF, spec *btf.Spec, step uint32) {
	t.Helper()
	seen, failed := 0, 0
	p := l.part(b)
	for id := b.first; id < b.end(); id += step {
		want, err := spec.TypeByID(btf.TypeID(id))
		if err != nil {
			t.Fatal(id, err)
		}
		seen++
		if p.convert(id, 0) != p.convert(id, 0) {
			t.Errorf("type %d is two types", id)
		}
		if got, want := describe(p.convert(id, 0)), describeOracle(want); got != want {
			if failed++; failed < 10 {
				t.Errorf("type %d: %s\nwant %s", id, got, want)
			}
		}
	}
	if _, err := spec.TypeByID(btf.TypeID(b.end())); err == nil {
		t.Errorf("there are more than %d types", b.end())
	}
	t.Logf("%d types, %d differ", seen, failed)
}

// compareNames asks for every name.
func compareNames(t *testing.T, l *Lookup, b *BTF, spec *btf.Spec) {
	t.Helper()
	for id := b.first; id < b.end(); id++ {
		want, _ := spec.TypeByID(btf.TypeID(id))
		name := want.TypeName()
		switch want := want.(type) {
		case *btf.Func:
			f, err := l.Func("", name)
			if err != nil || f.Name != name {
				t.Errorf("function %s: %v", name, err)
			}
			continue
		case *btf.Enum:
			for _, v := range want.Values[:min(1, len(want.Values))] {
				if id%50 != 0 {
					break
				}
				e, _, ok := l.EnumValue(v.Name)
				if !ok || len(e.Values) == 0 {
					t.Errorf("enumerator %s: %v", v.Name, e)
				}
			}
		case *btf.Struct, *btf.Union, *btf.Typedef, *btf.Int, *btf.Float:
		default:
			continue
		}
		if name == "" {
			continue
		}
		_, r := b.at(id)
		got, same := l.AllByName(kindOf(r), name), false
		for _, g := range got {
			same = same || g == l.part(b).convert(id, 0)
		}
		if !same {
			t.Errorf("type %d, %s: not among the %d of its name", id, name, len(got))
		}
		if first, err := l.ByName(kindOf(r), name); err != nil || first != got[0] {
			t.Errorf("%s: %v, %v", name, first, err)
		}
	}
}

// describe gives a type in words, with its members.
func describe(t ctype.Type) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%s size %d", ctype.Name(t), ctype.Size(t))
	switch t := t.(type) {
	case *ctype.Struct:
		for _, m := range t.Members() {
			fmt.Fprintf(&s, "; %s %s at %d:%d%s", ctype.Name(m.Type), m.Name, m.BitOff, m.BitSize, tags(m.Type))
		}
	case *ctype.Typedef:
		fmt.Fprintf(&s, " = %s%s", ctype.Name(t.Type), tags(t.Type))
	case *ctype.Enum:
		for _, v := range t.Values {
			fmt.Fprintf(&s, "; %s = %d", v.Name, v.Value)
		}
	case *ctype.Func:
		for _, p := range t.Params {
			fmt.Fprintf(&s, "; %s%s", p.Name, tags(p.Type))
		}
	case *ctype.Int:
		fmt.Fprintf(&s, " %t %t", t.Signed, t.Bool)
	}
	return s.String() + tags(t)
}

func tags(t ctype.Type) string {
	if p, ok := t.(*ctype.Ptr); ok && len(p.Tags) > 0 {
		return fmt.Sprint(p.Tags)
	}
	return ""
}

// describeOracle is describe for the types of cilium/ebpf.
func describeOracle(t btf.Type) string {
	var s strings.Builder
	t = bare(t)
	switch u := t.(type) {
	case *btf.Func:
		t = u.Type
	case *btf.Void, *btf.Struct, *btf.Union, *btf.Fwd, *btf.Enum, *btf.Typedef, *btf.Int, *btf.Float, *btf.Pointer, *btf.Array, *btf.FuncProto:
	default: // what the model does not have: variables, declaration tags
		return "void size 0"
	}
	fmt.Fprintf(&s, "%s size %d", cName(t), cSize(t))
	switch t := t.(type) {
	case *btf.Struct:
		cMembers(&s, t.Members)
	case *btf.Union:
		cMembers(&s, t.Members)
	case *btf.Typedef:
		fmt.Fprintf(&s, " = %s%s", cName(t.Type), cTags(t.Type))
	case *btf.Enum:
		for _, v := range t.Values {
			n := int64(v.Value)
			if t.Signed && t.Size == 4 {
				n = int64(int32(v.Value))
			}
			fmt.Fprintf(&s, "; %s = %d", v.Name, n)
		}
	case *btf.FuncProto:
		for _, p := range t.Params {
			fmt.Fprintf(&s, "; %s%s", p.Name, cTags(p.Type))
		}
	case *btf.Int:
		fmt.Fprintf(&s, " %t %t", t.Encoding == btf.Signed, t.Encoding == btf.Bool)
	}
	return s.String() + cTags(t)
}

func cMembers(s *strings.Builder, ms []btf.Member) {
	for _, m := range ms {
		fmt.Fprintf(s, "; %s %s at %d:%d%s", cName(m.Type), m.Name, m.Offset, m.BitfieldSize, cTags(m.Type))
	}
}

// bare takes qualifiers and tags off.
func bare(t btf.Type) btf.Type {
	for {
		switch q := t.(type) {
		case *btf.Const:
			t = q.Type
		case *btf.Volatile:
			t = q.Type
		case *btf.Restrict:
			t = q.Type
		case *btf.TypeTag:
			t = q.Type
		default:
			return t
		}
	}
}

func cSize(t btf.Type) int {
	switch t := btf.UnderlyingType(t).(type) {
	case *btf.Fwd, *btf.FuncProto, *btf.Void:
		return 0
	case *btf.Array:
		return int(t.Nelems) * cSize(t.Type)
	default:
		n, err := btf.Sizeof(t)
		if err != nil {
			return 0
		}
		return n
	}
}

func cName(t btf.Type) string {
	t = bare(t)
	switch t := t.(type) {
	case *btf.Void:
		return "void"
	case *btf.Struct:
		return strings.TrimSpace("struct " + t.Name)
	case *btf.Union:
		return strings.TrimSpace("union " + t.Name)
	case *btf.Fwd:
		return t.Kind.String() + " " + t.Name
	case *btf.Enum:
		return strings.TrimSpace("enum " + t.Name)
	case *btf.Array:
		dims := ""
		for {
			dims += fmt.Sprintf("[%d]", t.Nelems)
			in, ok := bare(t.Type).(*btf.Array)
			if !ok {
				return cName(t.Type) + dims
			}
			t = in
		}
	case *btf.Pointer:
		if f, ok := bare(t.Target).(*btf.FuncProto); ok {
			return cName(f.Return) + " (*)(" + cParams(f) + ")"
		}
		in := cName(t.Target)
		if strings.HasSuffix(in, "*") {
			return in + "*"
		}
		return in + " *"
	case *btf.FuncProto:
		return cName(t.Return) + " (" + cParams(t) + ")"
	}
	return t.TypeName()
}

func cParams(f *btf.FuncProto) string {
	var s []string
	for _, p := range f.Params {
		s = append(s, cName(p.Type))
	}
	return strings.Join(s, ", ")
}

// cTags gives the type tags between a pointer and its target.
func cTags(t btf.Type) string {
	p, ok := bare(t).(*btf.Pointer)
	if !ok {
		return ""
	}
	var out []string
	for t := p.Target; ; {
		switch q := t.(type) {
		case *btf.TypeTag:
			if t = q.Type; !strings.Contains(q.Value, "(") { // with kind_flag, which cilium/ebpf does not say, it is an attribute
				out = append(out, q.Value)
			}
			continue
		case *btf.Const:
			t = q.Type
			continue
		case *btf.Volatile:
			t = q.Type
			continue
		case *btf.Restrict:
			t = q.Type
			continue
		}
		if len(out) == 0 {
			return ""
		}
		return fmt.Sprint(out)
	}
}
