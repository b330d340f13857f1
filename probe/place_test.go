package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/usersym"
)

// TestPlaces holds what may be probed within a function against objdump's listing: where an instruction starts, and nowhere
// else.
func TestPlaces(t *testing.T) {
	gcc, objdump := ktest.Oracle(t, "gcc"), ktest.Oracle(t, "objdump")
	dir := t.TempDir()
	src, prog := filepath.Join(dir, "p.c"), filepath.Join(dir, "p")
	text := `#include <string.h>
double weigh(const double *v, int n, char *out) {
	double s = 0;
	for (int i = 0; i < n; i++) { s += v[i] * (i % 7); if (s > 1e9) { strcpy(out, "much"); s = -s; } }
	return s;
}
int main(int argc, char **argv) { double v[4] = {1, 2, 3, argc}; char b[9]; return weigh(v, 4, b) > 3; }
`
	if err := os.WriteFile(src, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(gcc, "-O2", "-o", prog, src).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	users := usersym.New(usersym.Options{})
	defer users.Close()
	w := NewWorld(nil, users, 0)
	_, addr, size, ok := users.SymbolAddr(prog, "weigh")
	if !ok || size == 0 {
		t.Fatal("no symbol weigh")
	}
	out, err := exec.Command(objdump, "-d", "--no-show-raw-insn", prog).Output()
	if err != nil {
		t.Fatal(err)
	}
	starts := map[uint64]bool{}
	for _, m := range regexp.MustCompile(`(?m)^ *([0-9a-f]+):\t`).FindAllStringSubmatch(string(out), -1) {
		a, _ := strconv.ParseUint(m[1], 16, 64)
		starts[a] = true
	}
	expand := func(text string) check.Target {
		t.Helper()
		ap := &syntax.AttachPoint{Raw: text}
		points, msg, _ := check.ParseAttachPoint(ap, nil, false)
		if msg != "" || len(points) != 1 {
			t.Fatalf("%s: %s", text, msg)
		}
		ts, err := w.uprobes(points[0])
		if err != nil || len(ts) != 1 {
			t.Fatalf("%s: %v, %v", text, ts, err)
		}
		return ts[0]
	}
	for off := range size {
		for _, text := range []string{"uprobe:" + prog + ":weigh+" + strconv.FormatUint(off, 10), "uprobe:" + prog + ":0x" + strconv.FormatUint(addr+off, 16)} {
			if err := w.Refusal(expand(text)); (err == nil) != starts[addr+off] {
				t.Errorf("%s: %v, objdump has an instruction there: %v", text, err, starts[addr+off])
			}
		}
	}
	for text, want := range map[string]string{
		"uprobe:" + prog + ":weigh+" + strconv.FormatUint(size, 10): "Offset outside the function bounds",
		"uprobe:" + prog + ":0x10":                                  "Could not resolve address",
		"uprobe:" + prog + ":_init":                                 "Could not determine boundary",
	} {
		if err := w.Refusal(expand(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	w = NewWorld(nil, users, 0)
	w.Unsafe = true
	if err := w.Refusal(expand("uprobe:" + prog + ":weigh+1")); err != nil {
		t.Errorf("with --unsafe: %v", err)
	}
}
