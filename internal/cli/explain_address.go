package cli

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/kernel/live"
)

func explainAddressCommand() *cobra.Command {
	var of string
	var physical bool
	var debug []string
	c := &cobra.Command{
		Use:   "address ADDRESS|SYMBOL[+N]… [--of KERNEL]",
		Short: "What an address of a kernel is: region, symbol, module, stack, device",
		Long: `Say what an address is: which region of the address space, as that kernel laid it out and not as a constant says, which
symbol, module, per-CPU variable or task's stack, where it is mapped, and what is at that physical address. With --physical
the address is a physical one: which memory or device it belongs to, which window of a PCI card, whose driver. Without
/proc/kcore that is told by /proc/iomem and sysfs, and of virtual ones what /proc/kallsyms says.

Examples:
  fathom explain address 0xffffffff81234567 --of /var/crash/dump
  fathom explain address vfs_read+0x27 --of /var/crash/dump --debuginfo /usr/lib/debug/boot
  fathom explain address --physical 0xfebc0000
  fathom explain 0xfebc0000`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return explainAddress(args, of, c.Flags().Changed("of"), physical, debug)
		},
	}
	c.Flags().StringVar(&of, "of", liveMemory, "`KERNEL`: a dump, or /proc/kcore, which is the one that runs")
	c.Flags().BoolVar(&physical, "physical", false, "the address is a physical one")
	c.Flags().StringArrayVar(&debug, "debuginfo", nil, "`PATH` of vmlinux or modules with debug information, or of a folder: source lines")
	return c
}

// explainAddress writes what addresses are of. given says that a person named that kernel.
func explainAddress(args []string, of string, given, physical bool, debug []string) error {
	t, source, done, err := openDump(of, nil)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return addressesByFiles(os.Stdout, args, physical, err)
	}
	if err != nil {
		return err
	}
	defer done()
	s := &coreSession{Session: core.New(t, source), t: t}
	defer s.sources(debug)()
	w := bufio.NewWriter(os.Stdout)
	for i, arg := range args {
		if i > 0 {
			fmt.Fprintln(w)
		}
		if err := s.Address(w, arg, physical); err != nil {
			return errors.Join(coreError(fmt.Errorf("explain address %s: %w", arg, err)), w.Flush())
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// addressesByFiles says of addresses what /proc/iomem, sysfs and /proc/kallsyms tell, where the kernel does not show its memory,
// which err says.
func addressesByFiles(w io.Writer, args []string, physical bool, err error) error {
	l, lerr := live.Open(live.Options{})
	if lerr != nil {
		return lerr
	}
	defer l.Close()
	syms, serr := l.Kallsyms()
	if serr == nil {
		serr = syms.Hidden()
	}
	for i, arg := range args {
		if i > 0 {
			fmt.Fprintln(w)
		}
		at, perr := strconv.ParseUint(arg, 0, 64)
		switch {
		case physical && perr == nil:
			if err := physicalOf(w, "/proc", "/sys", at); err != nil {
				return diag.NoInput("explain address "+arg, err)
			}
		case physical || serr != nil || !symbolOf(w, syms, arg):
			return &diag.Error{What: "explain address " + arg, Because: errors.Join(fmt.Errorf("this kernel does not show its memory: %w", err), serr).Error(), Err: err, Code: diag.ExitUnsupported,
				Try: []string{"fathom explain address " + arg + " --of DUMP", "a kernel with CONFIG_PROC_KCORE=y"}}
		}
	}
	return nil
}

// symbolOf says what symbols tell of an address, or of SYMBOL[+N]; false if that is nothing.
func symbolOf(w io.Writer, syms *kallsyms.Table, arg string) bool {
	at, err := strconv.ParseUint(strings.TrimPrefix(arg, "0x"), 16, 64)
	if err != nil {
		name, off, _ := strings.Cut(arg, "+")
		n, err := strconv.ParseUint(cmp.Or(off, "0"), 0, 63)
		all := syms.ByName(name)
		if len(all) == 0 || err != nil {
			return false
		}
		at = all[0] + n
	}
	name, module, off, ok := syms.ByAddr(at)
	if !ok {
		return false
	}
	region := "the kernel's image"
	if module != "" {
		region, module = "modules", " ["+module+"]"
	}
	fmt.Fprintf(w, "%#016x\n  region    %s\n  symbol    %s+%#x%s\n  missing   where it is mapped, and what is there: the kernel has no %s\n", at, region, name, off, module, liveMemory)
	return true
}

// liveMemory is the memory of the kernel that runs.
const liveMemory = "/proc/kcore"
