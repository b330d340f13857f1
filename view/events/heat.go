package events

import (
	"bytes"
	"fmt"
	"html"
	"io"
	"math"
	"math/bits"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/traceevent"
)

// A heat map has the time from left to right, how long things took from below, and in each cell how many took so long then: two
// modes of a latency, or one that grows, are seen where a histogram shows one hill.

// heatRows is two for each power of two that a latency may have.
const heatRows = 2 * 65

// heatColumn counts latencies that ended in a part of the time, by rows.
type heatColumn struct {
	n    [heatRows]uint64
	lost bool // events are missing
}

type heat struct{ *Columns[heatColumn] }

func newHeat(columns int) *heat {
	return &heat{NewColumns(columns, func(into *heatColumn, from heatColumn) {
		for i, n := range from.n {
			into.n[i] += n
		}
		into.lost = into.lost || from.lost
	})}
}

// row numbers the halves of powers of two.
func row(ns uint64) int {
	l := bits.Len64(ns)
	if l < 2 {
		return 2 * l
	}
	return 2*l + int(ns>>(l-2)&1)
}

// least is the smallest number of a row.
func least(r int) uint64 {
	switch l := r / 2; {
	case l == 0:
		return 0
	case l == 1:
		return 1
	default:
		return uint64(2+r%2) << (l - 2)
	}
}

func (h *heat) add(at, ns uint64) { h.At(at).n[row(ns)]++ }

// gap marks where events are missing.
func (h *heat) gap(e *traceevent.Event) {
	h.At(e.Time)
	parts := h.Between(min(max(e.Since, h.First), e.Time), e.Time)
	for i := range parts {
		parts[i].lost = true
	}
}

// cells gives what is drawn, a row for so many.
func (h *heat) cells(rows int) *cells {
	first, last := heatRows, 0
	for r := 0; r < heatRows; r += rows {
		for c := range h.Parts {
			if h.cell(c, r, rows) > 0 {
				first, last = min(first, r), r
			}
		}
	}
	whole := uint64(len(h.Parts)) * h.Width
	return &cells{columns: len(h.Parts), rows: (last-first)/rows + 1,
		n:    func(c, r int) uint64 { return h.cell(c, first+r*rows, rows) },
		lost: func(c int) bool { return h.Parts[c].lost },
		row: func(r int) string {
			if r = first + r*rows; r%2 > 0 {
				return ""
			}
			return rounded(least(r)).String()
		},
		what: func(c, r int) string {
			r = first + r*rows
			return fmt.Sprintf("from %v to %v, at %v", rounded(least(r)), rounded(least(min(r+rows, heatRows-1))), rounded(uint64(c)*h.Width))
		},
		at:  func(i, of int) string { return rounded(whole / uint64(of) * uint64(i)).String() },
		say: fmt.Sprintf("a column is %v, from %d.%06d on; a row is what took so long, up to the row above", rounded(h.Width), h.First/1e9, h.First%1e9/1e3),
	}
}

// cell counts in a column and some rows.
func (h *heat) cell(column, r, rows int) (n uint64) {
	for i := r; i < r+rows; i++ {
		n += h.Parts[column].n[i]
	}
	return n
}

// cells are what a heat map is drawn of.
type cells struct {
	columns, rows int
	n             func(c, r int) uint64  // how many there are; row 0 is the lowest
	lost          func(c int) bool       // events are missing
	row           func(r int) string     // the least of a row; "" if that is not said
	what          func(c, r int) string  // of what a cell is
	at            func(i, of int) string // what is at a part of the way from left to right
	say           string                 // what a column is, and a row
}

// most is what the fullest cell has.
func (h *cells) most() (most uint64) {
	for c := range h.columns {
		for r := range h.rows {
			most = max(most, h.n(c, r))
		}
	}
	return most
}

// shade gives one of so many shades, 0 for none: by the logarithm, so that a single one is seen beside thousands.
func shade(n, most uint64, shades int) int {
	if n == 0 {
		return 0
	}
	if most < 2 {
		return shades
	}
	return 1 + int(math.Log(float64(n))/math.Log(float64(most))*(float64(shades)-1)+1e-9)
}

// shadeFrom is a shade with the smallest number that has it.
type shadeFrom struct {
	shade int
	least uint64
}

// legend lists the shades that occur, the lightest first.
func legend(most uint64, shades int) (out []shadeFrom) {
	for n := uint64(1); n <= most; {
		s := shade(n, most, shades)
		out = append(out, shadeFrom{s, n})
		if s >= shades {
			break
		}
		// The next begins about here, but logarithms are rounded.
		next := uint64(math.Exp(math.Log(float64(most)) * float64(s) / float64(max(shades-1, 1))))
		for n = max(n+1, next-min(next, 1)); n < most && shade(n, most, shades) == s; n++ {
		}
	}
	return out
}

// rounded keeps three digits.
func rounded(ns uint64) time.Duration {
	unit := uint64(1)
	for ns/unit >= 1000 {
		unit *= 10
	}
	return span((ns + unit/2) / unit * unit)
}

// heatLabel is how wide what stands before a row is.
const heatLabel = 9

