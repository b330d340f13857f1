package watch

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/changes"
)

// record makes the record of a change.
func (w *Watcher) record(p *pending) *Record {
	c := p.c
	r := &Record{Type: "change", Time: c.Time, Kind: c.Kind, Act: c.Act, Dev: c.Dev}
	if c.NS.Inode != 0 {
		r.NetNS, r.Inode, r.plain = c.NS.Name, c.NS.Inode, !w.o.AllNamespaces && len(w.o.Namespaces) == 0
	}
	if r.Dev == "" && c.Index != 0 {
		r.Dev = fmt.Sprintf("if%d", c.Index)
	}
	r.describe(c, func(i int) string { return w.l.LinkName(c.NS, i) }, func(nsid int) (netstate.Namespace, bool) { return w.l.Space(c.NS, nsid) })
	why := cause{how: Unknown}
	if p.s != nil {
		r.Stack = w.names(p.s.stack)
		why = explain(functions(r.Stack))
		r.Stack = visible(r.Stack)
		if !why.kernel || p.s.kernel {
			r.Who = w.who(p.s) // else it was only in the way
		}
	}
	w.amend(r, &why, c, p.s)
	r.How, r.Request = why.how, why.request
	if why.via != why.how {
		r.Via = why.via
	}
	r.because(why, c.Silent)
	return r
}

// amend adds to a cause what the stack of the moment does not tell.
func (w *Watcher) amend(r *Record, why *cause, c *changes.Change, s *sighting) {
	switch {
	case c.Kind == changes.Sysctl && (s != nil || root(c).PID != 0):
		*why = cause{how: BySysctl, via: BySysctl}
		if c.Cause != nil {
			why.text = "it was set along with " + c.Cause.New.Sysctl.Name
		}
	case c.Kind == changes.NetNS && c.Act == changes.Added && s != nil:
		why.text = "it was made"
	case why.how == ByNamespace || c.Silent == changes.NSGone:
		why.how, why.kernel = ByNamespace, true
		if c.Kind != changes.NetNS && c.Silent == changes.NSGone {
			why.text = "its network namespace was deleted, and the kernel removed all that was in it (cleanup_net)"
		} else if c.Kind == changes.NetNS {
			why.text = "nothing uses it any more, and the kernel removed it (cleanup_net)"
		}
		switch last := w.lastRef(c); {
		case last == nil:
		case explain(functions(w.names(last.stack))).kernel:
			why.text += "; the last to let go of it was the kernel, for something that had ended before, such as a socket"
		default:
			r.Who = w.who(last)
			why.kernel = false
			why.text += "; the last to let go of it"
		}
	case why.how == ByDADDone && c.Act == changes.Added && c.Kind == changes.Addr:
		if by := w.begunDAD(c); by != nil {
			*why = explain(functions(w.names(by.stack)))
			if r.Who = nil; !why.kernel {
				r.Who = w.who(by)
			}
		}
	case c.Silent == changes.Followed && c.Cause != nil:
		how := map[changes.Kind]string{changes.Link: ByLinkDown, changes.Addr: ByAddress}[c.Cause.Kind]
		if c.Cause.Kind == changes.Link && c.Cause.Act == changes.Removed {
			how = ByLinkGone
		}
		why.text = fmt.Sprintf("it went with %s, without a message of its own", causeText(c.Cause))
		if why.how != Unknown {
			why.via = why.how
		}
		why.how = how
	}
	if why.kernel && why.text == "" && len(r.Stack) > 0 {
		fn, _, _ := strings.Cut(r.Stack[0], "+")
		why.text = "the kernel did it by itself (" + fn + ")"
	}
	if s == nil && r.Who == nil {
		w.guess(r, why, c)
	}
}

// causeText names what took something else along.
func causeText(c *changes.Change) string {
	switch {
	case c.Kind == changes.Addr:
		return "the address " + c.Old.Addr.Prefix.String()
	case c.Act == changes.Removed:
		return "the link " + c.Dev + ", which was removed"
	}
	return "the link " + c.Dev + ", which was set down"
}

