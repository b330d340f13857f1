package callgraph

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/graph"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// ftrace is the kernel's function_graph tracer, in an instance of our own.
type ftrace struct {
	run     *run
	pids    []int // threads to trace; nil for all
	fs      tracefs.FS
	inst    *tracefs.Instance
	header  traceevent.PageHeader
	formats *graph.Formats
	rings   []*ring
	pending []graph.Event // not yet given: an event of another CPU may come before
	page    []byte
	begins  map[uint64]uint64 // where a function begins, by where its hook is
	dropped uint64
	filter  string
}

// ring is one CPU's buffer.
type ring struct {
	cpu  int
	pipe *tracefs.Pipe
}

// global are files of the machine's tracing that reach into every instance: with another value function_graph would show
// something else than was asked, and they belong to somebody else.
var global = []struct{ file, free string }{
	{"set_graph_function", "#### all functions enabled ####"},
	{"set_graph_notrace", "#### no functions disabled ####"},
	{"max_graph_depth", "0"},
}

func unsupportedGraph(tried string, err error) error {
	return feature.Unsupported("function_graph in an instance", tried, err)
}

func (f *ftrace) start() (err error) {
	if f.fs, err = tracefs.Find(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.pids != nil && !initialPIDs() {
		return unsupportedGraph("stat /proc/self/ns/pid: process numbers here are those of a PID namespace, and ftrace takes the machine's", nil)
	}
	if err := f.free(); err != nil {
		return err
	}
	if err := f.hookable(); err != nil {
		return err
	}
	if err := f.layouts(); err != nil {
		return err
	}
	if f.inst, err = f.fs.NewInstance(f.run.o.Leases); err != nil {
		return denied(err)
	}
	if err := f.set(); err != nil {
		return err
	}
	if err := f.open(); err != nil {
		return err
	}
	return f.inst.Write("tracing_on", "1")
}

// initialPIDs says if processes have the kernel's own numbers here (PROC_PID_INIT_INO of include/linux/proc_ns.h).
func initialPIDs() bool {
	const initial = 0xEFFFFFFC
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/pid", &st) != nil || st.Ino == initial
}

// denied makes a missing feature of a refusal, so that another engine is tried.
func denied(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return unsupportedGraph("make an instance", err)
	}
	return err
}

// free sees that nobody has set what would change the trace.
func (f *ftrace) free() error {
	for _, g := range global {
		if is := f.fs.Global(g.file); is != "" && is != g.free {
			return unsupportedGraph(fmt.Sprintf("%s=%s: somebody else has set it, for the whole machine", g.file, oneLine(is)), nil)
		}
	}
	return nil
}

func oneLine(s string) string {
	line, rest, _ := strings.Cut(s, "\n")
	if rest != "" {
		line += " …"
	}
	return line
}

// hookable sees that ftrace knows the function.
func (f *ftrace) hookable() error {
	why := f.run.world.WhyNot(f.run.target.module, f.run.target.name)
	if why != nil {
		return unsupportedGraph(why.Error(), nil)
	}
	return nil
}

// layouts reads how records look.
func (f *ftrace) layouts() error {
	text, err := f.fs.PageHeader()
	if err != nil {
		return unsupportedGraph("read events/header_page", err)
	}
	if f.header, err = traceevent.ParsePageHeader(text); err != nil {
		return err
	}
	files := map[string][]byte{}
	for _, e := range []tracefs.Event{{System: "ftrace", Name: "funcgraph_entry"}, {System: "ftrace", Name: "funcgraph_exit"}, {System: "sched", Name: "sched_switch"}, {System: "task", Name: "task_rename"}} {
		b, err := f.fs.Format(e.System, e.Name)
		if err != nil && e.System == "ftrace" {
			return unsupportedGraph("read the format of "+e.Name, err)
		}
		if err == nil {
			files[e.Name] = b
		}
	}
	if f.formats, err = graph.ParseFormats(files); err != nil {
		return err
	}
	f.begins = map[uint64]uint64{}
	f.page = make([]byte, max(f.header.Size, os.Getpagesize()))
	return nil
}

// budget is what the buffers of all CPUs take together, in KiB, and most and least is what one may have.
const (
	budget     = 64 << 10
	mostBytes  = 16 << 10
	leastBytes = 1 << 10
)

