package callgraph

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
)

var guests = ktest.Config{Timeout: 15 * time.Minute, Kernels: []string{"debian-6.1", "debian-6.12"}} // one without function_graph in instances, one with

func TestMain(m *testing.M)  { ktest.Main(m, guests) }
func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

// node is a call as JSON has it.
type node struct {
	Type  string `json:"type"`
	TID   int    `json:"tid"`
	Comm  string `json:"comm"`
	Off   uint64 `json:"off_cpu_ns"`
	Func  string `json:"function"`
	IsOff bool   `json:"off_cpu"`
	Dur   uint64 `json:"dur_ns"`
	Irq   bool   `json:"interrupt"`
	Ctx   string `json:"context"`
	Cut   bool   `json:"return_unseen"`
	Calls []node `json:"calls"`
}

// walk calls f with every call of a tree.
func (n node) walk(f func(node)) {
	f(n)
	for _, k := range n.Calls {
		k.walk(f)
	}
}

// shape is a tree's names and nesting, without interrupts, what cannot be compared, and times.
func (n node) shape(indent string, known func(string) bool) (out []string) {
	if n.Irq || n.IsOff {
		return nil
	}
	if known(n.Func) {
		out = append(out, indent+n.Func)
		indent += "  "
	}
	for _, k := range n.Calls {
		out = append(out, k.shape(indent, known)...)
	}
	return out
}

// trace runs o until work is done, on a thread named comm, and gives the trees of it.
func trace(t *testing.T, o Options, comm string, work func()) ([]node, Result, string) {
	t.Helper()
	var out, msgs bytes.Buffer
	stop := make(chan os.Signal, 1)
	o.JSON, o.Stdout, o.Stderr, o.Interrupt, o.For = true, &out, &msgs, stop, time.Minute
	o.Leases = lease.Dir{Path: filepath.Join(t.TempDir(), "leases")}
	ready := o.Ready
	var worker atomic.Int64
	o.Ready = func() {
		if ready != nil {
			ready()
		}
		if work != nil {
			go func() {
				as(comm, func() { worker.Store(int64(unix.Gettid())); work() })
				time.Sleep(50 * time.Millisecond)
				stop <- os.Interrupt
			}()
		}
	}
	res, err := Run(context.Background(), o)
	if err != nil {
		t.Fatalf("%+v: %v\n%s", o.Engine, err, msgs.String())
	}
	ns := nodes(t, out.Bytes())
	if work == nil || o.Comm != comm { // others are traced
		return ns, res, msgs.String()
	}
	own := of(int(worker.Load()), ns)
	if len(own) < len(ns) {
		t.Logf("%d trees of threads that the Go runtime cloned from the worker", len(ns)-len(own))
	}
	return own, res, msgs.String()
}

func nodes(t *testing.T, out []byte) (ns []node) {
	t.Helper()
	for line := range bytes.Lines(out) {
		var n node
		if err := json.Unmarshal(line, &n); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if n.Type == "call" {
			ns = append(ns, n)
		}
	}
	return ns
}

// as runs f on a thread named comm.
func as(comm string, f func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // the thread ends with the goroutine
		var was [16]byte       // TASK_COMM_LEN; not read from a file: that is a call which is traced
		unix.Prctl(unix.PR_GET_NAME, uintptr(unsafe.Pointer(&was[0])), 0, 0, 0)
		rename(comm)
		defer rename(unix.ByteSliceToString(was[:])) // the runtime may clone another from it when it ends
		f()
	})
	wg.Wait()
}

func rename(comm string) {
	b := append([]byte(comm), 0)
	unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&b[0])), 0, 0, 0)
}

// readFile reads once from a file that the kernel makes, by bare system calls.
func readFile() {
	fd, err := unix.Open("/proc/version", unix.O_RDONLY, 0)
	if err != nil {
		return
	}
	unix.Read(fd, make([]byte, 100))
	unix.Close(fd)
}

// narrow are some functions below vfs_read: emulated guests are slow, and so are tests that hook everything.
var narrow = []string{"rw_verify_area", "*_file_permission", "proc_reg_read*", "seq_read*"}

