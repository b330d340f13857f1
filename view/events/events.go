// Package events shows events of recordings: as text in the form of the kernel's own trace file, as JSON lines, as CSV, as
// statistics, and for programs that draw: Perfetto and Chrome's trace viewer.
package events

import (
	"fmt"

	"github.com/fathom-trace/fathom/traceevent"
)

// Source is what is known of a recording beside its events.
type Source struct {
	Env    *traceevent.Env
	Comm   func(tid int, time uint64) (comm string, ok bool) // may be nil
	ToReal int64                                             // ns from the clock to the time since 1970
	// User names the stack of a process, the innermost frame first, as it was at a time; nil if nobody can.
	User func(tgid int, time uint64, addrs []uint64) []Frame
}

// Frame is a place in a program.
type Frame struct {
	Name string // of the function; "" if only the file is known
	File string // "" if that is not known either
	At   uint64 // address as linked in File, without a Name
}

// Writer shows events one after the other.
type Writer interface {
	Event(e *traceevent.Event) error
	// Close writes what stands at the end. It does not close what is written to.
	Close() error
}

// info is what is remembered of an event's format.
type info struct {
	name    string // sched_switch
	full    string // sched:sched_switch
	printer *traceevent.Printer
	pid     *traceevent.Field
	flags   *traceevent.Field
	preempt *traceevent.Field
}

// cache keeps the info of formats.
type cache struct {
	by   map[*traceevent.Format]*info
	last *traceevent.Format
	info *info
}

func (c *cache) of(f *traceevent.Format) *info {
	if f == c.last {
		return c.info
	}
	i := c.by[f]
	if i == nil {
		i = &info{name: f.Name, full: f.Name, printer: traceevent.NewPrinter(f), pid: f.PIDField(), flags: f.Field("common_flags"), preempt: f.Field("common_preempt_count")}
		if f.System != "" {
			i.full = f.System + ":" + f.Name
		}
		if c.by == nil {
			c.by = map[*traceevent.Format]*info{}
		}
		c.by[f] = i
	}
	c.last, c.info = f, i
	return i
}

// names names tasks.
type names struct {
	src *Source
}

// of names the task of an event. What is not known is "<...>", as in the kernel's own output.
func (n *names) of(e *traceevent.Event, tid int) string {
	if n.src.Comm != nil {
		if c, ok := n.src.Comm(tid, e.Time); ok {
			return c
		}
	}
	if c := e.Format.CommField(); c != nil {
		return string(c.String(e.Rec))
	}
	if n.src.Comm == nil && tid == 0 {
		return "<idle>"
	}
	return "<...>"
}

// NothingError says that a recording has nothing of what was asked for.
type NothingError struct{ Msg string }

func (e *NothingError) Error() string { return e.Msg }

func nothing(format string, args ...any) error { return &NothingError{fmt.Sprintf(format, args...)} }
