package events

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/flame"
)

const pairFormat = `name: %s
ID: %d
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int vec;	offset:8;	size:4;	signed:1;

print fmt: "vec=%%d", REC->vec
`

const stackFormat = `name: kernel_stack
ID: 4
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:int size;	offset:8;	size:4;	signed:1;
	field:unsigned long caller[8];	offset:16;	size:64;	signed:0;

print fmt: "\t=> %ps\n", (void *)REC->caller[0]
`

// rec is a record of a pair's event, or of a stack.
func rec(pid, vec int, addrs ...uint64) []byte {
	b := make([]byte, 16, 16+8*len(addrs))
	binary.LittleEndian.PutUint32(b[4:], uint32(pid))
	binary.LittleEndian.PutUint32(b[8:], uint32(vec))
	for _, a := range addrs {
		b = binary.LittleEndian.AppendUint64(b, a)
	}
	return b
}

func same(pattern, system, name string) bool { return pattern == name || pattern == system+":"+name }

func TestParsePair(t *testing.T) {
	for text, want := range map[string]string{
		"a b":               "{a b [common_pid] [common_pid]}",
		"s:a[x,cpu] b[y,z]": "{s:a b [x cpu] [y z]}",
		"a":                 "",
		"a[x] b[y,z]":       "",
		"a[] b[]":           "",
		"[x] b[y]":          "",
	} {
		p, err := ParsePair(text)
		if got := fmt.Sprint(p); (err != nil) != (want == "") || err == nil && got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
}

// TestLatency: pairs by keys, of several beginnings the first, and nothing across gaps.
func TestLatency(t *testing.T) {
	raise, entry := format(t, "irq", fmt.Sprintf(pairFormat, "raise", 1)), format(t, "irq", fmt.Sprintf(pairFormat, "entry", 2))
	pair, err := ParsePair("irq:raise[vec,cpu] entry[vec,cpu]")
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	l, err := NewLatency(&b, &Source{}, pair, same, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []traceevent.Event{
		{Time: 1000, CPU: 0, Format: raise, Rec: rec(0, 3)},
		{Time: 1500, CPU: 1, Format: raise, Rec: rec(0, 3)},
		{Time: 1600, CPU: 0, Format: raise, Rec: rec(0, 3)}, // once more
		{Time: 2000, CPU: 1, Format: entry, Rec: rec(9, 3)}, // 500 ns
		{Time: 3000, CPU: 0, Format: entry, Rec: rec(8, 3)}, // 2 µs
		{Time: 3100, CPU: 0, Format: entry, Rec: rec(8, 3)}, // nobody raised it
		{Time: 4000, CPU: 0, Format: raise, Rec: rec(0, 1)},
		{Time: 5000, CPU: 0, Lost: 3},
		{Time: 6000, CPU: 0, Format: entry, Rec: rec(8, 1)}, // perhaps of another
		{Time: 7000, CPU: 0, Format: raise, Rec: rec(0, 2)}, // never entered
	} {
		if err := l.Event(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"irq:raise to entry: 2, 1 across gaps not counted, 1 without an end, 1 without a beginning, 1 repeated beginnings\n",
		"min 500ns, mean 1.25µs", "max 2µs", "2µs  0.000001           0  <...>-8\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	for _, bad := range []string{"raise nosuch", "raise[x] entry[y]"} {
		pair, _ := ParsePair(bad)
		l, _ := NewLatency(&b, &Source{}, pair, same, 2)
		for _, f := range []*traceevent.Format{raise, entry} {
			_ = l.Event(&traceevent.Event{Time: 1, Format: f, Rec: rec(0, 0)})
		}
		var nothing *NothingError
		if err := l.Close(); !errors.As(err, &nothing) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestDistribution: quantiles are within 1/32 of the exact ones.
func TestDistribution(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var d distribution
	var all []uint64
	for range 10000 {
		v := r.Uint64() >> (r.Uint64() % 64)
		all = append(all, v)
		d.add(v)
		if b := bucketOf(v); lowest(b) > v || b < 1<<11-2 && lowest(b+1) != 0 && lowest(b+1) <= v {
			t.Fatalf("%d is in bucket %d, from %d to %d", v, b, lowest(b), lowest(b+1))
		}
	}
	slices.Sort(all)
	for _, q := range []float64{0, .1, .5, .99, 1} {
		want := all[min(int(q*10000), 9999)]
		if got := d.quantile(q); got > want || float64(want-got) > float64(want)/32+1 {
			t.Errorf("%v: %d, and it is %d", q, got, want)
		}
	}
}

// TestTimeline: tasks are where they ran, and gaps are seen.
func TestTimeline(t *testing.T) {
	src, _, evs := sample(t)
	var b strings.Builder
	tl := NewTimeline(&b, labelWidth+11, 5, false)
	for _, e := range evs {
		if err := tl.Event(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := tl.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), "CPU 1                   A????????.") || !strings.Contains(b.String(), "A bash-42               @.") {
		t.Errorf("\n%s", b.String())
	}
	var page bytes.Buffer
	p := NewPage(&page, src, "a <b>", []string{"something & more"}, 5)
	for _, e := range evs {
		if err := p.Event(&e); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<title>a &lt;b&gt;</title>", "something &amp; more", "<title>bash-42</title>", "events are missing", "net:queue", "</html>"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("no %q in\n%s", want, page.String())
		}
	}
	if strings.Contains(page.String(), "<h2>Stacks") {
		t.Error("stacks where there are none")
	}
	if err := NewTimeline(&b, 80, 5, true).Close(); err == nil {
		t.Error("a timeline of nothing")
	}
}

// TestStacks: a stack belongs to the event before it on its CPU, whatever comes on others in between.
func TestStacks(t *testing.T) {
	ev, st := format(t, "net", fmt.Sprintf(pairFormat, "queue", 1)), format(t, "ftrace", stackFormat)
	src := &Source{Env: &traceevent.Env{Symbol: func(a uint64) (string, uint64, uint64, string, bool) {
		return fmt.Sprintf("f%d", a), 0, 0, map[uint64]string{7: "mod"}[a], a < 100
	}}}
	var got strings.Builder
	g := &flame.Graph{}
	s := NewStacks(g, src, "vec", false, func(g *flame.Graph) error { return g.Folded(&got) })
	var text bytes.Buffer
	tx := NewText(&text, src, false)
	for _, e := range []traceevent.Event{
		{Time: 1, CPU: 0, Format: ev, Rec: rec(1, 10)},
		{Time: 1, CPU: 1, Format: ev, Rec: rec(2, 5)},
		{Time: 2, CPU: 0, Format: st, Rec: rec(1, 3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 1000)},
		{Time: 3, CPU: 0, Format: ev, Rec: rec(1, 1)},
	} {
		if err := errors.Join(s.Event(&e), tx.Event(&e)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Close(), tx.Close()); err != nil {
		t.Fatal(err)
	}
	if want := "<...> 6\n<...>;0x3e8;f9;f8;f7 [mod];f6;f5;f4;f3;f2;f1 10\n"; got.String() != want {
		t.Errorf("got %s want %s", got.String(), want)
	}
	if want := "kernel_stack: <stack trace>\n => f1\n => f2\n"; !strings.Contains(text.String(), want) {
		t.Errorf("%s", text.String())
	}
}

// TestUserStack: frames of programs have the names that somebody knows; without a function the file is told.
func TestUserStack(t *testing.T) {
	src, _, all := sample(t)
	stack := format(t, "ftrace", strings.Replace(switchFormat[:strings.Index(switchFormat, "\n\tfield:char")], "sched_switch", "user_stack", 1)+
		"\n\tfield:unsigned int tgid;\toffset:8;\tsize:4;\tsigned:0;\n\tfield:unsigned long caller[8];\toffset:16;\tsize:64;\tsigned:0;\n\nprint fmt: \"%p\", REC->caller[0]\n")
	rec := make([]byte, 80)
	rec[8] = 42
	for i, a := range []uint64{0x1000, 0x2000, 0x3000, 0x4000} {
		binary.LittleEndian.PutUint64(rec[16+8*i:], a)
	}
	src.User = func(tgid int, time uint64, addrs []uint64) []Frame {
		if tgid != 42 || time != 7e9 || len(addrs) != 4 {
			t.Errorf("asked for %d at %d: %x", tgid, time, addrs)
		}
		return []Frame{{Name: "read", File: "/lib/libc.so.6"}, {File: "/bin/srv", At: 0x2f}, {Name: "jitted"}, {}}
	}
	var text, folded bytes.Buffer
	write := NewText(&text, src, false)
	sum := NewStacks(&flame.Graph{}, src, "", false, func(g *flame.Graph) error { return nil })
	sum.done = func(g *flame.Graph) error { return g.Folded(&folded) }
	for _, e := range []traceevent.Event{all[0], {Time: 7e9, CPU: all[0].CPU, Format: stack, Rec: rec}} {
		for _, w := range []Writer{write, sum} {
			if err := w.Event(&e); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, w := range []Writer{write, sum} {
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if want := "user_stack: <stack trace>\n => read\n => /bin/srv[+0x2f]\n => jitted\n => 0x4000\n"; !strings.HasSuffix(text.String(), want) {
		t.Errorf("got %s, want %s", text.String(), want)
	}
	if want := ";0x4000;jitted;[srv];read 1\n"; !strings.HasSuffix(folded.String(), want) {
		t.Errorf("got %s, want %s", folded.String(), want)
	}
}

// TestTaskName: who is known by number has that name; of others it is what the event itself says.
func TestTaskName(t *testing.T) {
	f := &traceevent.Format{Name: "e", Fields: []traceevent.Field{{Name: "common_pid", Type: "int", Size: 4, ArrayLen: -1}, {Name: "procname", Type: "char", Offset: 4, Size: 8, ArrayLen: 8}}}
	e := &traceevent.Event{Format: f, Rec: []byte("\x07\x00\x00\x00srv\x00\x00\x00\x00\x00")}
	for tid, want := range map[int]string{7: "srv", 8: "known"} {
		n := names{src: &Source{Comm: func(tid int, _ uint64) (string, bool) { return "known", tid == 8 }}}
		if got := n.of(e, tid); got != want {
			t.Errorf("task %d is %s, want %s", tid, got, want)
		}
	}
	none := names{src: &Source{}}
	if got := none.of(e, 7) + none.of(&traceevent.Event{Format: &traceevent.Format{}}, 0); got != "srv<idle>" {
		t.Errorf("without names: %s", got)
	}
}
