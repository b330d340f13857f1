package packet

import (
	"cmp"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// Namer gives names to what the kernel has numbers for. Both may give "".
type Namer interface {
	// Function names the function that an address is in, without what a compiler added to its name.
	Function(addr uint64) string
	// Reason names a drop reason.
	Reason(n int32) string
}

// Limits bound what a Tracker keeps.
const (
	mostFlows   = 4096
	mostPackets = 2048 // of which more may be told
	mostHops    = 192  // of a packet
	samples     = 3    // packets of a flow that are kept whole
	mostOther   = 1024 // refusals, troubles
	mostPaths   = 8192
	// segmenting is how long after a packet of several segments was queued its segments may come; ns.
	segmenting = uint64(50 * time.Millisecond)
)

// Tracker makes packets and flows of events. The zero value is not usable: see NewTracker.
type Tracker struct {
	names    Namer
	keep     func(Tuple) bool
	want     func(*Event) bool
	bySkb    map[uint64]*Packet
	byHead   map[uint64]*Packet
	order    []*Packet // in the order they were first seen
	flows    map[flowKey]*Flow
	list     []*Flow
	frags    map[fragKey]Tuple
	queued   map[uint32]*Packet // by CPU: the last packet of several segments that was given to a device
	refusals map[refusalKey]*Refusal
	refused  []*Refusal
	troubles map[troubleKey]*Trouble
	dropped  map[uint32]dropped // by CPU
	trouble  []*Trouble
	stages   map[stageKey]*Stage
	paths    map[uint64]named // by a hash of the stack
	next     uint64
	unkept   uint64
	within   map[uint32]bool // namespaces of the host; nil if all are
	tell     func(*Trail)    // may be nil
}

type fragKey struct {
	src, dst string
	id       uint32
}

type refusalKey struct {
	call  string
	errno int32
	netns uint32
	l4    uint8
	to    string
}

type troubleKey struct {
	netns, ifindex uint32
	prog           uint64
	reason         int32
}

// NewTracker returns a Tracker. want says if a packet is wanted by an event in which it is first seen, keep if a refused
// system call is, by the tuple that it would have sent; nil wants all.
func NewTracker(n Namer, want func(*Event) bool, keep func(Tuple) bool) *Tracker {
	return &Tracker{names: n, keep: keep, want: want, bySkb: map[uint64]*Packet{}, byHead: map[uint64]*Packet{}, flows: map[flowKey]*Flow{},
		frags: map[fragKey]Tuple{}, queued: map[uint32]*Packet{}, stages: map[stageKey]*Stage{}, paths: map[uint64]named{}, refusals: map[refusalKey]*Refusal{}, troubles: map[troubleKey]*Trouble{}, dropped: map[uint32]dropped{}}
}

// Add takes the next event; events come roughly in the order of their time. It gives the loss that the event was counted
// in, if it told of one that is the first of its kind: the moment to look at the state of the machine.
func (t *Tracker) Add(e Event) *Loss {
	switch e.Kind {
	case Refused:
		t.refuse(e)
		return nil
	case XDPError:
		t.troubled(e)
		return nil
	}
	h := &Hop{Event: e, View: Look(&e)}
	h.Func, h.Path = t.path(&e)
	h.Stack = nil // it is named; addresses mean nothing elsewhere
	p := t.find(h)
	if p == nil {
		p = t.rebuilt(h)
	}
	if p == nil && (h.Kind == Step || (h.Kind == Drop || h.Kind == Consume) && h.Func == freesMembers) {
		return nil // a function that frees or begins: the events before and after tell; or one of several that were told of as one
	}
	if p == nil {
		if p = t.begin(h); p == nil {
			return nil
		}
	}
	p.last = e.Time
	t.note(p, h)
	t.timed(p, h)
	if len(p.Hops) < mostHops {
		p.Hops = append(p.Hops, h)
	}
	t.rewritten(p, h)
	first := t.settle(p, h)
	if p.state != Open && !p.shown() {
		p.Hops = p.Hops[len(p.Hops)-1:] // nobody will look at its way again
	}
	return first
}

// shown says if the packet is kept to be shown.
func (p *Packet) shown() bool {
	return p.flow != nil && slices.Contains(p.flow.Sample, p) || p.loss != nil && p.loss.Sample == p
}

// path names the functions of an event: those of the stack that are of the network, without the tracing and freeing ones.
// Stacks repeat: what was named once is kept, and shared.
func (t *Tracker) path(e *Event) (fn string, path []string) {
	h := fnv1a(uint64(e.Kind), e.Arg)
	for _, a := range e.Stack {
		h = fnv1a(h, a)
	}
	if was, ok := t.paths[h]; ok {
		return was.fn, was.path
	}
	fn, path = t.name(e)
	if len(t.paths) >= mostPaths {
		clear(t.paths)
	}
	t.paths[h] = named{fn, path}
	return fn, path
}

// named is what the stack of an event says.
type named struct {
	fn   string
	path []string
}

// fnv1a mixes a number into a hash (FNV-1a by words).
func fnv1a(h, n uint64) uint64 { return (h ^ n) * 0x100000001b3 }

func (t *Tracker) name(e *Event) (fn string, path []string) {
	switch {
	case e.Arg == 0:
	case e.Kind == Drop || e.Kind == Consume:
		fn = t.names.Function(e.Arg)
	case e.Kind == Step: // where the function begins; a Namer looks before what it is given, at the call
		fn = t.names.Function(e.Arg + 1)
	}
	for _, a := range e.Stack {
		n := t.names.Function(a)
		if n == "" || internal(n) {
			continue
		}
		if len(path) > 0 && path[len(path)-1] == n {
			continue
		}
		path = append(path, n)
		if entered[n] {
			break
		}
	}
	if at := places[e.Kind]; len(path) == 0 && at != "" {
		path = []string{at}
	}
	if fn == "" && len(path) > 0 {
		fn = path[0]
	}
	return fn, path
}

// begin makes a packet of an event.
func (t *Tracker) begin(h *Hop) *Packet {
	if h.Kind == Consume {
		return nil // a clone, or a packet of which nothing else was seen, goes: nothing is lost
	}
	if t.want != nil && !t.want(&h.Event) {
		return nil // its memory was that of one that was followed
	}
	t.next++
	p := &Packet{ID: t.next, Tuple: h.View.Tuple, head: h.Head, weight: uint64(max(1, h.GSO))}
	t.fragment(p, h)
	parent := t.queued[h.CPU]
	if h.GSO > 1 && h.Kind == Queue {
		t.queued[h.CPU] = p
	} else if parent != nil && h.Kind == Xmit && parent.Tuple == p.Tuple && h.Time-parent.last < segmenting {
		t.divide(parent)
	}
	p.skbs = append(p.skbs, h.Skb)
	t.bySkb[h.Skb], t.byHead[h.Head] = p, p
	t.order = append(t.order, p)
	if len(t.order) > mostPackets {
		t.forget(t.order[0])
		t.told(t.order[0])
		t.order[0].Hops = t.kept(t.order[0])
		t.order = t.order[1:]
	}
	f := t.flow(p, h)
	if f == nil {
		t.unkept++
		return p
	}
	p.flow = f
	f.Packets += p.weight
	if p.repeats = t.original(p, h); p.repeats != nil {
		f.Repeated++
	}
	f.Bytes += uint64(h.Len)
	f.Last = h.Time
	if len(f.Sample) < samples {
		f.Sample = append(f.Sample, p)
	}
	return p
}

// fragment gives fragments the ports of the first of them.
func (t *Tracker) fragment(p *Packet, h *Hop) {
	if h.View.Frag == 0 {
		return
	}
	k := fragKey{p.Tuple.Src.Addr().String(), p.Tuple.Dst.Addr().String(), h.View.Frag}
	if h.View.First {
		if len(t.frags) >= mostFlows {
			clear(t.frags)
		}
		t.frags[k] = p.Tuple
	} else if first, ok := t.frags[k]; ok {
		p.Tuple = first
	}
}

// divide marks a packet that became segments: they are counted, it is not.
func (t *Tracker) divide(p *Packet) {
	if p.split || p.flow == nil {
		return
	}
	p.split = true
	p.flow.Packets -= min(p.flow.Packets, p.weight)
	t.count(p, Open, nil)
	p.weight = 0
}

// kept are the hops of a packet that is no longer followed: all if someone shows it, else none.
func (t *Tracker) kept(p *Packet) []*Hop {
	if p.shown() {
		return p.Hops
	}
	return nil
}

// forget gives the addresses of a packet free.
func (t *Tracker) forget(p *Packet) {
	for _, s := range p.skbs {
		if t.bySkb[s] == p {
			delete(t.bySkb, s)
		}
	}
	p.skbs = nil
	if t.byHead[p.head] == p {
		delete(t.byHead, p.head)
	}
}

// flow gives the flow of a new packet, nil if there are too many.
func (t *Tracker) flow(p *Packet, h *Hop) *Flow {
	k := flowKey{p.Tuple, h.Netns}
	if f := t.flows[k]; f != nil {
		return f
	}
	if len(t.flows) >= mostFlows {
		return nil
	}
	f := &Flow{Number: len(t.list) + 1, Tuple: p.Tuple, Netns: h.Netns, Dev: h.Dev, First: h.Time}
	if len(h.Path) > 0 && entered[h.Path[len(h.Path)-1]] && !slices.ContainsFunc(h.Path, deferred) {
		f.Sender = Process{h.PID, h.Comm}
	}
	t.flows[k] = f
	t.list = append(t.list, f)
	return f
}

// rewritten notes a change of addresses.
func (t *Tracker) rewritten(p *Packet, h *Hop) {
	if n := len(p.Hops); n >= 2 && p.flow != nil && h.Kind != Step {
		a, b := lastEvent(p.Hops[:n-1]), h
		if a.View.Tuple != b.View.Tuple && a.View.Tuple.IP() && b.View.Tuple.IP() && a.View.First && b.View.First && a.View.Proto == b.View.Proto {
			r := Rewrite{Netns: h.Netns, Dev: h.Dev, From: a.View.Tuple, To: b.View.Tuple}
			if a.Netns != 0 && a.Kind == Rx {
				r.Netns, r.Dev = a.Netns, a.Dev // it was changed behind the device it came in by
			}
			known := slices.ContainsFunc(p.flow.Rewritten, func(x Rewrite) bool {
				return x.Netns == r.Netns && x.Dev == r.Dev && x.From == r.From && x.To == r.To
			})
			if !known && len(p.flow.Rewritten) < 8 {
				r.Before = a
				p.flow.Rewritten = append(p.flow.Rewritten, r)
			}
		}
	}
}

// settle draws from an event what became of its packet.
func (t *Tracker) settle(p *Packet, h *Hop) (first *Loss) {
	switch h.Kind {
	case Copied:
		p.Received = true
		t.count(p, Delivered, nil)
	case Consume, Drop:
		switch {
		case h.Func == freesMembers:
			t.member(p, h)
		case h.Kind == Drop:
			first = t.drop(p, h)
		case !p.Received && h.Last && takers[h.Func]:
			p.Received = true
			t.count(p, Delivered, nil)
		}
	case Retransmit:
		if p.flow != nil {
			p.flow.Retransmits++
		}
	}
	if (h.Kind == Drop || h.Kind == Consume) && h.Last {
		t.forget(p)
	} else if h.Kind == Drop || h.Kind == Consume {
		delete(t.bySkb, h.Skb)
	} else if t.bySkb[h.Skb] == nil {
		p.skbs = append(p.skbs, h.Skb)
		t.bySkb[h.Skb] = p
	}
	return first
}

// drop counts a loss. A copy that is dropped while the packet itself was received is no loss of it: the loss is noted, the
// packet stays delivered.
func (t *Tracker) drop(p *Packet, h *Hop) *Loss {
	f := p.flow
	if f == nil {
		return nil
	}
	w := t.place(p, h)
	w.Func, w.Reason = h.Func, t.names.Reason(h.Reason)
	for _, l := range f.Losses {
		if l.Netns == w.Netns && l.Ifidx == w.Ifidx && l.Func == w.Func && l.Reason == w.Reason {
			t.lose(p, l)
			t.dropped[h.CPU] = dropped{l, f, h.Time}
			return nil
		}
	}
	w.Sample, w.At = p, h
	f.Losses = append(f.Losses, &w)
	t.lose(p, &w)
	t.dropped[h.CPU] = dropped{&w, f, h.Time}
	return &w
}

func (t *Tracker) lose(p *Packet, l *Loss) {
	if p.loss == l {
		return
	}
	if was := p.repeats; was != nil && was.loss == l && p.state == Open && p.flow != nil {
		l.Repeats++
		p.flow.Repeated--
		p.flow.Packets -= min(p.flow.Packets, p.weight)
		p.flow, p.weight = nil, 0
		return
	}
	l.Count += max(1, p.weight)
	t.count(p, Lost, l)
}

// original gives the segment that a segment of TCP repeats, nil if TCP does not send it again.
func (t *Tracker) original(p *Packet, h *Hop) *Packet {
	if p.Tuple.Proto != protoTCP || !slices.ContainsFunc(h.Path, func(f string) bool { return repeating[f] }) {
		return nil
	}
	v := &h.View
	for _, was := range p.flow.Sample {
		if was == p || len(was.Hops) == 0 {
			continue
		}
		if o := &was.Hops[0].View; o.Seq == v.Seq && o.Flags == v.Flags && o.IPLen == v.IPLen {
			return was
		}
	}
	return nil
}

// place says where a drop was: where the event says, or where the packet was seen last.
func (t *Tracker) place(p *Packet, h *Hop) (l Loss) {
	l.Netns, l.Dev, l.Ifidx = h.Netns, h.Dev, h.Ifindex
	for i := len(p.Hops) - 1; i >= 0 && (l.Ifidx == 0 || l.Netns == 0); i-- {
		was := p.Hops[i]
		if was == h || was.Kind == Drop {
			continue
		}
		if l.Netns == 0 {
			l.Netns = was.Netns
		}
		if l.Ifidx == 0 && was.Netns == l.Netns {
			l.Ifidx, l.Dev = was.Ifindex, was.Dev
		}
		break
	}
	return l
}

// count puts a packet under another state.
func (t *Tracker) count(p *Packet, s State, l *Loss) {
	f := p.flow
	if f == nil || p.state == s || p.state == Delivered && s == Lost {
		return
	}
	switch p.state {
	case Delivered:
		f.Delivered -= min(f.Delivered, p.weight)
	case Lost:
		f.Dropped -= min(f.Dropped, p.weight)
	}
	switch s {
	case Delivered:
		f.Delivered += p.weight
	case Lost:
		f.Dropped += p.weight
		p.loss = l
	}
	p.state = s
}

func (t *Tracker) refuse(e Event) {
	if t.keep != nil && !t.keep(Tuple{Proto: e.L4, Dst: e.To}) {
		return
	}
	k := refusalKey{e.Call, e.Reason, e.Netns, e.L4, e.To.String()}
	if r := t.refusals[k]; r != nil {
		r.Count++
		return
	}
	if len(t.refused) < mostOther {
		r := &Refusal{Event: e, Count: 1}
		t.refusals[k] = r
		t.refused = append(t.refused, r)
	}
}

func (t *Tracker) troubled(e Event) {
	k := troubleKey{e.Netns, e.Ifindex, e.Arg, e.Reason}
	if r := t.troubles[k]; r != nil {
		r.Count++
		return
	}
	if len(t.trouble) < mostOther {
		r := &Trouble{Event: e, Count: 1}
		t.troubles[k] = r
		t.trouble = append(t.trouble, r)
	}
}

// Flows gives all flows, in the order they were first seen.
func (t *Tracker) Flows() []*Flow {
	for _, p := range t.order {
		if p.state == Open && p.flow != nil && p.weight > 0 && len(p.Hops) > 0 {
			p.flow.OpenSample = p
		}
	}
	sorting.Stable(t.list, func(a, b *Flow) int { return cmp.Compare(a.First, b.First) })
	return t.list
}

// Refusals gives the system calls that failed, and Troubles what devices reported without a packet.
func (t *Tracker) Refusals() []*Refusal { return t.refused }

// Troubles gives what devices reported without a packet.
func (t *Tracker) Troubles() []*Trouble { return t.trouble }

// Packets is how many were seen.
func (t *Tracker) Packets() uint64 { return t.next }

// Unkept is how many packets belong to no flow, because there were too many.
func (t *Tracker) Unkept() uint64 { return t.unkept }