// set writes the instance's settings, the tracer last. None of them reaches beyond the instance.
func (f *ftrace) set() error {
	if b, err := f.inst.Read("available_tracers"); err == nil && !slices.Contains(strings.Fields(string(b)), FunctionGraph) {
		return unsupportedGraph("available_tracers="+strings.TrimSpace(string(b)), nil)
	}
	size := min(mostBytes, max(leastBytes, budget/runtime.NumCPU()))
	type setting struct{ file, text string }
	set := []setting{{"trace_clock", "mono"}, {"buffer_size_kb", strconv.Itoa(size)}}
	if f.pids != nil {
		all := numbers(f.pids)
		set = append(set, setting{"set_ftrace_pid", all}, setting{"set_event_pid", all}, setting{"options/event-fork", "1"})
	} else if initialPIDs() { // not this process, which would have more to read for everything it reads
		set = append(set, setting{"set_ftrace_notrace_pid", numbers(threads(os.Getpid()))})
	}
	set = append(set, setting{"options/function-fork", "1"})
	for _, s := range set {
		if err := f.inst.Write(s.file, s.text); err != nil {
			return unsupportedGraph(s.file+"="+s.text, unwrapErrno(err))
		}
	}
	if err := f.follow(); err != nil {
		return err
	}
	if err := f.only(); err != nil {
		return err
	}
	if err := f.inst.Write("current_tracer", FunctionGraph); err != nil {
		tried := "current_tracer=function_graph in a private instance"
		if errors.Is(err, unix.EINVAL) {
			tried += " (this kernel has it in the machine's own instance only)"
		}
		return unsupportedGraph(tried, unwrapErrno(err))
	}
	for _, e := range []string{"sched/sched_switch", "task/task_rename"} {
		if err := f.inst.Write("events/"+e+"/enable", "1"); err != nil {
			return err
		}
	}
	return nil
}

// follow adds the threads that came after they were listed and before the kernel was told to follow new ones.
func (f *ftrace) follow() error {
	for f.pids != nil {
		var more []int
		for _, p := range f.run.pids() {
			if !slices.Contains(f.pids, p) {
				more = append(more, p)
			}
		}
		if len(more) == 0 {
			return nil
		}
		for _, file := range []string{"set_ftrace_pid", "set_event_pid"} {
			if err := f.inst.Write(file, numbers(more)); err != nil { // adds to what is there
				return err
			}
		}
		f.pids = append(slices.Clip(f.pids), more...)
	}
	return nil
}

func numbers(list []int) string {
	var s []string
	for _, n := range list {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, " ")
}

// unwrapErrno gives the bare errno, for messages that tell the file already.
func unwrapErrno(err error) error {
	var n unix.Errno
	if errors.As(err, &n) {
		return n
	}
	return err
}

// mostFiltered is how many names are written into the filter: the kernel compares each with all functions it has.
const mostFiltered = 1000

// only limits the functions to those asked for. If all tasks are traced, recording every function of theirs would fill the
// buffers with what is not below the function, so only those are watched then that its code reaches.
func (f *ftrace) only() error {
	o := &f.run.o
	names := o.Only
	f.filter = some(names)
	switch {
	case len(names) == 0 && f.pids != nil:
		f.filter = "every function that ftrace can hook"
		return nil
	case len(names) == 0:
		names, f.filter = f.run.below(mostFiltered, farMulti)
	default:
		names = slices.Concat(names, o.Also)
	}
	if g := f.run.unmatched(slices.Concat(o.Only, o.Also)); g != "" {
		return fmt.Errorf("watch %s: no function that can be traced matches", g)
	}
	text := f.run.target.name + "\n" + strings.Join(names, "\n") + "\n"
	return f.inst.Write("set_ftrace_filter", text)
}

