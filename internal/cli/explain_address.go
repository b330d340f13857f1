package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/diag"
)

func explainAddressCommand() *cobra.Command {
	var of string
	var physical bool
	var debug []string
	c := &cobra.Command{
		Use:   "address ADDRESS|SYMBOL[+N] [--of KERNEL]",
		Short: "What an address of a kernel is: region, symbol, module, stack, device",
		Long: `Say what an address is: which region of the address space, as that kernel laid it out and not as a constant says, which
symbol, module, per-CPU variable or task's stack, where it is mapped, and what is at that physical address. With --physical
the address is a physical one: which memory or device, such as a PCI card's window, it belongs to.

Examples:
  fathom explain address 0xffffffff81234567 --of /var/crash/dump
  fathom explain address vfs_read+0x27 --of /var/crash/dump --debuginfo /usr/lib/debug/boot
  fathom explain address --physical 0xfebc0000`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			t, source, done, err := openDump(of, nil)
			if errors.Is(err, fs.ErrNotExist) && !c.Flags().Changed("of") {
				return &diag.Error{What: "explain address " + args[0], Because: "this kernel does not show its memory: " + err.Error(), Err: err, Code: diag.ExitUnsupported,
					Try: []string{"fathom explain address " + args[0] + " --of DUMP", "a kernel with CONFIG_PROC_KCORE=y"}}
			}
			if err != nil {
				return err
			}
			defer done()
			s := &coreSession{Session: core.New(t, source), t: t}
			defer s.sources(debug)()
			w := bufio.NewWriter(os.Stdout)
			if err := s.Address(w, args[0], physical); err != nil {
				return coreError(fmt.Errorf("explain address %s: %w", args[0], err))
			}
			if err := w.Flush(); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			return nil
		},
	}
	c.Flags().StringVar(&of, "of", "/proc/kcore", "`KERNEL`: a dump, or /proc/kcore, which is the one that runs")
	c.Flags().BoolVar(&physical, "physical", false, "the address is a physical one")
	c.Flags().StringArrayVar(&debug, "debuginfo", nil, "`PATH` of vmlinux or modules with debug information, or of a folder: source lines")
	return c
}
