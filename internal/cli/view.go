package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/match"
	"github.com/fathom-trace/fathom/view/events"
	"github.com/fathom-trace/fathom/view/flame"
)

// viewFlags say which events are shown, and how.
type viewFlags struct {
	events []string
	filter string
	cpus   []int
	from   time.Duration
	until  time.Duration
	json   bool
	csv    bool
	stats  bool
	wall   bool
	top    int
	to     string
	weight string
	pair   string
	heat   bool
	time   bool
	html   string
	serve  string
	output string
	quiet  bool
	strict bool
}

func viewCommand() *cobra.Command {
	f := &viewFlags{}
	c := &cobra.Command{
		Use:   "view RECORDING… [flags]",
		Short: "Show recordings, of fathom and of others",
		Long: `Show what was recorded: folders of fathom record and of LTTng (Common Trace Format 1.8 and 2), trace-cmd's trace.dat, perf.data,
captures of packets.
Events are shown as the kernel's own trace file shows them, in the order of their time. Of several recordings of one machine
the events are merged. What was lost is shown where it is missing.

Examples:
  fathom view /tmp/r1 -e sched:sched_switch --filter 'prev_comm ~ "ssh*" && next_pid != 0'
  fathom view /tmp/r1 --latency 'sched_wakeup[pid] sched_switch[next_pid]' --heatmap
  fathom view maps.json --heatmap        # of trace -j -e '… { @ = hist(…); } interval:s:1 { print(@); clear(@); }' -o maps.json
  fathom view trace.dat --stats
  fathom view perf.data --serve 127.0.0.1:0`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.events, "event", "e", nil, "only `EVENT`s: SYSTEM:NAME, a system or a name, with * and ?")
	conditionVar(fl, &f.filter, "filter", "only events that fulfil a `CONDITION`, such as 'len > 100 && comm == \"curl\"'")
	fl.IntSliceVar(&f.cpus, "cpu", nil, "only these CPUs: `N`,N…")
	fl.Var(span{&f.from}, "from", "only from this `TIME` after the first event on, such as 1.5s")
	fl.Var(span{&f.until}, "until", "only until this `TIME` after the first event")
	fl.BoolVarP(&f.json, "json", "j", false, "a JSON object a line")
	fl.BoolVar(&f.csv, "csv", false, "a table with a column for each field")
	fl.BoolVar(&f.stats, "stats", false, "only counts: by event, by task, by CPU, and what was lost")
	fl.StringVar(&f.pair, "latency", "", "the time between two events, `PAIR`: FROM TO of the same task, or 'sched_wakeup[pid] sched_switch[next_pid]'")
	fl.BoolVar(&f.heat, "heatmap", false, "draw --latency, or the hist() maps in FILE of trace -j, by time; with --html on a page")
	fl.BoolVar(&f.time, "timeline", false, "draw what ran on each CPU, and when each of the busiest tasks did")
	fl.StringVar(&f.html, "html", "", "write a page that stands by itself to `FILE`: counts, CPUs, stacks")
	fl.StringVar(&f.serve, "serve", "", "answer a browser at this `ADDRESS` of the loopback, such as 127.0.0.1:0; the page to open is printed")
	fl.IntVar(&f.top, "top", 20, "show `N` tasks in --stats, --timeline, --html and --serve, or latencies in --latency and --serve")
	fl.BoolVar(&f.wall, "wall", false, "the time of day, to the nanosecond")
	fl.StringVar(&f.to, "to", "", "convert to `FORMAT`: perfetto, chrome, ctf; of stacks: folded, flame (SVG), pprof")
	fl.StringVar(&f.weight, "weight", "", "weigh stacks by this `FIELD` of the events, such as len")
	fl.StringVarP(&f.output, "output", "o", "", "write to `FILE`; --to ctf makes a folder")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if events are missing")
	return c
}

// conversions are what --to understands.
var conversions = []string{"perfetto", "chrome", "ctf", "folded", "flame", "pprof"}

// stackWriters are the conversions of stacks.
var stackWriters = map[string]func(*flame.Graph, io.Writer) error{"folded": (*flame.Graph).Folded, "flame": (*flame.Graph).SVG, "pprof": (*flame.Graph).Pprof}

