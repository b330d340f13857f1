package exercise_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/netns"
)

// envKills is how many kills a run has; make soak sets 200.
const envKills = "FATHOM_KILLS"

// TestKills kills lab boot, lab exec and lab try at random moments. After the next start nothing of them is left, and what
// someone asked to keep is as it was.
func TestKills(t *testing.T) {
	ktest.Need(t, ktest.NetNS, ktest.Tracepoint)
	bin := fathomBinary(t)
	kills := 8
	if s := os.Getenv(envKills); s != "" {
		kills, _ = strconv.Atoi(s)
	}
	id := strconv.Itoa(os.Getpid())
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), bin, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("fathom %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("lab", "up", "--name", "kept-"+id, "--while", id, "a:192.0.2.1/30 -- b:192.0.2.2/30")
	defer run("lab", "down", "kept-"+id)
	victims := []func() (args []string, within time.Duration){
		func() ([]string, time.Duration) {
			return []string{"lab", "exec", "--lab", "kept-" + id, "a", "--", "sleep", "60"}, 200 * time.Millisecond
		},
		func() ([]string, time.Duration) { return []string{"lab", "try", "who-reads"}, 500 * time.Millisecond },
		func() ([]string, time.Duration) { return []string{"lab", "try", "dropped-packet"}, time.Second },
	}
	guests := os.Getenv(ktest.EnvGuests) != ""
	if guests {
		run("lab", "boot", "--keep", "kept-guest-"+id, "--while", id, "--mem", "256")
		defer run("lab", "down", "kept-guest-"+id)
		victims = append(victims, func() ([]string, time.Duration) {
			return []string{"lab", "boot", "--keep", "dies-" + id, "--mem", "256"}, 4 * time.Second
		}, func() ([]string, time.Duration) {
			return []string{"core", "--guest", "kept-guest-" + id}, 500 * time.Millisecond
		})
		checkLive(t, run, "kept-guest-"+id)
	}
	for n := range kills {
		args, within := victims[n%len(victims)]()
		kill(t, bin, args, rand.N(within))
		if args[1] == "boot" { // one that was up before the kill has been asked for
			exec.CommandContext(t.Context(), bin, "lab", "down", "dies-"+id).Run()
		}
	}
	deadline := time.Now().Add(2 * time.Minute)
	for { // QEMU and keepers need a moment to die
		run("doctor", "--clean")
		left := leftovers(t, id)
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("left after %d kills: %s", kills, strings.Join(left, "; "))
		}
		time.Sleep(200 * time.Millisecond)
	}
	out := run("lab", "list")
	if strings.Count(out, "kept-"+id) != 2 || guests && !regexp.MustCompile("kept-guest-"+id+" +running").MatchString(out) {
		t.Errorf("what was kept is gone:\n%s", out)
	}
}

// checkLive reads a guest that runs, in both ways, and wants its processes; it goes on afterwards.
func checkLive(t *testing.T, run func(...string) string, name string) {
	t.Helper()
	goesOn := func() {
		t.Helper()
		if out := run("lab", "list"); !regexp.MustCompile(name + " +running").MatchString(out) {
			t.Errorf("the guest was stopped and does not go on:\n%s", out)
		}
	}
	want := run("lab", "exec", name, "--", "cat", "/proc/1/comm", "/proc/2/comm")
	both := func(way string) {
		t.Helper()
		page := run("core", "--guest", name)
		got := run("core", "--guest", name, "ps", "1", "2")
		for comm := range strings.Lines(want) {
			if !strings.Contains(got, strings.TrimSpace(comm)) {
				t.Errorf("processes 1 and 2 are %q, read through %s:\n%s", want, way, got)
			}
		}
		if !strings.Contains(page, "read through "+way) {
			t.Errorf("the page is not of what was read through %s:\n%.500s", way, page)
		}
		goesOn()
	}
	both("QMP")
	folders, err := filepath.Glob("/run/fathom/guest-*-" + name)
	if err != nil || len(folders) != 1 {
		t.Fatalf("folders of the guest: %v, %v", folders, err)
	}
	// What QMP gives stands in a file, which cannot be made where a folder of the name is, as none can on a full disk.
	if err := os.MkdirAll(filepath.Join(folders[0], "mem", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	both("its gdb stub")
	if err := os.RemoveAll(filepath.Join(folders[0], "mem")); err != nil {
		t.Fatal(err)
	}
}

// kill starts a command and kills it, and nothing but it.
func kill(t *testing.T, bin string, args []string, after time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	stdin, err := cmd.StdinPipe() // open: lab try waits for answers
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	cmd.Stdout, cmd.Stderr = io.Discard, io.Discard
	cmd.WaitDelay = time.Second
	cmd.Env = append(os.Environ(), "FATHOM_KILLED="+fmt.Sprint(os.Getpid()))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(after)
	cmd.Process.Kill()
	cmd.Wait()
}

// leftovers lists processes, namespaces and folders of what was killed: its processes carry a variable.
func leftovers(t *testing.T, id string) (left []string) {
	t.Helper()
	envs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, e := range envs {
		b, err := os.ReadFile(e)
		if err == nil && strings.Contains("\x00"+string(b), "\x00FATHOM_KILLED="+id+"\x00") {
			cmdline, _ := os.ReadFile(filepath.Join(filepath.Dir(e), "cmdline"))
			if len(cmdline) > 0 {
				left = append(left, strings.ReplaceAll(string(cmdline), "\x00", " "))
			}
		}
	}
	ns, _ := filepath.Glob(netns.RunDir + "/fathom.*.try-*")
	dirs, _ := filepath.Glob(filepath.Join(os.TempDir(), "fathom-try-*"))
	guests, _ := filepath.Glob("/run/fathom/guest-*-dies-" + id)
	return append(append(append(left, ns...), dirs...), guests...)
}
