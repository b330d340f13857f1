package nic

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/netstate/nic"
)

// Mode is a way in which a device's packets are waited for.
type Mode string

// Modes of a device, the one that others are compared with first.
const (
	ByInterrupt Mode = "interrupt" // each interrupt starts polling, which ends when nothing is there
	ByDeferral  Mode = "deferred"  // polled again by a timer, and only then interrupts are on again (napi_defer_hard_irqs, gro_flush_timeout)
	ByBusyPoll  Mode = "busy"      // who waits polls the device (SO_BUSY_POLL; net.core.busy_read and busy_poll)
	ByThread    Mode = "threaded"  // a kernel thread for each NAPI instance polls
)

// AllModes lists them.
func AllModes() []Mode { return []Mode{ByInterrupt, ByDeferral, ByBusyPoll, ByThread} }

// ModeResult is what was measured in one mode. Counts are of the time under load.
type ModeResult struct {
	Mode    Mode
	Refused string // why it could not be measured; "" if it was
	Notes   []string
	Trips   uint64 // questions that were answered, with a load of ours
	Lost    uint64
	Times   Hist     // round trips; of a command's packets, from the interrupt to who read them
	Rounds  []uint64 // p50 of each round, ns
	Took    time.Duration
	IRQs    *uint64 // of the device's own vectors; nil if it has none
	Packets uint64  // that the device received
	Polled  *PollCounts
	CPU     time.Duration // of all CPUs, in which they were not idle
}

// Modes is a comparison.
type Modes struct {
	Dev     string
	Load    string // in words
	Times   string // what Times are of
	Set     string // what deferral was set to
	Rows    []ModeResult
	Missing []string
}

// WriteText writes it for people.
func (m *Modes) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s under %s\n", m.Dev, m.Load)
	t := newTable(1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12)
	t.row("mode", "answers", "p50", "p99", "max", "p50 of rounds", "packets", "irqs", "polls", "outside", "NET_RX", "its time", "CPU")
	for i := range m.Rows {
		if m.Rows[i].Refused == "" {
			t.row(m.Rows[i].cells()...)
		}
	}
	t.write(&b, "")
	fmt.Fprintf(&b, "times are %s; outside: polls that were not in NET_RX; CPU: of all CPUs together, 100 %% is one\n", m.Times)
	for _, l := range m.lines() {
		fmt.Fprintf(&b, "%s\n", l)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *ModeResult) cells() []string {
	c := []string{string(r.Mode), "", "", "", "", "", decimal(r.Packets), "", "", "", "", "", ""}
	if r.Trips > 0 {
		c[1] = decimal(r.Trips)
	}
	if r.Times.Count > 0 {
		c[2], c[3], c[4] = duration(r.Times.Quantile(.5)), duration(r.Times.Quantile(.99)), duration(r.Times.Max)
	}
	if n := len(r.Rounds); n > 1 {
		c[5] = duration(slices.Min(r.Rounds)) + " to " + duration(slices.Max(r.Rounds))
	}
	if r.IRQs != nil {
		c[7] = decimal(*r.IRQs)
	}
	if p := r.Polled; p != nil {
		c[8], c[9], c[10], c[11] = decimal(p.Polls), decimal(p.Outside), decimal(p.Runs), r.share(time.Duration(p.NS))
	}
	c[12] = r.share(r.CPU)
	return c
}

func (r *ModeResult) share(d time.Duration) string {
	if r.Took <= 0 {
		return ""
	}
	return fmt.Sprintf("%.3g %%", 100*d.Seconds()/r.Took.Seconds())
}

// lines are what is to be said beside the table: comparisons, what is strange, what was refused and why.
func (m *Modes) lines() (out []string) {
	out = append(out, m.Verdicts()...)
	if m.Set != "" {
		out = append(out, "deferred  "+m.Set)
	}
	for i := range m.Rows {
		r := &m.Rows[i]
		for _, n := range r.Notes {
			out = append(out, fmt.Sprintf("note  %s: %s", r.Mode, n))
		}
		if r.Lost > 0 {
			out = append(out, fmt.Sprintf("note  %s: %d questions had no answer within a second", r.Mode, r.Lost))
		}
		if r.Refused != "" {
			out = append(out, fmt.Sprintf("refused  %s: %s", r.Mode, r.Refused))
		}
	}
	for _, s := range m.Missing {
		out = append(out, "missing  "+s)
	}
	return out
}

// Verdicts compare each mode's medians of rounds with those of interrupts. Rounds that overlap decide nothing.
func (m *Modes) Verdicts() (out []string) {
	var base *ModeResult
	for i := range m.Rows {
		r := &m.Rows[i]
		switch {
		case r.Refused != "" || len(r.Rounds) < 2:
		case r.Mode == ByInterrupt:
			base = r
		case base != nil:
			word := "higher than by interrupt in all rounds"
			if slices.Max(r.Rounds) < slices.Min(base.Rounds) {
				word = "lower than by interrupt in all rounds"
			} else if slices.Min(r.Rounds) <= slices.Max(base.Rounds) {
				word = "inconclusive: rounds overlap"
			}
			out = append(out, fmt.Sprintf("%s: p50 is %.2f of what it is by interrupt, %s", r.Mode, float64(r.Times.Quantile(.5))/float64(max(base.Times.Quantile(.5), 1)), word))
		}
	}
	return out
}

// WriteJSON writes it as JSON lines of type "mode", and "modes" at the end.
func (m *Modes) WriteJSON(w io.Writer) error {
	e := jsonl.NewEncoder(w)
	for i := range m.Rows {
		r := &m.Rows[i]
		l := map[string]any{"type": "mode", "mode": r.Mode, "dev": m.Dev, "notes": append([]string{}, r.Notes...)}
		if r.Refused != "" {
			l["refused"] = r.Refused
			if err := e.Encode(l); err != nil {
				return err
			}
			continue
		}
		l["answers"], l["lost"], l["packets"], l["for_ns"], l["cpu_ns"] = r.Trips, r.Lost, r.Packets, r.Took.Nanoseconds(), r.CPU.Nanoseconds()
		l["p50_ns"], l["p99_ns"], l["max_ns"], l["rounds_p50_ns"] = r.Times.Quantile(.5), r.Times.Quantile(.99), r.Times.Max, append([]uint64{}, r.Rounds...)
		if r.IRQs != nil {
			l["irqs"] = *r.IRQs
		}
		if p := r.Polled; p != nil {
			l["polls"], l["polls_outside"], l["net_rx_runs"], l["net_rx_ns"] = p.Polls, p.Outside, p.Runs, p.NS
		}
		if err := e.Encode(l); err != nil {
			return err
		}
	}
	return e.Encode(map[string]any{"type": "modes", "dev": m.Dev, "load": m.Load, "times": m.Times, "verdicts": append([]string{}, m.Verdicts()...),
		"missing": append([]string{}, m.Missing...)})
}

// Busy is how long CPUs were not idle between two readings, all together, as exact as the kernel's ticks are.
func Busy(before, after *nic.Sample) (d time.Duration) {
	for cpu, b := range after.CPU {
		a := before.CPU[cpu]
		if all, idle := b.All-a.All, b.Idle-a.Idle; all > idle {
			d += time.Duration(all-idle) * tick
		}
	}
	return d
}
