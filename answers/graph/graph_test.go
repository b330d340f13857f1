package graph

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// events reads a trace in writing, an event a line: "MICROSECONDS TASK WHAT [FUNCTION] [CONTEXT]", where WHAT is > for enter,
// < for exit, "out", "in" or "=NAME". Functions are numbered as they come.
func events(t *testing.T, text string) (evs []Event, names map[uint64]string) {
	t.Helper()
	names = map[uint64]string{}
	addr := map[string]uint64{}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 3 {
			continue
		}
		us, err := strconv.ParseFloat(f[0], 64)
		task, err2 := strconv.Atoi(f[1])
		if err != nil || err2 != nil {
			t.Fatalf("%q: no event", line)
		}
		e := Event{Time: uint64(us*1000 + 0.5), Task: task, Comm: ""}
		switch w := f[2]; w {
		case ">", "<":
			e.Kind = map[string]Kind{">": Enter, "<": Exit}[w]
			if addr[f[3]] == 0 {
				addr[f[3]] = uint64(len(addr) + 1)
				names[addr[f[3]]] = f[3]
			}
			e.Func = addr[f[3]]
			if len(f) > 4 {
				e.Ctx = map[string]Context{"softirq": Softirq, "hardirq": Hardirq, "nmi": NMI}[f[4]]
			}
		case "out":
			e.Kind = Out
		case "in":
			e.Kind = In
		case "gone":
			e.Kind = Gone
		default:
			e.Kind, e.Comm = Rename, strings.TrimPrefix(w, "=")
		}
		evs = append(evs, e)
	}
	return evs, names
}

// draw prints the trees of a trace, of the function that is entered first.
func draw(t *testing.T, text string, o Options) (string, *Builder) {
	t.Helper()
	evs, names := events(t, text)
	o.Roots = map[uint64]bool{1: true}
	b := NewBuilder(o)
	var out bytes.Buffer
	p := &Printer{W: bufio.NewWriter(&out), Name: func(a uint64) string { return names[a] }}
	for _, e := range evs {
		if tree := b.Add(e); tree != nil {
			if err := p.Tree(tree); err != nil {
				t.Fatal(err)
			}
		}
	}
	return strings.TrimSpace(out.String()), b
}

const nested = `
1 7 > read
1 8 > read
2 7 > copy
3.5 7 < copy
3.5 8 > copy
4 7 > lock
5 7 > spin
5.25 7 < spin
16 7 < lock
20 7 < read
2000 8 < copy
2001 8 < read
`

