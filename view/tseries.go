package view

import (
	"slices"
	"strconv"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/lang/types"
)

// tseriesBucket is the size of one interval of a tseries in ir/build: interval number, value, and for averages the
// count, else what tells which value came last.
const tseriesBucket = 24

// point is the value of one interval.
type point struct {
	epoch uint64
	n     int64
	meta  uint64
	none  bool // nothing happened in this interval
}

// series reads the intervals of one element, the oldest first, the values of CPUs combined. Interval 0 was never used.
func series(t *types.Type, values [][]byte) []point {
	var ps []point
	index := map[uint64]int{}
	for _, v := range values {
		for ; len(v) >= tseriesBucket; v = v[tseriesBucket:] {
			p := point{epoch: word(v, 0), n: int64(word(v, 8)), meta: word(v, 16)}
			if p.epoch == 0 {
				continue
			}
			if i, ok := index[p.epoch]; ok {
				ps[i] = merge(t, ps[i], p)
				continue
			}
			index[p.epoch] = len(ps)
			ps = append(ps, p)
		}
	}
	sorting.By(ps, func(a, b point) int { return compareWords(a.epoch, b.epoch) })
	if t.Bounds.Agg == "avg" {
		for i, p := range ps {
			ps[i].n = average(t, row{total: p.n, count: int64(p.meta)})
		}
	}
	return ps
}

// merge combines two values of one interval.
func merge(t *types.Type, a, b point) point {
	switch t.Bounds.Agg {
	case "avg", "sum":
		a.n += b.n
		a.meta += b.meta
	case "min":
		if less(t, b.n, a.n) {
			return b
		}
	case "max":
		if less(t, a.n, b.n) {
			return b
		}
	default:
		if b.meta > a.meta {
			return b
		}
	}
	return a
}

// align cuts all series to the intervals kept and fills the holes: each begins with its own first interval and ends
// with the last of all.
func align(t *types.Type, rows []row) {
	var last uint64
	for _, r := range rows {
		if n := len(r.points); n > 0 {
			last = max(last, r.points[n-1].epoch)
		}
	}
	keep := uint64(max(1, t.Bounds.Max))
	first := last - min(last, keep) + 1
	for i, r := range rows {
		ps := slices.DeleteFunc(r.points, func(p point) bool { return p.epoch < first })
		var out []point
		for j, p := range ps {
			if j > 0 {
				out = fill(out, p.epoch)
			}
			out = append(out, p)
		}
		if len(out) > 0 {
			out = fill(out, last+1)
		}
		rows[i].points = out
	}
}

// fill appends empty intervals up to the one before end.
func fill(ps []point, end uint64) []point {
	for e := ps[len(ps)-1].epoch + 1; e < end && len(ps) < maxRows; e++ {
		ps = append(ps, point{epoch: e, none: true})
	}
	return ps
}

func less(t *types.Type, a, b int64) bool {
	if t.Signed {
		return a < b
	}
	return uint64(a) < uint64(b)
}

// clock gives an interval's start: TAI, which is what tseries counts by.
const clockTAI = 2

// start formats the start of an interval; digits are those after the second.
func (o *Output) start(format string, t *types.Type, p point, digits int) []byte {
	ns := p.epoch * uint64(max(1, t.Bounds.Step))
	b := []byte(o.o.Resolver.Strftime(format, ns, clockTAI))
	return fraction(b, ns, digits)
}

// fraction appends the part of ns below a second, cut to digits.
func fraction(b []byte, ns uint64, digits int) []byte {
	if digits == 0 {
		return b
	}
	sub := ns % 1e9
	for i := digits; i < 9; i++ {
		sub /= 10
	}
	b = append(b, '.')
	from := len(b)
	return pad(strconv.AppendUint(b, sub, 10), from, digits, false, '0')
}

// seriesJSON appends a series: a list of its intervals that have a value, with their start in UTC.
func (o *Output) seriesJSON(b []byte, t *types.Type, ps []point) []byte {
	ps = slices.DeleteFunc(slices.Clone(ps), func(p point) bool { return p.none })
	return list(b, ps, func(b []byte, p point) []byte {
		ns := p.epoch * uint64(max(1, t.Bounds.Step))
		at := o.o.Resolver.Strftime("%s", ns, clockTAI)
		if s, err := strconv.ParseInt(at, 10, 64); err == nil {
			at = time.Unix(s, 0).UTC().Format(time.DateTime)
		}
		b = append(b, `{"interval_start":`...)
		b = quote(b, string(fraction([]byte(at), ns, 9)))
		b = appendInt(append(b, `,"value":`...), p.n, t.Signed)
		return append(b, '}')
	})
}

