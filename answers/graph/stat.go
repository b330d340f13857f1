package graph

import (
	"cmp"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/sorting"
)

// Stat is what became of one function in all trees.
type Stat struct {
	Func  uint64
	Irq   bool   // called in interrupts of the function asked for, not by it
	Count uint64 // calls
	Total uint64 // nanoseconds inside it; of calls inside a call of the same function the outer counts
	Self  uint64 // without the calls below it, and without time off the CPU
	Off   uint64 // off the CPU, not counting calls below it
	Max   uint64 // the longest call
}

// Stats adds trees up by function. The zero value is empty.
type Stats struct {
	Trees uint64
	by    map[statKey]*Stat
	open  map[uint64]int // how many calls of a function are around the one being added
}

type statKey struct {
	fn  uint64
	irq bool
}

// Add takes a tree.
func (s *Stats) Add(t *Tree) {
	if s.by == nil {
		s.by, s.open = map[statKey]*Stat{}, map[uint64]int{}
	}
	s.Trees++
	s.add(&t.Call, false)
}

func (s *Stats) add(c *Call, irq bool) {
	irq = irq || c.Irq
	k := statKey{c.Func, irq}
	st := s.by[k]
	if st == nil {
		st = &Stat{Func: c.Func, Irq: irq}
		s.by[k] = st
	}
	st.Count++
	st.Self += c.Self()
	st.Max = max(st.Max, c.Dur)
	if s.open[c.Func] == 0 {
		st.Total += c.Dur
	}
	s.open[c.Func]++
	for _, k := range c.Calls {
		if k.Off {
			st.Off += k.Dur
			continue
		}
		s.add(k, irq)
	}
	s.open[c.Func]--
}

// List gives the functions, those with the most time of their own first.
func (s *Stats) List() []Stat {
	var out []Stat
	for _, st := range s.by {
		out = append(out, *st)
	}
	sorting.By(out, func(a, b Stat) int {
		return cmp.Or(cmp.Compare(b.Self, a.Self), cmp.Compare(b.Total, a.Total), cmp.Compare(a.Func, b.Func))
	})
	return out
}

// Text writes the table.
func (s *Stats) Text(w io.Writer, name func(uint64) string) error {
	if _, err := fmt.Fprintf(w, "%10s  %14s  %14s  %14s  %14s  %s\n", "COUNT", "TOTAL", "SELF", "OFF CPU", "MAX", "FUNCTION"); err != nil {
		return err
	}
	for _, st := range s.List() {
		fn := name(st.Func)
		if st.Irq {
			fn += "  (in interrupts)"
		}
		if _, err := fmt.Fprintf(w, "%10d  %14s  %14s  %14s  %14s  %s\n", st.Count, Duration(st.Total), Duration(st.Self), Duration(st.Off), Duration(st.Max), fn); err != nil {
			return err
		}
	}
	return nil
}

// jsonStat is a function of the table in JSON; times are nanoseconds.
type jsonStat struct {
	Type  string `json:"type"` // "stat"
	Func  string `json:"function"`
	Irq   bool   `json:"interrupt,omitempty"`
	Count uint64 `json:"count"`
	Total uint64 `json:"total_ns"`
	Self  uint64 `json:"self_ns"`
	Off   uint64 `json:"off_cpu_ns"`
	Max   uint64 `json:"max_ns"`
}

// JSON writes the table, a line for each function.
func (s *Stats) JSON(w io.Writer, name func(uint64) string) error {
	for _, st := range s.List() {
		if err := jsonl.Write(w, jsonStat{"stat", name(st.Func), st.Irq, st.Count, st.Total, st.Self, st.Off, st.Max}); err != nil {
			return err
		}
	}
	return nil
}
