package events

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/flame"
)

// Page writes a page of HTML that stands by itself: counts, what ran on each CPU, the stacks as a flame graph.
type Page struct {
	w      io.Writer
	title  string
	notes  []string
	stats  *Stats
	counts bytes.Buffer
	runs   runner
	cache  cache
	stacks *Stacks
	graph  *flame.Graph
	staged bool // there are stacks
}

// NewPage writes to w at the end. notes are what a person should know of the recording; top is how many tasks are told apart.
func NewPage(w io.Writer, src *Source, title string, notes []string, top int) *Page {
	p := &Page{w: w, title: title, notes: notes, graph: &flame.Graph{Title: "stacks", Unit: "events"}}
	p.stats = NewStats(&p.counts, src, top)
	p.stacks = NewStacks(p.graph, src, "", true, func(*flame.Graph) error { return nil })
	return p
}

// Event implements [Writer].
func (p *Page) Event(e *traceevent.Event) error {
	name := ""
	if e.Format != nil {
		name = p.cache.of(e.Format).name
		p.staged = p.staged || IsStack(e.Format) || e.Format.Field("callchain") != nil
	}
	p.runs.add(e, name)
	if err := p.stacks.Event(e); err != nil {
		return err
	}
	return p.stats.Event(e)
}

// style is the page's looks; it follows the reader's choice of light or dark.
const style = `body{font:14px sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;color:#222;background:#fff}
pre{font:13px monospace;overflow-x:auto;background:#f6f6f2;padding:1em}svg{max-width:100%;height:auto}h2{font-size:1.1em;margin-top:2em}
.note{background:#fff3c4;padding:.5em 1em}@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}pre{background:#262626}.note{background:#54470f}}`

// Close implements [Writer].
func (p *Page) Close() error {
	if err := p.stats.Close(); err != nil {
		return err
	}
	if err := p.stacks.Close(); err != nil {
		return err
	}
	p.runs.close()
	b := &printer{w: p.w}
	title := html.EscapeString(p.title)
	b.f("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s</title>\n<style>%s</style></head><body>\n<h1>%s</h1>\n", title, style, title)
	for _, n := range p.notes {
		b.f("<p class=\"note\">%s</p>\n", html.EscapeString(n))
	}
	if p.runs.seen {
		b.f("<h2>What ran on each CPU</h2>\n")
		p.drawRuns(b)
	}
	b.f("<h2>Counts</h2>\n<pre>%s</pre>\n", html.EscapeString(p.counts.String()))
	if p.staged {
		var svg bytes.Buffer
		if err := p.graph.SVG(&svg); err != nil {
			return err
		}
		_, drawing, _ := strings.Cut(svg.String(), "?>\n")
		// In HTML a script of SVG ends at its end tag, and has no CDATA.
		drawing = strings.NewReplacer("<![CDATA[", "", "]]>", "").Replace(drawing)
		b.f("<h2>Stacks</h2>\n%s", drawing)
	}
	b.f("</body></html>\n")
	return b.err
}

// Sizes of the drawing of CPUs, in pixels.
const (
	runsWidth = 1200
	runsLabel = 60
	runsRow   = 26
)

// drawRuns draws a row for each CPU. Tasks that ran longest have colours; what is too short to be seen is drawn with its
// neighbours, so that the page is of a bounded size.
func (p *Page) drawRuns(b *printer) {
	r := &p.runs
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
				b.f(`<rect x="%d" y="%d" width="%d" height="%d" fill="%s"><title>%s</title></rect>`+"\n", runsLabel+c, y, n-c, runsRow-4, colour, html.EscapeString(name))
			}
			c = n
		}
	}
	b.f(`<text x="%d" y="%d" fill="currentColor">%.6f s … %.6f s; red: events are missing; grey: other tasks</text></svg>`+"\n", runsLabel, len(cpus)*runsRow+14, float64(r.first)/1e9, float64(r.last)/1e9)
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