// graphWidth is the width of the graph with its frame; labelWidth that of the label of its left end.
const (
	graphWidth = 53
	labelWidth = 21
)

// unit gives the digits after the second that an interval needs, and their name.
func unit(interval int64) (digits int, name string) {
	switch d := time.Duration(interval); {
	case d >= time.Second:
		return 0, ""
	case d >= time.Millisecond:
		return 3, ".ms"
	case d >= time.Microsecond:
		return 6, ".μs"
	}
	return 9, ".ns"
}

// graph appends a series as lines from the oldest interval down, a point in each.
func (o *Output) graph(dst []byte, t *types.Type, ps []point) []byte {
	if len(ps) == 0 {
		return append(dst, "<no data>"...)
	}
	lo, hi := extent(t, ps)
	interval := int64(0)
	if len(ps) > 1 {
		interval = t.Bounds.Step
	}
	digits, name := unit(interval)
	left := len("hh:mm:ss") + 1
	if digits > 0 {
		left += 1 + digits
	}
	scale := func(dst []byte) []byte {
		dst = pad(dst, len(dst), left, true, ' ')
		from := len(dst)
		dst = pad(appendInt(dst, lo, t.Signed), from, labelWidth, true, ' ')
		from = len(dst)
		return append(pad(appendInt(dst, hi, t.Signed), from, graphWidth-labelWidth, false, ' '), '\n')
	}
	dst = scale(dst)
	from := len(dst)
	dst = pad(append(append(dst, "hh:mm:ss"...), name...), from, left, true, ' ')
	dst = rule(dst, '|', graphWidth)
	zero := 0
	if t.Signed && lo < 0 && hi > 0 {
		zero = place(0, lo, hi, graphWidth)
	}
	for _, p := range ps {
		dst = append(append(dst, o.start("%H:%M:%S", t, p, digits)...), ' ')
		dst = p.line(dst, t, zero, place(p.n, lo, hi, graphWidth-1))
	}
	dst = pad(dst, len(dst), left, true, ' ')
	return scale(rule(dst, 'v', graphWidth))
}

// rule appends a line of underscores between two ends.
func rule(dst []byte, end byte, width int) []byte {
	dst = append(dst, end)
	dst = pad(dst, len(dst), width-2, true, '_')
	return append(dst, end, '\n')
}

func (p point) line(dst []byte, t *types.Type, zero, at int) []byte {
	var line [graphWidth]byte
	for i := range line {
		line[i] = ' '
	}
	line[0], line[graphWidth-1] = '|', '|'
	if zero > 0 && zero < graphWidth {
		line[zero] = '.'
	}
	if p.none {
		return append(append(dst, line[:]...), " -\n"...)
	}
	line[min(max(at, 0), graphWidth-1)] = '*'
	dst = append(append(dst, line[:]...), ' ')
	return append(appendInt(dst, p.n, t.Signed), '\n')
}

// extent gives the least and the greatest value, or where they are one, its neighbours.
func extent(t *types.Type, ps []point) (lo, hi int64) {
	lo, hi = ps[0].n, ps[0].n
	for _, p := range ps {
		switch {
		case p.none:
		case less(t, p.n, lo):
			lo = p.n
		case less(t, hi, p.n):
			hi = p.n
		}
	}
	if lo == hi {
		if less(t, lo-1, lo) {
			lo--
		}
		if less(t, hi, hi+1) {
			hi++
		}
	}
	return lo, hi
}

// place gives the column of n of width between lo and hi.
func place(n, lo, hi int64, width int) int {
	span := uint64(hi - lo)
	if span == 0 {
		return graphWidth / 2
	}
	return int(float32(width) * float32(uint64(n-lo)) / float32(span))
}

func appendInt(dst []byte, n int64, signed bool) []byte {
	if signed {
		return strconv.AppendInt(dst, n, 10)
	}
	return strconv.AppendUint(dst, uint64(n), 10)
}

func compareWords(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
