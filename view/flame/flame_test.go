package flame

import (
	"bytes"
	"encoding/xml"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const folded = `a;b 3
a;b;c 4
a;d<e> 2
z 1
`

func graph(t *testing.T, text string) *Graph {
	t.Helper()
	g, err := ParseFolded(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestFolded: what is written is what was read, sorted.
func TestFolded(t *testing.T) {
	g := graph(t, "z 1\na;b;c 4\na;d<e> 2\na;b 2\n\na;b 1\n")
	var b strings.Builder
	if err := g.Folded(&b); err != nil || g.Total() != 10 {
		t.Errorf("%v, total %d", err, g.Total())
	}
	if d := cmp.Diff(folded, b.String()); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"x", "a;b c", "a;b "} {
		if _, err := ParseFolded(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestSVG: the drawing is well-formed, a frame lies on what calls it and is as wide as its weight.
func TestSVG(t *testing.T) {
	g := graph(t, folded)
	g.Title = "t & t"
	var b bytes.Buffer
	if err := g.SVG(&b); err != nil {
		t.Fatal(err)
	}
	type rect struct {
		X float64 `xml:"x,attr"`
		Y float64 `xml:"y,attr"`
		W float64 `xml:"width,attr"`
	}
	var doc struct {
		Groups []struct {
			Frames []struct {
				Title string `xml:"title"`
				Rect  rect   `xml:"rect"`
			} `xml:"g"`
		} `xml:"g"`
	}
	if err := xml.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	at := map[string]rect{}
	for _, f := range doc.Groups[0].Frames {
		name, _, _ := strings.Cut(f.Title, " ")
		at[name] = f.Rect
	}
	if len(at) != 6 || at["a"].W < 1061 || at["a"].W > 1063 || at["c"].Y >= at["b"].Y || at["d<e>"].X < at["b"].X+at["b"].W-.1 || at["z"].Y != at["a"].Y {
		t.Errorf("%+v", at)
	}
}

// TestCompare: shares that grew are red, those that shrank blue.
func TestCompare(t *testing.T) {
	g := graph(t, "a 1\nb 9\n")
	g.Compare(graph(t, "a 9\nb 1\nc 1\n"))
	var b strings.Builder
	if err := g.SVG(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`>b (9 samples, 90.00%, +80.91% of all)`, "rgb(255,100,100)", "rgb(100,100,255)"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in %s", want, b.String())
		}
	}
}

// TestPprof: go tool pprof reads the profile.
func TestPprof(t *testing.T) {
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go here")
	}
	if help, _ := exec.Command(goTool, "tool", "pprof", "-h").CombinedOutput(); !bytes.Contains(help, []byte("-traces")) {
		t.Skipf("go tool pprof does not run here: %s", help)
	}
	file := filepath.Join(t.TempDir(), "p")
	var b bytes.Buffer
	if err := graph(t, folded).Pprof(&b); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(goTool, "tool", "pprof", "-traces", file)
	cmd.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go tool pprof: %v %s", err, out)
	}
	text := strings.Join(strings.Fields(string(out)), " ")
	for _, want := range []string{"4 c b a", "3 b a", "2 d<e> a", "1 z"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func FuzzParseFolded(f *testing.F) {
	f.Add(folded)
	f.Fuzz(func(t *testing.T, text string) {
		g, err := ParseFolded(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, write := range []func(io.Writer) error{g.Folded, g.SVG, g.Pprof} {
			if err := write(io.Discard); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestChanges: shares are compared, not weights.
func TestChanges(t *testing.T) {
	got := Changes(graph(t, "a;b 1\na 1\nz 2\n"), graph(t, "a;b 60\na 20\nz 20\n"))
	want := []Change{{[]string{"a", "b"}, 1, 60, .35}, {[]string{"z"}, 2, 20, -.3}, {[]string{"a"}, 1, 20, -.05}}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b float64) bool { return max(a-b, b-a) < 1e-9 })); d != "" {
		t.Error(d)
	}
}