func TestTrees(t *testing.T) {
	tests := []struct {
		name, in string
		o        Options
		want     string
	}{
		{"two tasks, mixed", nested, Options{}, `
0)               |  /* -7 */
 0)               |  read() {
 0)   1.500 us    |    copy();
 0)               |    lock() {
 0)   0.250 us    |      spin();
 0) + 12.000 us   |    } /* lock */
 0) + 19.000 us   |  } /* read */

 0)               |  /* -8 */
 0)               |  read() {
 0) # 1996.500 us |    copy();
 0) # 2000.000 us |  } /* read */`},
		{"two levels of one that is long enough", nested, Options{Depth: 2, Min: 1e6}, `
0)               |  /* -8 */
 0)               |  read() {
 0) # 1996.500 us |    copy();
 0) # 2000.000 us |  } /* read */`},
		{"depth", nested, Options{Depth: 1, Keep: func(task int, _ string) bool { return task == 7 }}, `
0)               |  /* -7 */
 0) + 19.000 us   |  read();`},
		{"names", "0 7 =cat\n1 7 > f\n2 7 =dog\n3 7 < f", Options{Keep: func(_ int, comm string) bool { return comm == "cat" }}, `
0)               |  /* cat-7 */
 0)   2.000 us    |  f();`},
		{"asleep", "1 7 > f\n2 7 > schedule\n3 7 out\n203 7 in\n204 7 < schedule\n205 7 < f", Options{}, `
0)               |  /* -7, 200.000 us of it off the CPU */
 0)               |  f() {
 0)               |    schedule() {
 0) ! 200.000 us  |      /* off the CPU */
 0) ! 202.000 us  |    } /* schedule */
 0) ! 204.000 us  |  } /* f */`},
		{"an interrupt", `1 7 > f
2 7 > irq_enter
3 7 < irq_enter hardirq
4 7 > timer hardirq
5 7 > wake hardirq
6 7 < wake hardirq
7 7 < timer hardirq
8 7 > irq_exit hardirq
9 7 > softirqs
10 7 > rx softirq
11 7 < rx softirq
12 7 < softirqs
13 7 < irq_exit
14 7 > g
15 7 < g
16 7 < f`, Options{}, `
0)               |  /* -7 */
 0)               |  f() {
 0)   ==========> | /* hardirq */
 0)   1.000 us    |    irq_enter();
 0)               |    timer() {
 0)   1.000 us    |      wake();
 0)   3.000 us    |    } /* timer */
 0)               |    irq_exit() {
 0)               |      softirqs() {
 0)   1.000 us    |        rx();
 0)   3.000 us    |      } /* softirqs */
 0)   5.000 us    |    } /* irq_exit */
 0)   <========== |
 0)   1.000 us    |    g();
 0) + 15.000 us   |  } /* f */`},
		{"interrupts left out", "1 7 > f\n2 7 > irq hardirq\n3 7 > x hardirq\n4 7 < x hardirq\n5 7 < irq hardirq\n6 7 > g\n7 7 < g\n8 7 < f", Options{NoIrq: true}, `
0)               |  /* -7 */
 0)               |  f() {
 0)   1.000 us    |    g();
 0)   7.000 us    |  } /* f */`},
		{"bottom halves enabled again", "1 7 > f\n2 7 > enable\n3 7 > rx softirq\n4 7 < rx softirq\n5 7 < enable\n6 7 < f", Options{}, `
0)               |  /* -7 */
 0)               |  f() {
 0)               |    enable() {
 0)   ==========> | /* softirq */
 0)   1.000 us    |      rx();
 0)   <========== |
 0)   3.000 us    |    } /* enable */
 0)   5.000 us    |  } /* f */`},
		{"recursion", "1 7 > f\n2 7 > f\n3 7 < f\n4 7 < f", Options{}, `
0)               |  /* -7 */
 0)               |  f() {
 0)   1.000 us    |    f();
 0)   3.000 us    |  } /* f */`},
		{"a return that was not seen", "1 7 > f\n2 7 > g\n3 7 > h\n4 7 < g\n5 7 < f", Options{}, `
0)               |  /* -7 */
 0)               |  f() {
 0)               |    g() {
 0)   1.000 us    |      h(); /* did not return */
 0)   2.000 us    |    } /* g */
 0)   4.000 us    |  } /* f */`},
		{"a task that ends", "1 7 > f\n2 7 > g\n5 7 gone\n6 7 > g\n7 7 < g", Options{}, `
0)               |  /* -7 */
 0)               |  f() {
 0)   3.000 us    |    g(); /* did not return */
 0)   4.000 us    |  } /* f */ /* did not return */`},
		{"returns of what was entered before", "0 9 > f\n1 7 < g\n1 7 < f\n2 7 > f\n3 7 < z\n4 7 < f", Options{}, `
0)               |  /* -7 */
 0)   2.000 us    |  f();`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := draw(t, tt.in, tt.o)
			if d := cmp.Diff(strings.TrimSpace(tt.want), got); d != "" {
				t.Errorf("%s\n%s", tt.in, d)
			}
		})
	}
}

func TestIdleTasks(t *testing.T) {
	b := NewBuilder(Options{Roots: map[uint64]bool{1: true}})
	b.Add(Event{Kind: Enter, CPU: 0, Func: 1, Time: 1})
	b.Add(Event{Kind: Enter, CPU: 1, Func: 1, Time: 2})
	if tree := b.Add(Event{Kind: Exit, CPU: 0, Func: 1, Time: 9}); tree == nil || tree.Dur != 8 || tree.Comm != "<idle>" || len(tree.Calls) != 0 {
		t.Errorf("%+v", tree)
	}
	if b.Open() != 1 {
		t.Error(b.Open())
	}
	b.Add(Event{Kind: Lost})
	if b.Open() != 0 || b.Broken != 1 {
		t.Error(b.Open(), b.Broken)
	}
}

// TestBounds: a function that never returns must not take all memory, nor calls that never return.
func TestBounds(t *testing.T) {
	b := NewBuilder(Options{Roots: map[uint64]bool{1: true}})
	b.Add(Event{Kind: Enter, Task: 7, Func: 1, Time: 1})
	for i := range uint64(maxCalls + 10) {
		b.Add(Event{Kind: Enter, Task: 7, Func: 2, Time: 2 * i})
		b.Add(Event{Kind: Exit, Task: 7, Func: 2, Time: 2*i + 1})
	}
	tree := b.Add(Event{Kind: Exit, Task: 7, Func: 1, Time: 1 << 40})
	if tree == nil || len(tree.Calls) != maxCalls || tree.Hidden != 10 {
		t.Errorf("%d calls kept", len(tree.Calls))
	}
	for i := range uint64(2 * maxStack) {
		b.Add(Event{Kind: Enter, Task: 7, Func: 1, Time: i})
	}
	if b.Broken != 1 || b.Open() != 1 {
		t.Errorf("%d given up, %d open", b.Broken, b.Open())
	}
}

func TestDuration(t *testing.T) {
	for ns, want := range map[uint64]string{0: "  0.000 us", 999: "  0.999 us", 10_001: "+ 10.001 us", 123_456: "! 123.456 us", 12_345_678: "* 12345.67 us", 1_234_567_890: "$ 1234567 us"} {
		if got := column(ns); got != want {
			t.Errorf("%d: %q, want %q", ns, got, want)
		}
	}
}

