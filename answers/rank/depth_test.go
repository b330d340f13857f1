package rank

import (
	"bufio"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/tracefs"
)

// codeMemory is memory that begins at an address.
type codeMemory struct {
	at uint64
	b  []byte
}

func (m codeMemory) ReadVirt(p []byte, addr uint64) error {
	if addr < m.at || addr-m.at+uint64(len(p)) > uint64(len(m.b)) {
		return errors.New("nothing there")
	}
	copy(p, m.b[addr-m.at:])
	return nil
}

// prologues are first instructions as gcc writes them, and the frames that they make.
var prologues = []struct {
	name, code string
	want       uint64
}{
	{"leaf", "31c0 c3", 0}, // xor; ret
	{"pushes", "f30f1efa e800000000 55 4889e5 4157 53 90 c3", 8 + 3*8},     // endbr64; call __fentry__; push ×3
	{"room", "0f1f440000 55 4883ec18 c3", 8 + 8 + 0x18},                    // nop; push; sub $0x18,%rsp
	{"large", "0f1f440000 4154 55 4881ec30020000 c3", 8 + 2*8 + 0x230},     // sub $0x230,%rsp
	{"early return", "0f1f440000 85ff 7405 55 4883ec40 c3", 0},             // test; je: what is behind is not of all calls
	{"aligned", "0f1f440000 55 4889e5 4883e4f0 4883ec40 c3", 8 + 8 + 0x40}, // and $-16,%rsp
	{"call", "0f1f440000 53 e800000000 4883ec40 c3", 8 + 8},                // of another function
	{"by addition", "0f1f440000 53 4883c480 c3", 8 + 8 + 0x80},             // add $-0x80,%rsp
	{"made smaller", "0f1f440000 53 4883ecf0 c3", 8 + 8},                   // sub $-16: no frame
}

func TestFrames(t *testing.T) {
	const at = 0xffffffff81000000
	mem := codeMemory{at: at}
	var syms []kallsyms.Sym
	want := map[string]uint64{}
	for _, p := range prologues {
		code, err := hex.DecodeString(strings.ReplaceAll(p.code, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		addr := at + uint64(len(mem.b))
		syms = append(syms, kallsyms.Sym{Addr: addr - 8, Name: "__pfx_" + p.name, Type: 't'}, kallsyms.Sym{Addr: addr, Name: p.name, Type: 't'}, kallsyms.Sym{Addr: addr, Name: "alias of " + p.name, Type: 't'})
		mem.b = append(mem.b, slices.Concat(code, make([]byte, 128-len(code)))...)
		if p.want > 0 {
			want[p.name] = p.want
		}
	}
	syms = append(syms, kallsyms.Sym{Addr: at + 1<<30, Name: "unreadable", Type: 't'})
	got := map[string]uint64{}
	fs, read := Frames(mem, slices.Values(syms), 9)
	for _, f := range fs {
		got[f.Name] = f.Bytes
	}
	if large, _ := Frames(mem, slices.Values(syms), LargeFrame); len(large) != 1 || large[0] != fs[0] {
		t.Errorf("large frames: %+v", large)
	}
	if d := cmp.Diff(want, got); d != "" || read != len(prologues) || fs[0].Name != "large" {
		t.Error(read, fs[0], d)
	}
}

// work keeps the kernel busy with what needs stack until it is told to stop.
func work(stop chan bool) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		es, _ := os.ReadDir("/proc/self/fd")
		for _, e := range es {
			_, _ = os.Readlink("/proc/self/fd/" + e.Name())
		}
		_, _ = os.ReadFile("/proc/self/maps")
	}
}

