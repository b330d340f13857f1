package events

import (
	"fmt"
	"io"
	"math/bits"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/traceevent"
)

// Pair is two events whose distance in time is asked for: the first of kind From, to the next of kind To with the same keys.
type Pair struct {
	From, To         string   // patterns, as irq:softirq_raise
	FromKeys, ToKeys []string // fields, one for the other; "cpu" is where it happened
}

// ParsePair reads "FROM[KEYS] TO[KEYS]", as in "sched:sched_wakeup[pid] sched:sched_switch[next_pid]". Without keys it is the task
// that both happen to.
func ParsePair(text string) (Pair, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return Pair{}, fmt.Errorf("%q: two events, FROM[KEYS] TO[KEYS]", text)
	}
	var p Pair
	var err error
	if p.From, p.FromKeys, err = parseEnd(words[0]); err != nil {
		return p, err
	}
	if p.To, p.ToKeys, err = parseEnd(words[1]); err != nil {
		return p, err
	}
	if len(p.FromKeys) != len(p.ToKeys) {
		return p, fmt.Errorf("%q: as many keys for the one as for the other", text)
	}
	return p, nil
}

func parseEnd(s string) (event string, keys []string, err error) {
	event, rest, ok := strings.Cut(s, "[")
	if !ok {
		return s, []string{"common_pid"}, nil
	}
	list, ok := strings.CutSuffix(rest, "]")
	if !ok || list == "" || event == "" {
		return "", nil, fmt.Errorf("%q: an event, perhaps with its keys: EVENT[FIELD,FIELD]", s)
	}
	return event, strings.Split(list, ","), nil
}

// most bounds how many keys a pair has.
const mostKeys = 3

type latencyKey [mostKeys]int64

// begun is a From that waits for its To.
type begun struct {
	time   uint64
	cpu    int
	unsure bool // events are missing since
}

// worst is one of the longest latencies.
type worst struct {
	from, ns uint64
	cpu      int
	task     string
}

// Latency measures the time between paired events, and shows how it is distributed. Of several From before a To the first counts. What
// goes across a gap in the recording is counted apart: events of the pair may be missing in it.
type Latency struct {
	w     io.Writer
	pair  Pair
	match func(pattern, system, name string) bool
	top   int
	names names
	kinds map[*traceevent.Format]*latencyKind
	open  map[latencyKey]begun

	dist     distribution
	unsure   uint64
	repeated uint64 // From while one was open
	single   uint64 // To without From
	longest  []worst

	heat  *heat // nil if nobody asked
	drawn bool  // by Close, in characters, of UTF-8 perhaps
	utf8  bool
}

type latencyKind struct {
	from, to     bool
	fromK, toK   []*traceevent.Field // nil is the CPU
	fromOK, toOK bool
	pid          *traceevent.Field
}

// NewLatency writes to w at the end; match says if a pattern means an event, top is how many of the longest are listed.
func NewLatency(w io.Writer, src *Source, pair Pair, match func(pattern, system, name string) bool, top int) (*Latency, error) {
	if len(pair.FromKeys) > mostKeys {
		return nil, fmt.Errorf("at most %d keys", mostKeys)
	}
	return &Latency{w: w, pair: pair, match: match, top: top, names: names{src: src}, kinds: map[*traceevent.Format]*latencyKind{}, open: map[latencyKey]begun{}}, nil
}

// Event implements [Writer].
func (l *Latency) Event(e *traceevent.Event) error {
	if e.Format == nil {
		for k, b := range l.open {
			b.unsure = true
			l.open[k] = b
		}
		if l.heat != nil {
			l.heat.gap(e)
		}
		return nil
	}
	k := l.kinds[e.Format]
	if k == nil {
		k = l.kind(e.Format)
		l.kinds[e.Format] = k
	}
	if k.toOK { // the same event may end one and begin the next
		l.end(e, k, key(k.toK, e))
	}
	if k.fromOK {
		id := key(k.fromK, e)
		if _, twice := l.open[id]; twice {
			l.repeated++
		} else {
			l.open[id] = begun{time: e.Time, cpu: e.CPU}
		}
	}
	return nil
}

func (l *Latency) kind(f *traceevent.Format) *latencyKind {
	k := &latencyKind{pid: f.PIDField()}
	fields := func(names []string) (out []*traceevent.Field, ok bool) {
		for _, n := range names {
			d := f.Field(n)
			if d == nil && n != "cpu" {
				return nil, false
			}
			out = append(out, d)
		}
		return out, true
	}
	if l.match(l.pair.From, f.System, f.Name) {
		k.fromK, k.fromOK = fields(l.pair.FromKeys)
		k.from = true
	}
	if l.match(l.pair.To, f.System, f.Name) {
		k.toK, k.toOK = fields(l.pair.ToKeys)
		k.to = true
	}
	return k
}

func key(fields []*traceevent.Field, e *traceevent.Event) (k latencyKey) {
	for i, f := range fields {
		switch {
		case f == nil:
			k[i] = int64(e.CPU)
		case f.IsArray(): // text and the like, by what it holds
			h := uint64(14695981039346656037) // FNV-1a
			for _, c := range f.String(e.Rec) {
				h = (h ^ uint64(c)) * 1099511628211
			}
			k[i] = int64(h)
		default:
			k[i] = f.Int(e.Rec)
		}
	}
	return k
}

