package record

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/record/ringpage"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// Options say what to record.
type Options struct {
	Dir      string // made if it is not there; must hold no recording
	Events   []Spec
	BufferKB int   // of each CPU's ring buffer; 0 is [DefaultBufferKB]
	PIDs     []int // only these tasks and, from now on, their children; nil is all but this process
	Command  []string
	Leases   lease.Dir
	// Flight leaves events in the ring buffers, the latest over the oldest, until [Recorder.Snapshot] takes them out. Dir means
	// nothing then.
	Flight bool
	Stacks Stacks
	// Symbol names kernel addresses, for what events tell of functions; nil if there is nobody to ask.
	Symbol func(addr uint64) (name string, off, size uint64, module string, ok bool)
	// Constant gives the value of an enumerator of the kernel, of sizeof(struct NAME), or of a variable where addresses begin, for print fmts
	// that name it; nil if there is nobody to ask.
	Constant func(name string) (int64, bool)
}

// Budget of ring buffers: all CPUs together, and the most that one has, in KiB.
const (
	budgetKB = 256 << 10
	mostKB   = 16 << 10
	leastKB  = 1 << 10
)

// DefaultBufferKB is the size of a CPU's ring buffer if none is asked for: 16 MiB, and on machines with many CPUs less, so
// that all take at most 256 MiB while each has 1 MiB.
func DefaultBufferKB() int { return max(leastKB, min(mostKB, budgetKB/runtime.NumCPU())) }

// Recorder records. One goroutine may use it; [Segment.Finish] may run beside it.
type Recorder struct {
	o       Options
	meta    Meta // of the segment that begins next
	fs      tracefs.FS
	inst    *tracefs.Instance
	dynamic *tracefs.Dynamic // events of probes; nil without
	probes  map[tracefs.Event]madeProbe
	rings   []*ring
	seg     *Segment // that is being written; nil between the snapshots of a flight recorder
	tasks   taskTable
	before  map[int]CPUAccount // what the finished segments hold
	hidden  map[int]bool       // own threads that are not recorded; nil if there is no need
	users   *users             // names of programs' functions; nil if their stacks are not recorded
	stopped atomic.Bool
	wait    sync.WaitGroup
	failed  chan struct{}
	fail    sync.Once
	err     error // of a mover, the first
}

// ring is one CPU's buffer on its way to a file.
type ring struct {
	cpu   int
	pipe  *tracefs.Pipe
	mover *ringpage.Mover
	turn  chan turn
}

// turn asks a mover to go on in another file.
type turn struct {
	file *os.File
	done chan<- struct{}
}

// helpers are the events that tell which names tasks have, and which process they belong to.
var helpers = []tracefs.Event{{System: "task", Name: "task_newtask"}, {System: "task", Name: "task_rename"}}

// Start begins to record. What is missing on this kernel is a [feature.ErrUnsupported]. When it fails everything is as before.
func Start(o Options) (_ *Recorder, err error) {
	r := &Recorder{o: o, failed: make(chan struct{}), before: map[int]CPUAccount{}}
	if r.fs, err = tracefs.Find(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.release())
		}
	}()
	if r.inst, err = r.fs.NewInstance(o.Leases); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if err = r.describe(); err != nil {
		return nil, err
	}
	if err = r.set(); err != nil {
		return nil, err
	}
	if err = r.open(); err != nil {
		return nil, err
	}
	if o.Stacks.User {
		if r.users, err = watchUsers(); err != nil {
			return nil, fmt.Errorf("record: %w", err)
		}
	}
	r.tasks.snapshot(now())
	if !o.Flight {
		if r.seg, err = r.newSegment(o.Dir); err != nil {
			return nil, err
		}
		r.write(r.seg)
	}
	if err = r.inst.Write("tracing_on", "1"); err != nil {
		return nil, err
	}
	if !o.Flight {
		for _, g := range r.rings {
			r.wait.Go(func() { r.move(g) })
		}
	}
	if r.hidden != nil {
		r.wait.Go(r.hide)
	}
	return r, nil
}

// write has the movers write to a segment's files. Nothing is moved yet, or no more.
func (r *Recorder) write(s *Segment) {
	for i, g := range r.rings {
		g.mover.To(int(s.files[i].Fd()))
	}
}

// describe reads what the recording says of itself.
func (r *Recorder) describe() error {
	specs, err := r.expand(r.o.Events)
	if err != nil {
		return err
	}
	events, err := selectEvents(r.fs, specs)
	if err != nil {
		return err
	}
	stacks, err := r.stacks()
	if err != nil {
		return err
	}
	events = append(r.named(events), stacks...)
	for i := range events {
		events[i].Format = resolve(events[i].Format, r.o.Constant)
	}
	header, err := r.fs.PageHeader()
	if err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	r.meta = Meta{Version: 1, Started: time.Now(), Host: text(u.Nodename[:]), Release: text(u.Release[:]), Machine: text(u.Machine[:]), Clock: "mono",
		ToReal: time.Now().UnixNano() - int64(now()), Header: string(header), Events: events, Command: r.o.Command, Boot: bootID()}
	for _, h := range helpers {
		if slices.ContainsFunc(events, func(e Event) bool { return e.System == h.System && e.Name == h.Name && e.Filter == "" }) {
			continue
		}
		if e, err := describe(r.fs, h); err == nil { // a kernel without it has names as they are in /proc
			r.meta.Helpers = append(r.meta.Helpers, e)
		}
	}
	return nil
}

