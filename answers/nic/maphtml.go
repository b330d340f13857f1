package nic

import (
	"fmt"
	"html"
	"io"
	"strings"
)

// A page's picture of a device has four columns, from the card to the stack's side: interrupts, CPUs, NAPI instances, queues.
const (
	boxWide, boxHigh = 190, 24
	colStep, rowStep = 260, 34
	pageTop          = 30
)

// box is a thing in the picture, by its column and its name.
type box struct {
	col        int
	name, hint string
	row        int
}

// picture is the boxes of a device and the lines between them.
type picture struct {
	boxes []*box
	lines [][2]*box
	rows  [4]int
}

// at gives the box of a name, made when it is first asked for.
func (p *picture) at(col int, name, hint string) *box {
	for _, b := range p.boxes {
		if b.col == col && b.name == name {
			return b
		}
	}
	b := &box{col, name, hint, p.rows[col]}
	p.rows[col]++
	p.boxes = append(p.boxes, b)
	return b
}

func (p *picture) join(a, b *box) {
	for _, l := range p.lines {
		if l == [2]*box{a, b} {
			return
		}
	}
	p.lines = append(p.lines, [2]*box{a, b})
}

func (m *Map) picture() *picture {
	p := &picture{}
	for i := range m.Rows {
		r := &m.Rows[i]
		var last *box
		if v := r.Vector; v != nil {
			hint := fmt.Sprintf("vector %d, wanted on CPU %s, %d interrupts", v.Index, v.Wanted, v.Total())
			last = p.at(0, fmt.Sprintf("%d %s", v.IRQ, strings.Join(v.Names, ", ")), hint)
			if v.Effective != "" {
				cpu := p.at(1, "CPU "+v.Effective, "where it comes to")
				p.join(last, cpu)
				last = cpu
			}
		}
		for _, id := range r.NAPIs {
			n := p.at(2, fmt.Sprintf("NAPI %d", id), "known by "+r.By)
			if last != nil {
				p.join(last, n)
			}
		}
		for _, q := range r.Queues {
			to := p.at(3, fmt.Sprintf("%s-%d", q.Dir, q.Index), strings.TrimSpace(fmt.Sprintf("RPS %s XPS %s", orNo(q.RPS), orNo(q.XPS))))
			switch {
			case q.NAPI != 0 || len(r.NAPIs) == 1:
				id := q.NAPI
				if id == 0 {
					id = r.NAPIs[0]
				}
				p.join(p.at(2, fmt.Sprintf("NAPI %d", id), "known by "+r.By), to)
			case last != nil:
				p.join(last, to)
			}
		}
	}
	return p
}

func orNo(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// WriteHTML writes a page of maps that stands by itself: a picture of each device and what the terminal shows.
func WriteHTML(w io.Writer, maps []*Map) error {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html><meta charset="utf-8"><title>network devices</title><style>
body{font:14px sans-serif;margin:2em;background:#fff;color:#222}pre{background:#f6f6f6;padding:1em;overflow:auto}
rect{fill:#eef3fa;stroke:#5a7ca8}text{font:12px monospace}path{stroke:#88a;fill:none;stroke-width:1.5}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#dde}pre{background:#1f242a}rect{fill:#22303f}text{fill:#dde}}
</style>` + "\n")
	for _, m := range maps {
		fmt.Fprintf(&b, "<h2>%s</h2>\n", html.EscapeString(m.Name))
		m.picture().write(&b)
		var text strings.Builder
		if err := m.WriteText(&text, false); err != nil {
			return err
		}
		fmt.Fprintf(&b, "<pre>%s</pre>\n", html.EscapeString(text.String()))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *picture) write(b *strings.Builder) {
	high := pageTop + rowStep*max(p.rows[0], p.rows[1], p.rows[2], p.rows[3], 1)
	fmt.Fprintf(b, `<svg width="%d" height="%d" xmlns="http://www.w3.org/2000/svg">`+"\n", 3*colStep+boxWide+10, high)
	for i, head := range [...]string{"interrupts", "CPUs", "NAPI instances", "queues"} {
		fmt.Fprintf(b, `<text x="%d" y="16">%s</text>`+"\n", 4+i*colStep, head)
	}
	for _, l := range p.lines {
		x1, y1 := l[0].right()
		x2, y2 := l[1].left()
		fmt.Fprintf(b, `<path d="M%d %dC%d %d %d %d %d %d"/>`+"\n", x1, y1, (x1+x2)/2, y1, (x1+x2)/2, y2, x2, y2)
	}
	for _, x := range p.boxes {
		left, mid := x.left()
		fmt.Fprintf(b, `<g><title>%s</title><rect x="%d" y="%d" width="%d" height="%d" rx="4"/><text x="%d" y="%d">%s</text></g>`+"\n",
			html.EscapeString(x.hint), left, mid-boxHigh/2, boxWide, boxHigh, left+8, mid+4, html.EscapeString(x.name))
	}
	b.WriteString("</svg>\n")
}

func (x *box) left() (px, py int) { return 4 + x.col*colStep, pageTop + x.row*rowStep + boxHigh/2 }

func (x *box) right() (px, py int) {
	px, py = x.left()
	return px + boxWide, py
}
