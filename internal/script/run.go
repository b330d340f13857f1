package script

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/usersym"
	"github.com/fathom-trace/fathom/view"
)

// Options say how to run a program.
type Options struct {
	Source *syntax.Source
	// On is the kernel that is asked where it is not the running one: a dump. It is asked from one goroutine.
	On kernel.Target
	// Recording is what is asked where it is no kernel.
	Recording *record.Trace

	Params   []string
	Named    map[string]string
	Config   check.Config
	Unsafe   bool
	PID      int      // -p
	Command  []string // -c
	JSON     bool
	Quiet    bool
	Verbose  bool
	Failures bool // -k
	Strict   bool
	DryRun   bool
	Notify   bool // say when all probes are attached, for test runners
	// Filter leaves out attach points whose text it does not match; begin and end always stay. nil keeps all.
	Filter *regexp.Regexp
	// Traceable is a file with the functions kprobes may be put on, in the form of tracefs's available_filter_functions;
	// "" is the kernel's own.
	Traceable string
	Headers   Headers
	DebugInfo []string // folders or files looked at first for debug files of user programs
	// ClockMap is a map ("@ts") that tseries reads instead of the clock, for tests.
	ClockMap string
	// FramePIDs are processes beside PID and Command that dw_ustack() can unwind.
	FramePIDs []int
	NoWarn    bool
	For       time.Duration
	Stdout    io.Writer
	Stderr    io.Writer
	Buffering string // "line", "full", "none"
	Mode      string // "", "test", "bench"
	// Portable: the maps at the end are to be joined with those of other machines (view.Portable); with JSON.
	Portable bool
	// Diags renders diagnostics; it is given all of them at once.
	Diags func([]syntax.Diag)
	// Interrupt is closed or sent to on Ctrl-C.
	Interrupt <-chan os.Signal
	// User1 delivers SIGUSR1 for self:signal probes.
	User1 <-chan os.Signal
}

// ErrNoProbes says that nothing is wrong with the program, but that nothing it probes is there.
var ErrNoProbes error = peerError("No probes to attach")

// ErrDiagnosed says that what is wrong was told through Options.Diags.
var ErrDiagnosed = errors.New("the program has errors")

// peerError is an error in bpftrace's words, which scripts may look for.
type peerError string

func (e peerError) Error() string { return string(e) }

// Result is how a run ended.
type Result struct {
	Code     int // the program's own exit code, or the child's failure
	Lost     uint64
	Accounts []probe.Account
}

// Losses is how much of what was asked for is not in the output: records, map updates, runs.
func (r Result) Losses() uint64 {
	n := r.Lost
	for _, a := range r.Accounts {
		n += a.LostMap + a.Missed
	}
	return n
}

// runner is one run on the kernel at hand.
type runner struct {
	job
	live  *live.Live
	users *usersym.Resolver
	// mappings are told to users; nil where nobody asks for user addresses.
	mappings *probe.Mappings
	world    *probe.World
	sess     *probe.Session
	child    *child
	start    time.Time
	frames   frames   // for dw_ustack()
	packets  *packets // nil unless the program writes some
}

func newRunner(o Options) *runner { return &runner{job: newJob(o), start: time.Now()} }

// Run compiles and runs a program until it exits, the context ends, Ctrl-C, or its command or process ends.
func Run(ctx context.Context, o Options) (Result, error) {
	if o.On != nil || o.Recording != nil {
		return runDead(ctx, o)
	}
	r := newRunner(o)
	defer r.close()
	if err := r.open(); err != nil {
		return Result{}, err
	}
	if err := r.compile(); err != nil || o.DryRun && r.sess == nil {
		return Result{}, err
	}
	if err := r.load(); err != nil {
		return Result{}, err
	}
	if o.DryRun {
		return Result{}, nil
	}
	return r.run(ctx)
}

