package script

import (
	"context"
	"fmt"

	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/probe/dead"
)

// deadArch is the GOARCH of kernels in dumps: kernel/dump opens no others.
const deadArch = "amd64"

// deadRing is the size of the event ring of programs on a dump; it is emptied after each object.
const deadRing = 4 << 20

// deadRunner is one run on a dead kernel.
type deadRunner struct {
	job
	world *dead.World
	sess  *dead.Session
	cpus  int
	stop  context.CancelFunc // ends the walk
}

func newDeadRunner(o Options) *deadRunner {
	r := &deadRunner{job: newJob(o), world: dead.NewWorld(o.On)}
	for _, cpu := range o.On.CPUs() {
		r.cpus = max(r.cpus, cpu+1)
	}
	return r
}

func (r *deadRunner) compile() error {
	bo := build.Options{Arch: deadArch, NumCPU: r.cpus, RingBytes: deadRing, Kaddr: r.world.Kallsyms}
	return r.job.compile(check.Options{World: r.world, Arch: deadArch}, bo)
}

// runDead runs a program over the objects of a dead kernel, between begin and end.
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
	if r.sess, err = dead.Load(r.world, r.comp.Info, r.comp.Prog, r.comp.Obj, r.cpus); err != nil {
		return err
	}
	r.maps = r.sess
	r.openOutput(r.sess.Names(), deadArch)
	return nil
}

func (r *deadRunner) run(ctx context.Context) (Result, error) {
	if err := r.special("begin"); err != nil {
		return Result{}, err
	}
	if !r.done {
		r.iterating = true
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
	return nil
}
