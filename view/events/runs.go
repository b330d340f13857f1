package events

import (
	"fmt"
	"html"
	"io"
	"slices"

	"github.com/fathom-trace/fathom/traceevent"
)

// Sizes of the drawing of CPUs, in pixels.
const (
	runsWidth = 1200
	runsLabel = 60
	runsRow   = 26
)

// Runs draws what ran on each CPU as SVG within a page of HTML.
type Runs struct {
	w     io.Writer
	link  func(from, until uint64) string
	runs  runner
	cache cache
}

// NewRuns writes to w at the end. link, which may be nil, gives the address of what shows more of a time, in ns of the clock of the
// recording.
func NewRuns(w io.Writer, link func(from, until uint64) string) *Runs {
	return &Runs{w: w, link: link}
}

// Event implements [Writer].
func (r *Runs) Event(e *traceevent.Event) error {
	name := ""
	if e.Format != nil {
		name = r.cache.of(e.Format).name
	}
	r.runs.add(e, name)
	return nil
}

// Close implements [Writer].
func (r *Runs) Close() error {
	r.runs.close()
	if !r.runs.seen {
		return nothing("no sched_switch among the events: what ran is not known")
	}
	b := &printer{w: r.w}
	r.runs.draw(b, r.link)
	return b.err
}

// draw draws a row for each CPU. Tasks that ran longest have colours; what is too short to be seen is drawn with its
// neighbours, so that the page is of a bounded size.
func (r *runner) draw(b *printer, link func(from, until uint64) string) {
	cpus := r.sortedCPUs()
	top := r.busiest(16)
	b.f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" font-family="monospace" font-size="12">`+"\n", runsWidth, len(cpus)*runsRow+20, runsWidth)
	cols := runsWidth - runsLabel
	for row, cpu := range cpus {
		y := row * runsRow
		b.f(`<text x="0" y="%d" fill="currentColor">CPU %d</text><rect x="%d" y="%d" width="%d" height="%d" fill="#8882"/>`+"\n", y+16, cpu, runsLabel, y, cols, runsRow-4)
		owner := make([]int, cols) // index in top and one; -1 another task, -2 missing
		best := make([]float64, cols)
		put := func(mark int, share []float64) {
			for c, v := range share {
				if v > best[c] && v > .01 {
					best[c], owner[c] = v, mark
				}
			}
		}
		for i, tid := range top {
			put(i+1, r.bins(cols, func(s slice) bool { return s.cpu == cpu && s.tid == tid && !s.lost }))
		}
		put(-1, r.bins(cols, func(s slice) bool { return s.cpu == cpu && !s.lost && !slices.Contains(top, s.tid) }))
		for c, v := range r.bins(cols, func(s slice) bool { return s.cpu == cpu && s.lost }) {
			if v > .01 {
				owner[c] = -2
			}
		}
		for c := 0; c < cols; {
			n := c
			for n < cols && owner[n] == owner[c] {
				n++
			}
			if o := owner[c]; o != 0 {
				name, colour := r.owner(o, top)
				part := fmt.Sprintf(`<rect x="%d" y="%d" width="%d" height="%d" fill="%s"><title>%s</title></rect>`, runsLabel+c, y, n-c, runsRow-4, colour, html.EscapeString(name))
				if link != nil {
					part = fmt.Sprintf(`<a href="%s">%s</a>`, html.EscapeString(link(r.column(c, cols), r.column(n, cols))), part)
				}
				b.f("%s\n", part)
			}
			c = n
		}
	}
	b.f(`<text x="%d" y="%d" fill="currentColor">%.6f s … %.6f s; red: events are missing; grey: other tasks</text></svg>`+"\n", runsLabel, len(cpus)*runsRow+14, float64(r.first)/1e9, float64(r.last)/1e9)
}

// column is when a column of the drawing begins.
func (r *runner) column(c, cols int) uint64 {
	return r.first + uint64(float64(r.last-r.first)*float64(c)/float64(cols))
}

// owner names and colours a part of a row.
func (r *runner) owner(mark int, top []int) (name, colour string) {
	switch mark {
	case -1:
		return "other tasks", "#999"
	case -2:
		return "events are missing", "#e02020"
	}
	tid := top[mark-1]
	return fmt.Sprintf("%s-%d", r.comms[tid], tid), fmt.Sprintf("hsl(%d 60%% 55%%)", 40+(mark-1)*137%300)
}
