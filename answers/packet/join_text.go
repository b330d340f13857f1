package packet

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/fathom-trace/fathom/internal/jsonl"
)

// headlines of verdicts that only several hosts together give.
const headLeft = "left"

// Text writes the verdicts on packets of several hosts as Text writes those of one, each with the host where they ended.
func (j *Joined) Text(w io.Writer, vs []*HostVerdict, st Style) error {
	p := &printer{w: w, st: st}
	told := 0
	for _, v := range vs {
		if (v.Class == ClassDelivered || v.Class == ClassLeft) && !st.Verbose {
			continue
		}
		j.verdict(p, v)
		told++
	}
	j.arrived(p, vs)
	for _, s := range j.Hosts {
		q := &printer{w: &prefixed{w: w, name: s.Host + ": "}, r: s.Rec, st: st}
		q.movements()
		if st.Latency {
			q.stages()
		}
		q.loss()
		if p.err == nil {
			p.err = q.err
		}
	}
	j.account(p)
	if told == 0 && len(vs) == 0 {
		p.line("no packet was seen")
	}
	return p.err
}

// prefixed writes a name before each line.
type prefixed struct {
	w    io.Writer
	name string
}

func (n *prefixed) Write(b []byte) (int, error) {
	_, err := fmt.Fprintf(n.w, "%s%s", n.name, b)
	return len(b), err
}

func (j *Joined) verdict(p *printer, v *HostVerdict) {
	p.r = v.seen.Rec
	name := headline[v.Class]
	if v.Class == ClassLeft {
		name = headLeft
	}
	color := "1;31"
	if v.Class == ClassFalseLoss || v.Class == ClassDelivered || v.Class == ClassLeft {
		color = "32"
	}
	head := p.color(color, name)
	if v.Class == ClassErrno {
		p.line("%s  %d × %s  %s", head, v.Count, v.Flow, v.Errno)
	} else {
		p.line("%s  %d of %d  %s", head, v.Count, v.Sent, v.Flow)
	}
	p.field("host", v.Host)
	p.field("where", p.where(v.Verdict))
	p.field("why", v.Cause+doubt(v.Verdict))
	p.field("object", v.Culprit.String())
	if v.Sender.PID != 0 {
		p.field("sent by", fmt.Sprintf("%s[%d] on %s", v.Sender.Comm, v.Sender.PID, v.Way[0]))
	}
	p.field("mend", v.Fix)
	arrow := " → "
	if p.st.ASCII {
		arrow = " -> "
	}
	if len(v.Way) > 1 {
		p.field("hosts", strings.Join(v.Way, arrow))
	}
	j.legs(p, v)
	p.line("")
}

// legs draws the way of one packet, or where a host kept it not, of one of the same flow, through each host.
func (j *Joined) legs(p *printer, v *HostVerdict) {
	if v.legs == nil {
		if v.sample != nil {
			p.path(v.Verdict)
		}
		return
	}
	for i, l := range v.legs {
		s := j.Hosts[l.Host]
		one := v.Verdict
		if i < len(v.legs)-1 {
			f := s.flow(l.Trail.Flow)
			if f == nil || len(f.Sample) == 0 {
				continue
			}
			one = &Verdict{Class: ClassDelivered, sample: f.Sample[0]}
		}
		if one.sample == nil {
			continue
		}
		took := ""
		if i > 0 {
			took = "  " + j.between(v.legs[i-1], l)
		}
		p.line("  on %s:%s", s.Host, took)
		p.r = s.Rec
		p.path(one)
	}
}

// between says how long a packet took from one host to the next, and how far the clocks let that be known.
func (j *Joined) between(a, b Leg) string {
	if a.end().Out == nil {
		return ""
	}
	took, doubt := j.took(a, b)
	sign := "+"
	if took < 0 {
		sign, took = "-", -took
	}
	return fmt.Sprintf("%s%s, ± %s, after it left %s", sign, span(uint64(took)), span(uint64(doubt)), j.Hosts[a.Host].Host)
}

func (j *Joined) took(a, b Leg) (took, doubt int64) {
	from, to := j.Hosts[a.Host], j.Hosts[b.Host]
	return to.at(b.time) - from.at(a.end().Out.Time), from.Error + to.Error
}

// arrived tells of what was not lost, in one line.
func (j *Joined) arrived(p *printer, vs []*HostVerdict) {
	var delivered, left uint64
	for _, v := range vs {
		switch v.Class {
		case ClassDelivered:
			delivered += v.Count
		case ClassLeft:
			left += v.Count
		}
	}
	if delivered+left > 0 && !p.st.Verbose {
		p.line("delivered: %d packets; left the hosts that were asked: %d (-v tells them)", delivered, left)
	}
}

