package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/answers/rank"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/traceevent/filter"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
	"github.com/fathom-trace/fathom/view/flame"
)

// rankNames names what the running machine's numbers mean.
type rankNames struct {
	live  *live.Live
	users *usersym.Resolver
}

func (n rankNames) KernelStack(addrs []uint64) (out []string) {
	for _, f := range n.live.Stack(addrs) {
		out = append(out, frameText(f.Addr, f.Name, f.Off))
	}
	return out
}

func (n rankNames) UserStack(pid int, addrs []uint64) (out []string) {
	for i, f := range n.users.Frames(pid, addrs) {
		out = append(out, frameText(addrs[i], f.Name, f.Offset))
	}
	return out
}

func frameText(addr uint64, name string, off uint64) string {
	if name == "" {
		return fmt.Sprintf("0x%x", addr)
	}
	return fmt.Sprintf("%s+0x%x", name, off)
}

func (n rankNames) KernelSymbol(addr uint64) (string, uint64, bool) { return n.live.Symbolise(addr) }

func (n rankNames) Syscall(nr uint64) (string, bool) {
	name := sysno.Name(runtime.GOARCH, nr)
	return name, name != ""
}

// ranking is what a run holds open.
type ranking struct {
	f        *rankFlags
	fs       tracefs.FS
	live     *live.Live
	users    *usersym.Resolver
	world    *probe.World
	counters []rank.Counter
	before   *flame.Graph // of --diff
}

func (r *ranking) close() error {
	var errs []error
	for _, c := range r.counters {
		errs = append(errs, c.Close())
	}
	if r.world != nil {
		errs = append(errs, r.world.Close(), r.users.Close(), r.live.Close())
	}
	return errors.Join(append(errs, r.fs.Close())...)
}

