package main

import (
	"encoding/json"
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
size: under 4 MB, stripped; limit 12 MB

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
	if err := judge(listed(t), limit); err != nil {
		t.Error(err)
	}
	err := judge([]pkg{{ImportPath: "text/template"}}, limit+1)
	if err == nil || !strings.Contains(err.Error(), "the limit is 12 MB") || !strings.Contains(err.Error(), "text/template is in the binary") {
		t.Error(err)
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
