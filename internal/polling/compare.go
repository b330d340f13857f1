package polling

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/answers/nic"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
	"github.com/fathom-trace/fathom/netstate/live"
	netnic "github.com/fathom-trace/fathom/netstate/nic"
)

// Place is a namespace.
type Place interface{ Do(func() error) error }

// Options say what is compared.
type Options struct {
	Reader  *live.Reader // of the device's namespace
	Dev     string
	Index   int
	IRQs    []int      // the device's
	Leases  *lease.Dir // who has changed its settings is recorded here; nil for a device that goes with this process
	To      netip.AddrPort
	Command []string // is the load, instead of questions to To
	Output  io.Writer
	For     time.Duration // of each mode
	Rounds  int           // in which modes take turns; a command runs once
	// Polls counts polls; nil if they cannot be counted, and Stages is how packets of a command are followed.
	Polls  func() (nic.PollCounts, error)
	Stages func() (*nic.Latency, error)
	Note   func(round int, m nic.Mode) // is told what is measured; may be nil
}

// Compare measures the device in all modes in turns, in another order each round, and puts its settings back. The end of the
// context is no error: what was measured is given.
func Compare(ctx context.Context, o Options) (_ *nic.Modes, err error) {
	s, err := borrow(&o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.giveBack()) }()
	m := o.head()
	for _, mode := range nic.AllModes() {
		m.Rows = append(m.Rows, nic.ModeResult{Mode: mode})
	}
	rounds := o.Rounds
	if len(o.Command) > 0 {
		rounds = 1
	}
	for round := range rounds {
		for i := range m.Rows {
			row := &m.Rows[(i+round)%len(m.Rows)]
			if row.Refused != "" || ctx.Err() != nil {
				continue
			}
			if o.Note != nil {
				o.Note(round, row.Mode)
			}
			if err := s.mode(row.Mode); err != nil {
				row.Refused = o.why(row.Mode, err)
				continue
			}
			if err := o.measure(ctx, row, o.For/time.Duration(rounds)); err != nil {
				return nil, err
			}
		}
	}
	for i := range m.Rows {
		if r := &m.Rows[i]; r.Took == 0 && r.Refused == "" {
			r.Refused = "it ended before"
		}
		o.evidence(&m.Rows[i])
	}
	return m, nil
}

func (o *Options) head() *nic.Modes {
	m := &nic.Modes{Dev: o.Dev, Times: "round trips", Set: fmt.Sprintf("%s=%s %s=%s", deferIRQs, deferPolls, groTimeout, flushNS)}
	m.Load = fmt.Sprintf("questions to %s one after the other, for %s in each mode, in %d rounds", o.To, o.For, o.Rounds)
	if len(o.Command) > 0 {
		m.Load, m.Times = strings.Join(o.Command, " "), "from the interrupt to who reads"
	}
	return m
}

// why says why a mode cannot be had.
func (o *Options) why(m nic.Mode, err error) string {
	if m == nic.ByThread && errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Sprintf("%v: its driver has no NAPI instances that a thread could have", err)
	}
	return err.Error()
}

// measure puts a mode under load once.
func (o *Options) measure(ctx context.Context, row *nic.ModeResult, span time.Duration) error {
	var polled nic.PollCounts
	var err error
	if o.Polls != nil {
		if polled, err = o.Polls(); err != nil {
			return err
		}
	}
	before, began := o.Reader.Activity(), time.Now()
	if len(o.Command) > 0 {
		err = o.run(ctx, row, span)
	} else {
		err = o.ask(ctx, row, span)
	}
	if err != nil || row.Refused != "" {
		return err
	}
	took := time.Since(began)
	after := o.Reader.Activity()
	row.Took += took
	row.CPU += nic.Busy(before, after)
	rx := "iplink." + o.Dev + ".rx_packets"
	row.Packets += after.Counters[rx] - before.Counters[rx]
	if len(o.IRQs) > 0 {
		n := total(after, o.IRQs) - total(before, o.IRQs)
		if row.IRQs != nil {
			n += *row.IRQs
		}
		row.IRQs = &n
	}
	if o.Polls != nil {
		now, err := o.Polls()
		if err != nil {
			return err
		}
		sum := now.Minus(polled)
		if row.Polled != nil {
			sum = sum.Plus(*row.Polled)
		}
		row.Polled = &sum
	}
	return nil
}

