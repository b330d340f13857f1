package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/bypass/traffic"
	uverbs "github.com/fathom-trace/fathom/bypass/verbs"
	"github.com/fathom-trace/fathom/bypass/verbs/pingpong"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/netstate/rdma"
)

// rdmaFlags are those of bypass rdma.
type rdmaFlags struct {
	dev, listen, to, wait string
	o                     pingpong.Options
	json                  bool
}

func bypassRDMA() *cobra.Command {
	var f rdmaFlags
	c := &cobra.Command{
		Use:   "rdma [-i DEVICE --listen|--to ADDRESS] [flags]",
		Short: "List RDMA devices, or measure round trips between two of them",
		Long: `List the RDMA devices of this machine: driver, ports, addresses, and what is in use of them. With --listen or --to, measure round
trips of messages between two devices: a server sends each message back as it came, and the client checks that it did. The ends find
each other by TCP, where they tell each other their queue pairs; the messages go past it. That takes no root, but a right to
/dev/infiniband, and only devices of the driver rxe are carried: RDMA over Ethernet in software, by UDP port 4791.

Examples:
  fathom bypass rdma
  fathom bypass rdma -i rxe0 --listen :7174
  fathom bypass rdma -i rxe0 --to 192.0.2.7 --count 100000 --size 4096
  fathom bypass rdma -i eth0 --to 192.0.2.7:7174 --wait yield -j`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f.listen == "" && f.to == "" {
				if err := refuseFlags(c, "nothing is measured without --listen or --to", []string{"interface", "count", "size", "wait"}); err != nil {
					return err
				}
				return f.list(c)
			}
			if err := f.check(c); err != nil {
				return usageError{c.CommandPath(), err}
			}
			return f.measure(c)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.dev, "interface", "i", "", "RDMA `DEVICE`, or the network device below it")
	fl.StringVar(&f.listen, "listen", "", "answer clients that ask at this `[ADDRESS]:PORT`")
	fl.StringVar(&f.to, "to", "", "measure to the server at this `ADDRESS[:PORT]`; port "+pingpong.Port+" if none is given")
	fl.IntVar(&f.o.Count, "count", 10000, "`N` round trips")
	fl.IntVarP(&f.o.Size, "size", "s", 64, "messages of `N` bytes")
	fl.StringVar(&f.wait, "wait", "netpoll", "`HOW` to wait: netpoll (sleep) or yield (spin, and let others run in between)")
	fl.BoolVarP(&f.json, "json", "j", false, "JSON, a line for each device, client or measurement")
	return c
}

// check says what is wrong with the flags.
func (f *rdmaFlags) check(c *cobra.Command) error {
	switch {
	case f.listen != "" && f.to != "":
		return errors.New("--listen or --to, not both")
	case f.dev == "":
		return errors.New("name a device: -i DEVICE; fathom bypass rdma lists them")
	case f.listen != "" && (c.Flags().Changed("count") || c.Flags().Changed("size")):
		return errors.New("--count and --size are the client's")
	case f.o.Count < 1 || f.o.Size < 1 || f.o.Size > pingpong.MostSize:
		return fmt.Errorf("--count is 1 or more, --size 1 to %d", pingpong.MostSize)
	}
	w, err := xsk.ParseWait(f.wait)
	if err != nil || w != xsk.Netpoll && w != xsk.SpinYield {
		return fmt.Errorf("--wait is netpoll or yield, not %q", f.wait)
	}
	f.o.Spin = w == xsk.SpinYield
	return nil
}

// rdmaDevice is a device on a line of JSON.
type rdmaDevice struct {
	Type string `json:"type"` // "rdma"
	rdma.Device
}

// list prints the devices.
func (f *rdmaFlags) list(c *cobra.Command) error {
	devs, err := uverbs.Devices()
	if err != nil {
		fmt.Fprintf(os.Stderr, "fathom: not told: %v\n", err)
	}
	return writeRDMA(c.OutOrStdout(), devs, f.json)
}

