package kernel

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/orc"
)

// fake is a kernel of 4 KiB of memory at base, with the types of a lookup made by hand.
type fake struct {
	mem   []byte
	types map[string]ctype.Type
}

const base = 0xffff888000000000

var errHole = errors.New("hole")

func (f *fake) ReadVirt(p []byte, addr uint64) error {
	if addr < base || addr+uint64(len(p)) > base+uint64(len(f.mem)) {
		return &FaultError{Addr: addr, Err: errHole}
	}
	copy(p, f.mem[addr-base:])
	return nil
}
func (f *fake) Symbols() Symbols                            { return nil }
func (f *fake) Types() ctype.Lookup                         { return f }
func (f *fake) Registers() []Regs                           { return nil }
func (f *fake) PerCPU(cpu int) uint64                       { return uint64(cpu) * 0x100 }
func (f *fake) CPUs() []int                                 { return []int{0, 1} }
func (f *fake) Modules() []Module                           { return nil }
func (f *fake) Unwind(uint64) *orc.Table                    { return nil }
func (f *fake) Caps() Caps                                  { return Caps{} }
func (f *fake) put(off int, v uint64)                       { binary.LittleEndian.PutUint64(f.mem[off:], v) }
func (f *fake) EnumValue(string) (*ctype.Enum, int64, bool) { return nil, 0, false }
func (f *fake) Func(string, string) (*ctype.Func, error)    { return nil, ctype.ErrNotFound }
func (f *fake) ByName(_ ctype.Kind, name string) (ctype.Type, error) {
	if t, ok := f.types[name]; ok {
		return t, nil
	}
	return nil, ctype.ErrNotFound
}

func newFake() *fake {
	f := &fake{mem: make([]byte, 4096), types: map[string]ctype.Type{}}
	s32, u64, char := &ctype.Int{Name: "int", Size: 4, Signed: true}, &ctype.Int{Name: "long unsigned int", Size: 8}, &ctype.Int{Name: "char", Size: 1, Char: true}
	var list *ctype.Struct
	list = ctype.NewStruct("list_head", false, 16, func() []ctype.Member {
		return []ctype.Member{{Name: "next", Type: &ctype.Ptr{Elem: list}}, {Name: "prev", Type: &ctype.Ptr{Elem: list}, BitOff: 64}}
	})
	var item *ctype.Struct
	anon := ctype.NewStruct("", true, 4, func() []ctype.Member { return []ctype.Member{{Name: "signed", Type: s32}} })
	item = ctype.NewStruct("item", false, 64, func() []ctype.Member {
		return []ctype.Member{
			{Name: "node", Type: list}, {Type: anon, BitOff: 128}, {Name: "low", Type: s32, BitOff: 160, BitSize: 3}, {Name: "high", Type: s32, BitOff: 163, BitSize: 5},
			{Name: "name", Type: &ctype.Array{Elem: char, Len: 8}, BitOff: 192}, {Name: "other", Type: &ctype.Ptr{Elem: item}, BitOff: 256},
			{Name: "text", Type: &ctype.Ptr{Elem: char}, BitOff: 320}, {Name: "words", Type: &ctype.Array{Elem: u64, Len: 2}, BitOff: 384},
		}
	})
	f.types["list_head"], f.types["item"], f.types["int"], f.types["long unsigned int"] = list, item, s32, u64
	return f
}

func TestValue(t *testing.T) {
	f := newFake()
	f.put(16, 0xfffffffe) // signed = −2
	f.mem[20] = 0b10110_101
	copy(f.mem[24:], "abcdefgh")
	f.put(32, base+0x100) // other
	f.put(40, base+0x200) // text
	f.put(48, 7)
	f.put(56, 8)
	copy(f.mem[0x100+24:], "next\x00")
	copy(f.mem[0x200:], "a string\x00")
	errs := &Errors{}
	v := Object(f, errs, "struct item", base)
	got := []any{v.Get("signed").Int(), v.Get("low").Int(), v.Get("high").Int(), v.Get("name").String(), v.Get("other.name").String(),
		v.Get("text").String(), v.Get("words").At(1).Uint(), v.First("gone", "signed").Int(), v.Has("low"), v.Has("gone")}
	want := []any{-2, -3, -10, "abcdefgh", "next", "a string", uint64(8), -2, true, false}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err := errs.Take(); err != nil {
		t.Error(err)
	}
	// Errors: the first of a chain is kept, and what follows it is zero.
	for path, msg := range map[string]string{
		"gone": "struct item has no member gone", "other.other.name": "null struct item * at 0xffff888000000120", "signed.x": "int is no struct",
	} {
		if n := v.Get(path).Uint(); n != 0 {
			t.Errorf("%s is %d", path, n)
		}
		if err := errs.Take(); err == nil || err.Error() != msg {
			t.Errorf("%s: %v, want %s", path, err, msg)
		}
	}
	var fault *FaultError
	v.Shift(base + 1<<20).Get("signed").Uint()
	if err := errs.Take(); !errors.As(err, &fault) || fault.Addr != base+1<<20+16 || !errors.Is(err, errHole) {
		t.Error(err)
	}
}

func TestList(t *testing.T) {
	f := newFake()
	errs := &Errors{}
	walk := func() (at []uint64) {
		for v := range Object(f, errs, "struct list_head", base).List("struct item", "node") {
			if at = append(at, v.Addr-base); len(at) > 10 {
				break
			}
		}
		return at
	}
	f.put(0, base+0x100)
	f.put(0x100, base+0x200)
	f.put(0x200, base)
	if d := cmp.Diff([]uint64{0x100, 0x200}, walk()); d != "" || errs.Take() != nil {
		t.Error(d)
	}
	f.put(0x200, base+0x200) // points to itself
	if at := walk(); len(at) != 2 || errs.Take() == nil {
		t.Errorf("%x: a loop is an error", at)
	}
	f.put(0x200, base+0x100) // a circle that the head is not in
	if at := walk(); len(at) > 5 || errs.Take() == nil {
		t.Errorf("%x: a circle is an error", at)
	}
	f.put(0x200, 0xdead000000000100)
	if at := walk(); len(at) != 3 || errs.Take() == nil {
		t.Errorf("%x: a broken link is an error", at)
	}
}

func TestTypeNamed(t *testing.T) {
	f := newFake()
	for name, want := range map[string]string{"struct item": "struct item", "struct item *": "struct item *", "unsigned long": "long unsigned int", "void *": "void *", "int**": "int **"} {
		ty, err := TypeNamed(f, name)
		if err != nil || ctype.Name(ty) != want {
			t.Errorf("%s: %v, %v", name, ty, err)
		}
	}
	if _, err := TypeNamed(f, "struct gone"); !errors.Is(err, ctype.ErrNotFound) {
		t.Error(err)
	}
}

func TestReadString(t *testing.T) {
	f := newFake()
	copy(f.mem[4090:], "abcdef") // to the end of memory, without a NUL
	if s, err := ReadString(f, base+4090, 100); err == nil || s != "abcdef" {
		t.Errorf("%q, %v", s, err)
	}
}