func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// now reads the clock of the instance.
func now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return uint64(ts.Nano())
}

// set writes the instance's settings and switches the events on; the instance itself is still off.
func (r *Recorder) set() error {
	if r.meta.BufferKB = r.o.BufferKB; r.meta.BufferKB == 0 {
		r.meta.BufferKB = DefaultBufferKB()
	}
	if err := r.inst.Write("trace_clock", r.meta.Clock); err != nil {
		return err
	}
	if err := r.inst.Write("buffer_size_kb", strconv.Itoa(r.meta.BufferKB)); err != nil {
		return fmt.Errorf("make ring buffers of %d KiB for each CPU: %w", r.meta.BufferKB, err)
	}
	_ = r.inst.Write("buffer_percent", "25") // since 5.0; without it readers are woken by every page
	if err := r.only(); err != nil {
		return err
	}
	for _, e := range slices.Concat(r.meta.Events, r.meta.Helpers) {
		if err := enable(r.inst, e); err != nil {
			return err
		}
	}
	return nil
}

// only sets which tasks are recorded: those asked for, or all but this process.
func (r *Recorder) only() error {
	if !initialPIDs() {
		if r.o.PIDs != nil {
			return feature.Unsupported("recording one task", "stat /proc/self/ns/pid: process numbers here are those of a PID namespace, and the kernel's tracing takes the machine's", nil)
		}
		return nil
	}
	if r.o.PIDs == nil {
		r.hidden = map[int]bool{}
		return r.hideThreads()
	}
	var pids []int
	for _, p := range r.o.PIDs {
		pids = append(pids, threads(p)...)
	}
	if err := r.inst.Write("options/event-fork", "1"); err != nil {
		return err
	}
	return r.inst.Write("set_event_pid", numbers(pids))
}

func numbers(list []int) string {
	var s []string
	for _, n := range list {
		s = append(s, strconv.Itoa(n))
	}
	return strings.Join(s, " ")
}

// hideThreads leaves the threads of this process out that are not yet. Its children are recorded: event-fork would leave them
// out, too. Kernels before 5.7 leave nobody out.
func (r *Recorder) hideThreads() error {
	var more []int
	for _, t := range threads(os.Getpid()) {
		if !r.hidden[t] {
			r.hidden[t] = true
			more = append(more, t)
		}
	}
	if len(more) == 0 {
		return nil
	}
	if err := r.inst.Write("set_event_notrace_pid", numbers(more)); !errors.Is(err, os.ErrNotExist) { // adds to what is there
		return err
	}
	return nil
}

// hide goes on hiding while it records: the runtime makes threads as it needs them.
func (r *Recorder) hide() {
	for !r.stopped.Load() {
		time.Sleep(poll)
		if err := r.hideThreads(); err != nil {
			r.abort(fmt.Errorf("leave this process out: %w", err))
		}
	}
}

// initialPIDs says if processes have the kernel's own numbers here (PROC_PID_INIT_INO of include/linux/proc_ns.h).
func initialPIDs() bool {
	const initial = 0xEFFFFFFC
	var st unix.Stat_t
	return unix.Stat("/proc/self/ns/pid", &st) != nil || st.Ino == initial
}

// FilterError is a filter that the kernel refused.
type FilterError struct {
	Event, Filter string
	Log           string // what the kernel says: the filter with a caret below
	Err           error
}

func (e *FilterError) Error() string {
	return fmt.Sprintf("filter %s by %q: %v", e.Event, e.Filter, e.Err)
}
func (e *FilterError) Unwrap() error { return e.Err }

// enable switches an event of the instance on, filtered.
func enable(inst *tracefs.Instance, e Event) error {
	if e.option != "" {
		return inst.Write("options/"+e.option, "1")
	}
	dir := "events/" + cmp.Or(e.group, e.System) + "/" + e.Name + "/"
	if e.Filter != "" {
		if err := inst.Write(dir+"filter", e.Filter); err != nil {
			log, _ := inst.Read(dir + "filter")
			return &FilterError{e.System + ":" + e.Name, e.Filter, strings.TrimSpace(string(log)), errno(err)}
		}
	}
	if err := inst.Write(dir+"enable", "1"); err != nil {
		return fmt.Errorf("enable %s:%s: %w", e.System, e.Name, errno(err))
	}
	return nil
}

// errno gives the bare number, where the message tells the file in other words.
func errno(err error) error {
	var n unix.Errno
	if errors.As(err, &n) {
		return n
	}
	return err
}

func rawName(cpu int) string { return fmt.Sprintf("cpu%d.raw", cpu) }

