package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// Environment by which this test binary is a workload, and a recorder to be killed.
const (
	callsEnv  = "FATHOM_TEST_CALLS"
	recordEnv = "FATHOM_TEST_RECORD"
	fireEnv   = "FATHOM_TEST_FIRE" // what fires newEventModule's event: the recorder's own are not recorded
)

// guests have trace-cmd in them, where this machine has it.
func guests() ktest.Config {
	if ktest.InGuest() {
		return ktest.Config{}
	}
	c := ktest.Config{Files: withLibraries("/usr/bin/trace-cmd")}
	if ktest.Soak() { // half a million events in memory, twice
		c.Mem, c.Timeout = 3072, 40*time.Minute
	}
	return c
}

// called is a function of the workload, whose name the linker knows as calledName.
//
//go:noinline
func called() { _, _, _ = unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0) }

const calledName = "github.com/fathom-trace/fathom/record.called"

func TestMain(m *testing.M) {
	if n, _ := strconv.Atoi(os.Getenv(callsEnv)); n > 0 {
		for range n {
			called()
		}
		if name, err := os.ReadFile("/proc/thread-self/comm"); err == nil {
			fmt.Printf("%s", name)
		}
		os.Exit(0)
	}
	if n := os.Getenv(fireEnv); n != "" {
		if err := os.WriteFile("/sys/module/every/parameters/fire", []byte(n), 0); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(recordEnv); dir != "" {
		_, err := Start(Options{Dir: filepath.Join(dir, "r"), Events: []Spec{{Pattern: "sched:*"}, {Pattern: "raw_syscalls"}}, Leases: lease.Dir{Path: filepath.Join(dir, "leases")}})
		fmt.Println("started", err)
		select {}
	}
	ktest.Main(m, guests())
}

func TestGuest(t *testing.T) {
	c := guests()
	c.Each = newEventFiles
	ktest.Guests(t, c)
}

// withLibraries lists a program and what it is linked with; nothing if it is not here.
func withLibraries(program string) (out []guest.File) {
	if _, err := os.Stat(program); err != nil {
		return nil
	}
	text, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil
	}
	out = append(out, guest.File{Name: program, Path: program})
	for w := range strings.FieldsSeq(string(text)) {
		if strings.HasPrefix(w, "/") {
			if real, err := filepath.EvalSymlinks(w); err == nil {
				out = append(out, guest.File{Name: w, Path: real})
			}
		}
	}
	return out
}

