package recorded

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/record"
	"github.com/fathom-trace/fathom/traceevent"
)

// World is a recording as the checker sees it.
type World struct {
	t  *record.Trace
	by map[string]*traceevent.Format // system:event
}

var _ check.Place = (*World)(nil)

// NewWorld returns the World of a recording. Events without a system, as LTTng's are, have the system "lttng".
func NewWorld(t *record.Trace) *World {
	w := &World{t: t, by: map[string]*traceevent.Format{}}
	for _, f := range t.Formats {
		w.by[system(f)+":"+f.Name] = f
	}
	return w
}

func system(f *traceevent.Format) string {
	if f.System == "" {
		return "lttng"
	}
	return f.System
}

// Events lists what programs can run over, as programs write it.
func (w *World) Events() []string {
	var out []string
	for name := range w.by {
		out = append(out, "tracepoint:"+name)
	}
	slices.Sort(out)
	return out
}

// noTypes is a recording's knowledge of C types: an event tells its fields, and nothing of what they point to.
type noTypes struct{}

func (noTypes) ByName(ctype.Kind, string) (ctype.Type, error) { return nil, ctype.ErrNotFound }

func (noTypes) EnumValue(string) (*ctype.Enum, int64, bool) { return nil, 0, false }

func (noTypes) Func(string, string) (*ctype.Func, error) { return nil, ctype.ErrNotFound }

// Types implements check.World.
func (w *World) Types() ctype.Lookup { return noTypes{} }

// Expand implements check.World.
func (w *World) Expand(p check.AttachPoint) ([]check.Target, error) {
	if why := w.NoProbe(p); why != "" {
		return nil, errors.New(why)
	}
	var out []check.Target
	for name := range w.by {
		sys, event, _ := strings.Cut(name, ":")
		if match(p.Module, sys) && match(p.Func, event) {
			out = append(out, check.Target{Provider: "tracepoint", Module: sys, Func: event, Name: "tracepoint:" + name})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("tracepoint:%s:%s was not recorded: %s", p.Module, p.Func, w.few())
	}
	sorting.By(out, func(a, b check.Target) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func match(pattern, s string) bool {
	ok, err := path.Match(pattern, s)
	return err == nil && ok
}

// named says if all events tell the name of their task themselves.
func (w *World) named() bool {
	for _, f := range w.t.Formats {
		if f.CommField() == nil {
			return false
		}
	}
	return true
}

// few names some of the recorded events.
func (w *World) few() string {
	const most = 5
	all := w.Events()
	s := "there are " + strings.Join(all[:min(most, len(all))], ", ")
	if n := len(all) - most; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

// Args implements check.World.
func (w *World) Args(t check.Target) (*types.Type, *types.Type, error) {
	f := w.by[t.Module+":"+t.Func]
	if f == nil {
		return nil, nil, fmt.Errorf("%s was not recorded", t.Name)
	}
	return probe.TracepointArgs(f, t.Module, w.Types()), nil, nil
}

// UserTypes implements check.World.
func (w *World) UserTypes(string) ctype.Lookup { return nil }

// Suggest implements check.World.
func (w *World) Suggest(p check.AttachPoint) (out []string) {
	for _, name := range w.Events() {
		if p.Func != "" && strings.Contains(name, p.Func) && len(out) < 3 {
			out = append(out, name)
		}
	}
	return out
}

// Kallsyms implements check.World.
func (w *World) Kallsyms(string) (uint64, bool) { return 0, false }

// Kfunc implements check.World.
func (w *World) Kfunc(check.Target, string) bool { return false }

// Usyms implements check.World.
func (w *World) Usyms(string, string) (addr, size uint64, ok bool) { return 0, 0, false }
