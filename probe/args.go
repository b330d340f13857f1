package probe

import (
	"sort"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/traceevent"
)

// TracepointArgs gives the fields of an event, common ones left out, their types read from their C text.
func TracepointArgs(f *traceevent.Format, system string, lookup ctype.Lookup) *types.Type {
	space := types.Kernel
	if system == "syscalls" { // what a system call is given points to user memory
		space = types.User
	}
	t := &types.Type{Kind: types.Args}
	for _, fl := range f.Fields {
		if fl.Common {
			continue
		}
		ft := fieldType(fl, space, lookup)
		t.Fields = append(t.Fields, types.Field{Name: fl.Name, Type: ft, Off: fl.Offset, DataLoc: fl.DataLoc, RelLoc: fl.RelLoc})
		t.Size = max(t.Size, fl.Offset+fl.Size)
	}
	return t
}

// fieldType reads a field's type. Arrays whose place is in the record become pointers into it.
func fieldType(f traceevent.Field, space types.Space, lookup ctype.Lookup) *types.Type {
	elem := namedType(f.Type, f, space, lookup)
	switch {
	case f.DataLoc || f.RelLoc:
		return types.PtrTo(elem, types.Kernel)
	case f.ArrayLen > 0 && elem.Kind == types.Int && elem.Size == 1 && strings.HasSuffix(f.Type, "char"):
		return types.StringT(f.Size)
	case f.ArrayLen > 0:
		if elem.Size*f.ArrayLen != f.Size && f.Size%f.ArrayLen == 0 {
			elem = types.IntT(f.Size/f.ArrayLen, f.Signed)
		}
		return types.ArrayOf(elem, f.ArrayLen)
	case f.ArrayLen == 0:
		return types.ArrayOf(elem, 0)
	}
	return elem
}

// namedType reads the text of a type without array bounds: "const char *", "struct file *", "enum x", "u32".
func namedType(text string, f traceevent.Field, space types.Space, lookup ctype.Lookup) *types.Type {
	s := strings.TrimSpace(text)
	stars := strings.Count(s, "*")
	base := strings.Join(strings.Fields(strings.NewReplacer("*", " ", "const ", " ", "volatile ", " ", " const", " ", "__user", " ").Replace(s)), " ")
	size := f.Size
	if f.ArrayLen > 0 {
		size = f.Size / f.ArrayLen
	}
	if stars == 0 {
		if size == 0 || f.DataLoc || f.RelLoc {
			size = baseSize(base)
		}
		if strings.HasPrefix(base, "struct ") || strings.HasPrefix(base, "union ") {
			if c := lookupType(base, lookup); c != nil {
				return types.FromC(c, types.Kernel)
			}
		}
		if strings.HasPrefix(base, "enum ") {
			if c, ok := lookupType(base, lookup).(*ctype.Enum); ok {
				return &types.Type{Kind: types.Enum, Size: size, Signed: f.Signed, C: c, Name: c.Name}
			}
		}
		if base == "bool" && size == 1 {
			return types.BoolT
		}
		return types.IntT(size, f.Signed)
	}
	t := pointee(base, space, lookup)
	for range stars {
		t = types.PtrTo(t, space)
	}
	return t
}

func pointee(base string, space types.Space, lookup ctype.Lookup) *types.Type {
	switch base {
	case "void":
		return types.VoidT
	case "char", "signed char":
		return types.Int8
	case "unsigned char":
		return types.Uint8
	}
	if c := lookupType(base, lookup); c != nil {
		return types.FromC(c, space)
	}
	if n := baseSize(base); n > 0 {
		return types.IntT(n, !strings.Contains(base, "unsigned") && base[0] != 'u')
	}
	return types.VoidT
}

func lookupType(base string, lookup ctype.Lookup) ctype.Type {
	kind, name := ctype.Any, base
	for prefix, k := range map[string]ctype.Kind{"struct ": ctype.KindStruct, "union ": ctype.KindUnion, "enum ": ctype.KindEnum} {
		if n, ok := strings.CutPrefix(base, prefix); ok {
			kind, name = k, n
		}
	}
	t, err := lookup.ByName(kind, name)
	if err != nil {
		return nil
	}
	return t
}

// baseSize gives the bytes of C's base types on the 64-bit kernels we know.
func baseSize(base string) int {
	switch base {
	case "char", "signed char", "unsigned char", "u8", "s8", "__u8", "__s8", "bool":
		return 1
	case "short", "unsigned short", "u16", "s16", "__u16", "__s16":
		return 2
	case "int", "unsigned int", "unsigned", "u32", "s32", "__u32", "__s32", "uid_t", "gid_t", "pid_t":
		return 4
	case "long", "unsigned long", "u64", "s64", "__u64", "__s64", "long long", "unsigned long long", "size_t", "loff_t":
		return 8
	}
	return 1
}

// nearest gives the names most like want, by the number of trigrams they share; at most three.
func nearest(want string, names []string, prefix string) []string {
	type scored struct {
		name string
		n    float64
	}
	have := trigrams(want)
	var best []scored
	for _, n := range names {
		got := trigrams(n)
		common := 0
		for g := range got {
			if have[g] {
				common++
			}
		}
		if s := 2 * float64(common) / float64(len(have)+len(got)); s > 0.5 {
			best = append(best, scored{n, s})
		}
	}
	sort.SliceStable(best, func(i, j int) bool { return best[i].n > best[j].n })
	var out []string
	for _, b := range best[:min(3, len(best))] {
		out = append(out, prefix+b.name)
	}
	return out
}

func trigrams(s string) map[string]bool {
	s = "  " + s + " "
	m := map[string]bool{}
	for i := 0; i+3 <= len(s); i++ {
		m[s[i:i+3]] = true
	}
	return m
}
