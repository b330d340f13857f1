package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/vmcore"
)

func coreCommand() *cobra.Command {
	var parts []string
	var guest string
	c := &cobra.Command{
		Use:   "core FILE [COMMAND…] | core --guest NAME [COMMAND…]",
		Short: "Read a crash dump: why the kernel died, and what everybody was doing",
		Long: `Read a crash dump without debug information: ELF (QEMU, virsh, /proc/vmcore) and kdump-compressed files, flattened,
split or cut short. Symbols, types and unwind tables come out of the dump itself. Without a command: one page that says
why the kernel died, then, on a terminal, a prompt for commands. With --guest, the memory of a guest that lab boot keeps is
read through its gdb stub; it stands still meanwhile and needs nothing in it.

Examples:
  fathom core /var/crash/dump
  fathom core /var/crash/dump bt -a
  virsh dump --memory-only vm1 dump && fathom core dump log
  fathom core --guest g foreach bt

` + commandList(),
		RunE: func(c *cobra.Command, args []string) error {
			if guest != "" {
				s, done, err := openGuest(c.Context(), guest)
				if err != nil {
					return err
				}
				defer done()
				return runCore(s, args)
			}
			if len(args) == 0 {
				return usageError{"fathom core", errors.New("which file?")}
			}
			s, done, err := openCore(args[0], parts)
			if err != nil {
				return err
			}
			defer done()
			return runCore(s, args[1:])
		},
	}
	c.Flags().StringArrayVar(&parts, "part", nil, "another file of a split dump; may be repeated")
	c.Flags().StringVar(&guest, "guest", "", "read the live guest `NAME`")
	c.Flags().SetInterspersed(false)
	return c
}

func commandList() string {
	var b strings.Builder
	b.WriteString("Commands:\n")
	for _, c := range core.Commands() {
		fmt.Fprintf(&b, "  %-8s %-42s %s\n", c.Name, c.Args, c.Help)
	}
	return strings.TrimRight(b.String(), "\n")
}

// openCore opens a dump and the kernel in it. done closes the files.
func openCore(name string, parts []string) (s *core.Session, done func(), err error) {
	var open []*os.File
	closeAll := func() {
		for _, f := range open {
			f.Close()
		}
	}
	defer func() {
		if err != nil {
			closeAll()
		}
	}()
	var files []vmcore.File
	for _, n := range append([]string{name}, parts...) {
		f, err := os.Open(n)
		if err != nil {
			return nil, nil, diag.NoInput("open dump", err)
		}
		open = append(open, f)
		size, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, nil, diag.NoInput("open dump", err)
		}
		files = append(files, vmcore.File{R: f, Size: size})
	}
	c, err := vmcore.Open(files...)
	if err != nil {
		return nil, nil, diag.BadInput("read dump "+name, err)
	}
	d, err := dump.Open(c)
	if err != nil {
		return nil, nil, diag.BadInput("read the kernel in "+name, err)
	}
	return core.New(d, describe(name, c)), closeAll, nil
}

func describe(name string, c *vmcore.Core) string {
	s := fmt.Sprintf("%s: %s", name, c.Format)
	if c.Detail != "" {
		s += " " + c.Detail
	}
	if c.Flattened {
		s += ", flattened"
	}
	if c.Incomplete {
		s += ", INCOMPLETE"
	}
	if c.Info != nil && c.Info.Found != 0 {
		s += fmt.Sprintf("; VMCOREINFO found in memory at %#x", c.Info.Found)
	}
	return s
}

// runCore runs one command, or writes the page and, on a terminal, asks for commands.
func runCore(s *core.Session, args []string) error {
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	if len(args) > 0 {
		return coreError(s.Run(w, args))
	}
	if err := s.Page(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	if !term.IsTerminal(0) || !term.IsTerminal(1) {
		return nil
	}
	return prompt(s)
}

func coreError(err error) error {
	var u *core.Usage
	if errors.As(err, &u) {
		return usageError{"fathom core", u}
	}
	return err
}

// prompt reads commands with line editing until the end of input, or quit.
func prompt(s *core.Session) error {
	old, err := term.MakeRaw(0)
	if err != nil {
		return fmt.Errorf("set terminal: %w", err)
	}
	defer term.Restore(0, old)
	t := term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stdout}, "core> ")
	for {
		line, err := t.ReadLine()
		args := strings.Fields(line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read command: %w", err)
		case len(args) == 0:
			continue
		case args[0] == "quit" || args[0] == "exit" || args[0] == "q":
			return nil
		case args[0] == "help" || args[0] == "?":
			fmt.Fprintln(t, commandList())
			continue
		}
		if err := s.Run(t, args); err != nil {
			fmt.Fprintln(t, err)
		}
	}
}

// openGuest stops a guest that lab boot keeps and opens the kernel in its memory. done lets it go on.
func openGuest(ctx context.Context, name string) (s *core.Session, done func(), err error) {
	what := "read guest " + name
	g, err := findGuest(what, name)
	if err != nil {
		return nil, nil, err
	}
	head, thaw, err := g.Freeze(ctx)
	if err != nil {
		return nil, nil, wrap(what, err)
	}
	defer func() {
		if err != nil {
			thaw()
		}
	}()
	f, err := os.Open(head)
	if err != nil {
		return nil, nil, wrap(what, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, nil, wrap(what, err)
	}
	notes, err := vmcore.Open(vmcore.File{R: f, Size: st.Size()})
	if err != nil {
		return nil, nil, wrap(what, err)
	}
	stub, err := g.Stub()
	if err != nil {
		return nil, nil, &diag.Error{What: what, Err: err, Try: []string{"end the gdb that is connected to it"}}
	}
	c := notes.WithMemory(ranges(g.Info.Memory()), stub.ReadPhys)
	d, err := dump.Open(c)
	if err != nil {
		stub.Abandon()
		return nil, nil, wrap(what, err)
	}
	return core.New(d, "guest "+name+": live, stopped while it is read"), func() {
		stub.Abandon()
		thaw()
	}, nil
}

func ranges(mem [][2]uint64) (out []vmcore.Range) {
	for _, m := range mem {
		out = append(out, vmcore.Range{Start: m[0], End: m[1]})
	}
	return out
}
