package browse

import (
	"github.com/fathom-trace/fathom/traceevent"
)

// columns is how many parts of time are told apart, at most.
const columns = 240

// density counts events by time, in columns of a width that grows as the time does: the end is not known before it is read.
type density struct {
	first uint64
	width uint64 // ns
	n     [columns]uint64
	lost  [columns]bool
	used  int
}

func (d *density) add(e *traceevent.Event) {
	if d.width == 0 {
		d.first, d.width = e.Time, 1
	}
	at := e.Time - min(e.Time, d.first)
	for at/d.width >= columns {
		d.halve()
	}
	c := int(at / d.width)
	d.used = max(d.used, c+1)
	if e.Format != nil {
		d.n[c]++
		return
	}
	since := max(e.Since, d.first)
	for k := int((since - min(since, d.first)) / d.width); k <= c; k++ {
		d.lost[k] = true
	}
}

// halve makes one column of two.
func (d *density) halve() {
	d.width *= 2
	d.used = (d.used + 1) / 2
	for i := range columns {
		if a := 2 * i; a < columns {
			d.n[i], d.lost[i] = d.n[a]+d.n[a+1], d.lost[a] || d.lost[a+1]
		} else {
			d.n[i], d.lost[i] = 0, false
		}
	}
}

// Sizes of the drawing, in pixels.
const (
	densityWidth  = 1200
	densityHeight = 80
)

// density draws when events are; a click shows that time.
func (p *page) density(d *density) {
	if d.used == 0 {
		return
	}
	most := uint64(1)
	for _, n := range d.n[:d.used] {
		most = max(most, n)
	}
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" id="when">`+"\n", densityWidth, densityHeight+8, densityWidth)
	wide := float64(densityWidth) / float64(d.used)
	for i, n := range d.n[:d.used] {
		if n == 0 && !d.lost[i] {
			continue
		}
		from := d.first + uint64(i)*d.width
		q := p.between(from, from+d.width-1, 0)
		height := float64(n) / float64(most) * densityHeight
		p.f(`<a href="%s"><rect x="%.1f" y="0" width="%.1f" height="%d" fill="#8881"/><rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="#4a90d9"><title>%d events from %v on</title></rect>`,
			esc(q.Link()), float64(i)*wide, wide, densityHeight+8, float64(i)*wide, densityHeight-height, max(wide-.5, .5), height, n, p.since(from))
		if d.lost[i] {
			p.f(`<rect x="%.1f" y="%d" width="%.1f" height="8" fill="#e02020"><title>events are missing</title></rect>`, float64(i)*wide, densityHeight, wide)
		}
		p.f("</a>\n")
	}
	p.f("</svg>\n")
}
