package kallsyms

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const small = `0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000000 T _text
ffffffff81000040 t helper
ffffffff81000100 W weak_one
ffffffff81002000 D data
ffffffff81003000 B _end
ffffffffc0a01000 t init	[e1000]
ffffffffc0a01080 t $x	[e1000]
ffffffffc0a02000 t $x	[e1000]
ffffffffc0a02000 t exit	[e1000]
ffffffffc0a00000 t helper	[e1000]
ffffffffc0005000 t bpf_prog_6deef7357e7b4530	[bpf]
`

func TestByAddr(t *testing.T) {
	tab, err := Parse([]byte(small))
	if err != nil || tab.Hidden() != nil {
		t.Fatal(err, tab.Hidden())
	}
	tests := []struct {
		addr uint64
		want string
	}{
		{0xffffffff81000000, "_stext+0x0"},
		{0xffffffff8100003f, "_stext+0x3f"},
		{0xffffffff81000040, "helper+0x0"},
		{0xffffffff81002fff, "data+0xfff"},
		{0xffffffff81003000, ""},
		{0xffffffff80ffffff, ""},
		{0xffffffffc0a00010, "helper+0x10 [e1000]"},
		{0xffffffffc0a01090, "init+0x90 [e1000]"},
		{0xffffffffc0a02004, "exit+0x4 [e1000]"},
		{0xffffffffc0005001, "bpf_prog_6deef7357e7b4530+0x1 [bpf]"},
		{0xffffffffffffffff, ""},
		{0x10, ""},
		{0x7fff00000000, ""},
	}
	for _, tt := range tests {
		got := ""
		if name, mod, off, ok := tab.ByAddr(tt.addr); ok {
			got = fmt.Sprintf("%s+%#x", name, off)
			if mod != "" {
				got += " [" + mod + "]"
			}
		}
		if got != tt.want {
			t.Errorf("%#x: got %q, want %q", tt.addr, got, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	tab, err := Parse([]byte(small))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]uint64{0xffffffff81000040, 0xffffffffc0a00000}, tab.ByName("helper")); d != "" {
		t.Error(d)
	}
	for _, none := range []string{"", "help", "helpers", "$"} {
		if got := tab.ByName(none); got != nil {
			t.Errorf("%q: %x", none, got)
		}
	}
	var text []string
	for s := range tab.Text() {
		text = append(text, fmt.Sprintf("%c %s %s", s.Type, s.Name, s.Module))
	}
	want := []string{"T _stext ", "T _text ", "t helper ", "W weak_one ", "t bpf_prog_6deef7357e7b4530 bpf", "t helper e1000", "t init e1000", "t $x e1000", "t $x e1000", "t exit e1000"}
	if d := cmp.Diff(want, text); d != "" {
		t.Error(d)
	}
	if n := len(slices.Collect(tab.All())); n != 13 || tab.Len() != n {
		t.Errorf("%d symbols, Len %d", n, tab.Len())
	}
}

func TestHidden(t *testing.T) {
	tab, err := Parse([]byte("0000000000000000 T a\n0000000000000000 T b\n"))
	if err != nil || !errors.Is(tab.Hidden(), ErrHidden) {
		t.Fatal(err, tab.Hidden())
	}
	if got := tab.ByName("a"); got != nil {
		t.Errorf("address of a: %x", got)
	}
	if n := len(slices.Collect(tab.Named("b"))); n != 1 {
		t.Errorf("%d named b", n)
	}
	if s, ok := tab.At(0); ok {
		t.Error(s)
	}
	empty, err := Parse(nil)
	if err != nil || empty.Hidden() != nil || empty.ByName("a") != nil {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	for _, bad := range []string{"\n", "xyz", "ffff", "ffff T", "ffff T \n", "ffff TT x\n", "12345678123456781 T x\n", "1 T " + strings.Repeat("x", lineSize)} {
		if _, err := Parse([]byte("ffff T ok\n" + bad)); err == nil || !strings.Contains(err.Error(), "kallsyms at 0xa") {
			t.Errorf("%.20q: %v", bad, err)
		}
	}
}

// TestKernel compares every symbol of this machine with a plain reading of the file.
func TestKernel(t *testing.T) {
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Skip(err)
	}
	tab, err := Parse(slices.Clone(b))
	if err != nil {
		t.Fatal(err)
	}
	if tab.Hidden() != nil {
		t.Skip(tab.Hidden())
	}
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		var s Sym
		fmt.Sscanf(line, "%x %c %s %s", &s.Addr, &s.Type, &s.Name, &s.Module)
		if n%16 == 0 && !slices.Contains(tab.ByName(s.Name), s.Addr) {
			t.Errorf("%s at %x is not found", s.Name, s.Addr)
		}
		if got, ok := tab.At(s.Addr); n%16 == 0 && s.IsText() && (!ok || got.Addr != s.Addr) {
			t.Errorf("%s: %+v", line, got)
		}
	}
	if n != tab.Len() {
		t.Errorf("%d lines, %d symbols", n, tab.Len())
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(small), uint64(0xffffffff81000041))
	f.Add([]byte("0 T a"), uint64(0))
	f.Add([]byte("1 T $x\n1 T $d\n"), uint64(2))
	f.Fuzz(func(t *testing.T, b []byte, addr uint64) {
		tab, err := Parse(slices.Clone(b))
		if err != nil {
			return
		}
		tab.At(addr)
		for s := range tab.All() {
			if !tab.hidden && !slices.Contains(tab.ByName(s.Name), s.Addr) {
				t.Fatalf("%+v is not found by name", s)
			}
			tab.At(s.Addr)
		}
	})
}

// big makes 250,000 symbols, a fifth of them of modules and not sorted.
func big() []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	var b strings.Builder
	for i := range 200_000 {
		fmt.Fprintf(&b, "%016x t symbol_number_%d\n", 0xffffffff81000000+uint64(i)*64, i)
	}
	for i := range 50_000 {
		fmt.Fprintf(&b, "%016x t module_symbol_%d\t[mod%d]\n", 0xffffffffc0000000+uint64(rnd.IntN(1<<28)), i, i/500)
	}
	return []byte(b.String())
}

// Budget: 60 ms, 15 MB, under 100 allocations.
func BenchmarkParse(b *testing.B) {
	text := big()
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkIndex(b *testing.B) {
	tab, _ := Parse(big())
	for b.Loop() {
		tab.buildIndex()
	}
}

// Budget: 300 ns, 0 allocations.
func BenchmarkByAddr(b *testing.B) {
	tab, _ := Parse(big())
	b.ReportAllocs()
	addr := uint64(0xffffffff81000000)
	for b.Loop() {
		tab.ByAddr(addr)
		addr = 0xffffffff81000000 + (addr+1<<17)&(1<<23-1)
	}
}

func BenchmarkProcKallsyms(b *testing.B) {
	for b.Loop() {
		f, err := os.Open("/proc/kallsyms")
		if err != nil {
			b.Skip(err)
		}
		if _, err := Read(f); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
