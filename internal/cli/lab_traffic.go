package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// labTraffic are the flags that send and listen share.
type labTraffic struct {
	lab, host, dev string
	etherType      uint16
	forTime        time.Duration
	json           bool
}

func (f *labTraffic) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVar(&f.host, "in", "", "do it in `HOST` of a lab, as lab exec would")
	fl.StringVar(&f.lab, "lab", defaultLab, "`NAME` of the lab")
	fl.StringVar(&f.dev, "dev", "", "`DEVICE` of a multicast group")
	fl.Uint16Var(&f.etherType, "ethertype", 0, "`TYPE` of raw frames (send: 0x88b5; listen: all)")
	forVar(fl, &f.forTime, "end after this `TIME`, such as 10s")
	fl.BoolVarP(&f.json, "json", "j", false, "print what was counted as JSON")
	c.Args = cobra.ExactArgs(2)
	c.ValidArgs = []string{"udp", "tcp", "multicast", "raw"}
}

// run calls f in the host that was chosen, until it ends, Ctrl-C or --for.
func (f *labTraffic) run(c *cobra.Command, protocol string, do func(context.Context) (traffic.Tally, error)) error {
	if !slices.Contains(traffic.Protocols(), traffic.Protocol(protocol)) {
		return usageError{c.CommandPath(), fmt.Errorf("no protocol %q: udp, tcp, multicast or raw", protocol)}
	}
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt)
	defer stop()
	if f.forTime > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.forTime)
		defer cancel()
	}
	var t traffic.Tally
	inside := func() (err error) { t, err = do(ctx); return err }
	var err error
	if f.host == "" {
		err = inside()
	} else {
		ns, oerr := openHost(f.lab, f.host)
		if oerr != nil {
			return oerr
		}
		defer ns.Close()
		err = ns.Do(inside)
	}
	if perr := printTally(os.Stderr, os.Stdout, t, f.json); err == nil {
		err = perr
	}
	if err != nil {
		return &diag.Error{What: c.Name() + " " + protocol, Err: err}
	}
	return nil
}

// printTally says what was counted: for people beside the data, for programs as the data.
func printTally(people, programs io.Writer, t traffic.Tally, asJSON bool) error {
	if asJSON {
		return jsonl.Write(programs, t)
	}
	line := fmt.Sprintf("%d messages, %d bytes", t.Messages, t.Bytes)
	if t.Answers > 0 {
		line += fmt.Sprintf(", %d answers", t.Answers)
	}
	if t.Refused > 0 {
		line += fmt.Sprintf(", %d refused", t.Refused)
	}
	if m, b := t.PerSecond(); m > 0 {
		line += fmt.Sprintf(" in %.3f s: %.0f messages/s, %.3f Mbit/s", t.Took.Seconds(), m, b*8/1e6)
	}
	_, err := fmt.Fprintln(people, line)
	return err
}

func labSendCommand() *cobra.Command {
	var f labTraffic
	var o traffic.SendOptions
	var data string
	var size int
	var wait time.Duration
	c := &cobra.Command{
		Use:   "send [flags] PROTOCOL ADDRESS",
		Short: "Send datagrams, a stream, or frames, and count them",
		Long: `Send udp, tcp, multicast (ADDRESS is HOST:PORT) or raw (ADDRESS is an interface), and say how many and how fast.

Examples:
  fathom lab send --in a udp 10.0.0.2:4096 --data hello
  fathom lab send --in a udp 10.0.0.2:4096 --count 10000 --rate 5000 --size 512
  fathom lab send --in a raw eth0 --dst 00:00:00:00:00:02`,
		RunE: func(c *cobra.Command, args []string) error {
			o.Protocol, o.Addr, o.Dev, o.EtherType, o.Wait = traffic.Protocol(args[0]), args[1], f.dev, f.etherType, wait
			if o.Data = []byte(data); size > 0 {
				o.Data = bytes.Repeat([]byte{'x'}, size)
				copy(o.Data, data)
			}
			if o.Count < 1 || size < 0 || size > 65507 || o.Rate < 0 {
				return usageError{c.CommandPath(), errors.New("--count is 1 or more, --size up to 65507, --rate not negative")}
			}
			o.Answer = func(p []byte) error { _, err := os.Stdout.Write(append(p, '\n')); return err }
			return f.run(c, args[0], func(ctx context.Context) (traffic.Tally, error) { return traffic.Send(ctx, o) })
		},
	}
	f.flags(c)
	fl := c.Flags()
	fl.StringVar(&data, "data", "fathom", "`TEXT` that each message holds")
	fl.IntVar(&size, "size", 0, "make each message `N` bytes long")
	fl.IntVar(&o.Count, "count", 1, "send `N` messages")
	fl.Float64Var(&o.Rate, "rate", 0, "send `N` messages a second")
	fl.DurationVar(&wait, "wait", 0, "wait this `TIME` for an answer to each, and print it")
	fl.StringVar(&o.Dst, "dst", "", "`MAC` that raw frames go to; all if not given")
	return c
}

func labListenCommand() *cobra.Command {
	var f labTraffic
	var o traffic.ListenOptions
	var quiet bool
	c := &cobra.Command{
		Use:   "listen [flags] PROTOCOL ADDRESS",
		Short: "Receive datagrams, streams, or frames, and count them",
		Long: `Receive udp, tcp, multicast (ADDRESS is HOST:PORT) or raw (ADDRESS is an interface), print what comes, and at the end say
how much it was and how fast. Without --count or --for it goes on until Ctrl-C.

Examples:
  fathom lab listen --in b udp 10.0.0.2:4096
  fathom lab listen --in b tcp 10.0.0.2:80 --echo --quiet --for 10s
  fathom lab listen --in b multicast 239.1.2.3:5000 --dev eth0 --count 1`,
		RunE: func(c *cobra.Command, args []string) error {
			if o.Count < 0 {
				return usageError{c.CommandPath(), errors.New("--count is not negative")}
			}
			o.Protocol, o.Addr, o.Dev, o.EtherType = traffic.Protocol(args[0]), args[1], f.dev, f.etherType
			o.Ready = func(addr string) { fmt.Fprintf(os.Stderr, "listening on %s\n", addr) }
			if !quiet && !f.json {
				o.Message = func(from string, p []byte) error { return printMessage(os.Stdout, o.Protocol, from, p) }
			}
			return f.run(c, args[0], func(ctx context.Context) (traffic.Tally, error) { return traffic.Listen(ctx, o) })
		},
	}
	f.flags(c)
	fl := c.Flags()
	fl.IntVar(&o.Count, "count", 0, "end after `N` messages")
	fl.BoolVar(&o.Echo, "echo", false, "send each message back")
	fl.BoolVarP(&quiet, "quiet", "q", false, "do not print messages")
	return c
}

// printMessage writes a stream as it is, and packets one a line.
func printMessage(w io.Writer, p traffic.Protocol, from string, b []byte) error {
	if p == traffic.ProtoTCP {
		_, err := w.Write(b)
		return err
	}
	_, err := fmt.Fprintf(w, "%s %d %q\n", from, len(b), b)
	return err
}
