package arch

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// TestImports checks this tree.
func TestImports(t *testing.T) {
	pkgs, err := Read(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) < 10 {
		t.Fatalf("read only %d packages", len(pkgs))
	}
	for _, p := range Check(pkgs, Edges, Bans) {
		t.Error(p)
	}
}

// TestRows: every row says why, and names packages by well-formed patterns.
func TestRows(t *testing.T) {
	for _, e := range Edges {
		if e.From == "" || e.To == "" || e.Why == "" {
			t.Errorf("incomplete row %+v", e)
		}
	}
	for _, b := range Bans {
		if b.From == "" || b.To == "" || b.Why == "" {
			t.Errorf("incomplete ban %+v", b)
		}
	}
	for _, p := range strings.Fields(decoders + " " + compiler + " " + backends + " " + answers) {
		if strings.HasPrefix(p, "./") {
			t.Errorf("%s: From is written without ./", p)
		}
	}
}

// TestRules puts wrong imports before the real table.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		pkg, imp string
		why      string // part of the reason, "" if allowed
	}{
		{"lang/syntax", "strings", ""},
		{"lang/syntax", "./ctype", "bottom of the tree"},
		{"lang/check", "os", "touches no system"},
		{"lang/check", "net/netip", ""},
		{"lang/check", "./ir", "no row"},
		{"lang/syntax/syntaxtest", "os", ""},
		{"bpf/gen", "github.com/cilium/ebpf/link", "touches no system"},
		{"bpf/gen", "./lang/check", "no row"},
		{"bpf/vm", "unsafe", "one package for each shared memory"},
		{"ir/opt", "golang.org/x/sys/unix", "touches no system"},
		{"debuginfo/orc", "os", "few places"},
		{"debuginfo/orc", "./internal/bin", ""},
		{"wire/header", "net", "netip"},
		{"wire/filter", "./ir", ""},
		{"wire/header", "./ir", "no row"},
		{"vmcore", "./kernel", "no row"},
		{"kernel/walk", "./kernel/live", "whether the kernel lives"},
		{"kernel/walk", "os", "few places"},
		{"probe", "unsafe", ""},
		{"probe", "./internal/cli", "no row"},
		{"answers/packet", "./answers/rank", "each other"},
		{"answers/packet", "./lang/check", "text side"},
		{"answers/packet", "./probe", ""},
		{"internal/script", "./internal/cli", "nobody imports cli"},
		{"internal/cli", "./answers/packet", ""},
		{"internal/cli", "text/template", "dead code"},
		{"view", "net/http", "4.3 MB"},
		{"usersym", "github.com/stretchr/testify", "no row"},
		{"lab/exercise", "./answers/packet", "runs the binary"},
	} {
		got := Check([]Package{{tt.pkg, map[string]string{tt.imp: "x.go"}}}, Edges, Bans)
		switch {
		case tt.why == "" && len(got) > 0:
			t.Errorf("%s → %s is refused: %s", tt.pkg, tt.imp, got[0].Why)
		case tt.why != "" && (len(got) != 1 || !strings.Contains(got[0].Why, tt.why)):
			t.Errorf("%s → %s: %v, want %q", tt.pkg, tt.imp, got, tt.why)
		}
	}
}

func TestRead(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	got, err := Read(fstest.MapFS{
		"go.mod":              file("module x"),
		"a/a.go":              file("package a\nimport (\"os\"\n\"" + Module + "/b/c\")"),
		"a/a_arm64.go":        file("//go:build arm64\n\npackage a\nimport _ \"unsafe\""),
		"a/a_test.go":         file("package a\nimport \"net/http\""),
		"a/testdata/t.go":     file("broken"),
		"tools/go.mod":        file("module tools"),
		"tools/t.go":          file("package tools\nimport \"log\""),
		".git/x.go":           file("broken"),
		"b/c/empty/readme.md": file(""),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []Package{{"a", map[string]string{"os": "a/a.go", "./b/c": "a/a.go", "unsafe": "a/a_arm64.go"}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if _, err := Read(fstest.MapFS{"a/a.go": file("package")}); err == nil {
		t.Error("broken file read")
	}
}

func TestUnused(t *testing.T) {
	pkgs := []Package{{"a", map[string]string{"os": "a.go"}}}
	got := Unused(pkgs, []Edge{{"a", "os", ""}, {"a", "net", ""}, {"b", "net", ""}})
	if d := cmp.Diff([]Edge{{"a", "net", ""}}, got); d != "" {
		t.Error(d)
	}
}