// calls starts this binary as a workload of n calls of getppid, and runs it. It gives the name of the task that called.
func calls(t *testing.T, n int) string {
	t.Helper()
	out, err := workload(t, n).CombinedOutput()
	if err != nil {
		t.Fatalf("workload: %v %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func workload(t *testing.T, n int) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	// A signal while a thread steps over a breakpoint has the uprobe be hit again (uprobe_deny_signal, kernel/events/uprobes.c), and Go
	// sends itself signals on a machine that is late.
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", callsEnv, n), "GODEBUG=asyncpreemptoff=1")
	return cmd
}

func leases(t *testing.T) lease.Dir { return lease.Dir{Path: filepath.Join(t.TempDir(), "leases")} }

// symbols names the kernel's functions.
func symbols(t *testing.T) func(uint64) (string, uint64, uint64, string, bool) {
	t.Helper()
	b, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	tr := &Trace{}
	tr.symbolTables(b, nil)
	return tr.Env.Symbol
}

// record records while a workload runs, and gives the name of its task.
func record(t *testing.T, o Options, n int) (acc *Account, dir, task string) {
	t.Helper()
	o.Dir, o.Leases, o.Symbol = filepath.Join(t.TempDir(), "r"), leases(t), symbols(t)
	r, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	task = calls(t, n)
	acc, err = r.Stop()
	if err != nil {
		t.Fatal(err)
	}
	return acc, o.Dir, task
}

// TestRecord records a known number of calls: each is there once, the account is exact, and babeltrace2 reads as many.
func TestRecord(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	const n = 20000
	specs := []Spec{{Pattern: "raw_syscalls:*"}, {Pattern: "sched:*"}}
	acc, dir, task := record(t, Options{Events: specs}, n)
	if !acc.Exact || acc.Events+acc.Helpers+acc.Missed != acc.Written || acc.Missed != 0 {
		t.Errorf("account: %+v", *acc)
	}
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got, read, named, last := 0, uint64(0), 0, uint64(0)
	for e := range traceevent.All(tr.Events()) {
		read++
		if e.Time < last {
			t.Errorf("an event of %d after one of %d", e.Time, last)
		}
		last = e.Time
		if e.Format.Name == "sys_enter" && e.Format.Field("id").Int(e.Rec) == unix.SYS_GETPPID {
			got++
			k, ok := tr.Tasks.At(int(e.Format.PIDField().Int(e.Rec)), e.Time)
			if ok && k.Comm == task {
				named++
			}
		}
	}
	if got < n || ktest.InGuest() && got > n+10 || read != acc.Events || named < n {
		t.Errorf("%d calls of %d, %d events of %d, %d with the name of the task", got, n, read, acc.Events, named)
	}
	if ktest.InGuest() {
		return // which has no babeltrace2
	}
	out, err := exec.Command(ktest.Oracle(t, "babeltrace2"), dir).Output()
	if lines := strings.Count(string(out), "\n"); err != nil || uint64(lines) != acc.Events {
		t.Errorf("babeltrace2 reads %d events of %d: %v", lines, acc.Events, err)
	}
}

// TestLoss: with ring buffers that are too small, what is there and what is missing is what was written, to the event.
func TestLoss(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	n := 60000
	if ktest.InGuest() { // the rings are as small, and the calls slow
		n = 20000
	}
	for _, kb := range []int{8, 64, 256} {
		acc, dir, _ := record(t, Options{Events: []Spec{{Pattern: "raw_syscalls"}}, BufferKB: kb}, n)
		tr, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		var read, lost uint64
		for e := range traceevent.All(tr.Events()) {
			if e.Format == nil {
				lost += e.Lost
				continue
			}
			read++
		}
		tr.Close()
		if !acc.Exact || read+lost+acc.Helpers != acc.Written || lost != acc.Missed {
			t.Errorf("%d KB: %d read, %d lost, %d helpers, %d written; account %d %d %v", kb, read, lost, acc.Helpers, acc.Written, acc.Events, acc.Missed, acc.Exact)
		}
		t.Logf("%d KB: %d of %d lost in %d gaps", kb, lost, acc.Written, len(acc.Gaps))
	}
}

// TestFilter: the kernel filters, and says what is wrong with a filter.
func TestFilter(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	_, got, task := record(t, Options{Events: []Spec{{Pattern: "raw_syscalls:sys_enter", Filter: fmt.Sprintf("id == %d", unix.SYS_GETPPID)}}}, 1000)
	tr, err := Open(got)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	own := 0
	for e := range traceevent.All(tr.Events()) {
		if id := e.Format.Field("id").Int(e.Rec); id != unix.SYS_GETPPID {
			t.Fatalf("system call %d", id)
		}
		if k, ok := tr.Tasks.At(int(e.Format.PIDField().Int(e.Rec)), e.Time); ok && k.Comm == task { // others call it, too
			own++
		}
	}
	if own < 1000 || own > 1010 {
		t.Errorf("%d calls of 1000", own)
	}
	dir := filepath.Join(t.TempDir(), "r")
	_, err = Start(Options{Dir: dir, Leases: leases(t), Events: []Spec{{"sched:sched_switch", "nosuch == 1"}}})
	var fe *FilterError
	if !errors.As(err, &fe) || !strings.Contains(fe.Log, "nosuch") {
		t.Errorf("a bad filter: %v", err)
	}
	var none *tracefs.NoEventError
	if _, err := Start(Options{Dir: dir, Leases: leases(t), Events: []Spec{{Pattern: "sched:sched_swich*"}}}); !errors.As(err, &none) {
		t.Errorf("no such event: %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("a recording that did not begin left a folder")
	}
}

// TestKilled kills recorders: what they wrote is readable, and their instances go with the next who cleans.
func TestKilled(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	kills, _ := strconv.Atoi(os.Getenv("FATHOM_KILLS"))
	for i := range max(kills, 3) {
		dir := t.TempDir()
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), recordEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var word, rest string
		if _, err := fmt.Fscan(out, &word, &rest); err != nil || rest != "<nil>" {
			t.Fatalf("the recorder says %s %s, %v", word, rest, err)
		}
		calls(t, 30000)
		const least = 30000 - 300 // the pages that were being filled on each CPU were the kernel's; no more than that may be missing
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(poll) {
			if got, _ := getppids(filepath.Join(dir, "r")); got >= least {
				break
			}
		}
		time.Sleep(time.Duration(i%7) * 10 * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		cleaned, err := lease.Dir{Path: filepath.Join(dir, "leases")}.Clean(map[string]lease.Cleaner{tracefs.LeaseKind: tracefs.CleanInstance})
		if err != nil || len(cleaned) != 1 {
			t.Errorf("cleaned %d instances: %v", len(cleaned), err)
		}
		tr, err := Open(filepath.Join(dir, "r"))
		if err != nil {
			t.Fatal(err)
		}
		tr.Close()
		if got, err := getppids(filepath.Join(dir, "r")); err != nil || got < least || len(tr.Notes) == 0 {
			t.Errorf("%d of 30000 calls are there: %v, %v", got, err, tr.Notes)
		}
	}
}

// getppids counts calls of getppid in a recording.
func getppids(dir string) (n int, err error) {
	tr, err := Open(dir)
	if err != nil {
		return 0, err
	}
	defer tr.Close()
	s := tr.Events()
	for e := range traceevent.All(s) {
		if e.Format != nil && e.Format.Name == "sys_enter" && e.Format.Field("id").Int(e.Rec) == unix.SYS_GETPPID {
			n++
		}
	}
	return n, s.Err()
}

// TestNowhere: without tracefs the reason is named.
func TestNowhere(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root has tracefs")
	}
	_, err := Start(Options{Dir: filepath.Join(t.TempDir(), "r"), Leases: leases(t), Events: []Spec{{Pattern: "sched"}}})
	if err == nil || !errors.Is(err, feature.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		t.Errorf("recording as an ordinary user: %v", err)
	}
}

// TestProbes records events that were made for it: system calls by name, functions of the kernel and of this program, with their
// stacks. Nothing of them is left.
func TestProbes(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const n = 200
	specs := []Spec{{Pattern: "syscall:getppid"}}
	want := map[string]int{"raw_syscalls:sys_enter": n, "raw_syscalls:sys_exit": n, "ftrace:kernel_stack": 2 * n}
	if ktest.Detect(ktest.KprobeEvents) == nil {
		specs = append(specs, Spec{Pattern: "kprobe:__x64_sys_getppid regs=$arg1:x64"}, Spec{Pattern: "kretprobe:__x64_sys_getppid pid=$retval:s32"},
			Spec{Pattern: "uprobe:" + self + ":" + calledName})
		want["kprobe:__x64_sys_getppid"], want["kretprobe:__x64_sys_getppid_return"] = n, n
		want["uprobe:"], want["ftrace:kernel_stack"] = n, 5*n
	}
	acc, dir, _ := record(t, Options{Events: specs, Stacks: Stacks{Kernel: true}}, n)
	if !acc.Exact || acc.Missed != 0 {
		t.Errorf("account: %+v", *acc)
	}
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	got, named := map[string]int{}, 0
	for e := range traceevent.All(tr.Events()) {
		name := e.Format.Name
		if e.Format.System == "uprobe" { // of the name of this program and a long one
			name = ""
		}
		got[e.Format.System+":"+name]++
		if e.Format.Name == "kernel_stack" && stackHas(tr, e, "do_syscall_64") {
			named++
		}
	}
	for name, k := range want {
		if got[name] < k || ktest.InGuest() && got[name] > k+20 { // on a machine that others use there may be more
			t.Errorf("%s: %d of %d", name, got[name], k)
		}
	}
	if named < 2*n {
		t.Errorf("%d of %d stacks begin in a system call; %v", named, want["ftrace:kernel_stack"], got)
	}
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	if left := fs.Global("dynamic_events"); strings.Contains(left, fmt.Sprintf("fathom_%d_", os.Getpid())) {
		t.Errorf("left behind: %s", left)
	}
	if !ktest.InGuest() {
		return
	}
	var bad *tracefs.ProbeError
	if _, err := Start(Options{Dir: filepath.Join(t.TempDir(), "r"), Leases: leases(t), Events: []Spec{{Pattern: "kprobe:no_such_function"}}}); !errors.As(err, &bad) {
		t.Errorf("a probe on a function that is not there: %v", err)
	}
}

func stackHas(tr *Trace, e *traceevent.Event, name string) bool {
	for b := e.Format.Field("caller").Bytes(e.Rec); len(b) >= 8; b = b[8:] {
		if n, _, _, _, ok := tr.Env.Symbol(binary.LittleEndian.Uint64(b)); ok && n == name {
			return true
		}
	}
	return false
}
