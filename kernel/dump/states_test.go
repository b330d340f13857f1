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
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
	blocked  []string // patterns of stacks that there must be before it has happened, of what the log says nothing of
}

// asleep begins the pattern of a stack on which a function waits for a lock, whose own functions may be shown or not.
const asleep = `^\S+ (?:(?:_*rt_|rwsem_|_*percpu_|_*down_|_*mutex_)[^$]*)?\b`

var bugs = map[string]bug{
	"deadlock": {name: "deadlock", function: "bugs_deadlock", others: []string{"DEADLOCK: "}, blocked: []string{`^\S+ bugs_deadlock`, `^\S+ bugs_other`},
		why: `why      deadlock of 2 tasks, .*: pid \d+ \S+ waits for \S+ \(bugs_(stock|ledger).*\) in bugs_(deadlock|other); pid \d+ \S+ waits for \S+ \(bugs_(stock|ledger).*\) in bugs_(deadlock|other)`},
	"mixed": {name: "mixed", function: "bugs_mixed", blocked: []string{asleep + `bugs_mixed`, asleep + `bugs_cashier`, asleep + `bugs_porter`},
		why: `why      deadlock of [23] tasks, `, others: []string{
			`pid \d+ \S+ waits for rt_mutex \S+ \(bugs_till.*\), held by pid \d+ fathom_cashier`, `pid \d+ fathom_porter waits for rw_semaphore \S+ \(bugs_shelf.*\) to read, held by a writer, pid \d+ \S+`,
			`pid \d+ fathom_cashier waits for mutex \S+ \(bugs_door.*\), held by pid \d+ fathom_porter`, `DEADLOCK: .*(rt_mutex|rw_semaphore|mutex).* → and round again`}},
	"flush": {name: "flush", function: "bugs_flush", blocked: []string{`flush_work[^$]*\bbugs_flush`, asleep + `bugs_audit`},
		why: `why      deadlock of 2 tasks, `, others: []string{
			`pid \d+ \S+ waits for work \S+ \(bugs_auditing.*\), which pid \d+ kworker/\S+ is at`, `pid \d+ kworker/\S+ waits for mutex \S+ \(bugs_books.*\), held by pid \d+`}},
	"gates": {name: "gates", function: "bugs_gates",
		blocked: []string{asleep + `bugs_gates`, asleep + `bugs_visitor`, asleep + `bugs_builder`, asleep + `bugs_mover`, `^\S+ (anon_)?pipe_read`, `^\S+ (anon_)?pipe_write`},
		others: []string{`pid \d+ \S+ waits for completion \S+ \(bugs_parcel.*\)\n`, `pid \d+ fathom_visitor waits for percpu_rwsem \S+ \(bugs_gate.*\) to read, held by a writer`,
			`pid \d+ fathom_builder waits for percpu_rwsem \S+ \(bugs_gate.*\) to write, held by a writer`, `pid \d+ fathom_mover waits for percpu_rwsem \S+ \(bugs_lane.*\) to write, held by readers`,
			`pid \d+ init waits for pipe .* to read \(0 of \d+ buffers used, 1 writer: pid \d+ init\)`, `pid \d+ init waits for pipe .* to write \((\d+) of \d+ buffers used, 1 reader: pid \d+ init\)`}},
	"spinleak": {name: "spinleak", shows: "soft lockup", function: "bugs_spinleak",
		others: []string{`pid \d+ \S+ spins for spinlock \S+ \(bugs_counter.*\); who holds it is not stored`},
		why:    `why      CPU \d+ ran \S+ \(pid \d+\) in the kernel for \S+ without letting others run`, then: `then     CPU \d+ ran \S+ \(pid \d+\) in the kernel for \S+ without letting others run`},
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
	o := map[string][]string{kernels[0]: {"deadlock", "gates", "mixed", "null", "bug", "softlockup"}, kernels[1]: {"bug", "flush", "gates", "mixed", "null", "spinleak"}}
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
			switch name {
			case "pipes":
				return waitAtPipe()
			case "plant":
				if names[1] == "gates" {
					if err := waitAtPipes(); err != nil {
						return err
					}
				}
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

// waitAtPipes starts a process that fills a pipe which nobody empties, and waits itself, on a thread, at a pipe of which that process
// alone has the other end.
func waitAtPipes() error {
	empty, theirs, err := os.Pipe()
	if err != nil {
		return err
	}
	full, filled, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd := exec.Command("/init", "suffer", "pipes")
	cmd.ExtraFiles = []*os.File{theirs, filled}
	if err := cmd.Start(); err != nil {
		return err
	}
	fd := int(empty.Fd()) // blocks from now on
	go func() {
		unix.Read(fd, make([]byte, 1))
		runtime.KeepAlive(full)
	}()
	return errors.Join(theirs.Close(), filled.Close())
}

// waitAtPipe is the process that [waitAtPipes] starts: it has the other ends as descriptors 3 and 4.
func waitAtPipe() error {
	for b := make([]byte, 4096); ; {
		if _, err := unix.Write(4, b); err != nil {
			return err
		}
	}
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
		var all []string
		stacks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stack")
		for _, f := range stacks {
			st, _ := os.ReadFile(f) // what waits for a lock is not shown
			all = append(all, string(st))
		}
		if !slices.ContainsFunc(b.blocked, func(p string) bool { return !slices.ContainsFunc(all, regexp.MustCompile(p).MatchString) }) {
			return nil
		}
	}
	stacks, _ := filepath.Glob("/proc/[0-9]*/task/[0-9]*/stack")
	var all strings.Builder
	for _, f := range stacks {
		if st, _ := os.ReadFile(f); strings.Contains(string(st), "bugs_") {
			fmt.Fprintf(&all, "%s\n%s", f, st)
		}
	}
	return fmt.Errorf("%s does not happen:\n%s\n%s", b.name, dmesg(), all.String())
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
		switch {
		case os.Getenv(envDebuginfo) == "":
		case os.Getenv(envDrgn) != "":
			t.Run(name+"-drgn", func(t *testing.T) { compareDrgn(t, kernel, core) })
		case kernel == kernels[0]:
			paging := filepath.Join(dir, "elf-paging") // the only ones that Debian's drgn opens
			if err := g.Dump(t.Context(), paging, guest.DumpOptions{Paging: true}); err != nil {
				t.Fatal(err)
			}
			t.Run(name+"-drgn", func(t *testing.T) { compareDrgn(t, kernel, paging) })
			if err := os.Remove(paging); err != nil {
				t.Fatal(err)
			}
		}
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
	if err := core.New(d, "test").Run(&page, []string{"waitq"}); err != nil {
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
