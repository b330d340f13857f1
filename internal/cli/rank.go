package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/answers/rank"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
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
	triggers     []string
	synthetic    []string
	overlap      string
	stackDepth   bool
	system       bool // settings of the machine may be changed
	engine       string
	folded       string
	flame, diff  string
	find         bool
	json, strict bool
	quiet        bool
	forTime      time.Duration
	order        []rank.Order // what --sort and --ascending say; none if neither is given
	whole        bool         // --top is not given
	events       []string
	cmd          []string
	hosts        hostFlags
}

func rankCommand() *cobra.Command {
	f := &rankFlags{}
	c := &cobra.Command{
		Use:   "rank EVENT… [--if EXPR] [--by KEYS] [--sum FIELDS] [flags] [-- COMMAND [ARG…]]",
		Short: "Count and sum events by keys or stacks, the largest first",
		Long: `Count events of the kernel in the kernel, by any field, comm, pid, cpu, kstack or ustack, sum their numbers, and show the
largest. Counting ends with COMMAND, after --for, or with Ctrl-C. A key may have a form: len.log2, id.syscall, skbaddr.hex,
location.sym-offset, len.buckets=64. EXPR is in the language of the kernel's event filters. fathom help rank tells more.

Examples:
  fathom rank net:netif_receive_skb --if 'name == "lo"' --by kstack --sum len --for 10s
  fathom rank raw_syscalls:sys_enter --by id.syscall,comm --top 5 -- ls /
  fathom rank --find receive packet`,
		RunE: func(c *cobra.Command, args []string) error {
			if n := c.ArgsLenAtDash(); n >= 0 {
				args, f.cmd = args[:n], args[n:]
			}
			f.events = args
			if err := f.check(c.Flags()); err != nil {
				return usageError{c.CommandPath(), err}
			}
			if f.hosts.given() {
				return f.onHosts(c)
			}
			if f.find {
				return f.search(c.OutOrStdout())
			}
			return f.run(c.Context(), c.OutOrStdout(), os.Stderr)
		},
	}
	fl := c.Flags()
	conditionVar(fl, &f.cond, "if", "count only events for which `EXPR` holds: 'len > 1000 && comm == \"nc\"'")
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
	fl.StringArrayVar(&f.triggers, "trigger", nil, "count by `WORDS` of the kernel's own: 'SYSTEM:EVENT hist:keys=…', 'SYSTEM:EVENT enable_hist:…'")
	fl.StringArrayVar(&f.synthetic, "synthetic", nil, "make an `EVENT`, 'NAME TYPE FIELD; TYPE FIELD…', that a trigger's onmatch() fills")
	fl.StringVar(&f.overlap, "overlap", "", "count the calls of kernel `FUNCTION` by how many are inside it at once")
	fl.BoolVar(&f.stackDepth, "stack-depth", false, "show the deepest stacks of the kernel and the largest frames of its functions")
	fl.BoolVar(&f.system, "allow-system-changes", false, "switch the kernel's stack tracer on for --stack-depth, meanwhile")
	fl.StringVar(&f.engine, "engine", "auto", "count by `NAME`: hist triggers of the kernel, bpf programs, or auto: hist if there")
	fl.StringVar(&f.folded, "folded", "", "write the stacks for a flame graph to `FILE`, weighed by hits or by the first sum")
	fl.StringVar(&f.flame, "flame", "", "draw the stacks as a flame graph into `FILE`, in SVG")
	fl.StringVar(&f.diff, "diff", "", "show how the stacks changed since `FILE`, which --folded wrote; --flame is coloured by it")
	fl.BoolVar(&f.find, "find", false, "propose events for the words that follow")
	fl.BoolVarP(&f.json, "json", "j", false, "one JSON object a line for each row")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages, only the table")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if an event was not counted")
	f.hosts.add(fl)
	forVar(fl, &f.forTime, "count for this `TIME`, such as 10s")
	return c
}

// Flags that not every kind of question heeds.
var (
	windowFlags  = []string{"if", "by", "sum", "from", "until", "while-running", "size"}
	runningFlags = []string{"for", "engine", "strict", "quiet"}
)

