package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/bypass/prog"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/internal/diag"
)

// progFlags are what the commands of prog share.
type progFlags struct {
	dev, netns, name, hook, mode string
	pin                          bool
	id                           uint32
	forTime                      time.Duration
}

func (f *progFlags) device(c *cobra.Command) {
	c.Flags().StringVarP(&f.dev, "interface", "i", "", "network `DEVICE`")
	c.Flags().StringVar(&f.netns, "netns", "", "network namespace of the device: a `NAME`, a process or a path")
	c.Flags().StringVar(&f.hook, "at", "xdp", "`WHERE`: xdp, ingress or egress (tcx)")
}

func (f *progFlags) object(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "prog", "", "the program `NAME` of the object, if it has several")
	c.Flags().StringVar(&f.mode, "mode", "auto", "`MODE` of XDP: native (driver), generic (skb), offload, or auto")
}

// at gives where the program goes.
func (f *progFlags) at() (dev xsk.Device, hook prog.Hook, err error) {
	if f.dev == "" {
		return dev, "", errors.New("name a device: -i DEVICE")
	}
	if hook, err = f.kind(); err == nil {
		dev = xsk.Device{Name: f.dev, NetNS: f.netns}
		err = present(dev)
	}
	return dev, hook, err
}

// kind gives what it is for.
func (f *progFlags) kind() (prog.Hook, error) {
	switch hook := prog.Hook(f.hook); hook {
	case prog.XDP, prog.Ingress, prog.Egress:
		return hook, nil
	}
	return "", fmt.Errorf("no place %q: xdp, ingress, egress", f.hook)
}

func bypassProg() *cobra.Command {
	c := &cobra.Command{
		Use:   "prog COMMAND",
		Short: "Load, attach, replace and detach your own XDP and tc programs",
		Long: `Attach your own XDP or tc program, out of an ELF object, to a device of any network namespace: for the life of the command, of
another command, or, with --pin, until it is detached. One that is there already is never removed, but named.

Examples:
  fathom bypass prog run strat.bpf.o -i veth1 --netns ns1 --mode native -- ./strategy
  fathom bypass prog attach strat.bpf.o -i veth1 --pin && fathom bypass prog replace new.bpf.o -i veth1
  fathom bypass prog list`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	list := bypassStatus()
	list.Use, list.Short = "list [flags]", "List programs, as status does"
	c.AddCommand(progLoad(), progAttach(), progRun(), progReplace(), progDetach(), list)
	return c
}

// load loads the object that a command names.
func (f *progFlags) load(file string) (o *prog.Object, dev xsk.Device, hook prog.Hook, m prog.Mode, err error) {
	if dev, hook, err = f.at(); err == nil {
		m, err = prog.ParseMode(f.mode)
	}
	if err == nil && hook != prog.XDP && f.mode != "auto" {
		err = errors.New("--mode is of XDP")
	}
	if err != nil {
		return nil, dev, hook, m, usageError{"fathom bypass prog", err}
	}
	offload := 0
	if m == prog.Offload {
		l, err := traffic.Of(dev)
		if err != nil {
			return nil, dev, hook, m, err
		}
		offload = l.Index
	}
	o, err = prog.Load(file, f.name, hook, offload)
	return o, dev, hook, m, err
}

func progLoad() *cobra.Command {
	f := &progFlags{}
	c := &cobra.Command{
		Use:   "load FILE.o [flags]",
		Short: "Have the kernel check a program, and unload it",
		Long: `Load a program, so that the verifier sees it, and say what it is; it is unloaded at once. attach loads by itself.

Examples:
  fathom bypass prog load strat.bpf.o
  fathom bypass prog load strat.bpf.o --prog main
  fathom bypass prog load cls.bpf.o --at ingress`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			hook, err := f.kind()
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			o, err := prog.Load(args[0], f.name, hook, 0)
			if err != nil {
				return progError("load "+args[0], err)
			}
			defer o.Close()
			info, err := o.Prog.Info()
			if err != nil {
				return progError("load "+args[0], err)
			}
			_, err = fmt.Fprintf(c.OutOrStdout(), "%s: type %s, tag %s: the verifier takes it\n", o.Name, info.Type, info.Tag)
			return err
		},
	}
	c.Flags().StringVar(&f.hook, "at", "xdp", "`WHERE` it would run: xdp, ingress or egress (tcx)")
	c.Flags().StringVar(&f.name, "prog", "", "the program `NAME` of the object, if it has several")
	return c
}

func progAttach() *cobra.Command {
	f := &progFlags{}
	c := &cobra.Command{
		Use:   "attach FILE.o -i DEVICE [flags]",
		Short: "Attach a program until Ctrl-C, or with --pin until it is detached",
		Long: `Attach a program to a device. Without --pin it goes with the command, kill -9 included; with --pin it stays, under a name in a
bpffs of fathom's own, until prog detach.

Examples:
  fathom bypass prog attach drop.bpf.o -i veth1 --netns ns1 --for 10s
  fathom bypass prog attach drop.bpf.o -i eth0 --mode driver --pin
  fathom bypass prog attach cls.bpf.o -i eth0 --at egress`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if f.pin && f.forTime > 0 {
				return usageError{c.CommandPath(), errors.New("--pin is until prog detach: no --for")}
			}
			return f.attached(args[0], func(ctx context.Context) error {
				if f.forTime > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, f.forTime)
					defer cancel()
				}
				<-ctx.Done()
				return nil
			})
		},
	}
	f.device(c)
	f.object(c)
	c.Flags().BoolVar(&f.pin, "pin", false, "have it stay until prog detach")
	forVar(c.Flags(), &f.forTime, "detach after this `TIME`, such as 10s")
	return c
}

