package cli

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/lab/exercise"
	"github.com/fathom-trace/fathom/lab/fault"
)

// figure finds a number in a document: under a heading (or anywhere, if that is ""), in the table's row that begins with cells,
// in column n.
type figure struct {
	doc, heading, row string
	n                 int
	over              float64 // what to divide it by; 0 is 1
}

// find gives the figure.
func (f figure) find(docs map[string]string) (float64, error) {
	text := docs["docs/"+f.doc+".md"]
	if f.heading != "" {
		var ok bool
		if _, text, ok = strings.Cut(text, "\n## "+f.heading); !ok {
			return 0, fmt.Errorf("%s has no heading %q", f.doc, f.heading)
		}
		text, _, _ = strings.Cut(text, "\n## ")
	}
	for l := range strings.Lines(text) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(l), "|"), " | ")
		if !strings.HasPrefix(strings.TrimSpace(l), "| "+f.row+" |") || f.n >= len(cells) {
			continue
		}
		v, err := strconv.ParseFloat(leading.FindString(strings.TrimSpace(cells[f.n])), 64)
		if f.over != 0 {
			v /= f.over
		}
		return v, err
	}
	return 0, fmt.Errorf("%s has no row %q under %q", f.doc, f.row, f.heading)
}

var leading = regexp.MustCompile(`^[0-9.]+`)

