package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/keep"
)

// keeperVerb is how this binary becomes the keeper of a guest.
const keeperVerb = "keep-guest"

func labKeeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: keeperVerb, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, args []string) error { return keep.Main(c.Context(), os.Stdin, os.Stdout) },
	}
}

// bootKept boots a guest, leaves it to a keeper, and runs the command in it if there is one.
func (f *bootFlags) bootKept(ctx context.Context, args []string) error {
	if _, err := labs().Find(f.keep); err == nil {
		return &diag.Error{What: "boot guest " + f.keep, Because: "a lab of that name is up", Try: []string{"fathom lab boot --keep OTHER …"}}
	}
	ctx, cancel := f.context(ctx)
	defer cancel()
	o, err := f.options(ctx, f.kernel, nil)
	if err != nil {
		return bootError("boot "+f.kernel, err)
	}
	o.Append = append([]string{"sysrq_always_enabled"}, o.Append...) // for lab sysrq
	var console io.Writer
	if f.console {
		console = os.Stderr
	}
	spec := keep.Spec{Guests: guests(), Name: f.keep, Options: o, While: f.while, Disk: strings.HasPrefix(f.root, "disk:")}
	if err := keep.Start(ctx, []string{o.Init, "lab", keeperVerb}, spec, console); err != nil {
		return bootError("boot "+f.kernel, err)
	}
	if len(args) == 0 {
		return nil
	}
	g, err := guests().Find(f.keep)
	if err != nil {
		return err
	}
	return execInGuest(ctx, g, args)
}

// findGuest gives a guest that must be up.
func findGuest(what, name string) (keep.Client, error) {
	g, err := guests().Find(name)
	if err == nil {
		return keep.Client{Info: g}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return keep.Client{}, err
	}
	e := &diag.Error{What: what, Because: "there is no guest " + name, Code: diag.ExitNoInput, Err: err, Try: []string{"fathom lab boot --keep " + name}}
	all, _ := guests().List()
	if len(all) > 0 {
		names := make([]string, len(all))
		for i, g := range all {
			names[i] = g.Name
		}
		e.Because += "; there are " + strings.Join(names, ", ")
	}
	return keep.Client{}, e
}

// execInGuest runs a command in a guest with our standard input and output, and ends with its exit code.
func execInGuest(ctx context.Context, g keep.Info, args []string) error {
	if args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return usageError{"fathom lab exec", errors.New("give a command")}
	}
	dir := ""
	switch {
	case g.View.Root == "":
		args = inGuest(args)
	case g.Disk:
		args = onDisk(args)
	default:
		var err error
		if args, err = onHost(args); err != nil {
			return err
		}
		dir = seen(g)
	}
	in := make(chan os.Signal, 4)
	signal.Notify(in, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(in)
	e, err := keep.Client{Info: g}.Run(context.WithoutCancel(ctx), args, dir, nil, keep.IO{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Signals: in})
	if err != nil {
		return &diag.Error{What: "run " + args[0] + " in guest " + g.Name, Err: err}
	}
	if e.Code != 0 {
		return exitError{e.Code}
	}
	return nil
}

// seen is our working folder if the guest sees it, else "": the one it was booted in, or any below / that is not one of the
// guest's own.
func seen(g keep.Info) string {
	work, err := os.Getwd()
	if err != nil {
		return ""
	}
	if below(work, g.View.Dir) {
		return work
	}
	for _, own := range []string{"/proc", "/sys", "/dev", "/tmp", "/run"} {
		if below(work, own) {
			return ""
		}
	}
	return work
}

func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

func labCpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cp SRC… GUEST:DST | cp GUEST:SRC… DST",
		Short: "Copy files into a guest, or out of it",
		Long: `Copy files into a guest that lab boot keeps, or out of it. What the guest shares with this machine needs no copy.

Examples:
  fathom lab cp josh.ko g:/tmp/
  fathom lab cp g:/proc/kallsyms kallsyms.txt
  fathom lab cp g:/tmp/out.txt .`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			for _, src := range args[:len(args)-1] {
				if err := labCopy(c.Context(), src, args[len(args)-1], len(args) > 2); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// labCopy copies one file; one of the two is in a guest.
func labCopy(ctx context.Context, src, dst string, many bool) error {
	from, file, out := strings.Cut(src, ":")
	to, name, in := strings.Cut(dst, ":")
	what := "copy " + src + " to " + dst
	if in == out {
		return usageError{"fathom lab cp", errors.New("one of the two is GUEST:FILE")}
	}
	if in {
		g, err := findGuest(what, to)
		if err != nil {
			return err
		}
		f, err := os.Open(src)
		if err != nil {
			return diag.NoInput(what, err)
		}
		defer f.Close()
		st, err := f.Stat()
		if err == nil && !st.Mode().IsRegular() {
			err = errors.New("not a regular file")
		}
		if err != nil {
			return diag.NoInput(what, err)
		}
		if many || name == "" || strings.HasSuffix(name, "/") {
			name = filepath.Join("/", name, filepath.Base(src))
		}
		return wrap(what, g.Put(ctx, f, name, st.Mode()))
	}
	g, err := findGuest(what, from)
	if err != nil {
		return err
	}
	if st, err := os.Stat(dst); err == nil && st.IsDir() {
		dst = filepath.Join(dst, filepath.Base(file))
	} else if many {
		return &diag.Error{What: what, Because: dst + " is no folder", Code: diag.ExitNoInput}
	}
	return wrap(what, getFile(ctx, g, file, dst))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return &diag.Error{What: what, Err: err}
}

// getFile writes beside the file and renames, so that what was there stays if it fails.
func getFile(ctx context.Context, g keep.Client, file, dst string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(dst), "."+filepath.Base(dst)+"-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	mode, err := g.Get(ctx, f, file)
	if err = errors.Join(err, f.Chmod(mode|0o200), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), dst)
}

func labSysRqCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sysrq LETTER GUEST",
		Short: "Press a SysRq key of a guest and show what its kernel says",
		Long: `Press Alt-SysRq and a letter on a guest's keyboard, and print what its kernel then says on the console. No program in the
guest is needed. Letters (Documentation/admin-guide/sysrq.rst):
  b reboot       c crash        d locks held   e SIGTERM all   f OOM kill      g debugger
  h help         i SIGKILL all  k kill on tty  l stacks of CPUs  m memory      n nice RT tasks
  o power off    p registers    q timers       r keyboard      s sync          t all tasks
  u read-only    w blocked tasks  z ftrace     0-9 log level

Examples:
  fathom lab sysrq w g
  fathom lab sysrq t g | fathom explain
  fathom lab sysrq c g && fathom core --guest g`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if _, ok := keep.SysRqKey(args[0]); !ok {
				return usageError{c.CommandPath(), fmt.Errorf("no letter %q: a lower-case letter or a digit", args[0])}
			}
			g, err := findGuest("press sysrq "+args[0], args[1])
			if err != nil {
				return err
			}
			text, err := g.SysRq(c.Context(), args[0])
			fmt.Print(strings.ReplaceAll(text, "\r", ""))
			return wrap("press sysrq "+args[0]+" of guest "+args[1], err)
		},
	}
}

func labDumpCommand() *cobra.Command {
	var o guest.DumpOptions
	c := &cobra.Command{
		Use:   "dump GUEST FILE",
		Short: "Write a guest's memory to a file",
		Long: `Write the memory of a guest that lab boot keeps to a file that fathom core reads. The guest stands still meanwhile and goes
on. Which formats there are is a matter of how QEMU was built; one that is missing is refused with the list.

Examples:
  fathom lab dump g core
  fathom lab dump g core --format kdump-zlib
  fathom lab dump g core && fathom core core bt -a`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if o.Paging && o.Format != "" && o.Format != "elf" {
				return usageError{c.CommandPath(), errors.New("only elf has --paging")}
			}
			what := "dump guest " + args[0]
			g, err := findGuest(what, args[0])
			if err != nil {
				return err
			}
			file, err := filepath.Abs(args[1])
			if err != nil {
				return err
			}
			if err := g.Dump(c.Context(), file, o); err != nil {
				return bootError(what, wrap(what, err))
			}
			return nil
		},
	}
	c.Flags().StringVar(&o.Format, "format", "elf", "`FORMAT`: elf, or kdump-zlib, kdump-lzo, kdump-snappy as far as QEMU has them")
	c.Flags().BoolVar(&o.Paging, "paging", false, "with virtual addresses, by the page tables of the CPUs (elf)")
	return c
}

func labConsoleCommand() *cobra.Command {
	var span time.Duration
	c := &cobra.Command{
		Use:   "console GUEST",
		Short: "Show a guest's console",
		Long: `Print the end of a guest's console, and what comes until Ctrl-C or --for is over.

Examples:
  fathom lab console g
  fathom lab console g --for 1s | fathom explain
  fathom lab sysrq g w; fathom lab console g --for 2s > blocked.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			g, err := findGuest("show the console", args[0])
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt)
			defer stop()
			if span > 0 {
				var cancel func()
				ctx, cancel = context.WithTimeout(ctx, span)
				defer cancel()
			}
			return g.Console(ctx, os.Stdout)
		},
	}
	forVar(c.Flags(), &span, "end after this `TIME`, such as 10s")
	return c
}

// guestEntries are the lines of lab list about guests. One that does not answer is booting, or on its way out.
func guestEntries(ctx context.Context) (out []labEntry, err error) {
	all, err := guests().List()
	for _, g := range all {
		e := labEntry{Type: "guest", Name: g.Name, Since: g.Since, Kernel: g.Kernel.Release, State: "booting"}
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		if st, err := (keep.Client{Info: g}).Status(ask); err == nil {
			e.State, e.PIDs = st.State, []int{st.QEMU}
		}
		cancel()
		out = append(out, e)
	}
	return out, err
}
