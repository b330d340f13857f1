package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/answers/core"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/ftrace"
	"github.com/fathom-trace/fathom/kernel/walk"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/events"
)

const coreTraceUsage = "usage: trace [-s] [-i INSTANCE] [-c CPU,…] [-e EVENT,…] [-n LAST]"

// coreTrace shows what the tracer of a dead kernel had recorded, as its file trace would: -s only how much there is in each
// instance, -i of an instance, -c of some CPUs, -e of some events, -n the last so many.
type coreTrace struct {
	sums     bool
	instance string
	cpus     []int
	specs    []record.Spec
	last     int
}

func parseCoreTrace(args []string) (o coreTrace, err error) {
	flags, rest, err := core.Flags(args, "s", "icen")
	if err != nil {
		return o, err
	}
	_, o.sums = flags['s']
	bad := len(rest) > 0 || o.sums && len(flags) > 1
	o.instance = flags['i']
	if n, ok := flags['n']; ok {
		o.last, err = strconv.Atoi(n)
		bad = bad || err != nil || o.last < 1
	}
	for c := range strings.SplitSeq(flags['c'], ",") {
		if flags['c'] != "" {
			n, err := strconv.Atoi(c)
			bad = bad || err != nil
			o.cpus = append(o.cpus, n)
		}
	}
	if bad {
		return o, &core.Usage{Msg: coreTraceUsage}
	}
	for e := range strings.SplitSeq(flags['e'], ",") {
		if flags['e'] == "" {
			break
		}
		s, err := record.ParseSpec(e)
		if err != nil {
			return o, &core.Usage{Msg: fmt.Sprintf("trace -e %s: %v", e, err)}
		}
		o.specs = append(o.specs, s)
	}
	return o, nil
}

func (s *coreSession) trace(w, errw io.Writer, args []string) error {
	o, err := parseCoreTrace(args)
	if err != nil {
		return err
	}
	all, err := ftrace.Instances(s.t)
	if o.sums || err != nil {
		traceSums(w, all)
		return err
	}
	i := slices.IndexFunc(all, func(i ftrace.Instance) bool { return i.Name == o.instance })
	if i < 0 {
		return fmt.Errorf("the tracer has no instance %q: trace -s lists them", o.instance)
	}
	formats, err := ftrace.Formats(s.t)
	if err != nil {
		fmt.Fprintln(errw, "fathom:", err)
	}
	errs := &kernel.Errors{}
	skip := 0
	if o.last > 0 {
		if err := o.over(all[i], formats, errs, func(*traceevent.Event) error { skip++; return nil }); err != nil {
			return err
		}
		skip -= min(o.last, skip)
	}
	tasks := map[int]string{}
	for t, err := range walk.Tasks(s.t) {
		if err == nil {
			tasks[t.PID] = t.Comm
		}
	}
	out := events.NewText(w, &events.Source{Env: ftrace.Env(s.t), Comm: ftrace.Comm(s.t, tasks)}, false)
	n := 0
	errs = &kernel.Errors{}
	err = o.over(all[i], formats, errs, func(e *traceevent.Event) error {
		if n++; n <= skip {
			return nil
		}
		return out.Event(e)
	})
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintf(errw, "fathom: no such event is in the ring buffers of instance %q\n", o.instance)
	}
	if errs.N > 0 {
		fmt.Fprintf(errw, "fathom: %d pages could not be read: %v\n", errs.N, errs.First)
	}
	return nil
}

// over goes over the events of an instance that are asked for, by their time.
func (o coreTrace) over(i ftrace.Instance, formats []*traceevent.Format, errs *kernel.Errors, f func(*traceevent.Event) error) error {
	var streams []traceevent.Stream
	for _, r := range i.Rings {
		if o.cpus == nil || slices.Contains(o.cpus, r.CPU) {
			streams = append(streams, r.Stream(formats, errs))
		}
	}
	merged := traceevent.Merge(streams)
	for e := range traceevent.All(merged) {
		if e.Format != nil && o.specs != nil && !slices.ContainsFunc(o.specs, func(s record.Spec) bool { return s.Matches(e.Format.System, e.Format.Name) }) {
			continue
		}
		if err := f(e); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return merged.Err()
}

// traceSums says what each instance has.
func traceSums(w io.Writer, all []ftrace.Instance) {
	fmt.Fprintf(w, "%-16s %-16s %-4s %-10s %4s %10s %12s %10s\n", "TRACE_ARRAY", "INSTANCE", "ON", "CLOCK", "CPU", "EVENTS", "OVERWRITTEN", "DROPPED")
	for _, i := range all {
		name, on := i.Name, "no"
		if name == "" {
			name = "(global)"
		}
		if i.On {
			on = "yes"
		}
		for _, r := range i.Rings {
			fmt.Fprintf(w, "%016x %-16s %-4s %-10s %4d %10d %12d %10d\n", i.Addr, name, on, i.Clock, r.CPU, r.Entries, r.Overrun, r.Dropped)
		}
	}
}