func total(s *netnic.Sample, irqs []int) (n uint64) {
	for _, irq := range irqs {
		if row, ok := s.Interrupts.ByIRQ(irq); ok {
			for _, c := range row.Counts {
				n += c
			}
		}
	}
	return n
}

// ask is the load of our own.
func (o *Options) ask(ctx context.Context, row *nic.ModeResult, span time.Duration) error {
	var h nic.Hist
	q := traffic.AskOptions{From: o.Reader, To: o.To, For: span, Took: func(d time.Duration) { h.Add(uint64(d)) }}
	if row.Mode == nic.ByBusyPoll {
		q.Busy = busyMicros * time.Microsecond
	}
	a, err := traffic.Ask(ctx, q)
	switch {
	case q.Busy > 0 && errors.Is(err, unix.ENOPROTOOPT):
		row.Refused = fmt.Sprintf("%v: this kernel is without CONFIG_NET_RX_BUSY_POLL", err)
		return nil
	case err != nil:
		return err
	case q.Busy > 0 && a.NAPI == 0:
		row.Notes = []string{"answers came by no NAPI instance, or the driver does not say by which: there was nothing that a socket could poll"}
	}
	row.Trips += h.Count
	row.Lost += uint64(a.Lost)
	row.Rounds = append(row.Rounds, h.Quantile(.5))
	row.Times.Join(&h)
	return nil
}

// run has a command as load, until it ends or its time has come, and follows the packets that it causes.
func (o *Options) run(ctx context.Context, row *nic.ModeResult, span time.Duration) (err error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Command[0], o.Command[1:]...)
	cmd.Stdout, cmd.Stderr = o.Output, o.Output
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 2 * time.Second
	var l *nic.Latency
	if o.Stages != nil {
		if l, err = o.Stages(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	if err := o.Reader.Do(cmd.Start); err != nil {
		return fmt.Errorf("run %s: %w", o.Command[0], err)
	}
	err = cmd.Wait()
	switch exit := (*exec.ExitError)(nil); {
	case ctx.Err() != nil || err == nil:
	case errors.As(err, &exit):
		row.Notes = append(row.Notes, fmt.Sprintf("the command ended with %v", exit))
	default:
		return fmt.Errorf("run %s: %w", o.Command[0], err)
	}
	if l == nil {
		return nil
	}
	res, err := l.Result()
	if err != nil {
		return err
	}
	row.Times.Join(&res.Whole)
	if res.Whole.Count == 0 {
		row.Notes = append(row.Notes, fmt.Sprintf("no packet could be followed from its interrupt to who reads it; %d were received outside of NET_RX", res.Outside))
	}
	return nil
}

// evidence says what a mode did not do although nobody refused it.
func (o *Options) evidence(r *nic.ModeResult) {
	p := r.Polled
	if r.Refused != "" || p == nil || r.Packets == 0 {
		return
	}
	switch {
	case p.Polls == 0 && r.Mode == nic.ByInterrupt:
		r.Notes = append(r.Notes, "no NAPI instance of "+o.Dev+" was polled: its packets come by the CPU's backlog")
	case p.Polls == 0:
		r.Notes = append(r.Notes, "no NAPI instance of "+o.Dev+" was polled: its packets come by the CPU's backlog, and the mode changes nothing")
	case r.Mode == nic.ByThread && p.Outside == 0:
		r.Notes = append(r.Notes, "no thread was seen to poll")
	case r.Mode == nic.ByBusyPoll && p.Outside == 0:
		r.Notes = append(r.Notes, "nobody who waited was seen to poll: the sockets did not, or packets were there already")
	}
}
