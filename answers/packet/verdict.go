package packet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
)

// Class is what kind of answer a verdict is.
type Class string

// Classes.
const (
	ClassDelivered Class = "delivered"
	ClassDrop      Class = "drop"
	ClassErrno     Class = "errno"      // the system call failed: there never was a packet
	ClassMisroute  Class = "misroute"   // it arrived, but somewhere else than it should have
	ClassFalseLoss Class = "false-loss" // an event that looks like a loss and is none
	ClassUnknown   Class = "unknown"    // not delivered, and nobody said why
)

// Verdict is what became of a flow, or of those of its packets that met the same end.
type Verdict struct {
	Class     Class   `json:"class"`
	Flow      string  `json:"flow,omitempty"`
	Netns     string  `json:"netns,omitempty"`
	Dev       string  `json:"dev,omitempty"`
	Function  string  `json:"function,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	Errno     string  `json:"errno,omitempty"`
	Sender    Process `json:"sender,omitzero"`
	Culprit   Culprit `json:"culprit,omitempty"`
	Sent      uint64  `json:"sent"` // a segment that TCP sent again, and that was lost again, counts once
	Delivered uint64  `json:"delivered"`
	Count     uint64  `json:"count"` // packets, or system calls, that this verdict is about
	Unknown   uint64  `json:"unknown,omitempty"`
	Repeats   uint64  `json:"repeats,omitempty"` // how often lost segments were sent again, and lost again
	Flows     int     `json:"flows,omitempty"`   // that this verdict is about, if more than one
	Cause     string  `json:"cause"`
	Fix       string  `json:"fix,omitempty"`
	Certain   bool    `json:"certain"` // the state of the machine confirms it; else it is the likeliest

	flow    *Flow
	loss    *Loss
	sample  *Packet
	refusal *Refusal
}

// Culprit is the object of the machine that did it: its "kind", and what it takes to find it.
type Culprit map[string]any

// Kind is what the object is.
func (c Culprit) Kind() string { s, _ := c["kind"].(string); return s }

// Recording is all that was seen, and the state of the machine then.
type Recording struct {
	Kernel   string     `json:"kernel"`
	Level    string     `json:"level"`
	Flows    []*Flow    `json:"flows"`
	Refusals []*Refusal `json:"refusals,omitempty"`
	Troubles []*Trouble `json:"troubles,omitempty"`
	Stages   []*Stage   `json:"stages,omitempty"`
	// BootToReal is what to add to the time of an event to have ns since 1970.
	BootToReal int64 `json:"boot_to_real"`
	// States of namespaces, by inode: before, when something was first lost in them, and at the end.
	Before map[uint64]*netstate.State `json:"before"`
	At     map[uint64]*netstate.State `json:"at,omitempty"`
	After  map[uint64]*netstate.State `json:"after"`
	Init   uint64                     `json:"init"` // inode of the first namespace: counters of the machine are in it
	Errnos map[int32]string           `json:"errnos,omitempty"`
	// CgroupProgs are the programs on cgroups, read when one of them dropped something first.
	CgroupProgs []CgroupProg `json:"cgroup_progs,omitempty"`
	LostRing    uint64       `json:"lost_ring"`
	Missed      uint64       `json:"missed"`
	Unkept      uint64       `json:"unkept"`
	Losses      bool         `json:"losses_only,omitempty"` // what was not lost was not looked at
	// Begun and Ended are since and until when packets were seen, in ns since boot; 0 if that is not known.
	Begun uint64 `json:"begun,omitempty"`
	Ended uint64 `json:"ended,omitempty"`
}

// State gives what is known of a namespace when something was lost in it, else at the end, else before; nil if nothing is.
func (r *Recording) State(inode uint32) *netstate.State {
	for _, m := range []map[uint64]*netstate.State{r.At, r.After, r.Before} {
		if s := m[uint64(inode)]; s != nil {
			return s
		}
	}
	return nil
}

// end gives the last that is known of a namespace.
func (r *Recording) end(inode uint32) *netstate.State {
	if s := r.After[uint64(inode)]; s != nil {
		return s
	}
	return r.State(inode)
}

// all gives what is known of each namespace.
func (r *Recording) all() map[uint64]*netstate.State {
	out := map[uint64]*netstate.State{}
	for _, m := range []map[uint64]*netstate.State{r.Before, r.After} {
		for i := range m {
			out[i] = r.State(uint32(i))
		}
	}
	return out
}

// Now is the verdict on a loss that was just seen.
func (r *Recording) Now(l *Loss) *Verdict {
	for _, f := range r.Flows {
		for _, x := range f.Losses {
			if x == l {
				return r.lossOf(f, l)
			}
		}
	}
	return nil
}

// NS names a namespace.
func (r *Recording) NS(inode uint32) string {
	if s := r.State(inode); s != nil && s.NS.Name != "" {
		return s.NS.Name
	}
	if inode == 0 {
		return ""
	}
	return fmt.Sprintf("net:[%d]", inode)
}

// moved gives by how much a counter of a namespace went up.
func (r *Recording) moved(inode uint32, name string) uint64 {
	a, b := r.After[uint64(inode)], r.Before[uint64(inode)]
	if a == nil || b == nil || a.Counters[name] < b.Counters[name] {
		return 0
	}
	return a.Counters[name] - b.Counters[name]
}

// scene is one loss with all that is known around it: what finders look at.
type scene struct {
	rec  *Recording
	flow *Flow
	loss *Loss
	hop  *Hop // the drop
	pkt  *Packet
	st   *netstate.State // of the namespace; never nil, but perhaps empty
	dev  *netstate.Link  // nil if it is not known
}

// reason says if the loss has one of the reasons.
func (s *scene) reason(names ...string) bool {
	for _, n := range names {
		if s.loss.Reason == n {
			return true
		}
	}
	return false
}

// at says if one of the functions freed it.
func (s *scene) at(names ...string) bool { return slices.Contains(names, s.loss.Func) }

// in says if one of the functions is in the path of the loss.
func (s *scene) in(names ...string) bool {
	return s.along(func(fn string) bool { return slices.Contains(names, fn) })
}

// under says if a function whose name begins so is in the path.
func (s *scene) under(prefixes ...string) bool {
	return s.along(func(fn string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(fn, p) })
	})
}

// along asks about the functions that had the packet where it was lost, the innermost first. What a softirq ran on top of was
// about another packet: one that waited for its neighbour is sent while a second one asks for the same.
func (s *scene) along(is func(fn string) bool) bool {
	return is(s.loss.Func) || slices.ContainsFunc(s.hop.Path, func(fn string) bool { return is(fn) && !elsewhere(s.hop, fn) })
}

func (s *scene) ns() string { return s.rec.NS(s.loss.Netns) }

// finding is what a finder says.
type finding struct {
	class   Class // "" is ClassDrop
	culprit Culprit
	cause   string
	fix     string
	certain bool
}

// step is a decision of the kernel at which packets are lost.
type step struct {
	name string
	here func(*scene) bool
	find func(*scene) *finding // nil: not this one
}

// Explain gives the verdicts on what was recorded: of each flow one for each end that its packets met, the losses first.
func Explain(r *Recording) []*Verdict {
	var out []*Verdict
	for _, f := range r.Flows {
		out = append(out, r.flow(f)...)
	}
	for _, x := range r.Refusals {
		out = append(out, r.refusal(x))
	}
	return r.reconcile(out)
}

// flow gives the verdicts on one flow.
func (r *Recording) flow(f *Flow) (out []*Verdict) {
	for _, l := range f.Losses {
		if v := r.lossOf(f, l); v != nil {
			out = append(out, v)
		}
	}
	if len(out) == 0 {
		out = append(out, r.noLoss(f))
	}
	return out
}

func (r *Recording) lossOf(f *Flow, l *Loss) *Verdict {
	s := &scene{rec: r, flow: f, loss: l, hop: l.At, pkt: l.Sample, st: r.State(l.Netns)}
	if s.st == nil {
		s.st = &netstate.State{}
	}
	if d, ok := s.st.LinkByIndex(int(l.Ifidx)); ok {
		s.dev = d
	}
	v := &Verdict{Class: ClassDrop, Flow: f.Tuple.String(), Netns: s.ns(), Dev: l.Dev, Function: l.Func, Reason: l.Reason,
		Sent: f.Packets, Delivered: f.Delivered, Count: l.Count, Sender: f.Sender, flow: f, loss: l, sample: l.Sample}
	v.Repeats = l.Repeats
	v.take(s.find())
	if n := f.Open(); n > 0 {
		if r.arrived(f.OpenSample) {
			v.Delivered += n
		} else {
			v.Unknown = n
		}
	}
	return v
}

func (v *Verdict) take(f *finding) {
	if f.class != "" {
		v.Class = f.class
	}
	v.Culprit, v.Cause, v.Fix, v.Certain = f.culprit, f.cause, f.fix, f.certain
}

// find asks the steps in order.
func (s *scene) find() *finding {
	for _, st := range steps {
		if st.here(s) {
			if f := st.find(s); f != nil {
				return f
			}
		}
	}
	what := "dropped it"
	if !s.reason("", "NOT_SPECIFIED") {
		what += ": " + words(s.loss.Reason)
	}
	return &finding{culprit: Culprit{"kind": "function", "name": s.loss.Func}, cause: fmt.Sprintf("%s %s", s.loss.Func, what)}
}

// words makes a reason of the kernel readable.
func words(reason string) string { return strings.ToLower(strings.ReplaceAll(reason, "_", " ")) }

// noLoss is the verdict on a flow of which nothing was dropped.
func (r *Recording) noLoss(f *Flow) *Verdict {
	v := &Verdict{Class: ClassDelivered, Flow: f.Tuple.String(), Netns: r.NS(f.Netns), Dev: f.Dev, Sent: f.Packets, Delivered: f.Delivered,
		Count: f.Delivered, Sender: f.Sender, Certain: true, flow: f}
	if len(f.Sample) > 0 {
		v.sample = f.Sample[0]
	}
	last := v.lastHop()
	if last != nil {
		v.Netns, v.Dev, v.Function = r.NS(last.Netns), last.Dev, last.Func
	}
	if open := f.Open(); open > 0 {
		if f.OpenSample != nil {
			v.sample = f.OpenSample
		}
		r.open(v, v.lastHop(), open)
		return v
	}
	v.Cause = "all packets arrived"
	if f.Packets == 1 {
		v.Cause = "the packet arrived"
	}
	return v
}

// lastHop is the last event that says where the packet was: what else frees its memory, such as its sender when it was
// acknowledged, does not.
func (v *Verdict) lastHop() *Hop {
	if v.sample == nil {
		return nil
	}
	for _, h := range slices.Backward(v.sample.Hops) {
		if h.Netns != 0 && h.Kind != Step && (h.Kind != Consume || takers[h.Func] && v.sample.Received) {
			return h
		}
	}
	return nil
}
