package events

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Histogram is a map of hist() or lhist(), or one key of it, as a program printed it again and again.
type Histogram struct {
	Name    string // "@us", "@us[read]"
	of      *printedMap
	total   uint64 // of all that is drawn
	rows    []bucket
	row     map[bucket]int
	printed []printing
}

// printedMap is a map that was printed so many times.
type printedMap struct {
	times int
	// grows says that nothing in it ever became less, and something more: it is not cleared, and of each printing is drawn
	// what came since the one before.
	grows bool
}

// printing is what a histogram had when its map was printed for the nth time, from 0.
type printing struct {
	n      int
	counts map[bucket]uint64
}

// bucket is what a row counts, both ends included. The lowest may have no least, the highest no greatest.
type bucket struct {
	min, max int64
	low      bool // no least: min is that of all numbers
}

// What is read at most: of a line, in bytes, and of a file.
const (
	mostPrinted = 16 << 20
	mostBuckets = 1 << 20
	mostCounted = 1 << 53 // in all: what a double holds
)

// ReadHistograms reads the histograms of a program's JSON lines (trace -f json), of which each that has one is a printing; other
// lines are passed over. Those that counted most come first.
func ReadHistograms(r io.Reader) (out []*Histogram, err error) {
	in := bufio.NewScanner(r)
	in.Buffer(nil, mostPrinted)
	by, maps := map[string]*Histogram{}, map[string]*printedMap{}
	size, counted := 0, uint64(0)
	for line := 1; in.Scan(); line++ {
		var rec struct {
			Type string                     `json:"type"`
			Host string                     `json:"host"`
			Data map[string]json.RawMessage `json:"data"`
		}
		if !bytes.Contains(in.Bytes(), []byte(`"hist"`)) || json.Unmarshal(in.Bytes(), &rec) != nil || rec.Type != "hist" {
			continue
		}
		for name, data := range rec.Data {
			name = strings.TrimSpace(rec.Host + " " + name)
			if maps[name] == nil {
				maps[name] = &printedMap{}
			}
			of := maps[name]
			of.times++
			var keys map[string]json.RawMessage
			if json.Unmarshal(data, &keys) != nil {
				keys = map[string]json.RawMessage{"": data}
			}
			for key, data := range keys {
				full := name
				if key != "" {
					full += "[" + key + "]"
				}
				counts, err := readBuckets(data)
				for _, n := range counts {
					if counted += min(n, mostCounted); err == nil && counted >= mostCounted {
						err = fmt.Errorf("more than %d are counted", uint64(mostCounted))
					}
				}
				if size += len(counts) + 1; err == nil && size > mostBuckets {
					err = fmt.Errorf("more than %d buckets", mostBuckets)
				}
				if err != nil {
					return nil, fmt.Errorf("line %d: %s: %w", line, full, err)
				}
				if by[full] == nil {
					by[full] = &Histogram{Name: full, of: of}
					out = append(out, by[full])
				}
				by[full].printed = append(by[full].printed, printing{of.times - 1, counts})
			}
		}
	}
	for _, h := range out {
		h.of.grows = h.of.grows || h.more()
	}
	for _, h := range out {
		h.of.grows = h.of.grows && !h.less()
	}
	for _, h := range out {
		h.arrange()
	}
	out = slices.DeleteFunc(out, func(h *Histogram) bool { return h.total == 0 })
	sorting.By(out, func(a, b *Histogram) int { return cmp.Or(cmp.Compare(b.total, a.total), cmp.Compare(a.Name, b.Name)) })
	return out, in.Err()
}

