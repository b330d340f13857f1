package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/explain"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/oops"
)

func explainCommand() *cobra.Command {
	var json, all bool
	var module, against string
	var debug []string
	var pstore, netconsole, syslog string
	var span time.Duration
	c := &cobra.Command{
		Use:   "explain [FILE] | explain --module X.ko [--against KERNEL]",
		Short: "Explain an oops, a warning, a lockup or a panic from the kernel's console text",
		Long: `Explain what a dying kernel printed: which kind, why in words, the faulting instruction with its operands, the stack,
the module, the taint. The text may come from dmesg, a serial line, netconsole, pstore, the journal or a quoting mail; "-"
or no FILE reads standard input; 0x… is an address of the kernel that runs (explain address). Exits with 1 if there is no
incident in it. With --module: whether a module was built for a kernel, and if not, which structs differ and where; exits
with 1 if it was not.

Examples:
  dmesg | fathom explain
  fathom explain --pstore --syslog /dev/log
  fathom explain --netconsole :6666 -j
  fathom explain --module ./driver.ko --against /var/crash/dump`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case module != "" && (len(args) > 0 || all):
				return usageError{c.CommandPath(), errors.New("give a FILE with console text, or --module, not both")}
			case module != "":
				return explainModule(module, against, json)
			case c.Flags().Changed("against"):
				return usageError{c.CommandPath(), errors.New("--against says what to compare a module with: give --module, too")}
			}
			if physical, ok := plainAddress(args); ok {
				return explainAddress(args, liveMemory, false, physical, debug)
			}
			files := &debugFiles{given: debug}
			defer files.Close()
			x := &explainer{json: json, all: all, syslog: syslog, src: files.ofReport, now: time.Now}
			switch {
			case netconsole != "" && (pstore != "" || len(args) > 0):
				return usageError{c.CommandPath(), errors.New("give --netconsole, or what to read: not both")}
			case netconsole != "":
				return x.listen(c.Context(), netconsole, span)
			case c.Flags().Changed("for"):
				return usageError{c.CommandPath(), errors.New("--for is how long to listen: give --netconsole, too")}
			}
			text, err := explainText(pstore, args)
			if err != nil {
				return err
			}
			list := explain.Oopses(text, guest.NameOf)
			if len(list) == 0 {
				fmt.Fprintln(os.Stderr, "fathom: the text has no oops, warning, lockup or panic")
				return exitError{exitNegative}
			}
			x.host, _ = os.Hostname()
			return x.tell(list)
		},
	}
	c.AddCommand(explainConfigCommand(), explainAddressCommand(), explainStructCommand(), explainSyscallCommand(), explainFunctionCommand(),
		explainTracepointCommand(), explainErrnoCommand(), explainDropCommand(), explainProbeCommand())
	c.Flags().BoolVarP(&json, "json", "j", false, "one JSON object a line for each incident")
	c.Flags().StringVar(&module, "module", "", "compare the module in `FILE` with a kernel, by its debug information")
	c.Flags().StringVar(&against, "against", "live", "`KERNEL` to compare with: live, a dump, or a bzImage")
	c.Flags().StringVar(&pstore, "pstore", "", "explain what a kernel that died left: `FOLDER`, "+pstoreDir+" if none is given")
	c.Flags().Lookup("pstore").NoOptDefVal = pstoreDir
	c.Flags().StringVar(&netconsole, "netconsole", "", "listen on `ADDRESS` (UDP) and explain what machines send")
	c.Flags().StringVar(&syslog, "syslog", "", "send each incident to syslog, too: `ADDRESS` is HOST:PORT (UDP) or a socket such as /dev/log")
	forVar(c.Flags(), &span, "with --netconsole: end after this `TIME`, such as 10s")
	c.Flags().StringArrayVar(&debug, "debuginfo", nil, "`PATH` of vmlinux or modules with debug information, or of a folder: source lines")
	c.Flags().BoolVar(&all, "all", false, "explain every incident in full, not only the first")
	return c
}

// explainText reads what is to be explained. What pstore has that cannot be read is told, and no reason to end.
func explainText(pstore string, args []string) ([]byte, error) {
	if pstore == "" {
		text, err := readText(args)
		if err != nil {
			return nil, diag.NoInput("read text", err)
		}
		return text, nil
	}
	if len(args) > 0 {
		return nil, usageError{"fathom explain", errors.New("give --pstore=FOLDER, or a file: not both")}
	}
	text, err := readPstore(pstore)
	if err != nil && len(text) == 0 {
		return nil, diag.NoInput("read "+pstore, err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fathom:", err)
	}
	return text, nil
}

// ofReport is where in the source a location of an incident is. What is found is of the first release that is met.
func (d *debugFiles) ofReport(r *oops.Report, l oops.Location, call bool) []string {
	if d.release == "" {
		d.release = r.Release
	}
	return d.lines(source{symbol: l.Symbol, module: l.Module, off: l.Off, size: l.Size, call: call})
}

// readText reads a file, or standard input, up to what oops reads at all.
func readText(args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		return io.ReadAll(io.LimitReader(os.Stdin, oops.MaxText))
	}
	f, err := os.Open(args[0])
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, oops.MaxText))
}
