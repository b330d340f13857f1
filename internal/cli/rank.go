package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/rank"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
)

// rankFlags are what fathom rank was asked.
type rankFlags struct {
	cond         string
	by, sum      []string
	sort         string
	ascending    bool
	top          int
	size, frames int
	from, until  []string
	whileRunning string
	engine       string
	folded       string
	find         bool
	json, strict bool
	quiet        bool
	forTime      time.Duration
	events       []string
	cmd          []string
}

func rankCommand() *cobra.Command {
	f := &rankFlags{}
	c := &cobra.Command{
		Use:   "rank EVENT… [--if EXPR] [--by KEYS] [--sum FIELDS] [flags] [-- COMMAND [ARG…]]",
		Short: "Count and sum events by keys or stacks, the largest first",
		Long: `Count events of the kernel in the kernel, by any field, comm, pid, cpu, kstack or ustack, sum their numbers, and show the
largest. Counting ends with COMMAND, after --for, or with Ctrl-C. A key may have a form: len.log2, id.syscall, skbaddr.hex,
location.sym-offset, len.buckets=64. EXPR is in the language of the kernel's event filters. docs/rank.md tells more.

Examples:
  fathom rank net:netif_receive_skb --if 'name == "lo"' --by kstack --sum len --for 10s
  fathom rank raw_syscalls:sys_enter --by id.syscall,comm --top 5 -- ls /
  fathom rank --find receive packet`,
		RunE: func(c *cobra.Command, args []string) error {
			if n := c.ArgsLenAtDash(); n >= 0 {
				args, f.cmd = args[:n], args[n:]
			}
			f.events = args
			switch {
			case f.find:
				return f.search(c.OutOrStdout())
			case len(args) == 0:
				return usageError{c.CommandPath(), errors.New("name an event; fathom rank --find WORDS proposes some")}
			case f.engine != "auto" && f.engine != "hist" && f.engine != "bpf":
				return usageError{c.CommandPath(), fmt.Errorf("no engine %q: auto, hist or bpf", f.engine)}
			}
			return f.run(c.Context(), c.OutOrStdout(), os.Stderr)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.cond, "if", "", "count only events for which `EXPR` holds: 'len > 1000 && comm == \"nc\"'")
	fl.StringSliceVar(&f.by, "by", []string{rank.KStack}, "tell events apart by `KEYS`, divided by commas")
	fl.StringSliceVar(&f.sum, "sum", nil, "sum `FIELDS`")
	fl.StringVar(&f.sort, "sort", "", "sort by `NAME`: hits, a sum, or a key")
	fl.BoolVar(&f.ascending, "ascending", false, "the smallest first")
	fl.IntVar(&f.top, "top", 10, "show the first `N` rows; 0 is all")
	fl.IntVar(&f.size, "size", 0, "tell `N` keys apart at most (default 2048)")
	fl.IntVar(&f.frames, "frames", 0, "keep `N` frames of a stack (hist 16, bpf 64)")
	fl.StringArrayVar(&f.from, "from", nil, "begin to count at `EVENT[:EXPR]`")
	fl.StringArrayVar(&f.until, "until", nil, "stop counting at `EVENT[:EXPR]`; --from may come again")
	fl.StringVar(&f.whileRunning, "while-running", "", "count while `PROGRAM` runs, from its exec to its exit")
	fl.StringVar(&f.engine, "engine", "auto", "count by `WHAT`: hist triggers of the kernel, bpf programs, or auto: hist if the kernel has them")
	fl.StringVar(&f.folded, "folded", "", "write the stacks for a flame graph to `FILE`, weighed by hits or by the first sum")
	fl.BoolVar(&f.find, "find", false, "propose events for the words that follow")
	fl.BoolVarP(&f.json, "json", "j", false, "one JSON object a line for each row")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages, only the table")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if an event was not counted")
	forVar(fl, &f.forTime, "count for this `TIME`, such as 10s")
	return c
}

// query describes an event as it was asked for.
func (f *rankFlags) query(fs tracefs.FS, e tracefs.Event) (*rank.Query, error) {
	q := &rank.Query{Event: e, If: f.cond, Sum: f.sum, Size: f.size, Frames: f.frames}
	var err error
	if q.Format, err = format(fs, e); err != nil {
		return nil, err
	}
	for _, k := range f.by {
		key, err := rank.ParseKey(k, q.Format)
		if err != nil {
			return nil, err
		}
		q.By = append(q.By, key)
	}
	from, until := f.from, f.until
	if f.whileRunning != "" {
		name := filepath.Base(f.whileRunning)
		from = append(from, fmt.Sprintf("sched:sched_process_exec:filename == %q", f.whileRunning))
		until = append(until, fmt.Sprintf("sched:sched_process_exit:comm == %q", name[:min(len(name), 15)]))
	}
	if q.From, err = edges(fs, from); err != nil {
		return nil, err
	}
	if q.Until, err = edges(fs, until); err != nil {
		return nil, err
	}
	return q, errors.Join(q.Check(), q.CheckSort(f.sort))
}

