package browse

import (
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/view/events"
)

// columns is how many parts of time are told apart, at most.
const columns = 240

// moment is what happened in one of them.
type moment struct {
	n    uint64
	lost bool
}

// density counts events by time.
type density struct{ *events.Columns[moment] }

func newDensity() *density {
	return &density{events.NewColumns(columns, func(into *moment, from moment) { *into = moment{into.n + from.n, into.lost || from.lost} })}
}

func (d *density) add(e *traceevent.Event) {
	if e.Format != nil {
		d.At(e.Time).n++
		return
	}
	d.At(e.Time) // the first event there is may be that some were lost before
	since := max(e.Since, d.First)
	gap := d.Between(min(since, e.Time), e.Time)
	for k := range gap {
		gap[k].lost = true
	}
}

// Sizes of the drawing, in pixels.
const (
	densityWidth  = 1200
	densityHeight = 80
)

// density draws when events are; a click shows that time.
func (p *page) density(d *density) {
	if len(d.Parts) == 0 {
		return
	}
	most := uint64(1)
	for _, m := range d.Parts {
		most = max(most, m.n)
	}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" id="when">`+"\n", densityWidth, densityHeight+8, densityWidth)
	wide := float64(densityWidth) / float64(len(d.Parts))
	for i, m := range d.Parts {
		if m.n == 0 && !m.lost {
			continue
		}
		from := d.First + uint64(i)*d.Width
		q := p.between(from, from+d.Width-1, 0)
		height := float64(m.n) / float64(most) * densityHeight
		p.f(`<a href="%s"><rect x="%.1f" y="0" width="%.1f" height="%d" fill="#8881"/><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#4a90d9"><title>%d events from %v on</title></rect>`,
			esc(q.Link()), float64(i)*wide, wide, densityHeight+8, float64(i)*wide, densityHeight-height, max(wide-.5, .5), height, m.n, p.since(from))
		if m.lost {
			p.f(`<rect x="%.1f" y="%d" width="%.1f" height="8" fill="#e02020"><title>events are missing</title></rect>`, float64(i)*wide, densityHeight, wide)
		}
		p.f("</a>\n")
	}
	p.f("</svg>\n")
}
