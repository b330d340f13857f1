package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/bypass/compare"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/lab/topology"
)

func bypassCompare() *cobra.Command {
	f := compareFlags{o: compare.Options{Rounds: 5, Count: 5000, For: 500 * time.Millisecond, Size: 60}}
	c := &cobra.Command{
		Use:   "compare [flags]",
		Short: "Measure the kernel's sockets beside AF_XDP: latency, packets, CPU, and where bypass loses",
		Long: `Make two network namespaces on a veth pair and measure, in rounds in which all take turns: ordinary UDP sockets of Go,
busy-polling ones, AF_PACKET, AF_XDP, waiting by Go's netpoller and spinning, past all devices shared memory, and TCP, the
kernel's and ours on AF_XDP. Round trips (p50, p99, p99.9, a histogram), packets and bits a second, and CPU time of both
sides. What the rounds do not agree on is inconclusive. Nothing of the machine's network is touched.

Examples:
  fathom bypass compare
  fathom bypass compare --ways udp,xsk-spin --rounds 11 --count 20000
  fathom bypass compare --for 0 -S -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.flags(c.Flags(), compare.Ways())
	c.Flags().IntVar(&f.o.Count, "count", f.o.Count, "`N` round trips of each in each round, after a tenth that is not timed")
	c.Flags().DurationVar(&f.o.For, "for", f.o.For, "send for this `TIME` in each round; 0: no rates")
	return c
}

func bypassTick() *cobra.Command {
	f := compareFlags{o: compare.Options{Rounds: 5, Count: 5000, Size: 60, Gap: 50 * time.Microsecond, Tick: true}}
	c := &cobra.Command{
		Use:   "tick [flags]",
		Short: "Measure from a tick of market data to the order for it, by sockets and around the kernel",
		Long: `Make two network namespaces on a veth pair: in one an exchange sends ticks to a group of multicast, in the other a strategy
answers each with an order over TCP. Measured is the time from tick to order, as the exchange sees it, which always has sockets
of the kernel that are read without waiting, and sends the next tick --gap later. The ways of the strategy take turns: sockets
of Go, sockets that are read without waiting, ticks by AF_XDP with orders by the kernel's TCP, and both by TCP/IP in user space,
queued or with the order written where the tick is received. Each order is checked against its tick. What the rounds do not
agree on is inconclusive. Nothing of the machine's network is touched.

Examples:
  fathom bypass tick
  fathom bypass tick --ways sockets,netstack-inline --rounds 11 --count 20000
  fathom bypass tick -S -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c) },
	}
	f.flags(c.Flags(), compare.TickWays())
	c.Flags().IntVar(&f.o.Count, "count", f.o.Count, "`N` ticks for each in each round, after a tenth that is not timed")
	c.Flags().DurationVar(&f.o.Gap, "gap", f.o.Gap, "send the next tick this `TIME` after an order; 0: at once")
	return c
}

// compareFlags are the flags of compare and tick.
type compareFlags struct {
	o               compare.Options
	ways, cpus      string
	generic, asJSON bool
	all             []compare.Way
}

func (f *compareFlags) flags(fl *pflag.FlagSet, ways []compare.Way) {
	f.all = ways
	fl.IntVar(&f.o.Rounds, "rounds", f.o.Rounds, "measure `N` times; 3 at least for a verdict")
	fl.IntVarP(&f.o.Size, "size", "s", f.o.Size, "frames of `N` bytes")
	fl.StringVar(&f.ways, "ways", "", "`WAYS`, beside the first: "+list(ways))
	fl.StringVar(&f.cpus, "cpus", "", "`A,B`: the CPUs of both sides (default: the first and the last); none leaves them free")
	fl.BoolVarP(&f.generic, "xdp-skb", "S", false, "attach in generic mode")
	fl.BoolVarP(&f.asJSON, "json", "j", false, "print the report as JSON")
}

func (f *compareFlags) run(c *cobra.Command) error {
	if err := f.options(); err != nil {
		return usageError{c.CommandPath(), err}
	}
	return runCompare(c, f.o, f.asJSON)
}

// list is ways with commas.
func list(ways []compare.Way) string {
	var s []string
	for _, w := range ways {
		s = append(s, string(w))
	}
	return strings.Join(s, ",")
}

// options reads flags.
func (f *compareFlags) options() error {
	o := &f.o
	if o.Rounds < 1 || o.Count < 1 || o.For < 0 || o.Gap < 0 || o.Size < 60 || o.Size > 1514 {
		return errors.New("--rounds and --count are 1 or more, --for and --gap are not negative, --size is 60 to 1514")
	}
	for w := range strings.SplitSeq(f.ways, ",") {
		if f.ways == "" {
			break
		}
		if !slices.Contains(f.all, compare.Way(w)) {
			return fmt.Errorf("no way %q: %v", w, f.all)
		}
		o.Ways = append(o.Ways, compare.Way(w))
	}
	if f.generic {
		o.Mode = steer.Generic
	}
	switch f.cpus {
	case "":
		o.A.CPU, o.B.CPU = compare.CPUs()
	case "none":
		o.A.CPU, o.B.CPU = -1, -1
	default:
		if n, err := fmt.Sscanf(f.cpus, "%d,%d", &o.A.CPU, &o.B.CPU); n != 2 || err != nil || o.A.CPU < 0 || o.B.CPU < 0 {
			return fmt.Errorf("--cpus is A,B or none, not %q", f.cpus)
		}
	}
	return nil
}

func runCompare(c *cobra.Command, o compare.Options, asJSON bool) (err error) {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt)
	defer stop()
	pair, err := topology.NewPair("va", "vb")
	if err != nil {
		return bypassError(c.Name(), err)
	}
	defer func() { err = errors.Join(err, pair.Close()) }()
	for _, e := range []struct {
		p *compare.Place
		h topology.Host
	}{{&o.A, pair.A}, {&o.B, pair.B}} {
		e.p.Device = xsk.Device{Name: e.h.Dev, NetNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), e.h.FD())}
		e.p.Addr, _ = netip.AddrFromSlice(e.h.Addr.To4())
	}
	o.Command = []string{"/proc/self/exe", "bypass", sideCommand}
	tty := term.IsTerminal(os.Stderr)
	o.Note = func(round int, w compare.Way, r compare.Role) {
		if tty {
			fmt.Fprintf(os.Stderr, "\rround %d of %d: %-16s %-8s ", round+1, o.Rounds, w, r)
		}
	}
	r, err := compare.Run(ctx, o)
	if tty {
		fmt.Fprint(os.Stderr, "\r                                        \r")
	}
	if err != nil && !errors.Is(err, context.Canceled) || r == nil {
		return bypassError(c.Name(), err)
	}
	if asJSON {
		return jsonl.Write(c.OutOrStdout(), struct {
			*compare.Report
			Comparisons []compare.Comparison `json:"comparisons"`
		}{r, r.Compare()})
	}
	return r.WriteText(c.OutOrStdout())
}

// sideCommand is one side of a comparison. compare starts it; it is not for people.
const sideCommand = "side"

func bypassSide() *cobra.Command {
	return &cobra.Command{
		Use: sideCommand + " JOB", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var j compare.Job
			if err := json.Unmarshal([]byte(args[0]), &j); err != nil {
				return usageError{"fathom bypass compare", err}
			}
			return compare.Serve(j, io.Reader(os.Stdin), os.Stdout)
		},
	}
}
