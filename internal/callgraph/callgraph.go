// Package callgraph traces the calls below a kernel function: it finds a way in which this kernel lets itself be asked,
// asks, and hands the events to answers/graph, which draws the trees.
//
// There are two ways, called engines. "function_graph" is the kernel's own tracer in a private tracefs instance: it sees
// every function that ftrace can hook. Kernels before 6.11 have it in the one instance that all share, which fathom never
// touches; there, and where somebody has set the machine's set_graph_function, the engine "probes" puts probes on the entry
// and the return of the functions that the code below the function calls.
package callgraph

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/graph"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// Names of engines.
const (
	Auto          = "auto"
	FunctionGraph = "function_graph"
	Probes        = "probes"
)

// Engines are what Options.Engine may be.
var Engines = []string{Auto, FunctionGraph, Probes}

// Options say what to trace and how to show it.
type Options struct {
	Func    string   // kernel function; "module:name" where only that module's is meant
	Command []string // run it, trace it and its children, end with it
	PID     int      // only this process, all its threads and their children; end with it
	Comm    string   // only tasks of this name
	Depth   int      // levels, the function itself included; 0 is all
	Min     time.Duration
	Count   int           // end after so many calls; 0 is no limit
	For     time.Duration // end after this time; 0 is no limit
	Engine  string        // of [Engines]; "" is Auto
	Also    []string      // globs of functions to watch beside those found: engine probes
	Only    []string      // globs of the functions to watch below the function; nil is all
	NoIrq   bool          // leave out what interrupts did
	Stat    bool          // a table by function at the end, and no trees
	JSON    bool
	Quiet   bool
	Verbose bool
	Stdout  io.Writer
	Stderr  io.Writer
	// Interrupt is sent to on Ctrl-C; the first ends the trace.
	Interrupt <-chan os.Signal
	Leases    lease.Dir
	// Ready, if not nil, is called once tracing has begun, before the command runs.
	Ready func()
}

// Result is how a trace ended.
type Result struct {
	Engine string
	Calls  uint64 // of the function, that were shown or added up
	Lost   uint64 // events that the kernel could not deliver
	Broken int    // calls of the function given up because events in them were lost
	Code   int    // exit code of the command
}

// engine is a way to trace.
type engine interface {
	// start begins to trace. When it fails everything is as before.
	start() error
	// read gives what came since the last time, waiting up to wait if that is nothing.
	read(wait time.Duration, f func(graph.Event)) error
	// stop ends tracing; what came until then can still be read.
	stop() error
	lost() uint64
	// note is one line for people: how it traces.
	note() string
	// toReal is what to add to the events' clock to get nanoseconds since 1970.
	toReal(live.Clocks) int64
	close() error
}

// run is one trace.
type run struct {
	o      Options
	live   *live.Live
	users  *usersym.Resolver
	world  *probe.World
	syms   *kallsyms.Table
	target target
	child  *script.Command
	eng    engine
	name   string
	build  *graph.Builder
	stats  graph.Stats
	out    *bufio.Writer
	res    Result
	err    error // of writing
}

// target is the function asked for.
type target struct {
	name, module string
	addrs        []uint64
}

// Run traces until the command or process ends, enough calls were seen, the time is over, or Ctrl-C.
func Run(ctx context.Context, o Options) (res Result, err error) {
	r := &run{o: o, out: bufio.NewWriterSize(o.Stdout, 64<<10)}
	defer func() { err = errors.Join(err, r.close()) }()
	if err := r.open(); err != nil {
		return Result{}, err
	}
	if err := r.choose(); err != nil {
		return Result{}, err
	}
	if err := r.trace(ctx); err != nil {
		return r.res, err
	}
	return r.res, r.finish()
}

// open finds the function and starts the command, held before its first instruction.
func (r *run) open() error {
	var err error
	if r.live, err = live.Open(live.Options{}); err != nil {
		return err
	}
	r.users = usersym.New(usersym.Options{})
	r.world = probe.NewWorld(r.live, r.users, r.o.PID)
	if r.syms, err = r.live.Kallsyms(); err != nil {
		return err
	}
	if r.target, err = r.find(); err != nil {
		return err
	}
	if r.o.PID != 0 && !alive(r.o.PID) {
		return fmt.Errorf("trace process %d: %w", r.o.PID, unix.ESRCH)
	}
	if len(r.o.Command) > 0 {
		if r.child, err = script.StartCommand(r.o.Command); err != nil {
			return err
		}
	}
	return nil
}