func (f *rankFlags) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	r := &ranking{f: f}
	if r.before, err = f.before(); err != nil {
		return err
	}
	if r.fs, err = tracefs.Find(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	sweep()
	for _, text := range f.synthetic {
		syn, err := r.fs.NewSynthetic(leases(), text)
		if err != nil {
			return rankError("--synthetic "+text, err)
		}
		defer func() { err = errors.Join(err, syn.Close()) }()
	}
	qs, raw, err := f.queries(r.fs)
	switch {
	case err != nil:
		return err
	case raw == nil && len(f.synthetic) > 0:
		return usageError{"fathom rank", errors.New("no trigger fills the synthetic event: onmatch(SYSTEM.EVENT).trace(NAME,…)")}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if f.stackDepth {
		return r.depth(ctx, stdout, stderr)
	}
	if raw != nil {
		return r.raw(ctx, raw, stdout, stderr)
	}
	if f.overlap != "" {
		if err := r.addOverlap(); err != nil {
			return rankError("--overlap "+f.overlap, err)
		}
	}
	for _, q := range qs {
		if err := r.add(q); err != nil {
			return rankError(q.Event.String(), err)
		}
	}
	for i, c := range r.counters {
		if err := c.Begin(); err != nil {
			what := f.overlap
			if len(qs) > 0 {
				what = qs[i].Event.String()
			}
			return rankError(what, err)
		}
	}
	cmdErr := r.wait(ctx, stderr)
	return errors.Join(r.tables(stdout, stderr), cmdErr)
}

// raw has the kernel count by triggers as they are, and prints its own tables.
func (r *ranking) raw(ctx context.Context, ts []rank.Trigger, stdout, stderr io.Writer) error {
	if r.f.engine == "bpf" || r.f.json || r.f.stacks() || r.f.order != nil || !r.f.whole || r.f.frames != 0 || r.f.strict {
		return usageError{"fathom rank", errors.New("variables, actions and names are for the kernel's own histograms, whose tables are printed as they are: no --engine bpf, -j, --folded, --flame, --diff, --sort, --ascending, --top, --frames, --strict")}
	}
	raw, err := rank.NewRaw(ts, r.fs, leases())
	if err != nil {
		return err
	}
	if err = raw.Begin(); err == nil {
		err = r.wait(ctx, stderr)
		text, terr := raw.Text()
		_, werr := io.WriteString(stdout, text)
		err = errors.Join(err, terr, werr)
	}
	if err = errors.Join(err, raw.Close()); err != nil {
		return rankError("triggers", err)
	}
	return nil
}

// add makes a counter by the engine that was asked for, or the best that works.
func (r *ranking) add(q *rank.Query) error {
	var hist error
	if r.f.engine != "bpf" {
		c, err := rank.NewHist(q, r.fs, leases())
		if err == nil {
			r.counters = append(r.counters, c)
			return nil
		}
		if hist = err; r.f.engine == "hist" {
			return err
		}
	}
	if err := r.openWorld(); err != nil {
		return err
	}
	cpus, err := r.live.NumCPU()
	if err != nil {
		return err
	}
	c, err := rank.NewBPF(q, r.world, cpus, rankNames{r.live, r.users})
	if err != nil {
		return errors.Join(err, hist)
	}
	r.counters = append(r.counters, c)
	return nil
}

// openWorld opens what BPF programs need to know of the machine.
func (r *ranking) openWorld() (err error) {
	if r.world != nil {
		return nil
	}
	if r.live, err = live.Open(live.Options{}); err != nil {
		return err
	}
	r.users = usersym.New(usersym.Options{})
	r.world = probe.NewWorld(r.live, r.users, 0)
	return nil
}

func (r *ranking) addOverlap() error {
	if err := r.openWorld(); err != nil {
		return err
	}
	cpus, err := r.live.NumCPU()
	if err != nil {
		return err
	}
	c, err := rank.NewOverlap(r.f.overlap, r.world, cpus)
	if err == nil {
		r.counters = append(r.counters, c)
	}
	return err
}

// wait lets time pass: until the command, the time, or the person ends it.
func (r *ranking) wait(ctx context.Context, stderr io.Writer) error {
	if r.f.forTime > 0 {
		var cancel func()
		ctx, cancel = context.WithTimeout(ctx, r.f.forTime)
		defer cancel()
	}
	if len(r.f.cmd) == 0 {
		if !r.f.quiet {
			fmt.Fprintln(stderr, "counting; Ctrl-C ends")
		}
		<-ctx.Done()
		return nil
	}
	cmd := exec.CommandContext(ctx, r.f.cmd[0], r.f.cmd[1:]...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Second
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stderr, os.Stderr // the table alone is on standard output
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		if !r.f.quiet {
			fmt.Fprintf(stderr, "fathom: %s: %v\n", r.f.cmd[0], exit)
		}
	case err != nil:
		return &diag.Error{What: "run " + r.f.cmd[0], Code: diag.ExitNoInput, Err: err}
	}
	return nil
}

// tables prints what was counted, and the account.
func (r *ranking) tables(stdout, stderr io.Writer) error {
	for _, c := range r.counters {
		if err := c.End(); err != nil {
			return err
		}
	}
	var ts []*rank.Table
	for _, c := range r.counters {
		t, err := c.Table()
		if err != nil {
			return err
		}
		ts = append(ts, t)
	}
	if far() {
		return farTables(stdout, ts)
	}
	return r.show(ts, stdout, stderr)
}

// show prints tables, and the account of each.
func (r *ranking) show(ts []*rank.Table, stdout, stderr io.Writer) error {
	out := bufio.NewWriter(stdout)
	var lost uint64
	for i, t := range ts {
		order, top := t.Order, r.f.top
		if r.f.order != nil {
			order = r.f.order
		} else if r.f.overlap == "" && order != nil && r.f.whole {
			top = 0 // a trigger's own order, which can have the largest last, as the kernel's tables
		}
		t.Sort(order...)
		lost += t.Lost()
		var err error
		switch {
		case r.f.json:
			err = t.JSON(out, top)
		default:
			if len(ts) > 1 {
				fmt.Fprintf(out, "%s%s\n", strings.Repeat("\n", min(i, 1)), t.Event)
			}
			err = t.Text(out, top)
		}
		if err := errors.Join(err, out.Flush()); err != nil {
			return err
		}
		if !r.f.quiet {
			fmt.Fprintln(stderr, t.Summary())
		}
	}
	if r.f.stacks() {
		if err := r.fold(ts, stdout); err != nil {
			return err
		}
	}
	if lost > 0 && r.f.strict {
		return exitError{exitLost}
	}
	return nil
}

// conditionError shows what is wrong with a condition, or with a trigger, at its place.
func conditionError(command, what string, err error) error {
	var e *filter.Error
	if errors.As(err, &e) {
		err = fmt.Errorf("that means nothing\n%s %s", e.Caret(), e.Msg)
	}
	return usageError{command, fmt.Errorf("%s: %w", what, err)}
}

// rankError tells what went wrong in four lines.
func rankError(what string, err error) error {
	var wrong *filter.Error
	var none *tracefs.NoEventError
	var refused *tracefs.ProbeError
	switch {
	case errors.As(err, &wrong):
		return conditionError("fathom rank", what, err)
	case errors.As(err, &refused) && refused.Log != "":
		return &diag.Error{What: "rank " + what, Because: fmt.Sprintf("the kernel says %s (%v)", refused.Log, refused.Err), Err: err}
	case errors.As(err, &none):
		return eventError("fathom rank", what, err)
	}
	return &diag.Error{What: "rank " + what, Err: err}
}

// eventError tells of an event that there is not, with those whose names are near for the command.
func eventError(command, what string, err error) error {
	e := &diag.Error{What: "find event " + what, Because: err.Error(), Code: diag.ExitNoInput, Err: err}
	var none *tracefs.NoEventError
	if errors.As(err, &none) {
		for _, n := range none.Near {
			e.Try = append(e.Try, command+" "+n)
		}
	}
	return e
}
