package dump_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
	"github.com/fathom-trace/fathom/lab/modules"
)

// bug is what module fathom_bugs does to a kernel, and what must be said of it. The kernel goes on: it is dumped alive.
type bug struct {
	name     string
	shows    string // what the kernel says when it has happened; "" for what it says nothing of
	why      string // of the first page, as the first that happened
	then     string // and as a later one
	function string // on somebody's stack
	others   []string
}

var bugs = map[string]bug{
	"deadlock": {name: "deadlock", function: "bugs_deadlock", others: []string{"DEADLOCK: "},
		why: `why      deadlock of 2 tasks, .*: pid \d+ \S+ waits for \S+ \(bugs_(stock|ledger).*\) in bugs_(deadlock|other); pid \d+ \S+ waits for \S+ \(bugs_(stock|ledger).*\) in bugs_(deadlock|other)`},
	"null": {name: "null", shows: "BUG: kernel NULL pointer dereference",
		why: `why      bugs_null \(module fathom_bugs\) read the member at offset 0x8 of a null pointer`, then: `then     bugs_null \(module fathom_bugs\) read the member`},
	"bug": {name: "bug", shows: "kernel BUG at",
		why: `why      bugs_bug \(module fathom_bugs\) found a state that must not be and stopped: BUG at \S*fathom_bugs.c:\d+`, then: `then     bugs_bug \(module fathom_bugs\) found a state`},
	"softlockup": {name: "softlockup", shows: "soft lockup", function: "bugs_softlockup",
		why: `why      CPU \d+ ran \S+ \(pid \d+\) in the kernel for \S+ without letting others run, in bugs_softlockup`, then: `then     CPU \d+ ran \S+ \(pid \d+\) in the kernel for \S+ without letting others run, in bugs_softlockup`},
}

// orders are what happens to one kernel after another: what a CPU does not survive is last. In long runs each bug also
// has a kernel of its own.
func orders() map[string][]string {
	o := map[string][]string{kernels[0]: {"deadlock", "null", "bug", "softlockup"}, kernels[1]: {"bug", "deadlock", "null", "softlockup"}}
	if os.Getenv(envDebuginfo) != "" {
		for _, k := range kernels {
			for name := range bugs {
				o[k+"/"+name] = []string{name}
			}
		}
	}
	return o
}

// suffer runs in the guest: one bug after the other, what /proc says then as a line of JSON, and a line awaited from the host.
func suffer(names []string) int {
	err := func() error {
		host, err := os.Open("/dev/ttyS1")
		if err != nil {
			return err
		}
		defer host.Close()
		lines := bufio.NewReader(host)
		if err := os.WriteFile("/proc/sys/kernel/watchdog_thresh", []byte("1"), 0); err != nil { // a soft lockup is twice as long
			return err
		}
		for _, name := range names {
			if name == "plant" {
				return os.WriteFile("/proc/fathom_bugs", []byte(names[1]), 0)
			}
			cmd := exec.Command("/init", "suffer", "plant", name)
			if err := cmd.Start(); err != nil {
				return err
			}
			if err := happened(bugs[name], cmd.Process.Pid); err != nil {
				return err
			}
			if err := json.NewEncoder(os.Stdout).Encode(witness()); err != nil {
				return err
			}
			if _, err := lines.ReadString('\n'); err != nil {
				return err
			}
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// happened waits until the kernel has said all of a bug, or the two tasks that wait for each other do.
func happened(b bug, pid int) error {
	for start := time.Now(); time.Since(start) < 3*time.Minute; time.Sleep(50 * time.Millisecond) {
		if b.shows != "" {
			if _, after, ok := strings.Cut(dmesg(), b.shows); ok && strings.Contains(after, "</TASK>") {
				return nil
			}
			continue
		}
		waiting := 0
		stacks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stack")
		for _, f := range stacks {
			s, _ := os.ReadFile(f)
			if top, _, _ := strings.Cut(string(s), "\n"); strings.Contains(top, " bugs_") { // what waits for a lock is not shown
				waiting++
			}
		}
		if waiting == 2 {
			return nil
		}
	}
	return fmt.Errorf("%s does not happen:\n%s", b.name, dmesg())
}

// TestBugs dumps kernels to which bugs happened, compares the dumps with what /proc said then, and wants the first page to
// name each cause.
func TestBugs(t *testing.T) {
	for name, order := range orders() {
		kernel, _, _ := strings.Cut(name, "/")
		t.Run(name, func(t *testing.T) {
			need(t, kernel)
			sufferIn(t, kernel, order)
		})
	}
}

func sufferIn(t *testing.T, kernel string, order []string) {
	dir := t.TempDir()
	o, err := options(t.Context(), kernel)
	if err != nil {
		t.Fatal(err)
	}
	cache, err := guest.UserCache()
	if err != nil {
		t.Fatal(err)
	}
	headers, err := cache.BuildDir(t.Context(), o.Kernel)
	if err != nil {
		t.Fatal(err)
	}
	ko, err := modules.Build(t.Context(), "bugs", headers, filepath.Join(cache.Dir, "modules", o.Kernel.Release, "bugs"))
	if err != nil {
		t.Fatal(err)
	}
	said, guestSays := io.Pipe()
	go_ := filepath.Join(dir, "go")
	o.Commands = []pid1.Command{{Args: append([]string{"/init", "suffer"}, order...)}}
	o.ModuleFiles, o.Modules, o.Stdout = []string{ko}, append(o.Modules, "qemu_fw_cfg"), guestSays
	o.QEMUArgs = []string{"-device", "vmcoreinfo", "-chardev", "socket,id=go,path=" + go_ + ",server=on,wait=off", "-serial", "chardev:go"}
	g, err := guest.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-g.Done()
		guestSays.Close()
	}()
	defer func() {
		g.Quit()
		if res, err := g.Wait(); t.Failed() {
			t.Logf("%v %v\n%s", res.Commands, err, res.Console)
		}
	}()
	host, err := net.Dial("unix", go_)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	dec := json.NewDecoder(said)
	for i, name := range order {
		c := corpse{dir: dir}
		if err := dec.Decode(&c.said); err != nil {
			t.Fatalf("before %s: %v", name, err)
		}
		core := filepath.Join(dir, "elf")
		if err := g.Dump(t.Context(), core, guest.DumpOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) { checkBug(t, c, core, order[:i+1]) })
		if _, err := host.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(core); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

func checkBug(t *testing.T, c corpse, name string, happened []string) {
	d := open(t, name)
	b := bugs[happened[len(happened)-1]]
	checkModules(t, c, d)
	checkTasks(t, c, d)
	checkStacks(t, d, b.function)
	checkStacksSaid(t, c, d)
	checkLog(t, c, d, b.shows)
	var page bytes.Buffer
	if err := core.New(d, "test").Page(&page); err != nil {
		t.Error(err)
	}
	wants := slices.Clone(b.others)
	first := true
	for _, h := range happened {
		switch h := bugs[h]; {
		case h.shows == "": // it is in the state of tasks, not in the log
		case first:
			wants, first = append(wants, h.why), false
		default:
			wants = append(wants, h.then)
		}
	}
	if first {
		wants = append(wants, b.why)
	}
	for _, want := range wants {
		if !regexp.MustCompile(want).Match(page.Bytes()) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if t.Failed() {
		t.Log(page.String())
	}
}