// text draws it in characters.
func (h *cells) text(p *printer, utf8 bool) {
	marks, edge, gap := []rune(" .:=+*#%@"), "|", '?'
	if utf8 {
		marks, edge = []rune(" ░▒▓█"), "│"
	}
	most := h.most()
	for r := h.rows - 1; r >= 0; r-- {
		p.f("%*s %s", heatLabel, h.row(r), edge)
		var line strings.Builder
		for c := range h.columns {
			line.WriteRune(marks[shade(h.n(c, r), most, len(marks)-1)])
		}
		p.f("%s\n", strings.TrimRight(line.String(), " "))
	}
	axis, lost := []rune(strings.Repeat("-", h.columns)), ""
	for c := range axis {
		if h.lost(c) {
			axis[c], lost = gap, fmt.Sprintf("; %c events are missing", gap)
		}
	}
	p.f("%*s +%s\n", heatLabel, "", string(axis))
	end := h.at(1, 1)
	p.f("%*s  0%*s\n", heatLabel, "", max(h.columns-1, len(end)+1), end)
	p.f("%s; in a cell:", h.say)
	for _, l := range legend(most, len(marks)-1) {
		p.f(" %c %d", marks[l.shade], l.least)
	}
	p.f(" or more%s\n", lost)
}

// Sizes of the drawing, in pixels; how many shades it has.
const (
	heatWidth  = 1200
	heatLeft   = 80
	heatHeight = 12 // of a row
	heatShades = 8
	heatTicks  = 8
)

// svg draws it for a page. There is one hue: what is more is darker on a light page and lighter on a dark one, also in grey.
func (h *cells) svg(p *printer) {
	most := h.most()
	wide := float64(heatWidth-heatLeft) / float64(h.columns)
	bottom := h.rows * heatHeight
	p.f(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" class="heat" font-family="monospace" font-size="11" fill="currentColor">`+"\n", heatWidth, bottom+60, heatWidth)
	opacity := func(s int) float64 { return .12 + .88*float64(s-1)/(heatShades-1) }
	for r := h.rows - 1; r >= 0; r-- {
		y := (h.rows - 1 - r) * heatHeight
		if label := h.row(r); label != "" {
			p.f(`<text x="%d" y="%d" text-anchor="end">%s</text><rect x="%d" y="%d" width="%d" height="1" fill-opacity=".15"/>`+"\n", heatLeft-6, y+heatHeight, html.EscapeString(label), heatLeft, y+heatHeight-1, heatWidth-heatLeft)
		}
		for c := range h.columns {
			n := h.n(c, r)
			if n == 0 {
				continue
			}
			p.f(`<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="#e8590c" fill-opacity="%.2f"><title>%d %s</title></rect>`+"\n",
				heatLeft+float64(c)*wide, y, wide, heatHeight, opacity(shade(n, most, heatShades)), n, html.EscapeString(h.what(c, r)))
		}
	}
	for c := range h.columns {
		if h.lost(c) {
			p.f(`<rect x="%.1f" y="%d" width="%.1f" height="6" fill="#e02020"><title>events are missing</title></rect>`+"\n", heatLeft+float64(c)*wide, bottom+1, wide)
		}
	}
	for i := range heatTicks + 1 {
		anchor := "middle"
		if i == heatTicks {
			anchor = "end"
		}
		p.f(`<text x="%d" y="%d" text-anchor="%s">%s</text>`+"\n", heatLeft+i*(heatWidth-heatLeft)/heatTicks, bottom+22, anchor, h.at(i, heatTicks))
	}
	x := heatLeft
	for _, l := range legend(most, heatShades) {
		p.f(`<rect x="%d" y="%d" width="14" height="14" fill="#e8590c" fill-opacity="%.2f"/><text x="%d" y="%d">%d</text>`+"\n", x, bottom+38, opacity(l.shade), x+18, bottom+49, l.least)
		x += 90
	}
	p.f("<text x=\"%d\" y=\"%d\">or more in a cell</text></svg>\n", x, bottom+49)
}

// Heat has the latencies counted by time, too, in so many columns at most. It is called before the first event.
func (l *Latency) Heat(columns int) { l.heat = newHeat(max(columns, 10)) }

// HeatText has Close draw a heat map of so many columns instead of the distribution.
func (l *Latency) HeatText(width int, utf8 bool) {
	l.Heat(width - heatLabel - 2)
	l.drawn, l.utf8 = true, utf8
}

// HeatSVG gives the heat map for a page, "" if nothing was measured.
func (l *Latency) HeatSVG() string {
	if l.heat == nil || l.dist.n == 0 {
		return ""
	}
	var b bytes.Buffer
	l.heat.cells(1).svg(&printer{w: &b})
	return b.String()
}

// HeatColumns is how many columns a heat map of a page has, at most.
const HeatColumns = 280

// LatencyPage writes a page of HTML that stands by itself: latencies by time, their distribution, and the longest.
type LatencyPage struct {
	*Latency
	out   io.Writer
	title string
	notes []string
	text  *bytes.Buffer
}

// NewLatencyPage writes to w at the end; what else it is given is NewLatency's and NewPage's.
func NewLatencyPage(w io.Writer, src *Source, pair Pair, match func(pattern, system, name string) bool, top int, title string, notes []string) (*LatencyPage, error) {
	p := &LatencyPage{out: w, title: title, notes: notes, text: &bytes.Buffer{}}
	var err error
	if p.Latency, err = NewLatency(p.text, src, pair, match, top); err == nil {
		p.Heat(HeatColumns)
	}
	return p, err
}

// Close implements [Writer].
func (p *LatencyPage) Close() error {
	if err := p.Latency.Close(); err != nil {
		return err
	}
	if err := Head(p.out, p.title); err != nil {
		return err
	}
	b := &printer{w: p.out}
	for _, n := range p.notes {
		b.f("<p class=\"note\">%s</p>\n", html.EscapeString(n))
	}
	if svg := p.HeatSVG(); svg != "" {
		b.f("<h2>%s</h2>\n%s", html.EscapeString(fmt.Sprintf("From %s to %s: how long, and when", p.pair.From, p.pair.To)), svg)
	}
	b.f("<h2>How long</h2>\n<pre>%s</pre>\n</body></html>\n", html.EscapeString(p.text.String()))
	return b.err
}
