package record

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/oracle"
	"github.com/fathom-trace/fathom/traceevent"
)

const formatA = `name: a
ID: 300
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned int n;	offset:8;	size:4;	signed:0;
	field:__data_loc char[] text;	offset:12;	size:4;	signed:0;
	field:char comm[8];	offset:16;	size:8;	signed:0;
	field:long neg;	offset:24;	size:8;	signed:1;

print fmt: "n=%u text=%s comm=%s neg=%ld", REC->n, __get_str(text), REC->comm, REC->neg
`

// recordA is a record of the event a.
func recordA(n int) []byte {
	text := fmt.Sprintf("text %d", n*n) + "\x00"
	b := make([]byte, 32)
	le := binary.LittleEndian
	le.PutUint16(b, 300)
	le.PutUint32(b[4:], 77)
	le.PutUint32(b[8:], uint32(n))
	le.PutUint32(b[12:], uint32(len(text))<<16|32)
	copy(b[16:], "comm")
	le.PutUint64(b[24:], uint64(int64(-n)))
	b = append(b, text...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// ringPages simulates a ring buffer: n events 100 ns apart, of which those whose number lost says are overwritten. It gives
// the pages and how many were lost.
func ringPages(n int, lost func(i int) bool, tell bool) (pages []byte, missing uint64) {
	const size = 4096
	le := binary.LittleEndian
	page := make([]byte, 16, size)
	var before uint64
	last := uint64(1000)
	start := func(i int) {
		le.PutUint64(page, 1000+uint64(i)*100)
		last = 1000 + uint64(i)*100
	}
	flush := func() {
		commit := uint64(len(page) - 16)
		page = page[:size]
		if before > 0 {
			commit |= 1 << 31
			if at := 16 + int(commit&0xfffff); tell && at+8 <= size {
				commit |= 1 << 30
				le.PutUint64(page[at:], before)
			}
			before = 0
		}
		le.PutUint64(page[8:], commit)
		pages = append(pages, page...)
		page = make([]byte, 16, size)
	}
	for i := range n {
		if lost(i) {
			if len(page) > 16 {
				flush()
			}
			before++
			missing++
			continue
		}
		rec := recordA(i)
		if len(page)+4+len(rec) > size-8 { // with room for a count
			flush()
		}
		if len(page) == 16 {
			start(i)
		}
		t := 1000 + uint64(i)*100
		page = le.AppendUint32(page, uint32(t-last)<<5|uint32(len(rec)/4))
		page = append(page, rec...)
		last = t
	}
	flush()
	return pages, missing
}

// unclosed makes the folder of a recording that was not closed.
func unclosed(t *testing.T, pages ...[]byte) (string, *Meta) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "r")
	own := filepath.Join(dir, ownDir)
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	m := &Meta{Version: 1, Started: time.Unix(0, 0), Host: "host", Release: "6.1", Machine: "x86_64", Clock: "mono", ToReal: 1.7e18, Header: pageHeader,
		Events: []Event{{System: "test", Name: "a", Format: formatA}}, UUID: make([]byte, 16)}
	for cpu, p := range pages {
		m.CPUs = append(m.CPUs, cpu)
		if err := os.WriteFile(filepath.Join(own, rawName(cpu)), p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := writeJSON(filepath.Join(own, metaFile), m); err != nil {
		t.Fatal(err)
	}
	return dir, m
}

// shown reads a recording: each event as text, each gap as its number.
func shown(t *testing.T, dir string) (out []string, tr *Trace) {
	t.Helper()
	tr, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tr.Close() })
	s := tr.Events()
	for e := range traceevent.All(s) {
		if e.Format == nil {
			out = append(out, fmt.Sprintf("%d lost %d-%d", e.Lost, e.Since, e.Time))
			continue
		}
		out = append(out, fmt.Sprintf("%d %d %s", e.Time, e.Format.PIDField().Int(e.Rec), traceevent.NewPrinter(e.Format).Append(nil, e.Rec, nil)))
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
	return out, tr
}

// TestFinish makes a trace of pages with gaps: it reads as the pages did, and what was decoded and what is missing is what was
// written.
func TestFinish(t *testing.T) {
	for _, tell := range []bool{true, false} {
		t.Run(fmt.Sprint("told=", tell), func(t *testing.T) {
			lost := func(i int) bool { return i%1000 < 37 || i > 2500 && i < 2700 }
			pages, missing := ringPages(20000, lost, tell)
			more, _ := ringPages(500, func(int) bool { return false }, true)
			dir, m := unclosed(t, pages, more)
			raw, tr := shown(t, dir)
			if len(tr.Notes) == 0 || tr.Account != nil {
				t.Errorf("nothing is said of a recording that was not closed: %v", tr.Notes)
			}
			acc := &Account{CPUs: []CPUAccount{{CPU: 0, Written: 20000, Missed: missing}, {CPU: 1, Written: 500}}}
			if err := finish(dir, m, &taskTable{}, nil, nil, acc, how{counted: true}); err != nil {
				t.Fatal(err)
			}
			if !acc.Exact || acc.Events+acc.Missed != acc.Written || acc.Missed != missing {
				t.Errorf("account: %+v", acc)
			}
			done, _ := shown(t, dir)
			if tell {
				if d := cmp.Diff(raw, done); d != "" {
					t.Error("the trace reads otherwise than its pages:", d)
				}
			} else if acc.CPUs[0].Unplaced != missing {
				t.Errorf("%d of %d missing events have no place", acc.CPUs[0].Unplaced, missing)
			}
			if got := fmt.Sprint(events(done)); got != fmt.Sprint(events(raw)) {
				t.Errorf("%s events, not %s", got, fmt.Sprint(events(raw)))
			}
			babeltrace(t, dir, int(acc.Events), int(missing))
		})
	}
}

// TestOthersCTF reads what babeltrace2 writes: other types, names and headers for the same events.
func TestOthersCTF(t *testing.T) {
	program := oracle.Path(t, "babeltrace2")
	pages, missing := ringPages(5000, func(i int) bool { return i > 100 && i < 200 }, true)
	dir, m := unclosed(t, pages)
	acc := &Account{CPUs: []CPUAccount{{CPU: 0, Written: 5000, Missed: missing}}}
	if err := finish(dir, m, &taskTable{}, nil, nil, acc, how{counted: true}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out")
	if b, err := exec.Command(program, dir, "-c", "sink.ctf.fs", "-p", `path="`+out+`"`).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, b)
	}
	ours, _ := shown(t, dir)
	theirs, _ := shown(t, out)
	if len(theirs) != len(ours) {
		t.Fatalf("%d lines, not %d", len(theirs), len(ours))
	}
	for i := range ours { // without a print fmt the fields are listed: the same names and values, in the same order
		if theirs[i] != ours[i] && !strings.Contains(ours[i], " lost ") {
			t.Fatalf("line %d\n got %s\nwant %s", i, theirs[i], ours[i])
		}
	}
}

