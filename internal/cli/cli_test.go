package cli

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

func TestMain(m *testing.M) {
	if pid1.IsInit() { // of a guest that a script boots
		os.Exit(Main(os.Args))
	}
	if len(os.Args) == 3 && (os.Args[2] == keeperVerb || os.Args[2] == sessionKeeper) { // started by a script's lab boot --keep, or record create
		os.Exit(Main(os.Args))
	}
	if len(os.Args) > 2 && os.Args[1] == "bypass" && os.Args[2] == enterCommand { // started by a script's bypass run
		os.Exit(Main(os.Args))
	}
	testscript.Main(m, map[string]func(){
		"fathom":   func() { os.Exit(Main(os.Args)) },
		"bpftrace": func() { os.Exit(Main(append([]string{"bpftrace"}, os.Args[1:]...))) },
	})
}

// TestScripts runs the command line as a person would, without root.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Condition: condition, Setup: keepCache, Cmds: map[string]func(*testscript.TestScript, bool, []string){"waitfor": waitFor}})
}

// waitFor waits for files that someone else makes.
func waitFor(ts *testscript.TestScript, _ bool, files []string) {
	for _, f := range files {
		for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			if _, err := os.Stat(ts.MkAbs(f)); err == nil {
				break
			} else if time.Now().After(deadline) {
				ts.Fatalf("waitfor: %v", err)
			}
		}
	}
}

// condition tells scripts where they are: [namespaces] if network namespaces can be made, [igb] if QEMU has that
// card, [btf] if the kernel tells its types, [guests] if FATHOM_GUESTS asks for guests.
func condition(name string) (bool, error) {
	switch name {
	case "namespaces":
		ns, err := netns.New()
		if err != nil {
			return false, nil
		}
		return true, ns.Close()
	case "igb":
		list, err := exec.Command("qemu-system-x86_64", "-device", "help").Output()
		return err == nil && strings.Contains(string(list), `"igb"`), nil
	case "btf":
		_, err := os.Stat("/sys/kernel/btf/vmlinux")
		return err == nil, nil
	case "guests":
		return os.Getenv("FATHOM_GUESTS") != "", nil
	}
	return false, fmt.Errorf("no condition %q", name)
}

// keepCache shows scripts the cache of kernels, and how to run them.
func keepCache(e *testscript.Env) error {
	dir, err := os.UserCacheDir()
	e.Setenv("XDG_CACHE_HOME", dir)
	e.Setenv("UNIQUE", strconv.Itoa(os.Getpid()))
	e.Setenv("FATHOM_ACCEL", os.Getenv("FATHOM_ACCEL"))
	return err
}

func TestAsRoot(t *testing.T) {
	long := strings.Repeat("x", mostShown)
	for _, tt := range []struct {
		uid  int
		args []string
		want string
	}{
		{0, []string{"fathom", "nic"}, ""},
		{1000, []string{"./fathom", "packet", "udp port 9", "-j"}, "sudo ./fathom packet 'udp port 9' -j"},
		{1000, []string{"fathom", "trace", "-e", "BEGIN { @[\"a'b\"] = 1; }"}, `sudo fathom trace -e 'BEGIN { @["a'\''b"] = 1; }'`},
		{1000, []string{"fathom", "trace", "-e", "BEGIN {\n}"}, "sudo, and the same command"},
		{1000, []string{"fathom", long}, "sudo, and the same command"},
	} {
		if got := asRoot(tt.uid, tt.args); got != tt.want {
			t.Errorf("user %d, %q: %q, want %q", tt.uid, tt.args, got, tt.want)
		}
	}
}
