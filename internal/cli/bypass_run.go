package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/jsonl"
)

func bypassCommand() *cobra.Command {
	var f bypassFlags
	var tx, rx, l2fwd bool
	c := &cobra.Command{
		Use:   "bypass -t|-r|-l -i DEVICE [flags] | bypass COMMAND",
		Short: "Go around the kernel: AF_XDP, steering, rings between processes, and what it gains",
		Long: `Send, receive, forward and answer packets past the kernel's network, through AF_XDP sockets; see who holds programs, queues
and sockets; load XDP programs; compare with ordinary sockets. -t, -r and -l with xdpsock's flags are tx, rx and l2fwd. An XDP
program that is there already is never removed; what fathom attaches goes with it. fathom help bypass tells more.

Examples:
  fathom bypass tx -i veth1 --netns ns1 --to 10.0.0.2
  fathom bypass -t -i veth1 -S -c -G 00:00:00:00:00:02 -H 00:00:00:00:00:01
  fathom bypass status`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case tx && !rx && !l2fwd:
				return f.tx(c)
			case rx && !tx && !l2fwd:
				return f.rx(c)
			case l2fwd && !tx && !rx:
				return f.forward(c, false)
			case !tx && !rx && !l2fwd && c.Flags().NFlag() == 0:
				return c.Help()
			}
			return usageError{"fathom bypass", errors.New("one of -t, -r, -l, or a command")}
		},
	}
	fl := c.Flags()
	fl.BoolVarP(&tx, "txonly", "t", false, "send, as tx does")
	fl.BoolVarP(&rx, "rxdrop", "r", false, "receive, as rx does")
	fl.BoolVarP(&l2fwd, "l2fwd", "l", false, "send back what arrives, as l2fwd does")
	f.common(fl)
	f.counting(fl)
	f.sending(fl)
	f.receiving(fl)
	fl.VisitAll(func(p *pflag.Flag) {
		p.Hidden = !slices.Contains([]string{"txonly", "rxdrop", "l2fwd", "interface"}, p.Name)
	}) // tx, rx and l2fwd list them
	c.AddCommand(bypassTx(), bypassRx(), bypassForward(), bypassEcho(), bypassRTT(), bypassProgram(), bypassCompare(), bypassTick(), bypassStatus(), bypassWhy(), bypassProg(), bypassExplain(), bypassRDMA(), bypassSide(), bypassEnter())
	return c
}

func bypassTx() *cobra.Command {
	var f bypassFlags
	c := &cobra.Command{
		Use:   "tx -i DEVICE --to ADDRESS|-G MAC [flags]",
		Short: "Send numbered datagrams as fast as the device takes them",
		Long: `Send UDP datagrams, numbered so that rx can account for each, until -C packets are sent, -d or --for is over, or Ctrl-C. To send
takes no XDP program; with -S or -N one that passes everything is attached, as xdpsock does.

Examples:
  fathom bypass tx -i veth1 --to 10.0.0.2:4096 -C 1000000
  fathom bypass tx -i veth1 --netns ns1 -G 00:00:00:00:00:02 -H 00:00:00:00:00:01 -c
  fathom bypass tx -i eth0 -q all -z -b 256 --to 192.0.2.7 --for 10s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.tx(c) },
	}
	f.common(c.Flags())
	f.counting(c.Flags())
	f.sending(c.Flags())
	return c
}

func bypassRx() *cobra.Command {
	var f bypassFlags
	c := &cobra.Command{
		Use:   "rx -i DEVICE [flags]",
		Short: "Take packets from the kernel, count them, and account for those that tx numbered",
		Long: `Take packets that match --filter past the kernel and drop them, counted; of those that tx sent say which are lost, came
twice, or are corrupt. All others stay the kernel's. It ends after -C packets, with -d or --for, or with Ctrl-C.

Examples:
  fathom bypass rx -i veth2 --netns ns2
  fathom bypass rx -i veth2 --filter 'udp dst port 4096 and src host 10.0.0.1' -C 1000000 --wait netpoll
  fathom bypass rx -i eth0 -q all -N -j --for 10s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.rx(c) },
	}
	f.common(c.Flags())
	f.counting(c.Flags())
	f.receiving(c.Flags())
	return c
}

func bypassForward() *cobra.Command {
	var f bypassFlags
	c := &cobra.Command{
		Use:   "l2fwd -i DEVICE [flags]",
		Short: "Send packets back with the Ethernet addresses swapped",
		Long: `Take packets that match --filter past the kernel and send them back through the same queue, the addresses of Ethernet
swapped, without a copy of our own.

Examples:
  fathom bypass l2fwd -i veth2 --netns ns2
  fathom bypass -l -i veth2 -S -c
  fathom bypass l2fwd -i eth0 -q 0,1 -N --filter 'udp portrange 5000-5010' --for 10s`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.forward(c, false) },
	}
	f.common(c.Flags())
	f.receiving(c.Flags())
	return c
}

