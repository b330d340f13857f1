package events

import (
	"bytes"
	"fmt"
	"html"
	"io"
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
		p.staged = p.staged || e.Format.IsStack() || e.Format.Field("callchain") != nil
	}
	p.runs.add(e, name)
	if err := p.stacks.Event(e); err != nil {
		return err
	}
	return p.stats.Event(e)
}

// style is the looks of pages; it follows the reader's choice of light or dark.
const style = `body{font:14px sans-serif;margin:2em auto;max-width:1240px;padding:0 1em;color:#222;background:#fff}
pre{font:13px monospace;overflow-x:auto;background:#f6f6f2;padding:1em}svg{max-width:100%;height:auto}h2{font-size:1.1em;margin-top:2em}
.note{background:#fff3c4;padding:.5em 1em}@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1b}pre{background:#262626}.note{background:#54470f}a{color:#8ab4f8}}
nav a,nav b{margin-right:1em}form{margin:1em 0;display:flex;flex-wrap:wrap;gap:.5em 1em;align-items:end}label{display:flex;flex-direction:column;font-size:.85em}
input{font:13px monospace;padding:.3em}table{border-collapse:collapse;font:13px monospace}td,th{padding:.1em 1em .1em 0;text-align:right}
td:last-child,th:last-child{text-align:left}.lost{color:#e02020}pre a{text-decoration:none}svg a:hover rect{opacity:.6}`

// Head writes how a page of HTML begins, up to its title as a heading. What follows ends with "</body></html>".
func Head(w io.Writer, title string) error {
	title = html.EscapeString(title)
	_, err := fmt.Fprintf(w, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><link rel=\"icon\" href=\"data:,\"><title>%s</title>\n<style>%s</style></head><body>\n<h1>%s</h1>\n", title, style, title)
	return err
}

// Drawing gives a flame graph as a part of a page of HTML, and the script in it.
func Drawing(g *flame.Graph) (drawing, script string, err error) {
	var svg bytes.Buffer
	if err := g.SVG(&svg); err != nil {
		return "", "", err
	}
	_, drawing, _ = strings.Cut(svg.String(), "?>\n")
	// In HTML a script of SVG ends at its end tag, and has no CDATA.
	drawing = strings.NewReplacer("<![CDATA[", "", "]]>", "").Replace(drawing)
	_, script, _ = strings.Cut(drawing, "<script>")
	script, _, _ = strings.Cut(script, "</script>")
	return drawing, script, nil
}

// Close implements [Writer].
func (p *Page) Close() error {
	if err := p.stats.Close(); err != nil {
		return err
	}
	if err := p.stacks.Close(); err != nil {
		return err
	}
	p.runs.close()
	if err := Head(p.w, p.title); err != nil {
		return err
	}
	b := &printer{w: p.w}
	for _, n := range p.notes {
		b.f("<p class=\"note\">%s</p>\n", html.EscapeString(n))
	}
	if p.runs.seen {
		b.f("<h2>What ran on each CPU</h2>\n")
		p.runs.draw(b, nil)
	}
	b.f("<h2>Counts</h2>\n<pre>%s</pre>\n", html.EscapeString(p.counts.String()))
	if p.staged {
		drawing, _, err := Drawing(p.graph)
		if err != nil {
			return err
		}
		b.f("<h2>Stacks</h2>\n%s", drawing)
	}
	b.f("</body></html>\n")
	return b.err
}