func events(lines []string) (n int) {
	for _, l := range lines {
		if !strings.Contains(l, " lost ") {
			n++
		}
	}
	return n
}

var (
	btLine      = regexp.MustCompile(`n = (\d+), _text_length = (\d+), text = "([^"]*)", comm = "comm", neg = (-?\d+) \}`)
	btDiscarded = regexp.MustCompile(`discarded (\d+) events?`)
)

// babeltrace compares with what babeltrace2 reads: number, values, and how many are missing.
func babeltrace(t *testing.T, dir string, want, missing int) {
	t.Helper()
	cmd := exec.Command(oracle.Path(t, "babeltrace2"), dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("babeltrace2: %v %s", err, errs.String())
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != want {
		t.Errorf("babeltrace2 reads %d events, not %d", len(lines), want)
	}
	for _, l := range lines {
		m := btLine.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("babeltrace2: %s", l)
		}
		n, _ := strconv.Atoi(m[1])
		if m[3] != fmt.Sprintf("text %d", n*n) || m[4] != strconv.Itoa(-n) && n != 0 || m[2] != strconv.Itoa(len(m[3])+1) {
			t.Fatalf("babeltrace2: %s", l)
		}
	}
	sum := 0
	for _, m := range btDiscarded.FindAllStringSubmatch(errs.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		sum += n
	}
	if sum != missing {
		t.Errorf("babeltrace2 says %d were discarded, not %d: %s", sum, missing, errs.String())
	}
}