func TestStats(t *testing.T) {
	evs, names := events(t, nested+"3000 7 > read\n3001 7 > read\n3002 7 out\n3005 7 in\n3006 7 < read\n3007 7 < read\n")
	b := NewBuilder(Options{Roots: map[uint64]bool{1: true}})
	var s Stats
	for _, e := range evs {
		if tree := b.Add(e); tree != nil {
			s.Add(tree)
		}
	}
	name := func(a uint64) string { return names[a] }
	var text, js strings.Builder
	if err := s.Text(&text, name); err != nil {
		t.Fatal(err)
	}
	const want = `     COUNT           TOTAL            SELF         OFF CPU             MAX  FUNCTION
         2     1998.000 us     1998.000 us        0.000 us     1996.500 us  copy
         1       12.000 us       11.750 us        0.000 us       12.000 us  lock
         4     2026.000 us       13.000 us        3.000 us     2000.000 us  read
         1        0.250 us        0.250 us        0.000 us        0.250 us  spin
`
	lines := strings.SplitAfter(want, "\n")
	lines[2], lines[3] = lines[3], lines[2] // by time of their own
	if d := cmp.Diff(strings.Join(lines, ""), text.String()); d != "" {
		t.Error(d)
	}
	if err := s.JSON(&js, name); err != nil || !strings.HasPrefix(js.String(), `{"type":"stat","function":"copy","count":2,"total_ns":1998000,"self_ns":1998000,"off_cpu_ns":0,"max_ns":1996500}`) {
		t.Error(js.String(), err)
	}
}

func TestJSON(t *testing.T) {
	tree := &Tree{Task: 7, Comm: "cat", Call: Call{Func: 1, Start: 5, Dur: 100, Calls: []*Call{{Func: 2, Start: 6, Dur: 20, Irq: true, Ctx: Hardirq}, {Off: true, Start: 30, Dur: 50}}}}
	var b strings.Builder
	if err := JSON(&b, tree, func(a uint64) string { return fmt.Sprint("f", a) }); err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"call","tid":7,"comm":"cat","off_cpu_ns":50,"function":"f1","cpu":0,"start_ns":5,"dur_ns":100,"self_ns":30,"calls":[` +
		`{"function":"f2","cpu":0,"start_ns":6,"dur_ns":20,"self_ns":20,"context":"hardirq","interrupt":true},{"off_cpu":true,"cpu":0,"start_ns":30,"dur_ns":50,"self_ns":50}]}` + "\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestPrinter(t *testing.T) {
	var out bytes.Buffer
	p := &Printer{W: bufio.NewWriter(&out), CPUs: 12, Name: func(uint64) string { return "f" }, When: func(ns uint64) time.Time { return time.Unix(0, int64(ns)).UTC() }}
	if err := p.Header(); err != nil {
		t.Fatal(err)
	}
	if err := p.Tree(&Tree{Task: 3, Comm: "x", Call: Call{CPU: 2, Start: 1_500_000_000, Dur: 5}}); err != nil {
		t.Fatal(err)
	}
	want := "# CPU  DURATION                  FUNCTION CALLS\n# |     |   |                     |   |   |   |\n" +
		"  2)               |  /* x-3 at 00:00:01.500000 */\n  2)   0.005 us    |  f();\n\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Error(d)
	}
}

// FuzzBuilder gives events in any order: trees must nest, and what is open stays bounded by the tasks.
func FuzzBuilder(f *testing.F) {
	f.Add([]byte{0, 1, 1, 0, 1, 2, 1, 1, 2, 1, 1, 1})
	f.Add([]byte{0, 1, 1, 2, 1, 0, 3, 1, 0, 1, 1, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		b := NewBuilder(Options{Roots: map[uint64]bool{1: true}, Depth: 5})
		var s Stats
		for i := 0; i+3 <= len(in); i += 3 {
			e := Event{Kind: Kind(in[i] % 7), Ctx: Context(in[i] >> 6), Task: int(in[i+1] % 4), Func: uint64(in[i+2] % 8), Time: uint64(i)}
			if tree := b.Add(e); tree != nil {
				s.Add(tree)
				checkTree(t, &tree.Call, 1)
			}
		}
		if b.Open() > 4 {
			t.Errorf("%d tasks of 4 are inside", b.Open())
		}
	})
}

func checkTree(t *testing.T, c *Call, depth int) {
	if depth > 6 {
		t.Fatal("deeper than asked")
	}
	for _, k := range c.Calls {
		if k.Start < c.Start || k.Start+k.Dur > c.Start+c.Dur {
			t.Fatalf("%+v reaches out of %+v", k, c)
		}
		checkTree(t, k, depth+1)
	}
}
