package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/kmod"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// bootFlags say what to boot and how.
type bootFlags struct {
	kernel, modules string
	root, fstype    string
	init            string
	load, with      []string
	nic, network    string
	queues          int
	mem, cpus       int
	cmdline         []string
	preset          []string
	qemu            []string
	device, serial  []string
	console         bool
	gdb             string
	dump            string
	timeout         time.Duration
	keep            string
	while           int
}

// presets are parts of a kernel command line with a name.
var presets = map[string][]string{
	"nokaslr":     {"nokaslr"},
	"crashkernel": {"crashkernel=256M"},
	"panic-wait":  {"panic=0"},
	"oops-panic":  {"oops=panic"},
	"sysrq":       {"sysrq_always_enabled"},
	"verbose":     {"ignore_loglevel", "loglevel=8"},
}

func (f *bootFlags) flags(c *cobra.Command) {
	fl := c.Flags()
	fl.SetInterspersed(false)
	fl.StringVar(&f.modules, "modules", "", "`FOLDER` of a bzImage's modules (else /lib/modules/RELEASE)")
	fl.StringVar(&f.root, "root", "host", "`IMAGE` to run on: host (read-only, working folder writable), none, disk:IMAGE[:PARTITION]")
	fl.StringVar(&f.fstype, "rootfs", "ext4", "`TYPE` of the disk's file system")
	fl.StringVar(&f.init, "init", "", "PID 1 becomes this `PROGRAM` of the disk, such as /lib/systemd/systemd")
	fl.StringArrayVar(&f.load, "load", nil, "load this `MODULE` of the kernel, with what it depends on; \"veth\", \"dummy numdummies=2\"")
	fl.StringArrayVar(&f.with, "insmod", nil, "load this module `FILE`; one built for another kernel is refused with the field that differs")
	fl.StringVar(&f.nic, "nic", "", "add a network card of `MODEL` virtio, e1000e or igb")
	fl.StringVar(&f.network, "net", "user", "what the card is joined to: user, none or tap:`NAME`")
	fl.IntVar(&f.queues, "queues", 1, "`N` queues of a virtio card on a tap; the guest uses as many as it has CPUs")
	fl.IntVar(&f.mem, "mem", 1024, "memory in `MiB`")
	fl.IntVar(&f.cpus, "cpus", 2, "`N` CPUs")
	fl.StringArrayVar(&f.cmdline, "append", nil, "add `TEXT` to the kernel command line")
	fl.StringSliceVar(&f.preset, "preset", nil, "add a part by `NAME`: nokaslr, crashkernel, panic-wait, oops-panic, sysrq, verbose")
	fl.StringArrayVar(&f.device, "device", nil, "add a `DEVICE` of QEMU, such as pvpanic or isa-serial")
	fl.StringArrayVar(&f.serial, "serial", nil, "add a serial port, /dev/ttyS1 and so on, whose output goes to `FILE`")
	fl.StringArrayVar(&f.qemu, "qemu", nil, "add an `ARGUMENT` of QEMU")
	fl.BoolVar(&f.console, "console", false, "show the guest's console on standard error")
	fl.StringVar(&f.gdb, "gdb", "", "open QEMU's gdb stub at `ADDRESS`, such as 127.0.0.1:1234, and turn KASLR off")
	fl.StringVar(&f.dump, "dump-on-panic", "", "write the guest's memory to `FILE` (ELF vmcore) when its kernel panics")
	f.timeout = 10 * time.Minute
	forVar(fl, &f.timeout, "end the guest after this `TIME`")
}