func (r *runner) open() error {
	var err error
	if r.live, err = live.Open(live.Options{}); err != nil {
		return err
	}
	r.users = usersym.New(usersym.Options{NoDemangle: r.o.Config.NoDemangle, DebugInfo: r.o.DebugInfo})
	r.world = probe.NewWorld(r.live, r.users, r.o.PID)
	r.world.Unsafe = r.o.Unsafe
	if r.o.Traceable != "" {
		return r.world.ReadTraceable(r.o.Traceable)
	}
	return nil
}

func (r *runner) close() {
	if r.child != nil {
		r.child.kill()
	}
	if r.packets != nil {
		r.packets.close()
	}
	if r.sess != nil {
		r.sess.Close()
	}
	if r.world != nil {
		r.world.Close()
	}
	if r.mappings != nil {
		r.mappings.Close()
	}
	if r.users != nil {
		r.users.Close()
	}
	if r.live != nil {
		r.live.Close()
	}
	if r.buf != nil {
		r.buf.Flush()
	}
}

func (r *runner) compile() error {
	if len(r.o.Command) > 0 && !r.o.DryRun {
		c, err := startChild(r.o.Command)
		if err != nil {
			return err
		}
		r.child = c
	}
	bo := BuildOptions(r.world)
	bo.PID = r.o.PID
	bo.Uaddr = func(path, symbol string) (uint64, bool) {
		_, addr, _, ok := r.users.SymbolAddr(path, symbol)
		if !ok {
			return 0, false
		}
		pid := r.o.PID
		if r.child != nil {
			pid = r.child.pid()
		}
		base, ok := r.users.LoadBias(pid, path)
		return addr + base, ok
	}
	if n := r.o.Config.PerfRBPages; n > 0 {
		bo.RingBytes = ringSize(n * os.Getpagesize())
	}
	co := check.Options{World: r.world, Arch: runtime.GOARCH}
	if r.child != nil {
		bo.ChildPID, co.HasChild = r.child.pid(), true
	} else if r.o.PID != 0 {
		bo.ChildPID, co.HasChild = r.o.PID, true
	}
	co.HasFrames, bo.FrameRoom = co.HasChild || len(r.o.Command) > 0 || len(r.o.FramePIDs) > 0, r.frameRoom
	return r.job.compile(co, bo)
}

// ringSize rounds up to a power of two of pages, as BPF ring buffers are.
func ringSize(n int) int {
	size := os.Getpagesize()
	for size < n {
		size *= 2
	}
	return size
}

func (r *runner) load() error {
	var err error
	r.sess, err = probe.Load(r.comp.Info, r.comp.Prog, r.comp.Obj, probe.Options{
		PID: r.o.PID, License: r.comp.Info.Config.License, Verbose: r.o.Verbose, Missing: r.comp.Info.Config.MissingProbes, World: r.world,
		Warn: func(s string) {
			if !r.o.Quiet && !r.o.NoWarn {
				fmt.Fprintf(r.o.Stderr, "WARNING: %s\n", s)
			}
		},
	})
	r.maps, r.unwatch = r.sess, r.sess.Unwatch
	if d, ok := rejection(r.o.Source, err); ok && r.o.Diags != nil {
		r.o.Diags([]syntax.Diag{d})
		if r.o.Verbose {
			fmt.Fprintf(r.o.Stderr, "%+v\n", errors.Unwrap(err))
		}
		return ErrDiagnosed
	}
	return err
}

