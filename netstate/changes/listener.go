package changes

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/netns"
	"github.com/fathom-trace/fathom/netstate"
)

// Options say what to listen to.
type Options struct {
	Kinds []Kind
	// Namespaces are listened to beside or instead of the own one, by name, path or number of a process as in
	// internal/netns; empty is the own one only.
	Namespaces []string
	// AllNamespaces listens to all there are, and those that come.
	AllNamespaces bool
	// Match says which sysctls are of interest; nil is all.
	Match func(name string) bool
}

// Listener is a set of sources of changes. The caller closes it.
type Listener struct {
	o     Options
	c     chan *Change
	route *socket
	event *socket // uevents

	mu     sync.Mutex     // of what follows
	tables map[int]*table // by nsid
	refs   map[int]string // how a namespace can be opened again
	gone   []*table       // the last that were deleted: their names of links
	self   int            // the own namespace's number in itself, if somebody gave it one

	sysctls *sysctls
	again   chan struct{} // asks for another look for namespaces
	done    chan struct{}
	once    sync.Once
	sources sync.WaitGroup
	closer  sync.WaitGroup // of the channel
	lost    atomic.Uint64
	errs    chan error
	notes   []string
}

// settle is how long the kernel is given to do silently what follows from a change.
const settle = 50 * time.Millisecond

// sources is how many goroutines a listener may have that end it.
const sources = 5

// rescan is how often namespaces are looked for, beside when the kernel tells of them.
const rescan = time.Second

// Open begins to listen. What existed before is read; it is no change.
func Open(o Options) (*Listener, error) {
	l := &Listener{o: o, c: make(chan *Change, 64), tables: map[int]*table{}, refs: map[int]string{}, self: own, again: make(chan struct{}, 1), done: make(chan struct{}), errs: make(chan error, sources)}
	if err := l.open(); err != nil {
		l.Close()
		return nil, err
	}
	l.start()
	return l, nil
}

// open opens the sources that are asked for.
func (l *Listener) open() (err error) {
	if l.wants(Addr, Link, Route, Neigh, Rule, NetNS) {
		if err := l.openRoute(); err != nil {
			return err
		}
	}
	if l.wants(Module) {
		if l.event, err = listen(unix.NETLINK_KOBJECT_UEVENT, []int{1}, false); err != nil {
			return fmt.Errorf("listen to uevents: %w", err)
		}
	}
	if l.wants(Sysctl) {
		if l.sysctls, err = openSysctls(l.o.Match, l.places()); err != nil {
			return err
		}
		l.notes = append(l.notes, l.sysctls.note)
	}
	return nil
}

func (l *Listener) wants(kinds ...Kind) bool {
	return slices.ContainsFunc(kinds, func(k Kind) bool { return slices.Contains(l.o.Kinds, k) })
}

// others says if any namespace but the own one is listened to.
func (l *Listener) others() bool {
	return l.o.AllNamespaces || len(l.o.Namespaces) > 0 || l.wants(NetNS)
}

