package tracefs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/feature"
)

func TestMounted(t *testing.T) {
	const text = `22 27 0:21 / /proc rw,relatime - proc proc rw
41 23 0:12 / /sys/kernel/tracing rw,nosuid shared:9 - tracefs tracefs rw
42 23 0:12 /instances/x /mnt/x rw - tracefs tracefs rw
43 23 0:12 / /my\040tracing rw shared:9 master:1 - tracefs none rw
broken
`
	if d := cmp.Diff([]string{"/sys/kernel/tracing", "/my tracing"}, mounted([]byte(text))); d != "" {
		t.Error(d)
	}
}

func tree(t *testing.T, files map[string]string) FS {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return FS{Root: root}
}

func TestEvents(t *testing.T) {
	want := []Event{{"sched", "sched_switch"}, {"sched", "sched_waking"}, {"syscalls", "sys_enter_open"}}
	files := map[string]string{
		"events/enable":                         "0",
		"events/syscalls/sys_enter_open/format": "x",
		"events/sched/sched_waking/format":      "x",
		"events/sched/sched_switch/format":      "the format",
		"events/sched/enable":                   "0",
		"events/ftrace/print/format":            "x",
	}
	for _, from := range []string{"walk", "available_events"} {
		if from == "available_events" {
			files[from] = "sched:sched_waking\nsched:sched_switch\nsyscalls:sys_enter_open\n"
		}
		fs := tree(t, files)
		got, err := fs.Events()
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%s: %v %s", from, err, d)
		}
		if b, err := fs.Format("sched", "sched_switch"); string(b) != "the format" || err != nil {
			t.Errorf("Format: %q, %v", b, err)
		}
		for _, bad := range []string{"nosuch", "", "..", "../sched/sched_switch"} {
			if _, err := fs.Format("sched", bad); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("Format(%q): %v", bad, err)
			}
		}
	}
}

func TestAvailableFunctions(t *testing.T) {
	fs := tree(t, map[string]string{"available_filter_functions": "vfs_read\n__ftrace_invalid_address___3\ne1000_open [e1000]\nvfs_read\n"})
	got, err := fs.AvailableFunctions()
	if d := cmp.Diff([]Function{{"vfs_read", ""}, {"e1000_open", "e1000"}, {"vfs_read", ""}}, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	got, err = fs.FindFunctions([]string{"e1000_open", "nosuch", "vfs_rea"})
	if d := cmp.Diff([]Function{{"e1000_open", "e1000"}}, got); d != "" || err != nil {
		t.Errorf("found: %v %s", err, d)
	}
	_, err = tree(t, nil).AvailableFunctions()
	_, ferr := tree(t, nil).FindFunctions(nil)
	if !errors.Is(err, feature.ErrUnsupported) || !errors.Is(ferr, feature.ErrUnsupported) {
		t.Errorf("without a list: %v, %v", err, ferr)
	}
}

func TestUnsupported(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{syscall.ENODEV: "CONFIG_TRACING", syscall.ENOSYS: "mount -t tracefs"} {
		err := unsupported("fsopen tracefs", errno, nil)
		if !errors.Is(err, feature.ErrUnsupported) || !errors.Is(err, errno) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