func format(fs tracefs.FS, e tracefs.Event) (*traceevent.Format, error) {
	text, err := fs.Format(e.System, e.Name)
	if err != nil {
		return nil, fmt.Errorf("read format of %s:%s: %w", e.System, e.Name, err)
	}
	return traceevent.Parse(text)
}

// edges reads SYSTEM:EVENT[:EXPR].
func edges(fs tracefs.FS, texts []string) (out []rank.Edge, err error) {
	for _, t := range texts {
		var e rank.Edge
		parts := strings.SplitN(t, ":", 3)
		if len(parts) < 2 {
			return nil, fmt.Errorf("%s: an event is written SYSTEM:NAME[:EXPR]", t)
		}
		es, err := fs.Select(parts[0] + ":" + parts[1])
		if err != nil {
			return nil, err
		}
		for _, e.Event = range es {
			if len(parts) == 3 {
				e.If = strings.TrimSpace(parts[2])
			}
			if e.Format, err = format(fs, e.Event); err != nil {
				return nil, err
			}
			out = append(out, e)
		}
	}
	return out, nil
}

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
	if r.fs, err = tracefs.Find(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	var events []tracefs.Event
	for _, p := range f.events {
		es, err := r.fs.Select(p)
		if err != nil {
			return rankError(p, err)
		}
		events = append(events, es...)
	}
	sweep()
	for _, e := range events {
		q, err := f.query(r.fs, e)
		if err == nil {
			err = r.add(q)
		}
		if err != nil {
			return rankError(e.System+":"+e.Name, err)
		}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	for i, c := range r.counters {
		if err := c.Begin(); err != nil {
			return rankError(events[i].System+":"+events[i].Name, err)
		}
	}
	cmdErr := r.wait(ctx, stderr)
	return errors.Join(r.tables(stdout, stderr), cmdErr)
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
	if r.world == nil {
		var err error
		if r.live, err = live.Open(live.Options{}); err != nil {
			return err
		}
		r.users = usersym.New(usersym.Options{})
		r.world = probe.NewWorld(r.live, r.users, 0)
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
	out := bufio.NewWriter(stdout)
	var folded []*rank.Table
	var lost uint64
	for i, c := range r.counters {
		t, err := c.Table()
		if err != nil {
			return err
		}
		t.Sort(r.f.sort, r.f.ascending)
		folded = append(folded, t)
		lost += t.Lost()
		switch {
		case r.f.json:
			err = t.JSON(out, r.f.top)
		default:
			if len(r.counters) > 1 {
				fmt.Fprintf(out, "%s%s\n", strings.Repeat("\n", min(i, 1)), t.Event)
			}
			err = t.Text(out, r.f.top)
		}
		if err := errors.Join(err, out.Flush()); err != nil {
			return err
		}
		if !r.f.quiet {
			fmt.Fprintln(stderr, t.Summary())
		}
	}
	if r.f.folded != "" {
		if err := r.fold(folded); err != nil {
			return err
		}
	}
	if lost > 0 && r.f.strict {
		return exitError{exitLost}
	}
	return nil
}

func (r *ranking) fold(ts []*rank.Table) error {
	f, err := os.Create(r.f.folded)
	if err != nil {
		return err
	}
	sum := ""
	if len(r.f.sum) > 0 {
		sum = r.f.sum[0]
	}
	for _, t := range ts {
		if err := t.Folded(f, sum); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// rankError tells what went wrong in four lines.
func rankError(what string, err error) error {
	var wrong *filter.Error
	var none *tracefs.NoEventError
	switch {
	case errors.As(err, &wrong):
		return usageError{"fathom rank", fmt.Errorf("the condition for %s means nothing\n%s %s", what, wrong.Caret(), wrong.Msg)}
	case errors.As(err, &none):
		e := &diag.Error{What: "find event " + what, Because: err.Error(), Code: diag.ExitNoInput, Err: err}
		for _, n := range none.Near {
			e.Try = append(e.Try, "fathom rank "+n)
		}
		return e
	}
	return &diag.Error{What: "rank " + what, Err: err}
}

// search proposes events for words.
func (f *rankFlags) search(w io.Writer) (err error) {
	if len(f.events) == 0 {
		return usageError{"fathom rank", errors.New("--find needs words: fathom rank --find receive packet")}
	}
	fs, err := tracefs.Find()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fs.Close()) }()
	all, err := fs.Events()
	if err != nil {
		return err
	}
	list := rank.Find(all, f.events, func(e tracefs.Event) *traceevent.Format {
		d, _ := format(fs, e) // one whose format cannot be read has no fields to be found by
		return d
	})
	if f.top > 0 {
		list = list[:min(f.top, len(list))]
	}
	for _, p := range list {
		if f.json {
			err = json.NewEncoder(w).Encode(map[string]any{"type": "event", "event": p.Event.System + ":" + p.Event.Name, "fields": p.Fields})
		} else {
			_, err = fmt.Fprintf(w, "%-40s %s\n", p.Event.System+":"+p.Event.Name, strings.Join(p.Fields, " "))
		}
		if err != nil {
			return err
		}
	}
	if len(list) == 0 {
		return exitError{diag.ExitFailure}
	}
	return nil
}
