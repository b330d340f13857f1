package record

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fathom-trace/fathom/internal/ktest"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

var kernelLine = regexp.MustCompile(`^ *.+-(\d+) +\[(\d+)\] (\S+) +(\d+\.\d+): (\w+): ?(.*)$`)

// TestAsKernel enables every event that there is for a moment and compares what we print with the kernel's own trace file.
func TestAsKernel(t *testing.T) {
	ktest.Need(t, ktest.Tracefs, ktest.Tracepoint)
	if ktest.InGuest() && os.Getenv(ktest.EnvSoak) == "" {
		t.Skip("every event of a kernel takes a while under TCG")
	}
	fs, err := tracefs.Find()
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	inst, err := fs.NewInstance(leases(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := inst.Close(); err != nil {
			t.Error(err)
		}
	}()
	for file, text := range map[string]string{"trace_clock": "mono", "buffer_size_kb": "2048"} {
		if err := inst.Write(file, text); err != nil {
			t.Fatal(err)
		}
	}
	formats := everyFormat(t, fs)
	// Since 5.12 the option has %p be the address; in 6.1 it also has the kernel print all texts as empty.
	plain := inst.Write("options/hash-ptr", "0") == nil
	text := everything(t, inst)
	if emptied := bytes.Contains(text, []byte("prev_comm= ")); emptied || !plain {
		plain = false
		for _, set := range [][2]string{{"options/hash-ptr", "1"}, {"trace_clock", "local"}, {"trace_clock", "mono"}} { // another clock empties the rings
			if err := inst.Write(set[0], set[1]); err != nil {
				t.Fatal(err)
			}
		}
		text = everything(t, inst)
	}
	want := map[string][]string{}
	for l := range strings.Lines(string(text)) {
		if m := kernelLine.FindStringSubmatch(strings.TrimSuffix(l, "\n")); m != nil {
			key := strings.Join([]string{m[1], m[2], m[4], m[5]}, " ")
			want[key] = append(want[key], pointers(strings.TrimRight(m[6], " "), plain))
		}
	}
	compareKernel(t, fs, inst, formats, want, plain)
}

var address = regexp.MustCompile(`\b[0-9a-f]{16}\b`)

// pointers takes out addresses where the kernel prints a hash of them.
func pointers(s string, plain bool) string {
	if plain {
		return s
	}
	return address.ReplaceAllString(s, "ADDRESS")
}

// everything has all events recorded for a moment, and gives the kernel's text of them.
func everything(t *testing.T, inst *tracefs.Instance) []byte {
	t.Helper()
	if err := inst.Write("events/enable", "1"); err != nil {
		t.Fatal(err)
	}
	if err := inst.Write("tracing_on", "1"); err != nil {
		t.Fatal(err)
	}
	calls(t, 50)
	time.Sleep(20 * time.Millisecond)
	if err := inst.Write("tracing_on", "0"); err != nil {
		t.Fatal(err)
	}
	if err := inst.Write("events/enable", "0"); err != nil {
		t.Fatal(err)
	}
	text, err := inst.Read("trace")
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// everyFormat parses the formats of all events: none is not understood.
func everyFormat(t *testing.T, fs tracefs.FS) (out []*traceevent.Format) {
	t.Helper()
	all, err := fs.Events()
	if err != nil {
		t.Fatal(err)
	}
	k, err := live.Open(live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	listed := 0
	for _, e := range all {
		b, err := fs.Format(e.System, e.Name)
		if err != nil {
			continue
		}
		f, err := traceevent.Parse([]byte(resolve(string(b), k.Constant)))
		if err != nil {
			t.Errorf("%v: %v", e, err)
			continue
		}
		f.System = e.System
		if traceevent.NewPrinter(f).Incomplete() != nil {
			listed++
		}
		out = append(out, f)
	}
	if listed*100 > 2*len(out) {
		t.Errorf("of %d print fmts %d are not understood", len(out), listed)
	}
	t.Logf("%d formats, the fields of %d are listed", len(out), listed)
	return out
}

func compareKernel(t *testing.T, fs tracefs.FS, inst *tracefs.Instance, formats []*traceevent.Format, want map[string][]string, plain bool) {
	t.Helper()
	syms, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	tr := &Trace{}
	tr.symbolTables(syms, []byte(fs.Global("printk_formats")))
	header, err := fs.PageHeader()
	if err != nil {
		t.Fatal(err)
	}
	h, err := traceevent.ParsePageHeader(header)
	if err != nil {
		t.Fatal(err)
	}
	cpus, err := inst.CPUs()
	if err != nil {
		t.Fatal(err)
	}
	printers := map[*traceevent.Format]*traceevent.Printer{}
	wrong := map[string]string{}
	n, bad := 0, 0
	for _, cpu := range cpus {
		for e := range traceevent.All(traceevent.NewPages(bytes.NewReader(drained(t, inst, cpu, h)), cpu, h, formats)) {
			// System calls are printed by code of their own (trace_syscalls.c), not by their print fmt.
			if e.Format == nil || e.Format.System == "syscalls" {
				continue
			}
			if printers[e.Format] == nil {
				printers[e.Format] = traceevent.NewPrinter(e.Format)
			}
			got := pointers(strings.TrimRight(string(printers[e.Format].Append(nil, e.Rec, &tr.Env)), " \n"), plain)
			us := (e.Time + 500) / 1000
			key := fmt.Sprintf("%d %03d %d.%06d %s", e.Format.PIDField().Int(e.Rec), cpu, us/1e6, us%1e6, e.Format.Name)
			n++
			if i := slices.Index(want[key], got); i >= 0 {
				want[key] = slices.Delete(want[key], i, i+1)
			} else {
				bad++
				wrong[e.Format.System+":"+e.Format.Name] = fmt.Sprintf("%s, and the kernel %q", got, want[key])
			}
		}
	}
	t.Logf("%d events of %d kinds, %d of %d kinds not as the kernel prints them", n, len(printers), bad, len(wrong))
	for name, got := range wrong {
		t.Logf("%s: %s", name, got)
	}
	for f := range printers { // where the map of pages begins only /proc/kcore tells
		if _, err := os.Stat("/proc/kcore"); err != nil && strings.Contains(f.Print, "vmemmap_base") {
			delete(wrong, f.System+":"+f.Name)
		}
	}
	if n < 100 || len(wrong)*100 > len(printers) {
		t.Errorf("%d of %d kinds of events are not as the kernel prints them", len(wrong), len(printers))
	}
}

// drained reads all pages of a CPU.
func drained(t *testing.T, inst *tracefs.Instance, cpu int, h traceevent.PageHeader) []byte {
	t.Helper()
	p, err := inst.Raw(cpu)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var out bytes.Buffer
	page := make([]byte, h.Size)
	for {
		clear(page)
		k, err := p.Read(page)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if k == 0 {
			return out.Bytes()
		}
		out.Write(page)
	}
}
