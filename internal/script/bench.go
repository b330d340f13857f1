package script

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/probe"
)

// benchRounds is how often a bench probe runs.
const benchRounds = 1_000_000

// bench runs the test or bench probes in place of everything else.
func (r *runner) bench(ring *probe.Reader) (Result, error) {
	if err := r.sess.RunSpecial("begin", nil); err != nil {
		return Result{}, err
	}
	var rows [][2]string
	res := Result{}
	for _, in := range r.comp.Info.Instances {
		if in.Provider.Name != r.o.Mode {
			continue
		}
		for _, t := range in.Targets {
			ns, rc, err := r.sess.Measure(r.o.Mode, t, map[string]int{"bench": benchRounds, "test": 1}[r.o.Mode])
			if err != nil {
				return res, err
			}
			if r.o.Mode == "test" && rc != 0 {
				res.Code = 1
			}
			rows = append(rows, [2]string{t.Func, fmt.Sprint(ns)})
		}
	}
	if !r.o.Quiet {
		r.out.Attached(len(rows))
	}
	if ring != nil {
		if err := r.rest(ring, false); err != nil {
			return res, err
		}
	}
	if r.o.Mode == "bench" {
		r.table(rows)
	}
	if err := r.sess.RunSpecial("end", nil); err != nil {
		return res, err
	}
	if ring != nil {
		if err := r.rest(ring, false); err != nil {
			return res, err
		}
	}
	r.out.End()
	if err := r.printMaps(); err != nil {
		return res, err
	}
	return res, r.buf.Flush()
}

// table prints average times, or with -f json an object for each.
func (r *runner) table(rows [][2]string) {
	if r.o.JSON {
		for _, x := range rows {
			fmt.Fprintf(r.buf, `{"type": "benchmark_result", "data": {%q: {"average": %s, "iters": %d}}}`+"\n", x[0], x[1], benchRounds)
		}
		return
	}
	fmt.Fprintf(r.buf, "%-41s%-15s%s\n%s\n", "Benchmark", "Time(ns)", "Iterations", strings.Repeat("-", 66))
	for _, x := range rows {
		fmt.Fprintf(r.buf, "%-41s%-15s%d\n", x[0], x[1], benchRounds)
	}
}
