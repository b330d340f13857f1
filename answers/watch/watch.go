package watch

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

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
	came  time.Time
	waits bool // a sighting belongs to it
	until time.Time
}

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
			if errors.Is(err, probe.ErrRefused) { // the same for all that was tried
				err = probe.ErrRefused
			}
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
	p, now := w.pending[0], time.Now()
	if now.Before(p.until) {
		return nil, false
	}
	if p.s == nil && p.waits && now.Sub(p.came) < behind && !w.w.readSince(p.came) {
		p.until = now.Add(near / 20) // its sighting may be there, and nobody had the time to read it
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

// Close ends the watch.
func (w *Watcher) Close() error {
	if w.w != nil {
		w.w.close()
	}
	return w.l.Close()
}