func labBootCommand() *cobra.Command {
	f := &bootFlags{}
	c := &cobra.Command{
		Use:   "boot [flags] -- COMMAND [ARG…] | boot --keep NAME [flags] [-- COMMAND [ARG…]]",
		Short: "Run a command in a kernel under QEMU, or boot one to stay",
		Long: `Boot a kernel under QEMU, run a command in it, and end with its exit code. The guest sees this machine's files read-only,
and the working folder writable, so what was just built here runs there. Nothing is left when it ends, kill -9 included.
With --keep the guest stays until "fathom lab down NAME": lab exec, cp, sysrq, dump, console, gdb and core --guest reach it.

Examples:
  fathom lab boot -- uname -r
  fathom lab boot --kernel ~/linux --insmod ./josh.ko -- cat /proc/modules
  fathom lab boot --keep g --kernel debian-6.1 --nic e1000e && fathom lab exec g -- fathom doctor`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 && f.keep == "" {
				return usageError{c.CommandPath(), errors.New("give a command, or --keep NAME")}
			}
			sweep()
			if f.keep != "" {
				return f.bootKept(c.Context(), args)
			}
			ctx, cancel := f.context(c.Context())
			defer cancel()
			res, err := f.run(ctx, f.kernel, args, true)
			for _, l := range res.Log {
				fmt.Fprintln(os.Stderr, "fathom: guest:", l)
			}
			if res.Dump != "" {
				fmt.Fprintf(os.Stderr, "fathom: the guest's memory is in %s\n", res.Dump)
			}
			if err != nil {
				return bootError("boot "+f.kernel, err)
			}
			if code := res.Commands[0].Code; code != 0 {
				return exitError{code}
			}
			return nil
		},
	}
	c.Flags().StringVar(&f.keep, "keep", "", "leave the guest up under this `NAME`")
	c.Flags().IntVar(&f.while, "while", 0, "with --keep: only as long as process `PID` runs")
	c.Flags().StringVar(&f.kernel, "kernel", "debian-6.12", "`KERNEL`: "+strings.Join(guest.KernelNames(), ", ")+", a .deb, build tree or bzImage")
	f.flags(c)
	return c
}

func (f *bootFlags) context(ctx context.Context) (context.Context, func()) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	ctx, cancel := context.WithTimeoutCause(ctx, f.timeout, fmt.Errorf("--for %v is over", f.timeout))
	return ctx, func() { cancel(); stop() }
}

// run boots one kernel and runs one command in it. With stream, what it writes comes out as it does there.
func (f *bootFlags) run(ctx context.Context, kernel string, args []string, stream bool) (guest.Result, error) {
	o, err := f.options(ctx, kernel, args)
	if err != nil {
		return guest.Result{}, err
	}
	if stream {
		o.Stdout, o.Stderr = os.Stdout, os.Stderr
	}
	if f.console {
		o.Console = os.Stderr
	}
	if f.gdb != "" {
		fmt.Fprintf(os.Stderr, "gdb: gdb -ex 'target remote %s' vmlinux\n", f.gdb)
	}
	return guest.Run(ctx, o)
}

func (f *bootFlags) options(ctx context.Context, kernel string, args []string) (o guest.Options, err error) {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 && f.keep == "" {
		return o, usageError{"fathom lab boot", errors.New("give a command")}
	}
	if o.Accel, err = guest.ParseAccel(os.Getenv("FATHOM_ACCEL")); err != nil {
		return o, err
	}
	cache, err := guest.UserCache()
	if err != nil {
		return o, err
	}
	if o.Kernel, err = cache.Find(ctx, kernel, f.modules); err != nil {
		return o, err
	}
	if o.Init, err = os.Executable(); err != nil {
		return o, err
	}
	o.Mem, o.CPUs, o.Modules, o.ModuleFiles, o.QEMUArgs = f.mem, f.cpus, f.load, f.with, f.qemu
	o.Append = slices.Clone(f.cmdline)
	for _, d := range f.device {
		o.QEMUArgs = append(o.QEMUArgs, "-device", d)
	}
	for _, name := range f.serial {
		if name, err = filepath.Abs(name); err != nil {
			return o, err
		}
		o.QEMUArgs = append(o.QEMUArgs, "-serial", "file:"+name)
	}
	for _, name := range f.preset {
		if presets[name] == nil {
			return o, usageError{"fathom lab boot", fmt.Errorf("no preset %q", name)}
		}
		o.Append = append(o.Append, presets[name]...)
	}
	if f.gdb != "" {
		o.QEMUArgs = append(o.QEMUArgs, "-gdb", "tcp:"+f.gdb)
		o.Append = append(o.Append, "nokaslr")
	}
	if f.dump != "" {
		if o.DumpOnPanic, err = filepath.Abs(f.dump); err != nil {
			return o, err
		}
	}
	if f.nic != "" {
		if err := o.AddNIC(guest.NIC{Model: f.nic, Queues: f.queues, Net: f.network}); err != nil {
			return o, err
		}
	}
	return o, f.command(&o, args)
}

