package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/record/session"
	"github.com/fathom-trace/fathom/tracefs"
)

// recordFlags say what to record.
type recordFlags struct {
	events  []string
	filter  string
	dir     string
	forTime time.Duration
	buffer  string
	pid     int
	follow  bool
	stacks  []string
	ask     string
	json    bool
	quiet   bool
	strict  bool
	segs    segmentFlags
	hosts   hostFlags
}

// recorder is what records: into one folder, or in segments.
type recorder interface {
	Check() error // that all is as it should be; the next segment begins if it is time
	Failed() <-chan struct{}
	Meta() *record.Meta
	Stop() (acc *record.Account, removed int, err error)
}

// whole is a recording in one folder.
type whole struct{ *record.Recorder }

func (w whole) Check() error { return nil }

func (w whole) Stop() (*record.Account, int, error) {
	acc, err := w.Recorder.Stop()
	return acc, 0, err
}

// start begins to record.
func (f *recordFlags) start(o record.Options) (recorder, error) {
	s := session.Spec{Name: filepath.Base(o.Dir), Dir: o.Dir}
	if err := f.segs.into(&s); err != nil {
		return nil, err
	}
	if s.SegmentBytes == 0 && s.SegmentTime == 0 {
		r, err := record.Start(o)
		return whole{r}, err
	}
	return session.NewSegments(s, o)
}

