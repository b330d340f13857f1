package script

import (
	"fmt"

	"github.com/fathom-trace/fathom/probe"
)

// benchRounds is how often a bench probe runs.
const benchRounds = 1_000_000

// bench runs the test or bench probes in place of everything else.
func (r *runner) bench(ring *probe.Reader) (Result, error) {
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
	if err := r.printMaps(); err != nil {
		return res, err
	}
	return res, r.buf.Flush()
}

func (r *runner) table(rows [][2]string) {
	w := len("BENCHMARK")
	for _, x := range rows {
		w = max(w, len(x[0]))
	}
	line := "+" + dashes(w+2) + "+" + dashes(13) + "+\n"
	fmt.Fprintf(r.buf, "\n%s| %-*s | %-11s |\n%s", line, w, "BENCHMARK", "NANOSECONDS", line)
	for _, x := range rows {
		fmt.Fprintf(r.buf, "| %-*s | %-11s |\n", w, x[0], x[1])
	}
	fmt.Fprint(r.buf, line, "\n")
}

func dashes(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = '-'
	}
	return string(b)
}
