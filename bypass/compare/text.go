package compare

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// metric is a column that is compared.
type metric struct {
	name string
	less bool // is good
	of   func(*Row) []float64
}

func metrics() []metric {
	return []metric{
		{"p50", true, func(r *Row) []float64 { return r.P50 }},
		{"p99", true, func(r *Row) []float64 { return r.P99 }},
		{"p99.9", true, func(r *Row) []float64 { return r.P999 }},
		{"CPU a trip", true, func(r *Row) []float64 { return r.TripC }},
		{"packets/s", false, func(r *Row) []float64 { return r.Rate }},
		{"CPU a packet", true, func(r *Row) []float64 { return r.RateC }},
	}
}

// Comparison is one way beside the first, by one measure.
type Comparison struct {
	Way     Way    `json:"way"`
	Beside  Way    `json:"beside"`
	Metric  string `json:"metric"`
	Ratio   Ratio  `json:"ratio"`
	Verdict string `json:"verdict"`
}

// Compare compares all ways with the first, but those over TCP with the kernel's TCP if that was measured.
func (r *Report) Compare() (out []Comparison) {
	for i, row := range r.Rows {
		first := r.Rows[0]
		if j := slices.IndexFunc(r.Rows, func(x *Row) bool { return x.Way == row.Way.beside() }); j >= 0 && first.Way == UDP {
			first = r.Rows[j]
		}
		if i == 0 || first == row {
			continue
		}
		for _, m := range metrics() {
			if q := ratio(m.of(row), m.of(first)); q.Rounds > 0 {
				out = append(out, Comparison{row.Way, first.Way, m.name, q, q.Verdict(m.less)})
			}
		}
	}
	return out
}

// around says if a way goes around the kernel.
func (w Way) around() bool {
	return strings.HasPrefix(string(w), "xsk") || strings.HasPrefix(string(w), "netstack")
}

// Ratio gives how a way compares with another by a measure of Compare's names.
func (r *Report) Ratio(of, to Way, name string) Ratio {
	var a, b []float64
	for _, m := range metrics() {
		for _, row := range r.Rows {
			if m.name == name && row.Way == of {
				a = m.of(row)
			}
			if m.name == name && row.Way == to {
				b = m.of(row)
			}
		}
	}
	return ratio(a, b)
}

// WriteText prints medians, histograms, and what follows from them.
func (r *Report) WriteText(w io.Writer) error {
	p := &printer{w: w}
	if r.Type == "tick" {
		r.ticks(p)
	} else {
		r.trips(p)
	}
	p.line("")
	for _, row := range r.Rows {
		p.histogram(row, r.noun())
	}
	r.beside(p)
	p.line("A spinning way takes its CPU also when nothing comes.")
	if r.Type != "tick" {
		p.line("Over TCP a packet is a message, and several may go in one. Streams of large writes are not measured: there the kernel's")
		p.line("offloads win.")
	}
	for _, row := range r.Rows {
		for _, e := range row.Errs {
			p.line("not measured: %s: %s", row.Way, e)
		}
		if row.Lost > 0 {
			p.line("lost: %s: %d %s", row.Way, row.Lost, r.noun())
		}
	}
	return p.err
}

// noun is what is timed.
func (r *Report) noun() string {
	if r.Type == "tick" {
		return "ticks"
	}
	return "round trips"
}

// ticks prints the medians of a measurement from tick to order.
func (r *Report) ticks(p *printer) {
	p.line("%d rounds of %d ticks, frames of %d bytes; exchange and strategy each on a CPU of its own (%d and %d). Every order was for its", r.Rounds, r.Count, r.Size, r.CPUs[0], r.CPUs[1])
	p.line("tick, and the next tick came %.0f µs after it. The exchange has sockets of the kernel that are read without waiting; the CPU is", r.Gap)
	p.line("the strategy's. Medians of rounds, in µs.\n")
	p.line("%-16s %9s %9s %9s %12s", "way", "p50", "p99", "p99.9", "CPU a tick")
	for _, row := range r.Rows {
		p.line("%-16s %9.1f %9.1f %9.1f %12.1f", row.Way, middle(row.P50), middle(row.P99), middle(row.P999), middle(row.TripC))
	}
}

// trips prints those of round trips and rates.
func (r *Report) trips(p *printer) {
	p.line("%d rounds of %d round trips, frames of %d bytes; each side on a CPU of its own (%d and %d). Medians of rounds; times in µs.\n", r.Rounds, r.Count, r.Size, r.CPUs[0], r.CPUs[1])
	p.line("%-16s %9s %9s %9s %12s %12s %9s %9s %8s", "way", "p50", "p99", "p99.9", "CPU a trip", "packets/s", "Mbit/s", "CPU/pkt", "dropped")
	for _, row := range r.Rows {
		rate := middle(row.Rate)
		p.line("%-16s %9.1f %9.1f %9.1f %12.1f %12.0f %9.1f %9.2f %7.1f%%", row.Way, middle(row.P50), middle(row.P99), middle(row.P999), middle(row.TripC),
			rate, rate*float64(r.Size)*8/1e6, middle(row.RateC), 100*middle(row.Gone))
	}
}

// beside prints how ways compare.
func (r *Report) beside(p *printer) {
	var loses, unclear []string
	beside := Way("")
	for _, c := range r.Compare() {
		if c.Beside != beside {
			beside = c.Beside
			p.line("Beside %s, round by round: median (least–most).", beside)
		}
		p.line("  %-16s %-13s %-24s %s", c.Way, c.Metric, c.Ratio, c.Verdict)
		switch {
		case c.Verdict == "worse" && c.Way.around():
			loses = append(loses, fmt.Sprintf("%s by %s (%.2g times)", c.Way, c.Metric, c.Ratio.Median))
		case c.Verdict == "inconclusive" || c.Verdict == "too few rounds":
			unclear = append(unclear, fmt.Sprintf("%s by %s", c.Way, c.Metric))
		}
	}
	if len(loses) > 0 {
		p.line("Going around the kernel loses: %s.", strings.Join(loses, ", "))
	} else {
		p.line("Going around the kernel loses nowhere that was measured.")
	}
	if len(unclear) > 0 {
		p.line("Inconclusive, the rounds differ more than the ways do: %s.", strings.Join(unclear, ", "))
	}
}

// printer keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, strings.TrimRight(format, "\n")+"\n"+strings.Repeat("\n", strings.Count(format, "\n")), args...)
	}
}

// histogram draws all that was timed of a way.
func (p *printer) histogram(r *Row, noun string) {
	const width = 40
	most, all := 1, 0
	for _, b := range r.Hist {
		most, all = max(most, b.N), all+b.N
	}
	if all == 0 {
		return
	}
	p.line("%s, %d %s", r.Way, all, noun)
	for _, b := range r.Hist {
		p.line("%10.1f µs %8d |%s", float64(b.From)/float64(time.Microsecond), b.N, strings.Repeat("@", (b.N*width+most-1)/most))
	}
	p.line("")
}
