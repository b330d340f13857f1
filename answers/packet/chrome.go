package packet

import (
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/internal/timeline"
)

// Chrome writes the ways of the packets that were kept as a timeline: "Trace Event Format", which Perfetto and Chrome
// (chrome://tracing) open. A flow is a process there, a packet a thread, and what happened between two events a slice that
// says where; a loss is a mark with its cause. Times are µs since the machine started.
func Chrome(w io.Writer, r *Recording, vs []*Verdict) error {
	enc := &chrome{Writer: timeline.New(w), flows: map[*Flow]int{}, tids: map[*Packet]bool{}, rec: r, verdicts: shown(vs)}
	for i, f := range r.Flows {
		enc.flows[f] = i + 1
	}
	for _, x := range r.points() {
		enc.begin(x)
		enc.hop(x)
	}
	return enc.Close()
}

type chrome struct {
	*timeline.Writer
	rec      *Recording
	flows    map[*Flow]int
	tids     map[*Packet]bool
	verdicts map[*Packet]*Verdict
}

// begin names a packet and its flow, once.
func (c *chrome) begin(x point) {
	p, pid := x.packet, c.flows[x.flow]
	if c.tids[p] {
		return
	}
	c.tids[p] = true
	c.Process(pid, x.flow.Tuple.String())
	c.Thread(pid, p.ID, fmt.Sprintf("packet %d", p.ID))
}

// hop writes what happened from an event to the packet's next; calls of functions, which say no more than their moment, and the
// last event are marks.
func (c *chrome) hop(x point) {
	p, h := x.packet, x.hop
	e := timeline.Event{Phase: "i", Scope: "t", Name: h.Kind.String(), PID: c.flows[x.flow], TID: p.ID, TS: timeline.Stamp(h.Time),
		Args: map[string]string{"namespace": c.rec.NS(h.Netns), "device": or(h.Dev, "-"), "CPU": fmt.Sprint(h.CPU)}}
	if h.Func != "" {
		e.Args["function"] = h.Func
	}
	if len(h.Path) > 0 {
		e.Args["path"] = strings.Join(h.Path, " < ")
	}
	if h.Kind == Step {
		e.Name = or(h.Func, e.Name)
	} else if next := after(p, h); next != nil {
		e.Phase, e.Scope, e.Dur = "X", "", timeline.Stamp(next.Time-h.Time)
		if name, _ := between(h.Kind, next.Kind); name != "" {
			e.Name = name
		}
	}
	if v := c.verdicts[p]; v != nil && h.Kind == Drop && v.Class != ClassDelivered && v.Class != ClassFalseLoss {
		e.Name = "LOST: " + v.Cause
		e.Args["object"], e.Args["mend"] = v.Culprit.String(), v.Fix
	}
	c.Put(e)
}

// after is the packet's next event that is no call of a function, nil if there is none.
func after(p *Packet, h *Hop) *Hop {
	seen := false
	for _, x := range p.Hops {
		if seen && x.Kind != Step && x.Time >= h.Time {
			return x
		}
		seen = seen || x == h
	}
	return nil
}
