package packet

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Seen is what one host saw of packets.
type Seen struct {
	Host   string
	Rec    *Recording
	Trails []Trail
	// Offset is what to add to ns since boot there to have those of whoever joins; Error is how far off that may be.
	Offset, Error int64

	losses map[*Loss]*Verdict // what was said of them
	flows  map[int]*Flow      // by their numbers
}

// at gives a moment of the host by the joiner's clock.
func (s *Seen) at(t uint64) int64 { return int64(t) + s.Offset }

// Leg is a packet's way through one of the hosts.
type Leg struct {
	Host  int
	Trail *Trail
	Part  int // which of the segments that the trail is of
	Of    int // how many these are
	// Rest is the rest of the way, as the one segment that it became on this host; nil if it became none.
	Rest *Trail

	index   int    // of the trail
	time    uint64 // when it came, ns since boot of the host
	unclear bool   // it became one of several segments that look alike
}

// end is the trail that says what became of it.
func (l *Leg) end() *Trail {
	if l.Rest != nil {
		return l.Rest
	}
	return l.Trail
}

// Chain is the way of one packet through several hosts.
type Chain []Leg

// Joined is what several hosts saw, packet by packet.
type Joined struct {
	Hosts  []*Seen
	Chains []Chain
	// Ambiguous is how many packets left a host and look like several that others saw: they are not joined.
	Ambiguous uint64
	// Merged is how many were merged of segments, or are to be divided, where the segments cannot be told: each host sees others.
	Merged uint64
	// Untold are hosts that were asked and ended without telling what they saw.
	Untold []string
	// Parted is how many packets of several segments of TCP were taken apart, Parts into how many.
	Parted, Parts uint64

	owners map[netip.Addr]int
	merged map[mergedKey]bool
	hosts  []*ends
	astray map[strayKey][]*occurrence
}

// mergedKey is where a host received segments of TCP merged.
type mergedKey struct {
	host int
	dst  netip.AddrPort
}

// apart is how long a packet may take from one host to the next; ns.
const apart = int64(5 * time.Second)

// parted is by how much clocks may have parted since they were compared: for some minutes at 500 ppm; ns.
const parted = int64(100 * time.Millisecond)

// occurrence is a packet at the edge of a host: as it left, or as it came. Of several segments of TCP each is one.
type occurrence struct {
	host  int
	index int // of the trail
	part  int // which segment
	of    int // of how many
	mark  *Mark
	time  uint64
	keys  []uint64    // what its mark's Head can be elsewhere
	mate  *occurrence // what it was joined with
	best  []*occurrence
}

// mostOccurrences bounds into how many segments the packets of all hosts are taken apart.
const mostOccurrences = 8 << 20

// take gives the packets that a mark of a trail is of.
func (j *Joined) take(host, index int, m *Mark) (out []*occurrence) {
	n := max(1, m.Seg.count())
	for k := range n {
		o := &occurrence{host: host, index: index, part: k, of: n, mark: m, time: m.Time}
		if n > 1 {
			o.keys = m.Seg.keys(k)
		} else {
			o.keys = []uint64{m.Head}
		}
		out = append(out, o)
	}
	return out
}

// Join finds the packets that several hosts saw. A packet that left one is one that came to another if they look the same
// but for what routers change, the clocks allow it, and there is no other that could be meant: what remains in doubt is not
// joined. NAT is between the two ends of a trail, where the host itself followed the packet. Segments of TCP that a host merged,
// or has divided by its card, are taken apart: what is joined is what went over the wire.
func Join(hosts []*Seen) *Joined {
	j := &Joined{Hosts: hosts}
	outs, ins := map[uint64][]*occurrence{}, map[uint64][]*occurrence{}
	var left, came []*occurrence
	add := func(all *[]*occurrence, by map[uint64][]*occurrence, o *occurrence) {
		*all = append(*all, o)
		for _, k := range o.keys {
			by[k] = append(by[k], o)
		}
	}
	total := 0
	for h, s := range hosts {
		e := j.ends(h, s, &total)
		j.hosts = append(j.hosts, e)
		for i := range s.Trails {
			for k, in := range e.ins[i] {
				if in != nil && !e.child[i] {
					add(&came, ins, in)
				}
				if out := e.out(i, k); out != nil {
					add(&left, outs, out)
				}
			}
		}
	}
	j.match(left, came, outs, ins)
	for h, s := range hosts {
		for i := range s.Trails {
			if s.Trails[i].Merged || j.hosts[h].whole[i] {
				j.Chains = append(j.Chains, Chain{{Host: h, index: i, Trail: &s.Trails[i], Of: 1, time: s.Trails[i].In.Time}})
			}
			for _, in := range j.hosts[h].ins[i] {
				if in != nil && in.mate == nil && !j.hosts[h].child[i] { // else it came from another host, whose chain has it
					j.Chains = append(j.Chains, j.chain(in))
				}
			}
		}
	}
	sorting.Stable(j.Chains, func(a, b Chain) int { return cmp.Compare(j.start(a), j.start(b)) })
	return j
}