// engines are those that a kernel must have.
func engines(t *testing.T) []string {
	ktest.Need(t, ktest.Kprobe, ktest.BTF, ktest.Ringbuf)
	if ktest.Detect(ktest.GraphInstance) == nil {
		return []string{FunctionGraph, Probes}
	}
	return []string{Probes}
}

// TestTrees traces a call with each engine: known functions must nest as they do in the source. The best engine is taken
// unasked, and where that is not function_graph the reason is told.
func TestTrees(t *testing.T) {
	for i, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			asked := e
			if i == 0 {
				asked = ""
			}
			ns, res, msgs := trace(t, Options{Func: "vfs_read", Engine: asked, Comm: "graphme", PID: os.Getpid(), Only: narrow}, "graphme", func() {
				for range 5 {
					readFile()
				}
			})
			if len(ns) != 5 || res.Calls != 5 || res.Engine != e || res.Lost != 0 {
				t.Errorf("%d trees, %+v\n%s", len(ns), res, msgs)
			}
			if told := strings.Contains(msgs, "not used: function_graph in an instance not supported"); told != (i == 0 && e == Probes) {
				t.Errorf("messages:\n%s", msgs)
			}
			for _, n := range ns {
				got := n.shape("", func(f string) bool {
					return slices.Contains([]string{"vfs_read", "rw_verify_area", "security_file_permission", "apparmor_file_permission"}, f)
				})
				want := []string{"vfs_read", "  rw_verify_area", "    security_file_permission", "      apparmor_file_permission"}
				if d := cmp.Diff(want, got); d != "" || n.Comm != "graphme" || n.Dur == 0 {
					t.Errorf("%+v\n%s", n, d)
				}
				n.walk(func(k node) {
					if k.Cut || k.Dur > n.Dur {
						t.Errorf("%+v in %+v", k, n)
					}
				})
			}
			t.Log(msgs)
		})
	}
}

// of are the calls of one thread: those that the Go runtime clones from it have its name too.
func of(tid int, ns []node) (own []node) {
	for _, n := range ns {
		if n.TID == tid {
			own = append(own, n)
		}
	}
	return own
}

// levels are how far down TestSame looks. Each hook costs an emulated guest a while: all of those below do_sys_openat2 only
// under [ktest.Soak].
func levels() map[string]int {
	if ktest.Soak() {
		return map[string]int{"vfs_read": 4, "do_sys_openat2": 4}
	}
	return map[string]int{"vfs_read": 2, "do_sys_openat2": 1}
}

// TestSame traces the same calls with both engines at once: the trees of functions that both watch are the same.
func TestSame(t *testing.T) {
	ktest.Need(t, ktest.GraphInstance, ktest.KprobeMulti, ktest.BTF, ktest.Ringbuf)
	for fn, depth := range levels() {
		t.Run(fn, func(t *testing.T) {
			r := &run{o: Options{Func: fn}}
			if err := r.open(); err != nil {
				t.Fatal(err)
			}
			names, found := r.below(mostMulti, depth)
			if err := r.close(); err != nil {
				t.Fatal(err)
			}
			t.Log(found)
			o := Options{Func: fn, Comm: "graphme", PID: os.Getpid(), Only: names, Depth: depth + 1}
			both, called := make(chan struct{}), make(chan struct{})
			var ready sync.WaitGroup
			ready.Add(2)
			go func() { ready.Wait(); close(both) }()
			worker := 0
			work := func() {
				<-both
				worker = unix.Gettid()
				for range 20 {
					readFile()
				}
				close(called)
			}
			o.Ready = ready.Done
			got := map[string][]node{}
			var mu sync.Mutex
			var wg sync.WaitGroup
			for e, w := range map[string]func(){FunctionGraph: work, Probes: func() { <-called }} {
				o := o
				o.Engine = e
				wg.Go(func() {
					ns, res, msgs := trace(t, o, map[string]string{FunctionGraph: "graphme", Probes: "other"}[e], w)
					mu.Lock()
					defer mu.Unlock()
					got[e] = ns
					t.Logf("%s: %d trees, %+v\n%s", e, len(ns), res, msgs)
				})
			}
			wg.Wait()
			a, b := of(worker, got[FunctionGraph]), of(worker, got[Probes])
			if len(a) != 20 || len(b) != 20 {
				t.Fatalf("%d trees by function_graph, %d by probes", len(a), len(b))
			}
			calls := 0
			for i := range a {
				all := func(string) bool { return true }
				x, y := a[i].shape("", all), b[i].shape("", all)
				calls += len(x)
				if d := cmp.Diff(x, y); d != "" {
					t.Errorf("call %d (- function_graph, + probes):\n%s", i, d)
				}
			}
			t.Logf("%d calls compared, in %d trees", calls, len(a))
		})
	}
}

