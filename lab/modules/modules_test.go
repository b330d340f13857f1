package modules_test

import (
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/lab/modules"
)

func TestList(t *testing.T) {
	var names []string
	for _, m := range modules.List() {
		names = append(names, m.Name)
		if m.Doc == "" {
			t.Errorf("%s does not say what it is", m.Name)
		}
		src, err := modules.Source(m.Name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := fs.ReadFile(src, "fathom_"+m.Name+".c")
		if err != nil || !strings.Contains(string(b), "MODULE_LICENSE") {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
	if d := cmp.Diff([]string{"bugs", "echo", "events", "ktcp", "late", "line", "reflect"}, names); d != "" {
		t.Error(d)
	}
	if _, err := modules.Source("nosuch"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestBuildError(t *testing.T) {
	_, err := modules.BuildDir(t.Context(), t.TempDir(), t.TempDir())
	var b *modules.BuildError
	if !errors.As(err, &b) || b.Error() == "" {
		t.Error(err)
	}
}
