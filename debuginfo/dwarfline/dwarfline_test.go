package dwarfline

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/internal/oracle"
)

// source has code in three sections, one of them as a module's initialisation, and functions inlined into each other.
const source = `
struct pair { int a; struct pair *next; };
volatile int seen;
static inline __attribute__((always_inline)) int name_of(struct pair *p)
{
	seen++;
	return p->next->a;
}
static inline __attribute__((always_inline)) int peek(struct pair *p, int n)
{
	int sum = 0;
	for (int i = 0; i < n; i++)
		sum += name_of(p) * i;
	return sum;
}
int nullfield(struct pair *p, int n)
{
	if (n > 3)
		return peek(p, n) + 1;
	return peek(p, 7 - n);
}
__attribute__((section(".init.text"))) int begin(struct pair *p)
{
	seen = 3;
	return nullfield(p, 2) + peek(p, 4);
}
__attribute__((section(".text.unlikely"), cold)) int seldom(struct pair *p, int k)
{
	while (k-- > 0)
		p = p->next;
	return name_of(p);
}
`

func compile(t *testing.T, args ...string) string {
	t.Helper()
	gcc := oracle.Path(t, "gcc")
	dir := t.TempDir()
	src, obj := filepath.Join(dir, "mod.c"), filepath.Join(dir, "mod.o")
	if err := os.WriteFile(src, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gcc, append(args, "-c", "-o", obj, "mod.c")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return obj
}

// TestLikeGDB compares the lines of every fourth byte of an object file's functions with what gdb's list says, and the chains of
// inlined functions with addr2line's, for each version of DWARF.
func TestLikeGDB(t *testing.T) {
	for _, version := range []string{"-gdwarf-4", "-gdwarf-5"} {
		t.Run(version, func(t *testing.T) {
			obj := compile(t, "-O2", version)
			b, err := os.ReadFile(obj)
			if err != nil {
				t.Fatal(err)
			}
			o, err := Read(b)
			if err != nil {
				t.Fatal(err)
			}
			var spots []spot
			for _, name := range []string{"nullfield", "begin", "seldom"} {
				for off := uint64(0); off < o.funcs[name][0].size; off += 4 {
					spots = append(spots, spot{name, off})
				}
			}
			checkGDB(t, o, obj, spots)
		})
	}
}

// TestInlined compares the chains of inlined functions with addr2line's.
func TestInlined(t *testing.T) {
	addr2line := oracle.Path(t, "addr2line")
	obj := compile(t, "-O2", "-g")
	b, err := os.ReadFile(obj)
	if err != nil {
		t.Fatal(err)
	}
	o, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	deepest := 0
	for name, section := range map[string]string{"nullfield": ".text", "begin": ".init.text", "seldom": ".text.unlikely"} {
		f := o.funcs[name][0]
		for off := range f.size { // each function is the first of its section
			out, err := exec.Command(addr2line, "-f", "-i", "-s", "-e", obj, "-j", section, fmt.Sprintf("%#x", off)).Output()
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSpace(string(out)), "\n")
			places, err := o.At(f.addr + off)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range places {
				got = append(got, p.Func, fmt.Sprintf("%s:%d", p.File, p.Line))
			}
			for i := range want {
				want[i], _, _ = strings.Cut(want[i], " (discriminator")
			}
			want[1] = got[1] // of rows at one address gdb takes the last that begins a statement, addr2line the last
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s+%#x: %s", name, off, diff)
			}
			deepest = max(deepest, len(places))
		}
	}
	if deepest < 3 {
		t.Errorf("%d functions at the deepest place", deepest)
	}
}

// spot is a place as people ask for it.
type spot struct {
	name string
	off  uint64
}

var (
	listed = regexp.MustCompile(`^0x[0-9a-f]+ is in (\S+) \((.*):(\d+)\)\.`)
)

