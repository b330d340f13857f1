package cli

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/guest/keep"
	"github.com/fathom-trace/fathom/lab/guest/kmod"
	"github.com/fathom-trace/fathom/lab/guest/symfile"
)

func labGDBCommand() *cobra.Command {
	var show bool
	var files []string
	c := &cobra.Command{
		Use:   "gdb GUEST [-- GDB-ARG…]",
		Short: "Debug a guest with gdb, symbols and modules loaded",
		Long: `Run gdb on the stub of a guest that lab boot keeps. It knows the kernel's functions where they are now, KASLR or not: by the
vmlinux of a build tree, or else by /proc/kallsyms of the guest; and lines of modules that have debug information: those
of "lab module", of the build tree, and of --module FILE. The guest stands still while gdb does not let it run.

Examples:
  fathom lab gdb g
  fathom lab gdb g -- -ex 'hbreak veth_xmit' -ex continue -ex bt
  fathom lab gdb g --print`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			what := "debug guest " + args[0]
			g, err := findGuest(what, args[0])
			if err != nil {
				return err
			}
			line, err := gdbLine(c.Context(), g, files)
			if err != nil {
				return wrap(what, err)
			}
			rest := args[1:]
			if len(rest) > 0 && rest[0] == "--" {
				rest = rest[1:]
			}
			line = append(line, rest...)
			if show {
				fmt.Println(quoted(line))
				return nil
			}
			path, err := exec.LookPath(line[0])
			if err != nil {
				return &diag.Error{What: what, Err: err, Code: diag.ExitNoInput, Try: []string{"apt-get install gdb", "fathom core --guest " + args[0] + " bt -a"}}
			}
			return syscall.Exec(path, line, os.Environ())
		},
	}
	c.Flags().BoolVar(&show, "print", false, "print the command instead of running it")
	c.Flags().StringArrayVar(&files, "module", nil, "a loaded module's `FILE` with debug information")
	return c
}

// gdbLine is gdb's command line.
func gdbLine(ctx context.Context, g keep.Client, files []string) ([]string, error) {
	var text bytes.Buffer
	if _, err := g.Get(ctx, &text, "/proc/kallsyms"); err != nil {
		return nil, err
	}
	syms, err := symfile.Parse(&text)
	if err != nil {
		return nil, err
	}
	line := []string{"gdb", "-q"}
	file, args, err := kernelSymbols(g, syms)
	if err != nil {
		return nil, err
	}
	line = append(line, "-ex", "symbol-file "+file+args)
	cache, err := guest.UserCache()
	if err != nil {
		return nil, err
	}
	loaded := map[string]bool{}
	for _, s := range syms {
		loaded[s.Module] = true
	}
	built, _ := filepath.Glob(filepath.Join(cache.Dir, "modules", g.Info.Kernel.Release, "*", "*.ko"))
	for _, f := range append(files, built...) {
		name := kmod.Name(f)
		if !loaded[name] {
			if slices.Contains(files, f) {
				return nil, fmt.Errorf("module %s is not loaded", name)
			}
			continue
		}
		add, err := addSymbols(ctx, g, name, f)
		if err != nil {
			return nil, err
		}
		line = append(line, "-ex", add)
	}
	return append(line, "-ex", "target remote "+g.Info.GDB()), nil
}

// kernelSymbols gives the file of the kernel's symbols: the build tree's vmlinux, moved to where the kernel is, or one made
// of what the guest says, which lives as long as the guest.
func kernelSymbols(g keep.Client, syms []symfile.Symbol) (file, args string, err error) {
	vmlinux := filepath.Join(g.Info.Kernel.Dir, "vmlinux")
	if f, err := elf.Open(vmlinux); err == nil {
		defer f.Close()
		own, err := f.Symbols()
		if err != nil {
			return "", "", fmt.Errorf("%s: %w", vmlinux, err)
		}
		i := slices.IndexFunc(own, func(s elf.Symbol) bool { return s.Name == "_stext" })
		j := slices.IndexFunc(syms, func(s symfile.Symbol) bool { return s.Name == "_stext" && s.Module == "" })
		if i < 0 || j < 0 {
			return "", "", fmt.Errorf("%s: no symbol _stext", vmlinux)
		}
		return vmlinux, fmt.Sprintf(" -o %#x", syms[j].Addr-own[i].Value), nil
	}
	file = filepath.Join(g.Info.Folder, "symbols")
	f, err := os.Create(file)
	if err != nil {
		return "", "", err
	}
	return file, "", errors.Join(symfile.Write(f, syms), f.Close())
}

// addSymbols is gdb's command for a module: its sections are where the guest's /sys says.
func addSymbols(ctx context.Context, g keep.Client, name, file string) (string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	defer f.Close()
	cmd := "add-symbol-file " + file
	for _, s := range f.Sections {
		if s.Size == 0 || !slices.Contains([]string{".text", ".exit.text", ".rodata", ".data", ".bss"}, s.Name) {
			continue // what of .init is gone, and nobody looks at the rest
		}
		var b bytes.Buffer
		if _, err := g.Get(ctx, &b, "/sys/module/"+name+"/sections/"+s.Name); err != nil {
			return "", err
		}
		addr := strings.TrimSpace(b.String())
		if _, err := strconv.ParseUint(addr, 0, 64); err != nil {
			return "", fmt.Errorf("module %s: section %s is at %q", name, s.Name, addr)
		}
		cmd += " -s " + s.Name + " " + addr
	}
	return cmd, nil
}

// quoted is a command line for a shell.
func quoted(line []string) string {
	out := slices.Clone(line)
	for i, a := range out {
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_@%+=:,./-", r)
		}) {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}
