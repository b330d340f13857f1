package perfdata

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/hostile"
	"github.com/fathom-trace/fathom/traceevent"
)

// The files in testdata were made on Debian 12 (perf 6.1), with wl being a program that calls getppid, or spins:
//
//	perf record -q -z -o packed.data -e cpu-clock -F 5000 -g -- wl spin 20
//	perf record -q -o - -e cpu-clock -F 5000 -e raw_syscalls:sys_exit -- wl sys 10 > piped.data
func seed(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// count reads a file: events by name, and how many are missing.
func count(b []byte) (map[string]int, error) {
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Tasks(); err != nil {
		return nil, err
	}
	out := map[string]int{}
	s := f.Events()
	last := uint64(0)
	for e := range traceevent.All(s) {
		if e.Time < last {
			out["out of order"]++
		}
		last = e.Time
		if e.Format == nil {
			out["lost"]++
			continue
		}
		out[e.Format.System+":"+e.Format.Name]++
		e.Format.AppendFields(nil, e.Rec)
	}
	return out, s.Err()
}

// TestRead: as many samples as perf script prints.
func TestRead(t *testing.T) {
	for name, want := range map[string]map[string]int{
		"packed.data": {"perf:cpu-clock": 67},
		"piped.data":  {"raw_syscalls:sys_exit": 6, "perf:cpu-clock": 2},
	} {
		got, err := count(seed(t, name))
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Error(name, err, d)
		}
	}
}

// mutations is how many damaged copies of each file are read.
// TestMutated: whatever is damaged or cut, reading ends.
func TestMutated(t *testing.T) {
	for _, name := range []string{"packed.data", "piped.data"} {
		hostile.Check(t, seed(t, name), 600, func(b []byte) {
			got, _ := count(b)
			n := 0
			for _, k := range got {
				n += k
			}
			if n > 100*len(b) {
				t.Fatalf("%d events out of %d bytes", n, len(b))
			}
		})
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(seed(f, "packed.data"))
	f.Add(seed(f, "piped.data"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = count(b) })
}
