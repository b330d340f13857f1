package inlined

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/oracle"
)

// source has tiny in three functions: in two of them by way of middle, in one of these as a .constprop or .isra may be.
const source = `
volatile int seen;
static inline __attribute__((always_inline)) int tiny(int x) { seen += x; return x * 3 + 1; }
static inline __attribute__((always_inline)) int middle(int x) { return tiny(x) - 2; }
int first(int x) { return tiny(x); }
int second(int x) { for (int i = 0; i < x; i++) { int y = middle(i); x += y; } return x; }
static __attribute__((noinline)) int third(int x) { return middle(x) + 7; }
int lone(int x) { return third(x) - third(x + 1); }
`

// TestInto compares with what gcc was told to do.
func TestInto(t *testing.T) {
	gcc := oracle.Path(t, "gcc")
	dir := t.TempDir()
	src, obj := filepath.Join(dir, "a.c"), filepath.Join(dir, "a.o")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"-gdwarf-4", "-gdwarf-5"} {
		if out, err := exec.Command(gcc, "-O2", version, "-nostdlib", "-no-pie", "-Wl,--entry=lone", "-o", obj, src).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		f, err := elf.Open(obj)
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.DWARF()
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]string{"tiny": {"first", "second", "third"}, "middle": {"second", "third"}, "lone": nil, "nosuch": nil} {
			got, err := Into(d, name)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s %s: %v %s", version, name, err, diff)
			}
		}
	}
}
