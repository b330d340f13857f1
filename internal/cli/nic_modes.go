package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/polling"
	"github.com/fathom-trace/fathom/internal/term"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
	netlive "github.com/fathom-trace/fathom/netstate/live"
	"github.com/fathom-trace/fathom/probe"
)

// modesRounds is how often modes take turns.
const modesRounds = 3

// checkModes refuses what makes no sense with --modes, and its flags without it.
func (f *nicFlags) checkModes(fl *pflag.FlagSet, modes, dev bool) error {
	load := f.to != "" || len(f.cmd) > 0
	switch {
	case !modes && len(f.cmd) > 0:
		return errors.New("a command is the load of --modes")
	case !modes && (f.to != "" || f.system):
		return errors.New("--to and --allow-system-changes are for --modes")
	case !modes:
		return nil
	case !dev && (load || f.system || fl.Changed("netns")):
		return errors.New("--modes without a device makes a veth pair and its load itself: no --to, no command, no --netns, nothing to allow")
	case dev && f.to != "" && len(f.cmd) > 0:
		return errors.New("--to and a command are two loads: give one")
	case dev && !load:
		return errors.New("--modes needs a load: --to ADDRESS of who sends back datagrams (fathom lab listen udp :7 --echo), or -- CMD")
	case dev && !f.system:
		return errors.New("--modes changes how the device is polled, for as long as it measures: --allow-system-changes lets it")
	}
	return nil
}

// modes compares interrupts, deferred ones, busy polling and threads.
func (f *nicFlags) modes(ctx context.Context, stdout, stderr io.Writer) (err error) {
	sweep()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	o := polling.Options{Dev: f.dev, For: f.forTime, Rounds: modesRounds, Command: f.cmd, Output: stderr}
	if f.dev == "" {
		p, err := polling.NewPair(ctx)
		if err != nil {
			return modesError(err)
		}
		defer func() { err = errors.Join(err, p.Close()) }()
		o.Reader, o.Dev, o.To = p.Reader, p.A.Dev, p.To
		if p.XDP != nil {
			fmt.Fprintf(stderr, "fathom: %s has no NAPI instances without an XDP program: %v\n", o.Dev, p.XDP)
		}
	} else {
		if o.Reader, err = netlive.Open(f.netns); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, o.Reader.Close()) }()
		dir := leases()
		o.Leases = &dir
		if f.to != "" {
			if o.To, err = echoAt(f.to); err != nil {
				return usageError{"fathom nic --modes", err}
			}
		}
	}
	devs, err := (&nicFlags{dev: o.Dev}).devices(o.Reader)
	if err != nil {
		return err
	}
	o.Index = devs[0].Index
	for _, v := range devs[0].Vectors {
		o.IRQs = append(o.IRQs, v.IRQ)
	}
	w, _, cpus, end, err := nicWorld()
	if err != nil {
		return err
	}
	defer end()
	counting := f.pollsOf(&o, w, cpus)
	defer func() { err = errors.Join(err, counting.close()) }()
	if term.IsTerminal(stderr) {
		o.Note = func(round int, m nic.Mode) { fmt.Fprintf(stderr, "fathom: round %d of %d: %s\n", round+1, o.Rounds, m) }
	}
	res, err := polling.Compare(ctx, o)
	if err != nil {
		return modesError(err)
	}
	res.Missing = append(res.Missing, counting.missing...)
	out := bufio.NewWriter(stdout)
	if f.json {
		err = res.WriteJSON(out)
	} else {
		err = res.WriteText(out)
	}
	return errors.Join(err, out.Flush())
}

// echoAt reads who sends back datagrams: at the port for that (RFC 862) if none is given.
func echoAt(s string) (netip.AddrPort, error) {
	const echo = 7
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(a, echo), nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return a, fmt.Errorf("--to is ADDRESS[:PORT]: %w", err)
	}
	return a, nil
}

// countedPolls are programs that count polls, and what they cannot.
type countedPolls struct {
	polls   *nic.Polls
	missing []string
}

func (c *countedPolls) close() error {
	if c.polls == nil {
		return nil
	}
	return c.polls.Close()
}

// pollsOf has programs count what goes on while modes are measured. Without them the rest is measured all the same.
func (f *nicFlags) pollsOf(o *polling.Options, w *probe.World, cpus int) *countedPolls {
	c := &countedPolls{}
	ns := uint32(o.Reader.NS().Inode)
	p, err := nic.OpenPolls(w, cpus, o.Index, ns)
	if err != nil {
		c.missing = []string{"polls, and the time of NET_RX: " + err.Error()}
		if len(o.Command) > 0 {
			c.missing = append(c.missing, "how long packets took, for the same reason")
		}
		return c
	}
	c.polls, o.Polls = p, p.Read
	o.Stages = func() (*nic.Latency, error) {
		return nic.OpenLatency(w, nic.LatencyOptions{Index: o.Index, NetNS: ns, Slow: f.slow, CPUs: cpus})
	}
	return c
}

// modesError gives errors their form.
func modesError(err error) error {
	if errors.Is(err, traffic.ErrNobody) || errors.Is(err, syscall.ECONNREFUSED) {
		return &diag.Error{What: "compare modes", Because: err.Error(), Err: err, Code: exitNegative,
			Try: []string{"fathom lab listen udp :7 --echo", "ping the address that --to names"}}
	}
	return fmt.Errorf("compare modes: %w", err)
}