// open opens the rings.
func (r *Recorder) open() error {
	h, err := traceevent.ParsePageHeader([]byte(r.meta.Header))
	if err != nil {
		return err
	}
	if r.meta.CPUs, err = r.inst.CPUs(); err != nil {
		return err
	}
	for _, cpu := range r.meta.CPUs {
		g := &ring{cpu: cpu, turn: make(chan turn, 1)}
		r.rings = append(r.rings, g)
		if g.pipe, err = r.inst.Raw(cpu); err != nil {
			return err
		}
		if g.mover, err = ringpage.New(g.pipe.FD(), h.Size); err != nil {
			return err
		}
	}
	return nil
}

// poll is the longest time that filled pages stay in the ring, and flush the longest that any do: together what kill -9 costs.
const (
	poll  = 50 * time.Millisecond
	flush = 500 * time.Millisecond
)

// move carries one CPU's pages until the recorder stops.
func (r *Recorder) move(g *ring) {
	flushed := time.Now()
	for !r.stopped.Load() {
		err := g.mover.Wait(poll)
		if err == nil {
			err = g.mover.Move()
		}
		if t := time.Now(); err == nil && t.Sub(flushed) > flush {
			flushed = t
			err = g.mover.Flush()
		}
		select {
		case t := <-g.turn:
			if err == nil {
				err = g.mover.Flush()
			}
			g.mover.To(int(t.file.Fd()))
			t.done <- struct{}{}
		default:
		}
		if err != nil {
			r.abort(fmt.Errorf("record CPU %d: %w", g.cpu, err))
			break
		}
	}
	for !r.stopped.Load() { // it moves no more, and answers
		select {
		case t := <-g.turn:
			g.mover.To(int(t.file.Fd()))
			t.done <- struct{}{}
		case <-time.After(poll):
		}
	}
}

// abort ends the recording by itself: what was written stays.
func (r *Recorder) abort(err error) {
	r.fail.Do(func() {
		r.err = err
		_ = r.inst.Write("tracing_on", "0") // it is over either way
		close(r.failed)
	})
}

// Failed is closed when the recording ended by itself; Stop tells why.
func (r *Recorder) Failed() <-chan struct{} { return r.failed }

// Meta is what the recording says of itself.
func (r *Recorder) Meta() *Meta { return &r.meta }

// Bytes is how much was written into the segment that is being recorded.
func (r *Recorder) Bytes() int64 {
	if r.seg == nil {
		return 0
	}
	return r.seg.bytes()
}

// Stop ends the recording, writes what is left, and makes the trace. The account is that of the last segment, which most often
// is the only one. If the recording ended by itself the error says why, beside an account of what there is.
func (r *Recorder) Stop() (*Account, error) {
	s, err := r.End()
	if s == nil {
		return &Account{}, err
	}
	acc, ferr := s.Finish()
	return acc, errors.Join(err, ferr)
}

// End ends the recording and gives its last segment, to be finished; nil where a flight recorder took no snapshot last. Everything but what was
// recorded is removed, also if there is an error.
func (r *Recorder) End() (*Segment, error) {
	stop := r.inst.Write("tracing_on", "0")
	r.stopped.Store(true)
	r.wait.Wait()
	err := r.users.end()
	s := r.seg
	r.seg = nil
	if s != nil {
		for _, g := range r.rings {
			if r.err == nil {
				if err := g.mover.Rest(); err != nil {
					r.err = fmt.Errorf("record CPU %d: %w", g.cpu, err)
				}
			}
			s.counted = append(s.counted, r.count(g.cpu))
		}
		s.err = r.err
	}
	return s, errors.Join(stop, err, r.release())
}

// count reads what the kernel counted on a CPU.
func (r *Recorder) count(cpu int) CPUAccount {
	a := CPUAccount{CPU: cpu}
	b, err := r.inst.Read(fmt.Sprintf("per_cpu/cpu%d/stats", cpu))
	if err != nil {
		return a
	}
	for line := range bytes.Lines(b) {
		key, val, _ := strings.Cut(strings.TrimSpace(string(line)), ": ")
		n, err := strconv.ParseUint(val, 10, 64)
		if err != nil {
			continue
		}
		switch key {
		case "overrun", "commit overrun", "dropped events":
			a.Missed += n
			a.Written += n
		case "entries", "read events":
			a.Written += n
		}
	}
	return a
}

// release closes and removes everything but the recording. It may be called twice.
func (r *Recorder) release() error {
	var errs []error
	for _, g := range r.rings {
		if g.mover != nil {
			errs = append(errs, g.mover.Close())
		}
		if g.pipe != nil {
			errs = append(errs, g.pipe.Close())
		}
	}
	r.rings = nil
	if r.seg != nil {
		r.seg.undo()
		r.seg = nil
	}
	if r.inst != nil {
		errs = append(errs, r.inst.Close())
		r.inst = nil
	}
	if r.dynamic != nil {
		errs = append(errs, r.dynamic.Close())
		r.dynamic = nil
	}
	errs = append(errs, r.users.end(), r.users.release())
	r.users = nil
	errs = append(errs, r.fs.Close())
	r.fs = tracefs.FS{}
	return errors.Join(errs...)
}
