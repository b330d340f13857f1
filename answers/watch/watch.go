package watch

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/netstate"
	"github.com/fathom-trace/fathom/netstate/changes"
	"github.com/fathom-trace/fathom/probe"
)

// Options say what to watch.
type Options struct {
	Kinds []changes.Kind
	// Dev leaves out what is not about the link of this name; "" is all.
	Dev string
	// Match leaves out sysctls whose name does not match this pattern, where * stands for anything; "" is all.
	Match string
	// Namespaces and AllNamespaces as package changes has them.
	Namespaces    []string
	AllNamespaces bool
	// NoBPF tells changes only.
	NoBPF bool
	CPUs  int // that are possible
}

// Symbols names kernel addresses and finds them.
type Symbols interface {
	Symbolise(addr uint64) (name string, off uint64, ok bool)
	Address(name string) []uint64
}

// Watcher watches. One goroutine may use it; it must be closed.
type Watcher struct {
	o     Options
	l     *changes.Listener
	w     *witness
	syms  Symbols
	cg    string // where cgroups are
	means []string

	pending []*pending
	sights  []*sighting
	causes  map[*changes.Change]*sighting
	users   map[uint32]string
	ended   bool
}

// pending is a change that waits for its sighting.
type pending struct {
	c     *changes.Change
	s     *sighting
	until time.Time
}

// patience is how long a change waits for the sighting that belongs to it: both come from the same moment, on two ways.
const patience = 400 * time.Millisecond

// memory is how long a sighting without a change is kept: a sysctl may be read again a second later, and duplicate address
// detection takes some seconds where it is set to.
const memory = 10 * time.Second

// Open begins to watch. world may be nil with NoBPF. What cannot be had is in Means; the watch goes on without.
func Open(world *probe.World, syms Symbols, o Options) (*Watcher, error) {
	w := &Watcher{o: o, syms: syms, causes: map[*changes.Change]*sighting{}, users: map[uint32]string{}}
	lo := changes.Options{Kinds: o.Kinds, Namespaces: o.Namespaces, AllNamespaces: o.AllNamespaces}
	if o.Match != "" {
		lo.Match = func(name string) bool { return matches(o.Match, name) }
	}
	var err error
	if w.l, err = changes.Open(lo); err != nil {
		return nil, err
	}
	w.cg = changes.CgroupRoot()
	if o.NoBPF {
		w.means = append(w.means, "who: by the ports of netlink sockets (no BPF)")
	} else {
		w.lookOn(world)
	}
	w.means = append(w.means, w.l.Notes()...)
	return w, nil
}

// matches says if a name matches a pattern, in which * stands for anything, dots included.
func matches(pattern, name string) bool {
	ok, err := path.Match(strings.ReplaceAll(pattern, ".", "\x01"), strings.ReplaceAll(strings.ReplaceAll(name, "/", "\x02"), ".", "\x01"))
	return ok && err == nil
}

// lookOn attaches programs, and notes what is attached and what could not be.
func (w *Watcher) lookOn(world *probe.World) {
	l, err := newLayout(world.Types())
	if err != nil {
		w.means = append(w.means, fmt.Sprintf("who: by the ports of netlink sockets only (no BPF: %v)", err))
		return
	}
	c := code{l: l, cookies: w.l.Cookies()}
	w.w = newWitness()
	var sources []source
	if len(c.cookies) > 0 {
		sources = append(sources, messages())
	}
	if w.o.AllNamespaces || len(w.o.Namespaces) > 0 || w.watches(changes.NetNS) {
		c.cleanup, c.list = w.address("cleanup_net"), w.address("cleanup_list")
	}
	if w.watches(changes.Addr) {
		c.dad = w.address("addrconf_dad_work")
	}
	if c.cleanup != 0 || c.dad != 0 {
		sources = append(sources, works())
	}
	if w.watches(changes.NetNS) {
		sources = append(sources, namespaces()...)
	}
	if w.watches(changes.Sysctl) && w.cg != "" {
		sources = append(sources, settings(w.cg))
	}
	var with []string
	for _, s := range sources {
		if err := w.w.add(world, c, s, w.o.CPUs); err != nil {
			w.means = append(w.means, fmt.Sprintf("not known: %s (%s)", s.what, oneLine(err.Error())))
			continue
		}
		with = append(with, w.w.parts[len(w.w.parts)-1].mean)
	}
	if len(with) > 0 {
		w.means = append(w.means, "who: by "+strings.Join(with, ", "))
	}
}

