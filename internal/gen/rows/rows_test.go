package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// numbers is how many rows there are of each letter.
var numbers = []struct {
	letter string
	n      int
}{
	{"A", 18}, {"B", 10}, {"C", 8}, {"D", 7}, {"E", 9}, {"F", 9}, {"G", 12}, {"H", 15}, {"I", 12}, {"J", 11}, {"K", 4}, {"Q", 17}, {"V", 12}, {"N", 6},
}

// TestRows: every row is there once, its tests are in the source, and what must work has one.
func TestRows(t *testing.T) {
	rows, err := parseRows(rowsText)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, l := range numbers {
		for i := range l.n {
			want = append(want, fmt.Sprint(l.letter, i+1))
		}
	}
	src := &sources{tree: os.DirFS("../../..")}
	for _, r := range rows {
		got = append(got, r.ID)
		for _, w := range src.check(r) {
			t.Errorf("rows.tsv: %s: %s", r.ID, w)
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("rows.tsv: %s", d)
	}
}

// TestPromises: each promise is in order, and its tests are in the source.
func TestPromises(t *testing.T) {
	rows, err := parseRows(promisesText)
	if err != nil {
		t.Fatal(err)
	}
	src, seen := &sources{tree: os.DirFS("../../..")}, map[string]bool{}
	for _, r := range rows {
		for _, w := range src.check(r) {
			t.Errorf("promises.tsv: %s: %s", r.ID, w)
		}
		number, _, _ := strings.Cut(r.ID, ".")
		seen[number] = true
	}
	for n := range 9 {
		if !seen[fmt.Sprint(n+1)] {
			t.Errorf("nothing shows promise %d", n+1)
		}
	}
}

// TestCheck puts wrong rows before a small tree.
func TestCheck(t *testing.T) {
	src := &sources{tree: fstest.MapFS{
		"a/a.go":               {Data: []byte("package a\n\nvar names = []string{\"two words\"}\n\nfunc TestNone() {}\n")},
		"a/a_test.go":          {Data: []byte("package a\n\nfunc TestX() { run(`part`) }\n\nfunc (s) TestMethod() {}\n")},
		"a/testdata/ran.txtar": {},
	}}
	for line, want := range map[string]string{
		"A1\tcore\tx\ta:TestX a:TestX/part a:TestX/two_words a:TestX/ran@debian-6.1\t": "",
		"A1\tcore\tx\t\tnot built":        "no test shows it",
		"A1\tclaim\tx\t\tnot built":       "no test shows it",
		"A1\tsupporting\tx\t\tnot built":  "",
		"A1\tsupporting\tx\t\t":           "nothing says why",
		"A1\tcontext\tx\t\t":              "",
		"A1\tcore\tx\ta:TestNone\t":       "a has no TestNone",
		"A1\tcore\tx\ta:TestMethod\t":     "a has no TestMethod",
		"A1\tcore\tx\ta:TestX/nothing\t":  "has no part nothing",
		"A1\tcore\tx\tb:TestX\t":          "no package b",
		"A1\tcore\tx\ta:TestX@debian-5\t": "no kernel debian-5",
		"A1\tcore\tx\ta.TestX\t":          "is PACKAGE:TEST",
		"A1\tunheard-of\tx\ta:TestX\t":    "id, class, title",
		"A1\tcore\tx a:TestX\t":           "id, class, title",
	} {
		rows, err := parseRows("# remark\n" + line + "\n")
		got := fmt.Sprint(err)
		if err == nil {
			got = strings.Join(src.check(rows[0]), "; ")
		}
		if !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: %s, want %q", line, got, want)
		}
	}
}

// said is what go test -json says of tests here, in guests, and in kernels that they boot themselves.
const said = `make: a line of its own
{"Action":"run","Package":"github.com/fathom-trace/fathom/a","Test":"TestX"}
{"Action":"output","Package":"github.com/fathom-trace/fathom/a","Test":"TestX","Output":"    x_test.go:1: measured: old\n"}
{"Action":"run","Package":"github.com/fathom-trace/fathom/a","Test":"TestX"}
{"Action":"output","Package":"github.com/fathom-trace/fathom/a","Test":"TestX","Output":"    x_test.go:1: measured: 7 of 7\n"}
{"Time":"2026-01-02T03:04:05Z","Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestX"}
{"Action":"fail","Package":"github.com/fathom-trace/fathom/a","Test":"TestGuest/debian-6.1/TestX"}
{"Action":"skip","Package":"github.com/fathom-trace/fathom/a","Test":"TestGuest/debian-6.12/TestX/all"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestGuest/debian-6.12/TestX"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestXY"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestBoots"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestBoots/debian-6.12-cloud"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestBoots/debian-6.12-cloud/elf"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/a","Test":"TestScripts/boot"}
{"Action":"fail","Package":"github.com/fathom-trace/fathom/a"}
{"Time":"2026-01-02T04:04:05Z","Action":"skip","Package":"github.com/fathom-trace/fathom/b","Test":"TestX"}
{"Action":"pass","Package":"github.com/fathom-trace/fathom/b"}
`

func TestWrite(t *testing.T) {
	rows, err := parseRows("A1\tcore\tworks\ta:TestX\tsomething\nA2\tcore\tboots\ta:TestBoots a:TestScripts/boot@debian-6.12\t\n" +
		"A3\tcore\tskips\tb:TestX\t\nA4\tcore\ttwo\ta:TestXY a:TestNever b:TestX\t\nA5\tsupporting\tnone\t\tnot built\nA6\tcontext\tnone\t\t\nA7\tcore\tnever\tc:TestX\t\n")
	if err != nil {
		t.Fatal(err)
	}
	rs := newResults()
	if err := rs.read(strings.NewReader(said)); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	write(&b, "# Head\n", rows, rs)
	want := `# Head

Results of 2026-01-02 03:04 to 2026-01-02 04:04 (UTC). **Packages that failed: a.**

| row | class | what | shown by | this machine | Debian 6.1 | Debian 6.12 | not shown |
|---|---|---|---|---|---|---|---|
| A1 | core | works | a.TestX | pass | **failed**: a.TestX | skipped | something |
| A2 | core | boots | a.TestBoots, a.TestScripts/boot | – | – | pass |  |
| A3 | core | skips | b.TestX | skipped | – | – |  |
| A4 | core | two | a.TestXY, a.TestNever, b.TestX | pass (1 skipped, 1 not run) | not run | not run |  |
| A5 | supporting | none | **not shown** | – | – | – | not built |
| A6 | context | none | – | – | – | – |  |
| A7 | core | never | c.TestX | not run | not run | not run |  |

## Measured

| row | test | where | |
|---|---|---|---|
| A1 | a.TestX | host | 7 of 7 |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
	if err := newResults().read(strings.NewReader("ok  \ta\t0.1s\n")); err == nil {
		t.Error("what go test prints without -json is taken")
	}
}
