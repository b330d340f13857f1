package dwarftypes

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/oracle"
)

const program = `#include <stddef.h>
enum colour { RED, GREEN = 5, BLUE = -1 };
typedef unsigned long word;
struct node;
struct item { int a:3; unsigned b:7; char name[10]; struct node *next; union { int x; word y; }; enum colour c; };
struct node { struct item items[2]; struct node *up; const char *text; void (*fn)(int); _Bool ok; double d; };
__attribute__((noinline)) word find(struct node *n, const char *key, int depth,
	enum colour c) {
	word w = n->items[0].y + key[0] +
		depth + c;
	return w;
}
int main(int argc, char **argv) {
	struct node n = {0};
	return find(&n, argv[0], argc, RED);
}
`

// build compiles the program and gives its debug information.
func build(t *testing.T, flags ...string) (*Lookup, *elf.File) {
	t.Helper()
	gcc := oracle.Path(t, "gcc")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "shop.c"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gcc, append(flags, "-o", "a", "shop.c")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(filepath.Join(dir, "a"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	return New(d), f
}

func TestTypes(t *testing.T) {
	for _, version := range []string{"-gdwarf-2", "-gdwarf-4", "-gdwarf-5"} {
		t.Run(version, func(t *testing.T) {
			l, _ := build(t, "-O1", version)
			s, err := l.ByName(ctype.KindStruct, "item")
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, m := range s.(*ctype.Struct).Members() {
				got = append(got, fmt.Sprintf("%s %s %d:%d", ctype.Name(m.Type), m.Name, m.BitOff, m.BitSize))
			}
			want := "int a 0:3|unsigned int b 3:7|char[10] name 16:0|struct node * next 128:0|union  192:0|enum colour c 256:0"
			if g := strings.Join(got, "|"); g != want || ctype.Size(s) != 40 {
				t.Errorf("size %d\n got %s\nwant %s", ctype.Size(s), g, want)
			}
			if m, ok := s.(*ctype.Struct).Member("y"); !ok || m.BitOff != 192 || ctype.Name(m.Type) != "word" {
				t.Errorf("y: %+v %v", m, ok)
			}
			if e, v, ok := l.EnumValue("BLUE"); !ok || v != -1 || e.Name != "colour" {
				t.Errorf("BLUE: %v %d %v", e, v, ok)
			}
			if n, err := l.ByName(ctype.Any, "node"); err != nil || ctype.Size(n) != 2*40+40 {
				t.Errorf("node: %v, %d bytes", err, ctype.Size(n))
			}
			if _, err := l.ByName(ctype.KindUnion, "node"); !errors.Is(err, ctype.ErrNotFound) {
				t.Errorf("union node: %v", err)
			}
		})
	}
}

func TestFunc(t *testing.T) {
	l, f := build(t, "-O1", "-g")
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	pc := uint64(0)
	for _, s := range syms {
		if s.Name == "find" {
			pc = s.Value
		}
	}
	const want = "word (struct node *, char *, int, enum colour) n key depth c"
	for what, get := range map[string]func() (*ctype.Func, error){
		"by name": func() (*ctype.Func, error) { return l.Func("", "find") },
		"by pc":   func() (*ctype.Func, error) { return l.FuncAt(pc, "") },
	} {
		fn, err := get()
		if err != nil {
			t.Fatal(what, err)
		}
		got := ctype.Name(fn)
		for _, p := range fn.Params {
			got += " " + p.Name
		}
		if got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	if _, err := l.Func("", "nosuch"); !errors.Is(err, ctype.ErrNotFound) {
		t.Error(err)
	}
	// A function's first line begins where the function does.
	addrs, err := l.Lines("shop.c", 8)
	if err != nil || len(addrs) == 0 || addrs[0] != pc {
		t.Errorf("line 8: %#x (%v), the function is at %#x", addrs, err, pc)
	}
	if addrs, _ := l.Lines("other.c", 8); len(addrs) > 0 {
		t.Errorf("other.c: %#x", addrs)
	}
}

const nested = `volatile int global;
static inline __attribute__((always_inline)) int inner(int x) {
	for (int i = 0; i < x; i++)
		global += i;
	return global;
}
static inline __attribute__((always_inline)) int middle(int x) {
	global = x;
	return inner(x + 1);
}
__attribute__((noinline)) int outer(int x) {
	return middle(x) + 1;
}
int main(int argc, char **argv) { return outer(argc); }
`

// TestFrames compares the functions at every address of a function with those that addr2line finds.
func TestFrames(t *testing.T) {
	gcc, tool := oracle.Path(t, "gcc"), oracle.Path(t, "addr2line")
	dir := t.TempDir()
	src, bin := filepath.Join(dir, "nested.c"), filepath.Join(dir, "nested")
	if err := os.WriteFile(src, []byte(nested), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(gcc, "-O2", "-g", "-no-pie", "-o", bin, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := elf.Open(bin)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d, err := f.DWARF()
	if err != nil {
		t.Fatal(err)
	}
	syms, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	l, deepest := New(d), 0
	for _, s := range syms {
		if s.Name != "outer" {
			continue
		}
		for pc := s.Value; pc < s.Value+s.Size; pc++ {
			frames, err := l.Frames(pc)
			if err != nil {
				t.Fatal(err)
			}
			deepest = max(deepest, len(frames))
			var got []string
			for _, fr := range frames {
				got = append(got, fmt.Sprintf("%s %s:%d", fr.Name, filepath.Base(fr.File), fr.Line))
			}
			out, err := exec.Command(tool, "-f", "-i", "-s", "-e", bin, fmt.Sprintf("%#x", pc)).Output()
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			var want []string
			for i := 0; i+1 < len(lines); i += 2 {
				at, _, _ := strings.Cut(lines[i+1], " (discriminator")
				want = append(want, lines[i]+" "+at)
			}
			if g, w := strings.Join(got, ", "), strings.Join(want, ", "); g != w {
				t.Errorf("%#x: %s, addr2line has %s", pc, g, w)
			}
		}
	}
	if deepest != 3 {
		t.Errorf("at most %d functions at one address", deepest)
	}
	if frames, err := l.Frames(1); err != nil || len(frames) > 0 {
		t.Errorf("nowhere: %v %v", frames, err)
	}
}
