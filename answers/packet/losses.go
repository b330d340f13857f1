package packet

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/internal/sorting"
)

// Losses is what several hosts lost, as one table. A host whose Rec is nil ended without telling what it saw.
type Losses struct {
	Hosts []*Seen
	// BootToReal is what to add to ns since boot of whoever joins to have ns since 1970.
	BootToReal int64
}

// HostLoss is a verdict of one of the hosts.
type HostLoss struct {
	Host string `json:"host"`
	// Time is when the first of these packets was lost, UTC by the joiner's clock, wrong by TimeError at most; zero if
	// nothing tells.
	Time      time.Time `json:"time,omitzero"`
	TimeError int64     `json:"time_error_ns,omitempty"`
	*Verdict

	seen *Seen
}

// Explain gives the verdicts of all hosts: losses first, and of a kind what was lost earliest.
func (l *Losses) Explain() (out []*HostLoss) {
	for _, s := range l.Hosts {
		if s.Rec == nil {
			continue
		}
		for _, v := range Explain(s.Rec) {
			h := &HostLoss{Host: s.Host, Verdict: v, seen: s}
			if at := v.at(); at != 0 {
				h.Time, h.TimeError = time.Unix(0, s.at(at)+l.BootToReal).UTC(), s.Error
			}
			out = append(out, h)
		}
	}
	sorting.Stable(out, func(a, b *HostLoss) int {
		return cmp.Or(rank(a.Verdict)-rank(b.Verdict), a.Time.Compare(b.Time))
	})
	return out
}

// at is when what a verdict is about happened first, in ns since boot; 0 if nothing tells.
func (v *Verdict) at() uint64 {
	switch {
	case v.loss != nil:
		return v.loss.At.Time
	case v.refusal != nil:
		return v.refusal.Time
	}
	return 0
}

// lost is how many packets verdicts of a host say were lost.
func lost(vs []*HostLoss, s *Seen) (n uint64) {
	for _, v := range vs {
		if v.seen == s && (v.Class == ClassDrop || v.Class == ClassMisroute) {
			n += v.Count
		}
	}
	return n
}

// Text writes the table, and what each host lost in all, of packets and of its own events. Verbose writes the verdicts whole
// behind it, as those of one machine are.
func (l *Losses) Text(w io.Writer, vs []*HostLoss, st Style) error {
	p := &printer{w: w, st: st}
	l.table(p, vs)
	for _, v := range vs {
		if st.Verbose {
			p.r = v.seen.Rec
			p.line("")
			p.headline(v.Verdict)
			p.field("host", v.Host)
			p.fields(v.Verdict)
		}
	}
	for _, s := range l.Hosts {
		if s.Rec == nil {
			p.line("%s: what it lost is not known: it ended before it told", s.Host)
			continue
		}
		r := s.Rec
		p.line("%s: %d lost; not seen: %d events found the ring full, %d programs were busy, %d packets belonged to too many flows; its clock is known within %s",
			s.Host, lost(vs, s), r.LostRing, r.Missed, r.Unkept, span(uint64(s.Error)))
		q := &printer{w: &prefixed{w: w, name: s.Host + ": "}, r: r, st: st}
		q.movements()
		if p.err == nil {
			p.err = q.err
		}
	}
	return p.err
}

// table has a row for each verdict that is about a loss.
func (l *Losses) table(p *printer, vs []*HostLoss) {
	type row struct{ text, color string }
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "count\thost\tfirst\twhat\twhere\tflow\twhy")
	colors := []string{""}
	for _, v := range vs {
		if v.Class == ClassDelivered {
			continue
		}
		first := "-"
		if !v.Time.IsZero() {
			first = v.Time.Format("15:04:05.000000")
		}
		color := "1;31"
		if v.Class == ClassFalseLoss {
			color = "32"
		}
		colors = append(colors, color)
		fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", v.Count, v.Host, first, headline[v.Class], (&printer{r: v.seen.Rec}).where(v.Verdict), cmp.Or(v.Flow, "-"), v.Cause+doubt(v.Verdict))
	}
	if p.err == nil {
		p.err = tw.Flush()
	}
	if len(colors) == 1 {
		p.line("nothing was lost")
		return
	}
	i := 0
	for text := range strings.Lines(b.String()) {
		r := row{strings.TrimRight(text, " \n"), colors[min(i, len(colors)-1)]}
		if i++; r.color != "" {
			r.text = p.color(r.color, r.text)
		}
		p.line("%s", r.text)
	}
}

// HostLine writes a verdict of a host on one line: for what is told as it happens.
func HostLine(w io.Writer, host string, v *Verdict, st Style) {
	Line(&prefixed{w: w, name: host + ": "}, v, st)
}

// JSON writes one object a line: a "verdict" for each verdict, with verbose the "hop"s of its sample, a "counter" for each that
// moved, a "host" for each host, with what it lost in all and what it did not see, and "end" with the sums.
func (l *Losses) JSON(w io.Writer, vs []*HostLoss, verbose bool) error {
	enc := jsonl.NewEncoder(w)
	for i, v := range vs {
		if err := enc.Encode(struct {
			Type string `json:"type"`
			ID   int    `json:"id"`
			*HostLoss
			NotReached []string `json:"not_reached,omitempty"`
		}{"verdict", i, v, NotReached(v.seen.Rec, v.Verdict)}); err != nil {
			return err
		}
		if verbose && v.sample != nil {
			if err := hops(enc, v.seen, v.Verdict, i); err != nil {
				return err
			}
		}
	}
	end := lossSums{Type: "end", Hosts: len(l.Hosts)}
	for _, s := range l.Hosts {
		if s.Rec == nil {
			if err := enc.Encode(lossSums{Type: "host", Host: s.Host, Untold: 1}); err != nil {
				return err
			}
			end.Untold++
			continue
		}
		if err := counters(enc, s); err != nil {
			return err
		}
		one := lossSums{Type: "host", Host: s.Host, Kernel: s.Rec.Kernel, Level: s.Rec.Level, Dropped: lost(vs, s), LostRing: s.Rec.LostRing,
			Missed: s.Rec.Missed, Unkept: s.Rec.Unkept, TimeError: s.Error}
		if err := enc.Encode(one); err != nil {
			return err
		}
		end.add(one)
	}
	return enc.Encode(end)
}

// lossSums is a "host" or the "end" in JSON.
type lossSums struct {
	Type      string `json:"type"`
	Host      string `json:"host,omitempty"`
	Hosts     int    `json:"hosts,omitempty"`
	Kernel    string `json:"kernel,omitempty"`
	Level     string `json:"level,omitempty"`
	Dropped   uint64 `json:"dropped"`
	LostRing  uint64 `json:"lost_ring"`
	Missed    uint64 `json:"missed"`
	Unkept    uint64 `json:"unkept"`
	TimeError int64  `json:"time_error_ns,omitempty"` // of all, the largest
	Untold    int    `json:"untold,omitempty"`        // hosts that ended before they told
}

func (s *lossSums) add(o lossSums) {
	s.Dropped, s.LostRing, s.Missed, s.Unkept = s.Dropped+o.Dropped, s.LostRing+o.LostRing, s.Missed+o.Missed, s.Unkept+o.Unkept
	s.TimeError = max(s.TimeError, o.TimeError)
}
