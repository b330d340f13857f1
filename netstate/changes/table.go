package changes

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/netstate"
)

// table is what is known of one namespace: from it come names of links, what a changed object was before, and what went
// without a word.
type table struct {
	ns    netstate.Namespace
	nsid  int  // as the own namespace counts it; own for itself
	bare  bool // only its coming and going are of interest
	links map[int]string
	objs  map[Kind]map[string]*Object

	causes []*Change // the last that may have taken routes along
}

// own is the nsid of the namespace that the sockets are in.
const own = -1

func newTable(ns netstate.Namespace, nsid int) *table {
	return &table{ns: ns, nsid: nsid, links: map[int]string{}, objs: map[Kind]map[string]*Object{}}
}

// key is what makes two messages be about the same object. Routes have none in the kernel: two may differ in anything.
func key(kind Kind, o *Object) string {
	switch kind {
	case Addr:
		return fmt.Sprint(o.Addr.Link, o.Addr.Prefix, o.Addr.Peer)
	case Link:
		return fmt.Sprint(o.Link.Index)
	case Route:
		r := *o.Route
		r.MTU, r.Flags, r.Src, r.Hops = 0, 0, netip.Addr{}, working(r.Hops)
		return fmt.Sprint(r)
	case Neigh:
		return fmt.Sprint(o.Neigh.Link, o.Neigh.Addr)
	case Rule:
		return fmt.Sprint(o.Rule.Family, o.Rule.Priority, o.Rule.Text)
	case Sysctl:
		return o.Sysctl.Name
	}
	return ""
}

// working gives hops without their flags.
func working(hops []netstate.Hop) []netstate.Hop {
	hops = slices.Clone(hops)
	for i := range hops {
		hops[i].Flags = 0
	}
	return hops
}

// put notes what exists, and gives what was known of it before.
func (t *table) put(kind Kind, o *Object) (old *Object) {
	m := t.objs[kind]
	if m == nil {
		m = map[string]*Object{}
		t.objs[kind] = m
	}
	k := key(kind, o)
	old, m[k] = m[k], o
	if kind == Link {
		t.links[o.Link.Index] = o.Link.Name
	}
	return old
}

// drop notes that an object is gone, and gives what was known of it. Names of links stay: messages about what was on them
// may follow.
func (t *table) drop(kind Kind, o *Object) (old *Object) {
	m := t.objs[kind]
	k := key(kind, o)
	old = m[k]
	delete(m, k)
	return old
}

// apply takes an event in and gives the change it is, nil for one that changes nothing.
func (t *table) apply(ev *event) *Change {
	c := &Change{Kind: ev.kind, NS: t.ns, Index: ev.index}
	switch {
	case ev.removed:
		c.Act, c.Old = Removed, ev.obj
		t.drop(ev.kind, ev.obj)
	default:
		c.Act, c.New = Added, ev.obj
		if ev.kind == Route && ev.replace {
			c.Old = t.replaced(ev.obj.Route)
		}
		if old := t.put(ev.kind, ev.obj); old != nil {
			c.Old = old
		}
		if c.Old != nil {
			c.Act = Changed
		}
	}
	c.Dev = t.links[ev.index]
	if c.Act == Changed && same(c.Old, c.New) {
		return nil
	}
	return c
}

// replaced finds and forgets the route whose place r takes (NLM_F_REPLACE): the one to the same destination with the same
// metric in the same table.
func (t *table) replaced(r *netstate.Route) *Object {
	for k, o := range t.objs[Route] {
		if q := o.Route; q.Family == r.Family && q.Table == r.Table && q.Dst == r.Dst && q.Metric == r.Metric {
			delete(t.objs[Route], k)
			return o
		}
	}
	return nil
}

// same says if nothing that people care about differs. A lifetime that is not for ever runs out all the time: that it was
// told again means that it was set again.
func same(old, now *Object) bool {
	if old.Addr != nil {
		a, b := *old.Addr, *now.Addr
		return a.Flags == b.Flags && a.Scope == b.Scope && a.Broadcast == b.Broadcast && a.Valid == b.Valid && b.Valid == 0 && sign(a.Preferred) == sign(b.Preferred) && b.Preferred <= 0
	}
	if old.Route != nil { // flags say whether its link works: the link tells
		a, b := *old.Route, *now.Route
		a.Flags, b.Flags, a.Hops, b.Hops = 0, 0, working(a.Hops), working(b.Hops)
		return reflect.DeepEqual(a, b)
	}
	return reflect.DeepEqual(old, now)
}

func sign(d time.Duration) int {
	switch {
	case d < 0:
		return -1
	case d > 0:
		return 1
	}
	return 0
}

// diff takes in all objects of a kind as they are now, and gives what came, went or changed meanwhile, in a stable order.
func (t *table) diff(kind Kind, now []*Object, why Silent) []*Change {
	var out []*Change
	before := t.objs[kind]
	t.objs[kind] = map[string]*Object{}
	for _, o := range now {
		k := key(kind, o)
		old := before[k]
		delete(before, k)
		t.put(kind, o)
		switch {
		case old == nil:
			out = append(out, t.change(kind, Added, nil, o, why))
		case !same(old, o) && (kind != Addr || old.Addr.Flags != o.Addr.Flags):
			out = append(out, t.change(kind, Changed, old, o, why))
		}
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		out = append(out, t.change(kind, Removed, before[k], nil, why))
	}
	return out
}

// causeOf finds among the last causes the one that took a route along: the end of its link, of the address it prefers, of
// another address of its link.
func (t *table) causeOf(c *Change) *Change {
	o := c.Old
	if o == nil {
		o = c.New
	}
	rank := func(cause *Change) int {
		switch {
		case cause.Index != c.Index:
			return 1
		case cause.Kind == Link:
			return 4
		case o.Route.Src == cause.Old.Addr.Prefix.Addr():
			return 3
		}
		return 2
	}
	var best *Change
	for _, cause := range t.causes {
		if best == nil || rank(cause) >= rank(best) {
			best = cause
		}
	}
	return best
}

// all gives the removal of everything of a kind: its namespace is gone.
func (t *table) all(kind Kind, why Silent) []*Change { return t.diff(kind, nil, why) }

func (t *table) change(kind Kind, act Act, old, now *Object, why Silent) *Change {
	c := &Change{Kind: kind, Act: act, NS: t.ns, Old: old, New: now, Silent: why}
	o := now
	if o == nil {
		o = old
	}
	switch {
	case o.Addr != nil:
		c.Index = o.Addr.Link
	case o.Link != nil:
		c.Index = o.Link.Index
	case o.Route != nil:
		c.Index = o.Route.Link
	case o.Neigh != nil:
		c.Index = o.Neigh.Link
	}
	c.Dev = t.links[c.Index]
	return c
}
