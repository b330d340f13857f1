package cli

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/tracefs"
)

// TestListTracepoints: the list has the kernel's events, byte for byte, and functions come out of its types, which anybody may read.
func TestListTracepoints(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.BTF)
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	kernel := func() []string {
		text, err := os.ReadFile(fs.Root + "/available_events")
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for name := range strings.Lines(string(text)) {
			want = append(want, "tracepoint:"+name)
		}
		slices.Sort(want)
		return want
	}
	want, d := kernel(), ""
	for range 10 { // tests make events of their own meanwhile
		_, out := output(t, "trace", "-l", "tracepoint:*")
		got := slices.Sorted(strings.Lines(out))
		again := kernel()
		if d = cmp.Diff(want, got); d == "" || slices.Equal(want, again) {
			break
		}
		want = again
	}
	if d != "" {
		t.Error(d)
	}
	if _, out := output(t, "trace", "-lv", "fentry:vfs_read"); !strings.Contains(out, "vfs_read\n    struct file * file\n") {
		t.Errorf("vfs_read:\n%s", out)
	}
}

// TestListJSON: -j lists the same, an object a line, of the kernel and of a recording; a place that is none is told.
func TestListJSON(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.BTF)
	for _, args := range [][]string{
		{"-lv", "enum "}, {"-lv", "struct page"}, {"-lv", "tracepoint:sched:sched_switch"}, {"-lv", "struct list_head"}, {"-lv", "enum hrtimer_restart"}, {"-l", "software:*"},
		{"-lv", "tracepoint:sched:sched_w*,fentry:vfs_read"}, {"-l", "-e", "BEGIN { } tracepoint:sched:sched_switch { }"},
		{"-l", "--on", "../../record/testdata/lttng-kernel"},
	} {
		args = append([]string{"trace"}, args...)
		code, text := output(t, args...)
		jcode, lines := output(t, append(args, "-j")...)
		if code != 0 || jcode != 0 || lines == "" {
			t.Errorf("%q: exit codes %d and %d with JSON:\n%s", args, code, jcode, lines)
		}
		var again strings.Builder
		for line := range strings.Lines(lines) {
			var l probe.Listed
			d := json.NewDecoder(strings.NewReader(line))
			d.DisallowUnknownFields()
			if err := d.Decode(&l); err != nil || l.Type == "" || l.Name == "" {
				t.Fatalf("%q: %v: %s", args, err, line)
			}
			again.WriteString(l.Text())
		}
		if d := cmp.Diff(text, again.String()); d != "" {
			t.Errorf("%q: %s", args, d)
		}
	}
	for _, place := range []string{"--on=testdata/none", "--on=trace_list_test.go", "--on=testdata", "--guest=none-of-this-name"} {
		if code, out := output(t, "trace", "-l", place); code == 0 || out != "" {
			t.Errorf("%s is listed: exit code %d, %q", place, code, out)
		}
	}
}

// TestListed: what is listed is written as bpftrace writes it.
func TestListed(t *testing.T) {
	for want, l := range map[string]probe.Listed{
		"tracepoint:a:b\n    int c\n    char d[16]\n":         {Type: "probe", Name: "tracepoint:a:b", Args: []string{"int c", "char d[16]"}},
		"iter:task        every thread\n":                     {Type: "probe", Name: "iter:task", About: "every thread"},
		"vmlinux: struct s {\n        int a : 3;\n};\n":       {Type: "struct", Name: "struct s", Members: []string{"int a : 3"}},
		"enum {\n        FALSE = 0,\n        TRUE = 1,\n};\n": {Type: "enum", Name: "enum", Members: []string{"FALSE = 0", "TRUE = 1"}},
	} {
		if d := cmp.Diff(want, l.Text()); d != "" {
			t.Error(d)
		}
	}
}

// TestListDead: over a dead kernel programs run by its iterators, those that a pattern matches.
func TestListDead(t *testing.T) {
	text := func(pattern string) (out string) {
		for _, l := range within(new(script.Options), pattern) {
			out += l.Text()
		}
		return out
	}
	if all := text(""); !regexp.MustCompile(`(?m)^iter:task +every thread`).MatchString(all) {
		t.Error(all)
	}
	if some := text("iter:task_*"); !strings.HasPrefix(some, "iter:task_file ") || strings.Contains(some, "iter:task ") {
		t.Error(some)
	}
}
