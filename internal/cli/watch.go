package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/answers/watch"
	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/netstate/changes"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/usersym"
)

// watchFlags are what fathom watch was asked.
type watchFlags struct {
	watch.Options
	netns   []string
	count   int
	forTime time.Duration
	json    bool
	verbose bool
	quiet   bool
	strict  bool
}

func watchCommand() *cobra.Command {
	f := &watchFlags{}
	c := &cobra.Command{
		Use:   "watch [flags] addr|link|route|neigh|rule|sysctl|netns|module… [dev NAME] [netns NAME]… [PATTERN]",
		Short: "Say who changes addresses, links, routes, sysctls, namespaces, modules",
		Long: `Tell every change as it happens, with who made it (process, user, unit), how (netlink, ioctl, /proc/sys, a lifetime that ran
out, a link that went down, a duplicate address, a namespace that was deleted) and on which path through the kernel. A PATTERN
chooses sysctls: 'net.ipv4.*'. Exits with 1 if nothing changed. fathom help watch describes the JSON form.

Examples:
  fathom watch addr dev eth0
  fathom watch sysctl 'net.ipv4.*' --for 1m -j
  fathom watch link route netns blue -v`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := f.parse(c, args); err != nil {
				return err
			}
			return f.run(c.Context(), c.OutOrStdout(), os.Stderr)
		},
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.netns, "netns", nil, "watch namespace `NAME` (a name, a path, a process), or all; default is the own one")
	fl.IntVarP(&f.count, "count", "c", 0, "end after `N` changes")
	forVar(fl, &f.forTime, "end after this `TIME`, such as 10s")
	fl.BoolVarP(&f.json, "json", "j", false, "one JSON object a line for each change")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show the path through the kernel")
	fl.BoolVarP(&f.quiet, "quiet", "q", false, "no messages, only changes")
	fl.BoolVar(&f.NoBPF, "no-bpf", false, "do not load BPF programs: changes are told, their authors only guessed")
	fl.BoolVar(&f.strict, "strict", false, "exit with 3 if anything was lost")
	return c
}

// parse reads the words behind the verb: kinds, dev NAME, netns NAME, and of sysctls a pattern.
func (f *watchFlags) parse(c *cobra.Command, args []string) error {
	usage := func(format string, args ...any) error {
		return usageError{c.CommandPath(), fmt.Errorf(format, args...)}
	}
	for i := 0; i < len(args); i++ {
		word := args[i]
		switch {
		case word == "netns" && i > 0 && i+1 < len(args) && !isWatchWord(args[i+1]):
			i++
			f.netns = append(f.netns, args[i])
		case isKind(word):
			f.Kinds = append(f.Kinds, changes.Kind(word))
		case word == "dev":
			if i++; i == len(args) {
				return usage("dev needs a name")
			}
			f.Dev = args[i]
		case slices.Contains(f.Kinds, changes.Sysctl) && f.Match == "":
			f.Match = word
		default:
			return usage("nothing called %q to watch: %s", word, strings.Trim(fmt.Sprint(changes.Kinds), "[]"))
		}
	}
	if len(f.Kinds) == 0 {
		return usage("say what to watch: %s", strings.Trim(fmt.Sprint(changes.Kinds), "[]"))
	}
	if _, err := path.Match(f.Match, ""); err != nil {
		return usage("pattern %q: %w", f.Match, err)
	}
	if f.count < 0 {
		return usage("-c is not negative")
	}
	for _, n := range f.netns {
		if n == "all" {
			f.AllNamespaces = true
		} else {
			f.Namespaces = append(f.Namespaces, n)
		}
	}
	return nil
}

func isKind(word string) bool { return slices.Contains(changes.Kinds[:], changes.Kind(word)) }

// isWatchWord tells the kind netns from netns NAME: what follows it then is a word of the verb's, or nothing.
func isWatchWord(word string) bool { return word == "dev" || isKind(word) }

// changeSymbols are the running kernel's.
type changeSymbols struct{ *live.Live }

// Address implements watch.Symbols.
func (k changeSymbols) Address(name string) []uint64 {
	t, err := k.Kallsyms()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(t.ByName(name), func(a uint64) bool { return a == 0 })
}

func (f *watchFlags) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	l, err := live.Open(live.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	users := usersym.New(usersym.Options{})
	defer users.Close()
	world := probe.NewWorld(l, users, 0)
	defer world.Close()
	if f.CPUs, err = l.NumCPU(); err != nil {
		return err
	}
	w, err := watch.Open(world, changeSymbols{l}, f.Options)
	if err != nil {
		return err
	}
	defer w.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if f.forTime > 0 {
		ctx, cancel = context.WithTimeout(ctx, f.forTime)
		defer cancel()
	}
	interrupt, stop := interrupts()
	defer stop()
	go func() {
		select {
		case <-interrupt:
			cancel()
		case <-ctx.Done():
		}
	}()
	if !f.quiet {
		for _, m := range w.Means() {
			fmt.Fprintf(stderr, "fathom: %s\n", m)
		}
		fmt.Fprintln(stderr, "fathom: watching; Ctrl-C ends")
	}
	n, err := f.print(ctx, w, stdout)
	if err != nil {
		return err
	}
	return f.end(w, n, stdout, stderr)
}

// print writes changes until there is an end, and gives how many.
func (f *watchFlags) print(ctx context.Context, w *watch.Watcher, stdout io.Writer) (n int, err error) {
	out := bufio.NewWriter(stdout)
	for f.count == 0 || n < f.count {
		r, err := w.Next(ctx)
		if err != nil || r == nil {
			return n, err
		}
		if f.json {
			err = r.WriteJSON(out)
		} else {
			err = r.WriteText(out, f.verbose)
		}
		if err = errors.Join(err, out.Flush()); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// end says what was lost, and gives the exit code.
func (f *watchFlags) end(w *watch.Watcher, n int, stdout, stderr io.Writer) error {
	messages, sightings := w.Lost()
	lost := messages+sightings > 0
	switch {
	case lost && f.json:
		if err := jsonl.Write(stdout, map[string]any{"type": "lost", "messages": messages, "sightings": sightings}); err != nil {
			return err
		}
	case lost && !f.quiet:
		fmt.Fprintf(stderr, "fathom: lost: messages %d times, %d times who it was\n", messages, sightings)
	}
	switch {
	case lost && f.strict:
		return exitError{exitLost}
	case n == 0:
		return exitError{exitNegative}
	}
	return nil
}
