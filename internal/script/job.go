package script

import (
	"bufio"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/build"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/view"
)

// job is what a run is at every place: a program, compiled, and the printing of what it says. How programs get to run, and
// when, is the place's: [runner] on the kernel at hand, [deadRunner] on one that is dead.
type job struct {
	o    Options
	comp *Compiled
	out  *view.Output
	buf  *bufio.Writer
	maps maps
	done bool
	code int
	// iterating: iterators run, which exit() does not cut short; exited: one of them, or another probe, asked for the end.
	iterating, exited bool
	// cleared are maps that clear() emptied: those without key have no way to be absent.
	cleared map[*ir.Map]bool
	// unwatch ends the watchpoints at an address, where there are some.
	unwatch func(addr uint64) (bool, error)
	// delivered counts records by the unit that sent them.
	delivered map[int]uint64
}

// maps are a program's maps where it runs.
type maps interface {
	Entries(*ir.Map) ([]probe.Entry, error)
	Clear(*ir.Map) error
	Zero(*ir.Map) error
}

func newJob(o Options) job {
	return job{o: o, cleared: map[*ir.Map]bool{}, delivered: map[int]uint64{}}
}

// compile takes the program through all stages. The place fills in what it knows in co and bo; the rest comes from the
// options of the run.
func (r *job) compile(co check.Options, bo build.Options) error {
	bo.Failures, bo.ClockMap = r.o.Failures, r.o.ClockMap
	co.Params, co.Named, co.Config, co.Unsafe = r.o.Params, r.o.Named, r.o.Config, r.o.Unsafe
	r.o.Headers.Arch = co.Arch
	co.Declare = r.o.Headers.declare
	if r.o.Filter != nil {
		co.Filter = r.o.Filter.MatchString
	}
	var diags []syntax.Diag
	r.comp, diags = Compile(r.o.Source, co, bo)
	if r.o.NoWarn && !failed(diags) {
		diags = nil
	}
	if len(diags) > 0 && r.o.Diags != nil {
		r.o.Diags(diags)
	}
	if failed(diags) {
		return ErrDiagnosed
	}
	if len(r.comp.Info.Instances) == 0 && r.o.Mode == "" {
		return ErrNoProbes
	}
	return nil
}

// openOutput begins printing; res names what only the place knows.
func (r *job) openOutput(res view.Resolver, arch string) {
	r.buf = bufio.NewWriterSize(r.o.Stdout, 64<<10)
	r.out = view.New(view.Options{W: r.buf, Err: r.o.Stderr, Program: r.comp.Prog, Resolver: res, JSON: r.o.JSON, Arch: arch,
		Trunc: r.comp.Info.Config.StrTrunc, MaxStrlen: r.comp.Info.Config.StrSize(), NoWarn: r.o.NoWarn})
}

// printEnd prints what is left when the program is over: its maps.
func (r *job) printEnd() error {
	r.out.End()
	if r.comp.Info.Config.NoMapsOnExit {
		return nil
	}
	return r.printMaps()
}

// flush writes what was printed so far, unless output is to be written in full blocks only.
func (r *job) flush() error {
	if r.o.Buffering == "full" {
		return nil
	}
	return r.buf.Flush()
}

// failure tells of a helper that failed, at the place in the program that called it.
func (r *job) failure(ev *ir.Event, rc int64) {
	r.buf.Flush()
	if done, err := r.out.Failure(ev, rc); done || err != nil {
		return
	}
	if r.o.Diags != nil {
		r.o.Diags([]syntax.Diag{{Span: ev.Span, Severity: syntax.Warning,
			Msg: fmt.Sprintf("Failed to %s: %s (%d)", ev.Text, errnoText(rc), rc)}})
	}
}

func errnoText(rc int64) string {
	s := unix.Errno(-rc).Error()
	if s == "" {
		return "unknown error"
	}
	return string(s[0]-'a'+'A') + s[1:]
}

// account prints the closing line: what became of every run.
func (r *job) account(res Result) {
	lost := res.Lost
	var full, faults, missed uint64
	for _, a := range res.Accounts {
		full += a.LostMap
		faults += a.Faults
		missed += a.Missed
	}
	if lost > 0 {
		r.out.Lost(lost)
	}
	if r.o.Quiet {
		return
	}
	if full > 0 {
		fmt.Fprintf(r.o.Stderr, "%d map updates failed: a map was full (raise max_map_keys)\n", full)
	}
	if missed > 0 {
		fmt.Fprintf(r.o.Stderr, "%d runs were skipped by the kernel: the program was running on that CPU already\n", missed)
	}
	if faults > 0 {
		fmt.Fprintf(r.o.Stderr, "%d memory reads failed and gave 0 (-k shows where)\n", faults)
	}
	if r.o.Verbose || r.o.Strict {
		r.accountTable(res.Accounts)
	}
}

func (r *job) accountTable(as []probe.Account) {
	for _, a := range as {
		if a.Session != nil {
			fmt.Fprintf(r.o.Stderr, "%s: runs counted with %s, %d filtered, %d records printed, %d lost (ring full), %d map updates failed\n",
				a.Unit.Name, a.Session.Name, a.Filtered, r.delivered[a.Unit.Index], a.LostRing, a.LostMap)
			continue
		}
		fmt.Fprintf(r.o.Stderr, "%s: %d runs, %d filtered, %d records printed, %d lost (ring full), %d map updates failed, %d runs skipped\n",
			a.Unit.Name, a.Runs, a.Filtered, r.delivered[a.Unit.Index], a.LostRing, a.LostMap, a.Missed)
	}
}
