package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/answers/packet"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/packets"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/wire/filter"
)

// packetFlags are what both forms of the verb take.
type packetFlags struct {
	o       packets.Options
	json    bool
	quiet   bool
	verbose bool
	strict  bool
	color   term.When
	expect  string
	latency bool
	pcap    string
	html    string
	chrome  string
	dry     bool
	save    string
	mark    int64
	pids    []uint
	hosts   hostFlags
}

func packetCommand() *cobra.Command {
	f := &packetFlags{mark: -1}
	c := &cobra.Command{
		Use:   "packet [flags] [FILTER]",
		Short: "Say what happened to packets: where they stopped, why, and which rule, route or setting did it",
		Long: `Follow packets that match FILTER (tcpdump's language) through this machine and all its network namespaces, and say of
each flow what became of it: where it was lost, why, which object did it, and how to mend that; then the way of a packet.
Nothing is changed, no rule is added: tracepoints tell the way, and the state of the machine, read when it happens, the
reason. Ends with Ctrl-C, --for or -c.

Examples:
  fathom packet host 10.0.0.2 and udp port 53
  fathom packet --netns web --for 10s -j 'tcp port 443'
  fathom packet drops --for 1m`,
		RunE: func(c *cobra.Command, args []string) error {
			if f.hosts.given() {
				return f.onHosts(c, strings.Join(args, " "))
			}
			return f.run(c, strings.Join(args, " "))
		},
	}
	c.Args = cobra.ArbitraryArgs
	f.flags(c)
	fl := c.Flags()
	fl.UintSliceVarP(&f.pids, "pid", "p", nil, "begin with packets that process `PID` sends")
	fl.StringVar(&f.o.Comm, "comm", "", "begin with packets that processes of this `NAME` send")
	fl.BoolVar(&f.o.Plain, "plain", false, "look at tracepoints alone, also where functions can be watched")
	f.latencyFlag(fl)
	f.hosts.add(fl)
	c.AddCommand(packetDropsCommand(), packetExplainCommand(), packetDiffCommand(), packetWhyCommand())
	return c
}

func packetDropsCommand() *cobra.Command {
	f := &packetFlags{mark: -1}
	c := &cobra.Command{
		Use:   "drops [flags] [FILTER]",
		Short: "Watch everything that is lost on the machine, or on several",
		Long: `Watch every packet that is lost on this machine, with the reason and the object to blame, as it happens; a summary at
the end. Only losses are looked at: who sent a packet is not known then. With --host, what several machines lost is one table.

Examples:
  fathom packet drops
  fathom packet drops --netns web --for 1m -j
  fathom packet drops --dev eth0 not arp
  fathom packet drops --host web1,web2,db --for 1m`,
		RunE: func(c *cobra.Command, args []string) error {
			f.o.Losses = true
			if f.hosts.given() {
				return f.dropsOnHosts(c, strings.Join(args, " "))
			}
			return f.run(c, strings.Join(args, " "))
		},
	}
	c.Args = cobra.ArbitraryArgs
	f.flags(c)
	f.hosts.add(c.Flags())
	return c
}

func (f *packetFlags) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.StringSliceVar(&f.o.Netns, "netns", nil, "begin with packets seen in these namespaces: `NAME`s, process numbers or paths")
	fl.BoolVar(&f.o.Within, "within", false, "follow packets in those namespaces only, as if they were a machine of their own")
	fl.StringSliceVar(&f.o.Devs, "dev", nil, "begin with packets seen on these `DEVICE`s")
	fl.Int64Var(&f.mark, "mark", -1, "begin with packets that have this `MARK`; -1 is any")
	fl.Uint64VarP(&f.o.Count, "count", "c", 0, "end after `N` packets")
	forVar(fl, &f.o.For, "end after this `TIME`, such as 10s")
	fl.StringVarP(&f.save, "output", "o", "", "save all that was seen to `FILE`: packet explain FILE tells it again, anywhere")
	fl.BoolVar(&f.dry, "dry-run", false, "only say what would be watched")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages, only the answer")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if events were lost")
	f.answerFlags(fl)
}

