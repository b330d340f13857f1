// Package timeline writes the "Trace Event Format", which Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing) open: slices and
// marks on threads of processes. It is for some thousands of them; view/events has a writer of its own for recordings.
package timeline

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Event is one object of the format.
type Event struct {
	Phase string            `json:"ph"` // "X" is a slice, "i" a mark, "M" says a name
	Name  string            `json:"name"`
	PID   int               `json:"pid"`
	TID   uint64            `json:"tid"`
	Scope string            `json:"s,omitempty"`
	TS    json.Number       `json:"ts,omitempty"` // of [Stamp]
	Dur   json.Number       `json:"dur,omitempty"`
	Args  map[string]string `json:"args,omitempty"`
}

// Stamp gives nanoseconds as the format has them: microseconds.
func Stamp(ns uint64) json.Number { return json.Number(fmt.Sprintf("%d.%03d", ns/1000, ns%1000)) }

// Writer writes events. The first error is what Close gives.
type Writer struct {
	w   *bufio.Writer
	err error
	n   int
}

// New begins a timeline.
func New(w io.Writer) *Writer {
	t := &Writer{w: bufio.NewWriter(w)}
	fmt.Fprint(t.w, `{"displayTimeUnit":"ns","traceEvents":[`) // an error shows when it is flushed
	return t
}

// Put writes an event.
func (t *Writer) Put(e Event) {
	b, err := json.Marshal(e)
	if err != nil && t.err == nil {
		t.err = err
	}
	if t.n++; t.n > 1 {
		t.w.WriteByte(',')
	}
	t.w.WriteByte('\n')
	t.w.Write(b)
}

// Process and Thread name where events are put.
func (t *Writer) Process(pid int, name string) {
	t.Put(Event{Phase: "M", Name: "process_name", PID: pid, Args: map[string]string{"name": name}})
}

// Thread names a thread of a process.
func (t *Writer) Thread(pid int, tid uint64, name string) {
	t.Put(Event{Phase: "M", Name: "thread_name", PID: pid, TID: tid, Args: map[string]string{"name": name}})
}

// Close ends it; what it was written to stays open.
func (t *Writer) Close() error {
	fmt.Fprint(t.w, "\n]}\n")
	if t.err != nil {
		return t.err
	}
	return t.w.Flush()
}