// checkGDB compares with gdb's "list *(fn+off)".
func checkGDB(t *testing.T, o *Object, file string, spots []spot) {
	t.Helper()
	gdb := oracle.Path(t, "gdb")
	args := []string{"-nx", "-batch", "-ex", "set listsize 1"}
	for _, s := range spots {
		args = append(args, "-ex", "echo @@", "-ex", fmt.Sprintf("list *(%s+%d)", s.name, s.off))
	}
	out, _ := exec.Command(gdb, append(args, file)...).CombinedOutput()
	answers := strings.Split(string(out), "@@")[1:]
	n, wrong := 0, 0
	for i, s := range spots {
		if i >= len(answers) {
			t.Fatalf("gdb answered %d of %d:\n%.2000s", len(answers), len(spots), out)
		}
		m := listed.FindStringSubmatch(answers[i])
		if m == nil {
			continue
		}
		at, ok := o.Func(s.name, 0)
		if !ok {
			t.Errorf("no function %s", s.name)
			continue
		}
		places, err := o.At(at + s.off)
		if err != nil {
			t.Error(err)
			continue
		}
		n++
		if got := fmt.Sprintf("%s:%d", filepath.Base(places[0].File), places[0].Line); got != filepath.Base(m[2])+":"+m[3] {
			if wrong++; wrong < 10 {
				t.Errorf("%s+%#x is %v; gdb: %s", s.name, s.off, places, answers[i])
			}
		}
	}
	t.Logf("%d of %d places compared, %d wrong", n, len(spots), wrong)
	if n < len(spots)*3/4 {
		t.Errorf("gdb has a line for %d of %d:\n%.1000s", n, len(spots), out)
	}
}

// TestKernel compares 200 places of a kernel. FATHOM_VMLINUX names its file.
func TestKernel(t *testing.T) {
	name := os.Getenv("FATHOM_VMLINUX")
	if name == "" {
		t.Skip("FATHOM_VMLINUX is not set")
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(b)
	o, err := Read(b)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	var names []string
	for n, f := range o.funcs {
		if len(f) == 1 && f[0].size > 16 && f[0].addr>>40 == 0xffffff && !strings.ContainsAny(n, ".$") && !strings.HasPrefix(n, "__") {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	var spots []spot
	for len(spots) < 300 {
		n := names[rng.IntN(len(names))]
		if _, err := o.At(o.funcs[n][0].addr); err == nil { // code, not data
			spots = append(spots, spot{n, rng.Uint64N(o.funcs[n][0].size)})
		}
	}
	checkGDB(t, o, name, spots)
}

// TestHostile gives an object file cut short and changed.
func TestHostile(t *testing.T) {
	good, err := os.ReadFile(compile(t, "-O2", "-g"))
	if err != nil {
		t.Fatal(err)
	}
	hostile.Check(t, good, 0, func(b []byte) {
		o, err := Read(b)
		if err != nil {
			return
		}
		for _, fs := range o.funcs {
			_, _ = o.At(fs[0].addr)
		}
	})
}

func FuzzRead(f *testing.F) {
	if gcc, err := exec.LookPath("gcc"); err == nil {
		cmd := exec.Command(gcc, "-O1", "-g", "-x", "c", "-c", "-o", "/dev/stdout", "-")
		cmd.Stdin = strings.NewReader("int f(int x) { return x + 1; }\n")
		if b, err := cmd.Output(); err == nil {
			f.Add(b)
		}
	}
	f.Add([]byte("\x7fELF\x02\x01\x01"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		o, err := Read(b)
		if err != nil {
			return
		}
		for _, fs := range o.funcs {
			_, _ = o.At(fs[0].addr)
		}
		_, _ = o.At(sectionGap)
	})
}

func ExampleObject_At() {
	b, err := os.ReadFile("/usr/lib/debug/boot/vmlinux")
	if err != nil {
		return
	}
	o, err := Read(b)
	if err != nil {
		return
	}
	at, _ := o.Func("vfs_read", 0)
	places, _ := o.At(at + 0x27)
	for _, p := range places {
		fmt.Println(p)
	}
}
