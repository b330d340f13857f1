package record

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// Spec asks for events: a pattern, and perhaps a filter in the kernel's language.
type Spec struct {
	Pattern string `json:"pattern"`
	Filter  string `json:"filter,omitempty"`
}

// ParseSpec reads "sched:*", "sched", "sched_switch", "syscall:openat", "kprobe:vfs_read count=$arg3", "kretprobe:vfs_read",
// "uprobe:/bin/bash:readline", each perhaps with " if FILTER".
func ParseSpec(s string) (Spec, error) {
	pattern, filter, _ := strings.Cut(s, " if ")
	spec := Spec{strings.TrimSpace(pattern), strings.TrimSpace(filter)}
	if spec.Pattern == "" {
		return spec, errors.New("an event without a name")
	}
	if _, err := path.Match(spec.Pattern, ""); err != nil && spec.kind() == "" {
		return spec, fmt.Errorf("pattern %s: %w", spec.Pattern, err)
	}
	return spec, nil
}

// Matches says if the pattern means an event, as [tracefs.Event.Matches] says.
func (s Spec) Matches(system, event string) bool {
	return tracefs.Event{System: system, Name: event}.Matches(s.Pattern)
}

// CheckSpec says what is wrong with a spec on this kernel: a pattern that means no event is a *[tracefs.NoEventError].
func CheckSpec(fs tracefs.FS, s Spec) error {
	switch s.kind() {
	case syscallKind:
		_, err := syscallSpecs([]Spec{s})
		return err
	case "":
		_, err := fs.Select(s.Pattern)
		return err
	}
	return nil // the kernel tells when the event is made
}

// selectEvents finds the events that were asked for, each once, with its filter: the last that is given for it. A pattern that means none is
// a *[tracefs.NoEventError].
func selectEvents(fs tracefs.FS, specs []Spec) ([]Event, error) {
	want := map[tracefs.Event]Spec{}
	var order []tracefs.Event
	for _, s := range specs {
		es, err := fs.Select(s.Pattern)
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			if _, twice := want[e]; !twice {
				order = append(order, e)
			}
			want[e] = s
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

// elements is the address of an element of an array of structures that begins where a variable says, as in the events of pages.
var elements = regexp.MustCompile(`\(\(\(struct (\w+) \*\)(\w+_base)\) \+ (\(REC->\w+\))\)`)

// resolve replaces the names of constants in the print fmt of a format file by their numbers. The kernel does so for those that
// its authors listed (TRACE_DEFINE_ENUM) and leaves others; where the recording is read nobody knows them any more.
func resolve(text string, constant func(string) (int64, bool)) string {
	head, expr, ok := strings.Cut(text, "print fmt:")
	if !ok || constant == nil {
		return text
	}
	expr = elements.ReplaceAllStringFunc(expr, func(s string) string {
		m := elements.FindStringSubmatch(s)
		base, ok1 := constant(m[2])
		size, ok2 := constant("sizeof(struct " + m[1] + ")")
		if !ok1 || !ok2 {
			return s
		}
		return fmt.Sprintf("((%d) + %s * %d)", base, m[3], size)
	})
	var out strings.Builder
	for i := 0; i < len(expr); {
		n := i + 1
		switch c := expr[i]; {
		case c == '"':
			for n < len(expr) && expr[n] != '"' {
				if expr[n] == '\\' {
					n++
				}
				n++
			}
			n = min(n+1, len(expr))
		case isWord(c):
			for n < len(expr) && isWord(expr[n]) {
				n++
			}
			if v, ok := constantAt(expr, i, n, constant); ok {
				out.WriteString(v)
				i = n
				continue
			}
		}
		out.WriteString(expr[i:n])
		i = n
	}
	return head + "print fmt:" + out.String()
}

func isWord(c byte) bool { return c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' }

// constantAt gives the number of the name at expr[i:n], if it is one: neither a field, nor a function, nor a number.
func constantAt(expr string, i, n int, constant func(string) (int64, bool)) (string, bool) {
	name := expr[i:n]
	if name == "REC" || name[0] >= '0' && name[0] <= '9' || name != strings.ToUpper(name) || strings.HasSuffix(expr[:i], "->") || strings.HasPrefix(expr[n:], "(") {
		return "", false
	}
	v, ok := constant(name)
	if !ok {
		return "", false
	}
	if v < 0 {
		return fmt.Sprintf("(%d)", v), true
	}
	return strconv.FormatInt(v, 10), true
}