// answerFlags are about how the answer is told.
func (f *packetFlags) answerFlags(fl *pflag.FlagSet) {
	fl.StringVar(&f.expect, "expect", "", "exit with 1 unless all that was seen has this `VERDICT`: delivered or dropped")
	fl.StringVar(&f.html, "html", "", "draw the answer on a page, `FILE`, that opens in any browser, offline")
	fl.StringVar(&f.chrome, "chrome", "", "draw the ways of packets as a timeline, `FILE`, that ui.perfetto.dev opens")
	fl.StringVarP(&f.pcap, "write", "w", "", "write the packets that are shown to `FILE`.pcapng, once for each event, with comments")
	fl.BoolVarP(&f.json, "json", "j", false, "one JSON object a line")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "every function, every event, and flows of which nothing was lost")
	fl.Var(&f.color, "color", "`WHEN`: auto, always or never")
}

// latencyFlag is for answers that have packets' whole ways.
func (f *packetFlags) latencyFlag(fl *pflag.FlagSet) {
	fl.BoolVar(&f.latency, "latency", false, "tell how long packets took from stage to stage, and where they waited")
}

// check turns flags into options.
func (f *packetFlags) check(c *cobra.Command, expr string) error {
	bad := func(format string, args ...any) error {
		return usageError{c.CommandPath(), fmt.Errorf(format, args...)}
	}
	expr, err := f.o.Split(expr)
	if err != nil {
		return bad("the filter: %v", err)
	}
	f.o.Filter = expr
	if f.o.Losses && (len(f.o.PIDs) > 0 || f.o.Comm != "" || f.o.Cgroup != 0) {
		return bad("the filter: where a packet is lost, its sender is not known: pid, comm and cgroup are for fathom packet")
	}
	if _, err := filter.Compile(expr, filter.Options{Metadata: true}); err != nil {
		var fe *filter.Error
		if errors.As(err, &fe) {
			return usageError{c.CommandPath(), errors.New("the filter means nothing\n" + fe.Text())}
		}
		return bad("the filter: %v", err)
	}
	switch {
	case f.expect != "" && f.expect != "delivered" && f.expect != "dropped":
		return bad("--expect is delivered or dropped, not %q", f.expect)
	case f.dry && answered(c.Flags()) != "":
		return bad("--%s: with --dry-run there is no answer", answered(c.Flags()))
	case f.o.Within && len(f.o.Netns) == 0:
		return bad("--within is about the namespaces of --netns: name them, --netns NAME")
	case f.mark > 0xffffffff || f.mark < -1:
		return bad("--mark %d: out of range", f.mark)
	}
	if f.mark >= 0 {
		m := uint32(f.mark)
		f.o.Mark = &m
	}
	for _, p := range f.pids {
		if p > pidMax {
			return bad("process %d: out of range", p)
		}
		f.o.PIDs = append(f.o.PIDs, uint32(p))
	}
	for _, d := range f.o.Devs {
		if len(d) > 15 {
			return bad("--dev %s: names of devices have at most 15 bytes", d)
		}
	}
	return nil
}

// answered gives a flag that was given and is about the answer, "" if none was.
func answered(fl *pflag.FlagSet) string {
	for _, name := range []string{"output", "expect", "html", "chrome", "write", "verbose", "latency", "strict", "count", "for", "quiet"} {
		if fl.Changed(name) {
			return name
		}
	}
	return ""
}

// memory is how many bytes of it are taken before garbage is collected still more often: the program itself and the kernel's
// types, which are mapped, come on top.
const memory = 24 << 20

func (f *packetFlags) run(c *cobra.Command, expr string) error {
	if err := f.check(c, expr); err != nil {
		return err
	}
	if f.dry {
		return f.plan()
	}
	sweep()
	var stop func()
	f.o.Interrupt, stop = interrupts()
	defer stop()
	f.o.Ready, f.o.More = f.ready, f.more
	st := f.style()
	if f.o.Losses && !f.json {
		f.o.Lost = func(v *packet.Verdict) {
			if v != nil {
				packet.Line(os.Stdout, v, st)
			}
		}
	}
	// Garbage is collected once packets are seen; what is made until then, programs, is soon forgotten.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	defer frugal(memory)()
	var told func(*packet.Recording) error
	switch {
	case far() && f.o.Losses:
		told = f.farLosses()
	case far():
		told = f.farTrails()
	}
	rec, err := packets.Run(c.Context(), f.o)
	if err != nil {
		return absent(err)
	}
	if told != nil {
		return told(rec)
	}
	if f.save != "" {
		if err := toFile(f.save, rec.Save); err != nil {
			return err
		}
	}
	return f.tell(rec, st)
}

