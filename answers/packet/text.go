package packet

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Style is how text is drawn.
type Style struct {
	ASCII   bool
	Color   bool
	Latency bool // how long the stages of the way took
	Verbose bool // every function, and flows that were delivered whole
}

// Text writes the verdicts as people read them: what was lost first, a sentence each with the object that did it and how to
// mend it, then the way of one packet.
func Text(w io.Writer, r *Recording, vs []*Verdict, st Style) error {
	p := &printer{w: w, r: r, st: st}
	told := 0
	for _, v := range vs {
		if v.Class == ClassDelivered && !st.Verbose {
			continue
		}
		p.verdict(v)
		told++
	}
	p.delivered(vs)
	p.movements()
	if st.Latency {
		p.stages()
	}
	p.loss()
	if told == 0 && len(vs) == 0 {
		p.line("no packet was seen")
	}
	return p.err
}

type printer struct {
	w   io.Writer
	r   *Recording
	st  Style
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) color(code, s string) string {
	if !p.st.Color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

var headline = map[Class]string{ClassDrop: "LOST", ClassErrno: "REFUSED", ClassMisroute: "ASTRAY", ClassFalseLoss: "no loss", ClassUnknown: "OPEN", ClassDelivered: "delivered"}

func (p *printer) verdict(v *Verdict) {
	p.headline(v)
	p.fields(v)
	p.line("")
}

func (p *printer) headline(v *Verdict) {
	color := "1;31"
	if v.Class == ClassFalseLoss || v.Class == ClassDelivered {
		color = "32"
	}
	head := p.color(color, headline[v.Class])
	switch v.Class {
	case ClassErrno:
		p.line("%s  %d × %s  %s", head, v.Count, v.Flow, v.Errno)
	default:
		p.line("%s  %d of %d  %s", head, v.Count, v.Sent, v.Flow)
	}
}

// doubt is what stands behind a cause that is concluded without proof.
func doubt(v *Verdict) string {
	if !v.Certain && v.Class != ClassUnknown && v.Class != ClassDelivered && v.Class != ClassLeft {
		return " (likeliest; the state of the machine does not prove it)"
	}
	return ""
}

func (p *printer) fields(v *Verdict) {
	p.field("where", p.where(v))
	p.field("why", v.Cause+doubt(v))
	p.field("object", v.Culprit.String())
	if v.Errno != "" && v.Class != ClassErrno {
		p.field("sender", "sees "+v.Errno)
	}
	if v.Sender.PID != 0 {
		p.field("sent by", fmt.Sprintf("%s[%d]", v.Sender.Comm, v.Sender.PID))
	}
	p.field("mend", v.Fix)
	if v.sample != nil {
		p.path(v)
	}
}

func (p *printer) where(v *Verdict) string {
	var parts []string
	if v.Netns != "" {
		parts = append(parts, v.Netns)
	}
	if v.Dev != "" {
		parts = append(parts, v.Dev)
	}
	if v.Function != "" {
		fn := v.Function
		if v.Reason != "" && v.Reason != "NOT_SPECIFIED" {
			fn += " (" + v.Reason + ")"
		}
		parts = append(parts, fn)
	}
	return strings.Join(parts, ", ")
}

func (p *printer) field(name, text string) {
	if text != "" {
		p.line("  %-7s %s", name, text)
	}
}

// String writes the object: its kind, and its fields in order.
func (c Culprit) String() string {
	if len(c) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(c.Kind())
	for _, k := range slices.Sorted(maps.Keys(c)) {
		if k == "kind" {
			continue
		}
		if v := fmt.Sprint(c[k]); v != "" {
			fmt.Fprintf(&b, " %s=%s", k, v)
		}
	}
	return b.String()
}

// path draws the way of a packet: a line for each place, with the functions that had it there.
func (p *printer) path(v *Verdict) {
	lanes := Lanes(p.r, v.sample)
	arrow, bar, cross := "→", "│", "✗"
	if p.st.ASCII {
		arrow, bar, cross = "->", "|", "x"
	}
	first := true
	for _, l := range lanes {
		fns := l.Funcs
		if !p.st.Verbose {
			fns = landmarks(fns)
		}
		name := "path"
		if !first {
			name = "  " + bar
		}
		first = false
		end := ""
		if l.Drop && v.Class != ClassFalseLoss {
			end = " " + p.color("1;31", cross)
		}
		p.line("  %-7s %-16s %8s  %s%s", name, l.Netns+" "+l.Dev, micros(l.Since), strings.Join(fns, " "+arrow+" "), end)
	}
	if missing := NotReached(p.r, v); len(missing) > 0 {
		p.field("not", "reached: "+strings.Join(missing, ", "))
	}
}

func micros(ns uint64) string {
	switch {
	case ns == 0:
		return "0"
	case ns < 10_000_000:
		return fmt.Sprintf("+%.1fus", float64(ns)/1e3)
	case ns < 10_000_000_000:
		return fmt.Sprintf("+%.1fms", float64(ns)/1e6)
	}
	return fmt.Sprintf("+%.1fs", float64(ns)/1e9)
}

// delivered tells of the flows of which nothing was lost, in one line.
func (p *printer) delivered(vs []*Verdict) {
	var flows, packets uint64
	for _, v := range vs {
		if v.Class == ClassDelivered {
			flows++
			packets += v.Delivered
		}
	}
	if flows > 0 && !p.st.Verbose {
		p.line("delivered: %d packets of %d flows (-v tells them)", packets, flows)
	}
}

// movements tells which counters of losses moved, and what no event explains.
func (p *printer) movements() {
	for _, m := range p.r.Movements() {
		if m.Moved > m.By {
			p.line("counter: %s of %s went up by %d, of which events explain %d: %s (%s)", m.Name, m.Netns, m.Moved, m.By, m.What, m.Function)
		} else if p.st.Verbose {
			p.line("counter: %s of %s went up by %d: %s (%s)", m.Name, m.Netns, m.Moved, m.What, m.Function)
		}
	}
}

// stages tells how long packets took, and where they waited.
func (p *printer) stages() {
	if len(p.r.Stages) == 0 {
		return
	}
	p.line("%-20s %-24s %-7s %9s %10s %10s %10s %10s  %s", "stage", "where", "", "packets", "mean", "p50 <", "p99 <", "longest", "packet")
	for _, s := range p.r.Stages {
		what := "work"
		if s.Waiting {
			what = "waiting"
		}
		p.line("%-20s %-24s %-7s %9d %10s %10s %10s %10s  #%d", s.Name, p.r.NS(s.Netns)+" "+s.Dev, what, s.Count,
			span(s.Sum/s.Count), span(s.Percentile(0.5)), span(s.Percentile(0.99)), span(s.Max), s.Slowest)
	}
}

// span writes a length of time.
func span(ns uint64) string { return strings.TrimPrefix(micros(ns), "+") }

func (p *printer) loss() {
	if p.r.LostRing+p.r.Missed+p.r.Unkept > 0 {
		p.line("not seen: %d events found the ring full, %d programs were busy; %d packets belonged to too many flows", p.r.LostRing, p.r.Missed, p.r.Unkept)
	}
}

// Line writes a verdict on one line: for what is told as it happens.
func Line(w io.Writer, v *Verdict, st Style) {
	p := &printer{w: w, st: st}
	p.line("%s  %s  %s: %s", p.color("1;31", headline[v.Class]), v.Flow, p.where(v), v.Cause)
}