func (w *Watcher) watches(k changes.Kind) bool { return slices.Contains(w.o.Kinds, k) }

// address finds a symbol of which there is one; 0 is none.
func (w *Watcher) address(name string) uint64 {
	if as := w.syms.Address(name); len(as) == 1 {
		return as[0]
	}
	return 0
}

// Means says by what the watch knows what it tells, and what it cannot know here: one line each.
func (w *Watcher) Means() []string { return w.means }

// Lost counts what did not arrive: messages of changes, which are made up for by reading again, and sightings of who it was.
func (w *Watcher) Lost() (messages, sightings uint64) {
	if w.w != nil {
		sightings = w.w.lost()
	}
	return w.l.Lost(), sightings
}

// Next waits for the next change. It gives nil when ctx is done, and an error if watching ended by itself.
func (w *Watcher) Next(ctx context.Context) (*Record, error) {
	for {
		if r, ok := w.ready(); ok {
			if r != nil {
				return r, nil
			}
			continue
		}
		if w.ended && len(w.pending) == 0 {
			return nil, w.l.Err()
		}
		if !w.wait(ctx) {
			return nil, nil
		}
	}
}

// ready takes the first change that waits, if it need not wait any longer. A nil record is one that was left out.
func (w *Watcher) ready() (*Record, bool) {
	if len(w.pending) == 0 {
		return nil, false
	}
	p := w.pending[0]
	if time.Now().Before(p.until) {
		return nil, false
	}
	w.pending = w.pending[1:]
	if p.s == nil {
		p.s = w.blind(root(p.c))
	}
	if !w.interesting(p.c) {
		return nil, true
	}
	return w.record(p), true
}

// near is how far apart a change and the sighting of its author may be where nothing else joins them.
const near = 100 * time.Millisecond

// blind finds the sighting of a message that was taken out of the queue before the program looked: of those without a message
// the nearest in time.
func (w *Watcher) blind(c *changes.Change) *sighting {
	best, least := -1, uint64(near)
	for i, s := range w.sights {
		if s.kind != recMessage || len(s.msg) > 0 || s.socket != c.Socket || len(c.Msg) == 0 {
			continue
		}
		if d := max(s.boot, c.Boot) - min(s.boot, c.Boot); d < least {
			best, least = i, d
		}
	}
	if best < 0 {
		return nil
	}
	s := w.sights[best]
	w.sights = slices.Delete(w.sights, best, best+1)
	w.causes[c] = s
	return s
}

// interesting applies --dev.
func (w *Watcher) interesting(c *changes.Change) bool {
	if w.o.Dev == "" || c.Dev == w.o.Dev {
		return true
	}
	for _, o := range []*changes.Object{c.Old, c.New} {
		if o != nil && o.Link != nil && o.Link.Name == w.o.Dev || o != nil && o.Rule != nil && (o.Rule.IIF == w.o.Dev || o.Rule.OIF == w.o.Dev) {
			return true
		}
	}
	return false
}

// wait waits for something to happen; false says that ctx is done.
func (w *Watcher) wait(ctx context.Context) bool {
	var timer <-chan time.Time
	if len(w.pending) > 0 {
		t := time.NewTimer(time.Until(w.pending[0].until))
		defer t.Stop()
		timer = t.C
	}
	var seen <-chan sighting
	if w.w != nil {
		seen = w.w.seen
	}
	told := w.l.Changes()
	if w.ended {
		told = nil
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer:
	case s := <-seen:
		w.sighted(&s)
	case c, ok := <-told:
		if !ok {
			w.ended = true
			break
		}
		w.changed(c)
	}
	return true
}