// find looks the function up.
func (r *run) find() (target, error) {
	t := target{name: r.o.Func}
	if m, f, ok := strings.Cut(r.o.Func, ":"); ok {
		t.module, t.name = m, f
	}
	if why := r.world.WhyNot(t.module, t.name); why != nil && !why.Probeable() {
		return t, fmt.Errorf("trace %s: %w", r.o.Func, why)
	}
	if err := r.syms.Hidden(); err != nil {
		return t, fmt.Errorf("trace %s: %w", r.o.Func, err)
	}
	for s := range r.syms.Named(t.name) {
		if s.IsText() && (t.module == "" || s.Module == t.module || s.Module == "" && t.module == "vmlinux") {
			t.addrs = append(t.addrs, s.Addr)
		}
	}
	return t, nil
}

// choose starts the engine that was asked for, or the best that starts.
func (r *run) choose() error {
	pids := r.pids()
	engines := []struct {
		name string
		make func() engine
	}{
		{FunctionGraph, func() engine { return &ftrace{run: r, pids: pids} }},
		{Probes, func() engine { return &probes{run: r} }},
	}
	var errs []error
	for _, e := range engines {
		if r.o.Engine != "" && r.o.Engine != Auto && r.o.Engine != e.name {
			continue
		}
		eng := e.make()
		err := eng.start()
		if err == nil {
			r.eng, r.name = eng, e.name
			r.say(errs)
			return nil
		}
		if !errors.Is(err, feature.ErrUnsupported) {
			return fmt.Errorf("trace %s: %w", r.o.Func, err)
		}
		errs = append(errs, err)
	}
	return unsupported(r.o.Func, errs)
}

// say tells which engine is used, and why not a better one.
func (r *run) say(errs []error) {
	if r.o.Quiet {
		return
	}
	fmt.Fprintf(r.o.Stderr, "fathom: engine %s: %s\n", r.name, r.eng.note())
	for _, err := range errs {
		fmt.Fprintf(r.o.Stderr, "fathom: not used: %v\n", err)
	}
}

// pids are the threads to trace; nil for all tasks.
func (r *run) pids() []int {
	switch {
	case r.child != nil:
		return []int{r.child.PID()}
	case r.o.PID == 0:
		return nil
	}
	return threads(r.o.PID)
}

// threads lists the threads of a process, the first one first.
func threads(pid int) []int {
	out := []int{pid}
	ents, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	for _, e := range ents {
		if n, err := strconv.Atoi(e.Name()); err == nil && n != pid {
			out = append(out, n)
		}
	}
	return out
}

func (r *run) trace(ctx context.Context) error {
	o := graph.Options{Roots: map[uint64]bool{}, Depth: r.o.Depth, Min: uint64(r.o.Min), NoIrq: r.o.NoIrq, Comm: comm, IsIrq: r.isIrq()}
	for _, a := range r.target.addrs {
		o.Roots[a] = true
	}
	if r.o.Comm != "" {
		o.Keep = func(_ int, c string) bool { return c == r.o.Comm }
	}
	r.build = graph.NewBuilder(o)
	p, err := r.printer()
	if err != nil {
		return err
	}
	if r.o.Ready != nil {
		r.o.Ready()
	}
	if r.child != nil {
		if err := r.child.Resume(); err != nil {
			return err
		}
	}
	take := func(e graph.Event) {
		if t := r.build.Add(e); t != nil && !r.enough() && r.err == nil {
			r.res.Calls++
			r.err = p(t)
		}
	}
	if err := r.loop(ctx, take); err != nil {
		return err
	}
	if err := r.eng.stop(); err != nil {
		return err
	}
	if err := r.eng.read(0, take); err != nil {
		return err
	}
	return r.err
}

func (r *run) enough() bool { return r.o.Count > 0 && r.res.Calls >= uint64(r.o.Count) }

// poll is how long the engine may wait before other reasons to end are looked at.
const poll = 50 * time.Millisecond

