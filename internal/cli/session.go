package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/record/session"
	"github.com/fathom-trace/fathom/tracefs"
)

// sessionKeeper is what fathom record runs in the background; nobody else calls it.
const sessionKeeper = "keep-session"

// sessionCommands are the verbs below record that are about named sessions. Their names and flags are LTTng's where it has the
// same.
func sessionCommands() []*cobra.Command {
	return []*cobra.Command{createCommand(), enableCommand(), listCommand(), keeperCommand(),
		sessionVerb("start", "Begin to record, into a new segment", `Have a session begin to record what fathom record enable named, into a new segment. Without NAME the session made last.

Examples:
  fathom record start
  fathom record start web
  fathom record start web && ./load && fathom record stop web`, session.Client.Start),
		sessionVerb("stop", "End the segment; returns when all segments are finished", `Have a session stop to record. It stays and can be started again; when this returns, all its segments can be read.

Examples:
  fathom record stop
  fathom record stop web && fathom view /tmp/web --stats
  fathom record stop web -j`, session.Client.Stop),
		sessionVerb("rotate", "End the segment and begin the next one, without a gap", `End the segment that a session records and begin the next one; no event is lost between them. The ended one can be read.

Examples:
  fathom record rotate
  fathom record rotate web && fathom view /tmp/web --until 10s
  fathom record rotate web -j`, session.Client.Rotate),
		sessionVerb("snapshot", "Take what the rings of a flight recorder hold into a folder", `Write what the rings of a flight recorder, a session made with --snapshot, hold now into a folder of its own below the
session's. It goes on recording.

Examples:
  fathom record snapshot
  fathom record snapshot crash && fathom view fathom-crash --stats
  fathom record snapshot crash -j`, session.Client.Snapshot),
		sessionVerb("destroy", "End the session; what was recorded stays", `End a session and remove what the kernel holds for it. What was recorded stays.

Examples:
  fathom record destroy
  fathom record destroy web
  fathom record destroy web && fathom view /tmp/web --timeline`, session.Client.Destroy)}
}

// createFlags say what a session is made with.
type createFlags struct {
	spec     session.Spec
	buffer   string
	segments segmentFlags
	when     string
	stacks   []string
	json     bool
}

// segmentFlags say how a recording is in segments.
type segmentFlags struct {
	size, max string
	time      time.Duration
	keep      int
}

func (f *segmentFlags) add(fl *pflag.FlagSet) {
	fl.StringVar(&f.size, "segment-size", "", "begin a new segment when one has this `SIZE`")
	fl.Var(span{&f.time}, "segment-time", "begin a new segment after this `TIME`")
	fl.IntVar(&f.keep, "keep", 0, "keep the last `N` segments or snapshots, remove older ones")
	fl.StringVar(&f.max, "max-size", "", "remove the oldest segments when all have more than this `SIZE`")
}

// into reads the flags.
func (f *segmentFlags) into(s *session.Spec) (err error) {
	const least = 64 << 10
	for _, size := range []struct {
		flag, text string
		to         *int64
	}{{"--segment-size", f.size, &s.SegmentBytes}, {"--max-size", f.max, &s.MaxBytes}} {
		if size.text == "" {
			continue
		}
		if *size.to, err = parseSize(size.text); err != nil || *size.to < least {
			return fmt.Errorf("%s %s: a size such as 10M, of at least %dk", size.flag, size.text, least>>10)
		}
	}
	if f.keep < 0 {
		return errors.New("--keep: a number of segments")
	}
	s.SegmentTime, s.Keep = f.time, f.keep
	return nil
}