// chain is the way of a packet from where it came first.
func (j *Joined) chain(in *occurrence) (c Chain) {
	for in != nil && len(c) < 2*len(j.Hosts) {
		e, trails := j.hosts[in.host], j.Hosts[in.host].Trails
		l := Leg{Host: in.host, index: in.index, Trail: &trails[in.index], Part: in.part, Of: in.of, time: in.time}
		if r, ok := e.rest[piece{in.index, in.part}]; ok {
			l.unclear = r < 0
			if r >= 0 {
				l.Rest = &trails[r]
			}
		}
		c = append(c, l)
		o := e.out(in.index, in.part)
		if in = nil; o != nil {
			in = o.mate
		}
	}
	return c
}

// start is when a chain begins, by the joiner's clock.
func (j *Joined) start(c Chain) int64 { return j.Hosts[c[0].Host].at(c[0].time) }

// match joins what left with what came, both given by their keys, too.
func (j *Joined) match(left, came []*occurrence, outs, ins map[uint64][]*occurrence) {
	for _, o := range left {
		o.best = j.nearest(o, ins, false)
	}
	for _, i := range came {
		i.best = j.nearest(i, outs, true)
	}
	for _, o := range left {
		switch {
		case o.mate != nil || len(o.best) == 0:
		case len(o.best) == 1 && len(o.best[0].best) == 1:
			if i := o.best[0]; i.best[0] == o {
				o.mate, i.mate = i, o
			}
		default:
			j.alike(o)
		}
	}
	for _, o := range left {
		if o.mate == nil && len(o.best) > 0 {
			j.Ambiguous++
		}
	}
}

// alike joins packets that cannot be told apart: as many left one host as came to another, so all of them did, and in their
// order.
func (j *Joined) alike(o *occurrence) {
	to := o.best
	for i := 0; i < len(to); i++ {
		if to[i].host != to[0].host || len(to[i].best) != len(to[0].best) {
			return
		}
	}
	from := to[0].best
	if len(from) != len(to) {
		return
	}
	for _, f := range from {
		if f.mate != nil || f.host != o.host || !slices.Equal(f.best, to) {
			return
		}
	}
	for _, t := range to {
		if t.mate != nil || !slices.Equal(t.best, from) {
			return
		}
	}
	byTime := func(a, b *occurrence) int { return cmp.Compare(a.time, b.time) }
	from, to = slices.SortedFunc(slices.Values(from), byTime), slices.SortedFunc(slices.Values(to), byTime)
	for k := range from {
		from[k].mate, to[k].mate = to[k], from[k]
	}
}

// nearest gives those of others that can be the same packet one step on (or, with back, one step before): of several hosts
// that saw it, the one from which the fewest routers are in between, as the TTL says.
func (j *Joined) nearest(x *occurrence, others map[uint64][]*occurrence, back bool) (best []*occurrence) {
	least := 0
	list := others[x.keys[0]]
	if len(x.keys) > 1 {
		list = slices.Clone(list)
		for _, y := range others[x.keys[1]] {
			if !slices.Contains(list, y) {
				list = append(list, y)
			}
		}
	}
	for _, y := range list {
		out, in := x, y
		if back {
			out, in = y, x
		}
		if out.host == in.host || !same(out.mark, in.mark) || !j.possible(out, in) {
			continue
		}
		d := int(out.mark.TTL) - int(in.mark.TTL)
		switch {
		case d < 0:
		case len(best) == 0 || d < least:
			best, least = []*occurrence{y}, d
		case d == least:
			best = append(best, y)
		}
	}
	return best
}

// same says if two marks with the same headers can be of one packet.
func same(a, b *Mark) bool { return a.N == 0 || b.N == 0 || a.N == b.N && a.Data == b.Data }

// possible says if the clocks allow that a packet left one host and then came to the other.
func (j *Joined) possible(out, in *occurrence) bool {
	a, b := j.Hosts[out.host], j.Hosts[in.host]
	took, doubt := b.at(in.time)-a.at(out.time), a.Error+b.Error+parted
	return took >= -doubt && took <= apart+doubt
}

