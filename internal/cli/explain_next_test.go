package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/answers/explain"
	"github.com/fathom-trace/fathom/internal/doctor"
	"github.com/fathom-trace/fathom/lab/guest"
)

// TestSuggestions holds what is said to be done after an oops to the verbs and flags there are, for each text that there is. The
// script lab_module carries out what is said of one.
func TestSuggestions(t *testing.T) {
	texts, err := filepath.Glob("../../oops/testdata/*.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, name := range texts {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range explain.Oopses(b, guest.NameOf) {
			for _, next := range o.Next {
				if seen[next] = true; !strings.HasPrefix(next, "fathom ") {
					continue
				}
				if n, err := parseLine(next); err != nil || n != 1 {
					t.Errorf("%s: %s: %d commands, %v", name, next, n, err)
				}
				if purpose, ok := strings.CutPrefix(next, "fathom explain config "); ok {
					if _, _, err := (doctor.Config{}).Answer(purpose, "x86_64"); err != nil {
						t.Errorf("%s: %s: %v", name, next, err)
					}
				}
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d commands of %d texts: %v", len(seen), len(texts), seen)
	}
}