// guess is what is known of who without a program in the kernel.
func (w *Watcher) guess(r *Record, why *cause, c *changes.Change) {
	pid, evidence := root(c).PID, Fanotify
	if pid == 0 && c.Port != 0 {
		pid, evidence = int(c.Port), Port
		why.how, why.via = ByNetlink, ByNetlink
	}
	if pid == 0 || pid < 0 {
		return
	}
	r.Who = &Who{PID: pid, Evidence: evidence}
	p, ok := changes.ReadProcess(pid)
	if !ok {
		return
	}
	r.Who.Comm, r.Who.UID, r.Who.User = p.Comm, &p.UID, w.user(p.UID)
	r.Who.Cgroup, r.Who.Unit = p.Cgroup, unitOf(p.Cgroup)
	if up, ok := changes.ReadProcess(p.Parent); ok {
		r.Who.Parents = []Proc{{up.PID, up.Comm}}
	}
}

// lastRef finds who dropped the last reference to a namespace, or to one of several that went together.
func (w *Watcher) lastRef(c *changes.Change) (found *sighting) {
	for _, s := range w.sights { // the last one counts: numbers of namespaces are used again
		if s.kind == recLastRef && !s.at.After(c.Time.Add(near)) && (s.netns == c.NS.Inode || s.netns == 0 && (found == nil || found.netns == 0)) {
			found = s
		}
	}
	return found
}

// begunDAD finds who added an IPv6 address, which is told only when it has been found to be nobody else's.
func (w *Watcher) begunDAD(c *changes.Change) *sighting {
	addr := c.New.Addr.Prefix.Addr().AsSlice()
	for i := 0; i < len(w.sights); i++ {
		s := w.sights[i]
		if s.kind != recDAD || !bytes.Equal(s.msg, addr) {
			continue
		}
		w.sights = slices.Delete(w.sights, i, i+1)
		i--
		if c := explain(functions(w.names(s.stack))); !c.kernel || c.text != "" { // else a timer that goes on with it
			return s
		}
	}
	return nil
}

// who makes a task out of a sighting.
func (w *Watcher) who(s *sighting) *Who {
	who := &Who{PID: s.pid, Comm: s.comm, UID: &s.uid, User: w.user(s.uid), Kernel: s.kernel, Parents: s.above, Evidence: Seen}
	if s.tid != s.pid {
		who.TID = s.tid
	}
	if s.kernel {
		who.Parents = nil
		return who
	}
	if p, ok := changes.CgroupPath(w.cg, s.cgroup); ok {
		who.Cgroup = p
	}
	if p, ok := changes.ReadProcess(s.pid); ok && p.Comm == s.comm && (who.Cgroup == "" || who.Cgroup == "/") {
		who.Cgroup = p.Cgroup
	}
	who.Unit = unitOf(who.Cgroup)
	return who
}

// unitOf finds the systemd unit of a cgroup: the last part of its path that is one.
func unitOf(cgroup string) string {
	for _, part := range slices.Backward(strings.Split(cgroup, "/")) {
		for _, kind := range []string{".service", ".scope"} {
			if strings.HasSuffix(part, kind) {
				return part
			}
		}
	}
	return ""
}

func (w *Watcher) user(uid uint32) string {
	name, ok := w.users[uid]
	if !ok {
		name = changes.UserName(uid)
		w.users[uid] = name
	}
	return name
}

// names gives the functions of a stack, with offsets.
func (w *Watcher) names(stack []uint64) []string {
	out := make([]string, 0, len(stack))
	for _, a := range stack {
		if name, off, ok := w.syms.Symbolise(a); ok {
			out = append(out, fmt.Sprintf("%s+%#x", name, off))
		} else {
			out = append(out, fmt.Sprintf("%#x", a))
		}
	}
	return out
}

// functions takes the offsets out of a stack.
func functions(stack []string) []string {
	out := make([]string, len(stack))
	for i, f := range stack {
		out[i], _, _ = strings.Cut(f, "+")
	}
	return out
}
