package packet

import (
	"encoding/json"
	"io"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// JSON writes one object a line: a "verdict" for each verdict, with Verbose the "hop"s of their samples, a "counter" for
// each counter of losses that moved, and "end" with what the tool itself did not see.
func JSON(w io.Writer, r *Recording, vs []*Verdict, verbose bool) error {
	enc := jsonl.NewEncoder(w)
	for i, v := range vs {
		rec := struct {
			Type string `json:"type"`
			ID   int    `json:"id"`
			*Verdict
			NotReached []string `json:"not_reached,omitempty"`
		}{"verdict", i, v, NotReached(r, v)}
		if err := enc.Encode(rec); err != nil {
			return err
		}
		if verbose && v.sample != nil {
			if err := hops(enc, &Seen{Rec: r}, v, i); err != nil {
				return err
			}
		}
	}
	if err := counters(enc, &Seen{Rec: r}); err != nil {
		return err
	}
	for _, st := range r.Stages {
		if err := enc.Encode(struct {
			Type  string `json:"type"`
			Space string `json:"netns"`
			*Stage
			P50 uint64 `json:"p50_ns"`
			P99 uint64 `json:"p99_ns"`
		}{"stage", r.NS(st.Netns), st, st.Percentile(0.5), st.Percentile(0.99)}); err != nil {
			return err
		}
	}
	var sent, delivered, dropped uint64
	for _, f := range r.Flows {
		sent, delivered, dropped = sent+f.Packets, delivered+f.Delivered, dropped+f.Dropped
	}
	return enc.Encode(map[string]any{"type": "end", "kernel": r.Kernel, "level": r.Level, "sent": sent, "delivered": delivered, "dropped": dropped,
		"open": sent - min(sent, delivered+dropped), "lost_ring": r.LostRing, "missed": r.Missed, "unkept": r.Unkept})
}

// counters writes the counters of losses that moved on a host.
func counters(enc *json.Encoder, s *Seen) error {
	for _, m := range s.Rec.Movements() {
		if err := enc.Encode(struct {
			Type string `json:"type"`
			Host string `json:"host,omitempty"`
			Movement
		}{"counter", s.Host, m}); err != nil {
			return err
		}
	}
	return nil
}

// hops writes the events of a verdict's packet, by the clock of who joins hosts.
func hops(enc *json.Encoder, s *Seen, v *Verdict, id int) error {
	for _, h := range v.sample.Hops {
		if err := enc.Encode(struct {
			Type    string   `json:"type"`
			Host    string   `json:"host,omitempty"`
			Verdict int      `json:"verdict"`
			Packet  uint64   `json:"packet"`
			Event   Kind     `json:"event"`
			Time    uint64   `json:"t"`
			Netns   string   `json:"netns,omitempty"`
			Dev     string   `json:"dev,omitempty"`
			CPU     uint32   `json:"cpu"`
			Comm    string   `json:"comm,omitempty"`
			PID     uint32   `json:"pid,omitempty"`
			Tuple   string   `json:"tuple"`
			Len     uint32   `json:"len"`
			Func    string   `json:"function,omitempty"`
			Path    []string `json:"path,omitempty"`
		}{"hop", s.Host, id, v.sample.ID, h.Kind, uint64(s.at(h.Time)), s.Rec.NS(h.Netns), h.Dev, h.CPU, h.Comm, h.PID, h.View.Tuple.String(), h.Len, h.Func, h.Path}); err != nil {
			return err
		}
	}
	return nil
}
