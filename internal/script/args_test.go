package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// buildTestdata compiles a program of testdata.
func buildTestdata(t *testing.T, compiler, source string, flags ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "prog")
	out, err := exec.Command(ktest.Oracle(t, compiler), append(flags, "-g", "-o", path, "testdata/"+source)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// TestArguments reads arguments by name where the calling convention put them, with and without optimisation.
func TestArguments(t *testing.T) {
	if os.Geteuid() != 0 || os.Getenv("FATHOM_GUEST") != "" {
		t.Skip("needs root on a machine with a compiler")
	}
	ktest.Need(t, ktest.Uprobe)
	tests := []struct{ source, program, want string }{
		{"args.c", `uprobe:PROG:many { printf("%d %d %d %d", args.a, args.b, args.c, args.last); }`, "1 -3 65535 -5"},
		{"args.c", `uprobe:PROG:many { printf("%d %d %d %d", args.p.a, args.p.b, args.q.a, args.q.b); }`, "100 200 300 400"},
		{"args.c", `uprobe:PROG:many { printf("%d %d %d %d", args.g.v[0], args.g.v[1], args.g.v[2], args.g.v[3]); }`, "104 42 3 4"},
		{"args.c", `uprobe:PROG:hidden { printf("%s %d", str(args.s), args.n); }`, "hello 42"},
		{"args.c", `uprobe:PROG:floats { printf("%d %d %d", args.i, args.s.x, args.s.tag[1]); }`, "9 77 -2"},
		{"args.cc", `uprobe:PROG:cpp:"thing::take" { printf("%d %d %d %d %d", args.this->id, args.c->n, args.p.a, args.p.b, *args.ref); }`, "5 11 20 21 31"},
	}
	for _, flags := range [][]string{{"-O0", "-no-pie"}, {"-O2", "-fPIE", "-pie"}} {
		built := map[string]string{}
		for _, tt := range tests {
			if built[tt.source] == "" {
				compiler := map[string]string{".c": "gcc", ".cc": "g++"}[filepath.Ext(tt.source)]
				built[tt.source] = buildTestdata(t, compiler, tt.source, flags...)
			}
			path := built[tt.source]
			var out, errs syncBuffer
			_, err := Run(t.Context(), Options{Source: &syntax.Source{Name: "stdin", Text: strings.ReplaceAll(tt.program, "PROG", path)},
				Stdout: &out, Stderr: &errs, Quiet: true, Command: []string{path}, Diags: func(ds []syntax.Diag) {
					for _, d := range ds {
						errs.Write([]byte(d.Error() + "\n"))
					}
				}})
			if got := strings.TrimSpace(out.String()); err != nil || got != tt.want {
				t.Errorf("%v: %s\n%v\n got %q\nwant %q\n%s", flags, tt.program, err, got, tt.want, errs.String())
			}
		}
	}
}
