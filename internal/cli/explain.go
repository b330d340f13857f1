package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/explain"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/oops"
)

func explainCommand() *cobra.Command {
	var json, all bool
	var module, against string
	var debug []string
	c := &cobra.Command{
		Use:   "explain [FILE] | explain --module X.ko [--against KERNEL]",
		Short: "Explain an oops, a warning, a lockup or a panic from the kernel's console text",
		Long: `Explain what a dying kernel printed: which kind, why in words, the faulting instruction with its operands, the stack,
the module, the taint. The text may come from dmesg, a serial line, netconsole, pstore, the journal or a quoting mail; "-"
or no FILE reads standard input. Exits with 1 if there is no incident in it. With --module: whether a module was built
for a kernel, and if not, which structs differ and where; exits with 1 if it was not.

Examples:
  dmesg | fathom explain
  fathom explain /sys/fs/pstore/dmesg-efi-1
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
			text, err := readText(args)
			if err != nil {
				return diag.NoInput("read text", err)
			}
			list := explain.Oopses(text)
			if len(list) == 0 {
				fmt.Fprintln(os.Stderr, "fathom: the text has no oops, warning, lockup or panic")
				return exitError{exitNegative}
			}
			files := &debugFiles{given: debug}
			defer files.Close()
			src := files.ofReport
			w := bufio.NewWriter(os.Stdout)
			if json {
				err = explain.JSON(w, list, src)
			} else {
				explain.Text(w, list, all, src)
			}
			if err == nil {
				err = w.Flush()
			}
			if err != nil {
				return fmt.Errorf("write: %w", err)
			}
			return nil
		},
	}
	c.Flags().BoolVarP(&json, "json", "j", false, "one JSON object a line for each incident")
	c.Flags().StringVar(&module, "module", "", "compare the module in `FILE` with a kernel, by its debug information")
	c.Flags().StringVar(&against, "against", "live", "`KERNEL` to compare with: live, a dump, or a bzImage")
	c.Flags().StringArrayVar(&debug, "debug", nil, "`PATH` of vmlinux or modules with debug information, or of a folder: source lines")
	c.Flags().BoolVar(&all, "all", false, "explain every incident in full, not only the first")
	return c
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
