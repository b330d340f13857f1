package events

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/traceevent"
)

// Stats counts events and shows tables at the end: by event, by CPU, by task, and what was lost.
type Stats struct {
	w      io.Writer
	src    *Source
	cache  cache
	names  names
	events map[*info]uint64
	cpus   map[int]*cpuStat
	tasks  map[int]*taskStat
	first  uint64
	last   uint64
	n      uint64
	top    int
	tid    int
	task   *taskStat
}

type cpuStat struct {
	events, lost, gaps uint64
	blind              uint64 // ns in gaps
	unknown            bool
}

type taskStat struct {
	n    uint64
	comm string
}

// NewStats writes to w at the end, of tasks the first top.
func NewStats(w io.Writer, src *Source, top int) *Stats {
	return &Stats{w: w, src: src, names: names{src: src}, events: map[*info]uint64{}, cpus: map[int]*cpuStat{}, tasks: map[int]*taskStat{}, top: top, tid: -1}
}

// Event implements [Writer].
func (s *Stats) Event(e *traceevent.Event) error {
	c := s.cpus[e.CPU]
	if c == nil {
		c = &cpuStat{}
		s.cpus[e.CPU] = c
	}
	if s.first == 0 || e.Time < s.first {
		s.first = e.Time
	}
	s.last = max(s.last, e.Time)
	if e.Format == nil {
		c.gaps++
		c.lost += e.Lost
		c.unknown = c.unknown || e.Lost == 0
		if e.Since > 0 {
			c.blind += e.Time - e.Since
		}
		return nil
	}
	s.n++
	c.events++
	i := s.cache.of(e.Format)
	s.events[i]++
	if tid := int(i.pid.Int(e.Rec)); tid != s.tid || s.task == nil {
		s.tid = tid
		if s.task = s.tasks[tid]; s.task == nil {
			s.task = &taskStat{comm: s.names.of(tid, e.Time)}
			s.tasks[tid] = s.task
		}
	}
	s.task.n++
	return nil
}

// Close implements [Writer].
func (s *Stats) Close() error {
	p := &printer{w: s.w}
	span := time.Duration(s.last - s.first)
	p.f("%d events in %v", s.n, span.Round(time.Microsecond))
	if span > 0 {
		p.f(", %.0f/s", float64(s.n)/span.Seconds())
	}
	p.f("\n\n%12s %7s  EVENT\n", "COUNT", "SHARE")
	var kinds []*info
	for i := range s.events {
		kinds = append(kinds, i)
	}
	sorting.By(kinds, func(a, b *info) int {
		return cmp.Or(cmp.Compare(s.events[b], s.events[a]), cmp.Compare(a.full, b.full))
	})
	for _, i := range kinds {
		p.f("%12d %6.2f%%  %s\n", s.events[i], 100*float64(s.events[i])/float64(s.n), i.full)
	}
	var tids []int
	for tid := range s.tasks {
		tids = append(tids, tid)
	}
	sorting.By(tids, func(a, b int) int { return cmp.Or(cmp.Compare(s.tasks[b].n, s.tasks[a].n), cmp.Compare(a, b)) })
	p.f("\n%12s %7s  TASK\n", "COUNT", "SHARE")
	for _, tid := range tids[:min(len(tids), s.top)] {
		t := s.tasks[tid]
		p.f("%12d %6.2f%%  %s-%d\n", t.n, 100*float64(t.n)/float64(s.n), t.comm, tid)
	}
	if more := len(tids) - s.top; more > 0 {
		p.f("%12s %7s  and %d more\n", "", "", more)
	}
	s.cpuTable(p)
	return p.err
}

func (s *Stats) cpuTable(p *printer) {
	p.f("\n%12s %12s %6s %12s  CPU\n", "COUNT", "LOST", "GAPS", "BLIND")
	var cpus []int
	for c := range s.cpus {
		cpus = append(cpus, c)
	}
	slices.Sort(cpus)
	for _, c := range cpus {
		n := s.cpus[c]
		lost := strconv.FormatUint(n.lost, 10)
		if n.unknown {
			lost = "≥" + strconv.FormatUint(n.lost, 10)
		}
		p.f("%12d %12s %6d %12v  %d\n", n.events, lost, n.gaps, time.Duration(n.blind).Round(time.Microsecond), c)
	}
}

// printer writes until the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) f(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format, args...)
	}
}