func recordCommand() *cobra.Command {
	f := &recordFlags{}
	c := &cobra.Command{
		Use:   "record -e EVENT… [flags] [-- COMMAND [ARG…]]",
		Short: "Record kernel events, to look at later",
		Long: `Record events of this kernel in a tracing instance of its own, until the command ends, the time is over, or Ctrl-C. The
recording is a folder in the Common Trace Format 1.8, which babeltrace2 and Trace Compass open; fathom view opens it and
others. An event is SYSTEM:NAME, a system, or a name, with * and ?, and perhaps a condition in the kernel's filter language.
What was lost is counted exactly and told where it is missing. Exits with the command's code.
Sessions, which fathom record create makes, record in the background until they are destroyed.

Examples:
  fathom record -e 'sched:*' -e skb:kfree_skb -o /tmp/r1 -- sleep 1
  fathom record -e 'net:net_dev_queue if len > 1000' -o /tmp/r2 --for 5s
  fathom record -e raw_syscalls -F -o /tmp/r3 -- ls / && fathom view /tmp/r3`,
		Args: func(c *cobra.Command, args []string) error {
			if dash := c.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
				return usageError{c.CommandPath(), errors.New("give a command only behind --")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if f.hosts.given() {
				return f.onHosts(c, args)
			}
			return f.run(c, args)
		},
	}
	fl := c.Flags()
	f.hosts.add(fl)
	fl.StringArrayVarP(&f.events, "event", "e", nil, "record `EVENT`: 'sched:*', syscall:openat, 'kprobe:vfs_read n=$arg3', uprobe:FILE:NAME, 'EVENT if CONDITION'")
	fl.StringVar(&f.ask, "ask", "", "record what this `PROGRAM` needs (a file, a tool, or the text), for fathom trace --on DIR PROGRAM")
	conditionVar(fl, &f.filter, "filter", "condition in the kernel's filter `LANGUAGE` for all events without one of their own")
	fl.StringVarP(&f.dir, "output", "o", "", "record into the new folder `DIR` (default fathom-DATE-TIME)")
	forVar(fl, &f.forTime, "end after this `TIME`, such as 10s")
	fl.StringVar(&f.buffer, "buffer", "", "ring buffer of each CPU: `SIZE` such as 8k, 16M (default 16M, less on many CPUs)")
	fl.IntVarP(&f.pid, "pid", "p", 0, "only process `PID`, its threads and children")
	fl.BoolVarP(&f.follow, "follow", "F", false, "only the command and its children, not the whole machine meanwhile")
	fl.StringSliceVar(&f.stacks, "stack", nil, "record the stack of every event, `WHOSE`: kernel, user, or both")
	f.segs.add(fl)
	fl.BoolVarP(&f.json, "json", "j", false, "print the account as a JSON object")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if events were lost")
	c.AddCommand(sessionCommands()...)
	c.AddCommand(newEventCommand())
	return c
}

func (f *recordFlags) run(c *cobra.Command, command []string) (err error) {
	o, err := f.options(c, command)
	if err != nil {
		return err
	}
	sweep()
	in, stop := interrupts()
	defer stop()
	l, err := live.Open(live.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	o.Symbol = addressNames(l)
	o.Constant = l.Constant
	var child *script.Command
	if len(command) > 0 {
		if child, err = script.StartCommand(command); err != nil {
			return err
		}
		defer child.Kill()
		if f.follow {
			o.PIDs = []int{child.PID()}
		}
	}
	r, err := f.start(o)
	if err != nil {
		return recordError(err)
	}
	if child != nil {
		if err := child.Resume(); err != nil {
			_, _, stopErr := r.Stop()
			return errors.Join(err, stopErr)
		}
	}
	rotErr := f.await(c.Context(), r, child, in)
	acc, removed, err := r.Stop()
	err = errors.Join(rotErr, err)
	if acc != nil && (err == nil || acc.Events > 0) {
		if err := f.report(c.OutOrStdout(), o.Dir, r, acc, removed); err != nil {
			return err
		}
	}
	switch {
	case err != nil:
		return recordError(err)
	case child != nil && child.Code() != 0:
		return exitError{child.Code()}
	case f.strict && acc.Missed+acc.Left > 0:
		return exitError{exitLost}
	}
	return nil
}

func (f *recordFlags) options(c *cobra.Command, command []string) (o record.Options, err error) {
	usage := func(text string) error { return usageError{c.CommandPath(), errors.New(text)} }
	switch {
	case len(f.events) == 0 && f.ask == "":
		return o, usage("which events? -e EVENT, such as -e 'sched:*'; fathom trace -l 'tracepoint:*' lists them")
	case f.follow && len(command) == 0:
		return o, usage("-F is about a command")
	case f.pid != 0 && len(command) > 0:
		return o, usage("give a process or a command, not both")
	case f.segs.size == "" && f.segs.time == 0 && (f.segs.keep != 0 || f.segs.max != ""):
		return o, usage("--keep and --max-size are about segments: --segment-size or --segment-time")
	case f.pid < 0 || f.pid > pidMax:
		return o, usage(fmt.Sprintf("process %d: out of range", f.pid))
	}
	if err := f.segs.into(&session.Spec{}); err != nil {
		return o, usage(err.Error())
	}
	o = record.Options{Dir: f.dir, Command: command, Leases: leases()}
	asked, wanted, err := asks(f.ask, f.filter)
	if err != nil {
		return o, err
	}
	o.Events = asked
	for _, e := range f.events {
		s, err := record.ParseSpec(e)
		if err != nil {
			return o, usage(err.Error())
		}
		if s.Filter == "" {
			s.Filter = f.filter
		}
		o.Events = append(o.Events, s)
	}
	if o.Dir == "" {
		o.Dir = "fathom-" + time.Now().Format("20060102-150405")
	}
	if o.Stacks, err = parseStacks(f.stacks); err != nil {
		return o, usage(err.Error())
	}
	o.Stacks.Kernel, o.Stacks.User = o.Stacks.Kernel || wanted.Kernel, o.Stacks.User || wanted.User
	if f.pid != 0 {
		o.PIDs = []int{f.pid}
	}
	if o.BufferKB, err = ringSize(f.buffer); err != nil {
		return o, usage(err.Error())
	}
	return o, nil
}

// asked is the program that --ask means: a file, a tool, or the text itself.
func asked(program string) *syntax.Source {
	if b, err := os.ReadFile(program); err == nil {
		return &syntax.Source{Name: program, Text: string(b)}
	} else if t, ok := examples.Find(program); ok {
		return &syntax.Source{Name: t.Name + ".bt", Text: t.Text}
	}
	return &syntax.Source{Name: "--ask", Text: program}
}

// asks tells what must be recorded for a program; nothing without one.
func asks(program, filter string) (specs []record.Spec, stacks record.Stacks, err error) {
	if program == "" {
		return nil, stacks, nil
	}
	specs, stacks, ds := script.Asks(asked(program))
	if len(ds) > 0 {
		diag.Render(os.Stderr, ds, style())
		return nil, stacks, script.ErrDiagnosed
	}
	for i := range specs {
		specs[i].Filter = filter
	}
	return specs, stacks, nil
}

// parseStacks reads whose stacks are wanted.
func parseStacks(list []string) (s record.Stacks, err error) {
	for _, w := range list {
		switch w {
		case "kernel":
			s.Kernel = true
		case "user":
			s.User = true
		default:
			return s, fmt.Errorf("--stack %s: kernel or user", w)
		}
	}
	return s, nil
}

// ringSize reads the size of a ring buffer, and gives it in KiB; 0 if there is none.
func ringSize(text string) (int, error) {
	if text == "" {
		return 0, nil
	}
	n, err := parseSize(text)
	if err != nil || n < 4<<10 || n > 1<<40 {
		return 0, fmt.Errorf("--buffer %s: a size such as 64k or 16M, of at least 4k", text)
	}
	return int(n >> 10), nil
}

// parseSize reads a number of bytes with a unit of 1024s.
func parseSize(s string) (int64, error) {
	shift := map[string]int{"": 0, "k": 10, "m": 20, "g": 30}
	digits := strings.TrimRight(s, "kKmMgGiIbB")
	unit := strings.TrimRight(strings.ToLower(s[len(digits):]), "ib")
	by, ok := shift[unit]
	if !ok {
		return 0, fmt.Errorf("no unit %s", unit)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > 1<<(62-by) {
		return 0, fmt.Errorf("no size: %s", s)
	}
	return n << by, nil
}

// addressNames names addresses of this kernel; nil where it hides them.
func addressNames(l *live.Live) func(uint64) (string, uint64, uint64, string, bool) {
	t, err := l.Kallsyms()
	if err != nil || t.Hidden() != nil {
		return nil
	}
	starts := sync.OnceValue(func() (out []uint64) { // a symbol ends where the next begins
		for s := range t.Text() {
			out = append(out, s.Addr)
		}
		return slices.Compact(out)
	})
	return func(addr uint64) (string, uint64, uint64, string, bool) {
		name, mod, off, ok := t.ByAddr(addr)
		if !ok {
			return "", 0, 0, "", false
		}
		size := uint64(0)
		if i, _ := slices.BinarySearch(starts(), addr+1); i < len(starts()) {
			size = starts()[i] - (addr - off)
		}
		return name, off, size, mod, ok
	}
}

// await waits for the end of a recording, which an error is, too.
func (f *recordFlags) await(ctx context.Context, r recorder, child *script.Command, in <-chan os.Signal) error {
	var end <-chan time.Time
	if f.forTime > 0 {
		t := time.NewTimer(f.forTime)
		defer t.Stop()
		end = t.C
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-in:
			return nil
		case <-end:
			return nil
		case <-r.Failed():
			return nil
		case <-tick.C:
			if err := r.Check(); err != nil {
				return err
			}
			if child != nil && child.Exited() {
				return nil
			}
			if f.pid != 0 {
				if _, err := os.Stat(fmt.Sprintf("/proc/%d", f.pid)); err != nil {
					return nil
				}
			}
		}
	}
}

func (f *recordFlags) report(w io.Writer, dir string, r recorder, acc *record.Account, removed int) error {
	if f.json {
		return jsonl.Write(w, struct {
			Type    string `json:"type"`
			Dir     string `json:"dir"`
			Removed int    `json:"removed,omitempty"` // segments
			*record.Account
		}{"recording", dir, removed, acc})
	}
	if f.quiet {
		return nil
	}
	caps := ""
	if removed > 0 {
		caps = fmt.Sprintf("; the caps took the oldest %d segments with theirs", removed)
	}
	fmt.Fprintf(os.Stderr, "fathom: %d events of %d kinds recorded into %s: %s%s\n", acc.Events, len(r.Meta().Events), dir, lossText(acc), caps)
	return nil
}

// lossText says what is missing.
func lossText(acc *record.Account) string {
	s := "none lost"
	if acc.Missed > 0 {
		cpus := 0
		for _, c := range acc.CPUs {
			if c.Missed > 0 {
				cpus++
			}
		}
		s = fmt.Sprintf("%d lost in %d gaps on %d CPUs (%.2f%%); a larger --buffer loses fewer", acc.Missed, len(acc.Gaps), cpus, 100*float64(acc.Missed)/float64(max(acc.Written, 1)))
	}
	if acc.Left > 0 {
		left := fmt.Sprintf("%d lost that were in the kernel's buffers when it ended by itself", acc.Left)
		if acc.Missed > 0 {
			left = s + "; " + left
		}
		s = left
	}
	if !acc.Exact {
		s += fmt.Sprintf("; the kernel counted %d written, which is not the sum", acc.Written)
	}
	return s
}

// recordError tells why there is no recording.
func recordError(err error) error {
	const what = "record"
	var none *tracefs.NoEventError
	var filter *record.FilterError
	switch {
	case errors.As(err, &none):
		e := &diag.Error{What: what, Because: "no event of this kernel matches " + none.Pattern, Err: err, Code: diag.ExitFailure}
		for _, n := range none.Near {
			e.Try = append(e.Try, "fathom record -e "+n)
		}
		if len(e.Try) == 0 {
			e.Try = []string{"fathom trace -l 'tracepoint:*'"}
		}
		return e
	case errors.As(err, &filter):
		return &diag.Error{What: "filter " + filter.Event, Because: "the kernel refuses the condition: " + filter.Log, Err: err, Code: diag.ExitFailure,
			Try: []string{fmt.Sprintf("fathom trace -lv 'tracepoint:%s'", filter.Event)}}
	case errors.Is(err, record.ErrRecorded):
		return &diag.Error{What: what, Because: err.Error(), Err: err, Try: []string{"fathom record -o DIR with another folder"}}
	}
	return err
}
