package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// nicFlags are what fathom nic was asked.
type nicFlags struct {
	dev     string
	netns   string
	json    bool
	verbose bool
	latent  bool
	works   bool
	health  bool
	regs    bool
	ways    bool
	socks   bool
	to      string
	system  bool
	cmd     []string
	html    string
	chrome  string
	color   term.When
	slow    time.Duration
	forTime time.Duration
	watches bool // --for was given
}

func nicCommand() *cobra.Command {
	f := &nicFlags{}
	c := &cobra.Command{
		Use:   "nic [flags] [DEV] [-- CMD]",
		Short: "Show how packets come in: interrupts, NAPI, queues, CPUs; what loses or delays them",
		Long: `Show a network device's way from interrupts to queues: MSI-X vectors, irqs, CPUs, NAPI instances, rings, RPS, XPS, AF_XDP, XDP,
offloads and what they change for who watches. Sources are compared; where they disagree or are silent, that is said. Without
DEV all devices. --health judges the receive path (exits with 1 if it loses packets), --latency measures its stages from the
interrupt to who reads, --work counts what the kernel puts off, --modes compares interrupts, deferred ones, busy polling and
threads, on a veth pair of its own or on DEV under a load, --sockets shows the sockets that code of the kernel has, and with
--for who makes more. fathom help nic tells more.

Examples:
  fathom nic eth0
  fathom nic --health --for 10s
  fathom nic eth0 --latency --for 30s
  fathom nic eth0 --modes --to 10.0.0.2:7 --allow-system-changes`,
		Args: func(c *cobra.Command, args []string) error {
			if n := c.ArgsLenAtDash(); n >= 0 {
				args, f.cmd = args[:n], args[n:]
			}
			return cobra.MaximumNArgs(1)(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			args = args[:len(args)-len(f.cmd)]
			if err := f.check(c.Flags(), len(args) > 0); err != nil {
				return usageError{c.CommandPath(), err}
			}
			if len(args) > 0 {
				f.dev = args[0]
			}
			f.watches = c.Flags().Changed("for")
			return f.run(c.Context(), c.OutOrStdout(), os.Stderr)
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.netns, "netns", "", "devices of namespace `NAME` (a name, a path, a process); default is the own one")
	fl.BoolVarP(&f.json, "json", "j", false, "JSON lines")
	fl.BoolVar(&f.latent, "latency", false, "measure how long packets take from the interrupt to who reads them, stage by stage")
	fl.BoolVar(&f.works, "work", false, "count what the kernel puts off: softirqs, tasklets, timers, work items, by function")
	fl.BoolVar(&f.health, "health", false, "judge the receive path stage by stage: what is lost, what limits it, what to turn")
	fl.BoolVar(&f.regs, "regs", false, "show the registers of DEV that its driver dumps, by name for e1000e and igb")
	fl.BoolVar(&f.ways, "modes", false, "compare the ways of waiting for packets: interrupts, deferred ones, busy polling, threads")
	fl.BoolVar(&f.socks, "sockets", false, "show the sockets that no process has, but code of the kernel, and with --for who makes them meanwhile")
	fl.StringVar(&f.to, "to", "", "with --modes: ask `ADDRESS[:PORT]` behind DEV, which sends back datagrams; port 7 if none is given")
	fl.BoolVar(&f.system, "allow-system-changes", false, "with --modes: set how DEV is polled, meanwhile")
	fl.StringVar(&f.html, "html", "", "write a page with a picture of each device to `FILE`, too")
	fl.StringVar(&f.chrome, "chrome", "", "with --latency: draw the packets that took --slow as a timeline, `FILE`, that ui.perfetto.dev opens")
	fl.Var(&f.color, "color", "with --health, `WHEN`: auto, always or never")
	fl.DurationVar(&f.slow, "slow", time.Millisecond, "with --latency: explain packets that took this `TIME`")
	f.forTime = defaultFor
	forVar(fl, &f.forTime, "measure for this `TIME`")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show all features; with --sockets the path through the kernel")
	return c
}

// Flags that not every question heeds.
func (f *nicFlags) check(fl *pflag.FlagSet, dev bool) error {
	mode := ""
	for _, m := range []string{"health", "latency", "work", "regs", "modes", "sockets"} {
		if !fl.Changed(m) {
			continue
		}
		if mode != "" {
			return fmt.Errorf("--%s and --%s are two questions: ask them one after the other", mode, m)
		}
		mode = m
	}
	refuse := map[string][]string{
		"": {"for", "slow", "color", "chrome"}, "health": {"slow", "html", "chrome"}, "latency": {"verbose", "color", "html"}, "work": {"slow", "color", "netns", "html", "chrome"},
		"regs": {"for", "slow", "color", "verbose", "html", "chrome"}, "modes": {"slow", "color", "verbose", "html", "chrome"},
		"sockets": {"slow", "color", "html", "chrome"},
	}
	for _, name := range refuse[mode] {
		if fl.Changed(name) {
			if mode == "" {
				return fmt.Errorf("--%s has no meaning for the map of a device", name)
			}
			return fmt.Errorf("--%s has no meaning with --%s", name, mode)
		}
	}
	if err := f.checkModes(fl, mode == "modes", dev); err != nil {
		return err
	}
	switch {
	case mode == "regs" && !dev:
		return errors.New("--regs needs a device")
	case mode == "sockets" && dev:
		return errors.New("--sockets is about a network namespace: no device")
	case mode == "sockets" && fl.Changed("verbose") && !fl.Changed("for"):
		return errors.New("-v shows on which path sockets are made: with --for")
	case mode == "work" && dev:
		return errors.New("--work is about the whole machine: no device")
	case f.json && (fl.Changed("verbose") || fl.Changed("color")):
		return errors.New("-j has everything, and no colours: no -v, no --color")
	case f.forTime <= 0:
		return errors.New("--for is longer than nothing")
	case f.slow <= 0:
		return errors.New("--slow is longer than nothing")
	}
	return nil
}

func (f *nicFlags) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	if f.works {
		return f.work(ctx, stdout, stderr)
	}
	if f.ways {
		return f.modes(ctx, stdout, stderr)
	}
	r, err := live.Open(f.netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	switch {
	case f.health:
		return f.judge(ctx, r, stdout, stderr)
	case f.regs:
		return f.registers(r, stdout)
	case f.latent:
		return f.latency(ctx, r, stdout, stderr)
	case f.socks:
		return f.sockets(ctx, r, stdout, stderr)
	}
	return f.show(r, stdout)
}

// devices reads those that were asked for.
func (f *nicFlags) devices(r *live.Reader) ([]*netnic.Device, error) {
	devs, err := r.NICs(f.dev)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usageError{"fathom nic", fmt.Errorf("no network device %q here; fathom nic lists them", f.dev)}
	}
	return devs, err
}

// show writes the map.
func (f *nicFlags) show(r *live.Reader, stdout io.Writer) error {
	devs, err := f.devices(r)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(stdout)
	var maps []*nic.Map
	for i, d := range devs {
		m := nic.NewMap(d)
		maps = append(maps, m)
		if f.json {
			err = m.WriteJSON(out)
		} else {
			if i > 0 {
				fmt.Fprintln(out)
			}
			err = m.WriteText(out, f.verbose)
		}
		if err != nil {
			return err
		}
	}
	if f.html == "" {
		return out.Flush()
	}
	var page bytes.Buffer
	if err := nic.WriteHTML(&page, maps); err != nil {
		return err
	}
	return errors.Join(out.Flush(), os.WriteFile(f.html, page.Bytes(), 0o644))
}
