package record

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/traceevent"
)

// TestTraceCmd reads what trace-cmd wrote, and compares with what trace-cmd reports of it.
func TestTraceCmd(t *testing.T) {
	ktest.NeedGuest(t, ktest.Tracefs, ktest.Tracepoint)
	if ktest.Where() != "debian-6.12" {
		t.Skip("one kernel is enough: the files are the same")
	}
	program, err := exec.LookPath("/usr/bin/trace-cmd")
	if err != nil {
		ktest.Missing(t, "no trace-cmd")
	}
	if err := unix.Mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, ""); err == nil {
		defer func() { _ = unix.Unmount("/sys/kernel/tracing", 0) }()
	}
	dir := t.TempDir()
	for _, tt := range []struct {
		name string
		args []string
	}{
		{"zstd", []string{"-e", "sched", "-e", "raw_syscalls", "-e", "irq", "-e", "timer", "-e", "kmem:kmalloc"}},
		{"v6-lost", []string{"-e", "raw_syscalls", "-b", "8", "-s", "200000", "--file-version", "6"}},
	} {
		file := filepath.Join(dir, tt.name+".dat")
		n := 3000
		if ktest.Soak() { // two events a call
			n = 250000
		}
		w := workload(t, n)
		cmd := exec.Command(program, append(append([]string{"record", "-q", "-o", file}, tt.args...), w.Path)...)
		cmd.Env, cmd.Dir = w.Env, dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v %s", tt.name, err, out)
		}
		compareReport(t, program, file)
	}
}

// alike takes out what trace-cmd prints in another way than the kernel: %p has 0x there, and fewer zeros before it; %pS has no size. A
// regular expression for it takes minutes over half a million lines in a guest.
func alike(l string) string {
	out := make([]byte, 0, len(l))
	for i := 0; i < len(l); {
		switch {
		case l[i] == '=':
			at := i + 1
			if strings.HasPrefix(l[at:], "0x") {
				at += 2
			}
			digits := l[at : at+span(l[at:], hexDigit)]
			end := at + len(digits)
			for len(digits) > 4 && digits[0] == '0' {
				digits = digits[1:]
			}
			out = append(out, '=')
			if i++; len(digits) >= 4 && len(digits) <= 16 && (end == len(l) || !wordByte(l[end])) {
				out, i = append(out, digits...), end
			}
		case strings.HasPrefix(l[i:], "+0x"):
			end := i + 3 + span(l[i+3:], hexDigit)
			out = append(out, l[i:end]...)
			if i = end; strings.HasPrefix(l[i:], "/0x") {
				i += 3 + span(l[i+3:], hexDigit)
			}
		default:
			out = append(out, l[i])
			i++
		}
	}
	return string(out)
}

func span(s string, is func(byte) bool) int {
	n := 0
	for n < len(s) && is(s[n]) {
		n++
	}
	return n
}

