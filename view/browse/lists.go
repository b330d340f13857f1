package browse

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/events"
)

// Bounds of a page.
const (
	rows   = 500  // of events
	gaps   = 1000 // of what was lost
	tables = 2000 // of a table
)

// around is how much is shown on both sides of an event or a gap that is followed.
const around = 500 * time.Microsecond

// events lists events as the kernel's trace file does. Before each is a link to all that happened around it.
func (p *page) events() error {
	var line bytes.Buffer
	text := events.NewText(&line, p.r.Source, p.Wall)
	n, skip := 0, p.q.Skip
	var last uint64
	same, more := 0, false    // events at the time of the last one
	skipped := map[int]bool{} // of a CPU, if its last event was: its stack was shown, too
	p.f("<pre id=\"events\">")
	err := p.each(func(e *traceevent.Event) error {
		stack := e.Format.IsStack()
		if stack && skipped[e.CPU] {
			return nil
		}
		if !stack && n >= rows {
			more = true
			return errEnough
		}
		if !stack {
			if e.Time != last {
				last, same = e.Time, 0
			}
			same++
			skipped[e.CPU] = skip > 0 && p.since(e.Time) == p.q.From
			if skipped[e.CPU] {
				skip--
				return nil
			}
			n++
		}
		if err := text.Event(e); err != nil {
			return err
		}
		if err := text.Close(); err != nil { // what it holds goes to line
			return err
		}
		p.line(e, line.String())
		line.Reset()
		return nil
	})
	p.f("</pre>\n")
	if err != nil {
		return err
	}
	if n == 0 {
		return &events.NothingError{Msg: "No events: nothing is recorded that fulfils all this."}
	}
	if p.q.From > 0 || p.q.Skip > 0 {
		p.f("<p>")
		p.to(p.q.with(func(q *Query) { q.From = 0 }), "from the beginning")
		p.f("</p>\n")
	}
	if more {
		next := p.q
		next.From, next.Skip = p.since(last), same
		p.f("<p id=\"more\">%d events. ", n)
		p.to(next, "The next")
		p.f("</p>\n")
	} else {
		p.f("<p id=\"end\">%d events, the last ones.</p>\n", n)
	}
	return nil
}

// line writes one event, or a gap.
func (p *page) line(e *traceevent.Event, text string) {
	all := func(q Query) Query {
		q.View, q.Events, q.Filter, q.Task, q.CPUs = "events", nil, "", "", nil
		return q
	}
	switch {
	case e.Format == nil:
		p.f("<a href=\"%s\" title=\"all around this gap\">⋮</a> <span class=\"lost\">%s</span>", esc(all(p.gap(e)).Link()), esc(text))
	case e.Format.IsStack():
		p.f("  %s", esc(text))
	default:
		p.f("<a href=\"%s\" title=\"all around this event\">⋮</a> %s", esc(all(p.between(e.Time, e.Time, around)).Link()), esc(text))
	}
}

// gap is the query for what is around a gap.
func (p *page) gap(e *traceevent.Event) Query {
	from := e.Since
	if from == 0 {
		from = e.Time
	}
	return p.between(from, e.Time, around)
}

// counts lists how many events there are, by kind, task and CPU, and when.
func (p *page) counts() error {
	s := events.NewStats(&bytes.Buffer{}, p.r.Source, p.Top)
	when := newDensity()
	if err := p.each(func(e *traceevent.Event) error {
		when.add(e)
		return s.Event(e)
	}); err != nil {
		return err
	}
	sum := s.Summary()
	p.f("<p>%s</p>\n", esc(sum.Head()))
	p.density(when)
	p.f("<h2>Events</h2>\n<table><tr><th>COUNT<th>SHARE<th>EVENT</tr>\n")
	for _, e := range sum.Events[:min(len(sum.Events), tables)] {
		p.row(e.N, sum.Share(e.N), e.Name, func(q *Query) { q.Events = []string{e.Name} })
	}
	p.f("</table>\n<h2>Tasks</h2>\n<table><tr><th>COUNT<th>SHARE<th>TASK</tr>\n")
	for _, t := range sum.Tasks[:min(len(sum.Tasks), p.Top)] {
		p.row(t.N, sum.Share(t.N), t.Name, func(q *Query) { q.Task = strconv.Itoa(t.TID) })
	}
	if more := len(sum.Tasks) - p.Top; more > 0 {
		p.f("<tr><td><td><td>and %d more</tr>\n", more)
	}
	p.f("</table>\n<h2>CPUs</h2>\n<table><tr><th>COUNT<th>LOST<th>GAPS<th>BLIND<th>CPU</tr>\n")
	for _, c := range sum.CPUs {
		cpu := p.q.with(func(q *Query) { q.CPUs = []int{c.CPU}; q.View = "events" })
		lost := cpu.with(func(q *Query) { q.View = "lost" })
		p.f("<tr><td>%d<td>", c.N)
		if c.Gaps > 0 {
			p.to(lost, c.LostText())
		} else {
			p.f("%s", c.LostText())
		}
		p.f("<td>%d<td>%v<td>", c.Gaps, c.Blind.Round(time.Microsecond))
		p.to(cpu, strconv.Itoa(c.CPU))
		p.f("</tr>\n")
	}
	p.f("</table>\n")
	return nil
}

// row writes a count with a link to the events that it counts.
func (p *page) row(n uint64, share float64, name string, change func(*Query)) {
	p.f("<tr><td>%d<td>%.2f%%<td>", n, share)
	p.to(p.q.with(func(q *Query) { q.View = "events"; change(q) }), name)
	p.f("</tr>\n")
}

// lost lists gaps, each with a link to what is around it.
func (p *page) lost() error {
	n := 0
	var events_ uint64
	unknown := false
	var out bytes.Buffer
	if err := p.each(func(e *traceevent.Event) error {
		if e.Format != nil {
			return nil
		}
		n++
		events_ += e.Lost
		unknown = unknown || e.Lost == 0
		if n > gaps {
			return nil
		}
		count, after := "?", "the beginning"
		if e.Lost > 0 {
			count = strconv.FormatUint(e.Lost, 10)
		}
		if e.Since > 0 {
			after = p.since(e.Since).String()
		}
		around := p.gap(e)
		around.View, around.Events, around.Filter, around.Task, around.CPUs = "events", nil, "", "", nil
		fmt.Fprintf(&out, "<tr><td>%d<td class=\"lost\">%s<td>%s<td><a href=\"%s\">%v</a></tr>\n", e.CPU, count, after, esc(around.Link()), p.since(e.Time))
		return nil
	}); err != nil {
		return err
	}
	if n == 0 {
		return &events.NothingError{Msg: "Nothing is missing here."}
	}
	least := ""
	if unknown {
		least = "at least "
	}
	p.f("<p>%s%d events are missing in %d gaps.</p>\n<table><tr><th>CPU<th>EVENTS<th>AFTER<th>BEFORE</tr>\n%s</table>\n", least, events_, n, out.String())
	if n > gaps {
		p.f("<p>and %d gaps more: choose a time or a CPU</p>\n", n-gaps)
	}
	return nil
}