func createCommand() *cobra.Command {
	f := &createFlags{}
	c := &cobra.Command{
		Use:   "create [NAME] [flags]",
		Short: "Make a session, which records in the background until it is destroyed",
		Long: `Make a session. It outlives this command: enable its events, start and stop it, look at it with fathom view DIR at any time, and
destroy it at last. Where a NAME may be given to the other verbs and is not, the session made last is meant.

Examples:
  fathom record create web --output=/tmp/web --segment-size 100M --keep 10
  fathom record enable -e 'net:*' -e sched:sched_switch
  fathom record start; sleep 60; fathom record stop; fathom view /tmp/web --stats; fathom record destroy
  fathom record create crash --snapshot --when 'sched:sched_process_exit if comm == "nginx"' --after 1s`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	fl := c.Flags()
	fl.StringVarP(&f.spec.Dir, "output", "o", "", "record into the new folder `DIR` (default fathom-NAME)")
	fl.BoolVar(&f.spec.Flight, "snapshot", false, "a flight recorder: the rings keep the latest events until fathom record snapshot")
	fl.StringVar(&f.buffer, "buffer", "", "ring buffer of each CPU: `SIZE` such as 8k, 16M (default 16M, less on many CPUs)")
	fl.StringSliceVar(&f.stacks, "stack", nil, "record the stack of every event, `WHOSE`: kernel, user, or both")
	f.segments.add(fl)
	fl.StringVar(&f.when, "when", "", "take a snapshot when this `EVENT` comes: 'EVENT if CONDITION'")
	fl.Var(span{&f.spec.After}, "after", "take it this `TIME` later")
	fl.BoolVarP(&f.json, "json", "j", false, "print the session as a JSON object")
	return c
}

func (f *createFlags) run(c *cobra.Command, args []string) error {
	usage := func(text string) error { return usageError{c.CommandPath(), errors.New(text)} }
	s := f.spec
	if err := f.segments.into(&s); err != nil {
		return usage(err.Error())
	}
	if s.Name = "auto-" + time.Now().Format("20060102-150405"); len(args) > 0 {
		s.Name = args[0]
	}
	if err := session.CheckName(s.Name); err != nil {
		return usage(err.Error())
	}
	switch {
	case s.Flight && (s.SegmentBytes > 0 || s.SegmentTime > 0):
		return usage("a flight recorder has snapshots, no segments")
	case !s.Flight && f.when != "":
		return usage("--when is about a flight recorder: --snapshot")
	case f.when == "" && s.After > 0:
		return usage("--after what? --when 'EVENT if CONDITION'")
	}
	var err error
	if s.BufferKB, err = ringSize(f.buffer); err != nil {
		return usage(err.Error())
	}
	if s.Stacks, err = parseStacks(f.stacks); err != nil {
		return usage(err.Error())
	}
	if f.when != "" {
		w, err := record.ParseSpec(f.when)
		if err != nil {
			return usage(err.Error())
		}
		s.When = &w
	}
	if s.Dir == "" {
		s.Dir = "fathom-" + s.Name
	}
	if s.Dir, err = filepath.Abs(s.Dir); err != nil {
		return fmt.Errorf("create session: %w", err)
	}
	s.Leases = leases().Path
	sweep()
	st, err := session.Create([]string{"/proc/self/exe", "record", sessionKeeper}, s)
	if err != nil {
		return &diag.Error{What: "create session " + s.Name, Because: err.Error(), Err: err, Try: []string{"fathom record list"}}
	}
	return showSession(c.OutOrStdout(), st, f.json)
}

// enableFlags say which events a session records.
type enableFlags struct {
	events []string
	kernel bool
	all    bool
	filter string
	name   string
	json   bool
}

func enableCommand() *cobra.Command {
	f := &enableFlags{}
	c := &cobra.Command{
		Use:     "enable [flags] [EVENT[,EVENT]…]",
		Aliases: []string{"enable-event"},
		Short:   "Have a session record more events",
		Long: `Have a session record more events, as -e of fathom record names them. Names of LTTng's are understood. A pattern that matches
nothing is waited for: the events are recorded from the moment on that a module brings them. A session that is recording begins
a new segment, in which they are.

Examples:
  fathom record enable -e 'sched:*' -e 'net:net_dev_queue if len > 1000'
  fathom record enable -s web --filter 'prev_comm == "nginx"' sched:sched_switch
  fathom record enable-event -k 'isw_*','netchan_*',skb_kfree,net_if_receive_skb`,
		RunE: func(c *cobra.Command, args []string) error { return f.run(c, args) },
	}
	fl := c.Flags()
	fl.StringArrayVarP(&f.events, "event", "e", nil, "record `EVENT`: 'sched:*', skb:kfree_skb, 'EVENT if CONDITION'")
	fl.BoolVarP(&f.kernel, "kernel", "k", false, "events of the kernel, which all are: for LTTng's command lines")
	fl.BoolVarP(&f.all, "all", "a", false, "all events there are")
	conditionVar(fl, &f.filter, "filter", "condition in the kernel's filter `LANGUAGE` for all these events without one of their own")
	fl.StringVarP(&f.name, "session", "s", "", "the session of this `NAME` (default the one made last)")
	fl.BoolVarP(&f.json, "json", "j", false, "print the session as a JSON object")
	return c
}

func (f *enableFlags) run(c *cobra.Command, args []string) error {
	usage := func(text string) error { return usageError{c.CommandPath(), errors.New(text)} }
	list := f.events
	for _, a := range args {
		list = append(list, strings.Split(a, ",")...)
	}
	if f.all {
		list = append(list, "*")
	}
	if len(list) == 0 {
		return usage("which events? -e EVENT, such as -e 'sched:*'; fathom record list -k lists them")
	}
	var specs []record.Spec
	for _, e := range list {
		s, err := record.ParseSpec(e)
		if err != nil {
			return usage(err.Error())
		}
		if s.Filter == "" {
			s.Filter = f.filter
		}
		specs = append(specs, s)
	}
	return withSession(c, f.name, f.json, func(k session.Client) (session.Status, error) { return k.Enable(specs) })
}

// sessionVerb is a verb that takes nothing but the name of a session.
func sessionVerb(name, short, long string, do func(session.Client) (session.Status, error)) *cobra.Command {
	asJSON := false
	c := &cobra.Command{
		Use: name + " [NAME]", Short: short, Long: long, Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			session := ""
			if len(args) > 0 {
				session = args[0]
			}
			return withSession(c, session, asJSON, do)
		},
	}
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print the session as a JSON object")
	return c
}

