package watch

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/changes"
)

// describe fills in what a change is about.
func (r *Record) describe(c *changes.Change, link func(index int) string, space func(nsid int) (netstate.Namespace, bool)) {
	o := c.New
	if o == nil {
		o = c.Old
	}
	switch {
	case o.Addr != nil:
		r.What = fmt.Sprintf("%s %s %s", o.Addr.Prefix, preposition(c.Act), r.Dev)
		r.fill(c, func(o *changes.Object) any { return o.Addr })
		if c.Act == changes.Changed {
			r.Diff = addrDiff(c.Old.Addr, c.New.Addr)
		} else if c.Act == changes.Added && o.Addr.Valid > 0 {
			r.Diff = []string{"valid for " + o.Addr.Valid.String()}
		}
	case o.Link != nil:
		r.What, r.Dev = o.Link.Name, o.Link.Name
		r.fill(c, func(o *changes.Object) any { return o.Link })
		if c.Act == changes.Changed {
			r.Diff = linkDiff(c.Old.Link, c.New.Link, link)
		}
		if to := o.Link.MovedTo; to != nil {
			r.Diff = []string{fmt.Sprintf("moved to the network namespace that has number %d there", *to)}
			if ns, ok := space(*to); ok {
				r.Diff = []string{"moved to network namespace " + ns.Name}
			}
		}
	case o.Route != nil:
		r.What = routeText(o.Route, link)
		r.fill(c, func(o *changes.Object) any { return o.Route })
		if c.Act == changes.Changed {
			r.Diff = []string{"was " + routeText(c.Old.Route, link)}
		}
	case o.Neigh != nil:
		r.What = strings.TrimRight(fmt.Sprintf("%s dev %s %s", o.Neigh.Addr, r.Dev, o.Neigh.MAC), " ")
		r.fill(c, func(o *changes.Object) any { return o.Neigh })
		r.Diff = neighDiff(c)
	case o.Rule != nil:
		r.What = fmt.Sprintf("%d: %s", o.Rule.Priority, o.Rule.Text)
		r.fill(c, func(o *changes.Object) any { return o.Rule })
	case o.Sysctl != nil:
		r.What = o.Sysctl.Name + " = " + oneLine(o.Sysctl.Value)
		r.fill(c, func(o *changes.Object) any { return o.Sysctl.Value })
		if c.Old != nil && c.New != nil {
			r.Diff = []string{"was " + oneLine(c.Old.Sysctl.Value)}
		}
	case o.NetNS != nil:
		r.What = fmt.Sprintf("%s (inode %d)", o.NetNS.Name, o.NetNS.Inode)
	case o.Module != "":
		r.What = o.Module
	}
}

func (r *Record) fill(c *changes.Change, of func(*changes.Object) any) {
	if c.Old != nil {
		r.Old = of(c.Old)
	}
	if c.New != nil {
		r.New = of(c.New)
	}
}

