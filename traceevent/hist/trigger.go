package hist

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/traceevent/filter"
)

// Trigger says what to count by which keys. Parts that a trigger does not have are empty.
type Trigger struct {
	Keys    []string // fields with their modifiers, "common_stacktrace"
	Values  []string // fields to be summed, beside hitcount
	Sort    []string // keys or values, with .descending or .ascending
	Size    int      // entries; 0 is the kernel's default, 2048
	Name    string   // shared by triggers of several events
	Clock   string
	Vars    []string // "ts0=common_timestamp.usecs"
	Actions []string // "onmatch(sched.sched_waking).trace(lat,$wakeup_lat)"
	Pause   bool     // does not count until it is continued
	Cont    bool     // goes on
	Clear   bool     // forgets what it counted
	NoHits  bool     // leaves hitcount out
	If      string   // filter, in the language of package filter
}

// Limits of the kernel (TRACING_MAP_KEYS_MAX, TRACING_MAP_VALS_MAX less hitcount, TRACING_MAP_SORT_KEYS_MAX, and
// TRACING_MAP_BITS_MIN and _MAX of kernel/trace/tracing_map.h).
const (
	MaxKeys   = 3
	MaxValues = 2
	MaxSort   = 2
	MinSize   = 1 << 7
	MaxSize   = 1 << 17
)

// String gives the trigger as it is written into a trigger file.
func (t Trigger) String() string {
	var b strings.Builder
	b.WriteString("hist:keys=" + strings.Join(t.Keys, ","))
	list := func(name string, vs []string) {
		if len(vs) > 0 {
			b.WriteString(":" + name + "=" + strings.Join(vs, ","))
		}
	}
	list("vals", t.Values)
	list("sort", t.Sort)
	if t.Size != 0 {
		fmt.Fprintf(&b, ":size=%d", t.Size)
	}
	for _, v := range t.Vars {
		b.WriteString(":" + v)
	}
	for _, p := range []struct {
		is   bool
		text string
	}{
		{t.Clock != "", "clock=" + t.Clock}, {t.Name != "", "name=" + t.Name}, {t.Pause, "pause"}, {t.Cont, "continue"}, {t.Clear, "clear"},
		{t.NoHits, "nohitcount"},
	} {
		if p.is {
			b.WriteString(":" + p.text)
		}
	}
	for _, a := range t.Actions {
		b.WriteString(":" + a)
	}
	if t.If != "" {
		b.WriteString(" if " + t.If)
	}
	return b.String()
}

// Error is what is wrong with a trigger, and where: Off bytes from its start.
type Error = filter.Error

// parser goes over the parts of a trigger.
type parser struct {
	text string
	t    Trigger
}

// ParseTrigger reads a trigger as the kernel takes it, "hist:keys=…", and says what is wrong where the kernel only says EINVAL.
// Errors are *[Error].
func ParseTrigger(text string) (Trigger, error) {
	p := &parser{text: text}
	spec, cond, _ := strings.Cut(text, " if ")
	p.t.If = strings.TrimSpace(cond)
	rest, ok := strings.CutPrefix(spec, "hist:")
	if !ok {
		return p.t, p.fail(0, "a histogram begins with hist:")
	}
	at := len("hist:")
	for part := range strings.SplitSeq(rest, ":") {
		if err := p.part(at, strings.TrimSpace(part)); err != nil {
			return p.t, err
		}
		at += len(part) + 1
	}
	return p.t, p.whole()
}

func (p *parser) fail(off int, format string, args ...any) error {
	return &Error{Text: p.text, Off: off, Msg: fmt.Sprintf(format, args...)}
}

// part reads one part, which begins at byte at.
func (p *parser) part(at int, part string) error {
	name, val, assigned := strings.Cut(part, "=")
	list := func(max int, to *[]string, what string) error {
		if *to != nil {
			return p.fail(at, "%s are given twice", what)
		}
		*to = strings.Split(val, ",")
		if len(*to) > max {
			return p.fail(at, "%d %s: the kernel takes %d", len(*to), what, max)
		}
		for _, v := range *to {
			if v == "" {
				return p.fail(at, "one of the %s is empty", what)
			}
		}
		return nil
	}
	switch {
	case !assigned:
		return p.word(at, part)
	case name == "keys" || name == "key":
		return list(MaxKeys, &p.t.Keys, "keys")
	case name == "values" || name == "vals" || name == "val":
		if err := list(MaxValues+1, &p.t.Values, "values"); err != nil {
			return err
		}
		p.t.Values = slices.DeleteFunc(p.t.Values, func(v string) bool { return v == "hitcount" })
		if len(p.t.Values) > MaxValues {
			return p.fail(at, "%d values beside hitcount: the kernel takes %d", len(p.t.Values), MaxValues)
		}
	case name == "sort":
		return list(MaxSort, &p.t.Sort, "keys to sort by")
	case name == "size":
		n, err := strconv.Atoi(val)
		if err != nil || n < 1 || n > MaxSize {
			return p.fail(at, "size %s: the kernel takes %d to %d", val, MinSize, MaxSize)
		}
		p.t.Size = n
	case name == "name":
		p.t.Name = val
	case name == "clock":
		p.t.Clock = val
	case strings.HasPrefix(name, "on") && strings.Contains(name, "("):
		p.t.Actions = append(p.t.Actions, part)
	default:
		if val == "" || strings.IndexFunc(name, notName) >= 0 {
			return p.fail(at, "%q is no part of a histogram", part)
		}
		p.t.Vars = append(p.t.Vars, part)
	}
	return nil
}

