package dwarftypes

import (
	"debug/dwarf"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/fathom-trace/fathom/ctype"
)

// seedProgram has types that refer to each other, and functions that take them.
const seedProgram = `struct node { struct node *next; int bits : 3; union { int i; float f; }; char name[4]; };
typedef struct node node_t; enum level { LOW = -1, HIGH };
int walk(node_t *n, enum level l, const char *const s, struct node by) { return n->bits + l + s[0] + by.i; }
int main(void) { return 0; }
`

// FuzzTypes reads the functions and types of damaged debug information.
func FuzzTypes(f *testing.F) {
	if gcc, err := exec.LookPath("gcc"); err == nil {
		dir := f.TempDir()
		src, out := filepath.Join(dir, "seed.c"), filepath.Join(dir, "seed")
		if os.WriteFile(src, []byte(seedProgram), 0o644) == nil && exec.Command(gcc, "-g", "-gdwarf-4", "-o", out, src).Run() == nil {
			if e, err := elf.Open(out); err == nil {
				section := func(name string) []byte { b, _ := e.Section(name).Data(); return b }
				f.Add(section(".debug_abbrev"), section(".debug_info"), section(".debug_str"))
				e.Close()
			}
		}
	}
	f.Fuzz(func(t *testing.T, abbrev, info, str []byte) {
		d, err := dwarf.New(abbrev, nil, nil, info, nil, nil, nil, str)
		if err != nil {
			return
		}
		l := New(d)
		for _, name := range []string{"node", "level", "node_t", "int"} {
			if c, err := l.ByName(ctype.Any, name); err == nil {
				ctype.Size(c)
			}
		}
		l.EnumValue("LOW")
		for _, name := range []string{"walk", "main"} {
			if fn, err := l.Func("", name); err == nil {
				ctype.Name(fn)
			}
		}
		l.Frames(0x1130)
	})
}
