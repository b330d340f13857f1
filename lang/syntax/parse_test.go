package syntax_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/syntax/syntaxtest"
)

// noPlaces compares trees by what they say, not where.
var noPlaces = cmpopts.IgnoreTypes(syntax.Span{}, &syntax.Source{})

func parse(t *testing.T, name, text string) *syntax.File {
	t.Helper()
	f, ds := syntax.Parse(&syntax.Source{Name: name, Text: text})
	for _, d := range ds {
		t.Errorf("%v\n%s", d, text)
	}
	return f
}

func TestErrors(t *testing.T) {
	syntaxtest.Run(t, "testdata/errors.bt", func(src *syntax.Source) []syntax.Diag {
		_, ds := syntax.Parse(src)
		return ds
	})
}

// TestFormat checks that what Format prints parses to the same tree.
func TestFormat(t *testing.T) {
	for _, name := range programs(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := parse(t, name, string(b))
		text := syntax.Format(f)
		if d := cmp.Diff(f, parse(t, "formatted "+name, text), noPlaces); d != "" {
			t.Errorf("%s (-parsed +formatted and parsed)\n%s\n%s", name, d, text)
		}
	}
}

func programs(t testing.TB) []string {
	files, err := filepath.Glob("testdata/*.bt")
	if err != nil {
		t.Fatal(err)
	}
	var good []string
	for _, f := range files {
		if filepath.Base(f) != "errors.bt" {
			good = append(good, f)
		}
	}
	return good
}

// TestExpr checks how expressions group: FormatExpr prints only the parentheses that are needed.
func TestExpr(t *testing.T) {
	tests := []struct{ in, want string }{
		{"1 + 2 * 3", "1 + 2 * 3"},
		{"(1 + 2) * 3", "(1 + 2) * 3"},
		{"1 - (2 - 3) - 4", "1 - (2 - 3) - 4"},
		{"a||b&&c|d^e&f==g<h<<i+j*k", "a || b && c | d ^ e & f == g < h << i + j * k"},
		{"((((k*j)+i)<<h)<g)==f", "k * j + i << h < g == f"},
		{"$a?$b:$c?$d:$e", "$a ? $b : $c ? $d : $e"},
		{"($a?$b:$c)?:$e", "($a ? $b : $c) ?: $e"},
		{"-(-1)", "- -1"},
		{"!-~1", "!-~1"},
		{"*$p.x", "*$p.x"},
		{"(*$p).x", "(*$p).x"},
		{"(struct s *)arg0.x", "(struct s *)arg0.x"},
		{"((struct s*)arg0)->x", "((struct s *)arg0)->x"},
		{"(myident)", "myident"},
		{"(myident)*$a", "(myident)*$a"},
		{"(pid)*tid", "pid * tid"},
		{"(cpu)-1", "cpu - 1"},
		{"(myident)+1", "myident + 1"},
		{"(myident)&&1", "myident && 1"},
		{"(myident)->x", "myident->x"},
		{"(a*b)", "a * b"},
		{"(a*)b", "(a *)b"},
		{"(const char *)b", "(char *)b"},
		{"(const struct s *)b", "(struct s *)b"},
		{"(unsigned long long)b", "(unsigned long long)b"},
		{"(int32*[4]*)b", "(int32 *[4] *)b"},
		{"(string[64])b", "(string[64])b"},
		{"sizeof(ident[1])", "sizeof(ident[1])"},
		{"sizeof((ident)[1])", "sizeof((ident)[1])"},
		{"(1,)", "(1,)"},
		{"(1,2,)", "(1, 2)"},
		{"@a[1,2]", "@a[(1, 2)]"},
		{"0x1f + 0b11 + 017 + 1_000 + 1e3 + 5ULL", "31 + 3 + 15 + 1000 + 1000 + 5"},
		{"1us + 2m", "1000ns + 120000000000ns"},
		{`"\0\x7f\101"`, `"\000\177A"`},
		{"arg0 /* c */ + // d\n 1", "arg0 + 1"},
		{"$kv.0.1", "$kv.0.1"},
		{"18446744073709551615", "18446744073709551615"},
	}
	for _, tc := range tests {
		x, ds := syntax.ParseExpr(&syntax.Source{Text: tc.in})
		if got := syntax.FormatExpr(x); got != tc.want || len(ds) > 0 {
			t.Errorf("%s: got %s, want %s %v", tc.in, got, tc.want, ds)
		}
	}
}

