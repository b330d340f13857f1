package cli

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/bypass/held"
	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/sockets"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/diag"
)

func bypassProgram() *cobra.Command {
	var f bypassFlags
	var ports, to []string
	c := &cobra.Command{
		Use:   "run -i DEVICE --port PORT|--to ADDRESS [flags] -- PROGRAM [ARGUMENT…]",
		Short: "Run an unmodified program whose TCP and UDP go past the kernel",
		Long: `Run a program as it is, with the TCP connections and UDP datagrams that come to --port, or go to --to, carried by a stack of
our own on AF_XDP sockets of a device, or on AF_PACKET ones where the kernel, the device or your rights have no AF_XDP: it says
which. Its calls are answered through seccomp: no library is put before it. What is not carried stays the kernel's, and is said:
TCP by other devices, TCP sockets bound before they connect. With --netns it runs there.

Examples:
  fathom bypass run -i veth2 --netns ns2 --port 8080 -- python3 -m http.server 8080
  fathom bypass run -i eth0 -q all --port 80,443 -- nginx -g 'daemon off;'
  fathom bypass run -i eth0 --backend packet --port 8080 -- python3 -m http.server 8080
  fathom bypass run -i eth0 --to 192.0.2.53:53 -- dig @192.0.2.53 example.net
  fathom bypass run -i veth1 --netns ns1 --to 10.0.0.2:8080 -- curl -s http://10.0.0.2:8080/`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 0 {
				return usageError{c.CommandPath(), errors.New("the program stands behind --")}
			}
			o, n, err := f.program(ports, to)
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			o.Command = args
			return f.runProgram(c, o, n)
		},
	}
	fl := c.Flags()
	fl.StringVarP(&f.dev, "interface", "i", "", "network `DEVICE`")
	fl.StringVar(&f.netns, "netns", "", "network namespace of the device: a `NAME`, a process or a path")
	fl.StringSliceVar(&ports, "port", nil, "`PORT` whose connections and datagrams are carried; several with commas")
	fl.StringSliceVar(&to, "to", nil, "`ADDRESS[:PORT]` to which they are carried, or ADDRESS/LENGTH[:PORT]")
	fl.StringVarP(&f.queue, "queue", "q", "all", "`QUEUES`: 0, or 0,1, or all")
	fl.BoolVarP(&f.generic, "xdp-skb", "S", false, "attach in generic mode, which every device has")
	fl.BoolVarP(&f.native, "xdp-native", "N", false, "attach in the driver")
	fl.BoolVarP(&f.copy, "copy", "c", false, "have packets copied")
	fl.BoolVarP(&f.zero, "zero-copy", "z", false, "no copies, or fail")
	fl.StringVar(&f.wait, "wait", "netpoll", "`HOW` to wait for packets: netpoll, poll, spin, yield, busy-poll")
	fl.StringVar(&f.backend, "backend", "auto", "`WAY` packets come: xdp (AF_XDP), packet (AF_PACKET), or auto, the first that works")
	fl.BoolVarP(&f.quiet, "quiet", "Q", false, "say only what is wrong")
	return c
}

// program turns the flags of run into what is run, and the stack that carries.
func (f *bypassFlags) program(ports, to []string) (o sockets.Options, n netstack.Options, err error) {
	for _, p := range ports {
		v, err := strconv.ParseUint(p, 10, 16)
		if err != nil || v == 0 {
			return o, n, fmt.Errorf("--port is a number from 1 to 65535, or several with commas; not %q", p)
		}
		o.Ports = append(o.Ports, uint16(v))
	}
	for _, s := range to {
		d, err := sockets.ParseDestination(s)
		if err != nil {
			return o, n, fmt.Errorf("--to %w", err)
		}
		o.To = append(o.To, d)
	}
	if len(o.Ports)+len(o.To) == 0 {
		return o, n, errors.New("name what is carried: --port for connections that come, --to for those that go")
	}
	f.batch, f.interval, f.frames = 64, 1, 4096 // which run does not ask for
	c, err := f.config()
	if err != nil {
		return o, n, err
	}
	b, err := netstack.ParseBackend(f.backend)
	if err != nil {
		return o, n, fmt.Errorf("--backend: %w", err)
	}
	if b == netstack.Packet && (f.generic || f.native || f.copy || f.zero || c.Queue.Wait == xsk.BusyPoll) {
		return o, n, errors.New("-S, -N, -c, -z and busy-poll are of AF_XDP, not of --backend packet")
	}
	n = netstack.Options{Backend: b, Queues: c.Queues, Mode: c.Steer.Mode, Copying: c.Queue.Copying, Wait: c.Queue.Wait}
	return o, n, nil
}

