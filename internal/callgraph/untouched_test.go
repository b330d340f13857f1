package callgraph

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/tracefs"
)

// volatile are files of tracefs that change by themselves, or by being read.
var volatile = []string{"trace", "trace_pipe", "trace_stat", "snapshot", "saved_cmdlines", "saved_tgids", "kprobe_profile", "uprobe_profile",
	"trace_marker", "trace_marker_raw", "free_buffer", "touched_functions", "dyn_ftrace_total_info", "printk_formats", "available_filter_functions_addrs"}

// state is what tracefs holds for the whole machine, by file; events, which are many, by their common switch.
func state(t *testing.T) map[string]string {
	t.Helper()
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	out := map[string]string{"events/enable": fs.Global("events/enable")}
	for _, dir := range []string{"", "options", "instances"} {
		ents, err := os.ReadDir(filepath.Join(fs.Root, dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range ents {
			name := filepath.Join(dir, e.Name())
			if dir == "instances" {
				out[name] = "there"
			} else if !e.IsDir() && !slices.Contains(volatile, name) {
				out[name] = fs.Global(name)
			}
		}
	}
	return out
}

// prime makes an instance and removes it: from the first one on the kernel prints buffer_size_kb in another way.
func prime(t *testing.T) {
	t.Helper()
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	i, err := fs.NewInstance(lease.Dir{Path: filepath.Join(t.TempDir(), "leases")})
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestUntouched: tracing changes nothing that others see, neither meanwhile nor afterwards.
func TestUntouched(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracefs)
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			prime(t)
			before := state(t)
			var during map[string]string
			trace(t, Options{Func: "vfs_read", Engine: e, Comm: "graphme", PID: os.Getpid(), Only: narrow, Ready: func() { during = state(t) }}, "graphme", readFile)
			for _, s := range []map[string]string{before, during} {
				delete(s, "enabled_functions") // a list of what is traced, by anybody
			}
			for name := range during {
				if strings.HasPrefix(name, "instances/fathom-") {
					delete(during, name)
				}
			}
			if d := cmp.Diff(before, during); d != "" {
				t.Errorf("meanwhile:\n%s", d)
			}
			after := state(t)
			if after["enabled_functions"] != "" {
				t.Errorf("functions are still traced:\n%s", after["enabled_functions"])
			}
			delete(after, "enabled_functions")
			if d := cmp.Diff(before, after); d != "" {
				t.Errorf("afterwards:\n%s", d)
			}
		})
	}
}

// TestOthers: somebody else's set_graph_function reaches into all instances, so probes are used; it stays as it was.
func TestOthers(t *testing.T) {
	ktest.NeedGuest(t, ktest.GraphInstance)
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	file := filepath.Join(fs.Root, "set_graph_function")
	if err := os.WriteFile(file, []byte("vfs_write\n"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile(file, nil, 0) // opening with O_TRUNC empties it
	_, res, msgs := trace(t, Options{Func: "vfs_read", Comm: "graphme", PID: os.Getpid(), Only: narrow}, "graphme", readFile)
	if res.Engine != Probes || !strings.Contains(msgs, "set_graph_function=vfs_write: somebody else has set it") || fs.Global("set_graph_function") != "vfs_write" {
		t.Errorf("%+v, %s\n%s", res, fs.Global("set_graph_function"), msgs)
	}
}

// envVictim has the test binary trace with this engine until it is killed.
const envVictim = "FATHOM_TEST_GRAPH_VICTIM"

// TestVictim is what TestKilled kills; by itself it does nothing.
func TestVictim(t *testing.T) {
	engine, dir, _ := strings.Cut(os.Getenv(envVictim), " ")
	if engine == "" {
		t.Skip("run by TestKilled")
	}
	Run(context.Background(), Options{Func: "vfs_read", Engine: engine, Only: narrow, Quiet: true, Stdout: os.Stderr, Stderr: os.Stderr,
		Leases: lease.Dir{Path: dir}, Ready: func() { os.Stdout.WriteString("READY\n") }})
}

// TestKilled: after kill -9 the next start removes what the kernel could not.
func TestKilled(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracefs)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			prime(t)
			before := state(t)
			leases := lease.Dir{Path: filepath.Join(t.TempDir(), "leases")}
			cmd := exec.Command(self, "-test.run=^TestVictim$")
			cmd.Env = append(os.Environ(), envVictim+"="+e+" "+leases.Path)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for sc := bufio.NewScanner(out); sc.Scan() && sc.Text() != "READY"; {
			}
			meanwhile := state(t)
			cmd.Process.Kill()
			cmd.Wait()
			gone, err := leases.Clean(map[string]lease.Cleaner{tracefs.LeaseKind: tracefs.CleanInstance})
			want := 0
			if e == FunctionGraph {
				want = 1
			}
			if err != nil || len(gone) != want || cmp.Equal(before, meanwhile) {
				t.Errorf("cleaned %v, %v; nothing was traced: %v", gone, err, cmp.Equal(before, meanwhile))
			}
			var d string
			for range 100 { // the kernel removes probes behind grace periods
				if d = cmp.Diff(before, state(t)); d == "" {
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
			t.Errorf("left behind:\n%s", d)
		})
	}
}