// check refuses what makes no sense together, and flags that would change nothing.
func (f *rankFlags) check(fl *pflag.FlagSet) error {
	refuse := func(why string, lists ...[]string) error {
		for _, name := range slices.Concat(lists...) {
			if fl.Changed(name) {
				return fmt.Errorf("%s: --%s has no meaning there", why, name)
			}
		}
		return nil
	}
	if fl.Changed("sort") || fl.Changed("ascending") {
		f.order = []rank.Order{{By: f.sort, Ascending: f.ascending}}
		if f.sort == "hitcount" {
			f.order[0].By = ""
		}
	}
	f.whole = !fl.Changed("top")
	switch {
	case f.find && len(f.cmd) > 0:
		return errors.New("--find only proposes events: no command")
	case f.find:
		return refuse("--find only proposes events", windowFlags, runningFlags, []string{"frames", "sort", "ascending", "trigger", "synthetic", "overlap", "stack-depth", "allow-system-changes"}, stackFlags)
	case f.stackDepth && len(f.events) > 0:
		return errors.New("--stack-depth is about all that the kernel does: no events")
	case f.stackDepth:
		return refuse("--stack-depth is about all that the kernel does", windowFlags, []string{"engine", "frames", "sort", "ascending", "trigger", "synthetic", "overlap"}, stackFlags)
	case f.system:
		return errors.New("--allow-system-changes is for --stack-depth")
	case f.engine != "auto" && f.engine != "hist" && f.engine != "bpf":
		return fmt.Errorf("no engine %q: auto, hist or bpf", f.engine)
	case f.overlap != "" && len(f.events) > 0:
		return errors.New("--overlap counts the calls of a function: no events")
	case f.overlap != "" && f.engine == "hist":
		return errors.New("--overlap counts the calls of a function, by BPF: no --engine hist")
	case f.overlap != "":
		return errors.Join(refuse("--overlap counts the calls of a function", windowFlags, []string{"frames", "trigger", "synthetic"}, stackFlags),
			(&rank.Table{By: []string{rank.Inside}}).CheckOrder(f.order...))
	case f.json && f.diff != "":
		return errors.New("--diff is a table for people: no -j")
	case len(f.synthetic) > 0 && len(f.triggers) == 0:
		return errors.New("--synthetic makes an event that a --trigger fills: onmatch(SYSTEM.EVENT).trace(NAME,…)")
	case len(f.events) == 0 && len(f.triggers) == 0:
		return errors.New("name an event; fathom rank --find WORDS proposes some")
	case len(f.events) == 0:
		return refuse("a trigger says that itself", windowFlags)
	}
	return nil
}

// queries gives what is asked: for each event that the patterns mean a query, or what triggers say; raw are triggers that only
// the kernel itself can carry out.
func (f *rankFlags) queries(fs tracefs.FS) (qs []*rank.Query, raw []rank.Trigger, err error) {
	for _, p := range f.events {
		es, err := fs.Select(p)
		if err != nil {
			return nil, nil, rankError(p, err)
		}
		for _, e := range es {
			q, err := f.query(fs, e)
			if err != nil {
				return nil, nil, rankError(e.String(), err)
			}
			qs = append(qs, q)
		}
	}
	var ts []rank.Trigger
	for _, text := range f.triggers {
		t, err := trigger(fs, text)
		if err != nil {
			return nil, nil, rankError("trigger "+text, err)
		}
		ts = append(ts, t)
	}
	if len(ts) == 0 {
		return qs, nil, nil
	}
	more, err := rank.Queries(ts)
	switch {
	case err != nil:
		return nil, nil, rankError("triggers", err)
	case more == nil && len(qs) > 0:
		return nil, nil, usageError{"fathom rank", errors.New("triggers with variables, actions or names go alone")}
	case more == nil:
		return nil, ts, nil
	}
	for _, q := range more {
		q.Frames = f.frames
		if err := q.CheckOrder(f.order...); err != nil {
			return nil, nil, rankError("triggers", err)
		}
	}
	return append(qs, more...), nil, nil
}

// trigger reads "SYSTEM:EVENT TRIGGER".
func trigger(fs tracefs.FS, text string) (t rank.Trigger, err error) {
	event, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	es, err := fs.Select(event)
	if err != nil {
		return t, err
	}
	t = rank.Trigger{Event: es[0], Text: strings.TrimSpace(rest)}
	if t.Format, err = format(fs, es[0]); err != nil {
		return t, err
	}
	return t, t.Parse()
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
	return q, errors.Join(q.Check(), q.CheckOrder(f.order...))
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
			err = jsonl.Write(w, map[string]any{"type": "event", "event": p.Event.System + ":" + p.Event.Name, "fields": p.Fields})
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
