package changes

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
)

// start starts a goroutine for each source; the last one to end closes the channel.
func (l *Listener) start() {
	run := func(on bool, source func() error) {
		if on {
			l.sources.Go(func() { l.fail(source()) })
		}
	}
	run(l.route != nil, l.readRoute)
	run(l.event != nil, l.readEvents)
	run(l.sysctls != nil, func() error { return l.sysctls.poll(l.done, l.send) })
	run(l.sysctls != nil && l.sysctls.fan != nil, func() error { return l.sysctls.listen(l.send) })
	run(l.o.AllNamespaces || l.wants(NetNS), l.lookForNamespaces)
	l.closer.Go(func() { l.sources.Wait(); close(l.c) })
}

// readRoute reads rtnetlink's messages until the socket is closed.
func (l *Listener) readRoute() error {
	for {
		p, err := l.route.receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			l.lost.Add(1)
			l.readAgain()
			continue
		case err != nil:
			return err
		}
		ms, err := split(p.b)
		if err != nil {
			return fmt.Errorf("read netlink socket: %w", err)
		}
		for _, m := range ms {
			l.take(m, p)
		}
	}
}

// take takes one message in.
func (l *Listener) take(m message, p packet) {
	ev, err := decode(m)
	if err != nil || ev == nil {
		return
	}
	if ev.kind == NetNS {
		l.numbered(ev, m, p)
		return
	}
	l.mu.Lock()
	if p.nsid == l.self {
		p.nsid = own
	}
	t := l.tables[p.nsid]
	var c *Change
	if t != nil && !t.bare {
		c = t.apply(ev)
	}
	l.mu.Unlock()
	if c == nil {
		return
	}
	stamp(c, l.route, m, p)
	l.send(c)
	if follows(c) && l.wants(Route) {
		l.follow(p.nsid, c)
	}
}

// stamp notes by which message a change was told.
func stamp(c *Change, s *socket, m message, p packet) {
	c.Time, c.Boot, c.Port, c.Socket = p.at, p.boot, m.Port, s.cookie
	c.Msg = append([]byte(nil), m.whole[:min(len(m.whole), MsgBytes)]...)
}

// keepGone is of how many deleted namespaces the names of links are kept.
const keepGone = 32

// numbered is a namespace that got a number, or lost it because it is being deleted: the kernel takes the number away first,
// and what it then does in the namespace is told nobody outside.
func (l *Listener) numbered(ev *event, m message, p packet) {
	if p.nsid != own {
		return // numbers as another namespace counts
	}
	if !ev.removed {
		l.Rescan()
		return
	}
	l.mu.Lock()
	old, ref := l.tables[ev.nsid], l.refs[ev.nsid]
	l.mu.Unlock()
	if old != nil && numberedAs(ref, old.ns.Inode, ev.nsid) {
		return // the number was another's before, of whose end the kernel tells after it is free again (unhash_nsid)
	}
	l.mu.Lock()
	t := l.tables[ev.nsid]
	delete(l.tables, ev.nsid)
	delete(l.refs, ev.nsid)
	if t != nil {
		l.gone = append(l.gone[max(0, len(l.gone)-keepGone+1):], t)
	}
	l.mu.Unlock()
	if t == nil {
		return
	}
	gone := &Change{Kind: NetNS, Act: Removed, NS: t.ns, Old: &Object{NetNS: &t.ns}}
	stamp(gone, l.route, m, p)
	for _, k := range l.read() {
		for _, c := range t.all(k, NSGone) {
			c.Cause, c.Time = gone, p.at
			l.send(c)
		}
	}
	l.send(gone)
}

// follows says if the kernel may have changed routes because of c without telling: those of IPv4 that a link or an address
// takes with it (fib_flush in net/ipv4/fib_frontend.c tells nobody).
func follows(c *Change) bool {
	switch {
	case c.Kind == Addr:
		return c.Act == Removed && c.Old.Addr.Prefix.Addr().Is4()
	case c.Kind == Link && c.Act == Removed:
		return true
	case c.Kind == Link && c.Act == Changed:
		return c.Old.Link.Flags&unix.IFF_UP != 0 && c.New.Link.Flags&unix.IFF_UP == 0
	}
	return false
}