// some lists the first few of names and counts the rest.
func some(names []string) string {
	const few = 5
	s := strings.Join(names[:min(few, len(names))], ", ")
	if n := len(names) - few; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

func (f *ftrace) open() error {
	cpus, err := f.inst.CPUs()
	if err != nil {
		return err
	}
	for _, cpu := range cpus {
		p, err := f.inst.Raw(cpu)
		if err != nil {
			return err
		}
		f.rings = append(f.rings, &ring{cpu, p})
	}
	return nil
}

func (f *ftrace) note() string {
	who := "all tasks"
	if f.pids != nil {
		who = fmt.Sprintf("process %d and its children", f.pids[0])
	}
	return fmt.Sprintf("private instance %s, %s, %s", f.inst.Name, f.filter, who)
}

func (f *ftrace) toReal(c live.Clocks) int64 { return c.MonoToReal }

// now reads the clock that the instance uses.
func now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// read takes what is in the buffers. Each CPU's events are in order; to put them in one order, those are held back that are
// younger than the moment at which the first buffer was looked at: another may yet have something older.
func (f *ftrace) read(wait time.Duration, give func(graph.Event)) error {
	until := now()
	last := wait == 0
	got := false
	for _, r := range f.rings {
		n, upTo, err := f.take(r)
		if err != nil {
			return err
		}
		got = got || n > 0
		if upTo != 0 {
			until = min(until, upTo)
		}
	}
	sorting.Stable(f.pending, func(a, b graph.Event) int { return cmp.Compare(a.Time, b.Time) })
	n := len(f.pending)
	if !last {
		n, _ = slices.BinarySearchFunc(f.pending, until, func(e graph.Event, t uint64) int { return cmp.Compare(e.Time, t) })
	}
	for _, e := range f.pending[:n] {
		give(e)
	}
	f.pending = slices.Delete(f.pending, 0, n)
	switch {
	case last && got:
		return f.read(0, give)
	case !got:
		time.Sleep(wait)
	}
	return nil
}

// most is how many pages are taken from one buffer before the others have their turn.
const most = 2048

// take reads the pages of one CPU. If there were more than most, upTo is the time up to which they were read.
func (f *ftrace) take(r *ring) (n int, upTo uint64, err error) {
	for ; n < most; n++ {
		k, err := r.pipe.Read(f.page)
		switch {
		case err != nil:
			return n, 0, fmt.Errorf("read trace of CPU %d: %w", r.cpu, err)
		case k == 0:
			return n, 0, nil
		}
		p, err := traceevent.ParsePage(f.page[:k], f.header)
		if err != nil {
			return n, 0, fmt.Errorf("read trace of CPU %d: %w", r.cpu, err)
		}
		if p.Missed {
			f.pending = append(f.pending, graph.Event{Kind: graph.Lost, CPU: r.cpu, Time: p.Time})
		}
		err = p.Records(func(t uint64, rec []byte) bool {
			from := len(f.pending)
			f.pending = f.formats.Decode(f.pending, r.cpu, t, rec)
			for i := range f.pending[from:] {
				e := &f.pending[from+i]
				e.Func = f.begin(e.Func)
			}
			upTo = t
			return true
		})
		if err != nil {
			return n, 0, fmt.Errorf("read trace of CPU %d: %w", r.cpu, err)
		}
	}
	return n, upTo, nil
}

// begin gives the address of a function of which ftrace tells the place of its hook, which stands behind what a function may
// begin with: endbr64 on x86-64, bti c on arm64.
func (f *ftrace) begin(hook uint64) uint64 {
	if hook == 0 {
		return 0
	}
	a, ok := f.begins[hook]
	if !ok {
		a = hook
		if s, ok := f.run.syms.At(hook); ok {
			a = s.Addr
		}
		f.begins[hook] = a
	}
	return a
}

func (f *ftrace) stop() error {
	err := f.inst.Write("tracing_on", "0")
	for _, r := range f.rings {
		f.dropped += f.missing(r.cpu)
	}
	return err
}

// missing counts what a CPU's buffer could not keep, as the kernel counted.
func (f *ftrace) missing(cpu int) (n uint64) {
	b, err := f.inst.Read(fmt.Sprintf("per_cpu/cpu%d/stats", cpu))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		key, val, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
		switch key {
		case "overrun", "commit overrun", "dropped events":
			k, _ := strconv.ParseUint(val, 10, 64)
			n += k
		}
	}
	return n
}

func (f *ftrace) lost() uint64 { return f.dropped }

func (f *ftrace) close() error {
	var errs []error
	for _, r := range f.rings {
		errs = append(errs, r.pipe.Close())
	}
	f.rings = nil
	if f.inst != nil {
		errs = append(errs, f.inst.Close())
		f.inst = nil
	}
	errs = append(errs, f.fs.Close())
	f.fs = tracefs.FS{}
	return errors.Join(errs...)
}
