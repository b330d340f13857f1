// Command scenarios runs faults that shell scripts make, while fathom packet looks on, and scores what it says: the right
// class, the right place, the object to blame, and the count. It needs root.
//
//	scenarios [-fathom FILE] [-only ID,ID] [-v] [-allow-system-changes] FOLDER
//
// FOLDER has a folder for each scenario: setup.sh, stimulus.sh, teardown.sh and expected.json. The scripts take the prefix
// of their namespaces from PFX. What a scenario needs and this machine lacks is said; it is not counted as right.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fathom-trace/fathom/lab/fault"
	"github.com/fathom-trace/fathom/lab/fault/expect"
)

// scriptTime bounds each script.
const scriptTime = time.Minute

// options are the flags.
type options struct {
	fathom, dir string
	only        []string
	verbose     bool
	system      bool
	raw         string
}

func main() {
	var o options
	var only string
	flag.StringVar(&o.fathom, "fathom", "./fathom", "the binary")
	flag.StringVar(&only, "only", "", "run these scenarios only (ID,ID)")
	flag.BoolVar(&o.verbose, "v", false, "say what was wrong, and what was said")
	flag.BoolVar(&o.system, "allow-system-changes", false, "run scenarios that change settings of the machine, too")
	flag.StringVar(&o.raw, "raw", "", "keep the records of each scenario in this folder")
	flag.Parse()
	if flag.NArg() != 1 {
		fmt.Fprintln(os.Stderr, "usage: scenarios [flags] FOLDER")
		os.Exit(2)
	}
	o.dir = flag.Arg(0)
	if only != "" {
		o.only = strings.Split(only, ",")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ok, err := run(ctx, os.Stdout, o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scenarios:", err)
		os.Exit(1)
	}
	if !ok {
		os.Exit(1)
	}
}

// run runs all that are wanted and prints the table.
func run(ctx context.Context, w io.Writer, o options) (ok bool, err error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return false, err
	}
	ids, err := list(o.dir)
	if err != nil {
		return false, err
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "scenario\tclass\tplace\tobject\tcount\t")
	var total fault.Tally
	for _, id := range ids {
		if len(o.only) > 0 && !slices.Contains(o.only, id) {
			continue
		}
		s := scenario{options: o, id: id, kernel: strings.TrimSpace(string(release))}
		score, missing, err := s.run(ctx)
		switch {
		case ctx.Err() != nil:
			tw.Flush()
			return false, ctx.Err()
		case err != nil:
			score = expect.Score{ID: id, Why: []string{err.Error()}}
		case missing != "":
			fmt.Fprintf(tw, "%s\t-\t-\t-\t-\tnot here: %s\n", id, missing)
			total.Missing++
			continue
		}
		total.Add(score)
		fault.PrintScore(tw, score, o.verbose)
		tw.Flush()
	}
	tw.Flush()
	fmt.Fprintln(w, total)
	return total.Right == total.Ran, nil
}

// list gives the folders that are scenarios, in the order of index.json if there is one.
func list(dir string) ([]string, error) {
	var index struct {
		Scenarios []struct{ ID string }
	}
	var ids []string
	if b, err := os.ReadFile(filepath.Join(dir, "index.json")); err == nil && json.Unmarshal(b, &index) == nil {
		for _, s := range index.Scenarios {
			ids = append(ids, s.ID)
		}
		return ids, nil
	}
	all, err := filepath.Glob(filepath.Join(dir, "*", "expected.json"))
	for _, f := range all {
		ids = append(ids, filepath.Base(filepath.Dir(f)))
	}
	if len(ids) == 0 && err == nil {
		err = fmt.Errorf("%s has no folder with an expected.json", dir)
	}
	return ids, err
}

// scenario is one run of one.
type scenario struct {
	options
	id, kernel, prefix string
}

// run sets up, watches, and scores. missing says what the machine lacks for it.
func (s scenario) run(ctx context.Context) (score expect.Score, missing string, err error) {
	s.prefix = fmt.Sprintf("p%x", time.Now().UnixNano()&0xffffff)
	b, err := os.ReadFile(filepath.Join(s.dir, s.id, "expected.json"))
	if err != nil {
		return score, "", err
	}
	stimulus, err := os.ReadFile(filepath.Join(s.dir, s.id, "stimulus.sh"))
	if err != nil {
		return score, "", err
	}
	want, err := expect.Parse(b, string(stimulus))
	if err != nil {
		return score, "", err
	}
	if slices.Contains(want.Requires, "init_netns_sysctl") && !s.system {
		return score, "it changes a setting of the machine (--allow-system-changes)", nil
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), scriptTime)
		defer cancel()
		_, terr := s.script(ctx, "teardown.sh")
		err = errors.Join(err, terr)
	}()
	said, err := s.script(ctx, "setup.sh")
	switch {
	case ctx.Err() != nil:
		return score, "", ctx.Err()
	case err != nil:
		return score, strings.Join(strings.Fields(err.Error()), " "), nil
	case strings.TrimSpace(said) != "":
		return score, "its setup says: " + strings.Join(strings.Fields(said), " "), nil
	}
	lab := expect.Lab{Netns: map[string]string{}, Kernel: s.kernel}
	var names []string
	for _, role := range []string{"a", "b", "r", "c"} {
		if _, err := os.Stat("/run/netns/" + s.prefix + role); err == nil {
			lab.Netns[role] = s.prefix + role
			names = append(names, s.prefix+role)
		}
	}
	r, err := fault.Watch(ctx, s.fathom, names, nil, func(ctx context.Context) error {
		_, err := s.script(ctx, "stimulus.sh")
		return err
	})
	if s.raw != "" {
		text := strings.Join(r.Records, "\n") + "\n" + r.Stderr
		err = errors.Join(err, os.MkdirAll(s.raw, 0o755), os.WriteFile(filepath.Join(s.raw, s.id+".jsonl"), []byte(text), 0o644))
	}
	if err != nil {
		return score, "", err
	}
	return want.Score(lab, r.Verdicts), "", nil
}

// script runs one of a scenario's scripts and gives what it prints on standard error.
func (s scenario) script(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, scriptTime)
	defer cancel()
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, "sh", filepath.Join(s.dir, s.id, name))
	cmd.Env = append(os.Environ(), "PFX="+s.prefix)
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // its background processes may hold the pipe
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) && name != "setup.sh" {
		err = nil // a ping that is not answered, a namespace that is gone
	}
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w: %s", name, s.id, err, strings.TrimSpace(stderr.String()))
	}
	return stderr.String(), nil
}
