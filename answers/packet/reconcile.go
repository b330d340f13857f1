package packet

import (
	"fmt"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
)

// reconcile joins verdicts that are about the same: errors that senders saw with the losses that caused them, lost error
// messages with what they would have told, answers that went astray with their questions; and it adds what was lost in
// silence.
func (r *Recording) reconcile(vs []*Verdict) []*Verdict {
	vs = joinErrors(vs)
	vs = blackHoles(vs)
	vs = astray(vs)
	vs = r.silent(vs)
	vs = together(vs)
	sorting.Stable(vs, func(a, b *Verdict) int { return rank(a) - rank(b) })
	return vs
}

// rank orders verdicts: losses first.
func rank(v *Verdict) int {
	switch v.Class {
	case ClassDrop, ClassMisroute, ClassErrno:
		return 0
	case ClassUnknown:
		return 1
	case ClassFalseLoss:
		return 2
	}
	return 3
}

// joinErrors gives losses the error that their sender saw.
func joinErrors(vs []*Verdict) []*Verdict {
	return slices.DeleteFunc(vs, func(e *Verdict) bool {
		if e.refusal == nil {
			return false
		}
		found := false
		for _, v := range vs {
			if v.flow == nil || v.loss == nil || v.flow.Tuple.Proto != e.refusal.L4 || v.flow.Netns != e.refusal.Netns || v.Class == ClassFalseLoss {
				continue
			}
			if v.flow.Tuple.Dst == e.refusal.To || v.rewrittenFor(e) {
				v.Errno, found = e.Errno, true
			}
		}
		return found
	})
}

// rewrittenFor says if a refused call sent what was lost, to an address that was rewritten since, or that the call did not
// give: then the port that the socket sends from tells. The same port to elsewhere, refused for a reason of its own, is
// another story, unless the packet was lost within the call.
func (v *Verdict) rewrittenFor(e *Verdict) bool {
	x := e.refusal
	if x.Port == 0 || v.flow.Tuple.Src.Port() != x.Port {
		return false
	}
	at := v.loss.At
	return !x.To.IsValid() || !e.Certain || at.TID == x.TID && at.Time < x.Time && x.Time-at.Time < within && !arriving(at)
}

// within is how long after a packet was lost in a call the call may end; ns.
const within = uint64(50 * time.Millisecond)

// blackHoles finds losses that were to be told by an ICMP error which was lost itself: who lost that is to blame.
func blackHoles(vs []*Verdict) []*Verdict {
	for _, e := range vs {
		if e.loss == nil || !e.loss.At.View.icmpError() || e.Class != ClassDrop {
			continue
		}
		inner := e.loss.At.View.Inner
		for _, v := range vs {
			if v.flow != nil && v != e && v.loss != nil && v.Class == ClassDrop && v.flow.Tuple.Proto == inner.Proto && v.flow.Tuple.Src == inner.Src && v.flow.Tuple.Dst == inner.Dst {
				v.Cause = fmt.Sprintf("%s; and %s", v.Cause, "the ICMP error that would tell the sender is lost: "+e.Cause)
				v.Culprit, v.Fix = e.Culprit, e.Fix
			}
		}
	}
	return vs
}

// astray finds questions whose answers were misrouted: they are what the person asks about.
func astray(vs []*Verdict) []*Verdict {
	for _, a := range vs {
		if a.Class != ClassMisroute || a.flow == nil || a.loss == nil || len(a.flow.Rewritten) > 0 {
			continue
		}
		now := a.loss.At.View.Tuple
		for _, q := range vs {
			if q.flow == nil || q == a || len(q.flow.Rewritten) == 0 || q.flow.Tuple.Src != now.Dst {
				continue
			}
			q.Class, q.Culprit, q.Cause, q.Fix, q.Certain = ClassMisroute, a.Culprit, a.Cause, a.Fix, a.Certain
			q.Sent, q.Repeats = q.flow.Packets-q.flow.Repeated, q.flow.Repeated
			q.Delivered, q.Unknown, q.Count = 0, 0, q.Sent
			q.Netns, q.Dev, q.Function, q.Reason = a.Netns, a.Dev, a.Function, a.Reason
		}
	}
	return vs
}

// together makes one verdict of those that blame the same object for the same at the same place: flows that differ in the
// port they were sent from, and losses of one flow that have several reasons.
func together(vs []*Verdict) (out []*Verdict) {
	type key struct {
		class               Class
		flow, object, place string
	}
	seen := map[key]*Verdict{}
	for _, v := range vs {
		if v.flow == nil {
			out = append(out, v)
			continue
		}
		k := key{v.Class, v.flow.Tuple.group(), v.Culprit.String(), v.Netns + " " + v.Dev}
		was := seen[k]
		if was == nil || v.Class == ClassDelivered && was.flow != v.flow && v.Dev != was.Dev {
			seen[k] = v
			out = append(out, v)
			continue
		}
		was.join(v)
	}
	return out
}

// join takes another verdict into v.
func (v *Verdict) join(o *Verdict) {
	v.Count += o.Count
	v.Repeats += o.Repeats
	if o.flow == v.flow { // other packets of the same flow
		if o.Certain && !v.Certain {
			v.Function, v.Reason, v.Cause, v.Fix, v.Certain, v.loss, v.sample = o.Function, o.Reason, o.Cause, o.Fix, true, o.loss, o.sample
		}
		return
	}
	v.Sent += o.Sent
	v.Delivered += o.Delivered
	v.Unknown += o.Unknown
	v.Flows = max(1, v.Flows) + 1
	v.Flow = fmt.Sprintf("%s (%d flows)", v.flow.Tuple.group(), v.Flows)
	if v.Errno == "" {
		v.Errno = o.Errno
	}
}