// stackGraph is an empty graph for the events of a recording.
func (f *viewFlags) stackGraph(o *opened) *flame.Graph {
	g := &flame.Graph{Title: f.title(o), Unit: "events"}
	if f.weight != "" {
		g.Unit = f.weight
	}
	return g
}

// title is what a drawing is called.
func (f *viewFlags) title(o *opened) string {
	return strings.Join(append([]string{filepath.Base(o.traces[0].Name)}, f.events...), " ")
}

// kinds counts events that are no stacks of others.
func kinds(formats []*traceevent.Format) (n int) {
	for _, f := range formats {
		if !f.IsStack() {
			n++
		}
	}
	return n
}

// opened are recordings as one.
type opened struct {
	traces  []*record.Trace
	stream  traceevent.Stream
	source  *events.Source
	formats []*traceevent.Format
	start   uint64 // when the first event is, if begun
	begun   bool
}

func (o *opened) close() {
	for _, t := range o.traces {
		t.Close()
	}
}

// shifted moves the times of a stream.
type shifted struct {
	traceevent.Stream
	by int64
}

func (s shifted) Next(e *traceevent.Event) bool {
	if !s.Stream.Next(e) {
		return false
	}
	e.Time += uint64(s.by)
	if e.Since > 0 {
		e.Since += uint64(s.by)
	}
	return true
}

// openRecordings opens recordings; all are shown in the clock of the first. What ended before the time from, in ns of that clock,
// is passed over where that saves reading.
func openRecordings(names []string, from uint64) (_ *opened, err error) {
	if names, err = ofHosts(names); err != nil {
		return nil, err
	}
	o := &opened{}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	var streams []traceevent.Stream
	for _, n := range names {
		t, err := record.Open(n)
		if err != nil {
			return nil, viewError(n, err)
		}
		o.traces = append(o.traces, t)
		o.formats = append(o.formats, t.Formats...)
		by := t.ToReal - o.traces[0].ToReal
		if len(o.traces) > 1 && (t.ToReal == 0 || o.traces[0].ToReal == 0) {
			return nil, &diag.Error{What: "merge " + n, Because: "one of the recordings does not tell how its clock relates to the time of day", Code: diag.ExitBadInput}
		}
		for _, s := range t.Streams() {
			if k, ok := s.(interface{ SkipTo(time uint64) }); ok && int64(from)-by > 0 {
				k.SkipTo(uint64(int64(from) - by))
			}
			if by != 0 {
				s = shifted{s, by}
			}
			streams = append(streams, s)
		}
	}
	first := o.traces[0]
	o.source = &events.Source{Env: &first.Env, ToReal: first.ToReal}
	if first.Tasks != nil {
		o.source.Comm = func(tid int, time uint64) (string, bool) { k, ok := first.Tasks.At(tid, time); return k.Comm, ok }
	}
	o.source.User = o.userStack
	o.stream = traceevent.Merge(streams)
	return o, nil
}

// userStack names a program's stack by the recording that knows most of it.
func (o *opened) userStack(tgid int, time uint64, addrs []uint64) []events.Frame {
	var best []events.Frame
	most := -1
	for _, t := range o.traces {
		out, known := make([]events.Frame, len(addrs)), 0
		for i, f := range t.UserStack(tgid, uint64(int64(time)-t.ToReal+o.traces[0].ToReal), addrs) {
			if f.UserFunc != nil {
				out[i] = events.Frame{Name: f.Name, File: f.File, At: f.Off}
				known++
			}
		}
		if known > most {
			best, most = out, known
		}
	}
	return best
}

// viewError tells why a recording cannot be read.
func viewError(name string, err error) error {
	var bad *bin.FormatError
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
		return diag.NoInput("open recording", err)
	case errors.Is(err, record.ErrNoRecording) || errors.As(err, &bad):
		return diag.BadInput("read recording "+name, err)
	}
	return wrap("read recording "+name, err)
}