func bypassEcho() *cobra.Command {
	var f bypassFlags
	c := &cobra.Command{
		Use:   "echo -i DEVICE [flags]",
		Short: "Answer datagrams past the kernel",
		Long: `Take UDP datagrams of IPv4 that match --filter past the kernel and send each back to its sender. The sender may be an ordinary
program. Other packets that match are dropped.

Examples:
  fathom bypass echo -i veth2 --netns ns2
  fathom bypass echo -i veth2 --wait netpoll --filter 'udp dst port 7'
  fathom bypass echo -i eth0 -q all -N --for 1m`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return f.forward(c, true) },
	}
	f.common(c.Flags())
	f.receiving(c.Flags())
	return c
}

// tx sends.
func (f *bypassFlags) tx(c *cobra.Command) error {
	if f.filter != "" || f.all {
		return usageError{c.CommandPath(), errors.New("--filter and --all are about what is received")}
	}
	cfg, err := f.config()
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	ctx, cancel, err := f.context(c)
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	defer cancel()
	flow, err := f.flow()
	if err != nil {
		return bypassError("send on "+f.device().String(), err)
	}
	const ethernetFCS = 4
	t, err := traffic.NewTemplate(flow, f.size-ethernetFCS)
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	cfg.NoProgram = !f.generic && !f.native
	return f.session(ctx, c.OutOrStdout(), "txonly", cfg, nil, func(ctx context.Context, s *traffic.Session) error {
		return s.Each(ctx, func(ctx context.Context, i int, q *xsk.Queue) error {
			count := f.count
			if count > 0 { // shared out
				n := uint64(len(s.Queues))
				count = f.count/n + min(1, max(0, f.count%n-min(uint64(i), f.count%n)))
				if count == 0 {
					return nil
				}
			}
			_, err := traffic.Send(ctx, q, traffic.SendOptions{Template: t, Stream: i, Count: count, Batch: f.batch, Wait: cfg.Queue.Wait})
			return err
		})
	})
}

// noSending refuses flags of the top command that a direction does not heed.
func (f *bypassFlags) noSending(c *cobra.Command) error {
	return refuseFlags(c, "nothing of one's own is sent", []string{"tx-dmac", "tx-smac", "to", "tx-pkt-size", "tx-vlan-id"})
}

// rx receives.
func (f *bypassFlags) rx(c *cobra.Command) error {
	cfg, ctx, cancel, err := f.receiver(c)
	if err != nil {
		return err
	}
	defer cancel()
	var mu sync.Mutex
	var total traffic.Account
	var came atomic.Uint64 // by all queues
	ctx, enough := context.WithCancel(ctx)
	defer enough()
	more := func(n int) bool {
		if f.count == 0 || came.Add(uint64(n)) < f.count {
			return true
		}
		enough()
		return false
	}
	return f.session(ctx, c.OutOrStdout(), "rxdrop", cfg, &total, func(ctx context.Context, s *traffic.Session) error {
		return s.Each(ctx, func(ctx context.Context, _ int, q *xsk.Queue) error {
			var a traffic.Account
			err := traffic.Receive(ctx, q, f.batch, more, &a)
			mu.Lock()
			defer mu.Unlock()
			total.Add(&a)
			return err
		})
	})
}

// receiver reads what rx, l2fwd and echo share.
func (f *bypassFlags) receiver(c *cobra.Command) (cfg traffic.Config, ctx context.Context, cancel context.CancelFunc, err error) {
	if err := f.noSending(c); err != nil {
		return cfg, nil, nil, err
	}
	if cfg, err = f.config(); err == nil {
		cfg.Rules, err = f.rules()
	}
	if err == nil {
		ctx, cancel, err = f.context(c)
	}
	if err != nil {
		return cfg, nil, nil, usageError{c.CommandPath(), err}
	}
	return cfg, ctx, cancel, nil
}

// forward sends back, or answers.
func (f *bypassFlags) forward(c *cobra.Command, echo bool) error {
	if fl := c.Flags().Lookup("tx-pkt-count"); fl != nil && fl.Changed {
		return usageError{c.CommandPath(), errors.New("-C is about tx and rx")}
	}
	cfg, ctx, cancel, err := f.receiver(c)
	if err != nil {
		return err
	}
	defer cancel()
	name, how := "l2fwd", traffic.Back
	if echo {
		name, how = "echo", traffic.Turn
	}
	return f.session(ctx, c.OutOrStdout(), name, cfg, nil, func(ctx context.Context, s *traffic.Session) error {
		return s.Each(ctx, func(ctx context.Context, _ int, q *xsk.Queue) error {
			return traffic.Forward(ctx, q, q, f.batch, cfg.Queue.Wait, how)
		})
	})
}