// owner gives a host that has an address, -1 if none has.
func (j *Joined) owner(a netip.Addr) int {
	if j.owners == nil {
		j.owners = map[netip.Addr]int{}
		for h, s := range j.Hosts {
			for _, st := range s.Rec.all() {
				for _, x := range st.Addrs {
					if ip := x.Prefix.Addr(); !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
						j.owners[ip] = h
					}
				}
			}
		}
	}
	if h, ok := j.owners[a.Unmap()]; ok {
		return h
	}
	return -1
}

// watched says if all hosts were watching when a host said something, and for a while after.
func (j *Joined) watched(host int, t uint64) bool {
	at := j.Hosts[host].at(t)
	for _, s := range j.Hosts {
		r := s.Rec
		if r.Begun != 0 && at < s.at(r.Begun)+s.Error || r.Ended != 0 && at > s.at(r.Ended)-s.Error-int64(within) {
			return false
		}
	}
	return true
}

// HostVerdict is what became of packets of a flow that went through several hosts.
type HostVerdict struct {
	Host string   `json:"host"` // where they ended
	Way  []string `json:"way"`  // the hosts they were seen on, in order
	*Verdict

	seen *Seen
	legs Chain // of one of them
}

// ClassLeft is the class of packets that left the hosts that were asked, for one that was not.
const ClassLeft Class = "left"

// fate is what packets that are told as one have in common.
type fate struct {
	way, flow, key string
}

// Explain gives the verdicts: of each flow, as its sender knows it, one for each way and end that its packets met, and those
// of each host that are about no packet.
func (j *Joined) Explain() (out []*HostVerdict) {
	seen := map[fate]*HostVerdict{}
	sent := map[string]uint64{}
	arrived := map[string]uint64{}
	for _, c := range j.Chains {
		f := j.flow(c[0])
		if f == nil {
			continue
		}
		name := j.Hosts[c[0].Host].Host + " " + f.Tuple.group()
		n := uint64(1)
		if c[0].Of <= 1 {
			n = max(1, c[0].Trail.Weight)
		}
		sent[name] += n
		v := j.end(c)
		if v.Class == ClassDelivered {
			arrived[name] += n
		}
		v.Way = j.way(c)
		v.flow, v.Flow, v.Sender = f, f.Tuple.group(), f.Sender
		k := fate{fmt.Sprint(v.Way), name, fmt.Sprint(v.Class, v.Host, v.Netns, v.Dev, v.Function, v.Reason, v.Culprit.String(), v.Cause)}
		was := seen[k]
		if was == nil {
			v.Count = 0
			seen[k], was = v, v
			out = append(out, v)
		}
		was.Count += n
	}
	for k, v := range seen {
		v.Sent, v.Delivered = sent[k.flow], arrived[k.flow]
		if v.Class == ClassUnknown {
			v.Unknown = v.Count
		}
	}
	for _, s := range j.Hosts {
		for _, v := range Explain(s.Rec) {
			if v.flow == nil {
				out = append(out, &HostVerdict{Host: s.Host, Way: []string{s.Host}, Verdict: v, seen: s})
			}
		}
	}
	sorting.Stable(out, func(a, b *HostVerdict) int { return rank(a.Verdict) - rank(b.Verdict) })
	return out
}

// flow is the flow of a leg, nil if it belongs to none.
func (j *Joined) flow(l Leg) *Flow {
	return j.Hosts[l.Host].flow(l.Trail.Flow)
}

// flow gives the flow of a number, nil if there is none.
func (s *Seen) flow(n int) *Flow {
	if s.flows == nil {
		s.flows = map[int]*Flow{}
		for _, f := range s.Rec.Flows {
			s.flows[f.Number] = f
		}
	}
	return s.flows[n]
}

// way are the hosts of a chain.
func (j *Joined) way(c Chain) (out []string) {
	for _, l := range c {
		out = append(out, j.Hosts[l.Host].Host)
	}
	return out
}

// end says what became of a packet at the last host that saw it.
func (j *Joined) end(c Chain) *HostVerdict {
	last := c[len(c)-1]
	s, t := j.Hosts[last.Host], last.end()
	v := &HostVerdict{Host: s.Host, seen: s, legs: c}
	f := s.flow(t.Flow)
	switch {
	case f == nil:
		v.Verdict = &Verdict{Class: ClassUnknown, Cause: "it belongs to too many flows to tell"}
	case t.State == Lost && t.Loss > 0 && t.Loss <= len(f.Losses):
		v.Verdict = s.loss(f, t.Loss-1)
	case t.Out != nil:
		v.Verdict = j.left(last, f)
	case last.unclear:
		v.Verdict = s.rest(f, ClassUnknown, "divided into segments by "+t.OutDev+": which of several that look alike it became cannot be told")
	case t.State == Delivered:
		v.Verdict = s.rest(f, ClassDelivered, "they arrived")
	default:
		v.Verdict = s.open(f, t.Last)
	}
	return v
}

