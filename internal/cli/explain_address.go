package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

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
the address is a physical one: which memory or device it belongs to, which window of a PCI card, whose driver. Without
/proc/kcore that is told by /proc/iomem and sysfs.

Examples:
  fathom explain address 0xffffffff81234567 --of /var/crash/dump
  fathom explain address vfs_read+0x27 --of /var/crash/dump --debuginfo /usr/lib/debug/boot
  fathom explain address --physical 0xfebc0000
  fathom explain 0xfebc0000`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return explainAddress(args[0], of, c.Flags().Changed("of"), physical, debug)
		},
	}
	c.Flags().StringVar(&of, "of", liveMemory, "`KERNEL`: a dump, or /proc/kcore, which is the one that runs")
	c.Flags().BoolVar(&physical, "physical", false, "the address is a physical one")
	c.Flags().StringArrayVar(&debug, "debuginfo", nil, "`PATH` of vmlinux or modules with debug information, or of a folder: source lines")
	return c
}

// explainAddress writes what an address is of. given says that a person named that kernel.
func explainAddress(arg, of string, given, physical bool, debug []string) error {
	t, source, done, err := openDump(of, nil)
	if errors.Is(err, fs.ErrNotExist) && !given {
		at, perr := strconv.ParseUint(arg, 0, 64)
		if physical && perr == nil {
			if err := physicalOf(os.Stdout, "/proc", "/sys", at); err != nil {
				return diag.NoInput("explain address "+arg, err)
			}
			return nil
		}
		return &diag.Error{What: "explain address " + arg, Because: "this kernel does not show its memory: " + err.Error(), Err: err, Code: diag.ExitUnsupported,
			Try: []string{"fathom explain address " + arg + " --of DUMP", "a kernel with CONFIG_PROC_KCORE=y"}}
	}
	if err != nil {
		return err
	}
	defer done()
	s := &coreSession{Session: core.New(t, source), t: t}
	defer s.sources(debug)()
	w := bufio.NewWriter(os.Stdout)
	if err := s.Address(w, arg, physical); err != nil {
		return coreError(fmt.Errorf("explain address %s: %w", arg, err))
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// liveMemory is the memory of the kernel that runs.
const liveMemory = "/proc/kcore"
