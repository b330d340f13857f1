package cli

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/fathom-trace/fathom/internal/callgraph"
	"github.com/fathom-trace/fathom/internal/diag"
	"github.com/fathom-trace/fathom/probe"
)

func traceGraphCommand() *cobra.Command {
	var o callgraph.Options
	var strict bool
	c := &cobra.Command{
		Use:   "graph [flags] FUNCTION [-- COMMAND [ARG…]]",
		Short: "Draw the calls below a kernel function, with durations",
		Long: `Draw the tree of calls below a kernel function, with durations, as the kernel's function_graph tracer does, in a tracing
instance of its own: what others trace is neither seen nor changed. Kernels that have function_graph in the shared instance
only are asked through probes on entries and returns; a line says which engine is used, and why. Exits with 1 if the
function was never called.

Examples:
  fathom trace graph vfs_read -- cat /etc/hostname
  fathom trace graph tcp_sendmsg --comm curl --depth 4 --min 100us --for 10s
  fathom trace graph do_sys_openat2 -p 1 --stat --for 30s`,
		Args: func(c *cobra.Command, args []string) error {
			dash := c.ArgsLenAtDash()
			if len(args) == 0 || dash == 0 || dash < 0 && len(args) > 1 || dash > 1 {
				return usageError{c.CommandPath(), errors.New("give one function, and a command only behind --")}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.Func, o.Command = args[0], args[1:]
			if err := checkGraph(c, &o); err != nil {
				return err
			}
			sweep()
			var stop func()
			o.Interrupt, stop = interrupts()
			defer stop()
			o.Stdout, o.Stderr, o.Leases = os.Stdout, os.Stderr, leases()
			res, err := callgraph.Run(c.Context(), o)
			return graphResult(o, res, strict, err)
		},
	}
	fl := c.Flags()
	fl.IntVarP(&o.PID, "pid", "p", 0, "only process `PID`, its threads and children; end when it ends")
	fl.StringVar(&o.Comm, "comm", "", "only tasks of this `NAME`")
	fl.IntVar(&o.Depth, "depth", 0, "show `N` levels, the function's own included (default all)")
	fl.DurationVar(&o.Min, "min", 0, "show only calls of the function that take at least this `TIME`")
	fl.IntVarP(&o.Count, "count", "n", 0, "end after `N` calls of the function")
	forVar(fl, &o.For, "end after this `TIME`, such as 10s")
	fl.StringVar(&o.Engine, "engine", callgraph.Auto, "`NAME`: auto, function_graph, or probes")
	fl.StringSliceVar(&o.Only, "only", nil, "below the function watch only those that match `GLOB`s; '*' is every one there is")
	fl.StringSliceVar(&o.Also, "also", nil, "watch functions that match `GLOB`s too, such as those called through pointers")
	fl.BoolVar(&o.NoIrq, "no-irq", false, "leave out what interrupts did meanwhile")
	fl.BoolVar(&o.Stat, "stat", false, "no trees, but a table by function at the end")
	fl.BoolVarP(&o.JSON, "json", "j", false, "one JSON object a line for each call of the function")
	fl.BoolVarP(&o.Quiet, "quiet", "q", false, "no messages, only the trees")
	fl.BoolVarP(&o.Verbose, "verbose", "v", false, "engine probes: show its program and how it is attached")
	fl.BoolVar(&strict, "strict", false, "exit with 3 if events were lost")
	return c
}

func checkGraph(c *cobra.Command, o *callgraph.Options) error {
	for _, bad := range []struct {
		is   bool
		text string
	}{
		{!slices.Contains(callgraph.Engines, o.Engine), fmt.Sprintf("no engine %q: %s", o.Engine, strings.Join(callgraph.Engines, ", "))},
		{o.PID != 0 && len(o.Command) > 0, "give a process or a command, not both"},
		{o.PID < 0 || o.PID > pidMax, fmt.Sprintf("process %d: out of range", o.PID)},
		{o.Depth < 0 || o.Count < 0 || o.Min < 0 || o.For < 0, "--depth, -n, --min and --for are not negative"},
	} {
		if bad.is {
			return usageError{c.CommandPath(), errors.New(bad.text)}
		}
	}
	return nil
}

// graphResult turns the end of a trace into an exit code and, if it failed, four lines.
func graphResult(o callgraph.Options, res callgraph.Result, strict bool, err error) error {
	var why *probe.NotTraceable
	switch {
	case errors.As(err, &why):
		e := &diag.Error{What: "trace " + o.Func, Because: why.Text, Err: err}
		for _, f := range why.Instead {
			e.Try = append(e.Try, "fathom trace graph "+f)
		}
		return e
	case err != nil:
		return err
	case res.Code != 0 && !o.Quiet:
		fmt.Fprintf(os.Stderr, "fathom: the command ended with %d\n", res.Code)
	}
	switch {
	case strict && res.Lost > 0:
		return exitError{exitLost}
	case res.Calls == 0:
		return exitError{exitNegative}
	}
	return nil
}
