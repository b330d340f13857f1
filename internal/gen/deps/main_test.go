package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func listed(t *testing.T) []pkg {
	t.Helper()
	var pkgs []pkg
	if err := json.Unmarshal([]byte(`[
{"ImportPath":"os","Standard":true}, {"ImportPath":"internal/abi","Standard":true}, {"ImportPath":"vendor/golang.org/x/net/dns","Standard":true},
{"ImportPath":"ex.org/m/sub","Module":{"Path":"ex.org/m","Version":"v1.2.3"}},
{"ImportPath":"me.org/f/cmd/f","Module":{"Path":"me.org/f","Main":true}}, {"ImportPath":"me.org/f/b","Module":{"Path":"me.org/f","Main":true}}]`), &pkgs); err != nil {
		t.Fatal(err)
	}
	return pkgs
}

func TestWrite(t *testing.T) {
	var b strings.Builder
	write(&b, listed(t), 3*mb+1)
	want := `# What is in fathom for linux/amd64. Made by go run ./internal/gen/deps; make lint checks it.
size: under 4 MB, stripped; limit 23 MB

ours: 2
	b
	cmd/f

other modules: 1
	ex.org/m/sub v1.2.3

standard library: 1
	os
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestJudge(t *testing.T) {
	if err := judge(listed(t), binary{limit, map[string]bool{"main.main": true}}); err != nil {
		t.Error(err)
	}
	err := judge([]pkg{{ImportPath: "net/http"}}, binary{limit + 1, map[string]bool{"reflect.Value.MethodByName": true}})
	for _, want := range []string{"the limit is 23 MB", "net/http is in the binary", "MethodByName is reachable"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}

// TestFunctions reads this test's own binary.
func TestFunctions(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	funcs, err := functions(exe)
	if err != nil || !funcs["github.com/fathom-trace/fathom/internal/gen/deps.TestFunctions"] {
		t.Errorf("%d functions, %v", len(funcs), err)
	}
	if _, err := functions("/dev/null"); err == nil {
		t.Error("/dev/null has functions")
	}
}

func TestDiff(t *testing.T) {
	if d := cmp.Diff("\t-b\n\t+c\n", diff("a\nb\n", "a\nc\n")); d != "" {
		t.Error(d)
	}
	if d := diff("a\n", "a\n"); d != "" {
		t.Error(d)
	}
}
