package events

import (
	"cmp"
	"fmt"
	"io"
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
	first  uint64 // if begun
	last   uint64
	begun  bool
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
	if !s.begun || e.Time < s.first {
		s.first, s.begun = e.Time, true
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
			s.task = &taskStat{comm: s.names.of(e, tid)}
			s.tasks[tid] = s.task
		}
	}
	s.task.n++
	return nil
}

// Count is how often something was seen.
type Count struct {
	Name string // of an event "system:name", of a task "comm-tid"
	TID  int    // of a task
	N    uint64
}

// CPUCount is what came from a CPU.
type CPUCount struct {
	CPU     int
	N       uint64
	Gaps    uint64
	Lost    uint64        // events; at least so many if Unknown
	Blind   time.Duration // in gaps
	Unknown bool          // a gap does not tell how many
}

// LostText is how many events were lost, with ≥ if that is not all.
func (c CPUCount) LostText() string {
	if c.Unknown {
		return "≥" + strconv.FormatUint(c.Lost, 10)
	}
	return strconv.FormatUint(c.Lost, 10)
}

// Summary is what was counted: events and tasks by their counts, the largest first, CPUs by their numbers.
type Summary struct {
	N           uint64
	First, Last uint64 // ns in the clock of the recording
	Events      []Count
	Tasks       []Count
	CPUs        []CPUCount
}

// Span is the time between the first event and the last.
func (s *Summary) Span() time.Duration { return time.Duration(s.Last - s.First) }

// Head tells in a line how many events there are.
func (s *Summary) Head() string {
	text := fmt.Sprintf("%d events in %v", s.N, s.Span().Round(time.Microsecond))
	if s.Span() > 0 {
		text += fmt.Sprintf(", %.0f/s", float64(s.N)/s.Span().Seconds())
	}
	return text
}

// Share is how much of all events a count is, in percent.
func (s *Summary) Share(n uint64) float64 { return 100 * float64(n) / float64(s.N) }

// Summary gives what was counted so far.
func (s *Stats) Summary() *Summary {
	out := &Summary{N: s.n, First: s.first, Last: s.last}
	for i, n := range s.events {
		out.Events = append(out.Events, Count{Name: i.full, N: n})
	}
	sorting.By(out.Events, func(a, b Count) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.Name, b.Name)) })
	for tid, t := range s.tasks {
		out.Tasks = append(out.Tasks, Count{Name: fmt.Sprintf("%s-%d", t.comm, tid), TID: tid, N: t.n})
	}
	sorting.By(out.Tasks, func(a, b Count) int { return cmp.Or(cmp.Compare(b.N, a.N), cmp.Compare(a.TID, b.TID)) })
	for cpu, c := range s.cpus {
		out.CPUs = append(out.CPUs, CPUCount{CPU: cpu, N: c.events, Gaps: c.gaps, Lost: c.lost, Blind: time.Duration(c.blind), Unknown: c.unknown})
	}
	sorting.By(out.CPUs, func(a, b CPUCount) int { return cmp.Compare(a.CPU, b.CPU) })
	return out
}

// Close implements [Writer].
func (s *Stats) Close() error {
	p, sum := &printer{w: s.w}, s.Summary()
	p.f("%s\n\n%12s %7s  EVENT\n", sum.Head(), "COUNT", "SHARE")
	for _, e := range sum.Events {
		p.f("%12d %6.2f%%  %s\n", e.N, sum.Share(e.N), e.Name)
	}
	p.f("\n%12s %7s  TASK\n", "COUNT", "SHARE")
	for _, t := range sum.Tasks[:min(len(sum.Tasks), s.top)] {
		p.f("%12d %6.2f%%  %s\n", t.N, sum.Share(t.N), t.Name)
	}
	if more := len(sum.Tasks) - s.top; more > 0 {
		p.f("%12s %7s  and %d more\n", "", "", more)
	}
	p.f("\n%12s %12s %6s %12s  CPU\n", "COUNT", "LOST", "GAPS", "BLIND")
	for _, c := range sum.CPUs {
		p.f("%12d %12s %6d %12v  %d\n", c.N, c.LostText(), c.Gaps, c.Blind.Round(time.Microsecond), c.CPU)
	}
	return p.err
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
