package probe

import (
	"fmt"
	"sort"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// Listed is a probe, or a C type with its members.
type Listed struct {
	Type    string   `json:"type"` // "probe"; of a C type "struct", "union" or "enum"
	Name    string   `json:"name"`
	About   string   `json:"about,omitempty"`   // of a probe that is not the kernel's: what it goes over
	Args    []string `json:"args,omitempty"`    // of a probe, as the kernel declares them: "pid_t prev_pid"
	Members []string `json:"members,omitempty"` // of a type, as C declares them; of an enum "NAME = 1"
}

// Text is how bpftrace lists it, with the end of the line.
func (l Listed) Text() string {
	var b strings.Builder
	switch {
	case l.About != "":
		fmt.Fprintf(&b, "%-16s %s\n", l.Name, l.About)
	case l.Type == "probe":
		fmt.Fprintln(&b, l.Name)
		for _, a := range l.Args {
			fmt.Fprintf(&b, "    %s\n", a)
		}
	default:
		where, end := "vmlinux: ", ";"
		if l.Type == "enum" {
			where, end = "", ","
		}
		fmt.Fprintf(&b, "%s%s {\n", where, l.Name)
		for _, m := range l.Members {
			fmt.Fprintf(&b, "        %s%s\n", m, end)
		}
		fmt.Fprintln(&b, "};")
	}
	return b.String()
}

// List gives the probes that match a pattern ("" for all) one after the other; verbose adds their arguments. "struct NAME" and its kin give types. It
// gives what it can read and returns the first reason why a kind of probe is missing only if nothing was listed. An error of out ends it.
func (w *World) List(pattern string, verbose bool, out func(Listed) error) error {
	if pattern == "" {
		pattern = "*:*"
	}
	if strings.HasPrefix(pattern, "struct ") || strings.HasPrefix(pattern, "union ") || strings.HasPrefix(pattern, "enum ") {
		for _, name := range strings.Split(pattern, ",") {
			l, err := w.listType(strings.TrimSpace(name))
			if err == nil {
				err = out(l)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if parts := strings.Split(pattern, ","); len(parts) > 1 {
		for _, part := range parts {
			if err := w.List(strings.TrimSpace(part), verbose, out); err != nil {
				return err
			}
		}
		return nil
	}
	events := listEvents(pattern)
	n := len(events)
	for _, name := range events {
		if err := out(Listed{Type: "probe", Name: name}); err != nil {
			return err
		}
	}
	var first error
	for _, p := range listPoints(pattern, w.pid) {
		ts, err := w.listed(p)
		if err != nil && first == nil {
			first = err
		}
		for _, t := range ts {
			n++
			if err := out(w.target(t, verbose)); err != nil {
				return err
			}
		}
	}
	if n == 0 {
		return first
	}
	return nil
}

// target lists a probe.
func (w *World) target(t check.Target, verbose bool) Listed {
	l := Listed{Type: "probe", Name: t.Name}
	if verbose {
		l.Args = w.listArgs(t)
	}
	return l
}

// listEvents lists what a provider with fixed events has: "software:cpu:", "interval:hz:".
func listEvents(pattern string) (names []string) {
	provider, rest, ok := strings.Cut(pattern, ":")
	if !ok {
		provider, rest = "*", "*"
	}
	rest, _, _ = strings.Cut(rest, ":")
	for _, p := range check.Providers() {
		for _, e := range check.EventNames(p.Name) {
			if name := p.Name + ":" + e + ":"; providerMatches(p, provider) && check.Match(rest, e) && (ok || strings.Contains(name, pattern)) {
				names = append(names, name)
			}
		}
	}
	return names
}

// ListPoints gives the probes that the attach points of a program stand for, as List does.
func (w *World) ListPoints(points []*syntax.AttachPoint, verbose bool, out func(Listed) error) error {
	for _, ap := range points {
		ps, msg, _ := check.ParseAttachPoint(ap, nil, true)
		if msg != "" {
			return fmt.Errorf("%s: %s", ap.Raw, msg)
		}
		for _, p := range ps {
			if p.Provider.Special {
				event := p.Func
				if event == "" {
					event = p.Unit
				}
				if err := out(Listed{Type: "probe", Name: strings.TrimSuffix(p.Provider.Name+":"+event+":", "::")}); err != nil {
					return err
				}
				continue
			}
			ts, err := w.listed(p)
			if err != nil {
				return err
			}
			for _, t := range ts {
				if t.Again {
					continue
				}
				if err := out(w.target(t, verbose)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// listPoints reads a search: an attach point, or with a wildcard for its provider one for each that can be searched.
func listPoints(pattern string, pid int) []check.AttachPoint {
	provider, rest, ok := strings.Cut(pattern, ":")
	if !ok {
		provider, rest = "*", "*"+pattern+"*"
		if wild(pattern) {
			rest = pattern
		}
	}
	var out []check.AttachPoint
	for _, p := range check.Providers() {
		if !providerMatches(p, provider) {
			continue
		}
		if wild(provider) && (p.Name == "kretprobe" || p.Name == "fexit") {
			continue // the same functions as their entry probes
		}
		text := rest
		switch {
		case p.Name == "tracepoint" && !strings.Contains(rest, ":"):
			text = "*:" + rest
		case (p.Name == "uprobe" || p.Name == "uretprobe") && wild(provider):
			continue // a search of all binaries is none
		case p.Name == "usdt" && wild(provider) && !strings.Contains(rest, "/") && pid == 0:
			continue
		case p.Name == "usdt" && !strings.Contains(rest, ":"):
			text = rest + ":*"
		case (p.Name == "uprobe" || p.Name == "uretprobe") && !strings.Contains(rest, ":"):
			text = rest + ":*"
		}
		if p.Name == "iter" && wild(text) {
			out = append(out, check.AttachPoint{Provider: p, Func: text, Raw: "iter:" + text})
			continue
		}
		points, msg, _ := check.ParseAttachPoint(&syntax.AttachPoint{Raw: p.Name + ":" + text}, nil, true)
		if msg == "" {
			out = append(out, points...)
		}
	}
	return out
}

func providerMatches(p *check.Provider, name string) bool {
	if check.Match(name, p.Name) {
		return true
	}
	for _, a := range p.Aliases {
		if a == name {
			return true
		}
	}
	return false
}

// listed expands a point for listing; kinds that need no system list their events.
func (w *World) listed(p check.AttachPoint) ([]check.Target, error) {
	if p.Provider.Special {
		return nil, nil
	}
	switch p.Provider.Name {
	case "kprobe", "kretprobe": // their names are known also where they cannot be attached
		return w.kprobes(p)
	}
	return w.Expand(p)
}

// listArgs gives the arguments of a target, as the kernel declares them.
func (w *World) listArgs(t check.Target) (args []string) {
	switch t.Provider {
	case "tracepoint":
		fs, err := w.tracefs()
		if err != nil {
			return nil
		}
		b, err := fs.Format(t.Module, t.Func)
		if err != nil {
			return nil
		}
		return declarations(string(b))
	case "fentry", "fexit", "kprobe", "kretprobe":
		if f, err := w.Types().Func(t.Module, t.Func); err == nil {
			args = params(f.Params)
			if _, void := f.Result.(ctype.Void); t.Provider == "fexit" && !void {
				args = append(args, declare(f.Result, "retval"))
			}
		}
	case "uprobe", "uretprobe":
		if f, err := w.userFunc(t); err == nil {
			for _, p := range f.Params {
				args = append(args, userType(p.Type)+" "+p.Name)
			}
		}
	case "rawtracepoint":
		if f, err := w.tracepointProto(t.Func); err == nil {
			args = params(f.Params[min(1, len(f.Params)):])
		}
	}
	return args
}

// userType writes a type as programs' own types are listed: const char*.
func userType(t ctype.Type) string {
	p, ok := t.(*ctype.Ptr)
	if !ok {
		return ctype.Name(t)
	}
	if _, fn := p.Elem.(*ctype.Func); fn {
		return ctype.Name(t)
	}
	s := userType(p.Elem) + "*"
	if p.Const() {
		s = "const " + s
	}
	return s
}

func params(ps []ctype.Param) (out []string) {
	for _, p := range ps {
		out = append(out, declare(p.Type, p.Name))
	}
	return out
}

func declare(t ctype.Type, name string) string { return ctype.Name(t) + " " + name }

// declarations gives the fields of a format file as written, common ones left out.
func declarations(format string) []string {
	var out []string
	for line := range strings.Lines(format) {
		f, ok := strings.CutPrefix(strings.TrimSpace(line), "field:")
		if !ok {
			continue
		}
		f, _, _ = strings.Cut(f, ";")
		if i := strings.LastIndexAny(f, " *"); !strings.HasPrefix(f[i+1:], "common_") {
			out = append(out, f)
		}
	}
	return out
}

// listType gives the members of a C type.
func (w *World) listType(name string) (l Listed, err error) {
	word, n, _ := strings.Cut(name, " ")
	kind := map[string]ctype.Kind{"struct": ctype.KindStruct, "union": ctype.KindUnion, "enum": ctype.KindEnum}[word]
	t, err := w.Types().ByName(kind, n)
	if err != nil {
		return l, err
	}
	l = Listed{Type: word, Name: ctype.Name(t)}
	switch t := t.(type) {
	case *ctype.Struct:
		for _, m := range t.Members() {
			bits := ""
			if m.BitSize > 0 {
				bits = fmt.Sprintf(" : %d", m.BitSize)
			}
			l.Members = append(l.Members, member(m.Type, m.Name)+bits)
		}
	case *ctype.Enum:
		vs := append([]ctype.EnumValue(nil), t.Values...)
		sort.SliceStable(vs, func(i, j int) bool { return vs[i].Value < vs[j].Value })
		for _, v := range vs {
			l.Members = append(l.Members, fmt.Sprintf("%s = %d", v.Name, v.Value))
		}
	}
	return l, nil
}

// member declares a member as C does: pointers lean on the name, bounds follow it.
func member(t ctype.Type, name string) string {
	s := ctype.Name(t)
	base, dims := s, ""
	if i := strings.IndexByte(s, '['); i > 0 {
		base, dims = s[:i], s[i:]
	}
	if strings.HasSuffix(base, "*") {
		return base + name + dims
	}
	return strings.TrimSuffix(base+" "+name+dims, " ")
}