// command says what the guest's command is and what it sees; without args, what those of a kept guest will see.
func (f *bootFlags) command(o *guest.Options, args []string) error {
	disk, ok := strings.CutPrefix(f.root, "disk:")
	if !ok && f.init != "" {
		return usageError{"fathom lab boot", errors.New("--init names a program of a disk: give --root disk:IMAGE")}
	}
	if ok {
		if len(args) > 0 {
			o.Commands = []pid1.Command{{Args: onDisk(args)}}
		}
		return f.disk(o, disk)
	}
	switch f.root {
	case "none":
		if len(args) > 0 {
			o.Commands = []pid1.Command{{Args: inGuest(args)}}
		}
		return nil
	case "host":
	default:
		return usageError{"fathom lab boot", fmt.Errorf("no root %q: host, none or disk:IMAGE", f.root)}
	}
	work, err := os.Getwd()
	if err != nil {
		return err
	}
	if len(args) > 0 {
		if args, err = onHost(args); err != nil {
			return err
		}
		o.Commands = []pid1.Command{{Args: args}}
	}
	return o.ShareHost(work)
}

// disk has commands see IMAGE[:PARTITION].
func (f *bootFlags) disk(o *guest.Options, arg string) (err error) {
	d := guest.Disk{Image: arg, Type: f.fstype, Init: f.init}
	if image, part, ok := strings.Cut(arg, ":"); ok {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil || n == 0 {
			return usageError{"fathom lab boot", fmt.Errorf("no partition %q", part)}
		}
		d.Image, d.Part = image, int(n)
	}
	if d.Image, err = filepath.Abs(d.Image); err != nil {
		return err
	}
	return o.RootDisk(d)
}

// onDisk is a command line for a guest that sees a disk: programs are found there, so a shell looks for them.
func onDisk(args []string) []string {
	if args[0] == "fathom" {
		return append([]string{guest.Self}, args[1:]...)
	}
	if strings.Contains(args[0], "/") {
		return args
	}
	return append([]string{"/bin/sh", "-c", `exec "$0" "$@"`}, args...)
}

// inGuest is a command line for a guest that sees only its initramfs: there fathom is the init binary.
func inGuest(args []string) []string {
	if args[0] == "fathom" {
		return append([]string{guest.SelfAlone}, args[1:]...)
	}
	return args
}

// onHost is a command line for a guest that sees this machine's files, with the program's path.
func onHost(args []string) ([]string, error) {
	path := guest.Self
	if args[0] != "fathom" {
		var err error
		if path, err = exec.LookPath(args[0]); err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, &diag.Error{What: "run " + args[0] + " in a guest", Code: diag.ExitNoInput, Err: err}
		}
	}
	return append([]string{path}, args[1:]...), nil
}

// bootError tells what guest found missing in four lines.
func bootError(what string, err error) error {
	var s *guest.SetupError
	var p *guest.PanicError
	var m *kmod.MismatchError
	var h *guest.HangError
	switch {
	case errors.As(err, &s):
		code := diag.ExitNoInput
		if errors.As(err, &m) {
			code = diag.ExitBadInput
		}
		return &diag.Error{What: s.What, Because: s.Because, Try: s.Try, Err: err, Code: code}
	case errors.As(err, &h) && h.Err == nil:
		fmt.Fprintln(os.Stderr, h.Console)
		e := &diag.Error{What: what, Because: fmt.Sprintf("the guest is silent for %s", h.After.Round(time.Second)), Err: err}
		if accel, _ := guest.ParseAccel(os.Getenv("FATHOM_ACCEL")); accel == guest.KVM {
			e.Try = []string{"FATHOM_ACCEL=tcg fathom lab boot …"}
		}
		return e
	case errors.As(err, &p):
		fmt.Fprintln(os.Stderr, p.Console)
		return &diag.Error{What: what, Because: p.Line, Err: err}
	}
	return err
}

func labConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the options that a kernel of your own needs for the lab",
		Long: `Print a fragment of a kernel's configuration: what it takes to boot in the lab, to be traced, and to be read when dead.

Examples:
  fathom lab config > lab.config && scripts/kconfig/merge_config.sh -m .config lab.config && make olddefconfig
  make -j8 bzImage modules && fathom lab boot --kernel . -- uname -r
  fathom lab config | grep BTF`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error {
			_, err := fmt.Print(guest.ConfigFragment)
			return err
		},
	}
}

// matrixRow is one kernel's result.
type matrixRow struct {
	kernel, release, outcome string
	ok                       bool
	boot, took               time.Duration
	last                     string
}

func labMatrixCommand() *cobra.Command {
	f := &bootFlags{}
	var kernels []string
	c := &cobra.Command{
		Use:   "matrix --kernels K,K… [flags] -- COMMAND [ARG…]",
		Short: "Run a command in several kernels, one after another",
		Long: `Run one command in several kernels, one after another, and print a table. Exit code 1 if it failed in any.

Examples:
  fathom lab matrix --kernels debian-6.1,debian-6.12 -- uname -r
  fathom lab matrix --kernels debian-6.12,debian-6.12-cloud --root none -- fathom doctor
  fathom lab matrix --kernels ~/linux,debian-6.12 -- ./test.sh`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(kernels) == 0 {
				return usageError{c.CommandPath(), errors.New("give kernels with --kernels")}
			}
			sweep()
			ctx, cancel := f.context(c.Context())
			defer cancel()
			failed := false
			tw := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(tw, "KERNEL\tRELEASE\tRESULT\tBOOT\tTOOK\tLAST LINE")
			for _, k := range kernels {
				r := f.row(ctx, k, args)
				failed = failed || !r.ok
				fmt.Fprintf(tw, "%s\t%s\t%s\t%.1fs\t%.1fs\t%s\n", r.kernel, r.release, r.outcome, r.boot.Seconds(), r.took.Seconds(), r.last)
			}
			if err := tw.Flush(); err != nil {
				return err
			}
			if failed {
				return exitError{exitNegative}
			}
			return nil
		},
	}
	c.Flags().StringSliceVar(&kernels, "kernels", nil, "`KERNELS`, as lab boot takes them, with commas")
	f.flags(c)
	return c
}

// row runs the command in one kernel.
func (f *bootFlags) row(ctx context.Context, kernel string, args []string) matrixRow {
	res, err := f.run(ctx, kernel, args, false)
	r := matrixRow{kernel: kernel, release: res.Release, boot: res.Boot, took: max(0, res.Total-res.Boot)}
	if len(res.Commands) > 0 {
		cmd := res.Commands[0]
		r.ok = err == nil && cmd.Code == 0
		r.outcome = fmt.Sprintf("exit %d", cmd.Code)
		r.last = lastLine(cmd.Stdout)
		if !r.ok && cmd.Stderr != "" {
			r.last = lastLine(cmd.Stderr)
		}
	}
	var p *guest.PanicError
	switch {
	case errors.As(err, &p):
		r.outcome, r.last = "panic", p.Line
	case err != nil:
		r.outcome, r.last = "not run", strings.SplitN(err.Error(), "\n", 2)[0]
	}
	return r
}

func lastLine(s string) string {
	s = strings.TrimRight(s, "\n")
	return s[strings.LastIndexByte(s, '\n')+1:]
}
