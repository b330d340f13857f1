package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/internal/remote"
)

// hostFlags say on which other machines a verb runs.
type hostFlags struct{ hosts []string }

func (f *hostFlags) add(fl *pflag.FlagSet) {
	fl.StringSliceVar(&f.hosts, "host", nil, "do this on other `HOSTS`, [user@]host[:port],…, by ssh, told as one (fathom help hosts)")
}

// given says if other machines are asked.
func (f *hostFlags) given() bool { return len(f.hosts) > 0 }

// runFar is the binary as the far side of a connection: internal/remote has started it.
func runFar(dir string) int {
	// A connection that is cut must not end this process before it has ended what it runs.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	go func() {
		for range pipes {
		}
	}()
	if err := remote.ServeFar(dir, os.Stdin, os.Stdout); err != nil {
		return report(os.Stderr, err, "")
	}
	return 0
}

// far says if this process runs for someone who joins what several hosts say.
func far() bool { return os.Getenv(remote.Env) != "" }

// farArgs writes the flags of a verb that were given, to be given on other hosts: all but those named, which are for here.
func farArgs(fl *pflag.FlagSet, here ...string) (out []string) {
	fl.Visit(func(f *pflag.Flag) {
		if f.Name == "host" || slices.Contains(here, f.Name) {
			return
		}
		if s, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range s.GetSlice() {
				out = append(out, "--"+f.Name+"="+quoteSlice(f, v))
			}
			return
		}
		out = append(out, "--"+f.Name+"="+f.Value.String())
	})
	return out
}

// quoteSlice writes an element of a list so that it is read as one: some lists divide what they are given at commas.
func quoteSlice(f *pflag.Flag, v string) string {
	if f.Value.Type() == "stringSlice" && strings.ContainsAny(v, ",\"\n") {
		return `"` + strings.ReplaceAll(v, `"`, `""`) + `"`
	}
	return v
}

// refuseHere refuses flags that have no meaning on several hosts.
func refuseHere(c *cobra.Command, why string, names ...string) error {
	for _, n := range names {
		if c.Flags().Changed(n) {
			return usageError{c.CommandPath(), fmt.Errorf("--host: %s: --%s has no meaning there", why, n)}
		}
	}
	return nil
}

// hostRun is a verb on several hosts.
type hostRun struct {
	verb  string
	hosts []remote.Host
	ask   remote.Ask
	root  bool
	quiet bool

	mu sync.Mutex // stderr
}

// run connects, runs, and says how it went. What hosts say is passed to ask.Line.
func (r *hostRun) run(ctx context.Context, f *hostFlags) (results []remote.Result, err error) {
	if r.hosts, err = remote.Parse(f.hosts); err != nil {
		return nil, usageError{r.verb, fmt.Errorf("--host: %w", err)}
	}
	in, stop := interrupts()
	defer stop()
	// While connections are made, Ctrl-C ends that.
	dialing, connected := context.WithCancel(ctx)
	defer connected()
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		select {
		case <-in:
			connected()
		case <-over:
		}
	}()
	conns, err := remote.DialAll(dialing, r.hosts, remote.Options{Root: r.root, Said: func(h remote.Host, s string) { r.say(h.Name, s) }})
	close(over)
	wg.Wait()
	if err != nil {
		if dialing.Err() != nil && ctx.Err() == nil {
			return nil, exitError{130}
		}
		return nil, hostError(err)
	}
	for _, c := range conns {
		if c.Sudo {
			r.say(c.Host.Name, "runs as root there, by sudo")
		}
		if !r.quiet {
			r.say(c.Host.Name, c.Clock().String())
		}
	}
	r.ask.Interrupt = in
	results, err = remote.Run(ctx, conns, r.ask)
	if err != nil {
		return results, err
	}
	for _, x := range results {
		if x.Late > 0 {
			r.say(x.Host.Name, fmt.Sprintf("%d lines came more than %v late: they are told after later ones of other hosts", x.Late, remote.Hold))
		}
	}
	return results, nil
}

// say writes a message of a host.
func (r *hostRun) say(host, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(os.Stderr, "%s: %s\n", host, text)
}

// ended gives the exit code of all: the first that is not 0, and an error if a host's run did not end by itself.
func ended(results []remote.Result) error {
	var cut []string
	code := 0
	for _, x := range results {
		if x.Err != nil {
			cut = append(cut, fmt.Sprintf("%s: %v", x.Host.Name, x.Err))
		}
		if code == 0 {
			code = x.Code
		}
	}
	switch {
	case len(cut) > 0:
		return &diag.Error{What: fmt.Sprintf("run on %d of %d hosts", len(cut), len(results)), Because: strings.Join(cut, "; "), Code: diag.ExitFailure}
	case code != 0:
		return exitError{code}
	}
	return nil
}

// hostError tells of a host that cannot be reached.
func hostError(err error) error {
	var e *remote.Error
	if errors.As(err, &e) {
		return &diag.Error{What: e.What + " on " + e.Host.Name, Because: e.Because, Try: e.Try, Code: diag.ExitNoInput, Err: err}
	}
	return err
}

// stamp is the time of day of a moment here, as ns since boot are nothing that hosts share.
func stamp(boot int64) time.Time { return time.Unix(0, boot+bootToReal()).UTC() }

// bootToReal is what to add to ns since boot to have ns since 1970.
func bootToReal() int64 { return remote.BootToReal() }