// absent says what to do about what was asked for and is not there.
func absent(err error) error {
	if errors.Is(err, packets.ErrAbsent) {
		return &diag.Error{What: "follow packets", Because: err.Error(), Try: []string{"fathom lab list", "ip -br link"}, Code: diag.ExitNoInput, Err: err}
	}
	return err
}

// plan says what would be watched.
func (f *packetFlags) plan() error {
	targets, functions, missing, err := packets.Plan(f.o)
	if err != nil {
		return absent(err)
	}
	if f.json {
		return jsonl.Write(os.Stdout, map[string]any{"type": "plan", "targets": targets, "functions": functions, "missing": missing})
	}
	for _, list := range []struct {
		title string
		names []string
	}{
		{"would be watched", targets}, {"then, by one call (kprobe.multi)", functions}, {"this kernel has not got", missing},
	} {
		if len(list.names) > 0 {
			fmt.Printf("%s:\n  %s\n", list.title, strings.Join(list.names, "\n  "))
		}
	}
	return nil
}

// tell writes the answer.
func (f *packetFlags) tell(rec *packet.Recording, st packet.Style) (err error) {
	vs := packet.Explain(rec)
	if f.pcap != "" {
		if err := toFile(f.pcap, func(w io.Writer) error { return packet.PcapNG(w, rec, vs, rec.BootToReal) }); err != nil {
			return err
		}
	}
	if f.chrome != "" {
		if err := toFile(f.chrome, func(w io.Writer) error { return packet.Chrome(w, rec, vs) }); err != nil {
			return err
		}
	}
	if f.html != "" {
		if err := toFile(f.html, func(w io.Writer) error { return packet.HTML(w, rec, vs) }); err != nil {
			return err
		}
	}
	if f.json {
		err = packet.JSON(os.Stdout, rec, vs, f.verbose)
	} else {
		err = packet.Text(os.Stdout, rec, vs, st)
	}
	if err != nil {
		return err
	}
	return f.result(rec, vs)
}

// toFile writes a file; what was written of it stays if the disk is full.
func toFile(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	b := bufio.NewWriter(f)
	return errors.Join(write(b), b.Flush(), f.Close())
}

func (f *packetFlags) style() packet.Style {
	return packet.Style{ASCII: !term.UTF8(os.Getenv), Verbose: f.verbose, Latency: f.latency, Color: term.Color(f.color, os.Stdout, os.Getenv)}
}

// ready says that packets are seen now, and how.
func (f *packetFlags) ready(level string, missing []string) {
	// Events become garbage at once: collecting it twice as often as usual costs little and halves what a flood takes.
	defer debug.SetGCPercent(50)
	if f.json {
		_ = jsonl.Write(os.Stdout, map[string]any{"type": "ready", "level": level, "missing": append([]string{}, missing...)})
		return
	}
	if !f.quiet {
		fmt.Fprintf(os.Stderr, "following packets by %s; Ctrl-C ends\n", level)
		if f.verbose && len(missing) > 0 {
			fmt.Fprintf(os.Stderr, "this kernel has not got: %s\n", strings.Join(missing, ", "))
		}
	}
}

// more says by which means packets are seen from now on.
func (f *packetFlags) more(level string, missing []string) {
	switch {
	case f.json:
		_ = jsonl.Write(os.Stdout, map[string]any{"type": "level", "level": level, "missing": append([]string{}, missing...)})
	case f.quiet:
	case len(missing) == 0:
		fmt.Fprintf(os.Stderr, "from now on by %s\n", level)
	case f.verbose:
		fmt.Fprintf(os.Stderr, "still by %s: %s\n", level, strings.Join(missing, ", "))
	}
}

// result is the exit code: what --expect asks for, and --strict.
func (f *packetFlags) result(rec *packet.Recording, vs []*packet.Verdict) error {
	if f.strict && rec.LostRing+rec.Missed > 0 {
		return exitError{exitLost}
	}
	if f.expect == "" {
		return nil
	}
	var good, lost bool
	for _, v := range vs {
		switch v.Class {
		case packet.ClassDelivered, packet.ClassFalseLoss:
			good = true
		default:
			lost = true
		}
	}
	if f.expect == "delivered" && (lost || !good) || f.expect == "dropped" && !lost {
		return exitError{exitNegative}
	}
	return nil
}
