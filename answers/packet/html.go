package packet

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"strings"
)

// HTML writes the verdicts as one page that needs nothing else: a section for each, with a drawing of the way. Lanes are
// devices and their namespaces, time goes down; the place of the loss is red, what was expected next and not reached grey.
func HTML(w io.Writer, r *Recording, vs []*Verdict) error {
	b := bufio.NewWriter(w)
	p := &page{w: b, r: r}
	p.put(pageHead, html.EscapeString(r.Kernel), html.EscapeString(r.Level))
	for _, v := range vs {
		p.section(v)
	}
	p.counters()
	p.put("</body></html>\n")
	if p.err != nil {
		return p.err
	}
	return b.Flush()
}

const pageHead = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>What happened to the packets</title><style>
body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:72em;padding:0 1em;color:#1b1f24;background:#fff}
h1{font-size:1.4em} h2{font-size:1.05em;margin:2em 0 .3em} .class{color:#fff;border-radius:3px;padding:.1em .5em;margin-right:.5em}
.bad{background:#b42318} .good{background:#157347} .open{background:#8a6100}
dl{display:grid;grid-template-columns:6em 1fr;margin:.3em 0} dt{color:#667} dd{margin:0}
code,svg text{font-family:ui-monospace,monospace;font-size:13px} svg{max-width:100%%;margin-top:.6em}
table{border-collapse:collapse} td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #dde}
@media(prefers-color-scheme:dark){body{background:#14171a;color:#dde} dt{color:#99a} svg text{fill:#dde}}
</style></head><body><h1>What happened to the packets</h1><p>Linux %s, seen by %s.</p>
`

type page struct {
	w   io.Writer
	r   *Recording
	err error
}

func (p *page) put(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}

func (p *page) section(v *Verdict) {
	look := "bad"
	switch v.Class {
	case ClassDelivered, ClassFalseLoss:
		look = "good"
	case ClassUnknown:
		look = "open"
	}
	p.put("<section><h2><span class=\"class %s\">%s</span>%d of %d: <code>%s</code></h2><dl>", look, headline[v.Class], v.Count, v.Sent, html.EscapeString(v.Flow))
	at := &printer{}
	for _, f := range [][2]string{{"where", at.where(v)}, {"why", v.Cause}, {"object", v.Culprit.String()}, {"sender", v.Errno}, {"mend", v.Fix}} {
		if f[1] != "" {
			p.put("<dt>%s</dt><dd>%s</dd>", f[0], html.EscapeString(f[1]))
		}
	}
	p.put("</dl>")
	if v.sample != nil {
		p.drawing(v)
	}
	p.put("</section>\n")
}

// Measures of the drawing, in pixels.
const (
	laneWidth = 250
	boxHeight = 24
	boxGap    = 8
	laneTop   = 44
)

// box is one function in the drawing.
type box struct {
	lane int
	text string
	look string
}

// drawing lays the boxes of a packet's way out and draws them.
func (p *page) drawing(v *Verdict) {
	lanes := Lanes(p.r, v.sample)
	var names []string
	at := map[string]int{}
	var boxes []box
	for _, l := range lanes {
		name := strings.TrimSpace(l.Netns + " " + l.Dev)
		if _, ok := at[name]; !ok {
			at[name] = len(names)
			names = append(names, name)
		}
		fns := landmarks(l.Funcs)
		for i, f := range fns {
			b := box{at[name], f, "fill:#dbeafe;stroke:#3b6fb6"}
			if l.Drop && v.Class != ClassFalseLoss && i == len(fns)-1 {
				b.look, b.text = "fill:#f9d2cd;stroke:#b42318;stroke-width:2", f+" \u2717"
			}
			boxes = append(boxes, b)
		}
	}
	if len(lanes) > 0 {
		last := at[strings.TrimSpace(lanes[len(lanes)-1].Netns+" "+lanes[len(lanes)-1].Dev)]
		for _, step := range NotReached(p.r, v) {
			boxes = append(boxes, box{last, step, "fill:none;stroke:#9aa3ad;stroke-dasharray:4 3"})
		}
	}
	height := laneTop + len(boxes)*(boxHeight+boxGap) + 8
	p.put("<svg role=\"img\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">", laneWidth*len(names), height, laneWidth*len(names), height)
	for i, n := range names {
		p.put("<text x=\"%d\" y=\"18\" font-weight=\"bold\">%s</text><line x1=\"%d\" x2=\"%d\" y1=\"28\" y2=\"%d\" stroke=\"#c3c9d1\"/>",
			i*laneWidth+6, html.EscapeString(n), i*laneWidth+laneWidth/2, i*laneWidth+laneWidth/2, height)
	}
	for i, b := range boxes {
		x, y := b.lane*laneWidth+6, laneTop+i*(boxHeight+boxGap)
		if i > 0 {
			p.put("<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke=\"#667\"/>", boxes[i-1].lane*laneWidth+laneWidth/2, y-boxGap, b.lane*laneWidth+laneWidth/2, y)
		}
		p.put("<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"4\" style=\"%s\"/><text x=\"%d\" y=\"%d\">%s</text>",
			x, y, laneWidth-12, boxHeight, b.look, x+8, y+16, html.EscapeString(short(b.text)))
	}
	p.put("</svg>")
}

// short cuts a text to what a box holds.
func short(s string) string {
	const most = 29
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "\u2026"
	}
	return s
}

func (p *page) counters() {
	ms := p.r.Movements()
	if len(ms) == 0 {
		return
	}
	p.put("<h2>Counters of losses that moved</h2><table><tr><th>namespace</th><th>counter</th><th>moved</th><th>explained</th><th>what it counts</th></tr>")
	for _, m := range ms {
		p.put("<tr><td>%s</td><td><code>%s</code></td><td>%d</td><td>%d</td><td>%s (<code>%s</code>)</td></tr>", html.EscapeString(m.Netns),
			html.EscapeString(m.Name), m.Moved, m.By, html.EscapeString(m.What), html.EscapeString(m.Function))
	}
	p.put("</table>")
}