func (r *runner) run(ctx context.Context) (Result, error) {
	r.openOutput(r.resolver(), runtime.GOARCH)
	ring, err := r.sess.Reader()
	if err != nil {
		return Result{}, err
	}
	if ring != nil {
		defer ring.Close()
	}
	if r.o.Mode != "" {
		return r.bench(ring)
	}
	if err := r.openPackets(); err != nil {
		return Result{}, err
	}
	if !r.o.Quiet {
		r.out.Attaching(r.sess.Targets())
	}
	if err := r.sess.RunSpecial("begin", nil); err != nil {
		return Result{}, err
	}
	if r.o.Verbose || r.o.Strict { // counting runs costs each of them two readings of the clock
		if c, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME); err == nil {
			defer c.Close()
		}
	}
	r.remember()
	r.tellFrames() // before the first event
	n, err := r.sess.Attach()
	if err != nil {
		return Result{}, err
	}
	if !r.o.Quiet {
		r.out.Attached(n)
		if err := r.flush(); err != nil { // who reads it waits for it
			return Result{}, err
		}
	}
	if r.o.Verbose {
		for _, p := range r.sess.Plans() {
			fmt.Fprintln(r.o.Stderr, p)
		}
	}
	if r.o.Notify {
		fmt.Fprintln(r.buf, "__BPFTRACE_NOTIFY_PROBES_ATTACHED")
		r.buf.Flush()
	}
	r.tellFrames()
	if r.child != nil {
		r.users.Note(r.child.pid())
		if err := r.child.resume(); err != nil {
			return Result{}, err
		}
	}
	if err := r.iterate(ctx, ring); err != nil {
		return Result{}, err
	}
	if err := r.loop(ctx, ring); err != nil {
		return Result{}, err
	}
	return r.finish(ring)
}

// resolver names addresses; it is told the binaries the program probes.
func (r *runner) resolver() view.Resolver {
	res := newResolver(r.live, r.users)
	res.source = !r.comp.Info.Config.HideDebugInfo
	res.drain = func() {
		if r.mappings != nil {
			r.mappings.Drain()
		}
	}
	for _, in := range r.comp.Info.Instances {
		if in.Provider.Space != types.User {
			continue
		}
		for _, t := range in.Targets {
			if !slices.Contains(res.binaries, t.Module) {
				res.binaries = append(res.binaries, t.Module)
			}
		}
	}
	return res
}

// remember reads what processes have mapped, if the program names user addresses: they may end before they are asked.
func (r *runner) remember() {
	asks := false
	for _, e := range r.comp.Prog.Events {
		asks = asks || hasUser(e.Payload)
	}
	for _, m := range r.comp.Prog.Maps {
		asks = asks || hasUser(m.Key) || hasUser(m.Value)
	}
	if !asks {
		return
	}
	var err error
	if r.mappings, err = probe.WatchMappings(r.users); err != nil && r.o.Verbose {
		fmt.Fprintf(r.o.Stderr, "user addresses of processes that end soon may have no names: %v\n", err)
	}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil {
			r.users.Note(pid)
		}
	}
}

// hasUser says if a type holds user addresses that print as names.
func hasUser(t *types.Type) bool {
	if t == nil {
		return false
	}
	for _, f := range t.Fields {
		if hasUser(f.Type) {
			return true
		}
	}
	return t.Kind == types.UStack || t.Kind == types.USym
}

// poll is how long a read of the ring waits before other reasons to stop are looked at.
const poll = 100 * time.Millisecond

func (r *runner) loop(ctx context.Context, ring *probe.Reader) error {
	var deadline time.Time
	if r.o.For > 0 {
		deadline = time.Now().Add(r.o.For)
	}
	once := r.runsOnce()
	for !r.done {
		select {
		case <-ctx.Done():
			return nil
		case <-r.o.Interrupt:
			return nil
		case <-r.o.User1:
			if err := r.sess.RunSpecial("self", nil); err != nil {
				return err
			}
		default:
		}
		switch {
		case !deadline.IsZero() && time.Now().After(deadline):
			return nil
		case r.child != nil && r.child.exited():
			return nil
		case r.o.PID != 0 && !alive(r.o.PID):
			return nil
		}
		if r.sess.Waiting() {
			if err := r.sess.AttachLater(r.note); err != nil {
				return err
			}
		}
		r.tellFrames()
		wait := poll
		if r.sess.Unwinds() {
			wait = min(wait, r.frameWait())
		}
		if once {
			wait = 0
		}
		if err := r.drain(ring, time.Now().Add(wait)); err != nil {
			return err
		}
		if once {
			return nil
		}
	}
	return nil
}

