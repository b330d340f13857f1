package cli

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/oops"
)

// TestLinesOfDeaths finds the line of the source that each text of oops/testdata came from, with the debug information of the
// module that was in the guest, and of what was inlined there each function.
func TestLinesOfDeaths(t *testing.T) {
	oracle.Path(t, "xz")
	texts, err := filepath.Glob("../../oops/testdata/deaths-*.json.gz")
	if err != nil || len(texts) < 2 {
		t.Fatal(texts, err)
	}
	n := 0
	for _, name := range texts {
		dir := t.TempDir()
		ko, err := os.ReadFile(strings.TrimSuffix(name, ".json.gz") + ".ko.xz")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "fathom_deaths.ko.xz"), ko, 0o600); err != nil {
			t.Fatal(err)
		}
		d := &debugFiles{given: []string{dir}}
		defer d.Close()
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		for dec := json.NewDecoder(z); ; {
			var death struct {
				Way, Context, Kernel, Text string
				Line                       int
				Inlined                    []string
			}
			if err := dec.Decode(&death); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if death.Line == 0 {
				continue
			}
			n++
			rs := oops.Parse([]byte(death.Text))
			if len(rs) == 0 {
				t.Errorf("%s %s: nothing found", death.Kernel, death.Way)
				continue
			}
			where, call := rs[0].Where(), rs[0].Calls()
			if where.Module == "" { // the kernel's own function, which the module called
				i := slices.IndexFunc(rs[0].Stack, func(f oops.Frame) bool { return !f.Unsure && f.Module != "" })
				if i < 0 {
					t.Errorf("%s %s in %s: no frame of the module", death.Kernel, death.Way, death.Context)
					continue
				}
				where, call = rs[0].Stack[i].Location, true
			}
			lines := d.ofReport(&rs[0], where, call)
			want := fmt.Sprintf("fathom_deaths.c:%d", death.Line)
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l+" ", want+" ") || strings.Contains(l+"\t", want+"\t") }) {
				t.Errorf("%s %s in %s: %q, without %s", death.Kernel, death.Way, death.Context, lines, want)
			}
			for i, fn := range death.Inlined {
				if i >= len(lines) || !strings.HasPrefix(lines[i], fn+" ") {
					t.Errorf("%s %s: %q, not inlined as %q", death.Kernel, death.Way, lines, death.Inlined)
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("%d texts with a line", n)
	}
}
