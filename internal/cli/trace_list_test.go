package cli

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/tracefs"
)

// TestListTracepoints: the list has the kernel's events, byte for byte, and functions come out of its types, which anybody may read.
func TestListTracepoints(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.BTF)
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	kernel := func() []string {
		text, err := os.ReadFile(fs.Root + "/available_events")
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for name := range strings.Lines(string(text)) {
			want = append(want, "tracepoint:"+name)
		}
		slices.Sort(want)
		return want
	}
	want, d := kernel(), ""
	for range 10 { // tests make events of their own meanwhile
		_, out := output(t, "trace", "-l", "tracepoint:*")
		got := slices.Sorted(strings.Lines(out))
		again := kernel()
		if d = cmp.Diff(want, got); d == "" || slices.Equal(want, again) {
			break
		}
		want = again
	}
	if d != "" {
		t.Error(d)
	}
	if _, out := output(t, "trace", "-lv", "fentry:vfs_read"); !strings.Contains(out, "vfs_read\n    struct file * file\n") {
		t.Errorf("vfs_read:\n%s", out)
	}
}
