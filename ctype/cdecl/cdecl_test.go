package cdecl

import (
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/ctype"
)

type none struct{}

func (none) ByName(ctype.Kind, string) (ctype.Type, error) { return nil, ctype.ErrNotFound }
func (none) EnumValue(string) (*ctype.Enum, int64, bool)   { return nil, 0, false }
func (none) Func(string, string) (*ctype.Func, error)      { return nil, ctype.ErrNotFound }

// layouts are what gcc 12 -m64 gives by offsetof and sizeof.
func TestLayout(t *testing.T) {
	tests := []struct {
		text string
		size int
		want map[string][2]int // bit offset, bit size
	}{
		{`struct T { int a; char b; long c; }`, 16, map[string][2]int{"a": {0, 0}, "b": {32, 0}, "c": {64, 0}}},
		{`struct T { char a[3]; short b; }`, 6, map[string][2]int{"b": {32, 0}}},
		{`struct T { int a:3; int b:5; unsigned c:30; }`, 8, map[string][2]int{"a": {0, 3}, "b": {3, 5}, "c": {32, 30}}},
		{`struct T { char a; int :0; char b; }`, 5, map[string][2]int{"b": {32, 0}}},
		{`struct __attribute__((packed)) T { char a; int b; }`, 5, map[string][2]int{"b": {8, 0}}},
		{`struct T { struct { int x; union { int y; long z; }; }; int w; }`, 24, map[string][2]int{"x": {0, 0}, "z": {64, 0}, "w": {128, 0}}},
		{`struct T { void (*fn)(int, char *); struct T *next; int m[2][3]; }`, 40, map[string][2]int{"next": {64, 0}, "m": {128, 0}}},
		{`typedef unsigned int u; enum E { A = 4, B }; struct T { u x; enum E e; char s[B]; };`, 16, map[string][2]int{"e": {32, 0}, "s": {64, 0}}},
		{`struct T { unsigned long long a; uint16_t b; _Bool c; }`, 16, map[string][2]int{"b": {64, 0}, "c": {80, 0}}},
		{`union T { int a; char b[7]; }`, 8, map[string][2]int{"b": {0, 0}}},
	}
	for _, tt := range tests {
		s := NewScope(none{})
		if err := s.Parse(tt.text); err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		typ, err := s.ByName(ctype.Any, "T")
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if got := ctype.Size(typ); got != tt.size {
			t.Errorf("%s: size %d, want %d", tt.text, got, tt.size)
		}
		for name, want := range tt.want {
			m, ok := typ.(*ctype.Struct).Member(name)
			if got := [2]int{m.BitOff, m.BitSize}; !ok || got != want {
				t.Errorf("%s: %s at %v (%v), want %v", tt.text, name, got, ok, want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	for text, want := range map[string]string{
		`struct T { nosuch x; }`: "unknown type name 'nosuch'",
		`struct T { int x y; }`:  "expected ';'",
		`struct T { int x[`:      "expected a constant",
		`enum { A = B }`:         "unknown constant 'B'",
		`struct T {`:             "expected '}'",
	} {
		err := NewScope(none{}).Parse(text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`struct T { int a:3; struct { char b[4]; }; void (*f)(int); };`, `typedef enum { A = 1 << 3, B } e_t;`, "union U { long x; };"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { _ = NewScope(none{}).Parse(s) })
}
