package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/dump"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/vmcore"
)

func coreCommand() *cobra.Command {
	var parts, debug []string
	var guest, page string
	c := &cobra.Command{
		Use:   "core FILE [COMMAND…] | core --guest NAME [COMMAND…]",
		Short: "Read a crash dump: why the kernel died, and what everybody was doing",
		Long: `Read a crash dump without debug information: ELF (QEMU, virsh, /proc/vmcore) and kdump-compressed files, flattened,
split or cut short. Symbols, types and unwind tables come out of the dump itself. Without a command: one page that says
why the kernel died, then, on a terminal, a prompt for commands. With --guest, the memory of a guest that lab boot keeps is
read through QMP, or its gdb stub; it stands still meanwhile and needs nothing in it. So can be that of any QEMU on this
machine, by the path of its QMP socket (-qmp unix:PATH,server=on,wait=off).

Commands have the names that crash gave them; "core FILE help" says what each does:
` + commandNames() + `

Examples:
  fathom core /var/crash/dump
  fathom core /var/crash/dump bt -a
  fathom core /var/crash/dump eval '((struct task_struct *)kaddr("init_task"))->comm'
  virsh dump --memory-only vm1 dump && fathom core dump log
  fathom core --html page.html /var/crash/dump
  fathom core /var/crash/dump diff /var/crash/later
  fathom core --guest g foreach bt
  fathom core --guest ./qmp.sock`,
		RunE: func(c *cobra.Command, args []string) error {
			dead := deadFlags{parts: parts, guest: guest}
			if guest == "" {
				if len(args) == 0 {
					return usageError{"fathom core", errors.New("which file?")}
				}
				dead.file, args = args[0], args[1:]
			}
			t, source, done, err := dead.open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			s := &coreSession{Session: core.New(t, source), t: t}
			defer s.sources(debug)()
			if page != "" {
				if len(args) > 0 {
					return usageError{"fathom core", errors.New("--html is for the page, not for a command")}
				}
				return toFile(page, s.HTML)
			}
			return runCore(s, args)
		},
	}
	c.Flags().StringArrayVar(&parts, "part", nil, "another `FILE` of a split dump; may be repeated")
	c.Flags().StringArrayVar(&debug, "debuginfo", nil, "`PATH` of vmlinux or modules with debug information, or of a folder: source lines")
	c.Flags().StringVar(&page, "html", "", "write the page and what commands say to `FILE`, for any browser, offline")
	c.Flags().StringVar(&guest, "guest", "", "read the live guest `NAME`, or that of the QMP socket PATH")
	c.Flags().SetInterspersed(false)
	return c
}

// commandNames are the names of all commands, in lines.
func commandNames() string {
	var b strings.Builder
	line := " "
	names := []string{"diff", "eval", "help", "trace"}
	for _, c := range core.Commands() {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	for _, n := range names {
		if len(line)+len(n) > 110 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + n
	}
	return b.String() + line
}

func commandList() string {
	var b strings.Builder
	b.WriteString("Commands:\n")
	line := func(name, args, help string) {
		const width = 46
		if len(args) > width {
			fmt.Fprintf(&b, "  %-8s %s\n", name, args)
			name, args = "", ""
		}
		fmt.Fprintf(&b, "  %-8s %-*s %s\n", name, width, args, help)
	}
	for _, c := range core.Commands() {
		line(c.Name, c.Args, c.Help)
		if c.Name == "dev" {
			line("diff", "FILE", "what another dump has otherwise")
		}
		if c.Name == "timer" {
			line("trace", strings.TrimPrefix(coreTraceUsage, "usage: trace "), "what the tracer (ftrace) had recorded; how much in each instance (-s), the last N (-n)")
		}
		if c.Name == "dis" {
			line("eval", "EXPRESSION", "value of an expression of the language that trace has")
		}
	}
	return strings.TrimRight(b.String(), "\n")
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

// coreSession is a kernel that commands are asked of.
type coreSession struct {
	*core.Session
	t     kernel.Target
	lines core.Lines
}

// sources makes stacks have source lines: all of them if paths were given, else those of bt -l and dis -l.
func (s *coreSession) sources(given []string) (done func()) {
	d := &debugFiles{given: given}
	if dead, ok := s.t.(*dump.Dump); ok {
		d.release, d.buildID = dead.Info.Release, dead.Info.BuildID
	}
	text := s.t.Symbols().ByName("_text")
	s.lines = func(function, module string, pc, off uint64, call bool) []string {
		from := uint64(0)
		if len(text) > 0 {
			from = pc - text[0]
		}
		return d.lines(source{symbol: function, module: module, off: off, call: call, fromText: from})
	}
	s.Source(s.lines, len(given) > 0)
	return func() {
		for _, n := range d.notes {
			fmt.Fprintln(os.Stderr, "fathom:", n)
		}
		d.Close()
	}
}

// run runs one command. text is its arguments as they were written.
func (s *coreSession) run(w, errw io.Writer, name string, args []string, text string) error {
	switch name {
	case "help", "?":
		_, err := fmt.Fprintln(w, commandList())
		return err
	case "diff":
		return s.diff(w, args)
	case "trace":
		return s.trace(w, errw, args)
	case "eval":
	default:
		return s.Run(w, append([]string{name}, args...))
	}
	if strings.TrimSpace(text) == "" {
		return &core.Usage{Msg: "usage: eval EXPRESSION"}
	}
	return script.Eval(s.t, text, w, errw, func(ds []syntax.Diag) { diag.Render(errw, ds, style()) })
}

// diff compares with another dump.
func (s *coreSession) diff(w io.Writer, args []string) error {
	if len(args) != 1 {
		return &core.Usage{Msg: "usage: diff FILE"}
	}
	t, source, done, err := openDump(args[0], nil)
	if err != nil {
		return err
	}
	defer done()
	differ, err := core.Diff(w, s.Session, core.New(t, source))
	if err == nil && !differ {
		fmt.Fprintln(w, "nothing that is compared differs")
	}
	return err
}

// runCore runs one command, or writes the page and, on a terminal, asks for commands.
func runCore(s *coreSession, args []string) error {
	w := bufio.NewWriter(os.Stdout)
	defer w.Flush()
	if len(args) > 0 {
		return coreError(s.run(w, os.Stderr, args[0], args[1:], strings.Join(args[1:], " ")))
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
func prompt(s *coreSession) error {
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
		}
		_, rest, _ := strings.Cut(strings.TrimSpace(line), args[0])
		if err := s.run(t, t, args[0], args[1:], rest); err != nil && !errors.Is(err, script.ErrDiagnosed) {
			fmt.Fprintln(t, err)
		}
	}
}