// sighted takes a sighting in: it belongs to the first change that waits for it, or is kept.
func (w *Watcher) sighted(s *sighting) {
	if s.kind == recNamespace {
		if w.l.Knows(s.netns) {
			return // unshare(2) of something else
		}
		w.l.Rescan()
	}
	if i := slices.IndexFunc(w.pending, func(p *pending) bool { return p.s == nil && w.belongs(s, p.c) }); i >= 0 {
		for _, p := range w.pending[i:] { // with what followed from it
			if p.s == nil && root(p.c) == root(w.pending[i].c) {
				w.join(p, s)
			}
		}
		return
	}
	w.forget(time.Now().Add(-memory))
	w.sights = append(w.sights, s)
}

// remembered bounds how many sightings are kept.
const remembered = 4096

// forget drops sightings that are old, or of which there are too many; they are in the order in which they came.
func (w *Watcher) forget(before time.Time) {
	n := max(0, len(w.sights)-remembered+1)
	for n < len(w.sights) && w.sights[n].at.Before(before) {
		n++
	}
	w.sights = slices.Delete(w.sights, 0, n)
	for c, s := range w.causes {
		if s.at.Before(before) {
			delete(w.causes, c)
		}
	}
}

// changed takes a change in, with the sighting that belongs to it if it came first.
func (w *Watcher) changed(c *changes.Change) {
	p := &pending{c: c, until: time.Now()}
	w.pending = append(w.pending, p)
	if w.w == nil {
		return
	}
	if s := w.causes[root(c)]; s != nil {
		w.join(p, s)
		return
	}
	for i, s := range w.sights {
		if w.belongs(s, c) {
			w.join(p, s)
			w.sights = slices.Delete(w.sights, i, i+1)
			return
		}
	}
	if len(c.Msg) > 0 || c.Cause != nil && c.Silent == changes.NSGone || c.Kind == changes.Sysctl && root(c).Silent == changes.Told {
		p.until = time.Now().Add(patience)
	}
}

// more says if a change may need a second sighting, of who began what a thread of the kernel ended.
func (w *Watcher) more(c *changes.Change) bool {
	return c.Kind == changes.Addr && c.Act == changes.Added && c.New.Addr.Prefix.Addr().Is6() || c.Silent == changes.NSGone || c.Kind == changes.NetNS
}

func (w *Watcher) join(p *pending, s *sighting) {
	p.s, p.until = s, time.Now()
	if w.more(p.c) {
		p.until = time.Now().Add(patience / 4)
	}
	if len(w.causes) >= remembered {
		clear(w.causes)
	}
	w.causes[root(p.c)] = s
}

// root is what brought a change about, or the change itself.
func root(c *changes.Change) *changes.Change {
	if c.Cause != nil {
		return c.Cause
	}
	return c
}

// belongs says if a sighting is of the task that made a change.
func (w *Watcher) belongs(s *sighting, c *changes.Change) bool {
	c = root(c)
	switch {
	case c.Kind == changes.Sysctl:
		if s.kind != recSysctl {
			return false
		}
		name, _, now := s.setting()
		if name != c.New.Sysctl.Name || strings.HasPrefix(name, "net.") && s.netns != c.NS.Inode {
			return false
		}
		return oneLine(now) == oneLine(c.New.Sysctl.Value) || c.PID == s.pid
	case c.Kind == changes.NetNS && c.Act == changes.Added:
		return s.kind == recNamespace && s.netns == c.NS.Inode
	}
	if s.kind != recMessage || s.socket != c.Socket {
		return false
	}
	n := min(len(s.msg), len(c.Msg))
	return n > 0 && bytes.Equal(s.msg[:n], c.Msg[:n])
}

// record makes the record of a change.
func (w *Watcher) record(p *pending) *Record {
	c := p.c
	r := &Record{Type: "change", Time: c.Time, Kind: c.Kind, Act: c.Act, Dev: c.Dev}
	if c.NS.Inode != 0 {
		r.NS, r.plain = &c.NS, !w.o.AllNamespaces && len(w.o.Namespaces) == 0
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
		if s.kind == recLastRef && !s.at.After(c.Time.Add(patience)) && (s.netns == c.NS.Inode || s.netns == 0 && (found == nil || found.netns == 0)) {
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

// Close ends the watch.
func (w *Watcher) Close() error {
	if w.w != nil {
		w.w.close()
	}
	return w.l.Close()
}
