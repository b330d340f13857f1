package rank

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/traceevent/filter"
	"github.com/fathom-trace/fathom/traceevent/hist"
	"github.com/fathom-trace/fathom/tracefs"
)

// histFrames is how deep the kernel's stacks are (HIST_STACKTRACE_DEPTH).
const histFrames = 16

// histCounter counts by hist triggers in an instance of ours.
type histCounter struct {
	q    *Query
	in   *tracefs.Instance
	trig hist.Trigger
}

// NewHist makes a tracing instance for a query's triggers. A kernel without hist triggers, and what they cannot do, is
// [feature.ErrUnsupported].
func NewHist(q *Query, fs tracefs.FS, leases lease.Dir) (Counter, error) {
	if why := histRefuses(q); why != "" {
		return nil, feature.Unsupported("hist triggers", why, nil)
	}
	in, err := fs.NewInstance(leases)
	if err != nil {
		return nil, err
	}
	c := &histCounter{q: q, in: in}
	if _, err := in.Read(c.file("hist")); err != nil {
		return nil, errors.Join(feature.Unsupported("hist triggers", "read "+c.file("hist"), nil), in.Close())
	}
	return c, nil
}

// histRefuses says what of a query is not to be had from hist triggers; "" if they do all.
func histRefuses(q *Query) string {
	switch {
	case len(q.By) > hist.MaxKeys:
		return fmt.Sprintf("they have %d keys at most", hist.MaxKeys)
	case len(q.Sum) > hist.MaxValues:
		return fmt.Sprintf("they sum %d fields at most", hist.MaxValues)
	case slices.ContainsFunc(q.By, func(k Key) bool { return k.Field == UStack }):
		return "they have no stacks of processes"
	case slices.ContainsFunc(q.By, func(k Key) bool { return k.Field == Comm && q.Format.Field(Comm) == nil }):
		return "they have no key comm: common_pid.execname is one"
	case q.twice():
		return "an event opens or closes a window only once"
	case q.Frames > histFrames:
		return fmt.Sprintf("their stacks have %d frames", histFrames)
	}
	return ""
}

// twice says if an event is at two edges of the window: the kernel takes one trigger of that kind (EEXIST).
func (q *Query) twice() bool {
	seen := map[tracefs.Event]bool{}
	for _, e := range q.edges()[1:] {
		if seen[e.Event] {
			return true
		}
		seen[e.Event] = true
	}
	return false
}

func (c *histCounter) file(name string) string {
	return "events/" + c.q.Event.System + "/" + c.q.Event.Name + "/" + name
}

// names of keys that changed with time: each is tried (6.3, 5.13).
var histNames = map[string][]string{KStack: {"common_stacktrace", "stacktrace"}, CPU: {"common_cpu", "cpu"}}

// Begin writes the triggers: the window's edges last, when what they turn on is there.
func (c *histCounter) Begin() error {
	var conds []string // with texts in quotes, which the kernel wants
	for _, e := range c.q.edges() {
		x, err := e.condition()
		if err != nil {
			return err
		}
		text := ""
		if x != nil {
			text = x.String()
		}
		conds = append(conds, text)
	}
	c.trig = hist.Trigger{Values: c.q.Sum, Size: c.q.size(), If: conds[0], Pause: !c.q.opens()}
	var err error
	for old := range 2 {
		c.trig.Keys = c.keys(old)
		if err = c.write(c.q.Event, c.trig.String()); err == nil || slices.Equal(c.keys(0), c.keys(1)) {
			break
		}
	}
	if err != nil {
		return err
	}
	at := c.q.Event.System + ":" + c.q.Event.Name
	for i, e := range slices.Backward(c.q.edges()) { // what closes the window before what opens it
		what := "enable_hist:"
		switch {
		case i == 0:
			continue
		case i > len(c.q.From):
			what = "disable_hist:"
		}
		if err := c.write(e.Event, conditional(what+at, conds[i])); err != nil {
			return err
		}
	}
	return nil
}

func conditional(trigger, cond string) string {
	if cond == "" {
		return trigger
	}
	return trigger + " if " + cond
}

func (c *histCounter) keys(old int) (out []string) {
	for _, k := range c.q.By {
		s := k.String()
		if n := histNames[k.Field]; n != nil && c.q.Format.Field(k.Field) == nil {
			s = n[old] + strings.TrimPrefix(s, k.Field)
		}
		out = append(out, s)
	}
	return out
}