func (l *Latency) end(e *traceevent.Event, k *latencyKind, id latencyKey) {
	b, ok := l.open[id]
	if !ok {
		l.single++
		return
	}
	delete(l.open, id)
	if b.unsure {
		l.unsure++
		return
	}
	ns := e.Time - min(b.time, e.Time)
	l.dist.add(ns)
	if l.heat != nil {
		l.heat.add(e.Time, ns)
	}
	if n := len(l.longest); n < l.top || ns > l.longest[n-1].ns {
		tid := int(k.pid.Int(e.Rec))
		l.longest = append(l.longest, worst{b.time, ns, e.CPU, fmt.Sprintf("%s-%d", l.names.of(e, tid), tid)})
		sorting.Stable(l.longest, func(a, b worst) int { return int(min(max(int64(b.ns-a.ns), -1), 1)) })
		l.longest = l.longest[:min(len(l.longest), l.top)]
	}
}

// Long is one of the longest latencies.
type Long struct {
	From   uint64 // ns in the clock of the recording
	Length time.Duration
	CPU    int
	Task   string // at its end
}

// Longest lists the longest latencies, the longest first.
func (l *Latency) Longest() (out []Long) {
	for _, w := range l.longest {
		out = append(out, Long{w.from, span(w.ns), w.cpu, w.task})
	}
	return out
}

// Close implements [Writer].
func (l *Latency) Close() error {
	var from, to, fromOK, toOK bool
	for _, k := range l.kinds {
		from, to, fromOK, toOK = from || k.from, to || k.to, fromOK || k.fromOK, toOK || k.toOK
	}
	switch {
	case !from || !to:
		missing := l.pair.From
		if from {
			missing = l.pair.To
		}
		return nothing("no event %s in the recording", missing)
	case !fromOK || !toOK:
		return nothing("%s and %s have no fields %v and %v", l.pair.From, l.pair.To, l.pair.FromKeys, l.pair.ToKeys)
	}
	p := &printer{w: l.w}
	d := &l.dist
	p.f("%s to %s: %d", l.pair.From, l.pair.To, d.n)
	if l.unsure > 0 {
		p.f(", %d across gaps not counted", l.unsure)
	}
	if n := len(l.open); n > 0 {
		p.f(", %d without an end", n)
	}
	if l.single > 0 {
		p.f(", %d without a beginning", l.single)
	}
	if l.repeated > 0 {
		p.f(", %d repeated beginnings", l.repeated)
	}
	p.f("\n")
	if d.n == 0 {
		return p.err
	}
	p.f("min %v, mean %v, median %v, 99%% %v, 99.9%% %v, max %v\n\n", span(d.min), span(d.sum/d.n), span(d.quantile(.5)), span(d.quantile(.99)), span(d.quantile(.999)), span(d.max))
	if l.drawn {
		l.heat.cells(2).text(p, l.utf8)
	} else {
		d.draw(p)
	}
	p.f("\n%12s  %-16s CPU  TASK AT ITS END\n", "LONGEST", "BEGAN AT")
	for _, w := range l.longest {
		p.f("%12v  %-16s %3d  %s\n", span(w.ns), fmt.Sprintf("%d.%06d", w.from/1e9, w.from%1e9/1e3), w.cpu, w.task)
	}
	return p.err
}

func span(ns uint64) time.Duration { return time.Duration(ns) }

// distribution counts numbers in buckets whose bounds are 1/32 apart.
type distribution struct {
	n, sum, min, max uint64
	buckets          map[int]uint64
}

const (
	subBits = 5
	sub     = 1 << subBits
)

// bucketOf numbers buckets: the first so many have one number each, then each power of two has as many.
func bucketOf(v uint64) int {
	if v < sub {
		return int(v)
	}
	exp := bits.Len64(v) - 1 - subBits
	return (exp+1)*sub + int(v>>exp) - sub
}

// lowest is the least number of a bucket.
func lowest(b int) uint64 {
	if b < sub {
		return uint64(b)
	}
	return uint64(b%sub+sub) << (b/sub - 1)
}

func (d *distribution) add(v uint64) {
	if d.buckets == nil {
		d.buckets, d.min = map[int]uint64{}, v
	}
	d.n++
	d.sum += v
	d.min, d.max = min(d.min, v), max(d.max, v)
	d.buckets[bucketOf(v)]++
}

// quantile gives the number below which a share of all is, to 1/32.
func (d *distribution) quantile(q float64) uint64 {
	var all []int
	for b := range d.buckets {
		all = append(all, b)
	}
	slices.Sort(all)
	left := uint64(q * float64(d.n))
	for _, b := range all {
		if c := d.buckets[b]; left >= c {
			left -= c
			continue
		}
		return min(max(lowest(b), d.min), d.max)
	}
	return d.max
}

// draw shows the powers of two.
func (d *distribution) draw(p *printer) {
	var powers [65]uint64
	for b, n := range d.buckets {
		powers[bits.Len64(lowest(b))] += n
	}
	most := slices.Max(powers[:])
	first, last := bits.Len64(d.min), bits.Len64(d.max)
	for i := first; i <= last; i++ {
		lo, hi := uint64(0), uint64(1)
		if i > 0 {
			lo, hi = 1<<(i-1), 1<<min(i, 63)
		}
		bar := strings.Repeat("@", int(powers[i]*50/most))
		p.f("%12v …%12v %10d |%-50s|\n", span(lo), span(hi), powers[i], bar)
	}
}
