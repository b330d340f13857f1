// Package syntaxtest reads chunked error files: programs of the language separated by lines of three dashes, with what must
// be said about a line at its end:
//
//	begin { @x = nosuch; }   ### 14-20: Unknown identifier: 'nosuch'
//	begin { $a = 1; }        ### WARNING: …
//
// Columns may be left out. Several messages on one line are separated by ###.
package syntaxtest

import (
	"fmt"
	"os"
	"regexp"
	"sort"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/lang/syntax"
)

var columns = regexp.MustCompile(`^(WARNING: |HINT: )?\d+-\d+: `)

// Run reads the chunks of file and compares what diagnose says about each with what its lines expect.
func Run(t *testing.T, file string, diagnose func(src *syntax.Source) []syntax.Diag) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	line := 1
	for _, chunk := range strings.Split(strings.TrimRight(string(b), "\n"), "\n---\n") {
		at := fmt.Sprintf("%s:%d", file, line)
		line += strings.Count(chunk, "\n") + 2
		text, want, precise := expectations(chunk)
		src := &syntax.Source{Name: "stdin", Text: text}
		var got []string
		for _, d := range diagnose(src) {
			got = append(got, render(d, precise))
		}
		sort.Strings(want)
		sort.Strings(got)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s (-want +got)\n%s\n%s", at, text, d)
		}
	}
}

// expectations cuts the messages off the lines of a chunk. precise tells which messages name their columns.
func expectations(chunk string) (text string, want []string, precise map[string]bool) {
	precise = map[string]bool{}
	var lines []string
	for i, l := range strings.Split(chunk, "\n") {
		parts := strings.Split(l, "###")
		lines = append(lines, strings.TrimRight(parts[0], " \t"))
		for _, m := range parts[1:] {
			m = strings.TrimSpace(m)
			precise[fmt.Sprintf("%d: %s", i+1, m)] = columns.MatchString(m)
			want = append(want, fmt.Sprintf("%d: %s", i+1, m))
		}
	}
	return strings.Join(lines, "\n"), want, precise
}

// render prints d as a chunk would, with columns if the chunk has them.
func render(d syntax.Diag, precise map[string]bool) string {
	sev := ""
	if d.Severity != syntax.Error {
		sev = d.Severity.String() + ": "
	}
	full := fmt.Sprintf("%d: %s%d-%d: %s", d.Span.Start.Line, sev, d.Span.Start.Col, d.Span.End.Col, d.Msg)
	if precise[full] {
		return full
	}
	return fmt.Sprintf("%d: %s%s", d.Span.Start.Line, sev, d.Msg)
}