// withSession does something with a session and shows how it is then.
func withSession(c *cobra.Command, name string, asJSON bool, do func(session.Client) (session.Status, error)) error {
	sweep()
	k, err := session.Find(leases(), name)
	if err != nil {
		return sessionError(c.Name(), err)
	}
	st, err := do(k)
	if err != nil {
		return sessionError(c.Name()+" session "+k.Name, err)
	}
	return showSession(c.OutOrStdout(), st, asJSON)
}

func sessionError(what string, err error) error {
	try := []string{"fathom record list"}
	if errors.Is(err, session.ErrNone) {
		try = []string{"fathom record create NAME"}
	}
	return &diag.Error{What: what, Because: err.Error(), Err: err, Code: diag.ExitFailure, Try: try}
}

// showSession prints a session on a line or two, or as a JSON object.
func showSession(w io.Writer, s session.Status, asJSON bool) error {
	if asJSON {
		return jsonl.Write(w, struct {
			Type string `json:"type"`
			session.Status
		}{"session", s})
	}
	kind, bytes := "segments", int64(0)
	if s.Flight {
		kind = "snapshots"
	}
	for _, g := range s.Segments {
		bytes += g.Bytes
	}
	acc := s.Account()
	line := fmt.Sprintf("%s: %s, %d %s of %d events and %.1f MiB in %s", s.Name, s.State, len(s.Segments), kind, acc.Events, float64(bytes)/(1<<20), s.Dir)
	if s.Removed > 0 {
		line += fmt.Sprintf(", %d older ones removed", s.Removed)
	}
	if acc.Missed > 0 || acc.Left > 0 || !acc.Exact {
		line += "; " + lossText(acc)
	}
	if len(s.Waiting) > 0 {
		line += "; no event as yet for " + strings.Join(s.Waiting, " ")
	}
	if s.Error != "" {
		line += "; " + s.Error
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// listCommand lists sessions, or the kernel's events.
func listCommand() *cobra.Command {
	asJSON, kernel := false, false
	c := &cobra.Command{
		Use: "list [NAME]", Short: "List the sessions there are, or with -k the events of the kernel", Args: cobra.MaximumNArgs(1),
		Long: `List the sessions there are, each with its state, segments, size and losses; with -k the events of this kernel that can be
recorded.

Examples:
  fathom record list
  fathom record list web -j
  fathom record list -k | grep sched`,
		RunE: func(c *cobra.Command, args []string) error {
			if kernel && len(args) > 0 {
				return usageError{c.CommandPath(), errors.New("a session, or -k: not both")}
			}
			if kernel {
				return listEvents(c.OutOrStdout(), asJSON)
			}
			return listSessions(c.OutOrStdout(), args, asJSON)
		},
	}
	c.Flags().BoolVarP(&kernel, "kernel", "k", false, "list the events that can be recorded")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON objects, one a line")
	return c
}

func listEvents(w io.Writer, asJSON bool) error {
	fs, err := tracefs.Find()
	if err != nil {
		return err
	}
	defer fs.Close()
	all, err := fs.Events()
	if err != nil {
		return err
	}
	for _, e := range all {
		if asJSON {
			err = jsonl.Write(w, struct {
				Type  string `json:"type"`
				Event string `json:"event"`
			}{"event", e.String()})
		} else {
			_, err = fmt.Fprintln(w, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func listSessions(w io.Writer, args []string, asJSON bool) error {
	sweep()
	all, err := session.List(leases())
	if err != nil {
		return err
	}
	found := false
	for _, k := range all {
		if len(args) > 0 && args[0] != k.Name {
			continue
		}
		st, err := k.Status()
		if errors.Is(err, session.ErrNone) { // it ended meanwhile
			continue
		} else if err != nil {
			return err
		}
		found = true
		if err := showSession(w, st, asJSON); err != nil {
			return err
		}
	}
	if !found && len(args) > 0 {
		return sessionError("list", fmt.Errorf("%w: %s", session.ErrNone, args[0]))
	}
	if !found && !asJSON {
		fmt.Fprintln(os.Stderr, "fathom: no sessions; fathom record create makes one")
	}
	return nil
}

// keeperCommand is the process of a session.
func keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: sessionKeeper, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			l, err := live.Open(live.Options{})
			if err != nil {
				return err
			}
			defer l.Close()
			return session.Keep(c.Context(), os.Stdin, os.Stdout, session.Names{Symbol: addressNames(l), Constant: l.Constant})
		},
	}
}

// lttng is fathom record under the names of LTTng's programs: what its documentation has people type works.
func lttng(program string) *cobra.Command {
	if program == "lttng-sessiond" {
		c := &cobra.Command{Use: program, Short: "Needs no daemon: sessions keep themselves", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error { return nil }}
		c.Flags().BoolP("daemonize", "d", false, "accepted: there is no daemon")
		c.Flags().String("extra-kmod-probes", "", "accepted: the kernel's own events need no `MODULES`")
		return c
	}
	c := recordCommand()
	c.Use = program
	return c
}