func (r *run) loop(ctx context.Context, take func(graph.Event)) error {
	var end time.Time
	if r.o.For > 0 {
		end = time.Now().Add(r.o.For)
	}
	for {
		if err := r.eng.read(poll, take); err != nil {
			return err
		}
		switch {
		case r.err != nil || r.enough() || ctx.Err() != nil:
			return nil
		case r.child != nil && r.child.Exited(), r.child == nil && r.o.PID != 0 && !alive(r.o.PID):
			return r.eng.read(poll, take) // a process is waited for before it has left its CPU for good
		case !end.IsZero() && time.Now().After(end):
			return nil
		}
		select {
		case <-r.o.Interrupt:
			return nil
		default:
		}
	}
}

// printer gives what shows a tree.
func (r *run) printer() (func(*graph.Tree) error, error) {
	switch {
	case r.o.Stat:
		return func(t *graph.Tree) error { r.stats.Add(t); return nil }, nil
	case r.o.JSON:
		return func(t *graph.Tree) error {
			if err := graph.JSON(r.out, t, r.symbol); err != nil {
				return err
			}
			return r.out.Flush()
		}, nil
	}
	n, err := r.live.NumCPU()
	if err != nil {
		n = 1
	}
	off := r.eng.toReal(r.live.Clocks())
	p := &graph.Printer{W: r.out, Name: r.symbol, CPUs: n, When: func(ns uint64) time.Time { return time.Unix(0, int64(ns)+off) }}
	return p.Tree, p.Header()
}

// symbol names a function.
func (r *run) symbol(addr uint64) string {
	name, mod, off, ok := r.syms.ByAddr(addr)
	switch {
	case !ok:
		return fmt.Sprintf("0x%x", addr)
	case off != 0:
		name = fmt.Sprintf("%s+0x%x", name, off)
	}
	if mod != "" && !strings.HasPrefix(mod, "__builtin") {
		name += " [" + mod + "]"
	}
	return name
}

// isIrq gives the functions through which interrupts enter, where the kernel says where these are.
func (r *run) isIrq() func(uint64) bool {
	from, to := r.syms.ByName("__irqentry_text_start"), r.syms.ByName("__irqentry_text_end")
	if len(from) == 0 || len(to) == 0 {
		return nil
	}
	return func(a uint64) bool { return a >= from[0] && a < to[0] }
}

// comm gives a thread's name as it is now.
func comm(task int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", task))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(string(b), "\n")
}

func alive(pid int) bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// finish prints the table and what became of everything.
func (r *run) finish() error {
	r.res.Engine, r.res.Lost, r.res.Broken = r.name, r.eng.lost(), r.build.Broken
	if r.child != nil {
		r.res.Code = r.child.Code()
	}
	if r.o.Stat {
		show := r.stats.Text
		if r.o.JSON {
			show = r.stats.JSON
		}
		if err := show(r.out, r.symbol); err != nil {
			return err
		}
	}
	if r.o.JSON {
		if _, err := fmt.Fprintf(r.out, `{"type":"end","engine":%q,"count":%d,"lost":%d,"given_up":%d,"in_flight":%d}`+"\n",
			r.name, r.res.Calls, r.res.Lost, r.res.Broken, r.build.Open()); err != nil {
			return err
		}
	}
	if err := r.out.Flush(); err != nil {
		return err
	}
	if !r.o.Quiet {
		r.account()
	}
	return nil
}

func (r *run) account() {
	s := fmt.Sprintf("fathom: %d calls of %s", r.res.Calls, r.o.Func)
	for _, p := range []struct {
		n    uint64
		text string
	}{
		{uint64(r.build.Open()), "had not returned"}, {r.res.Lost, "events lost (buffers were full)"},
		{uint64(r.res.Broken), "calls given up because of that"}, {uint64(r.build.Unseen), "returns not seen"},
	} {
		if p.n > 0 {
			s += fmt.Sprintf(", %d %s", p.n, p.text)
		}
	}
	fmt.Fprintln(r.o.Stderr, s)
}

func (r *run) close() error {
	var errs []error
	if r.child != nil {
		r.child.Kill()
	}
	if r.eng != nil {
		errs = append(errs, r.eng.close())
	}
	if r.world != nil {
		errs = append(errs, r.world.Close())
	}
	if r.users != nil {
		r.users.Close()
	}
	if r.live != nil {
		errs = append(errs, r.live.Close())
	}
	return errors.Join(errs...)
}

// matches says if a name matches one of the globs.
func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(g string) bool { return match(g, name) })
}
