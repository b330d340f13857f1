package record

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/record/ctf"
)

// TestShift moves the time of day of a recording, as we read it and as others do.
func TestShift(t *testing.T) {
	for _, by := range []int64{0, 1, -1, 5e9 + 7, -3e9} {
		dir := filepath.Join(t.TempDir(), "r")
		const real = 1_700_000_000_123_456_789
		s, err := ctf.NewSchema([16]byte{1}, real, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		meta, err := json.Marshal(Meta{Version: 1, ToReal: real, Host: "h", CPUs: []int{0}})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(dir, ownDir), 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"metadata": s.Metadata(), filepath.Join(ownDir, metaFile): meta} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := Shift(filepath.Dir(dir), by); err != nil {
			t.Fatal(err)
		}
		want, err := ctf.NewSchema([16]byte{1}, real+by, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := os.ReadFile(filepath.Join(dir, "metadata")); string(got) != string(want.Metadata()) {
			t.Errorf("by %d: metadata is not that of a clock that far off:\n%s", by, got)
		}
		var m Meta
		got, _ := os.ReadFile(filepath.Join(dir, ownDir, metaFile))
		if err := json.Unmarshal(got, &m); err != nil || m.ToReal != real+by || m.Host != "h" {
			t.Errorf("by %d: %s, %v", by, got, err)
		}
	}
	if err := Shift(t.TempDir(), 1); err == nil || !strings.Contains(err.Error(), "there is no recording") {
		t.Errorf("of nothing: %v", err)
	}
}