func writeRDMA(w io.Writer, devs []rdma.Device, asJSON bool) error {
	for i := range devs {
		d := &devs[i]
		if asJSON {
			if err := jsonl.Write(w, rdmaDevice{"rdma", *d}); err != nil {
				return err
			}
			continue
		}
		line := d.Name
		for _, s := range []string{prefixed("driver ", d.Driver), d.Where(), prefixed("/dev/infiniband/", d.Verbs)} {
			if s != "" {
				line += ", " + s
			}
		}
		lines := []string{line}
		for _, p := range d.Ports {
			lines = append(lines, fmt.Sprintf("  port %d %s, %s", p.Number, p.State, p.Link))
			for _, g := range p.GIDs {
				lines = append(lines, fmt.Sprintf("    address %d %s, %s%s", g.Index, g.Addr, g.Type, prefixed(", ", g.Dev)))
			}
		}
		var used []string
		for _, u := range d.Used {
			if u.Count > 0 {
				used = append(used, fmt.Sprintf("%d %s", u.Count, u.What))
			}
		}
		if len(used) > 0 {
			lines = append(lines, "  in use: "+strings.Join(used, ", "))
		}
		if _, err := fmt.Fprintln(w, strings.Join(lines, "\n")); err != nil {
			return err
		}
	}
	if len(devs) == 0 && !asJSON {
		_, err := fmt.Fprintln(w, "no RDMA device; rdma link add rxe0 type rxe netdev DEVICE makes one in software (module rdma_rxe)")
		return err
	}
	return nil
}

// prefixed puts something before a text that is there.
func prefixed(before, text string) string {
	if text == "" {
		return ""
	}
	return before + text
}

// measure serves or asks.
func (f *rdmaFlags) measure(c *cobra.Command) (err error) {
	ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt)
	defer stop()
	x, err := uverbs.Open(f.dev)
	if err != nil {
		return rdmaError(err)
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	if f.listen != "" {
		return f.serve(ctx, c, x)
	}
	var h traffic.Times
	if err := pingpong.Ping(ctx, x, f.to, f.o, h.Add); err != nil && (h.Count() == 0 || ctx.Err() == nil) {
		return rdmaError(err)
	}
	if f.json {
		return jsonl.Write(c.OutOrStdout(), h.Summary())
	}
	return h.WriteText(c.OutOrStdout())
}

// rdmaClient is a client of a server on a line of JSON.
type rdmaClient struct {
	Type string `json:"type"` // "client"
	pingpong.Account
	Error string `json:"error,omitempty"`
}

// serve answers clients until Ctrl-C.
func (f *rdmaFlags) serve(ctx context.Context, c *cobra.Command, x *uverbs.Context) error {
	s := pingpong.Server{Spin: f.o.Spin, Done: func(a pingpong.Account, err error) {
		r := rdmaClient{Type: "client", Account: a}
		if err != nil {
			r.Error = err.Error()
		}
		if f.json {
			_ = jsonl.Write(c.OutOrStdout(), r) // who does not read does not want to know
			return
		}
		line := fmt.Sprintf("%s %s: %d messages of %d bytes", time.Now().Format(time.TimeOnly), a.Client, a.Messages, a.Size)
		fmt.Fprintln(c.OutOrStdout(), line+prefixed("; ", r.Error))
	}}
	if err := s.Listen(ctx, f.listen); err != nil {
		return &diag.Error{What: "answer clients", Err: err, Code: codeOf(err)}
	}
	fmt.Fprintf(c.ErrOrStderr(), "fathom: %s answers clients that ask at %s, in packets of %d bytes\n", x.Device().Name, s.Addr(), x.MTU())
	return s.Serve(ctx, x)
}

// rdmaError gives an error the ways on that its package knows.
func rdmaError(err error) error {
	d := &diag.Error{What: "rdma", Err: err, Code: codeOf(err)}
	var v *uverbs.Error
	if errors.As(err, &v) {
		d.Because, d.Try = v.Error(), v.Try
	}
	if errors.Is(err, fs.ErrPermission) {
		d.Code = diag.ExitPermission
	}
	return d
}
