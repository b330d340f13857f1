package core

import (
	"cmp"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// Diff writes what a second dump has otherwise than the first: the time between, memory, slab caches, tasks, modules, network
// devices, interrupts. It returns if there was anything.
func Diff(w io.Writer, a, b *Session) (differ bool, err error) {
	d := &comparison{w: w}
	was, errA := walk.ReadSystem(a.t)
	is, errB := walk.ReadSystem(b.t)
	if was.Release != is.Release {
		d.say("kernel", "%s, was %s", is.Release, was.Release)
	}
	if !was.Time.Equal(is.Time) {
		d.say("time", "%s later, up %s, was %s", is.Time.Sub(was.Time), is.Uptime, was.Uptime)
	}
	d.memory(a, b)
	d.slabs(a, b)
	d.tasks(a, b)
	d.modules(a, b)
	d.devices(a, b)
	return d.any, cmp.Or(errA, errB)
}

// comparison writes lines, each with what it is about.
type comparison struct {
	w   io.Writer
	any bool
}

func (d *comparison) say(what, format string, args ...any) {
	d.any = true
	fmt.Fprintf(d.w, "%-8s %s\n", what, fmt.Sprintf(format, args...))
}

func (d *comparison) memory(a, b *Session) {
	was, _ := walk.ReadMemory(a.t)
	is, _ := walk.ReadMemory(b.t)
	for _, f := range []struct {
		name    string
		was, is uint64
	}{
		{"free", was.Free, is.Free}, {"anonymous", was.ActiveAnon + was.InactiveAnon, is.ActiveAnon + is.InactiveAnon},
		{"files", was.ActiveFile + was.InactiveFile, is.ActiveFile + is.InactiveFile}, {"shared", was.Shmem, is.Shmem},
		{"slab", was.SlabReclaimable + was.SlabUnreclaimable, is.SlabReclaimable + is.SlabUnreclaimable},
		{"dirty", was.Dirty, is.Dirty}, {"writeback", was.Writeback, is.Writeback}, {"swap free", was.SwapFree, is.SwapFree},
	} {
		if f.was != f.is {
			d.say("memory", "%s: %s, was %s", f.name, pages(f.is), pages(f.was))
		}
	}
}

// slabs writes the caches that grew or shrank, the largest change in bytes first.
func (d *comparison) slabs(a, b *Session) {
	was, _ := walk.Slabs(a.t)
	is, _ := walk.Slabs(b.t)
	old := map[string]walk.Slab{}
	for _, s := range was {
		old[s.Name] = s
	}
	type change struct {
		name  string
		bytes int
		text  string
	}
	var all []change
	for _, s := range is {
		o := old[s.Name]
		if n := s.Objects - o.Objects; n != 0 {
			all = append(all, change{s.Name, n * s.Size, fmt.Sprintf("%s: room for %d, was %d (%+d KiB)", s.Name, s.Objects, o.Objects, n*s.Size/1024)})
		}
	}
	sorting.Stable(all, func(x, y change) int { return cmp.Compare(max(y.bytes, -y.bytes), max(x.bytes, -x.bytes)) })
	for _, c := range all {
		d.say("slab", "%s", c.text)
	}
}

func (d *comparison) tasks(a, b *Session) {
	was, _ := a.allTasks()
	is, _ := b.allTasks()
	type key struct {
		pid  int
		comm string
	}
	old, seen := map[key]walk.Task{}, map[key]bool{}
	for _, t := range was {
		old[key{t.PID, t.Comm}] = t
	}
	for _, t := range is {
		k := key{t.PID, t.Comm}
		if t.PID == 0 || seen[k] {
			continue
		}
		seen[k] = true
		o, ok := old[k]
		switch {
		case !ok:
			d.say("task", "%d %s: new, state %s", t.PID, t.Comm, t.State)
		case o.State != t.State:
			d.say("task", "%d %s: state %s, was %s", t.PID, t.Comm, t.State, o.State)
		case o.RSS != t.RSS:
			d.say("task", "%d %s: %s resident, was %s", t.PID, t.Comm, pages(t.RSS), pages(o.RSS))
		}
	}
	for _, t := range was {
		if t.PID != 0 && !seen[key{t.PID, t.Comm}] {
			d.say("task", "%d %s: gone", t.PID, t.Comm)
		}
	}
}

func (d *comparison) modules(a, b *Session) {
	old, is := map[string]bool{}, map[string]bool{}
	for _, m := range a.t.Modules() {
		old[m.Name] = true
	}
	for _, m := range b.t.Modules() {
		if is[m.Name] = true; !old[m.Name] {
			d.say("module", "%s: new", m.Name)
		}
	}
	for _, m := range a.t.Modules() {
		if !is[m.Name] {
			d.say("module", "%s: gone", m.Name)
		}
	}
}

// devices writes what network devices and interrupts have otherwise.
func (d *comparison) devices(a, b *Session) {
	was, _ := walk.NetDevices(a.t)
	is, _ := walk.NetDevices(b.t)
	old := map[string]string{}
	show := func(n walk.NetDevice) string {
		return fmt.Sprintf("up %v, mtu %d, %v, queues stopped %v", n.Up(), n.MTU, n.IPv4, n.Stopped)
	}
	for _, n := range was {
		old[n.Name] = show(n)
	}
	for _, n := range is {
		if o, ok := old[n.Name]; !ok {
			d.say("device", "%s: new, %s", n.Name, show(n))
		} else if o != show(n) {
			d.say("device", "%s: %s; was %s", n.Name, show(n), o)
		}
		delete(old, n.Name)
	}
	for _, n := range was {
		if _, gone := old[n.Name]; gone {
			d.say("device", "%s: gone", n.Name)
		}
	}
}