// session opens, says what was opened, runs, and prints accounts.
func (f *bypassFlags) session(ctx context.Context, w io.Writer, name string, cfg traffic.Config, a *traffic.Account, run func(context.Context, *traffic.Session) error) (err error) {
	s, err := traffic.Open(ctx, cfg)
	if err != nil {
		return bypassError(name+" on "+f.device().String(), err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if !f.quiet {
		for i, q := range s.Queues {
			fmt.Fprintf(os.Stderr, " sock%d@%s:%d %s %s\n", i, f.dev, q.Key().Queue, name, sessionWords(s, q))
		}
		for _, r := range cfg.Rules {
			what := r.Filter
			if what == "" {
				what = "everything, also what the kernel waits for"
			}
			fmt.Fprintf(os.Stderr, " takes: %s\n", what)
		}
	}
	before, err := traffic.Dropped(cfg.Device)
	if err != nil {
		return bypassError(name+" on "+f.device().String(), err)
	}
	begin := time.Now()
	stop := f.progress(s)
	err = run(ctx, s)
	stop()
	if err != nil {
		return bypassError(name+" on "+f.device().String(), err)
	}
	took := time.Since(begin)
	after, err := traffic.Dropped(cfg.Device)
	if err != nil {
		return bypassError(name+" on "+f.device().String(), err)
	}
	return f.last(w, name, s, a, took, after-before)
}

// sessionWords says how a queue works.
func sessionWords(s *traffic.Session, q *xsk.Queue) string {
	var words []string
	switch {
	case s.Program == nil:
		words = append(words, "no-program")
	case s.Program.Mode() == steer.Generic:
		words = append(words, "xdp-skb")
	default:
		words = append(words, "xdp-drv")
	}
	caps := q.Caps()
	if caps.ZeroCopy {
		words = append(words, "zero-copy")
	} else {
		words = append(words, "copy")
	}
	if caps.NeedWakeup {
		words = append(words, "need-wakeup")
	}
	if caps.MultiBuffer {
		words = append(words, "frags")
	}
	return strings.Join(append(words, q.Options().Wait.String()), " ")
}

// progress prints rates every interval, on the standard error.
func (f *bypassFlags) progress(s *traffic.Session) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		if f.quiet {
			return
		}
		t := time.NewTicker(time.Duration(f.interval) * time.Second)
		defer t.Stop()
		var last xsk.Stats
		at := time.Now()
		for {
			select {
			case <-done:
				return
			case now := <-t.C:
				st, err := sum(s)
				if err != nil {
					return
				}
				d := st.Sub(last)
				sec := now.Sub(at).Seconds()
				fmt.Fprintf(os.Stderr, "%-4s %12.0f pps %14d pkts\n%-4s %12.0f pps %14d pkts\n", "rx", float64(d.RxPackets)/sec, st.RxPackets, "tx", float64(d.TxCompleted)/sec, st.TxCompleted)
				last, at = st, now
			}
		}
	}()
	return func() { close(done); <-ended }
}

// sum adds the statistics of all queues.
func sum(s *traffic.Session) (xsk.Stats, error) {
	var all xsk.Stats
	for _, q := range s.Queues {
		st, err := q.Stats()
		if err != nil {
			return all, err
		}
		all = all.Add(st)
	}
	return all, nil
}

// bypassReport is the last account.
type bypassReport struct {
	Type    string           `json:"type"` // "bypass"
	What    string           `json:"what"`
	Seconds float64          `json:"seconds"`
	Stats   xsk.Stats        `json:"stats"`
	Account *traffic.Account `json:"account,omitempty"`
	Hits    []uint64         `json:"hits,omitempty"`
	Dropped uint64           `json:"device_dropped"` // of what was sent through the device, by anyone
}

