// Package browse shows a recording as pages of HTML that lead to each other: events, counts, what ran on each CPU, latencies,
// stacks, and what was lost, each for a time, a condition, events, CPUs and a task that a person chooses. A page is made when
// it is asked for, by reading what it shows. It needs no script but that of the flame graph, and nothing from elsewhere.
//
// What a page says of a recording is text that others chose: all of it is escaped.
package browse

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"html"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/events"
	"github.com/fathom-trace/fathom/view/flame"
)

// Reading is a recording that was opened for one page.
type Reading struct {
	Stream  traceevent.Stream
	Pick    func(*traceevent.Event) bool // by all that the query says; stacks go with their events, gaps always are
	Source  *events.Source
	Formats []*traceevent.Format // of events that may be picked
	Start   uint64               // when the first event of the recording is, in ns in its clock
	Notes   []string             // what a person should know of the recording
	Close   func()
}

// Browser makes pages of one recording.
type Browser struct {
	Title string
	// Open opens the recording for a query. Its errors are shown on the page; they are about the query, or of reading.
	Open func(Query) (*Reading, error)
	// Match says if a pattern means an event.
	Match func(pattern, system, name string) bool
	Top   int  // how many tasks and latencies are shown
	Wall  bool // times are the time of day
}

// Page is a page, whole. Scripts are the hashes of scripts in it, as a Content-Security-Policy names them.
type Page struct {
	OK      bool
	HTML    []byte
	Scripts []string
}

// page is one that is being made.
type page struct {
	*Browser
	bytes.Buffer
	ctx     context.Context
	q       Query
	r       *Reading
	scripts []string
}

// Page makes a page. ctx ends it early.
func (b *Browser) Page(ctx context.Context, form url.Values) Page {
	p := &page{Browser: b, ctx: ctx}
	var err error
	if p.q, err = ParseQuery(form); err == nil {
		p.r, err = b.Open(p.q)
	}
	events.Head(p, b.Title)
	p.form()
	if err == nil {
		for _, n := range p.r.Notes {
			p.f("<p class=\"note\">%s</p>\n", esc(n))
		}
		err = p.body()
		p.r.Close()
	}
	var none *events.NothingError
	switch {
	case errors.As(err, &none):
		p.f("<p>%s</p>\n", esc(none.Msg))
		err = nil
	case err != nil:
		p.f("<pre class=\"note\" id=\"error\">%s</pre>\n", esc(err.Error()))
	}
	p.f("</body></html>\n")
	return Page{OK: err == nil, HTML: p.Bytes(), Scripts: p.scripts}
}

func (p *page) f(format string, args ...any) { fmt.Fprintf(p, format, args...) }

func esc(s string) string { return html.EscapeString(strings.ToValidUTF8(s, "\ufffd")) }

// to writes a link.
func (p *page) to(q Query, text string) { p.f("<a href=\"%s\">%s</a>", esc(q.Link()), esc(text)) }

// form writes the other views, and the fields.
func (p *page) form() {
	p.f("<nav>")
	for _, v := range Views {
		if v == p.q.View {
			p.f("<b>%s</b>", v)
		} else {
			p.to(p.q.with(func(q *Query) { q.View = v }), v)
		}
	}
	p.f("</nav>\n<form><input type=\"hidden\" name=\"view\" value=\"%s\">", esc(p.q.View))
	field := func(name, label, value, hint string, size int) {
		p.f("<label>%s<input name=\"%s\" value=\"%s\" placeholder=\"%s\" size=\"%d\"></label>\n", label, name, esc(value), esc(hint), size)
	}
	field("filter", "condition", p.q.Filter, `len > 100 && comm == "curl"`, 44)
	field("e", "events", strings.Join(p.q.Events, " "), "sched:* irq:softirq_raise", 32)
	field("task", "task", p.q.Task, "1234 or ssh*", 12)
	field("cpu", "CPUs", p.q.cpus(), "0,1", 6)
	field("from", "from", length(p.q.From), "1.5s", 12)
	field("until", "until", length(p.q.Until), "2s", 12)
	switch {
	case p.q.View == "latency":
		field("pair", "between", p.q.Pair, "sched_wakeup[pid] sched_switch[next_pid]", 44)
	case p.q.View == "stacks":
		field("weight", "weighed by", p.q.Weight, "len", 12)
	}
	p.f("<button>show</button> ")
	p.to(Query{View: p.q.View}, "all")
	p.f("</form>\n")
}

