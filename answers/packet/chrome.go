package packet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Chrome writes the ways of the packets that were kept as a timeline: "Trace Event Format", which Perfetto and Chrome
// (chrome://tracing) open. A flow is a process there, a packet a thread, and what happened between two events a slice that
// says where; a loss is a mark with its cause. Times are µs since the machine started.
func Chrome(w io.Writer, r *Recording, vs []*Verdict) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, `{"displayTimeUnit":"ns","traceEvents":[`)
	enc := &chrome{w: b, flows: map[*Flow]int{}, tids: map[*Packet]bool{}, rec: r, verdicts: shown(vs)}
	for i, f := range r.Flows {
		enc.flows[f] = i + 1
	}
	for _, x := range r.points() {
		enc.begin(x)
		enc.hop(x)
	}
	fmt.Fprint(b, "\n]}\n")
	if enc.err != nil {
		return enc.err
	}
	return b.Flush()
}

type chrome struct {
	w        *bufio.Writer
	err      error
	n        int
	rec      *Recording
	flows    map[*Flow]int
	tids     map[*Packet]bool
	verdicts map[*Packet]*Verdict
}

// chromeEvent is one object of the format; ts and dur are µs.
type chromeEvent struct {
	Phase string            `json:"ph"`
	Name  string            `json:"name"`
	PID   int               `json:"pid"`
	TID   uint64            `json:"tid"`
	Scope string            `json:"s,omitempty"`
	TS    json.Number       `json:"ts,omitempty"`
	Dur   json.Number       `json:"dur,omitempty"`
	Args  map[string]string `json:"args,omitempty"`
}

func stamp(ns uint64) json.Number { return json.Number(fmt.Sprintf("%d.%03d", ns/1000, ns%1000)) }

func (c *chrome) put(e chromeEvent) {
	b, err := json.Marshal(e)
	if err != nil && c.err == nil {
		c.err = err
	}
	if c.n++; c.n > 1 {
		c.w.WriteByte(',')
	}
	c.w.WriteByte('\n')
	c.w.Write(b)
}

// begin names a packet and its flow, once.
func (c *chrome) begin(x point) {
	p, pid := x.packet, c.flows[x.flow]
	if c.tids[p] {
		return
	}
	c.tids[p] = true
	c.put(chromeEvent{Phase: "M", Name: "process_name", PID: pid, Args: map[string]string{"name": x.flow.Tuple.String()}})
	c.put(chromeEvent{Phase: "M", Name: "thread_name", PID: pid, TID: p.ID, Args: map[string]string{"name": fmt.Sprintf("packet %d", p.ID)}})
}

// hop writes what happened from an event to the packet's next; calls of functions, which say no more than their moment, and the
// last event are marks.
func (c *chrome) hop(x point) {
	p, h := x.packet, x.hop
	e := chromeEvent{Phase: "i", Scope: "t", Name: h.Kind.String(), PID: c.flows[x.flow], TID: p.ID, TS: stamp(h.Time),
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
		e.Phase, e.Scope, e.Dur = "X", "", stamp(next.Time-h.Time)
		if name, _ := between(h.Kind, next.Kind); name != "" {
			e.Name = name
		}
	}
	if v := c.verdicts[p]; v != nil && h.Kind == Drop && v.Class != ClassDelivered && v.Class != ClassFalseLoss {
		e.Name = "LOST: " + v.Cause
		e.Args["object"], e.Args["mend"] = v.Culprit.String(), v.Fix
	}
	c.put(e)
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