// loss is the verdict of a host on one of its losses.
func (s *Seen) loss(f *Flow, i int) *Verdict {
	if s.losses == nil {
		s.losses = map[*Loss]*Verdict{}
	}
	l := f.Losses[i]
	if s.losses[l] == nil {
		s.losses[l] = s.Rec.lossOf(f, l)
		s.losses[l].Unknown = 0
	}
	v := *s.losses[l]
	return &v
}

// open is the verdict on a packet of which nobody told the end.
func (s *Seen) open(f *Flow, at *Place) *Verdict {
	v := s.rest(f, ClassDelivered, "")
	if at == nil {
		s.Rec.open(v, nil, 1)
		return v
	}
	v.Netns, v.Dev, v.Function = s.Rec.NS(at.Netns), at.Dev, at.Func
	s.Rec.open(v, at.hop(f), 1)
	if v.Class == ClassDelivered {
		v.Cause = "they arrived, and wait there or were taken, without an event"
	} else {
		v.Cause = fmt.Sprintf("they were last seen in %s on %s (%s), and nobody told their end", v.Netns, at.Dev, at.Func)
	}
	return v
}

// rest is a verdict on packets of a flow that were not lost on a host.
func (s *Seen) rest(f *Flow, c Class, cause string) *Verdict {
	v := &Verdict{Class: c, Netns: s.Rec.NS(f.Netns), Dev: f.Dev, Cause: cause, Certain: c == ClassDelivered}
	if len(f.Sample) > 0 {
		v.sample = f.Sample[0]
	}
	if last := v.lastHop(); last != nil {
		v.Netns, v.Dev, v.Function = s.Rec.NS(last.Netns), last.Dev, last.Func
	}
	return v
}

// left is the verdict on packets that left a host, and that no other host saw.
func (j *Joined) left(l Leg, f *Flow) *Verdict {
	s, t := j.Hosts[l.Host], l.end()
	v := s.rest(f, ClassLeft, "")
	v.Dev = t.OutDev
	dst := f.Tuple.Dst.Addr()
	for _, r := range f.Rewritten {
		dst = r.To.Dst.Addr()
	}
	to := j.owner(dst)
	switch {
	case t.Merged || j.hosts[l.Host].whole[l.index]:
		v.Cause = "left through " + t.OutDev + ", as one of several segments: other hosts divide them otherwise, they are not joined"
	case to < 0 || to == l.Host:
		v.Cause = "left through " + t.OutDev + " for a host that was not asked"
		if len(j.Untold) > 0 {
			v.Cause += ", or that ended before it told"
		}
	case j.elsewise(to, f):
		v.Cause = "left through " + t.OutDev + "; " + j.Hosts[to].Host + " received segments of the flow merged, which are not joined"
	case j.strayed(l, to):
		v.Cause = "left through " + t.OutDev + "; some of its bytes came to " + j.Hosts[to].Host + " as a segment that cannot be told to be this one: not joined"
	case !j.watched(l.Host, t.Out.Time):
		v.Cause = "left through " + t.OutDev + " when not all hosts were watching"
	default:
		v.Class = ClassUnknown
		v.Cause = fmt.Sprintf("left through %s for %s, which has %v, and did not come there: lost in between", t.OutDev, j.Hosts[to].Host, dst)
		v.Fix = "ask the hosts in between, too: --host"
	}
	return v
}

// elsewise says if a host received packets of a flow merged.
func (j *Joined) elsewise(host int, f *Flow) bool {
	if j.merged == nil {
		j.merged = map[mergedKey]bool{}
		for h, s := range j.Hosts {
			for i := range s.Trails {
				if t := &s.Trails[i]; t.Merged || j.hosts[h].whole[i] {
					if g := s.flow(t.Flow); g != nil && g.Tuple.Proto == protoTCP {
						j.merged[mergedKey{h, g.Tuple.Dst}] = true
					}
				}
			}
		}
	}
	return f.Tuple.Proto == protoTCP && j.merged[mergedKey{host, f.Tuple.Dst}]
}