// body writes what the view shows.
func (p *page) body() error {
	switch p.q.View {
	case "counts":
		return p.counts()
	case "timeline":
		return p.timeline()
	case "latency":
		return p.latency()
	case "stacks":
		return p.stacks()
	case "lost":
		return p.lost()
	}
	return p.events()
}

// errEnough ends reading early.
var errEnough = errors.New("enough")

// each reads what is picked, up to the time the query ends at.
func (p *page) each(do func(e *traceevent.Event) error) error {
	var e traceevent.Event
	end := ^uint64(0)
	if p.q.Until > 0 {
		end = p.r.Start + uint64(p.q.Until)
	}
	for n := 0; p.r.Stream.Next(&e); n++ {
		if n%4096 == 0 && p.ctx.Err() != nil {
			return p.ctx.Err()
		}
		if e.Time > end && e.Format != nil && !e.Format.IsStack() {
			return nil
		}
		if !p.r.Pick(&e) {
			continue
		}
		if err := do(&e); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return p.r.Stream.Err()
}

// write gives what is picked to a writer.
func (p *page) write(w events.Writer) error {
	if err := p.each(w.Event); err != nil {
		return err
	}
	return w.Close()
}

// since is how long after the first event something was.
func (p *page) since(time_ uint64) time.Duration {
	return time.Duration(time_ - min(time_, p.r.Start))
}

// between is the query for the events of a time, which is widened by a part on both sides.
func (p *page) between(from, until uint64, around time.Duration) Query {
	return p.q.with(func(q *Query) {
		q.From = max(p.since(from)-around, 0)
		q.Until = max(p.since(until)+around, 1)
	})
}

func (p *page) timeline() error {
	p.f("<p>A click shows the time of what is clicked.</p>\n")
	return p.write(events.NewRuns(p, func(from, until uint64) string {
		return p.between(from, until, 0).with(func(q *Query) { q.View = "timeline" }).Link()
	}))
}

func (p *page) latency() error {
	if p.q.Pair == "" {
		return &events.NothingError{Msg: "Between which two events? EVENT[FIELD] EVENT[FIELD]; without fields, of the same task."}
	}
	pair, err := events.ParsePair(p.q.Pair)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	l, err := events.NewLatency(&out, p.r.Source, pair, p.Match, p.Top)
	if err != nil {
		return err
	}
	l.Heat(events.HeatColumns)
	if err := p.write(l); err != nil {
		return err
	}
	p.f("%s<pre>%s</pre>\n", l.HeatSVG(), esc(out.String()))
	if list := l.Longest(); len(list) > 0 {
		p.f("<h2>The longest, with what else happened</h2>\n<table><tr><th>FROM<th>LENGTH<th>CPU<th>TASK</tr>\n")
		for _, w := range list {
			p.f("<tr><td>")
			p.to(p.between(w.From, w.From+uint64(w.Length), 0).with(func(q *Query) { q.View, q.Events, q.Filter, q.Task = "events", nil, "", "" }), p.since(w.From).String())
			p.f("<td>%v<td>%d<td>%s</tr>\n", w.Length, w.CPU, esc(w.Task))
		}
		p.f("</table>\n")
	}
	return nil
}

func (p *page) stacks() error {
	g := &flame.Graph{Title: "stacks", Unit: "events"}
	if p.q.Weight != "" {
		g.Unit = p.q.Weight
	}
	kinds := 0
	for _, f := range p.r.Formats {
		if !f.IsStack() {
			kinds++
		}
	}
	if err := p.write(events.NewStacks(g, p.r.Source, p.q.Weight, kinds > 1, func(*flame.Graph) error { return nil })); err != nil {
		return err
	}
	drawing, script, err := events.Drawing(g)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(script))
	p.scripts = append(p.scripts, "sha256-"+base64.StdEncoding.EncodeToString(sum[:]))
	_, err = io.WriteString(p, drawing)
	return err
}
