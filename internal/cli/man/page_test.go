package main

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/cli"
	"github.com/fathom-trace/fathom/internal/oracle"
)

func TestEscape(t *testing.T) {
	r := &roff{}
	r.line(`.so 'a\n' -x …`)
	if got, want := r.String(), `\&.so \(aqa\en\(aq \-x \[u2026]`+"\n"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestPages has mandoc look at every page: it knows all macros, and warns of what readers would not see.
func TestPages(t *testing.T) {
	list := pages(cli.Root(), source{"2026-11-22", "v0"})
	if len(list) < 60 {
		t.Errorf("only %d pages", len(list))
	}
	for _, want := range []string{"fathom.1", "fathom-trace.1", "fathom-record-create.1", "fathom-help.1"} {
		if list[want] == "" {
			t.Errorf("no page %s", want)
		}
	}
	for name, text := range list {
		for _, s := range []string{".SH NAME", ".SH SYNOPSIS", ".SH DESCRIPTION", ".SH OPTIONS", ".SH EXAMPLES"} {
			if !strings.Contains(text, s+"\n") {
				t.Errorf("%s has no %s", name, s)
			}
		}
	}
	mandoc := oracle.Path(t, "mandoc")
	dir := t.TempDir()
	if err := write(dir, source{"2026-11-22", "v0"}); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir + "/*.1")
	if err != nil || len(files) != len(list) {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, files...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc: %v\n%s", err, out[:min(len(out), 3000)])
	}
	text, err := exec.Command(mandoc, "-T", "utf8", filepath.Join(dir, "fathom-trace.1")).Output()
	if err != nil || !strings.Contains(string(text), "tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }' --for 5s") {
		t.Errorf("mandoc: %v\n%s", err, text)
	}
}