// read are the kinds that must be read: those asked for, and links for their names.
func (l *Listener) read() []Kind {
	kinds := []Kind{Link}
	for _, k := range []Kind{Addr, Route, Neigh, Rule} {
		if l.wants(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// places are the namespaces whose sysctls are read: of those that come later the messages of the network tell.
func (l *Listener) places() (out []place) {
	if len(l.o.Namespaces) == 0 || l.o.AllNamespaces {
		out = append(out, place{ref: ownRef, name: "own"})
	}
	for _, ref := range l.o.Namespaces {
		out = append(out, place{ref: ref, name: ref})
	}
	if !l.o.AllNamespaces {
		return out
	}
	all, err := netns.Scan("/proc")
	if err != nil {
		return out
	}
	for _, f := range all {
		if refs := refsOf(f); !f.Own && len(refs) > 0 {
			out = append(out, place{ref: refs[0], name: nameOfFound(f, refs[0])})
		}
	}
	return out
}

func (l *Listener) openRoute() error {
	var err error
	groups := []int{unix.RTNLGRP_NSID}
	for _, k := range l.read() {
		groups = append(groups, requests[k].groups...)
	}
	if l.route, err = listen(unix.NETLINK_ROUTE, groups, l.others()); err != nil {
		return err
	}
	self, err := netns.Current()
	if err != nil {
		return err
	}
	defer self.Close()
	if l.self, err = ownNumber(self.FD()); err != nil {
		return err
	}
	if len(l.o.Namespaces) == 0 || l.o.AllNamespaces {
		if err := l.add(self, place{ref: ownRef, name: "own"}); err != nil {
			return err
		}
	}
	for _, ref := range l.o.Namespaces {
		ns, err := netns.Open(ref)
		if err != nil {
			return err
		}
		err = errors.Join(l.add(ns, place{ref: ref, name: ref}), ns.Close())
		if err != nil {
			return err
		}
	}
	if l.o.AllNamespaces || l.wants(NetNS) {
		return l.scan(false)
	}
	return nil
}

// inode gives the number of a namespace.
func inode(ns netns.NS) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(ns.FD(), &st); err != nil {
		return 0, fmt.Errorf("look at network namespace: %w", err)
	}
	return st.Ino, nil
}

// place is where a namespace was found.
type place struct {
	ref     string // how it can be opened
	name    string
	scanned bool // nobody asked for it by name
	isNew   bool
}

// add takes a namespace in: gives it a number here and reads what it has. New ones are told of, if anyone wants to know.
func (l *Listener) add(ns netns.NS, p place) error {
	ino, err := inode(ns)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known(ino) {
		return nil
	}
	nsid := own
	if self, err := os.Readlink("/proc/self/ns/net"); err != nil || self != fmt.Sprintf("net:[%d]", ino) {
		if nsid, err = number(ns.FD()); err != nil {
			return fmt.Errorf("network namespace %s: %w", p.ref, err)
		}
	}
	t := newTable(netstate.Namespace{Inode: ino, Name: nameOf(p.name, ino)}, nsid)
	t.bare = p.scanned && !l.o.AllNamespaces
	if !t.bare {
		if err := ns.Do(func() error { return l.fill(t) }); err != nil {
			return fmt.Errorf("network namespace %s: %w", p.ref, err)
		}
	}
	l.tables[nsid], l.refs[nsid] = t, p.ref
	if p.isNew && l.wants(NetNS) {
		l.send(&Change{Kind: NetNS, Act: Added, Time: time.Now(), NS: t.ns, New: &Object{NetNS: &t.ns}, Silent: Polled})
	}
	return nil
}

// Knows says if a namespace is known by its inode.
func (l *Listener) Knows(ino uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known(ino)
}

func (l *Listener) known(ino uint64) bool {
	for _, t := range l.tables {
		if t.ns.Inode == ino {
			return true
		}
	}
	return false
}

// nameOf is what people call a namespace: "init" for that of process 1, else what it was called.
func nameOf(name string, ino uint64) string {
	if p, err := os.Readlink("/proc/1/ns/net"); err == nil && p == fmt.Sprintf("net:[%d]", ino) {
		return "init"
	}
	return name
}

// fill reads all objects, in the namespace of the calling thread.
func (l *Listener) fill(t *table) error {
	for _, k := range l.read() {
		objs, err := dump(k)
		if err != nil {
			return err
		}
		for _, o := range objs {
			t.put(k, o)
		}
	}
	return nil
}

// Changes gives changes in the order in which they were told. It is closed when the listener has ended.
func (l *Listener) Changes() <-chan *Change { return l.c }

// Cookies are those of the sockets that messages come through (SO_COOKIE).
func (l *Listener) Cookies() []uint64 {
	var out []uint64
	for _, s := range []*socket{l.route, l.event} {
		if s != nil {
			out = append(out, s.cookie)
		}
	}
	return out
}

// Notes say how what is not told by netlink is found out.
func (l *Listener) Notes() []string { return l.notes }

// Lost counts how often messages were lost because too many came. What changed meanwhile was told all the same, as Overrun.
func (l *Listener) Lost() uint64 { return l.lost.Load() }

// Rescan looks for new namespaces now.
func (l *Listener) Rescan() {
	select {
	case l.again <- struct{}{}:
	default:
	}
}

// Err gives the error that ended the listener; nil if it was closed.
func (l *Listener) Err() error {
	select {
	case err := <-l.errs:
		return err
	default:
		return nil
	}
}

// Close ends listening, waits for it, and closes everything.
func (l *Listener) Close() error {
	l.stop()
	l.closer.Wait()
	return nil
}

// stop has all sources end.
func (l *Listener) stop() {
	l.once.Do(func() {
		close(l.done)
		for _, s := range []*socket{l.route, l.event} {
			if s != nil {
				s.close()
			}
		}
		if l.sysctls != nil {
			l.sysctls.close()
		}
	})
}

// fail ends the listener with an error, the first of them.
func (l *Listener) fail(err error) {
	if err != nil && !errors.Is(err, os.ErrClosed) {
		l.errs <- err
	}
	l.stop()
}

// send hands a change on unless nobody asked for its kind or the listener was closed.
func (l *Listener) send(c *Change) {
	if !l.wants(c.Kind) {
		return
	}
	if c.Time.IsZero() {
		c.Time = time.Now()
	}
	select {
	case l.c <- c:
	case <-l.done:
	}
}

// LinkName gives the name of a link of a namespace by its index: the last that was known, "if7" if none was.
func (l *Listener) LinkName(ns netstate.Namespace, index int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range slices.AppendSeq(slices.Clone(l.gone), maps.Values(l.tables)) {
		if t.ns.Inode == ns.Inode && t.links[index] != "" {
			return t.links[index]
		}
	}
	if index == 0 {
		return ""
	}
	return fmt.Sprintf("if%d", index)
}

// Space gives the namespace that has a number in another, if that is the own one and it is listened to.
func (l *Listener) Space(in netstate.Namespace, nsid int) (netstate.Namespace, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t, self := l.tables[nsid], l.tables[own]
	if t == nil || self == nil || self.ns.Inode != in.Inode {
		return netstate.Namespace{}, false
	}
	return t.ns, true
}
