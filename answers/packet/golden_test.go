package packet

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden files")

// recorded are the recordings in testdata.
var recorded = []string{"good", "rule", "mixed"}

func load(t testing.TB, name string) *Recording {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var got bytes.Buffer
	if err := write(&got); err != nil {
		t.Fatal(err)
	}
	name = filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s: -want +got\n%s", name, diff)
	}
}

func TestGoldens(t *testing.T) {
	for _, name := range recorded {
		t.Run(name, func(t *testing.T) {
			r := load(t, name)
			vs := Explain(r)
			golden(t, name+".chrome", func(w io.Writer) error { return Chrome(w, r, vs) })
			golden(t, name+".txt", func(w io.Writer) error { return Text(w, r, vs, Style{}) })
			golden(t, name+".verbose.txt", func(w io.Writer) error { return Text(w, r, vs, Style{Verbose: true, Latency: true, ASCII: true}) })
			golden(t, name+".jsonl", func(w io.Writer) error { return JSON(w, r, vs, true) })
		})
	}
	r := load(t, "rule")
	golden(t, "rule.html", func(w io.Writer) error { return HTML(w, r, Explain(r)) })
	golden(t, "color.txt", func(w io.Writer) error { return Text(w, r, Explain(r), Style{Color: true}) })
}

func TestDiff(t *testing.T) {
	good, bad, mixed := load(t, "good"), load(t, "rule"), load(t, "mixed")
	golden(t, "diff.txt", func(w io.Writer) error { return Diff(w, good, bad, good.Pick(""), bad.Pick("")) })
	golden(t, "diff_mixed.txt", func(w io.Writer) error { return Diff(w, good, mixed, good.Pick(":53"), mixed.Pick(":8")) })
	golden(t, "diff_same.txt", func(w io.Writer) error { return Diff(w, good, good, good.Pick(""), good.Pick("")) })
	if f := good.Pick("tcp"); f != nil {
		t.Errorf("picked %v", f.Tuple)
	}
}

// TestPcapNG: what is written is as long as it was, and the same each time.
func TestPcapNG(t *testing.T) {
	r := load(t, "mixed")
	var a, b bytes.Buffer
	for _, w := range []*bytes.Buffer{&a, &b} {
		if err := PcapNG(w, r, Explain(r), r.BootToReal); err != nil {
			t.Fatal(err)
		}
	}
	if a.Len() == 0 || !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Errorf("%d bytes, then %d others", a.Len(), b.Len())
	}
	for _, comment := range []string{"LOST: pr has the route 'blackhole 10.9.0.0/16'", "pb/vb", "drop in ip_error"} {
		if !bytes.Contains(a.Bytes(), []byte(comment)) {
			t.Errorf("nothing of %q in it", comment)
		}
	}
}