// TestReadmeFigures: the table of the README says what the pages of benchmarks say, rounded.
func TestReadmeFigures(t *testing.T) {
	docs := documents(t)
	const (
		start, count = "`BEGIN { exit(); }`", "`tracepoint:raw_syscalls:sys_enter { @[comm] = count(); }`"
		old, new     = "bpftrace v0.17.0", "bpftrace v0.27.1"
		burst        = "A burst of 1000000 printf events"
		recording    = "Recording 1000000 system calls"
		page, drgn   = "/proc/vmcore, debian-6.12-cloud | 491 | ", "drgn 0.2.0+197.ga2d50fd6"
		guest        = "In a guest, emulated"
	)
	b := func(heading, row string, n int) figure { return figure{"benchmarks", heading, row, n, 0} }
	mega := func(heading, row string, n int) figure { return figure{"benchmarks", heading, row, n, 1e6} }
	core := func(row string, n int, over float64) figure {
		return figure{"benchmarks-core", "All that was measured", page + row, n, over}
	}
	for _, r := range []struct {
		row     string
		figures []figure
	}{
		{"| `BEGIN { exit(); }`, start to exit | %.1f ms, %.0f MB | bpftrace 0.17: %.0f ms, %.0f MB; 0.27.1: %.0f ms, %.0f MB |", []figure{
			b("Start to exit", start+" | fathom", 2), b("Start to exit", start+" | fathom", 4), b("Start to exit", start+" | "+old, 2), b("Start to exit", start+" | "+old, 4),
			b("Start to exit", start+" | "+new, 2), b("Start to exit", start+" | "+new, 4),
		}},
		{"| a million `printf` events at full speed | all of them, %.1f M/s | bpftrace 0.17: %.0f %%, %.2f M/s; 0.27.1: %.0f %%, %.2f M/s |", []figure{
			mega(burst, "fathom", 4), {"benchmarks", burst, old, 1, 1e4}, mega(burst, old, 4), {"benchmarks", burst, new, 1, 1e4}, mega(burst, new, 4),
		}},
		{"| `@[comm] = count()`, one run | %.0f ns | bpftrace 0.17: %.0f ns; 0.27.1: %.0f ns |", []figure{
			b("One run", count+" | fathom", 2), b("One run", count+" | "+old, 2), b("One run", count+" | "+new, 2),
		}},
		{"| following packets, start to ready, in a guest | %.2f s | pwru: %.2f s |", []figure{
			{"benchmarks-packet", guest, "fathom packet", 1, 0}, {"benchmarks-packet", guest, "pwru", 1, 0},
		}},
		{"| round trip while others' packets are followed, there | %.2f of bare | pwru: %.2f |", []figure{
			{"benchmarks-packet", guest, "fathom packet, not matching", 2, 0}, {"benchmarks-packet", guest, "pwru, not matching", 2, 0},
		}},
		{"| recording, CPU until then | %.3f µs an event, none lost | perf record: %.3f, half lost; with -m 64M %.3f, none lost |", []figure{
			b(recording, "fathom record", 3), b(recording, "perf record", 3), b(recording, "perf record -m 64M", 3),
		}},
		{"| reading that recording | %.2f M events/s | babeltrace2: %.2f M/s |", []figure{
			b("Reading these", "fathom view, its own", 3), b("Reading these", "babeltrace2, fathom's", 3),
		}},
		{"| first page of a dump (`/proc/vmcore`, 491 MB), CPU | %.2f s, %.0f MB, no debug information | drgn 0.0.22: %.1f s, %.0f MB; 0.2.0: %.1f s, %.0f MB, with it |", []figure{
			core("fathom", 4, 1e3), core("fathom", 5, 0), core("drgn 0.0.22", 4, 1e3), core("drgn 0.0.22", 5, 0), core(drgn, 4, 1e3), core(drgn, 5, 0),
		}},
		{"| AF_XDP on Go's netpoller, a round trip | %.2f of Go's UDP sockets | |", []figure{
			{"benchmarks-bypass", "What was wanted", "AF_XDP on the netpoller, p50 beside Go's UDP", 2, 0},
		}},
		{"| AF_XDP, packets a second | %.2f of the program in C | |", []figure{
			{"benchmarks-bypass", "What was wanted", "AF_XDP spinning, packets a second beside the program in C", 2, 0},
		}},
		{"| to install | one file, %.0f MB | bpftrace: %.1f MB or %.0f MB, and LLVM's libraries |", []figure{
			b("Size", "fathom", 1), b("Size", old, 1), b("Size", new, 1),
		}},
	} {
		var args []any
		for _, f := range r.figures {
			v, err := f.find(docs)
			if err != nil {
				t.Error(err)
			}
			args = append(args, v)
		}
		if want := fmt.Sprintf(r.row, args...); !strings.Contains(docs["README.md"], "\n"+want+"\n") {
			t.Errorf("the README has not, or not any more: %s", want)
		}
	}
	for claim, f := range map[string]figure{ // 0 each
		"all of them": b(burst, "fathom", 2), "none lost": b(recording, "fathom record", 2), "with -m 64M none lost": b(recording, "perf record -m 64M", 2),
	} {
		if v, err := f.find(docs); err != nil || v != 0 {
			t.Errorf("%s: %v were lost (%v)", claim, v, err)
		}
	}
	passes := regexp.MustCompile(`(\d+) of bpftrace's runtime tests[^|]*0\.27\.1 passes (\d+) of them on the same kernel; fathom passes (\d+)`).FindStringSubmatch(docs["docs/compat.md"])
	if passes == nil {
		t.Fatal("docs/compat.md does not say how many tests pass")
	}
	if want := fmt.Sprintf("\n| runtime tests of bpftrace passed, of %s | %s | bpftrace 0.27.1: %s |\n", passes[1], passes[3], passes[2]); !strings.Contains(docs["README.md"], want) {
		t.Errorf("the README has not: %s", want)
	}
}

// TestReadmeCounts: how many of each the README says there are.
func TestReadmeCounts(t *testing.T) {
	readme := documents(t)["README.md"]
	if n := len(exercise.All()); !strings.Contains(readme, fmt.Sprintf("%d problems to practise on", n)) {
		t.Errorf("there are %d exercises", n)
	}
	if n := len(examples.Tools()); n != 40 || !strings.Contains(readme, "forty\ntools come along") {
		t.Errorf("there are %d tools", n)
	}
	if n := len(fault.All()); n < 85 || n > 95 || !strings.Contains(readme, "some 90 ways to lose a packet") {
		t.Errorf("there are %d faults", n)
	}
}
