package rank

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/hist"
	"github.com/fathom-trace/fathom/tracefs"
)

// Trigger is a trigger of an event as the kernel takes it.
type Trigger struct {
	Event  tracefs.Event
	Format *traceevent.Format
	Text   string
	hist   *hist.Trigger
	sw     *hist.Switch
}

// Parse reads and checks a trigger: "hist:keys=…", "enable_hist:…" or "disable_hist:…". Errors of histograms are *[hist.Error].
func (t *Trigger) Parse() error {
	if s, ok := hist.ParseSwitch(t.Text); ok {
		t.sw = &s
		_, err := Edge{t.Event, t.Format, s.If}.condition()
		return err
	}
	h, err := hist.ParseTrigger(t.Text)
	if err != nil {
		return err
	}
	t.hist = &h
	return h.Check(t.Text, t.Format)
}

// Queries gives what triggers ask for, where they only count, sum, and open and close windows; nil if they do more than
// that, which only the kernel's own histograms can: [NewRaw]. Triggers must have been parsed.
func Queries(ts []Trigger) ([]*Query, error) {
	var out []*Query
	for _, t := range ts {
		if t.hist == nil {
			continue
		}
		if !t.hist.Plain() {
			return nil, nil
		}
		q := &Query{Event: t.Event, Format: t.Format, If: t.hist.If, Sum: t.hist.Values, Size: t.hist.Size, Open: !t.hist.Pause}
		for _, k := range t.hist.Keys {
			key, err := ParseKey(k, t.Format)
			if err != nil {
				return nil, err
			}
			q.By = append(q.By, key)
		}
		q.Order = order(t.hist, q.By)
		if err := q.CheckOrder(q.Order...); err != nil {
			return nil, err
		}
		for _, s := range ts {
			switch {
			case s.sw == nil || s.sw.System != t.Event.System || s.sw.Event != t.Event.Name:
			case s.sw.On:
				q.From = append(q.From, Edge{s.Event, s.Format, s.sw.If})
			default:
				q.Until = append(q.Until, Edge{s.Event, s.Format, s.sw.If})
			}
		}
		if t.hist.Pause && len(q.From) == 0 {
			return nil, fmt.Errorf("%s: it is paused, and no enable_hist:%s:%s lets it go on", t.Text, t.Event.System, t.Event.Name)
		}
		out = append(out, q)
	}
	if len(out) == 0 {
		return nil, errors.New("there is no hist:keys=… among the triggers")
	}
	return out, nil
}

// order is what a trigger's sort= says, in the names of a query: the kernel names a key without its modifier, and sorts the
// smallest first.
func order(t *hist.Trigger, keys []Key) (out []Order) {
	for _, by := range t.Sort {
		by, down := strings.CutSuffix(by, ".descending")
		o := Order{By: strings.TrimSuffix(by, ".ascending"), Ascending: !down}
		if o.By == "hitcount" {
			o.By = ""
		}
		for i, k := range t.Keys {
			if field, _, _ := strings.Cut(k, "."); field == o.By {
				o.By = keys[i].String()
			}
		}
		out = append(out, o)
	}
	return out
}

// Raw are triggers in a tracing instance, as they were given.
type Raw struct {
	ts []Trigger
	in *tracefs.Instance
}

// NewRaw makes an instance for triggers; they are not set yet. It belongs to the caller, who must Close it.
func NewRaw(ts []Trigger, fs tracefs.FS, leases lease.Dir) (*Raw, error) {
	in, err := fs.NewInstance(leases)
	if err != nil {
		return nil, err
	}
	return &Raw{ts, in}, nil
}

// Begin sets the triggers, histograms first: what turns them on must find them.
func (r *Raw) Begin() error {
	for _, switches := range []bool{false, true} {
		for _, t := range r.ts {
			if (t.sw != nil) != switches {
				continue
			}
			if err := writeTrigger(r.in, t.Event, t.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

// Text gives the kernel's own tables.
func (r *Raw) Text() (string, error) {
	var b strings.Builder
	done := map[tracefs.Event]bool{}
	for _, t := range r.ts {
		if t.hist == nil || done[t.Event] {
			continue
		}
		done[t.Event] = true
		text, err := r.in.Read("events/" + t.Event.System + "/" + t.Event.Name + "/hist")
		if err != nil {
			return "", err
		}
		b.Write(text)
	}
	return b.String(), nil
}

// Close takes the triggers out, the last first, since they may read variables of those before, and removes the instance.
func (r *Raw) Close() error {
	for _, switches := range []bool{true, false} {
		for _, t := range slices.Backward(r.ts) {
			if (t.sw != nil) == switches {
				_ = r.in.Write("events/"+t.Event.System+"/"+t.Event.Name+"/trigger", "!"+t.Text) // it may never have been set
			}
		}
	}
	return r.in.Close()
}