func TestAttachPoints(t *testing.T) {
	tests := []struct {
		in   string
		want []string
		pred bool
	}{
		{"kprobe:f{}", []string{"kprobe:f"}, false},
		{"kprobe:f,kprobe:g , BEGIN,{}", []string{"kprobe:f", "kprobe:g", "BEGIN"}, false},
		{"BEGIN/1/{}", []string{"BEGIN"}, true},
		{"uprobe:/bin/sh:f /pid/{}", []string{"uprobe:/bin/sh:f"}, true},
		{"kprobe:f /* c */ /1/ // d\n{}", []string{"kprobe:f"}, true},
		{`uprobe:"a b,c{":f {}`, []string{`uprobe:"a b,c{":f`}, false},
		{"*:*:x? {}", []string{"*:*:x?"}, false},
		{"tracepoint:$1:$2 {}", []string{"tracepoint:$1:$2"}, false},
		{"kprobe:f /$1 / 2 / 3/ {}", []string{"kprobe:f"}, true},
	}
	for _, tc := range tests {
		p := parse(t, "stdin", tc.in).Probes[0]
		var got []string
		for _, ap := range p.Points {
			got = append(got, ap.Raw)
		}
		if d := cmp.Diff(tc.want, got); d != "" || (p.Pred != nil) != tc.pred {
			t.Errorf("%s: predicate %v\n%s", tc.in, p.Pred != nil, d)
		}
	}
}

// TestDeep checks that nesting and length are bounded and reported, not run into.
func TestDeep(t *testing.T) {
	for _, unit := range []string{"(", "-", "{", "@[", "print(", "if (1) {", "if (", "(int8)", "1 ? ", "$a.", "1+", "a[", "!(", "comptime ", "sizeof("} {
		text := "begin { " + strings.Repeat(unit, 100_000)
		_, ds := syntax.Parse(&syntax.Source{Name: "stdin", Text: text})
		if len(ds) == 0 {
			t.Errorf("%q × 100000: no error", unit)
		}
	}
}

// TestClone checks that a copy equals its original and shares no node with it.
func TestClone(t *testing.T) {
	for _, name := range programs(t) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range parse(t, name, string(b)).Probes {
			seen := map[syntax.Node]bool{}
			syntax.Walk(p.Body, func(n syntax.Node) bool { seen[n] = true; return true })
			c := (&syntax.Cloner{}).CloneBlock(p.Body)
			if d := cmp.Diff(p.Body, c, cmp.AllowUnexported(syntax.Span{})); d != "" {
				t.Errorf("%s: %s", name, d)
			}
			syntax.Walk(c, func(n syntax.Node) bool {
				if seen[n] {
					t.Errorf("%s: %T is shared", name, n)
				}
				return true
			})
		}
	}
}

// FuzzParse checks that any text parses without a panic and that a program without errors survives Format.
func FuzzParse(f *testing.F) {
	for _, name := range append(programs(f), "testdata/errors.bt") {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, chunk := range strings.Split(string(b), "\n---\n") {
			f.Add(chunk)
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		file, ds := syntax.Parse(&syntax.Source{Name: "stdin", Text: text})
		syntax.WalkFile(file, func(n syntax.Node) bool { _ = n.Where().Text(); return true })
		if len(ds) > 0 {
			return
		}
		formatted := syntax.Format(file)
		again, ds := syntax.Parse(&syntax.Source{Name: "formatted", Text: formatted})
		if len(ds) > 0 {
			t.Fatalf("%v\n%q\n%s", ds, text, formatted)
		}
		if d := cmp.Diff(file, again, noPlaces); d != "" {
			t.Fatalf("%q\n%s\n%s", text, formatted, d)
		}
	})
}