// iterate runs the iterators and prints what they send meanwhile. A walk goes to its end: exit() ends what comes after it.
func (r *runner) iterate(ctx context.Context, ring *probe.Reader) error {
	if !r.sess.HasIter() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.iterating = true
	walked := make(chan error, 1)
	go func() { walked <- r.sess.RunIter(ctx) }()
	for {
		select {
		case err := <-walked:
			if derr := r.drain(ring, time.Now()); err == nil {
				err = derr
			}
			r.iterating, r.done = false, r.exited
			return err
		default:
		}
		if err := r.drain(ring, time.Now().Add(2*time.Millisecond)); err != nil {
			return err
		}
		if len(r.o.Interrupt) > 0 {
			cancel()
		}
	}
}

// note tells people something, unless they asked for quiet.
func (r *runner) note(s string) {
	if !r.o.Quiet {
		fmt.Fprintln(r.o.Stderr, s)
	}
}

// runsOnce says if nothing can happen any more: only begin, end and iterators are there.
func (r *runner) runsOnce() bool {
	for _, in := range r.comp.Info.Instances {
		switch in.Provider.Name {
		case "begin", "end", "iter", "test", "bench":
		default:
			return false
		}
	}
	return len(r.o.Command) == 0
}

// drain prints records until the ring is empty, waiting for the first until then.
func (r *runner) drain(ring *probe.Reader, until time.Time) error {
	if ring == nil {
		time.Sleep(time.Until(until))
		return nil
	}
	for !r.done {
		rec, err := ring.Next(until)
		if err != nil {
			return err
		}
		if rec == nil {
			return r.flush()
		}
		if err := r.event(rec); err != nil {
			return err
		}
		if r.o.Buffering == "none" || ring.Empty() {
			if err := r.flush(); err != nil {
				return err
			}
			if len(r.o.Interrupt) > 0 {
				return nil
			}
			if time.Now().After(until) {
				return nil
			}
		}
	}
	return r.buf.Flush()
}

// finish ends the probes, runs end, prints what is left, and accounts.
func (r *runner) finish(ring *probe.Reader) (Result, error) {
	r.sess.Detach()
	if ring != nil {
		if err := r.rest(ring, r.done); err != nil {
			return Result{}, err
		}
	}
	r.done = false
	if err := r.sess.RunSpecial("end", nil); err != nil {
		return Result{}, err
	}
	if ring != nil {
		if err := r.rest(ring, false); err != nil {
			return Result{}, err
		}
	}
	if err := r.printEnd(); err != nil {
		return Result{}, err
	}
	res := Result{Code: r.code, Accounts: r.sess.Accounts()}
	if p := r.packets; p != nil {
		r.packets = nil
		if err := p.close(); err != nil {
			return res, err
		}
		for unit, n := range p.sent {
			r.delivered[unit] += n
		}
		res.Lost += p.r.Lost()
	}
	for _, a := range res.Accounts {
		res.Lost += a.LostRing
	}
	if err := r.buf.Flush(); err != nil {
		return res, err
	}
	r.account(res)
	return res, nil
}

// rest prints what is in the ring after the probes are gone, for at most two seconds. What came after exit() is dropped.
func (r *runner) rest(ring *probe.Reader, drop bool) error {
	until := time.Now().Add(2 * time.Second)
	r.done = false
	for n := 0; n&1023 != 0 || time.Now().Before(until); n++ {
		rec, err := ring.Next(time.Time{})
		if err != nil {
			return err
		}
		if rec == nil {
			break
		}
		if drop {
			continue
		}
		if err := r.event(rec); err != nil {
			return err
		}
	}
	return r.buf.Flush()
}
