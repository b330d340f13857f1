package watch

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/netstate/changes"
)

// patience is how long a change waits for the sighting that belongs to it: both come from the same moment, on two ways, but who made it may
// be put off its CPU in between.
const patience = time.Second

// behind is how long a change waits in all where what programs saw was not read in that time.
const behind = 20 * time.Second

// memory is how long a sighting without a change is kept: a sysctl may be read again a second later, and duplicate address
// detection takes some seconds where it is set to.
const memory = 10 * time.Second

// queued is how long that of a message is kept: its change may wait in the socket's queue while others are told, or nobody reads.
const queued = 5 * time.Minute

// near is how far apart a change and the sighting of its author may be where nothing else joins them.
const near = 400 * time.Millisecond

// blind finds the sighting of a message that was taken out of the queue before the program looked: of those without a message,
// or with that of another that was queued meanwhile, the nearest in time.
func (w *Watcher) blind(c *changes.Change) *sighting {
	best, least := -1, uint64(patience)
	for i, s := range w.sights {
		if s.kind != recMessage || s.socket != c.Socket || len(c.Msg) == 0 {
			continue
		}
		if d := apart(s.boot, c.Boot); d < least && (len(s.msg) == 0 || d < uint64(near) && w.twin(s) != nil) {
			best, least = i, d
		}
	}
	if best < 0 {
		return nil
	}
	s := w.sights[best]
	w.sights = slices.Delete(w.sights, best, best+1)
	if o := w.twin(s); o != nil && (w.causes[o].boot < s.boot) == (c.Boot <= o.Boot) { // who was first was at the first message
		s = w.swap(o, s)
	}
	w.causes[c] = s
	return s
}

// apart is how much time is between two moments.
func apart(a, b uint64) uint64 { return max(a, b) - min(a, b) }

// twin finds the change that was joined with another sighting that has the same message, at the same time: one of the two looked
// when its own was gone. nil if s has none.
func (w *Watcher) twin(s *sighting) *changes.Change {
	for c, o := range w.causes {
		if len(s.msg) > 0 && o != s && o.kind == recMessage && o.socket == s.socket && apart(o.boot, s.boot) < uint64(near) && bytes.Equal(o.msg, s.msg) {
			return c
		}
	}
	return nil
}

// swap joins a change with another sighting, also where it was not told yet, and gives the one it had.
func (w *Watcher) swap(c *changes.Change, s *sighting) *sighting {
	had := w.causes[c]
	w.causes[c] = s
	for _, p := range w.pending {
		if p.s == had {
			p.s = s
		}
	}
	return had
}

// sighted takes a sighting in: it belongs to the first change that waits for it, or is kept.
func (w *Watcher) sighted(s *sighting) {
	if s.kind == recNamespace {
		if s.known = w.l.Knows(s.netns); !s.known { // else unshare(2) of something else, or it was found by itself before this was read
			w.l.Rescan()
		}
	}
	if i := slices.IndexFunc(w.pending, func(p *pending) bool { return p.s == nil && w.belongs(s, p.c) }); i >= 0 {
		for _, p := range w.pending[i:] { // with what followed from it
			if p.s == nil && root(p.c) == root(w.pending[i].c) {
				w.join(p, s)
			}
		}
		return
	}
	w.forget(time.Now())
	w.sights = append(w.sights, s)
}

// remembered bounds how many sightings are kept.
const remembered = 4096

// forget drops sightings that are old, or of which there are too many; they are in the order in which they came.
func (w *Watcher) forget(now time.Time) {
	w.sights = slices.DeleteFunc(w.sights, func(s *sighting) bool { return s.old(now) })
	w.sights = slices.Delete(w.sights, 0, max(0, len(w.sights)-remembered+1))
	for c, s := range w.causes {
		if s.old(now) {
			delete(w.causes, c)
		}
	}
}

// old says if no change can be expected any more that belongs to s.
func (s *sighting) old(now time.Time) bool {
	if s.kind == recMessage {
		return now.Sub(s.at) > queued
	}
	return now.Sub(s.at) > memory
}

// changed takes a change in, with the sighting that belongs to it if it came first.
func (w *Watcher) changed(c *changes.Change) {
	now := time.Now()
	p := &pending{c: c, came: now, until: now}
	w.pending = append(w.pending, p)
	if w.w == nil {
		return
	}
	if s := w.causes[root(c)]; s != nil {
		w.join(p, s)
		return
	}
	for i, s := range w.sights {
		if w.belongs(s, c) && (!s.known || now.Sub(s.at) < near) {
			w.join(p, s)
			w.sights = slices.Delete(w.sights, i, i+1)
			return
		}
	}
	if len(c.Msg) > 0 || c.Cause != nil && c.Silent == changes.NSGone || c.Kind == changes.Sysctl && root(c).Silent == changes.Told || c.Kind == changes.NetNS && c.Act == changes.Added {
		p.waits, p.until = true, now.Add(patience)
	}
}

// more says if a change may need a second sighting, of who began what a thread of the kernel ended.
func (w *Watcher) more(c *changes.Change) bool {
	return c.Kind == changes.Addr && c.Act == changes.Added && c.New.Addr.Prefix.Addr().Is6() || c.Silent == changes.NSGone || c.Kind == changes.NetNS
}

// join gives a change its sighting.
func (w *Watcher) join(p *pending, s *sighting) {
	p.s, p.until = s, time.Now()
	if w.more(p.c) {
		p.until = time.Now().Add(near / 4)
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
