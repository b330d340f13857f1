package rank

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
)

var guests = ktest.Config{Modules: []string{"veth"}}

// childEnv makes the test binary a program that runs until its input ends; tracerEnv has it switch the stack tracer on before, with its
// lease in that folder.
const (
	childEnv  = "FATHOM_RANK_CHILD"
	tracerEnv = "FATHOM_RANK_TRACER"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		fmt.Println("runs", startTracer(os.Getenv(tracerEnv)))
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	if n, _ := strconv.Atoi(os.Getenv(pipesEnv)); n > 0 {
		if err := makePipes(n); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	ktest.Main(m, guests)
}

func TestGuest(t *testing.T) { ktest.Guests(t, guests) }

type names struct{ l *live.Live }

func (n names) KernelStack(addrs []uint64) (out []string) {
	for _, f := range n.l.Stack(addrs) {
		out = append(out, fmt.Sprintf("%s+0x%x", f.Name, f.Off))
	}
	return out
}
func (names) UserStack(int, []uint64) []string               { return nil }
func (n names) KernelSymbol(a uint64) (string, uint64, bool) { return n.l.Symbolise(a) }
func (names) Syscall(nr uint64) (string, bool) {
	s := sysno.Name(runtime.GOARCH, nr)
	return s, s != ""
}

// place is what counters need.
type place struct {
	fs    tracefs.FS
	world *probe.World
	live  *live.Live
	lease lease.Dir
}

func here(t *testing.T) place {
	t.Helper()
	ktest.Need(t, ktest.Tracepoint, ktest.BTF)
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	l, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	users := usersym.New(usersym.Options{})
	w := probe.NewWorld(l, users, 0)
	t.Cleanup(func() { w.Close(); users.Close(); l.Close(); fs.Close() })
	return place{fs, w, l, lease.Dir{Path: t.TempDir()}}
}

func (p place) query(t *testing.T, event, cond, by string, sum ...string) *Query {
	t.Helper()
	q := &Query{If: cond, Sum: sum}
	q.Event, q.Format = p.event(t, event)
	for k := range strings.SplitSeq(by, ",") {
		key, err := ParseKey(k, q.Format)
		if err != nil {
			t.Fatal(err)
		}
		q.By = append(q.By, key)
	}
	if err := q.Check(); err != nil {
		t.Fatal(err)
	}
	return q
}

func (p place) event(t *testing.T, name string) (tracefs.Event, *traceevent.Format) {
	t.Helper()
	es, err := p.fs.Select(name)
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.fs.Format(es[0].System, es[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := traceevent.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return es[0], f
}

// count has all engines of this kernel count the same work at once.
func (p place) count(t *testing.T, q *Query, work func()) map[string]*Table {
	t.Helper()
	return p.countNamed(t, q, names{p.live}, work)
}

// countNamed counts, and calls what BPF programs saw by these names.
func (p place) countNamed(t *testing.T, q *Query, called Names, work func()) map[string]*Table {
	t.Helper()
	cs := map[string]Counter{}
	b, err := NewBPF(q, p.world, runtime.NumCPU(), called)
	if err != nil {
		t.Fatal(err)
	}
	cs["bpf"] = b
	h, err := NewHist(q, p.fs, p.lease)
	var none *feature.Error
	switch {
	case err == nil:
		cs["hist"] = h
	case !errors.As(err, &none) || ktest.Detect(ktest.HistTriggers) == nil:
		t.Fatal(err)
	}
	for name, c := range cs {
		if err := c.Begin(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	work()
	out := map[string]*Table{}
	for name, c := range cs {
		if err := c.End(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if out[name], err = c.Table(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out[name].Sort()
		if n := out[name].Lost(); n != 0 {
			t.Errorf("%s: %d events were lost", name, n)
		}
		if err := c.Close(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	return out
}

// TestEngines: both engines give the table that the work must give, and so the same.
func TestEngines(t *testing.T) {
	p := here(t)
	const n, udp = 40, 28 // datagrams, and bytes of headers
	sum := int64(n*(100+udp) + n*(n-1)/2)
	row := func(hits uint64, sum int64, keys ...string) Row {
		r := Row{Hits: hits}
		for _, k := range keys {
			r.Keys = append(r.Keys, Cell{Text: k})
		}
		if sum > 0 {
			r.Sums = []int64{sum}
		}
		return r
	}
	lo := newLine(t)
	onlyOurs := fmt.Sprintf("name == %q && len >= %d && len < %d", lo.name, 100+udp, 100+udp+n)
	ours := func() { lo.datagrams(t, n) }
	for _, c := range []struct {
		name, event, cond, by string
		sum                   []string
		work                  func()
		want                  []Row
	}{
		{"text", "net:netif_receive_skb", onlyOurs, "name", []string{"len"}, ours, []Row{row(n, sum, lo.name)}},
		{"log2", "net:netif_receive_skb", onlyOurs, "len.log2", nil, ours, []Row{row(n-1, 0, "~ 2^8"), row(1, 0, "~ 2^7")}},
		{"buckets", "net:netif_receive_skb", onlyOurs, "len.buckets=32", nil, ours, []Row{row(32, 0, "~ 128-159"), row(8, 0, "~ 160-191")}},
		{"hex and text", "net:netif_receive_skb", "name ~ \"" + lo.name[:len(lo.name)-1] + "*\" && !(len != 130)", "len.hex,name", []string{"len"}, ours, []Row{row(1, 130, "0x82", lo.name)}},
		{"or", "net:netif_receive_skb", "name == " + lo.name + " && (len == 130 || len == 131)", "len", nil, ours, []Row{row(1, 0, "130"), row(1, 0, "131")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for engine, tab := range p.count(t, p.query(t, c.event, c.cond, c.by, c.sum...), c.work) {
				var got []Row
				for _, r := range tab.Rows {
					if len(r.Sums) == 0 {
						r.Sums = nil
					}
					got = append(got, r)
				}
				if diff := cmp.Diff(c.want, got); diff != "" {
					t.Errorf("%s: %s", engine, diff)
				}
			}
		})
	}
}

// TestTask: a condition on the task, system calls by name, the task's number and name.
func TestTask(t *testing.T) {
	p := here(t)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	work := func() {
		for range 500 {
			unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		}
	}
	nr, _ := sysno.Number(runtime.GOARCH, "getppid")
	cond := fmt.Sprintf("common_pid == %d && id == %d", unix.Gettid(), nr)
	comm, err := os.ReadFile("/proc/thread-self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for engine, tab := range p.count(t, p.query(t, "raw_syscalls:sys_enter", cond, "id.syscall,common_pid.execname"), work) {
		want := []Row{{Keys: []Cell{{Text: "getppid"}, {Text: fmt.Sprintf("%s [%d]", strings.TrimSpace(string(comm)), unix.Gettid())}}, Hits: 500}}
		if len(tab.Rows) == 1 {
			tab.Rows[0].Sums = nil
		}
		if diff := cmp.Diff(want, tab.Rows); diff != "" {
			t.Errorf("%s: %s", engine, diff)
		}
	}
	for engine, tab := range p.count(t, p.query(t, "raw_syscalls:sys_enter", cond, "cpu"), work) {
		if tab.Hits != 500 {
			t.Errorf("%s: by cpu %d events in %d rows", engine, tab.Hits, len(tab.Rows))
		}
	}
}

// TestStacks: stacks of both engines are of the same code; the kernel's histograms cut the innermost frames off, and keep 16.
func TestStacks(t *testing.T) {
	p := here(t)
	lo := newLine(t)
	tabs := p.count(t, p.query(t, "net:netif_receive_skb", "name == "+lo.name+" && len == 130", "kstack", "len"), func() { lo.datagrams(t, 10) })
	for engine, tab := range tabs {
		if len(tab.Rows) != 1 || tab.Rows[0].Hits != 1 || tab.Rows[0].Sums[0] != 130 {
			t.Fatalf("%s: %+v", engine, tab.Rows)
		}
		s := tab.Rows[0].Keys[0].String()
		for _, f := range []string{"net_rx_action+0x", "udp_sendmsg+0x"} {
			if !strings.Contains(s, f) {
				t.Errorf("%s: no %s in %s", engine, f, s)
			}
		}
	}
	if h := tabs["hist"]; h != nil {
		if b, k := tabs["bpf"].Rows[0].Keys[0].String(), h.Rows[0].Keys[0].String(); !strings.Contains(b, strings.Join(h.Rows[0].Keys[0].Stack[1:12], ";")) {
			t.Errorf("stacks differ:\n%s\n%s", b, k)
		}
	}
}

// TestWindow: only what happens between two events is counted.
func TestWindow(t *testing.T) {
	p := here(t)
	lo := newLine(t)
	q := p.query(t, "net:netif_receive_skb", "name == "+lo.name+" && len > 127 && len < 138", "name", "len")
	edge := func(event string, nr int) Edge {
		e := Edge{If: fmt.Sprintf("id == %d && common_pid == %d", nr, unix.Gettid())}
		e.Event, e.Format = p.event(t, event)
		return e
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	open, _ := sysno.Number(runtime.GOARCH, "getppid")
	closing, _ := sysno.Number(runtime.GOARCH, "getuid")
	q.From, q.Until = []Edge{edge("raw_syscalls:sys_enter", open)}, []Edge{edge("raw_syscalls:sys_exit", closing)}
	tabs := p.count(t, q, func() {
		lo.datagrams(t, 3)
		unix.RawSyscall(unix.SYS_GETPPID, 0, 0, 0)
		lo.datagrams(t, 5)
		unix.RawSyscall(unix.SYS_GETUID, 0, 0, 0)
		lo.datagrams(t, 7)
	})
	for engine, tab := range tabs {
		if len(tab.Rows) != 1 || tab.Rows[0].Hits != 5 || tab.Rows[0].Sums[0] != 5*128+10 {
			t.Errorf("%s: %+v", engine, tab.Rows)
		}
	}
}

func (p place) trigger(t *testing.T, event, text string) Trigger {
	t.Helper()
	tr := Trigger{Text: text}
	tr.Event, tr.Format = p.event(t, event)
	if err := tr.Parse(); err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestTriggers: what is written in the kernel's words is counted by both engines, the conditional start and end, too.
func TestTriggers(t *testing.T) {
	p := here(t)
	lo := newLine(t)
	self := filepath.Join(t.TempDir(), fmt.Sprintf("child%d", os.Getpid())) // threads of this process end, too
	if err := os.Symlink("/proc/self/exe", self); err != nil {
		t.Fatal(err)
	}
	qs, err := Queries([]Trigger{
		p.trigger(t, "net:netif_receive_skb", "hist:keys=name:vals=len:pause if len > 127 && len < 138 && name == "+lo.name),
		p.trigger(t, "sched:sched_process_exec", `enable_hist:net:netif_receive_skb if filename=="`+self+`"`),
		p.trigger(t, "sched:sched_process_exit", "disable_hist:net:netif_receive_skb if comm=="+filepath.Base(self)),
	})
	if err != nil || len(qs) != 1 {
		t.Fatal(qs, err)
	}
	tabs := p.count(t, qs[0], func() {
		lo.datagrams(t, 3)
		child := exec.Command(self)
		child.Env = append(os.Environ(), childEnv+"=1")
		in, err := child.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("runs"))); err != nil {
			t.Fatal(err)
		}
		lo.datagrams(t, 5)
		in.Close()
		if err := child.Wait(); err != nil {
			t.Fatal(err)
		}
		lo.datagrams(t, 7)
	})
	for engine, tab := range tabs {
		if len(tab.Rows) != 1 || tab.Rows[0].Hits != 5 || tab.Rows[0].Sums[0] != 5*128+10 || tab.Rows[0].Keys[0].Text != lo.name {
			t.Errorf("%s: %+v", engine, tab.Rows)
		}
	}
}

// TestRaw: the kernel's own histograms take variables and actions.
func TestRaw(t *testing.T) {
	p := here(t)
	ktest.Need(t, ktest.HistTriggers)
	ts := []Trigger{
		p.trigger(t, "raw_syscalls:sys_enter", "hist:keys=common_pid:ts0=common_timestamp.usecs if id == 110"),
		p.trigger(t, "raw_syscalls:sys_exit", "hist:keys=common_pid:lat=common_timestamp.usecs-$ts0:onmax($lat).save(id) if id == 110"),
	}
	if qs, err := Queries(ts); qs != nil || err != nil {
		t.Fatal(qs, err)
	}
	raw, err := NewRaw(ts, p.fs, p.lease)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := raw.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := raw.Begin(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		unix.Getppid()
	}
	text, err := raw.Text()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text, "max:") || !strings.Contains(text, "id:        110") {
		t.Error(text)
	}
}

// TestSynthetic: an event that a histogram's action makes of two others is counted, and gone afterwards.
func TestSynthetic(t *testing.T) {
	p := here(t)
	ktest.Need(t, ktest.HistTriggers)
	const name = "fathom_test_lat"
	syn, err := p.fs.NewSynthetic(p.lease, name+" u64 lat; long nr")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.fs.NewSynthetic(p.lease, name+" u64 other"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second event of the name: %v", err)
	}
	var refused *tracefs.ProbeError
	if _, err := p.fs.NewSynthetic(p.lease, name+"2 nosuchtype x"); !errors.As(err, &refused) {
		t.Errorf("an event of an unknown type: %v", err)
	}
	ts := []Trigger{
		p.trigger(t, "raw_syscalls:sys_enter", "hist:keys=common_pid:ts0=common_timestamp.usecs if id == 110"),
		p.trigger(t, "raw_syscalls:sys_exit", "hist:keys=common_pid:lat=common_timestamp.usecs-$ts0:nr=id:onmatch(raw_syscalls.sys_enter).trace("+name+",$lat,$nr) if id == 110"),
		p.trigger(t, "synthetic:"+name, "hist:keys=nr:vals=lat"),
	}
	raw, err := NewRaw(ts, p.fs, p.lease)
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Begin(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		unix.Getppid()
	}
	text, err := raw.Text()
	if err := errors.Join(err, raw.Close(), syn.Close()); err != nil {
		t.Fatal(err)
	}
	if i := strings.Index(text, "{ nr:        110 } hitcount:         20"); i < 0 {
		t.Error(text)
	}
	if _, err := p.fs.Format("synthetic", name); err == nil {
		t.Error("the event is still there")
	}
}
