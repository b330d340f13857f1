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
	"github.com/fathom-trace/fathom/internal/remote"
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
		return report(os.Stderr, pid1.Main(), "")
	}
	if dir, ok := remote.Far(args); ok { // this is another's machine, over ssh
		return runFar(dir)
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
		if cmd = root(); len(args) > 1 && strings.HasPrefix(args[1], cobra.ShellCompRequestCmd) {
			proposeAll(cmd)
		}
	}
	cmd.SetArgs(args[1:])
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	return report(os.Stderr, execute(ctx, cmd, args[1:]), asRoot(os.Geteuid(), args))
}

// execute runs a command; a panic, which is a bug of ours, becomes an error that tells the command line it came from.
func execute(ctx context.Context, cmd *cobra.Command, args []string) (err error) {
	defer func() {
		if e := recover(); e != nil {
			fmt.Fprintf(os.Stderr, "%s\n", debug.Stack())
			err = diag.Bug(e, fmt.Sprintf("%x of the command line", sha256.Sum256([]byte(strings.Join(args, "\x00")))))
		}
	}()
	ran, err := cmd.ExecuteContextC(ctx)
	return noNamespace(typeless(ran, err))
}

// asRoot is the command line by which root would do the same; "" for root.
func asRoot(uid int, args []string) string {
	line := "sudo " + quoted(args)
	switch {
	case uid == 0:
		return ""
	case strings.Contains(line, "\n") || len(line) > mostShown:
		return "sudo, and the same command"
	}
	return line
}

// mostShown is how long a command line may be that is shown again.
const mostShown = 160

// report prints an error in its form and gives the exit code that belongs to it. root is as [diag.Report] takes it.
func report(w io.Writer, err error, root string) int {
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
	return diag.Report(w, err, root)
}

// usageError is a command line that means nothing.
type usageError struct {
	verb string
	err  error
}

func (e usageError) Error() string { return e.err.Error() }

// Root is the tree of all verbs with their flags and help, to be written down (internal/cli/man). It is run by Main.
func Root() *cobra.Command { return root() }

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
	c.AddCommand(traceCommand("trace"), rankCommand(), packetCommand(), watchCommand(), nicCommand(), recordCommand(), viewCommand(), coreCommand(), explainCommand(), bypassCommand(),
		labCommand(), doctorCommand(), demoCommand(), versionCommand(), completionCommand())
	c.CompletionOptions.DisableDefaultCmd = true
	sayUsage(c)
	return c
}

// sayUsage has the verbs below c refuse arguments as all other command lines that mean nothing are refused: cobra's own
// errors name neither the verb nor what it takes, and would end with another exit code.
func sayUsage(c *cobra.Command) {
	for _, v := range c.Commands() {
		sayUsage(v)
		check := v.Args
		if check == nil {
			continue
		}
		v.Args = func(c *cobra.Command, args []string) error {
			err := check(c, args)
			var known usageError
			switch {
			case err == nil || errors.As(err, &known):
				return err
			case c.HasSubCommands() && len(args) > 0:
				return usageError{c.CommandPath(), fmt.Errorf("%s has no verb %q", c.Name(), args[0])}
			}
			return usageError{c.CommandPath(), fmt.Errorf("write %s: %d arguments were given", strings.TrimSuffix(c.UseLine(), " [flags]"), len(args))}
		}
	}
}

// topics are what help explains beside verbs and errors.
var topics = map[string]func(io.Writer) error{
	"lang":     func(w io.Writer) error { _, err := io.WriteString(w, docs.Language); return err },
	"bypass":   func(w io.Writer) error { _, err := io.WriteString(w, docs.Bypass); return err },
	"cookbook": func(w io.Writer) error { _, err := io.WriteString(w, docs.Cookbook); return err },
	"hosts":    func(w io.Writer) error { _, err := io.WriteString(w, docs.Hosts); return err },
	"graph":    func(w io.Writer) error { _, err := io.WriteString(w, docs.Graph); return err },
	"nic":      func(w io.Writer) error { _, err := io.WriteString(w, docs.NIC); return err },
	"packet":   func(w io.Writer) error { _, err := io.WriteString(w, docs.Packet); return err },
	"rank":     func(w io.Writer) error { _, err := io.WriteString(w, docs.Rank); return err },
	"record":   func(w io.Writer) error { _, err := io.WriteString(w, docs.Record); return err },
	"watch":    func(w io.Writer) error { _, err := io.WriteString(w, docs.Watch); return err },
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
		Use:   "help [VERB…|TOPIC|E-CODE]",
		Short: "Explain a verb, a topic, or the code of an error",
		Long: `Print a verb's flags and examples, the document about a topic, or what the code in the last line of an error means.

Topics:
  lang    the language, by example             rank    counting events
  tools   the tools that come along            record  recordings and sessions
  packet  following packets                    watch   who changed what
  nic     devices and the receive path         graph   call graphs
  bypass  going around the kernel              hosts   other machines, by ssh
  cookbook  command lines, by question

Examples:
  fathom help trace
  fathom help lang
  fathom help E-PERM`,
		Args: cobra.ArbitraryArgs, // a verb may have several words
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Root().Help()
			}
			if topic, ok := topics[args[0]]; ok && len(args) == 1 {
				return topic(c.OutOrStdout())
			}
			if text, ok := diag.Help(args[0]); ok && len(args) == 1 {
				_, err := fmt.Fprintln(c.OutOrStdout(), text)
				return err
			}
			verb, rest, err := c.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError{c.CommandPath(), fmt.Errorf("no verb, topic or code %q", strings.Join(args, " "))}
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
