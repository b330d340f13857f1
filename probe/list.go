package probe

import (
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
)

// List writes the probes that match a pattern ("" for all), one a line; verbose adds their arguments. It writes what it
// can read and returns the first reason why a kind of probe is missing only if nothing was listed.
func (w *World) List(out io.Writer, pattern string, verbose bool) error {
	if pattern == "" {
		pattern = "*:*"
	}
	if strings.HasPrefix(pattern, "struct ") || strings.HasPrefix(pattern, "union ") || strings.HasPrefix(pattern, "enum ") {
		for _, name := range strings.Split(pattern, ",") {
			if err := w.listType(out, strings.TrimSpace(name)); err != nil {
				return err
			}
		}
		return nil
	}
	if parts := strings.Split(pattern, ","); len(parts) > 1 {
		for _, part := range parts {
			if err := w.List(out, strings.TrimSpace(part), verbose); err != nil {
				return err
			}
		}
		return nil
	}
	n := listEvents(out, pattern)
	var first error
	for _, p := range listPoints(pattern, w.pid) {
		ts, err := w.listed(p)
		if err != nil && first == nil {
			first = err
		}
		for _, t := range ts {
			n++
			if _, err := fmt.Fprintln(out, t.Name); err != nil {
				return err
			}
			if verbose {
				w.listArgs(out, t)
			}
		}
	}
	if n == 0 {
		return first
	}
	return nil
}

// listEvents lists what a provider with fixed events has: "software:cpu:", "interval:hz:".
func listEvents(out io.Writer, pattern string) int {
	provider, rest, ok := strings.Cut(pattern, ":")
	if !ok {
		provider, rest = "*", "*"
	}
	rest, _, _ = strings.Cut(rest, ":")
	n := 0
	for _, p := range check.Providers() {
		for _, e := range check.EventNames(p.Name) {
			if name := p.Name + ":" + e + ":"; providerMatches(p, provider) && check.Match(rest, e) && (ok || strings.Contains(name, pattern)) {
				fmt.Fprintln(out, name)
				n++
			}
		}
	}
	return n
}

// ListPoints lists the probes that the attach points of a program stand for.
func (w *World) ListPoints(out io.Writer, points []*syntax.AttachPoint, verbose bool) error {
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
				fmt.Fprintln(out, strings.TrimSuffix(p.Provider.Name+":"+event+":", "::"))
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
				fmt.Fprintln(out, t.Name)
				if verbose {
					w.listArgs(out, t)
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

// listArgs writes the arguments of a target, four spaces deep, as the kernel declares them.
func (w *World) listArgs(out io.Writer, t check.Target) {
	switch t.Provider {
	case "tracepoint":
		fs, err := w.tracefs()
		if err != nil {
			return
		}
		b, err := fs.Format(t.Module, t.Func)
		if err != nil {
			return
		}
		for _, f := range declarations(string(b)) {
			fmt.Fprintf(out, "    %s\n", f)
		}
	case "fentry", "fexit", "kprobe", "kretprobe":
		if f, err := w.Types().Func(t.Module, t.Func); err == nil {
			listParams(out, f.Params)
			if _, void := f.Result.(ctype.Void); t.Provider == "fexit" && !void {
				fmt.Fprintf(out, "    %s\n", declare(f.Result, "retval"))
			}
		}
	case "uprobe", "uretprobe":
		if f, err := w.userFunc(t); err == nil {
			for _, p := range f.Params {
				fmt.Fprintf(out, "    %s %s\n", userType(p.Type), p.Name)
			}
		}
	case "rawtracepoint":
		if f, err := w.tracepointProto(t.Func); err == nil {
			listParams(out, f.Params[min(1, len(f.Params)):])
		}
	}
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

func listParams(out io.Writer, ps []ctype.Param) {
	for _, p := range ps {
		fmt.Fprintf(out, "    %s\n", declare(p.Type, p.Name))
	}
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

// listType writes the members of a C type.
func (w *World) listType(out io.Writer, name string) error {
	word, n, _ := strings.Cut(name, " ")
	kind := map[string]ctype.Kind{"struct": ctype.KindStruct, "union": ctype.KindUnion, "enum": ctype.KindEnum}[word]
	t, err := w.Types().ByName(kind, n)
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case *ctype.Struct:
		fmt.Fprintf(out, "vmlinux: %s {\n", ctype.Name(t))
		for _, m := range t.Members() {
			bits := ""
			if m.BitSize > 0 {
				bits = fmt.Sprintf(" : %d", m.BitSize)
			}
			fmt.Fprintf(out, "        %s%s;\n", member(m.Type, m.Name), bits)
		}
		fmt.Fprintln(out, "};")
	case *ctype.Enum:
		fmt.Fprintf(out, "%s {\n", ctype.Name(t))
		vs := append([]ctype.EnumValue(nil), t.Values...)
		sort.SliceStable(vs, func(i, j int) bool { return vs[i].Value < vs[j].Value })
		for _, v := range vs {
			fmt.Fprintf(out, "        %s = %d,\n", v.Name, v.Value)
		}
		fmt.Fprintln(out, "};")
	}
	return nil
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
