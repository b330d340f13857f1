package flame

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"html"
	"io"
)

// Sizes of the drawing, in pixels.
const (
	svgWidth  = 1200
	rowHeight = 17
	margin    = 10
	head      = 56
	charWidth = 7.0 // of the font, about
	leastPart = 0.1 // narrower frames are not drawn: their parents' empty part stands for them
)

// SVG draws the graph: roots below, each frame as wide as its weight. The file stands by itself; in a browser a click enlarges a
// frame, and a field searches.
func (g *Graph) SVG(w io.Writer) error {
	b := bufio.NewWriter(w)
	height := head + (g.depth+1)*rowHeight + 2*margin
	fmt.Fprintf(b, `<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="monospace" font-size="12">
<style>@media(prefers-color-scheme:dark){svg{background:#1b1b1b}.ground{fill:#1b1b1b}.word{fill:#ddd}}</style>
<rect class="ground" width="100%%" height="100%%" fill="#fdfdf6"/>
<text class="word" x="%d" y="22" text-anchor="middle" font-size="17">%s</text>
<text class="word" id="said" x="%d" y="42"> </text>
<text class="word" id="whole" x="%d" y="42" text-anchor="end" style="cursor:pointer">all</text>
<text class="word" id="find" x="%d" y="42" text-anchor="end" style="cursor:pointer">search</text>
<g id="frames">
`, svgWidth, height, svgWidth, height, svgWidth/2, html.EscapeString(g.Title), margin, svgWidth-margin, svgWidth-margin-60)
	d := drawing{w: b, g: g, bottom: height - margin - rowHeight}
	if g.root.total > 0 {
		d.scale = float64(svgWidth-2*margin) / float64(g.root.total)
		d.frame(&node{name: "all", total: g.root.total, was: g.root.was, calls: g.root.calls}, margin, 0)
	}
	fmt.Fprintf(b, "</g>\n<script><![CDATA[%s]]></script>\n</svg>\n", script)
	return b.Flush()
}

type drawing struct {
	w      io.Writer
	g      *Graph
	scale  float64 // pixels for a weight of one
	bottom int
}

// frame draws a frame and those that it calls, at x, so many rows up.
func (d *drawing) frame(n *node, x float64, row int) {
	width := float64(n.total) * d.scale
	if width < leastPart {
		return
	}
	share := 100 * float64(n.total) / float64(d.g.root.total)
	label := fmt.Sprintf("%s (%d %s, %.2f%%", n.name, n.total, d.g.Unit, share)
	if before := d.g.root.was; before > 0 {
		label += fmt.Sprintf(", %+.2f%% of all", share-100*float64(n.was)/float64(before))
	}
	y := d.bottom - row*rowHeight
	fmt.Fprintf(d.w, `<g class="f"><title>%s)</title><rect x="%.1f" y="%d" width="%.1f" height="%d" rx="2" fill="%s"/><text x="%.1f" y="%d">%s</text></g>`+"\n",
		html.EscapeString(label), x, y, width, rowHeight-1, d.colour(n), x+3, y+12, html.EscapeString(short(n.name, width)))
	for _, k := range n.sorted() {
		d.frame(k, x, row+1)
		x += float64(k.total) * d.scale
	}
}

// short cuts a name to what fits.
func short(name string, width float64) string {
	fits := int((width - 6) / charWidth)
	switch {
	case fits < 3:
		return ""
	case len(name) > fits:
		return name[:fits-2] + ".."
	}
	return name
}

// colour is the same for a name everywhere, of warm tones; in a comparison it is by what changed.
func (d *drawing) colour(n *node) string {
	if before := d.g.root.was; before > 0 {
		change := float64(n.total)/float64(d.g.root.total) - float64(n.was)/float64(before)
		fade := 255 - int(min(1, 4*max(change, -change))*155)
		if change >= 0 {
			return fmt.Sprintf("rgb(255,%d,%d)", fade, fade)
		}
		return fmt.Sprintf("rgb(%d,%d,255)", fade, fade)
	}
	h := fnv.New32a()
	io.WriteString(h, n.name)
	v := h.Sum32()
	return fmt.Sprintf("rgb(%d,%d,%d)", 205+v%50, 90+v/50%130, 40+v/6500%50)
}

// script enlarges the frame that is clicked, and marks those that a search finds.
const script = `
var W = 1200, M = 10, frames = [].slice.call(document.querySelectorAll("g.f")), said = document.getElementById("said");
frames.forEach(function (f) {
	var r = f.querySelector("rect");
	f.x0 = +r.getAttribute("x"); f.w0 = +r.getAttribute("width"); f.y0 = +r.getAttribute("y");
	f.name = f.querySelector("title").textContent; f.fill0 = r.getAttribute("fill");
	f.addEventListener("mouseover", function () { said.textContent = f.name; });
	f.addEventListener("click", function () { zoom(f); });
});
function zoom(to) {
	var k = (W - 2 * M) / to.w0;
	frames.forEach(function (f) {
		var r = f.querySelector("rect"), t = f.querySelector("text");
		var below = f.y0 > to.y0 && f.x0 <= to.x0 + .05 && f.x0 + f.w0 >= to.x0 + to.w0 - .05;
		var inside = f.y0 <= to.y0 && f.x0 >= to.x0 - .05 && f.x0 + f.w0 <= to.x0 + to.w0 + .05;
		f.style.display = below || inside ? "" : "none";
		var x = below ? M : M + (f.x0 - to.x0) * k, w = below ? W - 2 * M : f.w0 * k;
		r.setAttribute("x", x); r.setAttribute("width", w); r.setAttribute("opacity", below ? .5 : 1);
		t.setAttribute("x", x + 3);
		var name = f.name.replace(/ \([^(]*\)$/, ""), fits = Math.floor((w - 6) / 7);
		t.textContent = fits < 3 ? "" : name.length > fits ? name.slice(0, fits - 2) + ".." : name;
	});
}
document.getElementById("whole").addEventListener("click", function () { if (frames.length) zoom(frames[0]); });
document.getElementById("find").addEventListener("click", function () {
	var what = prompt("frames with", ""), n = 0;
	frames.forEach(function (f) {
		var hit = what && f.name.indexOf(what) >= 0;
		n += hit ? 1 : 0;
		f.querySelector("rect").setAttribute("fill", hit ? "#c0f" : f.fill0);
	});
	said.textContent = what ? n + " frames with " + what : " ";
});
`
