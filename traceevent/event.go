package traceevent

import "iter"

// Event is one record of a trace, wherever it was read from. Readers of other formats than the kernel's lay the record out
// as their Format says.
type Event struct {
	Time   uint64  // ns in the clock of the trace
	CPU    int     // where it was recorded; -1 if that is not known
	Format *Format // nil for a gap
	Rec    []byte  // the record, its common fields included; it belongs to the stream, which may write over it at Next

	// Lost and Gap describe what is missing: an Event without a Format stands for records that were lost before Time and
	// after the stream's event before. Lost is their number, 0 if it is not known.
	Lost uint64
	// Since is the time of the last event before a gap, 0 if there was none.
	Since uint64
	// Stacks are those that were recorded with the event, in a stream of [WithStacks]; nil in others.
	Stacks *Stacks
}

// Stream gives events in the order of their time, most often those of one CPU.
type Stream interface {
	// Next reads the next event into e. It is false at the end, and at an error, which [Stream.Err] then tells.
	Next(e *Event) bool
	Err() error
}

// All iterates over a stream. The event is the same variable all along.
func All(s Stream) iter.Seq[*Event] {
	return func(yield func(*Event) bool) {
		var e Event
		for s.Next(&e) && yield(&e) {
		}
	}
}

// Merge makes one stream of several, by time, then by their order. The first error of any ends that one; it is told at the end.
func Merge(streams []Stream) Stream {
	if len(streams) == 1 {
		return streams[0]
	}
	m := &merged{}
	for i, s := range streams {
		h := &source{s: s, order: i}
		if s.Next(&h.e) {
			m.heads = append(m.heads, h)
			m.up(len(m.heads) - 1)
			continue
		}
		m.fail(s)
	}
	return m
}

type source struct {
	e     Event
	s     Stream
	order int
}

func (h *source) before(o *source) bool {
	return h.e.Time < o.e.Time || h.e.Time == o.e.Time && h.order < o.order
}

// merged is a heap of streams by their next event.
type merged struct {
	heads []*source
	given bool // the first head's event was handed out: it goes on before the next
	err   error
}

func (m *merged) fail(s Stream) {
	if err := s.Err(); err != nil && m.err == nil {
		m.err = err
	}
}

func (m *merged) Err() error { return m.err }

func (m *merged) Next(e *Event) bool {
	if m.given {
		h := m.heads[0]
		if !h.s.Next(&h.e) {
			m.fail(h.s)
			last := len(m.heads) - 1
			m.heads[0] = m.heads[last]
			m.heads = m.heads[:last]
		}
		m.down()
	}
	if len(m.heads) == 0 {
		return false
	}
	m.given = true
	*e = m.heads[0].e
	return true
}

func (m *merged) up(i int) {
	for i > 0 {
		p := (i - 1) / 2
		if !m.heads[i].before(m.heads[p]) {
			return
		}
		m.heads[i], m.heads[p] = m.heads[p], m.heads[i]
		i = p
	}
}

func (m *merged) down() {
	for i := 0; ; {
		c := 2*i + 1
		if c >= len(m.heads) {
			return
		}
		if c+1 < len(m.heads) && m.heads[c+1].before(m.heads[c]) {
			c++
		}
		if !m.heads[c].before(m.heads[i]) {
			return
		}
		m.heads[i], m.heads[c] = m.heads[c], m.heads[i]
		i = c
	}
}
