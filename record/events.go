package record

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// Spec asks for events: a pattern, and perhaps a filter in the kernel's language.
type Spec struct{ Pattern, Filter string }

// ParseSpec reads "sched:*", "sched", "sched_switch", each perhaps with " if FILTER".
func ParseSpec(s string) (Spec, error) {
	pattern, filter, _ := strings.Cut(s, " if ")
	spec := Spec{strings.TrimSpace(pattern), strings.TrimSpace(filter)}
	if spec.Pattern == "" {
		return spec, errors.New("an event without a name")
	}
	if _, err := path.Match(spec.Pattern, ""); err != nil {
		return spec, fmt.Errorf("pattern %s: %w", spec.Pattern, err)
	}
	return spec, nil
}

// Matches says if a pattern means an event: "sched:*" and "sched/*" name both parts, "sched" a system or an event.
func (s Spec) Matches(system, event string) bool {
	sys, name, both := strings.Cut(strings.Replace(s.Pattern, "/", ":", 1), ":")
	if both {
		return glob(sys, system) && glob(name, event)
	}
	return glob(sys, system) || glob(sys, event)
}

func glob(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return ok && err == nil
}

// NoEventError says that a pattern means no event of this kernel.
type NoEventError struct {
	Pattern string
	Near    []string // events with similar names
}

func (e *NoEventError) Error() string { return "no event matches " + e.Pattern }

// selectEvents finds the events that were asked for, each once, with its filter: the last that is given for it.
func selectEvents(fs tracefs.FS, specs []Spec) ([]Event, error) {
	all, err := fs.Events()
	if err != nil {
		return nil, err
	}
	want := map[tracefs.Event]Spec{}
	var order []tracefs.Event
	for _, s := range specs {
		found := false
		for _, e := range all {
			if !s.Matches(e.System, e.Name) {
				continue
			}
			found = true
			if _, twice := want[e]; !twice {
				order = append(order, e)
			}
			want[e] = s
		}
		if !found {
			return nil, &NoEventError{s.Pattern, near(all, s.Pattern)}
		}
	}
	var out []Event
	for _, e := range order {
		ev, err := describe(fs, e)
		if err != nil {
			return nil, err
		}
		ev.Filter = want[e].Filter
		out = append(out, ev)
	}
	return out, nil
}

func describe(fs tracefs.FS, e tracefs.Event) (Event, error) {
	text, err := fs.Format(e.System, e.Name)
	if err != nil {
		return Event{}, fmt.Errorf("read format of %s:%s: %w", e.System, e.Name, err)
	}
	if _, err := traceevent.Parse(text); err != nil {
		return Event{}, fmt.Errorf("format of %s:%s: %w", e.System, e.Name, err)
	}
	return Event{System: e.System, Name: e.Name, Format: string(text)}, nil
}

// near lists a few events that have a part of the pattern in their name.
func near(all []tracefs.Event, pattern string) (out []string) {
	_, name, both := strings.Cut(pattern, ":")
	if !both {
		name = pattern
	}
	name = strings.Trim(name, "*?")
	for _, e := range all {
		if len(name) >= 3 && (strings.Contains(e.Name, name) || strings.Contains(name, e.Name)) && len(out) < 3 {
			out = append(out, e.System+":"+e.Name)
		}
	}
	return out
}