// follow reads the routes of a namespace a little later.
func (l *Listener) follow(nsid int, cause *Change) {
	l.mu.Lock()
	if t := l.tables[nsid]; t != nil {
		t.causes = slices.DeleteFunc(append(t.causes, cause), func(c *Change) bool { return time.Since(c.Time) > 10*settle })
	}
	l.mu.Unlock()
	l.sources.Go(func() {
		select {
		case <-time.After(settle):
		case <-l.done:
			return
		}
		l.reread(nsid, []Kind{Route}, Followed)
	})
}

// readAgain reads everything, because messages were lost.
func (l *Listener) readAgain() {
	l.mu.Lock()
	var ids []int
	for id := range l.tables {
		ids = append(ids, id)
	}
	l.mu.Unlock()
	for _, id := range ids {
		l.reread(id, l.read(), Overrun)
	}
}

// reread tells what is different from what was known in a namespace. One that cannot be entered any more is left alone:
// that it is gone will be told.
func (l *Listener) reread(nsid int, kinds []Kind, why Silent) {
	l.mu.Lock()
	t, ref := l.tables[nsid], l.refs[nsid]
	l.mu.Unlock()
	if t == nil {
		return
	}
	ns, err := netns.Open(ref)
	if err != nil {
		return
	}
	defer ns.Close()
	if ino, err := inode(ns); err != nil || ino != t.ns.Inode {
		return
	}
	for _, k := range kinds {
		var now []*Object
		if err := ns.Do(func() (err error) { now, err = dump(k); return err }); err != nil {
			return
		}
		l.mu.Lock()
		cs := t.diff(k, now, why)
		for _, c := range cs {
			if why == Followed {
				c.Cause = t.causeOf(c)
			}
		}
		l.mu.Unlock()
		for _, c := range cs {
			l.send(c)
		}
	}
}

// lookForNamespaces looks for new namespaces now and then.
func (l *Listener) lookForNamespaces() error {
	tick := time.NewTicker(rescan)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-l.again:
		case <-l.done:
			return nil
		}
		if err := l.scan(true); err != nil {
			return err
		}
	}
}

// scan adds the namespaces that are not known yet. One that goes away meanwhile is none.
func (l *Listener) scan(isNew bool) error {
	all, err := netns.Scan("/proc")
	if err != nil {
		return fmt.Errorf("look for network namespaces: %w", err)
	}
	for _, f := range all {
		l.mu.Lock()
		known := l.known(f.Inode)
		l.mu.Unlock()
		if known {
			continue
		}
		for _, ref := range refsOf(f) {
			if ns, err := netns.Open(ref); err == nil {
				l.add(ns, place{ref, nameOfFound(f, ref), true, isNew})
				ns.Close()
				break
			}
		}
	}
	return nil
}

// refsOf are ways to open a namespace: its names, and its processes. One that is held by a descriptor only, such as a
// container's while it is made, has none until it gets another.
func refsOf(f netns.Found) (refs []string) {
	for _, n := range f.Names {
		if filepath.Dir(n) == netns.RunDir {
			refs = append(refs, n)
		}
	}
	refs = append(refs, f.Names...)
	for _, pid := range f.PIDs {
		refs = append(refs, fmt.Sprintf("/proc/%d/ns/net", pid))
	}
	return refs
}

// nameOfFound is its name in /run/netns, else that of its first process.
func nameOfFound(f netns.Found, ref string) string {
	switch {
	case filepath.Dir(ref) == netns.RunDir:
		return filepath.Base(ref)
	case len(f.PIDs) > 0:
		return fmt.Sprintf("%s[%d]", f.Comm, f.PIDs[0])
	}
	return ref
}

// readEvents reads uevents until the socket is closed.
func (l *Listener) readEvents() error {
	for {
		p, err := l.event.receive()
		switch {
		case errors.Is(err, unix.ENOBUFS):
			l.lost.Add(1)
			continue
		case err != nil:
			return err
		}
		module, act, ok := moduleEvent(p.b)
		if !ok {
			continue
		}
		c := &Change{Kind: Module, Act: act, NS: netstate.Namespace{}, Time: p.at, Boot: p.boot, Socket: l.event.cookie}
		if act == Removed {
			c.Old = &Object{Module: module}
		} else {
			c.New = &Object{Module: module}
		}
		c.Msg = append([]byte(nil), p.b[:min(len(p.b), MsgBytes)]...)
		l.send(c)
	}
}