// account tells how many packets several hosts saw, and what was not joined.
func (j *Joined) account(p *printer) {
	for _, h := range j.Untold {
		p.line("%s: what it saw is not known: it ended before it told", h)
	}
	hops, joined := j.counts()
	apart := ""
	if j.Parted > 0 {
		apart = fmt.Sprintf("; %d packets of several segments were taken apart into %d", j.Parted, j.Parts)
	}
	p.line("joined: %d packets that %d hosts saw %d times; not joined: %d that look alike, %d merged of segments%s", joined, len(j.Hosts), hops, j.Ambiguous, j.Merged, apart)
}

// counts is on how many legs in all, and how many, packets were seen by more than one host.
func (j *Joined) counts() (legs, packets int) {
	for _, c := range j.Chains {
		if len(c) > 1 {
			legs, packets = legs+len(c), packets+1
		}
	}
	return legs, packets
}

// hostLeg is one host's part in the JSON of a packet.
type hostLeg struct {
	Host   string `json:"host"`
	Packet uint64 `json:"packet"`
	Flow   string `json:"flow,omitempty"` // as this host saw it first
	ID     uint32 `json:"ip_id"`
	// Segments is as one of how many segments, merged to one packet, this host had it, and ID then that of the packet.
	Segments int    `json:"segments,omitempty"`
	Time     uint64 `json:"t"` // ns since boot of who joins
	// Took is how long it was on its way from the host before, in ns, TookError how far off that may be.
	Took      int64 `json:"took_ns,omitempty"`
	TookError int64 `json:"took_error_ns,omitempty"`
}

// JSON writes one object a line: a "verdict" for each verdict, with verbose a "packet" for each packet with its hosts, what
// each host counted, and "end".
func (j *Joined) JSON(w io.Writer, vs []*HostVerdict, verbose bool) error {
	enc := jsonl.NewEncoder(w)
	for i, v := range vs {
		if err := enc.Encode(struct {
			Type string `json:"type"`
			ID   int    `json:"id"`
			*HostVerdict
		}{"verdict", i, v}); err != nil {
			return err
		}
	}
	if verbose {
		for _, c := range j.Chains {
			if err := j.packet(enc, c); err != nil {
				return err
			}
		}
	}
	var lost, missed uint64
	for _, s := range j.Hosts {
		if err := counters(enc, s); err != nil {
			return err
		}
		lost, missed = lost+s.Rec.LostRing, missed+s.Rec.Missed
	}
	var sent, delivered, dropped uint64
	for _, v := range vs {
		if v.seen == nil || v.legs == nil {
			continue
		}
		sent += v.Count
		switch v.Class {
		case ClassDelivered:
			delivered += v.Count
		case ClassDrop, ClassMisroute:
			dropped += v.Count
		}
	}
	for _, h := range j.Untold {
		if err := enc.Encode(map[string]any{"type": "host", "host": h, "untold": 1}); err != nil {
			return err
		}
	}
	legs, joined := j.counts()
	return enc.Encode(map[string]any{"type": "end", "hosts": len(j.Hosts) + len(j.Untold), "untold": len(j.Untold), "sent": sent, "delivered": delivered, "dropped": dropped, "open": sent - delivered - dropped,
		"joined": joined, "seen": legs, "ambiguous": j.Ambiguous, "merged": j.Merged, "parted": j.Parted, "parts": j.Parts, "lost_ring": lost, "missed": missed})
}

func (j *Joined) packet(enc *json.Encoder, c Chain) error {
	v := j.end(c)
	out := struct {
		Type     string    `json:"type"`
		Class    Class     `json:"class"`
		Host     string    `json:"host"`
		Netns    string    `json:"netns,omitempty"`
		Dev      string    `json:"dev,omitempty"`
		Function string    `json:"function,omitempty"`
		Reason   string    `json:"reason,omitempty"`
		Seq      *uint32   `json:"seq,omitempty"` // of TCP: its first byte, and how many it carries
		Bytes    uint32    `json:"bytes,omitempty"`
		Legs     []hostLeg `json:"legs"`
	}{"packet", v.Class, v.Host, v.Netns, v.Dev, v.Function, v.Reason, nil, 0, nil}
	if g := c[0].Trail.In.Seg; g.count() > 0 {
		p := *g
		if c[0].Of > 1 {
			p = g.part(c[0].Part)
		}
		out.Seq, out.Bytes = &p.Seq, p.Len
	}
	for i, l := range c {
		s := j.Hosts[l.Host]
		leg := hostLeg{Host: s.Host, Packet: l.Trail.Packet, ID: l.Trail.ID, Time: uint64(s.at(l.time))}
		if l.Of > 1 {
			leg.Segments = l.Of
		}
		if f := s.flow(l.Trail.Flow); f != nil {
			leg.Flow = f.Tuple.String()
		}
		if i > 0 && c[i-1].end().Out != nil {
			leg.Took, leg.TookError = j.took(c[i-1], l)
		}
		out.Legs = append(out.Legs, leg)
	}
	return enc.Encode(out)
}