// last prints the account, and says by its code whether everything came.
func (f *bypassFlags) last(w io.Writer, name string, s *traffic.Session, a *traffic.Account, took time.Duration, dropped uint64) error {
	st, err := sum(s)
	if err != nil {
		return err
	}
	r := bypassReport{Type: "bypass", What: name, Seconds: took.Seconds(), Stats: st, Account: a, Dropped: dropped}
	if s.Program != nil {
		if r.Hits, err = s.Program.Hits(); err != nil {
			return err
		}
	}
	if f.json {
		return jsonl.Write(w, r)
	}
	if st.RxPackets > 0 || name != "txonly" {
		fmt.Fprintf(w, "rx %d packets, %d bytes, %.0f a second\n", st.RxPackets, st.RxBytes, float64(st.RxPackets)/r.Seconds)
	}
	if name != "rxdrop" {
		fmt.Fprintf(w, "tx %d packets, %d bytes, %.0f a second; %d sent by the device, %d calls\n", st.TxPackets, st.TxBytes, float64(st.TxPackets)/r.Seconds, st.TxCompleted, st.Kicks)
	}
	if a != nil && a.Packets > a.Foreign {
		fmt.Fprintf(w, "of %d numbered packets %d lost, %d twice, %d late, %d corrupt\n", a.Packets-a.Foreign, a.Lost, a.Twice, a.Late, a.Corrupt)
	}
	if dropped > 0 {
		fmt.Fprintf(w, "the device dropped %d packets that were sent: the other end is slower\n", dropped)
	}
	k := st.Kernel
	if k.RxDropped+k.RxRingFull+k.RxFillRingEmpty+k.RxInvalidDescs+k.TxInvalidDescs > 0 {
		fmt.Fprintf(w, "kernel: %d dropped, %d because the ring was full, %d times no frame was there, %d+%d descriptors that mean nothing\n", k.RxDropped, k.RxRingFull, k.RxFillRingEmpty, k.RxInvalidDescs, k.TxInvalidDescs)
	}
	return nil
}

func bypassRTT() *cobra.Command {
	var f bypassFlags
	var count int
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "rtt -i DEVICE --to ADDRESS[:PORT] [flags]",
		Short: "Measure round trips past the kernel",
		Long: `Send numbered datagrams one after the other through an AF_XDP socket to a host that sends them back, such as fathom bypass
echo or an ordinary echo server, and print how long the round trips took.

Examples:
  fathom bypass rtt -i veth1 --netns ns1 --to 10.0.0.2
  fathom bypass rtt -i veth1 --to 10.0.0.2:7 --count 100000 --wait netpoll
  fathom bypass rtt -i eth0 -N --to 192.0.2.7:7 -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.to == "" || count < 1 || timeout <= 0 {
				return usageError{c.CommandPath(), errors.New("--to says who answers; --count is 1 or more, --timeout positive")}
			}
			if err := refuseFlags(c, "one packet is sent at a time", []string{"batch-size"}); err != nil {
				return err
			}
			return f.rtt(c, count, timeout)
		},
	}
	f.common(c.Flags())
	f.sending(c.Flags())
	_ = c.Flags().MarkHidden("batch-size") // it exists
	c.Flags().IntVar(&count, "count", 10000, "`N` round trips")
	c.Flags().DurationVar(&timeout, "timeout", time.Second, "an answer is lost after `TIME`")
	return c
}

// rtt measures.
func (f *bypassFlags) rtt(c *cobra.Command, count int, timeout time.Duration) error {
	cfg, err := f.config()
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	if len(cfg.Queues) != 1 {
		return usageError{c.CommandPath(), errors.New("one queue: -q N, that on which answers arrive")}
	}
	ctx, cancel, err := f.context(c)
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	defer cancel()
	flow, err := f.flow()
	if err != nil {
		return bypassError("rtt on "+f.device().String(), err)
	}
	keep, err := traffic.Reserve(f.device(), &flow)
	if err != nil {
		return bypassError("rtt on "+f.device().String(), err)
	}
	defer keep.Close()
	t, err := traffic.NewTemplate(flow, f.size-4)
	if err != nil {
		return usageError{c.CommandPath(), err}
	}
	r, err := steer.Flow{Proto: "udp", Src: netip.PrefixFrom(flow.Dst.Addr(), 32), SrcPort: steer.Ports{First: flow.Dst.Port()}, DstPort: steer.Ports{First: flow.Src.Port()}}.Rule(steer.ToSocket)
	if err != nil {
		return bypassError("rtt on "+f.device().String(), err)
	}
	cfg.Rules = []steer.Rule{r}
	var h traffic.Times
	err = f.session(ctx, io.Discard, "rtt", cfg, nil, func(ctx context.Context, s *traffic.Session) error {
		return s.Each(ctx, func(ctx context.Context, _ int, q *xsk.Queue) (err error) {
			h.Lost, err = traffic.RoundTrips(ctx, q, t, count, timeout, h.Add)
			return err
		})
	})
	if err != nil {
		return err
	}
	if f.json {
		return jsonl.Write(c.OutOrStdout(), h.Summary())
	}
	if err := h.WriteText(c.OutOrStdout()); err != nil {
		return err
	}
	if h.Count() == 0 {
		return exitError{exitNegative}
	}
	return nil
}
