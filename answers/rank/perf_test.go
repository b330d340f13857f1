package rank

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
)

// pipesEnv makes the test binary a program that makes and closes so many pipes, each with memory of its own, when it is told to.
const pipesEnv = "FATHOM_RANK_PIPES"

// makePipes is that program: it says the number of its thread, works for each line it is given, and says so.
func makePipes(n int) error {
	runtime.LockOSThread()
	in := bufio.NewReader(os.Stdin)
	fmt.Println(unix.Gettid())
	for {
		if _, err := in.ReadString('\n'); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		for range n {
			var fds [2]int
			if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
				return err
			}
			_ = unix.Close(fds[0])
			_ = unix.Close(fds[1])
		}
		fmt.Println("done")
	}
}

// pipes starts that program. work has it do its work.
func pipes(t *testing.T, n int) (tid int, work func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", pipesEnv, n))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	said := bufio.NewReader(out)
	if _, err := fmt.Fscanln(said, &tid); err != nil {
		t.Fatal(err)
	}
	return tid, func() {
		if _, err := io.WriteString(in, "go\n"); err != nil {
			t.Fatal(err)
		}
		if l, err := said.ReadString('\n'); l != "done\n" {
			t.Fatalf("%q %v", l, err)
		}
	}
}

// perfSum is what perf saw of a stack.
type perfSum struct{ hits, bytes int64 }

// startPerf has perf record a thread's kmem:kmalloc with its stacks; it returns when perf does. end gives bytes_alloc by stack, as
// perf script tells them.
func startPerf(t *testing.T, tid int) (end func() map[string]perfSum) {
	t.Helper()
	program := ktest.Oracle(t, "perf")
	file := filepath.Join(t.TempDir(), "perf.data")
	var ctl, ack [2]*os.File
	for _, p := range []*[2]*os.File{&ctl, &ack} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p[0], p[1] = r, w
		t.Cleanup(func() { r.Close(); w.Close() })
	}
	cmd := exec.Command(program, "record", "-q", "-o", file, "-m", "4M", "-D", "-1", "--control", "fd:3,4", "-e", "kmem:kmalloc", "-g", "-t", strconv.Itoa(tid))
	cmd.ExtraFiles = []*os.File{ctl[0], ack[1]}
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = ack[1].Close() // perf's own is the last
	acks := bufio.NewReader(ack[0])
	tell := func(what string) error {
		if _, err := ctl[1].WriteString(what + "\n"); err != nil {
			return err
		}
		_, err := acks.ReadString('\n')
		return err
	}
	if err := tell("enable"); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		ktest.Missing(t, "perf does not record kmem:kmalloc here: "+said.String())
	}
	return func() map[string]perfSum {
		t.Helper()
		if err := tell("disable"); err != nil {
			t.Error(err)
		}
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // by its signal
		out, err := exec.Command(program, "script", "-i", file, "--show-lost-events", "-F", "event,ip,trace").Output()
		if err != nil {
			t.Fatalf("perf script: %v; perf record: %s", err, said.String())
		}
		return perfStacks(t, string(out))
	}
}

var (
	perfBytes = regexp.MustCompile(`kmem:kmalloc: .*\bbytes_alloc=(\d+)`)
	perfFrame = regexp.MustCompile(`^\s+([0-9a-f]+)`)
)

// perfStacks adds up bytes_alloc by the kernel's part of the stack.
func perfStacks(t *testing.T, text string) map[string]perfSum {
	t.Helper()
	out := map[string]perfSum{}
	for block := range strings.SplitSeq(text, "\n\n") {
		var frames []string
		bytes := int64(0)
		for l := range strings.Lines(block) {
			if strings.Contains(l, "LOST") {
				t.Errorf("perf lost events: %s", l)
			} else if m := perfBytes.FindStringSubmatch(l); m != nil {
				bytes, _ = strconv.ParseInt(m[1], 10, 64)
			} else if m := perfFrame.FindStringSubmatch(l); m != nil && len(m[1]) == 16 && m[1][0] == 'f' {
				frames = append(frames, m[1])
			}
		}
		if bytes > 0 {
			key := strings.Join(frames, ";")
			sum := out[key]
			out[key] = perfSum{sum.hits + 1, sum.bytes + bytes}
		}
	}
	return out
}

// inNumbers names nothing: perf may call the same code otherwise.
type inNumbers struct{ names }

func (inNumbers) KernelStack(addrs []uint64) (out []string) {
	for _, a := range addrs {
		out = append(out, fmt.Sprintf("%016x", a))
	}
	return out
}

// TestAsPerf ranks the stacks of what a thread allocates by their bytes, and compares with perf where that is there: the stack at the top
// is the same, and its bytes are. The thread works twice, once for each: while a BPF program is attached to a trace event and returns 0,
// the kernel gives perf none of that event (perf_trace_run_bpf_submit).
func TestAsPerf(t *testing.T) {
	p := here(t)
	const n = 2000
	tid, work := pipes(t, n)
	q := p.query(t, "kmem:kmalloc", fmt.Sprintf("common_pid == %d", tid), "kstack", "bytes_alloc")
	tabs := p.countNamed(t, q, inNumbers{names{p.live}}, work)
	for _, tab := range tabs {
		tab.Sort(Order{By: "bytes_alloc"})
	}
	for engine, tab := range tabs {
		top := tab.Rows[0]
		if top.Hits != n || top.Sums[0] <= 0 || top.Sums[0] != tabs["bpf"].Rows[0].Sums[0] {
			t.Errorf("%s: %d events, %d bytes; by BPF %d", engine, top.Hits, top.Sums[0], tabs["bpf"].Rows[0].Sums[0])
		}
	}
	if ktest.InGuest() { // which have no perf
		return
	}
	best, most := "", perfSum{}
	for try := 0; try < 10 && most.hits < n; try++ { // less than all: somebody else's program was attached meanwhile
		end := startPerf(t, tid)
		work()
		most = perfSum{}
		for s, b := range end() {
			if b.bytes > most.bytes {
				best, most = s, b
			}
		}
	}
	top := tabs["bpf"].Rows[0]
	ours := strings.Join(top.Keys[0].Stack, ";")
	if len(top.Keys[0].Stack) < 4 || !strings.HasSuffix(best, ours) && !strings.HasSuffix(ours, best) {
		t.Errorf("at the top is\n%s, and for perf\n%s", ours, best)
	}
	if diff := top.Sums[0] - most.bytes; most.hits == 0 || diff*20 > most.bytes || -diff*20 > most.bytes {
		t.Errorf("%d bytes, and for perf %d", top.Sums[0], most.bytes)
	}
	t.Logf("%d bytes, and for perf %d", top.Sums[0], most.bytes)
}