// TestAsleep: what others do while the function sleeps is not below it, and the time is told.
func TestAsleep(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			done := make(chan struct{})
			var busy sync.WaitGroup
			for range 2 {
				busy.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
							readFile()
						}
					}
				})
			}
			ns, _, msgs := trace(t, Options{Func: "hrtimer_nanosleep", Engine: e, Comm: "graphme", PID: os.Getpid(), Only: []string{"*hrtimer*", "vfs_read", "schedule"}, Also: []string{"vfs_read"}}, "graphme", func() {
				ts := unix.NsecToTimespec(int64(30 * time.Millisecond))
				unix.Nanosleep(&ts, nil)
			})
			close(done)
			busy.Wait()
			if len(ns) != 1 || ns[0].Off < uint64(20*time.Millisecond) || ns[0].Dur < ns[0].Off {
				t.Fatalf("%+v\n%s", ns, msgs)
			}
			ns[0].walk(func(n node) {
				if n.Func == "vfs_read" {
					t.Errorf("another task's call is below it: %+v", ns[0])
				}
			})
		})
	}
}

// interruptOnly are functions that run in interrupts and nowhere else; a timer's interrupt calls them.
var interruptOnly = []string{"hrtimer_interrupt", "irq_enter_rcu", "irq_exit_rcu", "update_process_times"}

// TestInterrupted: a call that takes long is interrupted by the timer; what the interrupt does is marked.
func TestInterrupted(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			buf := make([]byte, 16<<20)
			o := Options{Func: "vfs_read", Engine: e, PID: os.Getpid(), Comm: "graphme", Also: interruptOnly, Only: []string{"rw_verify_area"}}
			work := func() {
				fd, err := unix.Open("/dev/urandom", unix.O_RDONLY, 0)
				if err == nil {
					unix.Read(fd, buf)
					unix.Close(fd)
				}
			}
			ns, _, msgs := trace(t, o, "graphme", work)
			if len(ns) == 0 {
				t.Fatalf("no tree\n%s", msgs)
			}
			// A thread of Go's runtime may have been made by this one, and have its name, and read a file of its own.
			long := slices.MaxFunc(ns, func(a, b node) int { return int(int64(a.Dur) - int64(b.Dur)) })
			marked := 0
			long.walk(func(n node) {
				if slices.Contains(interruptOnly, n.Func) {
					if !n.Irq {
						t.Errorf("%s is not marked as an interrupt's: %+v", n.Func, n)
					}
					marked++
				}
			})
			t.Logf("%v, %d calls of interrupts", time.Duration(long.Dur), marked)
			if marked == 0 {
				t.Errorf("no interrupt in %v\n%s", time.Duration(long.Dur), msgs)
			}
			o.NoIrq = true
			ns, _, _ = trace(t, o, "graphme", work)
			for _, n := range ns {
				n.walk(func(n node) {
					if n.Irq {
						t.Errorf("an interrupt's call was not left out: %+v", n)
					}
				})
			}
		})
	}
}

