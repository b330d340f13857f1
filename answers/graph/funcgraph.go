package graph

import (
	"fmt"

	"github.com/fathom-trace/fathom/traceevent"
)

// Formats are the layouts of the records that make events. Numbers and places of fields are those of one kernel and one
// boot, so they come from its tracefs, never from here.
type Formats struct {
	byID map[uint64]decoder
	typ  *traceevent.Field // common_type
}

// decoder makes an event out of a record of one type; false for a record that makes none.
type decoder func(rec []byte, e *Event) bool

// ParseFormats takes the format files of events, by name: funcgraph_entry and funcgraph_exit must be there; sched_switch
// and task_rename add times off the CPU and names.
func ParseFormats(files map[string][]byte) (*Formats, error) {
	f := &Formats{byID: map[uint64]decoder{}}
	for name, mk := range decoders {
		text, ok := files[name]
		if !ok {
			if name == "funcgraph_entry" || name == "funcgraph_exit" {
				return nil, fmt.Errorf("format of %s: not there", name)
			}
			continue
		}
		format, err := traceevent.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("format of %s: %w", name, err)
		}
		if f.typ == nil {
			f.typ = format.Field("common_type")
		}
		if f.byID[uint64(format.ID)], err = mk(format); err != nil {
			return nil, fmt.Errorf("format of %s: %w", name, err)
		}
	}
	return f, nil
}

// Bits of common_flags (enum trace_flag_type of include/linux/trace_events.h).
const (
	flagHardirq = 0x08
	flagSoftirq = 0x10
	flagNMI     = 0x40
)

// context reads in what a record was made. The bits may be set together: the highest rank counts.
func context(flags uint64) Context {
	switch {
	case flags&flagNMI != 0:
		return NMI
	case flags&flagHardirq != 0:
		return Hardirq
	case flags&flagSoftirq != 0:
		return Softirq
	}
	return Task
}

var decoders = map[string]func(*traceevent.Format) (decoder, error){
	"funcgraph_entry": func(f *traceevent.Format) (decoder, error) { return function(f, Enter) },
	"funcgraph_exit":  func(f *traceevent.Format) (decoder, error) { return function(f, Exit) },
	"sched_switch":    taskSwitch,
	"task_rename":     rename,
}

// fields finds fields by name; those that are not there are an error.
func fields(f *traceevent.Format, names ...string) ([]*traceevent.Field, error) {
	var out []*traceevent.Field
	for _, n := range names {
		fd := f.Field(n)
		if fd == nil {
			return nil, fmt.Errorf("no field %s", n)
		}
		out = append(out, fd)
	}
	return out, nil
}

func function(f *traceevent.Format, kind Kind) (decoder, error) {
	fd, err := fields(f, "common_flags", "common_pid", "func")
	if err != nil {
		return nil, err
	}
	calltime, rettime := f.Field("calltime"), f.Field("rettime") // some kernels have them not
	return func(rec []byte, e *Event) bool {
		if len(rec) < fd[2].Offset+fd[2].Size {
			return false
		}
		e.Kind, e.Ctx, e.Task, e.Func = kind, context(fd[0].Uint(rec)), int(fd[1].Int(rec)), fd[2].Uint(rec)
		if calltime != nil && rettime != nil {
			if from, to := calltime.Uint(rec), rettime.Uint(rec); to > from {
				e.Dur = to - from
			}
		}
		return true
	}, nil
}

// taskSwitch makes two events of a record; Decode asks for both.
func taskSwitch(f *traceevent.Format) (decoder, error) {
	fd, err := fields(f, "prev_pid", "prev_comm", "next_pid", "next_comm", "prev_state")
	if err != nil {
		return nil, err
	}
	const dead = 0x10 | 0x20 // EXIT_DEAD, EXIT_ZOMBIE (include/linux/sched.h)
	return func(rec []byte, e *Event) bool {
		if e.Kind == In {
			e.Task, e.Comm = int(fd[2].Int(rec)), fd[3].Text(rec)
		} else {
			e.Kind, e.Task, e.Comm = Out, int(fd[0].Int(rec)), fd[1].Text(rec)
			if fd[4].Uint(rec)&dead != 0 {
				e.Kind = Gone
			}
		}
		return true
	}, nil
}

func rename(f *traceevent.Format) (decoder, error) {
	fd, err := fields(f, "pid", "newcomm")
	if err != nil {
		return nil, err
	}
	return func(rec []byte, e *Event) bool {
		e.Kind, e.Task, e.Comm = Rename, int(fd[0].Int(rec)), fd[1].Text(rec)
		return true
	}, nil
}

// Decode appends the events of a record to out: none for records of other types.
func (f *Formats) Decode(out []Event, cpu int, time uint64, rec []byte) []Event {
	if f.typ == nil || len(rec) < f.typ.Offset+f.typ.Size {
		return out
	}
	d := f.byID[f.typ.Uint(rec)]
	if d == nil {
		return out
	}
	e := Event{CPU: cpu, Time: time}
	if !d(rec, &e) {
		return out
	}
	out = append(out, e)
	if e.Kind == Out || e.Kind == Gone {
		in := Event{Kind: In, CPU: cpu, Time: time}
		d(rec, &in)
		out = append(out, in)
	}
	return out
}