func (c *histCounter) write(e tracefs.Event, trigger string) error {
	return writeTrigger(c.in, e, trigger)
}

// writeTrigger sets a trigger; the kernel's own words of what is wrong with it are in error_log.
func writeTrigger(in *tracefs.Instance, e tracefs.Event, trigger string) error {
	err := in.Write("events/"+e.System+"/"+e.Name+"/trigger", trigger)
	if err == nil {
		return nil
	}
	if log, lerr := in.Read("error_log"); lerr == nil && len(strings.TrimSpace(string(log))) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(log)))
	}
	return err
}

// End pauses the histogram.
func (c *histCounter) End() error {
	t := c.trig
	t.Pause = true
	return c.write(c.q.Event, t.String())
}

func (c *histCounter) Close() error { return c.in.Close() }

func (c *histCounter) Table() (*Table, error) {
	b, err := c.in.Read(c.file("hist"))
	if err != nil {
		return nil, err
	}
	hs, err := hist.Parse(string(b))
	if err != nil {
		return nil, err
	}
	t := newTable(c.q, "hist")
	same := map[string]int{}
	for _, h := range hs {
		t.Dropped += h.Dropped
		for _, e := range h.Entries {
			r, err := c.row(e)
			if err != nil {
				return nil, err
			}
			for i, k := range r.Keys {
				if n := cmp.Or(c.q.Frames, histFrames); len(k.Stack) >= n {
					r.Keys[i].Stack, t.Cut = k.Stack[:n], n
				}
			}
			t.add(r, same)
		}
	}
	return t, nil
}

func (c *histCounter) row(e hist.Entry) (r Row, err error) {
	if len(e.Keys) != len(c.q.By) || len(e.Values) != 1+len(c.q.Sum) {
		return r, fmt.Errorf("histogram of %s: an entry has %d keys and %d values", c.q.Event.Name, len(e.Keys), len(e.Values))
	}
	for i, k := range c.q.By {
		r.Keys = append(r.Keys, c.cell(k, e.Keys[i]))
	}
	if r.Hits, err = strconv.ParseUint(e.Values[0].Text, 10, 64); err != nil {
		return r, err
	}
	for _, v := range e.Values[1:] {
		n, err := strconv.ParseUint(v.Text, 10, 64)
		if err != nil {
			return r, err
		}
		r.Sums = append(r.Sums, int64(n))
	}
	return r, nil
}

// cell writes what the kernel printed as the other engine does.
func (c *histCounter) cell(k Key, i hist.Item) Cell {
	if k.Field == KStack {
		out := []string{}
		for _, l := range i.Stack {
			out = append(out, frame(l))
		}
		return Cell{Stack: orNone(out)}
	}
	text := i.Text
	switch k.Form {
	case Hex:
		text = "0x" + text
	case Sym, SymOffset: // "[ffffffff81000000] symbol+0x1/0x2"
		if _, rest, ok := strings.Cut(text, "]"); ok {
			text = strings.TrimSuffix(frame(strings.TrimSpace(rest)), "+0x0")
		}
	case Syscall: // "sys_read                      [  0]"
		if name, rest, ok := strings.Cut(text, "["); ok {
			if text = strings.TrimPrefix(strings.TrimSpace(name), "sys_"); text == "unknown_syscall" {
				text = strings.TrimSpace(strings.TrimSuffix(rest, "]"))
			}
		}
	case Execname:
		if name, rest, ok := cutLast(text, "["); ok {
			text = strings.TrimSpace(name) + " [" + strings.TrimSpace(strings.TrimSuffix(rest, "]")) + "]"
		}
	case Plain:
		// The kernel prints all numbers as unsigned ones.
		if kind, f, ok := filter.KindOf(c.q.Format, k.Field); ok && kind == filter.Number && f.Signed {
			if n, err := strconv.ParseUint(text, 10, 64); err == nil {
				text = strconv.FormatInt(int64(n), 10)
			}
		}
	}
	return Cell{Text: text}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// frame leaves the size of the function out of "vfs_read+0x3c/0xa0 [module]".
func frame(l string) string {
	place, module, _ := strings.Cut(l, " ")
	place, _, _ = strings.Cut(place, "/")
	if module != "" {
		place += " " + module
	}
	return place
}