// runProgram runs it, and ends with its exit code.
func (f *bypassFlags) runProgram(c *cobra.Command, o sockets.Options, n netstack.Options) (err error) {
	s, err := netstack.Open(f.device(), n)
	if err != nil {
		err = bypassError("a stack on "+f.device().String(), err)
		var d *diag.Error
		if h := new(held.Error); errors.As(err, &h) && errors.As(err, &d) {
			d.Try = append(d.Try, "fathom bypass run --backend packet …")
		}
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	say := c.ErrOrStderr()
	if f.quiet {
		say = io.Discard
	}
	o.Self = []string{"/proc/self/exe", "bypass", enterCommand, "--"}
	o.Stdin, o.Stdout, o.Stderr = os.Stdin, c.OutOrStdout(), c.ErrOrStderr()
	o.Note = func(reason string) { fmt.Fprintf(say, "fathom: stays the kernel's: %s\n", reason) }
	var carried []string
	for _, p := range o.Ports {
		carried = append(carried, fmt.Sprintf("to port %d", p))
	}
	for _, d := range o.To {
		carried = append(carried, "to "+d.String())
	}
	fmt.Fprintf(say, "fathom: TCP and UDP %s go past the kernel on %s (%s)\n", strings.Join(carried, ", "), f.device(), way(s))
	ctx, stop := signal.NotifyContext(c.Context(), syscall.SIGTERM)
	defer stop()
	interrupts := make(chan os.Signal, 1) // the terminal sends them to the program too, whose matter they are
	signal.Notify(interrupts, os.Interrupt)
	defer signal.Stop(interrupts)
	res, err := sockets.Run(ctx, s, o)
	if err != nil {
		return err
	}
	showProgram(say, res, s)
	if res.Code != 0 {
		return exitError{res.Code}
	}
	return nil
}

// way says how packets come to a stack.
func way(s *netstack.Stack) string {
	b, why := s.Backend()
	switch {
	case b == netstack.XDP:
		return "AF_XDP, " + s.Mode().String()
	case why != nil:
		return fmt.Sprintf("AF_PACKET, since AF_XDP cannot be had: %v", why)
	}
	return "AF_PACKET"
}

// showProgram prints what came of a run.
func showProgram(w io.Writer, res sockets.Result, s *netstack.Stack) {
	fmt.Fprintf(w, "fathom: carried %d connections that came and %d that went: %d bytes in, %d out", res.Accepted, res.Connected, res.Received, res.Sent)
	if st, err := s.Stats(); err == nil {
		fmt.Fprintf(w, "; packets %d in, %d out, %d segments sent again", st.Received, st.Sent, st.Retransmits)
	}
	fmt.Fprintln(w)
	if res.DatagramsIn+res.DatagramsOut+res.DatagramsElsewhere > 0 {
		fmt.Fprintf(w, "fathom: carried %d datagrams that came and %d that went; %d through the kernel\n", res.DatagramsIn, res.DatagramsOut, res.DatagramsElsewhere)
	}
	if res.Elsewhere > 0 {
		fmt.Fprintf(w, "fathom: by other devices, through the kernel: %d connections\n", res.Elsewhere)
	}
	for _, reason := range slices.Sorted(maps.Keys(res.Kernel)) {
		fmt.Fprintf(w, "fathom: stayed the kernel's, %d times: %s\n", res.Kernel[reason], reason)
	}
}

// enterCommand is the process that becomes the program. run starts it; it is not for people.
const enterCommand = "enter"

func bypassEnter() *cobra.Command {
	return &cobra.Command{
		Use: enterCommand + " -- PROGRAM [ARGUMENT…]", Hidden: true, Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return sockets.Enter(args) },
	}
}
