package events

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/traceevent"
)

// slice is a time that a task ran on a CPU, or that is missing there.
type slice struct {
	cpu, tid int
	from, to uint64
	lost     bool
}

// runner tells from sched_switch what ran where, and when.
type runner struct {
	slices []slice
	runs   map[int]run
	comms  map[int]string
	first  uint64 // if begun
	begun  bool
	last   uint64
	seen   bool // a sched_switch
	cpus   map[int]bool
}

func (r *runner) add(e *traceevent.Event, name string) {
	if r.runs == nil {
		r.runs, r.comms, r.cpus = map[int]run{}, map[int]string{}, map[int]bool{}
	}
	if !r.begun {
		r.first, r.begun = e.Time, true
	}
	r.last = max(r.last, e.Time)
	r.cpus[e.CPU] = true
	switch {
	case e.Format == nil:
		r.end(e.CPU, max(e.Since, r.first)) // who ran in the gap is not known
		r.slices = append(r.slices, slice{e.CPU, 0, max(e.Since, r.first), e.Time, true})
	case name == "sched_switch":
		r.seen = true
		r.end(e.CPU, e.Time)
		if tid, comm := switchedTo(e); tid != 0 {
			r.runs[e.CPU] = run{tid, comm, e.Time}
			r.comms[tid] = comm
		}
	}
}

func (r *runner) end(cpu int, at uint64) {
	if k, ok := r.runs[cpu]; ok && at > k.from {
		r.slices = append(r.slices, slice{cpu, k.tid, k.from, at, false})
	}
	delete(r.runs, cpu)
}

// close ends what still runs.
func (r *runner) close() {
	for cpu := range r.runs {
		r.end(cpu, r.last)
	}
}

// busiest lists the tasks that ran longest.
func (r *runner) busiest(n int) []int {
	sum := map[int]uint64{}
	for _, s := range r.slices {
		if !s.lost {
			sum[s.tid] += s.to - s.from
		}
	}
	var tids []int
	for tid := range sum {
		tids = append(tids, tid)
	}
	sorting.By(tids, func(a, b int) int { return cmp.Or(cmp.Compare(sum[b], sum[a]), cmp.Compare(a, b)) })
	return tids[:min(n, len(tids))]
}

func (r *runner) sortedCPUs() (out []int) {
	for c := range r.cpus {
		out = append(out, c)
	}
	slices.Sort(out)
	return out
}

// Timeline draws what ran on each CPU, and when each of the busiest tasks ran, a column for a part of the time.
type Timeline struct {
	w     io.Writer
	width int
	top   int
	utf8  bool
	runs  runner
	cache cache
}

// NewTimeline writes to w at the end, in so many columns.
func NewTimeline(w io.Writer, width, top int, utf8 bool) *Timeline {
	return &Timeline{w: w, width: width, top: top, utf8: utf8}
}

// Event implements [Writer].
func (t *Timeline) Event(e *traceevent.Event) error {
	name := ""
	if e.Format != nil {
		name = t.cache.of(e.Format).name
	}
	t.runs.add(e, name)
	return nil
}

// letters mark tasks in the rows of CPUs.
const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// labelWidth is what stands before a row.
const labelWidth = 24

// Close implements [Writer].
func (t *Timeline) Close() error {
	r := &t.runs
	r.close()
	if !r.seen {
		return nothing("no sched_switch in the recording: what ran is not known")
	}
	cols := max(t.width-labelWidth-1, 10)
	top := r.busiest(min(t.top, len(letters)))
	p := &printer{w: t.w}
	p.f("%-*s%.6f s … %.6f s, %v a column\n", labelWidth, "", float64(r.first)/1e9, float64(r.last)/1e9, span((r.last-r.first)/uint64(cols)))
	for _, cpu := range r.sortedCPUs() {
		p.f("%-*s%s\n", labelWidth, fmt.Sprintf("CPU %d", cpu), t.cpuRow(cpu, cols, top))
	}
	p.f("%-*s. idle  ? events are missing  * another task\n\n", labelWidth, "")
	for i, tid := range top {
		label := fmt.Sprintf("%c %.13s-%d", letters[i], r.comms[tid], tid)
		p.f("%-*s%s\n", labelWidth, label, t.taskRow(tid, cols))
	}
	return p.err
}

// bins adds up, for each column, how long slices cover it.
func (r *runner) bins(cols int, of func(slice) bool) []float64 {
	out := make([]float64, cols)
	width := float64(r.last-r.first) / float64(cols)
	if width == 0 {
		return out
	}
	for _, s := range r.slices {
		if !of(s) {
			continue
		}
		from, to := float64(s.from-min(s.from, r.first))/width, float64(s.to-r.first)/width
		for c := int(from); c < cols && float64(c) < to; c++ {
			out[c] += min(to, float64(c+1)) - max(from, float64(c))
		}
	}
	return out
}

// cpuRow shows the task that ran most in each column.
func (t *Timeline) cpuRow(cpu, cols int, top []int) string {
	r := &t.runs
	row := []byte(strings.Repeat(".", cols))
	best := make([]float64, cols)
	put := func(mark byte, share []float64) {
		for c, v := range share {
			if v > best[c] && v > .01 {
				best[c], row[c] = v, mark
			}
		}
	}
	for i, tid := range top {
		put(letters[i], r.bins(cols, func(s slice) bool { return s.cpu == cpu && s.tid == tid && !s.lost }))
	}
	put('*', r.bins(cols, func(s slice) bool { return s.cpu == cpu && !s.lost && !slices.Contains(top, s.tid) }))
	for c, v := range r.bins(cols, func(s slice) bool { return s.cpu == cpu && s.lost }) {
		if v > .01 {
			row[c] = '?'
		}
	}
	return string(row)
}

// taskRow shows how much of each column a task ran.
func (t *Timeline) taskRow(tid, cols int) string {
	marks := []rune(" .:-=+*#%@")
	if t.utf8 {
		marks = []rune(" ▁▂▃▄▅▆▇█")
	}
	var b strings.Builder
	for _, v := range t.runs.bins(cols, func(s slice) bool { return s.tid == tid && !s.lost }) {
		i := int(v * float64(len(marks)-1))
		if v > 0 {
			i = max(i, 1)
		}
		b.WriteRune(marks[min(i, len(marks)-1)])
	}
	return b.String()
}
