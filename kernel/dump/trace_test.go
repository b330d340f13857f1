package dump_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/kernel/ftrace"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/events"
)

// tracing is where tracefs is in guests.
const tracing = "/sys/kernel/tracing"

// traced are the events that the dying kernel records.
var traced = []string{"sched/sched_switch", "sched/sched_wakeup", "irq/softirq_entry", "timer/timer_start", "workqueue", "syscalls/sys_enter_openat", "kmem/kmalloc"}

// recordEvents has the kernel record: into an instance, which is stopped again and whose text is given, and into the global
// buffer, which goes on until the end.
func recordEvents(w map[string]string) error {
	if _, err := os.Stat(tracing + "/events"); err != nil {
		if err := unix.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil {
			return fmt.Errorf("mount tracefs: %w", err)
		}
	}
	// An instance is a folder for each event, which kernels before 6.6 make one by one: the global one does there.
	in := tracing + "/instances/corpse"
	if b, err := os.ReadFile("/proc/version"); err != nil || bytes.HasPrefix(b, []byte("Linux version 6.1.")) {
		in = tracing
	}
	if err := os.Mkdir(in, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	write := func(file, text string) error { return os.WriteFile(file, []byte(text), 0) }
	err := errors.Join(write(in+"/buffer_size_kb", "64"), write(in+"/trace_clock", "global")) // little room: some events are written over
	for _, e := range traced {
		err = errors.Join(err, write(in+"/events/"+e+"/enable", "1"))
	}
	for i := range 50 {
		err = errors.Join(err, write(in+"/trace_marker", fmt.Sprintf("fathom: mark %d\n", i)))
		time.Sleep(time.Millisecond)
		if f, err := os.Open("/proc/self/status"); err == nil {
			f.Close()
		}
	}
	err = errors.Join(err, write(in+"/tracing_on", "0"))
	if in != tracing {
		err = errors.Join(err, write(tracing+"/events/sched/sched_switch/enable", "1"))
	}
	if err != nil {
		return err
	}
	// What was read is no more in the ring: some of the first page of CPU 0 is taken out as a reader would.
	if pipe, err := os.OpenFile(in+"/per_cpu/cpu0/trace_pipe", os.O_RDONLY|unix.O_NONBLOCK, 0); err == nil {
		b := make([]byte, 300)
		pipe.Read(b)
		pipe.Close()
	}
	for _, name := range []string{"trace", "per_cpu/cpu0/stats", "per_cpu/cpu1/stats"} {
		b, err := os.ReadFile(in + "/" + name)
		if err != nil {
			return err
		}
		w["trace of corpse "+name] = string(b)
	}
	var formats []string
	for _, system := range []string{"sched", "irq", "timer", "workqueue", "kmem", "net", "block", "writeback", "cros_ec", "syscalls/sys_*_open*", "ftrace"} {
		if !strings.Contains(system, "/") {
			system += "/*"
		}
		some, err := filepath.Glob(tracing + "/events/" + system + "/format")
		if err != nil {
			return err
		}
		formats = append(formats, some...)
	}
	for _, f := range formats {
		b, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		w[f] = string(b)
	}
	return nil
}

// checkTrace compares the formats of all events, and the events of an instance that stood still, with the kernel's own text, and wants
// the global buffer to tell what ran last.
func checkTrace(t *testing.T, c corpse, d *dump.Dump) {
	errs := &kernel.Errors{}
	n := 0
	for system, text := range ftrace.FormatTexts(d, errs) {
		name, _, _ := strings.Cut(strings.TrimPrefix(text, "name: "), "\n")
		want, ok := c.said[fmt.Sprintf("%s/events/%s/%s/format", tracing, system, name)]
		if !ok {
			continue // those of function tracers have no folder
		}
		if n++; want != text {
			t.Errorf("format of %s:%s:\n%s", system, name, cmp.Diff(want, text))
			break
		}
	}
	if err := errs.Take(); err != nil || n < 100 {
		t.Errorf("%d formats, %v", n, err)
	}
	formats, err := ftrace.Formats(d)
	if err != nil {
		t.Error(err)
	}
	instances, err := ftrace.Instances(d)
	if err != nil || len(instances) == 0 || instances[0].Name != "" {
		t.Fatalf("%v %+v", err, instances)
	}
	still := instances[len(instances)-1]
	if still.On || still.Clock != "global" || len(instances) == 2 && (still.Name != "corpse" || !instances[0].On) {
		t.Errorf("%+v", still)
	}
	for _, r := range still.Rings {
		stats := c.said[fmt.Sprintf("trace of corpse per_cpu/cpu%d/stats", r.CPU)]
		if !strings.Contains(stats, fmt.Sprintf("entries: %d\n", r.Entries)) || !strings.Contains(stats, fmt.Sprintf("\noverrun: %d\n", r.Overrun)) {
			t.Errorf("CPU %d has %d events, %d written over; it was\n%s", r.CPU, r.Entries, r.Overrun, stats)
		}
	}
	want, got := kernelLines(c.said["trace of corpse trace"]), kernelLines(traceText(t, d, still, formats))
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 500 {
		t.Errorf("%d events, %d here\n%.3000s", len(want), len(got), diff)
	}
	marks := strings.Count(strings.Join(got, "\n"), "fathom: mark ")
	if marks == 0 {
		t.Error("no marks")
	}
	if len(instances) == 1 {
		return
	}
	last := kernelLines(traceText(t, d, instances[0], formats))
	if len(last) < 100 || !strings.Contains(strings.Join(last, "\n"), "sched_switch: prev_comm=") {
		t.Errorf("%d events in the global buffer", len(last))
	}
}

func traceText(t *testing.T, d *dump.Dump, i ftrace.Instance, formats []*traceevent.Format) string {
	errs := &kernel.Errors{}
	var streams []traceevent.Stream
	for _, r := range i.Rings {
		streams = append(streams, r.Stream(formats, errs))
	}
	var out bytes.Buffer
	tasks := map[int]string{}
	for task := range walk.Tasks(d) {
		tasks[task.PID] = task.Comm
	}
	w := events.NewText(&out, &events.Source{Env: ftrace.Env(d), Comm: ftrace.Comm(d, tasks)}, false)
	merged := traceevent.Merge(streams)
	for e := range traceevent.All(merged) {
		if err := w.Event(e); err != nil {
			t.Error(err)
		}
	}
	w.Close()
	if err := errors.Join(merged.Err(), errs.Take()); err != nil {
		t.Error(err)
	}
	return out.String()
}

// hashed are pointers that the kernel prints a hash of; system calls are printed by code of their own.
var (
	hashed = regexp.MustCompile(`\b[0-9a-f]{16}\b`)
	blanks = regexp.MustCompile(` +`)
)

// kernelLines are the lines of events without what cannot be known: how a pointer was hashed, and what a task that has changed its
// name was called.
func kernelLines(text string) (out []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" || strings.HasPrefix(line, "CPU:") {
			continue
		}
		if i := strings.Index(line, " sys_openat"); i > 0 {
			line = line[:i]
		}
		if i := strings.Index(line, " sys_enter_openat"); i > 0 {
			line = line[:i]
		}
		line = strings.Replace(line, ": print: tracing_mark", ": tracing_mark", 1) // its printer names itself
		out = append(out, blanks.ReplaceAllString(hashed.ReplaceAllString(line, "HASH"), " "))
	}
	return out
}