func (p *parser) word(at int, part string) error {
	switch part {
	case "pause":
		p.t.Pause = true
	case "continue", "cont":
		p.t.Cont = true
	case "clear":
		p.t.Clear = true
	case "nohitcount", "NOHC":
		p.t.NoHits = true
	default:
		for _, h := range []string{"onmatch(", "onmax(", "onchange("} {
			if strings.HasPrefix(part, h) && strings.HasSuffix(part, ")") {
				p.t.Actions = append(p.t.Actions, part)
				return nil
			}
		}
		return p.fail(at, "%q is no part of a histogram: keys= vals= sort= size= name= clock= pause continue clear nohitcount, a variable, onmatch() onmax() onchange()", part)
	}
	return nil
}

// whole checks what parts must have to do with each other.
func (p *parser) whole() error {
	t := p.t
	at := func(part string) int { return max(0, strings.Index(p.text, part)) }
	if len(t.Keys) == 0 {
		return p.fail(0, "keys= is missing")
	}
	for i, k := range t.Keys {
		if slices.Contains(t.Keys[:i], k) {
			return p.fail(at("key"), "key %s is given twice", k)
		}
	}
	n := 0
	for _, b := range []bool{t.Pause, t.Cont, t.Clear} {
		if b {
			n++
		}
	}
	if n > 1 {
		return p.fail(0, "only one of pause, continue and clear goes")
	}
	for _, s := range t.Sort {
		name, dir, _ := strings.Cut(s, ".")
		if dir != "" && dir != "descending" && dir != "ascending" {
			return p.fail(at("sort="), "sort by %s: .descending or .ascending", s)
		}
		if name == "hitcount" || slices.Contains(bases(t.Keys), name) || slices.Contains(bases(t.Values), name) {
			continue
		}
		return p.fail(at("sort="), "sort by %s: it is neither a key nor a value", name)
	}
	if t.If != "" {
		if _, err := filter.Parse(t.If); err != nil {
			return p.inFilter(err)
		}
	}
	return nil
}

// inFilter moves an error of the filter to its place in the trigger.
func (p *parser) inFilter(err error) error {
	if e, ok := err.(*Error); ok {
		return p.fail(max(0, strings.LastIndex(p.text, p.t.If))+e.Off, "%s", e.Msg)
	}
	return err
}

// bases are fields without their modifiers.
func bases(fields []string) (out []string) {
	for _, f := range fields {
		name, _, _ := strings.Cut(f, ".")
		out = append(out, name)
	}
	return out
}

// Check holds a trigger that was read from text against its event: its keys, values and filter. Errors are *[Error].
func (t Trigger) Check(text string, f *traceevent.Format) error {
	p := &parser{text: text, t: t}
	for i, name := range append(bases(t.Keys), bases(t.Values)...) {
		if strings.HasPrefix(name, "$") || strings.HasPrefix(name, "common_") || slices.Contains([]string{"stacktrace", "cpu", "hitcount", "comm"}, name) {
			continue
		}
		if slices.ContainsFunc(t.Vars, func(v string) bool { return strings.HasPrefix(v, name+"=") }) {
			continue
		}
		fl := f.Field(name)
		if fl == nil {
			return p.fail(max(0, strings.Index(text, name)), "%s has no field %s; it has %s", f.Name, name, strings.Join(filter.Names(f), " "))
		}
		if k, _, ok := filter.KindOf(f, name); i >= len(t.Keys) && (!ok || k != filter.Number) {
			return p.fail(max(0, strings.Index(text, name)), "%s is no number: it cannot be summed", name)
		}
	}
	if t.If == "" {
		return nil
	}
	x, err := filter.Parse(t.If)
	if err == nil {
		err = filter.Check(t.If, x, f)
	}
	if err != nil {
		return p.inFilter(err)
	}
	return nil
}

// Plain says if a trigger only counts and sums: it has no variables, actions, or states that depend on what was before.
func (t Trigger) Plain() bool {
	return len(t.Vars)+len(t.Actions) == 0 && t.Name == "" && t.Clock == "" && !t.Cont && !t.Clear && !t.NoHits
}

// Switch is a trigger that turns a histogram of another event on or off.
type Switch struct {
	On            bool
	System, Event string
	If            string
}

// ParseSwitch reads "enable_hist:SYSTEM:EVENT if …" or "disable_hist:…"; ok is false of anything else.
func ParseSwitch(text string) (s Switch, ok bool) {
	spec, cond, _ := strings.Cut(text, " if ")
	parts := strings.Split(strings.TrimSpace(spec), ":")
	if len(parts) != 3 || parts[0] != "enable_hist" && parts[0] != "disable_hist" {
		return s, false
	}
	return Switch{parts[0] == "enable_hist", parts[1], parts[2], strings.TrimSpace(cond)}, true
}
