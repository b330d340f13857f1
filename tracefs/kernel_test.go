package tracefs_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/tracefs"
)

func TestMain(m *testing.M)  { ktest.Main(m, ktest.Config{}) }
func TestGuest(t *testing.T) { ktest.Guests(t, ktest.Config{}) }

// TestKernel looks at the kernel's own tracefs, and mounts it privately.
func TestKernel(t *testing.T) {
	ktest.Need(t, ktest.Tracefs)
	before, _ := os.ReadFile("/proc/self/mountinfo")
	for name, find := range map[string]func() (tracefs.FS, error){"find": tracefs.Find, "private": func() (tracefs.FS, error) { return tracefs.MountPrivate() }} {
		fs, err := find()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		evs, err := fs.Events()
		if err != nil || len(evs) < 100 {
			t.Errorf("%s: %d events, %v", name, len(evs), err)
		}
		walked, err := tracefs.WalkEvents(fs)
		if d := cmp.Diff(evs, walked); d != "" || err != nil {
			t.Errorf("%s: walking finds others: %v %s", name, err, d)
		}
		if _, err := fs.Format("sched", "sched_switch"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		fns, err := fs.AvailableFunctions()
		if err != nil && !errors.Is(err, feature.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %s, %d events, %d functions, %v", name, fs.Root, len(evs), len(fns), err)
		if err := fs.Close(); err != nil {
			t.Error(err)
		}
	}
	after, _ := os.ReadFile("/proc/self/mountinfo")
	if d := cmp.Diff(string(before), string(after)); d != "" {
		t.Errorf("the mount table changed: %s", d)
	}
}
