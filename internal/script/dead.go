package script

import (
	"context"
	"fmt"

	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/dead"
	"github.com/fathom-trace/fathom/probe/recorded"
	"github.com/fathom-trace/fathom/view"
)

// deadArch is the GOARCH of kernels in dumps: kernel/dump opens no others. Recordings are little endian, and of 64 bits.
const deadArch = "amd64"

// deadRing is the size of the event ring of programs on a dump or a recording; it is emptied after each object.
const deadRing = 4 << 20

// deadRunner is one run on a dead kernel, or over a recording.
type deadRunner struct {
	job
	world check.Place
	sess  offline
	cpus  int
	stop  context.CancelFunc // ends the walk
	// open loads the compiled program, and gives what names addresses. inspect, if not nil, finds what the place refuses of it.
	open    func() (offline, view.Resolver, error)
	inspect func(*ir.Program) []syntax.Diag
}

// offline is a program in the BPF machine, and what it runs over.
type offline interface {
	maps
	RunSpecial(provider string) error
	Walk(ctx context.Context, after func() error) error
	Records() []vm.Record
	Accounts() []probe.Account
	Missed() []error
}

func newDeadRunner(o Options) *deadRunner {
	if o.Recording != nil {
		return newRecordedRunner(o)
	}
	w := dead.NewWorld(o.On)
	r := &deadRunner{job: newJob(o), world: w}
	for _, cpu := range o.On.CPUs() {
		r.cpus = max(r.cpus, cpu+1)
	}
	r.open = func() (offline, view.Resolver, error) {
		s, err := dead.Load(w, r.comp.Info, r.comp.Prog, r.comp.Obj, r.cpus)
		if err != nil {
			return nil, nil, err
		}
		return s, s.Names(), nil
	}
	return r
}

func newRecordedRunner(o Options) *deadRunner {
	w := recorded.NewWorld(o.Recording)
	r := &deadRunner{job: newJob(o), world: w, cpus: o.Recording.NumCPU(), inspect: recorded.Follows}
	r.open = func() (offline, view.Resolver, error) {
		s, err := recorded.Load(w, r.comp.Info, r.comp.Prog, r.comp.Obj, r.cpus)
		if err != nil {
			return nil, nil, err
		}
		s.Names().Format = strftime
		s.Names().Frame = func(addr uint64, name string, off uint64, file string, mode types.StackMode) string {
			return frame(addr, name, off, name != "", mode) + inFile(file, mode)
		}
		return s, s.Names(), nil
	}
	return r
}

func (r *deadRunner) compile() error {
	bo := build.Options{Arch: deadArch, NumCPU: r.cpus, RingBytes: deadRing, Kaddr: r.world.Kallsyms}
	if err := r.job.compile(check.Options{World: r.world, Arch: deadArch}, bo); err != nil || r.inspect == nil {
		return err
	}
	if ds := r.inspect(r.comp.Prog); len(ds) > 0 {
		if r.o.Diags != nil {
			r.o.Diags(ds)
		}
		return ErrDiagnosed
	}
	return nil
}

// runDead runs a program over the objects of a dead kernel or the events of a recording, between begin and end.
func runDead(ctx context.Context, o Options) (Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if o.For > 0 {
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	r := newDeadRunner(o)
	r.stop = cancel
	if err := r.load(); err != nil || o.DryRun {
		return Result{}, err
	}
	res, err := r.run(ctx)
	if ferr := r.buf.Flush(); err == nil && ferr != nil {
		err = fmt.Errorf("write output: %w", ferr)
	}
	return res, err
}

// load compiles the program, puts it into the BPF machine, and makes ready to print.
func (r *deadRunner) load() error {
	err := r.compile()
	if err != nil {
		return err
	}
	var names view.Resolver
	if r.sess, names, err = r.open(); err != nil {
		return err
	}
	r.maps = r.sess
	r.openOutput(names, deadArch)
	return nil
}

func (r *deadRunner) run(ctx context.Context) (Result, error) {
	if err := r.special("begin"); err != nil {
		return Result{}, err
	}
	if !r.done {
		r.iterating = r.o.Recording == nil // where exit() ends what it is called in, and not the run
		if err := r.sess.Walk(ctx, r.drain); err != nil {
			return Result{}, err
		}
		r.iterating = false
	}
	r.done = false
	if err := r.special("end"); err != nil {
		return Result{}, err
	}
	if err := r.printEnd(); err != nil {
		return Result{}, err
	}
	if err := r.buf.Flush(); err != nil {
		return Result{}, err
	}
	res := Result{Code: r.code, Accounts: r.sess.Accounts()}
	for _, a := range res.Accounts {
		res.Lost += a.LostRing
	}
	r.account(res)
	for _, err := range r.sess.Missed() { // a loss, too, but nobody knows of how much
		res.Lost++
		fmt.Fprintf(r.o.Stderr, "WARNING: %v\n", err)
	}
	return res, nil
}

func (r *deadRunner) special(provider string) error {
	if err := r.sess.RunSpecial(provider); err != nil {
		return err
	}
	return r.drain()
}

// drain prints what was sent, and ends the walk on Ctrl-C.
func (r *deadRunner) drain() error {
	select {
	case <-r.o.Interrupt:
		r.stop()
	default:
	}
	for _, rec := range r.sess.Records() {
		if r.done {
			return nil
		}
		if err := r.event(rec.Data); err != nil {
			return err
		}
	}
	if r.done {
		r.stop()
	}
	return nil
}