// TestDepths: stacks that are sampled are of the kernel, and within a task's stack.
func TestDepths(t *testing.T) {
	p := here(t)
	ktest.Need(t, ktest.Profile)
	types, err := p.live.Types()
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDepths(p.world, types, runtime.NumCPU())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Begin(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan bool)
	go work(stop)
	var stacks []Deep
	for deadline := time.Now().Add(time.Minute); len(stacks) < 20 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		if stacks, _, _, err = d.read(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	stacks, _, lost, err := d.End()
	if err != nil || len(stacks) < 20 || lost > 0 {
		t.Fatalf("%d stacks, %d lost: %v", len(stacks), lost, err)
	}
	if room := d.Room(); room < 8<<10 || room > 64<<10 {
		t.Errorf("a stack has %d bytes", room)
	}
	for i, s := range stacks {
		if s.Bytes == 0 || s.Bytes > d.Room() || i > 0 && s.Bytes > stacks[i-1].Bytes {
			t.Errorf("%d bytes of stack at %d", s.Bytes, i)
		}
	}
	if s := stacks[0]; uint64(len(s.Stack))*8 > s.Bytes || len(s.Stack) == 0 || p.live.Stack(s.Stack)[0].Name == "" {
		t.Errorf("the deepest: %+v", s)
	}
}

// TestStackTracer: what the kernel's stack tracer says of frames is what their code says, for most; and it is left as it was: on, where
// it was on, and off by the next who cleans, where who switched it on was killed.
func TestStackTracer(t *testing.T) {
	p := here(t)
	if !ktest.InGuest() {
		t.Skip("the stack tracer is a setting of the whole machine")
	}
	if _, err := p.fs.OpenStackTracer(); errors.Is(err, feature.ErrUnsupported) {
		ktest.Unsupported(t, err)
	}
	before := p.tracer(t)
	killed := lease.Dir{Path: t.TempDir()}
	killTracer(t, killed)
	meanwhile := p.tracer(t)
	if !strings.HasPrefix(before, "0 ") || !strings.HasPrefix(meanwhile, "1 ") {
		t.Fatalf("the stack tracer is %s, and %s when who switched it on was killed", before, meanwhile)
	}
	st, err := p.fs.OpenStackTracer()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Start(p.lease); err != nil {
		t.Fatal(err)
	}
	if rs, err := p.lease.List(); err != nil || len(rs) != 1 || rs[0].Kind != tracefs.StackTracerKind {
		t.Errorf("leases %v: %v", rs, err)
	}
	stop := make(chan bool)
	go work(stop)
	var deep []tracefs.StackFrame
	for deadline := time.Now().Add(time.Minute); len(deep) < 8 && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if deep, err = st.Deepest(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	if after := p.tracer(t); !strings.HasPrefix(after, "1 ") {
		t.Errorf("it was on, and is %s", after)
	}
	cleaned, err := killed.Clean(map[string]lease.Cleaner{tracefs.StackTracerKind: tracefs.CleanStackTracer})
	if after := p.tracer(t); err != nil || len(cleaned) != 1 || after != before {
		t.Errorf("%d leases cleaned: %v; it is %s, and was %s", len(cleaned), err, after, before)
	}
	mem, err := p.live.Kcore()
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	syms, err := p.live.Kallsyms()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	fs, read := Frames(mem, syms.Text(), LargeFrame)
	t.Logf("%d functions in %v; the largest frame: %+v", read, time.Since(began), fs[0])
	if read < 20000 || fs[0].Bytes < 500 || fs[0].Bytes > 16<<10 {
		t.Errorf("%d functions; the largest frame: %+v", read, fs[0])
	}
	same, known := 0, 0
	for _, f := range deep {
		name, _, _ := strings.Cut(f.Name, "+")
		size := map[string]uint64{}
		own, _ := Frames(mem, syms.Named(name), 9)
		for _, f := range own {
			size[name] = f.Bytes
		}
		t.Logf("%6d %6d %s (%d by its code)", f.Depth, f.Size, f.Name, size[name])
		if size[name] == 0 {
			continue
		}
		known++
		if size[name] == f.Size {
			same++
		}
	}
	if known < 5 || same*2 < known {
		t.Errorf("of %d frames of the deepest stack %d are as large as their code says", known, same)
	}
}

// startTracer switches the stack tracer on for a process that will be killed.
func startTracer(leases string) error {
	if leases == "" {
		return nil
	}
	fs, err := tracefs.Find()
	if err != nil {
		return err
	}
	st, err := fs.OpenStackTracer()
	if err != nil {
		return err
	}
	return st.Start(lease.Dir{Path: leases})
}

// tracer tells if the stack tracer is on, and the depth that it knows.
func (p place) tracer(t *testing.T) string {
	t.Helper()
	enabled, err := os.ReadFile("/proc/sys/kernel/stack_tracer_enabled")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(enabled)) + " " + strings.TrimSpace(p.fs.Global("stack_max_size"))
}

// killTracer has a process switch the stack tracer on, and kills it.
func killTracer(t *testing.T, leases lease.Dir) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), childEnv+"=1", tracerEnv+"="+leases.Path)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil || line != "runs <nil>\n" {
		t.Fatalf("the process that switches it on says %q: %v", line, err)
	}
}