func preposition(a changes.Act) string {
	switch a {
	case changes.Added:
		return "to"
	case changes.Removed:
		return "from"
	}
	return "on"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Flags of addresses people ask for (include/uapi/linux/if_addr.h).
var addrFlags = []struct {
	bit  uint32
	name string
}{{0x01, "secondary"}, {0x02, "nodad"}, {0x04, "optimistic"}, {0x08, "dadfailed"}, {0x10, "homeaddress"}, {0x20, "deprecated"}, {0x40, "tentative"}, {0x80, "permanent"}, {0x100, "mngtmpaddr"}, {0x200, "noprefixroute"}, {0x400, "mcautojoin"}, {0x800, "stable-privacy"}}

// Flags of links (include/uapi/linux/if.h).
var linkFlags = []struct {
	bit  uint32
	name string
}{{0x1, "up"}, {0x8, "loopback"}, {0x80, "noarp"}, {0x100, "promisc"}, {0x200, "allmulti"}, {0x10000, "carrier"}}

func flagDiff(flags []struct {
	bit  uint32
	name string
}, old, now uint32) (out []string) {
	for _, f := range flags {
		switch {
		case old&f.bit == 0 && now&f.bit != 0:
			out = append(out, "now "+f.name)
		case old&f.bit != 0 && now&f.bit == 0:
			out = append(out, "no longer "+f.name)
		}
	}
	return out
}

func addrDiff(old, now *changes.AddrInfo) []string {
	out := flagDiff(addrFlags, old.Flags, now.Flags)
	switch {
	case old.Valid == now.Valid && now.Valid == 0:
	case now.Valid == 0:
		out = append(out, "valid for ever")
	default:
		out = append(out, "valid for "+now.Valid.String())
	}
	if old.Broadcast != now.Broadcast {
		out = append(out, fmt.Sprintf("broadcast %s → %s", ipText(old.Broadcast), ipText(now.Broadcast)))
	}
	return out
}

func ipText(a netip.Addr) string {
	if !a.IsValid() {
		return "none"
	}
	return a.String()
}

func linkDiff(old, now *changes.LinkInfo, link func(int) string) []string {
	out := flagDiff(linkFlags, old.Flags, now.Flags)
	for _, d := range []struct {
		name     string
		old, now any
	}{
		{"name", old.Name, now.Name}, {"mac", old.MAC, now.MAC}, {"mtu", old.MTU, now.MTU}, {"state", old.Oper, now.Oper},
		{"master", link(old.Master), link(now.Master)}, {"txqlen", old.TxQLen, now.TxQLen},
	} {
		if d.old != d.now {
			out = append(out, fmt.Sprintf("%s %v → %v", d.name, orNone(d.old), orNone(d.now)))
		}
	}
	for _, p := range now.XDP {
		if !slices.ContainsFunc(old.XDP, func(q netstate.Prog) bool { return p.ID == q.ID && p.Mode == q.Mode }) {
			out = append(out, fmt.Sprintf("XDP program %d attached (%s)", p.ID, p.Mode))
		}
	}
	for _, p := range old.XDP {
		if !slices.ContainsFunc(now.XDP, func(q netstate.Prog) bool { return p.ID == q.ID && p.Mode == q.Mode }) {
			out = append(out, fmt.Sprintf("XDP program %d detached", p.ID))
		}
	}
	if out == nil {
		out = append(out, "in what -j shows")
	}
	return out
}

func orNone(v any) any {
	if v == "" {
		return "none"
	}
	return v
}

func neighDiff(c *changes.Change) (out []string) {
	switch {
	case c.Old == nil || c.New == nil:
		if c.New != nil {
			out = append(out, c.New.Neigh.State)
		}
	default:
		if c.Old.Neigh.State != c.New.Neigh.State {
			out = append(out, c.Old.Neigh.State+" → "+c.New.Neigh.State)
		}
		if c.Old.Neigh.MAC != c.New.Neigh.MAC {
			out = append(out, fmt.Sprintf("mac %v → %v", orNone(c.Old.Neigh.MAC), orNone(c.New.Neigh.MAC)))
		}
	}
	return out
}

// routeText writes a route as ip-route(8) does.
func routeText(r *netstate.Route, link func(int) string) string {
	var t []string
	add := func(on bool, format string, args ...any) {
		if on {
			t = append(t, fmt.Sprintf(format, args...))
		}
	}
	add(r.Type != "unicast", "%s", r.Type)
	switch {
	case r.Dst.Bits() == 0:
		add(true, "default")
	case r.Dst.IsSingleIP():
		add(true, "%s", r.Dst.Addr())
	default:
		add(true, "%s", r.Dst)
	}
	add(r.Via.IsValid(), "via %s", r.Via)
	add(r.Link != 0, "dev %s", link(r.Link))
	for _, h := range r.Hops {
		add(h.Via.IsValid(), "nexthop via %s dev %s", h.Via, link(h.Link))
		add(!h.Via.IsValid(), "nexthop dev %s", link(h.Link))
	}
	add(r.Table != 254 && r.Table != 0, "table %s", changes.TableName(r.Table))
	add(r.Src.IsValid(), "src %s", r.Src)
	add(r.Metric != 0, "metric %d", r.Metric)
	add(r.MTU != 0, "mtu %d", r.MTU)
	return strings.Join(t, " ")
}

// because says in one sentence who or what brought the change about.
func (r *Record) because(c cause, silent changes.Silent) {
	var who string
	if r.Who != nil && !c.kernel {
		who = r.Who.String()
	}
	asked := ""
	switch {
	case c.via == ByNetlink && c.request != "":
		asked = "asked for it by netlink " + c.request
	case c.via == ByNetlink:
		asked = "asked for it by netlink"
	case c.via == ByIoctl:
		asked = "asked for it by ioctl"
	case c.via == BySysctl:
		asked = "wrote it to /proc/sys"
	case c.via == ByModule || c.via == BySyscall && c.request != "":
		asked = "called " + c.request
	}
	switch {
	case c.text != "" && who != "" && asked != "":
		r.Because = fmt.Sprintf("%s: %s %s", c.text, who, strings.Replace(asked, "asked for it", "asked for that", 1))
	case c.text != "" && who != "":
		r.Because = fmt.Sprintf("%s: %s", c.text, who)
	case c.text != "":
		r.Because = c.text
	case who != "" && asked != "":
		r.Because = who + " " + asked
	case who != "":
		r.Because = who + " did it"
	case silent == changes.Polled:
		r.Because = "nobody was seen: found by reading again"
	case silent == changes.Overrun:
		r.Because = "too much changed at once: found by reading again after messages were lost"
	case c.kernel:
		r.Because = "the kernel did it by itself"
	default:
		r.Because = "who did it was not seen"
	}
}
