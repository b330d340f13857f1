package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/lab/exercise"
)

// labActCommand is how this binary becomes a part of an exercise.
func labActCommand() *cobra.Command {
	return &cobra.Command{
		Use: exercise.ActVerb, Hidden: true, DisableFlagParsing: true,
		RunE: func(c *cobra.Command, args []string) error { return exercise.Act(args) },
	}
}

func listExercises(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, e := range exercise.All() {
		where := ""
		if e.Guest {
			where = "(a guest)"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", e.Name, e.Title, where)
	}
	return tw.Flush()
}

func labTryCommand() *cobra.Command {
	var seed uint64
	c := &cobra.Command{
		Use:   "try EXERCISE",
		Short: "Practise on a problem that is ready-made",
		Long: `Build a problem, ask, and check the answer; all goes when it ends, kill -9 included (with the next fathom that starts).
Look for the answer with fathom in another terminal, or here with a ! before the command. "hint" helps, "quit" gives up.
Exit code 0 for a right answer, 1 for none. "fathom lab list --exercises" has the names.

Examples:
  fathom lab try closed-port
  fathom lab try oops
  fathom lab try dropped-packet --seed 7`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			e, ok := exercise.Find(args[0])
			if !ok {
				return &diag.Error{What: "try " + args[0], Because: "there is no such exercise", Code: diag.ExitNoInput, Try: []string{"fathom lab list --exercises"}}
			}
			if !e.Guest && os.Geteuid() != 0 {
				return &diag.Error{What: "try " + e.Name, Because: "it makes network namespaces and processes to trace", Code: diag.ExitPermission, Try: []string{"sudo fathom lab try " + e.Name, "fathom lab try oops"}}
			}
			if !c.Flags().Changed("seed") {
				seed = rand.Uint64()
			}
			sweep()
			ctx, stop := signal.NotifyContext(c.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return tryExercise(ctx, e, seed)
		},
	}
	c.Flags().Uint64Var(&seed, "seed", 0, "draw names, addresses and counts from `N`: the same problem again")
	return c
}

func tryExercise(ctx context.Context, e exercise.Exercise, seed uint64) (err error) {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	b, err := exercise.NewBench(self, leases(), seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	fmt.Fprintf(os.Stderr, "building %s …\n", e.Name)
	p, err := e.Build(ctx, b)
	if err != nil {
		return &diag.Error{What: "try " + e.Name, Err: err}
	}
	fmt.Printf("%s\n\n", p.Text)
	return ask(ctx, p, os.Stdin, os.Stdout)
}

// ask reads answers until one is right, or there are no more.
func ask(ctx context.Context, p exercise.Problem, in io.Reader, out io.Writer) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for sc := bufio.NewScanner(in); sc.Scan(); {
			select {
			case lines <- strings.TrimSpace(sc.Text()):
			case <-ctx.Done():
				return
			}
		}
	}()
	for hint := 0; ; {
		fmt.Fprint(out, "answer> ")
		select {
		case <-ctx.Done():
			return exitError{exitNegative}
		case line, ok := <-lines:
			command, isCommand := strings.CutPrefix(line, "!")
			switch {
			case !ok || line == "quit":
				fmt.Fprintln(out)
				return exitError{exitNegative}
			case line == "":
			case line == "hint" && hint < len(p.Hints):
				fmt.Fprintln(out, p.Hints[hint])
				hint++
			case line == "hint":
				fmt.Fprintln(out, "There are no more hints.")
			case isCommand:
				cmd := exec.CommandContext(ctx, "sh", "-c", command)
				cmd.Stdout, cmd.Stderr = out, os.Stderr
				if err := cmd.Run(); err != nil {
					fmt.Fprintln(out, err)
				}
			case p.Check(line):
				fmt.Fprintf(out, "Right: %s\n", p.Why)
				return nil
			default:
				fmt.Fprintln(out, "No.")
			}
		}
	}
}