// TestCut: a recording that ended anywhere is read up to there.
func TestCut(t *testing.T) {
	pages, _ := ringPages(3000, func(int) bool { return false }, true)
	for _, n := range []int{0, 1, 4095, 4096, 5000, len(pages) - 1} {
		dir, _ := unclosed(t, pages[:n])
		tr, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for range traceevent.All(tr.Events()) {
			got++
		}
		whole := n / 4096 * 75 // at least so many are in whole pages
		if got < whole {
			t.Errorf("%d bytes: %d events", n, got)
		}
		tr.Close()
	}
}

func TestSpec(t *testing.T) {
	tests := []struct {
		text, system, event string
		want                bool
	}{
		{"sched:*", "sched", "sched_switch", true}, {"sched/sched_switch", "sched", "sched_switch", true}, {"sched", "sched", "x", true},
		{"sched_switch", "sched", "sched_switch", true}, {"sys_enter_*", "syscalls", "sys_enter_read", true}, {"net:*", "sched", "x", false},
		{"net:net_dev_queue if len > 1", "net", "net_dev_queue", true},
	}
	for _, tt := range tests {
		s, err := ParseSpec(tt.text)
		if err != nil || s.Matches(tt.system, tt.event) != tt.want {
			t.Errorf("%s: %v %v", tt.text, s, err)
		}
	}
	for _, bad := range []string{"", " if x", "[a"} {
		if _, err := ParseSpec(bad); err == nil {
			t.Errorf("%q is a pattern", bad)
		}
	}
}

func TestResolve(t *testing.T) {
	constant := func(name string) (int64, bool) {
		v, ok := map[string]int64{"MODE_REL": 1, "NEG": -1, "FIELD": 9, "FN": 9}[name]
		return v, ok
	}
	const in = `name: MODE_REL
print fmt: "MODE_REL \"%s", __print_symbolic(REC->FIELD & MODE_REL, {MODE_REL|NEG, "NEG"}, {UNKNOWN, "u"}), FN(1)`
	const want = `name: MODE_REL
print fmt: "MODE_REL \"%s", __print_symbolic(REC->FIELD & 1, {1|(-1), "NEG"}, {UNKNOWN, "u"}), FN(1)`
	if got := resolve(in, constant); got != want {
		t.Errorf("got %s", got)
	}
	if got := resolve(in, nil); got != in {
		t.Errorf("got %s", got)
	}
}

func TestTasks(t *testing.T) {
	tab := &taskTable{rows: []Task{{TID: 5, TGID: 5, Comm: "bash"}, {Time: 10, TID: 5, Comm: "ls"}, {Time: 20, TID: 6, TGID: -5, Comm: "ls"},
		{Time: 30, TID: 7, Comm: "new"}, {Time: 0, TID: 7, Comm: "old"}}}
	tasks := NewTasks(tab.settle())
	tests := []struct {
		tid  int
		at   uint64
		want Task
	}{
		{5, 9, Task{0, 5, 5, "bash"}}, {5, 10, Task{10, 5, 5, "ls"}}, {6, 25, Task{20, 6, 5, "ls"}}, {7, 29, Task{0, 7, 0, "old"}}, {7, 31, Task{30, 7, 0, "new"}},
	}
	for _, tt := range tests {
		if got, _ := tasks.At(tt.tid, tt.at); got != tt.want {
			t.Errorf("%d at %d: %+v", tt.tid, tt.at, got)
		}
	}
	if _, ok := tasks.At(99, 1); ok {
		t.Error("a name out of nothing")
	}
}

// TestOpen: what is no recording is said to be none.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("hello"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{dir, file, filepath.Join(dir, "absent")} {
		if tr, err := Open(name); err == nil || tr != nil {
			t.Errorf("%s opens: %v", name, tr)
		}
	}
}