func (f *viewFlags) run(c *cobra.Command, args []string) (err error) {
	usage := func(text string) error { return usageError{c.CommandPath(), errors.New(text)} }
	ways := 0
	for _, b := range []bool{f.json, f.csv, f.stats, f.to != "", f.pair != "", f.time, f.html != "" && f.pair == "", f.serve != ""} {
		if b {
			ways++
		}
	}
	switch {
	case len(args) == 0:
		return usage("which recording?")
	case ways > 1:
		return usage("one of -j, --csv, --stats, --latency, --timeline, --html, --serve and --to")
	case f.heat && f.pair == "" && (len(args) != 1 || ways > 0 && f.html == ""):
		return usage("--heatmap draws latencies, with --latency 'FROM TO', or the histograms in one FILE that trace -j wrote")
	case f.heat && f.pair == "" && (f.filter != "" || len(f.cpus) > 0 || f.from > 0 || f.until > 0 || f.wall || f.strict):
		return usage("--heatmap of histograms has no events to choose from: -e NAME chooses maps, --top how many")
	case f.html != "" && f.output != "":
		return usage("--html names its file: without -o")
	case f.serve != "" && (f.output != "" || f.strict):
		return usage("--serve writes nothing and has no end: without -o and --strict")
	case f.to == "ctf" && f.output == "":
		return usage("--to ctf makes a folder: -o DIR")
	case f.to != "" && !slices.Contains(conversions, f.to):
		return usage(fmt.Sprintf("no format %q: %s", f.to, strings.Join(conversions, ", ")))
	case f.weight != "" && stackWriters[f.to] == nil:
		return usage("--weight is about stacks: --to folded, flame or pprof")
	}
	for _, e := range f.events {
		if _, err := path.Match(e, ""); err != nil || e == "" {
			return usage(fmt.Sprintf("the pattern %q", e))
		}
	}
	if f.serve != "" {
		return f.browse(c, args)
	}
	if f.heat && f.pair == "" {
		return f.histograms(c.OutOrStdout(), args[0])
	}
	o, err := openRecordings(args, 0)
	if err != nil {
		return err
	}
	defer o.close()
	pick, err := f.picker(c, o)
	if err != nil {
		return err
	}
	w, done, err := f.writer(c.OutOrStdout(), o)
	if err != nil {
		return err
	}
	missing, err := f.copy(o, pick, w)
	if derr := done(); err == nil {
		err = derr
	}
	f.notes(o)
	if err == nil && f.strict && missing {
		return exitError{exitLost}
	}
	return err
}

// copy shows what was picked, and says if events are missing.
func (f *viewFlags) copy(o *opened, pick func(*traceevent.Event) bool, w events.Writer) (missing bool, err error) {
	var e traceevent.Event
	for o.stream.Next(&e) {
		if e.Format == nil {
			missing = true
		}
		if !pick(&e) {
			continue
		}
		if err := w.Event(&e); err != nil {
			return missing, fmt.Errorf("write: %w", err)
		}
	}
	var nothing *events.NothingError
	if err := w.Close(); errors.As(err, &nothing) {
		return missing, &diag.Error{What: "show " + o.traces[0].Name, Because: nothing.Msg, Code: diag.ExitFailure, Try: []string{"fathom view --stats " + o.traces[0].Name}}
	} else if err != nil {
		return missing, fmt.Errorf("write: %w", err)
	}
	if err := o.stream.Err(); err != nil {
		return true, viewError(o.traces[0].Name, err)
	}
	return missing, nil
}

// picker gives the condition that all flags make together.
func (f *viewFlags) picker(c *cobra.Command, o *opened) (func(*traceevent.Event) bool, error) {
	kinds := map[*traceevent.Format]bool{}
	for _, ft := range o.formats {
		kinds[ft] = len(f.events) == 0 || ft.IsStack()
		for _, p := range f.events {
			s, err := record.ParseSpec(p)
			if err != nil {
				return nil, usageError{c.CommandPath(), err}
			}
			kinds[ft] = kinds[ft] || s.Matches(ft.System, ft.Name)
		}
	}
	var kept []*traceevent.Format
	for _, ft := range o.formats {
		if kinds[ft] {
			kept = append(kept, ft)
		}
	}
	if len(kept) == 0 && len(f.events) > 0 {
		return nil, &diag.Error{What: "show " + strings.Join(f.events, ", "), Because: fmt.Sprintf("none of the recording's %d events matches", len(o.formats)),
			Try: []string{"fathom view --stats " + o.traces[0].Name}}
	}
	o.formats = kept
	var cond *match.Filter
	if f.filter != "" {
		comm := func(e *traceevent.Event) (string, bool) {
			if o.source.Comm != nil {
				if name, ok := o.source.Comm(int(e.Format.PIDField().Int(e.Rec)), e.Time); ok {
					return name, true
				}
			}
			c := e.Format.CommField()
			return string(c.String(e.Rec)), c != nil
		}
		var err error
		if cond, err = match.Parse(f.filter, comm); err != nil {
			return nil, conditionError(c.CommandPath(), "--filter", err)
		}
	}
	all := len(f.events) == 0
	pick := func(e *traceevent.Event) bool {
		if !o.begun {
			o.start, o.begun = e.Time, true
		}
		switch at := time.Duration(e.Time - min(e.Time, o.start)); {
		case e.Format != nil && !all && !kinds[e.Format]:
			return false
		case f.from > 0 && at < f.from, f.until > 0 && at > f.until:
			return false
		case len(f.cpus) > 0 && !contains(f.cpus, e.CPU):
			return false
		}
		return cond == nil || cond.Match(e)
	}
	taken := map[int]bool{} // of a CPU, if its last event was
	return func(e *traceevent.Event) bool {
		if e.Format.IsStack() {
			return taken[e.CPU] // it goes with its event
		}
		ok := pick(e)
		if e.Format != nil {
			taken[e.CPU] = ok
		}
		return ok
	}, nil
}