// readBuckets reads a histogram. A number that a double cannot hold is a string.
func readBuckets(data []byte) (map[bucket]uint64, error) {
	var list []struct {
		Min   any    `json:"min"`
		Max   any    `json:"max"`
		Count uint64 `json:"count"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&list); err != nil {
		return nil, err
	}
	out := map[bucket]uint64{}
	for _, l := range list {
		b := bucket{-1 << 63, 1<<63 - 1, l.Min == nil}
		for _, end := range []struct {
			v    any
			into *int64
		}{{l.Min, &b.min}, {l.Max, &b.max}} {
			if end.v == nil {
				continue
			}
			n, err := strconv.ParseInt(fmt.Sprint(end.v), 10, 64)
			if err != nil {
				return nil, err
			}
			*end.into = n
		}
		if b.min > b.max {
			return nil, fmt.Errorf("a bucket from %d to %d", b.min, b.max)
		}
		if l.Count > 0 {
			out[b] += l.Count
		}
	}
	return out, nil
}

// more says if anything became more from one printing to the next.
func (h *Histogram) more() bool {
	for i := 1; i < len(h.printed); i++ {
		for b, n := range h.printed[i].counts {
			if n > h.printed[i-1].counts[b] {
				return true
			}
		}
	}
	return false
}

// less says if anything became less.
func (h *Histogram) less() bool {
	for i, p := range h.printed[1:] {
		for b, n := range h.printed[i].counts {
			if p.counts[b] < n {
				return true
			}
		}
	}
	return h.printed[0].n+len(h.printed) != h.of.times // it was not there any more
}

// arrange makes rows of the buckets, and of what was printed what each printing adds.
func (h *Histogram) arrange() {
	h.row = map[bucket]int{}
	for _, p := range h.printed {
		for b := range p.counts {
			h.row[b] = 0
		}
	}
	var sorted []bucket
	for b := range h.row {
		sorted = append(sorted, b)
	}
	sorting.By(sorted, func(a, b bucket) int { return cmp.Or(cmp.Compare(a.min, b.min), cmp.Compare(a.max, b.max)) })
	for i, b := range sorted {
		if i > 0 && sorted[i-1].max < b.min && sorted[i-1].max+1 < b.min { // what nobody counted, in one row
			h.rows = append(h.rows, bucket{min: sorted[i-1].max + 1, max: b.min - 1})
		}
		h.row[b] = len(h.rows)
		h.rows = append(h.rows, b)
	}
	for i := len(h.printed) - 1; i >= 0; i-- {
		for b := range h.printed[i].counts {
			if h.of.grows && i > 0 {
				h.printed[i].counts[b] -= h.printed[i-1].counts[b]
			}
			h.total += h.printed[i].counts[b]
		}
	}
}

// textRows is how many rows there are at most in characters; on a page there may be pageRows.
const (
	textRows = 40
	pageRows = 130
)

// cells gives what is drawn, in so many columns and rows at most.
func (h *Histogram) cells(columns, rows int) *cells {
	wide, high := (h.of.times+columns-1)/columns, max((len(h.rows)+rows-1)/rows, 1)
	grid := make([][]uint64, (h.of.times+wide-1)/wide)
	for c := range grid {
		grid[c] = make([]uint64, (len(h.rows)+high-1)/high)
	}
	for _, p := range h.printed {
		for b, n := range p.counts {
			grid[p.n/wide][h.row[b]/high] += n
		}
	}
	column := "printing"
	if wide > 1 {
		column = fmt.Sprintf("%d printings", wide)
	}
	if h.of.grows {
		column += ", and has what came since the one before"
	}
	first := func(r int) bucket { return h.rows[r*high] }
	return &cells{columns: len(grid), rows: len(grid[0]),
		n:    func(c, r int) uint64 { return grid[c][r] },
		lost: func(int) bool { return false },
		row: func(r int) string {
			if first(r).low {
				return "less"
			}
			return scaled(first(r).min)
		},
		what: func(c, r int) string {
			from, to := fmt.Sprintf("from %d ", first(r).min), "on"
			if first(r).low {
				from = ""
			}
			if last := h.rows[min((r+1)*high, len(h.rows))-1]; last.max < 1<<63-1 {
				to = fmt.Sprintf("to %d", last.max)
			}
			return fmt.Sprintf("%s%s, in printing %d", from, to, c*wide+1)
		},
		at:  func(i, of int) string { return strconv.Itoa(h.of.times * i / of) },
		say: "a column is a " + column + "; a row is what is so much, up to the row above",
	}
}

// scaled writes a number as the histograms of programs do: what can be said in K, M and so on is.
func scaled(n int64) string {
	const units = "KMGTPE"
	k, unit := n, ""
	for i := 0; k != 0 && k%1024 == 0; i++ {
		k, unit = k/1024, units[i:i+1]
	}
	if s := strconv.FormatInt(k, 10) + unit; len(s) <= heatLabel {
		return s
	}
	return strconv.FormatFloat(float64(n), 'g', 3, 64)
}

// HistogramsText draws heat maps of histograms, the time from left to right.
func HistogramsText(w io.Writer, hs []*Histogram, width int, utf8 bool) error {
	p := &printer{w: w}
	for i, h := range hs {
		if i > 0 {
			p.f("\n")
		}
		p.f("%s: %d\n\n", h.Name, h.total)
		h.cells(max(width-heatLabel-2, 10), textRows).text(p, utf8)
	}
	return p.err
}

// HistogramsPage draws them on a page that stands by itself.
func HistogramsPage(w io.Writer, hs []*Histogram, title string) error {
	if err := Head(w, title); err != nil {
		return err
	}
	p := &printer{w: w}
	for _, h := range hs {
		c := h.cells(HeatColumns, pageRows)
		p.f("<h2>%s: %d</h2>\n", html.EscapeString(h.Name), h.total)
		c.svg(p)
		p.f("<p>%s.</p>\n", html.EscapeString(c.say))
	}
	p.f("</body></html>\n")
	return p.err
}
