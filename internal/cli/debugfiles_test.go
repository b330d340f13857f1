package cli

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/debuginfo/dwarfline"
	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/oops"
)

// planted has a bug three functions deep, as in a module.
const planted = `struct dev { int id; struct dev *up; };
static inline __attribute__((always_inline)) int get_id(struct dev *d)
{
	return d->up->id;
}
static inline __attribute__((always_inline)) int peek(struct dev *d)
{
	return get_id(d) + 1;
}
int planted_open(struct dev *d)
{
	return peek(d);
}
`

// TestSourceOfModule finds the line of a bug in a module, as it is and compressed as distributions do, by the oops alone, and
// takes no lines from a module of another build.
func TestSourceOfModule(t *testing.T) {
	gcc, xz := oracle.Path(t, "gcc"), oracle.Path(t, "xz")
	dir := t.TempDir()
	src, ko := filepath.Join(dir, "planted.c"), filepath.Join(dir, "planted-bug.ko")
	if err := os.WriteFile(src, []byte(planted), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(gcc, "-O2", "-g", "-c", "-o", ko, "planted.c")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(ko)
	if err != nil {
		t.Fatal(err)
	}
	o, err := dwarfline.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	at, _ := o.Func("planted_open", 0)
	off := uint64(0) // of the instruction that loads d->up->id: the first after the load of d->up
	for ; off < 64; off++ {
		if p, err := o.At(at + off); err == nil && p[0].Line == 4 && p[0].Func == "get_id" {
			break
		}
	}
	text := fmt.Sprintf("BUG: kernel NULL pointer dereference, address: 0000000000000000\nRIP: 0010:planted_open+%#x/0x10 [planted_bug]\nCall Trace:\n planted_open+%#x/0x10 [planted_bug]\n", off, off+1)
	r := &oops.Parse([]byte(text))[0]
	want := []string{"get_id at planted.c:4 (inlined)\treturn d->up->id;", "peek at planted.c:8 (inlined)", "planted_open at planted.c:12"}
	check := func(how string, size uint64, want []string, given ...string) {
		t.Helper()
		d := &debugFiles{given: given}
		defer d.Close()
		l := r.RIP
		l.Size = size
		if diff := cmp.Diff(want, d.ofReport(r, l, false)); diff != "" {
			t.Errorf("%s: %s\n%s", how, diff, strings.Join(d.notes, "\n"))
		}
	}
	check("a file and the folder of its source", 0x10, want, ko, dir)
	check("a folder", 0x10, want, dir)
	check("of another build", 0x400, nil, dir)
	if out, err := exec.Command(xz, ko).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check("compressed", 0x10, want, dir)
}

func TestModuleName(t *testing.T) {
	for file, want := range map[string]string{"/lib/snd-hda.ko.xz": "snd_hda", "igb.ko": "igb", "igb.ko.debug": "igb", "vmlinux": ""} {
		if got := moduleName(file); got != want {
			t.Errorf("%s is %q, not %q", file, got, want)
		}
	}
}
