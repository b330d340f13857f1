// Package cli is the command line: one file for each verb, which turns flags into options, calls a package, and renders.
package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/docs"
	"github.com/fathom-trace/fathom/examples"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/script"
	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// Exit codes (docs/architecture.md).
const (
	exitNegative = 1
	exitUsage    = 2
	exitLost     = 3
)

// exitError ends the process with a code and no further words.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// Main runs the command line args (with the program's name first) and gives the exit code.
func Main(args []string) int {
	if pid1.IsInit() { // of a guest that lab boot started
		return report(os.Stderr, pid1.Main())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var cmd *cobra.Command
	switch name := filepath.Base(args[0]); name {
	case "bpftrace":
		cmd = traceCommand(name)
		cmd.Args = nil
	case "lttng", "lttng-sessiond":
		cmd = lttng(name)
	default:
		cmd = root()
	}
	cmd.SetArgs(args[1:])
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return report(os.Stderr, execute(ctx, cmd, args[1:]))
}

// execute runs a command; a panic, which is a bug of ours, becomes an error that tells the command line it came from.
func execute(ctx context.Context, cmd *cobra.Command, args []string) (err error) {
	defer func() {
		if e := recover(); e != nil {
			fmt.Fprintf(os.Stderr, "%s\n", debug.Stack())
			err = diag.Bug(e, fmt.Sprintf("%x of the command line", sha256.Sum256([]byte(strings.Join(args, "\x00")))))
		}
	}()
	return cmd.ExecuteContext(ctx)
}

// report prints an error in its form and gives the exit code that belongs to it.
func report(w io.Writer, err error) int {
	var code exitError
	var usage usageError
	var peer peerError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return code.code
	case errors.Is(err, script.ErrDiagnosed):
		return exitNegative
	case errors.Is(err, script.ErrNoProbes):
		fmt.Fprintln(os.Stdout, err)
		return exitNegative
	case errors.As(err, &peer):
		fmt.Fprintf(w, "ERROR: %s\n", peer.msg)
		return exitNegative
	case errors.As(err, &usage):
		fmt.Fprintf(w, "fathom: %v\ntry: %s --help\n", usage.err, usage.verb)
		return exitUsage
	}
	return diag.Report(w, err)
}

// usageError is a command line that means nothing.
type usageError struct {
	verb string
	err  error
}

func (e usageError) Error() string { return e.err.Error() }

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "fathom",
		Short: "Ask a Linux kernel what it did",
		Long: `fathom asks a Linux kernel what it did. A question is a program in the bpftrace language.

Examples:
  fathom trace -e 'tracepoint:syscalls:sys_enter_openat { printf("%s %s\n", comm, str(args.filename)); }' --for 5s
  fathom trace -l 'tracepoint:net:*'
  fathom lab up 'a:10.0.0.1/24 -- b:10.0.0.2/24'
  fathom doctor`,
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return usageError{c.CommandPath(), err} })
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usageError{"fathom", fmt.Errorf("no verb %q", args[0])}
		}
		return c.Help()
	}
	c.Args = cobra.ArbitraryArgs
	c.SetHelpCommand(helpCommand())
	c.AddCommand(traceCommand("trace"), rankCommand(), packetCommand(), watchCommand(), recordCommand(), viewCommand(), coreCommand(), explainCommand(), labCommand(), doctorCommand(), demoCommand(), versionCommand())
	return c
}

// topics are what help explains beside verbs and errors.
var topics = map[string]func(io.Writer) error{
	"lang":   func(w io.Writer) error { _, err := io.WriteString(w, docs.Language); return err },
	"graph":  func(w io.Writer) error { _, err := io.WriteString(w, docs.Graph); return err },
	"packet": func(w io.Writer) error { _, err := io.WriteString(w, docs.Packet); return err },
	"rank":   func(w io.Writer) error { _, err := io.WriteString(w, docs.Rank); return err },
	"record": func(w io.Writer) error { _, err := io.WriteString(w, docs.Record); return err },
	"watch":  func(w io.Writer) error { _, err := io.WriteString(w, docs.Watch); return err },
	"tools": func(w io.Writer) error {
		fmt.Fprintf(w, "Tools that come with fathom: run one with fathom trace NAME.\n\n")
		for _, t := range examples.Tools() {
			if _, err := fmt.Fprintf(w, "  %-15s %s\n", t.Name, t.Doc); err != nil {
				return err
			}
		}
		return nil
	},
}

// helpCommand is help VERB, help TOPIC, and help E-CODE for what the last line of an error names.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "help [VERB|lang|graph|packet|rank|record|watch|tools|E-CODE]",
		Short: "Explain a verb, the language, call graphs, packets, counting, recordings, watching changes, the tools that come along, or the code of an error",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Root().Help()
			}
			if topic, ok := topics[args[0]]; ok {
				return topic(c.OutOrStdout())
			}
			if text, ok := diag.Help(args[0]); ok {
				_, err := fmt.Fprintln(c.OutOrStdout(), text)
				return err
			}
			verb, _, err := c.Root().Find(args)
			if err != nil {
				return usageError{"fathom", err}
			}
			return verb.Help()
		},
	}
}

// interrupts gives Ctrl-C: the first ends a trace, the second stops draining, the third exits.
func interrupts() (<-chan os.Signal, func()) {
	in := make(chan os.Signal, 3)
	out := make(chan os.Signal, 1)
	signal.Notify(in, os.Interrupt)
	done := make(chan struct{})
	go func() {
		for n := 0; ; n++ {
			select {
			case s := <-in:
				if n == 2 {
					os.Exit(130)
				}
				select {
				case out <- s:
				default:
				}
			case <-done:
				return
			}
		}
	}()
	return out, func() { signal.Stop(in); close(done) }
}