func contains(list []int, n int) bool {
	for _, v := range list {
		if v == n {
			return true
		}
	}
	return false
}

// writer gives what shows the events. done closes the file.
func (f *viewFlags) writer(out io.Writer, o *opened) (w events.Writer, done func() error, err error) {
	done = func() error { return nil }
	if f.to == "ctf" {
		w, err := record.NewExport(f.output, o.traces[0], o.formats)
		return w, done, err
	}
	if name := cmp.Or(f.output, f.html); name != "" {
		file, err := os.Create(name)
		if err != nil {
			return nil, nil, fmt.Errorf("open output: %w", err)
		}
		out, done = file, file.Close
	}
	switch {
	case f.json:
		w = events.NewJSON(out, o.source)
	case f.csv:
		w, err = events.NewCSV(out, o.source, o.formats)
	case f.stats:
		w = events.NewStats(out, o.source, f.top)
	case f.pair != "":
		if w, err = f.latencies(out, o); err != nil {
			return nil, nil, errors.Join(err, done())
		}
	case f.time:
		w = events.NewTimeline(out, term.Width(out, os.Getenv), f.top, term.UTF8(os.Getenv))
	case f.html != "":
		w = events.NewPage(out, o.source, f.title(o), o.said(), f.top)
	case f.to == "perfetto":
		w = events.NewPerfetto(out, o.source)
	case f.to == "chrome":
		w = events.NewChrome(out, o.source)
	case stackWriters[f.to] != nil:
		w = events.NewStacks(f.stackGraph(o), o.source, f.weight, kinds(o.formats) > 1, func(g *flame.Graph) error { return stackWriters[f.to](g, out) })
	default:
		w = events.NewText(out, o.source, f.wall)
	}
	return w, done, err
}

// latencies gives what shows the time between two events.
func (f *viewFlags) latencies(out io.Writer, o *opened) (events.Writer, error) {
	pair, err := events.ParsePair(f.pair)
	if err != nil {
		return nil, usageError{"fathom view", fmt.Errorf("--latency %w", err)}
	}
	is := func(pattern, system, name string) bool { return record.Spec{Pattern: pattern}.Matches(system, name) }
	if f.html != "" {
		return events.NewLatencyPage(out, o.source, pair, is, f.top, f.title(o), o.said())
	}
	l, err := events.NewLatency(out, o.source, pair, is, f.top)
	if err == nil && f.heat {
		l.HeatText(term.Width(out, os.Getenv), term.UTF8(os.Getenv))
	}
	return l, err
}

// notes tell what a person should know of the recordings.
func (f *viewFlags) notes(o *opened) {
	if f.quiet {
		return
	}
	for _, n := range o.said() {
		fmt.Fprintf(os.Stderr, "fathom: %s\n", n)
	}
}

// said is what the recordings say of themselves that a person should know.
func (o *opened) said() (out []string) {
	for _, t := range o.traces {
		for _, n := range t.Notes {
			out = append(out, t.Name+": "+n)
		}
		if a := t.Account; a != nil && (a.Missed > 0 || a.Error != "") {
			n := t.Name + ": " + lossText(a)
			if a.Error != "" {
				n += "; ended by itself: " + a.Error
			}
			out = append(out, n)
		}
	}
	return out
}