// TestAllTasks traces whoever calls the function, but not this process.
func TestAllTasks(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self, "-test.run=^TestChild$")
			cmd.Env = append(os.Environ(), envChild+"=waiting")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ns, _, msgs := trace(t, Options{Func: "vfs_read", Engine: e, Only: narrow}, "self", func() {
				readFile()
				in.Close()
				cmd.Wait()
			})
			seen := map[string]int{}
			for _, n := range ns {
				seen[n.Comm]++
			}
			if seen["graph-waiting"] != 1 || e == FunctionGraph && seen["self"] != 0 {
				t.Errorf("calls by task: %v\n%s", seen, msgs)
			}
		})
	}
}

// envChild has the test binary be the command that is traced: it runs itself once more, and both read a file.
const envChild = "FATHOM_TEST_GRAPH_CHILD"

// TestChild is what TestCommand and TestAllTasks run; by itself it does nothing.
func TestChild(t *testing.T) {
	switch os.Getenv(envChild) {
	case "":
		t.Skip("run by others")
	case "waiting":
		os.Stdin.Read(make([]byte, 1)) // until it is closed
	case "parent":
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestChild$")
		cmd.Env = append(os.Environ(), envChild+"=child")
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
	}
	as("graph-"+os.Getenv(envChild), readFile)
}

// TestCommand traces a command and its children, and nobody else.
func TestCommand(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv(envChild, "parent")
			done := make(chan struct{})
			var other sync.WaitGroup
			other.Go(func() {
				as("stranger", func() {
					for {
						select {
						case <-done:
							return
						default:
							readFile()
							time.Sleep(time.Millisecond)
						}
					}
				})
			})
			ns, res, msgs := trace(t, Options{Func: "vfs_read", Engine: e, Depth: 1, Only: narrow, Command: []string{self, "-test.run=^TestChild$"}}, "", nil)
			close(done)
			other.Wait()
			seen := map[string]int{}
			for _, n := range ns {
				seen[n.Comm]++
			}
			if seen["graph-parent"] != 1 || seen["graph-child"] != 1 || seen["stranger"] != 0 || res.Code != 0 {
				t.Errorf("calls by task: %v, %+v\n%s", seen, res, msgs)
			}
		})
	}
}

// TestEnds: a function in which tasks end is shown when they do, and nothing stays open.
func TestEnds(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv(envChild, "child")
			ns, _, msgs := trace(t, Options{Func: "do_exit", Engine: e, Only: []string{"exit_mm*", "exit_files"}, Command: []string{self, "-test.run=^TestChild$"}}, "", nil)
			if len(ns) == 0 || strings.Contains(msgs, "had not returned") {
				t.Errorf("%+v\n%s", ns, msgs)
			}
			for _, n := range ns {
				if !n.Cut || len(n.Calls) == 0 || n.Dur == 0 {
					t.Errorf("%+v", n)
				}
			}
		})
	}
}

// TestLimits: --depth, -n and --min.
func TestLimits(t *testing.T) {
	for _, e := range engines(t) {
		t.Run(e, func(t *testing.T) {
			ns, res, _ := trace(t, Options{Func: "vfs_read", Engine: e, PID: os.Getpid(), Comm: "graphme", Only: narrow, Depth: 2, Count: 3}, "graphme", func() {
				for range 10 {
					readFile()
				}
			})
			if len(ns) != 3 || res.Calls != 3 {
				t.Errorf("%d calls, %+v", len(ns), res)
			}
			for _, n := range ns {
				for _, k := range n.Calls {
					if slices.ContainsFunc(k.Calls, func(c node) bool { return !c.IsOff }) { // waiting is no call
						t.Errorf("three levels: %+v", n)
					}
				}
			}
			ns, _, _ = trace(t, Options{Func: "hrtimer_nanosleep", Engine: e, PID: os.Getpid(), Comm: "graphme", Only: []string{"*hrtimer*"}, Min: 20 * time.Millisecond}, "graphme", func() {
				for _, d := range []time.Duration{time.Millisecond, 40 * time.Millisecond} {
					ts := unix.NsecToTimespec(int64(d))
					unix.Nanosleep(&ts, nil)
				}
			})
			if len(ns) == 0 || slices.ContainsFunc(ns, func(n node) bool { return n.Dur < uint64(20*time.Millisecond) }) {
				t.Errorf("%+v", ns)
			}
		})
	}
}
