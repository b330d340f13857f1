package cexpr_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/debuginfo/orc"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/cexpr"
)

// fake is a kernel of one page at base: a struct item at its begin, another at 0x100, and a number at 0x200.
type fake struct {
	kernel.Target
	mem  []byte
	item *ctype.Struct
}

const base = 0xffff888000000000

func newFake() *fake {
	f := &fake{mem: make([]byte, 4096)}
	int32t, char := &ctype.Int{Name: "int", Size: 4, Signed: true}, &ctype.Int{Name: "char", Size: 1, Char: true, Signed: true}
	f.item = ctype.NewStruct("item", false, 32, func() []ctype.Member {
		return []ctype.Member{{Name: "next", Type: &ctype.Ptr{Elem: f.item}}, {Name: "n", Type: int32t, BitOff: 64}, {Name: "low", Type: int32t, BitOff: 96, BitSize: 3},
			{Name: "name", Type: &ctype.Array{Elem: char, Len: 8}, BitOff: 128}, {Name: "words", Type: &ctype.Array{Elem: &ctype.Int{Name: "u32", Size: 4}, Len: 2}, BitOff: 192}}
	})
	binary.LittleEndian.PutUint64(f.mem, base+0x100)
	binary.LittleEndian.PutUint32(f.mem[8:], 0xfffffffe)
	f.mem[12] = 0b110
	copy(f.mem[16:], "first")
	binary.LittleEndian.PutUint32(f.mem[28:], 77)
	binary.LittleEndian.PutUint64(f.mem[0x200:], 0xfffffffffffffff0)
	copy(f.mem[0x110:], "second")
	return f
}

func (f *fake) ReadVirt(p []byte, addr uint64) error {
	if addr < base || addr+uint64(len(p)) > base+uint64(len(f.mem)) {
		return &kernel.FaultError{Addr: addr, Err: errors.New("hole")}
	}
	copy(p, f.mem[addr-base:])
	return nil
}
func (f *fake) Types() ctype.Lookup                      { return f }
func (f *fake) PerCPU(int) uint64                        { return 0 }
func (f *fake) Unwind(uint64) *orc.Table                 { return nil }
func (f *fake) Func(string, string) (*ctype.Func, error) { return nil, ctype.ErrNotFound }
func (f *fake) EnumValue(name string) (*ctype.Enum, int64, bool) {
	return &ctype.Enum{Name: "e", Size: 4}, 7, name == "SEVEN"
}
func (f *fake) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	switch {
	case name == "item" && (kind == ctype.KindStruct || kind == ctype.Any):
		return f.item, nil
	case name == "u64" && (kind == ctype.KindTypedef || kind == ctype.Any):
		return &ctype.Typedef{Name: "u64", Type: &ctype.Int{Name: "unsigned long", Size: 8}}, nil
	}
	return nil, ctype.ErrNotFound
}

// Var implements cexpr.Names.
func (f *fake) Var(name string) (ctype.Type, uint64, error) {
	switch name {
	case "a":
		return f.item, base, nil
	case "big":
		return &ctype.Int{Name: "unsigned long", Size: 8}, base + 0x200, nil
	case "dark":
		return ctype.Void{}, base + 0x200, nil
	case "gone":
		return f.item, base + 1<<20, nil
	}
	return nil, 0, fmt.Errorf("%s: %w", name, cexpr.ErrUnknown)
}