func digit(c byte) bool    { return c >= '0' && c <= '9' }
func hexDigit(c byte) bool { return digit(c) || c >= 'a' && c <= 'f' }
func wordByte(c byte) bool {
	return digit(c) || c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// reported is an event of trace-cmd's report, "   COMM-TID   [CPU] FLAGS TIME: NAME:   TEXT", as COMM|TID|CPU|TIME|NAME|TEXT. Flags
// may be missing.
func reported(l string) (string, bool) {
	for at := 0; ; {
		i := strings.Index(l[at:], " [")
		if i < 0 {
			return "", false
		}
		at += i + 2
		task := strings.TrimRight(l[:at-2], " ")
		dash := strings.LastIndexByte(task, '-')
		cpu := span(l[at:], digit)
		if dash < 1 || dash+1 == len(task) || span(task[dash+1:], digit) < len(task)-dash-1 || cpu == 0 || !strings.HasPrefix(l[at+cpu:], "] ") {
			continue
		}
		rest := strings.TrimLeft(l[at+cpu+1:], " ")
		first, after, _ := strings.Cut(rest, " ")
		if !strings.HasSuffix(first, ":") {
			first, after, _ = strings.Cut(strings.TrimLeft(after, " "), " ")
		}
		name, text, ok := strings.Cut(after, ":")
		if !ok || !strings.HasSuffix(first, ":") || span(name, wordByte) < len(name) {
			return "", false
		}
		return strings.TrimLeft(task[:dash], " ") + "|" + task[dash+1:] + "|" + l[at:at+cpu] + "|" + strings.TrimSuffix(first, ":") + "|" + name + "|" + strings.Trim(text, " "), true
	}
}

func compareReport(t *testing.T, program, file string) {
	t.Helper()
	out, err := exec.Command(program, "report", "-N", "-t", "-i", file).Output()
	if err != nil {
		t.Fatalf("%s: report: %v", file, err)
	}
	want := map[string]int{}
	lines, marks := 0, 0
	for l := range strings.SplitSeq(string(out), "\n") {
		if event, ok := reported(alike(l)); ok {
			lines++
			want[event]++
		} else if strings.Contains(l, "EVENTS DROPPED") {
			marks++
		}
	}
	tr, err := Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	printers := map[*traceevent.Format]*traceevent.Printer{}
	read, gaps, other := 0, 0, 0
	s := tr.Events()
	for e := range traceevent.All(s) {
		if e.Format == nil {
			gaps++
			continue
		}
		read++
		p := printers[e.Format]
		if p == nil {
			p = traceevent.NewPrinter(e.Format)
			printers[e.Format] = p
		}
		tid := int(e.Format.PIDField().Int(e.Rec))
		k, ok := tr.Tasks.At(tid, e.Time)
		if !ok {
			k.Comm = "<...>"
		}
		line := fmt.Sprintf("%s|%d|%03d|%d.%09d|%s|%s", k.Comm, tid, e.CPU, e.Time/1e9, e.Time%1e9, e.Format.Name, alike(strings.TrimRight(string(p.Append(nil, e.Rec, &tr.Env)), " ")))
		if want[line] == 0 {
			if other++; other < 5 {
				t.Logf("%s: not in the report: %s", filepath.Base(file), line)
			}
			continue
		}
		want[line]--
	}
	if other >= 5 || other > 0 {
		n := 0
		for l, k := range want {
			if k > 0 && n < 5 {
				n++
				t.Logf("%s: only in the report: %s", filepath.Base(file), l)
			}
		}
	}
	if s.Err() != nil || read != lines || gaps != marks || other*100 > read {
		t.Errorf("%s: %d events and %d gaps, the report has %d and %d; %d read otherwise; %v", filepath.Base(file), read, gaps, lines, marks, other, s.Err())
	}
	t.Logf("%s: %s, %d events, %d gaps, %d not as in the report", filepath.Base(file), tr.Kind, read, gaps, other)
}

var scriptLine = regexp.MustCompile(`^ *(.+?) +(-?\d+) \[(\d+)\] *(\d+)\.(\d+): +(\S+): ?(.*?) *$`)

// TestPerf reads what perf wrote, and compares with what perf script makes of it.
func TestPerf(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	if ktest.InGuest() {
		t.Skip("the guest has no perf")
	}
	program := ktest.Oracle(t, "perf")
	calls := 20000
	if ktest.Soak() {
		calls = 1000000 // perf loses some
	}
	for _, args := range [][]string{{"-e", "raw_syscalls:sys_enter", "-e", "sched:*", "-a"}, {"-z", "-e", "raw_syscalls:sys_exit", "-g"}} {
		file := filepath.Join(t.TempDir(), "perf.data")
		w := workload(t, calls)
		cmd := exec.Command(program, append(append([]string{"record", "-q", "-o", file}, args...), w.Path)...)
		cmd.Env = w.Env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("perf record %v: %v %s", args, err, out)
		}
		out, err := exec.Command(program, "script", "-i", file, "-F", "comm,tid,cpu,time,event,trace", "-G", "--ns").Output()
		if err != nil {
			t.Fatal(err)
		}
		tr, err := Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		s := tr.Events()
		var e traceevent.Event
		n := 0
		for l := range strings.SplitSeq(strings.TrimSuffix(string(out), "\n"), "\n") {
			m := scriptLine.FindStringSubmatch(l)
			for s.Next(&e) && e.Format == nil {
			}
			if m == nil || e.Format == nil {
				t.Fatalf("perf script: %s", l)
			}
			n++
			tid := int(e.Format.PIDField().Int(e.Rec))
			k, _ := tr.Tasks.At(tid, e.Time)
			got := fmt.Sprintf("%s %d %03d %d.%09d %s:%s %s", k.Comm, tid, max(e.CPU, 0), e.Time/1e9, e.Time%1e9, e.Format.System, e.Format.Name, traceevent.NewPrinter(e.Format).Append(nil, e.Rec, &tr.Env))
			want := fmt.Sprintf("%s %s %s %s.%s %s %s", m[1], m[2], m[3], m[4], m[5], m[6], m[7])
			// A task that has left its PID namespace has no number in perf's sample; the kernel's record has.
			if m[2] != "-1" && strings.TrimRight(got, " ") != strings.TrimRight(want, " ") {
				t.Fatalf("event %d\n got %s\nwant %s", n, got, want)
			}
		}
		if s.Next(&e) && e.Format != nil || s.Err() != nil || n < 1000 { // perf itself loses some
			t.Errorf("%d events, and more: %v", n, s.Err())
		}
		t.Logf("%d events are as perf script has them", n)
	}
}