func progRun() *cobra.Command {
	f := &progFlags{}
	c := &cobra.Command{
		Use:   "run FILE.o -i DEVICE [flags] -- COMMAND [ARG…]",
		Short: "Attach a program while a command runs",
		Long: `Attach a program, run a command in the device's network namespace, and detach when it ends. The exit code is the command's.

Examples:
  fathom bypass prog run strat.bpf.o -i veth1 --netns ns1 --mode native -- ./lll_strategy
  fathom bypass prog run drop.bpf.o -i eth0 -- ping -c 3 192.0.2.7
  fathom bypass prog run cls.bpf.o -i eth0 --at ingress -- sleep 10`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if c.ArgsLenAtDash() != 1 {
				return usageError{c.CommandPath(), errors.New("FILE.o, then --, then a command")}
			}
			return f.attached(args[0], func(context.Context) error { // Ctrl-C is the command's, too
				dev, _, err := f.at()
				if err != nil {
					return err
				}
				cmd := exec.Command(args[1], args[2:]...)
				cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
				if err := dev.In(cmd.Start); err != nil {
					return fmt.Errorf("run %s: %w", args[1], err)
				}
				err = cmd.Wait()
				var exit *exec.ExitError
				if errors.As(err, &exit) {
					return exitError{max(1, exit.ExitCode())}
				}
				return err
			})
		},
	}
	f.device(c)
	f.object(c)
	return c
}

// attached runs f while a program is attached; one that is pinned stays and f is not run.
func (f *progFlags) attached(file string, while func(context.Context) error) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, dev, hook, m, err := f.load(file)
	if err != nil {
		return progError("attach "+file, err)
	}
	defer o.Close()
	l, m, err := prog.Attach(dev, o, hook, m)
	if err != nil {
		return progError("attach "+file+" to "+dev.String(), err)
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	where := string(hook)
	if hook == prog.XDP {
		where = "xdp, " + m.String()
	}
	if f.pin {
		path, err := progRoot().Pin(dev, hook, l)
		if err != nil {
			return progError("pin "+file+" on "+dev.String(), err)
		}
		fmt.Fprintf(os.Stderr, "%s is on %s (%s), as %s; fathom bypass prog detach takes it away\n", o.Name, dev, where, path)
		return nil
	}
	fmt.Fprintf(os.Stderr, "%s is on %s (%s)\n", o.Name, dev, where)
	return while(ctx)
}

func progReplace() *cobra.Command {
	f := &progFlags{}
	c := &cobra.Command{
		Use:   "replace FILE.o -i DEVICE [flags]",
		Short: "Put another program in the place of a pinned one, at once",
		Long: `Replace a program that prog attach --pin attached: every packet meets the old one or the new one.

Examples:
  fathom bypass prog replace new.bpf.o -i veth1 --netns ns1
  fathom bypass prog replace new.bpf.o -i eth0 --prog main
  fathom bypass prog replace cls.bpf.o -i eth0 --at egress`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f.mode = "auto" // that of the link stays
			o, dev, hook, _, err := f.load(args[0])
			if err != nil {
				return progError("replace program of "+f.dev, err)
			}
			defer o.Close()
			return progError("replace program of "+dev.String(), progRoot().Replace(dev, hook, o))
		},
	}
	f.device(c)
	c.Flags().StringVar(&f.name, "prog", "", "the program `NAME` of the object, if it has several")
	return c
}

func progDetach() *cobra.Command {
	f := &progFlags{}
	c := &cobra.Command{
		Use:   "detach -i DEVICE [flags]",
		Short: "Take away a pinned program, or one that somebody attached for good and that you name",
		Long: `Take away the program that prog attach --pin attached. With --id, the XDP program of that number that somebody attached over
netlink (ip link set, bpftool net attach), if it is still there; one that a link attached goes with its owner only.

Examples:
  fathom bypass prog detach -i veth1 --netns ns1
  fathom bypass prog detach -i eth0 --at egress
  fathom bypass prog detach -i eth0 --id 42`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			dev, hook, err := f.at()
			if err == nil && f.id != 0 && hook != prog.XDP {
				err = errors.New("--id is of XDP")
			}
			if err != nil {
				return usageError{c.CommandPath(), err}
			}
			if f.id != 0 {
				return progError("detach program from "+dev.String(), prog.DetachID(dev, f.id))
			}
			return progError("detach program from "+dev.String(), progRoot().Detach(dev, hook))
		},
	}
	f.device(c)
	c.Flags().Uint32Var(&f.id, "id", 0, "the program of number `N`, which somebody else attached for good")
	return c
}

// progRoot is where pins are; those whose device is gone are removed.
func progRoot() prog.Root {
	r := prog.Root{Leases: leases()}
	if err := r.Sweep(); err != nil {
		fmt.Fprintf(os.Stderr, "fathom: %v\n", err)
	}
	return r
}

// progError tells an error; a refusal of the verifier by its last lines.
func progError(what string, err error) error {
	var code exitError
	if err == nil || errors.As(err, &code) {
		return err
	}
	if errors.Is(err, os.ErrNotExist) {
		return &diag.Error{What: what, Err: err, Code: diag.ExitNoInput, Try: []string{"fathom bypass status"}}
	}
	return bypassError(what, err)
}