func TestEval(t *testing.T) {
	f := newFake()
	for _, tt := range []struct {
		text string
		want int64
		typ  string
	}{
		{"1+2*3", 7, "long"}, {"(1+2)*3", 9, "long"}, {"-7/2", -3, "long"}, {"-7%4", -3, "long"}, {"1<<4|3", 19, "long"}, {"~0", -1, "long"},
		{"0x10 == 16 && 3 > 2", 1, "long"}, {"!5 || 1 < 0", 0, "long"}, {"-1 > 0", 0, "long"}, {"-1 > 0ul", 1, "long"}, {"'a'", 97, "long"}, {"10 - 3 - 2", 5, "long"},
		{"a.n", -2, "int"}, {"a.low", -2, "int"}, {"a.next->name[0]", 's', "char"}, {"a.next.next", 0, "struct item *"}, {"a.words[1]", 77, "u32"},
		{"&a", base - 1<<64, "struct item *"}, {"&a + 1 == (struct item *)0xffff888000000020", 1, "long"}, {"&a.words[1] - &a.words[0]", 1, "long"},
		{"(*(struct item *)0xffff888000000000).n", -2, "int"}, {"((struct item *)&a)->n", -2, "int"}, {"*(int *)(&a.n)", -2, "int"},
		{"sizeof(struct item)", 32, "unsigned long"}, {"sizeof(unsigned short)", 2, "unsigned long"}, {"sizeof a.name", 8, "unsigned long"}, {"sizeof(u64)", 8, "unsigned long"},
		{"(unsigned char)0x1ff", 0xff, "unsigned char"}, {"(signed char)0xff", -1, "signed char"}, {"SEVEN + 1", 8, "long"}, {"big >> 60", 15, "unsigned long"},
		{"*(u64 *)&dark & 0xff", 0xf0, "unsigned long"}, {"*ffff888000000200", 0, "error: unsigned long is no pointer"}, {"*(int*)ffff888000000008", -2, "int"},
		{"a", 0, "struct item"},
		{"", 0, "error: at 1: the expression ends here"}, {"1 +", 0, "error: at 4: the expression ends here"}, {"1 2", 0, "error: at 3: 2 is not expected here"},
		{"a.x", 0, "error: at 3: struct item has no member x"}, {"nosuch", 0, "error: at 1: no symbol or constant nosuch"}, {"1/0", 0, "error: at 4: division by zero"},
		{"a + 1", 0, "error: at 6: struct item is no number"}, {"(struct nosuch *)0", 0, "error: at 9: no type struct nosuch"}, {"dark + 1", 0, "error: at 9: the type of what is at 0xffff888000000200 is not known"},
		{"(struct item)a", 0, "error: at 15: nothing can be cast to struct item"}, {"&3", 0, "error: at 3: only what is in memory has an address"}, {"&a + &a", 0, "error: at 8: two pointers cannot be added"},
		{"gone.next->n", 0, "error: read 0xffff888000100000: hole"}, {strings.Repeat("(", 500), 0, "error: at 101: the expression is too deep"}, {"5[1]", 0, "error: at 5: long is no array"},
	} {
		errs := &kernel.Errors{}
		r, err := cexpr.Eval(f, f, errs, tt.text)
		if err != nil {
			if got := "error: " + err.Error(); !strings.Contains(got, strings.TrimPrefix(tt.typ, "error: ")) || !strings.HasPrefix(tt.typ, "error") {
				t.Errorf("%s: %s, want %s", tt.text, got, tt.typ)
			}
			continue
		}
		if got := ctype.Name(r.Type); got != tt.typ {
			t.Errorf("%s has type %s, want %s", tt.text, got, tt.typ)
		}
		if _, isStruct := r.Type.(*ctype.Struct); !isStruct && (int64(r.Uint()) != tt.want || errs.Take() != nil) {
			t.Errorf("%s is %d, want %d", tt.text, int64(r.Uint()), tt.want)
		}
	}
}

func FuzzEval(f *testing.F) {
	for _, s := range []string{"a.next->name[0]", "*(u64 *)&dark & 0xff", "sizeof(struct item)", "-1 > 0ul || !SEVEN", "&a.words[1] - a.words"} {
		f.Add(s)
	}
	k := newFake()
	f.Fuzz(func(_ *testing.T, text string) {
		if r, err := cexpr.Eval(k, k, &kernel.Errors{}, text); err == nil {
			r.Uint()
		}
	})
}
