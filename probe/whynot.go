package probe

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/elf"
	"github.com/fathom-trace/fathom/debuginfo/inlined"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/lang/check"
)

// Cause is why a function cannot be traced.
type Cause string

// Causes.
const (
	NoFunction  Cause = "no such function"
	NotCode     Cause = "not a function"
	NotLoaded   Cause = "module not loaded"
	Variant     Cause = "variant"     // only under a name that the compiler made
	Inlined     Cause = "inlined"     // its code is part of its callers
	Part        Cause = "cold part"   // a piece of a function, which nothing calls
	Blacklisted Cause = "blacklisted" // neither ftrace nor kprobes may touch it
	Notrace     Cause = "notrace"     // compiled without the place that ftrace hooks; a kprobe may do
)

// NotTraceable says in words why a kernel function cannot be traced, or not by ftrace, and what to trace instead.
type NotTraceable struct {
	Func    string
	Module  string
	Cause   Cause
	Text    string   // the reason
	Instead []string // functions that can be traced: variants, callers, names spelt alike
}

// Error gives the reason with what to do instead.
func (e *NotTraceable) Error() string {
	s := e.Text
	if len(e.Instead) > 0 {
		s += "; try " + strings.Join(e.Instead, ", ")
	}
	return s
}

// Probeable says if a kprobe can be put on it all the same.
func (e *NotTraceable) Probeable() bool { return e.Cause == Notrace }

// WhyNot says why ftrace cannot trace a function of the running kernel; nil if it can, or if nothing is known against it.
// module is "" or "vmlinux" for the kernel's own. It reads kallsyms, what ftrace and kprobes say, and, for functions that are
// nowhere, the modules on disk and the kernel's debug information, if that is installed.
func (w *World) WhyNot(module, name string) *NotTraceable {
	ks, err := w.live.Kallsyms()
	if err != nil {
		return nil
	}
	f := whyNot{world: w, ks: ks, e: NotTraceable{Func: name, Module: module}}
	return f.why()
}

// Why implements check.Explainer. Names that are only misspelt are left to Suggest.
func (w *World) Why(p check.AttachPoint) string {
	switch p.Provider.Name {
	case "kprobe", "kretprobe", "fentry", "fexit":
	default:
		return ""
	}
	if p.HasAddr || p.Func == "" || wild(p.Func) || wild(p.Module) || w.given != nil {
		return ""
	}
	if strings.HasPrefix(p.Provider.Name, "f") && w.NoTypes() != nil {
		return strings.Replace(strings.Replace(p.Provider.Name, "fexit", "kretprobe", 1), "fentry", "kprobe", 1) + ":" + p.Func + " needs no types"
	}
	why := w.WhyNot(p.Module, p.Func)
	if why == nil || why.Cause == NoFunction || why.Probeable() {
		return ""
	}
	return why.Error()
}

type whyNot struct {
	world *World
	ks    *kallsyms.Table
	e     NotTraceable
}

func (f *whyNot) is(c Cause, format string, args ...any) *NotTraceable {
	f.e.Cause, f.e.Text = c, fmt.Sprintf(format, args...)
	return &f.e
}

func (f *whyNot) why() *NotTraceable {
	name, module := f.e.Func, f.e.Module
	if module != "" && module != "vmlinux" && !f.world.live.HasModule(module) {
		if f.world.onDisk(module) {
			return f.is(NotLoaded, "module %s is not loaded (modprobe %s loads it)", module, module)
		}
		return f.is(NotLoaded, "there is no module %s, neither loaded nor in %s", module, f.world.moduleDir())
	}
	data := false
	for s := range f.ks.Named(name) {
		if module != "" && s.Module != strings.TrimPrefix(module, "vmlinux") {
			continue
		}
		if s.IsText() {
			return f.code(s)
		}
		data = true
	}
	if data {
		return f.is(NotCode, "%s is a variable, not a function", name)
	}
	return f.nowhere()
}

// code is about a function that is in the kernel.
func (f *whyNot) code(s kallsyms.Sym) *NotTraceable {
	if base, ok := coldPart(s.Name); ok {
		f.e.Instead = []string{base}
		return f.is(Part, "%s is the part of %s that the compiler moved out of the way; nothing calls it", s.Name, base)
	}
	fns, err := f.world.Functions()
	if err != nil || !f.world.ftraceSays {
		return nil
	}
	if slices.ContainsFunc(fns, func(fn Function) bool { return fn.Name == s.Name && fn.Module == s.Module }) {
		return nil
	}
	if section := f.section(s.Addr); section != "" {
		return f.is(Blacklisted, "%s is in %s: neither ftrace nor kprobes may touch it", s.Name, section)
	}
	if f.world.blacklisted(s.Name) {
		return f.is(Blacklisted, "%s is on the kernel's own list of functions that kprobes must not touch (NOKPROBE_SYMBOL), and ftrace has no hook in it", s.Name)
	}
	return f.is(Notrace, "%s has no hook for ftrace: it is marked notrace, or its file is compiled without them; kprobe:%s may do", s.Name, s.Name)
}

// sections are where the kernel keeps code that is not to be traced, by the symbols around it (include/asm-generic/sections.h).
var sections = []struct{ name, from, to string }{
	{".noinstr.text (entry and exit of the kernel, before tracing is allowed)", "__noinstr_text_start", "__noinstr_text_end"},
	{".entry.text (entry code in assembly)", "__entry_text_start", "__entry_text_end"},
	{".kprobes.text (what kprobes themselves need)", "__kprobes_text_start", "__kprobes_text_end"},
	{".init.text (used while booting, then given back)", "_sinittext", "_einittext"},
}

func (f *whyNot) section(addr uint64) string {
	for _, s := range sections {
		from, to := f.ks.ByName(s.from), f.ks.ByName(s.to)
		if len(from) > 0 && len(to) > 0 && addr >= from[0] && addr < to[0] {
			return s.name
		}
	}
	return ""
}

// coldPart gives the function of which a symbol is the part moved to .text.unlikely.
func coldPart(name string) (string, bool) {
	i := strings.Index(name, ".cold")
	if i < 0 {
		return "", false
	}
	return name[:i], true
}

// nowhere is about a name that no symbol has.
func (f *whyNot) nowhere() *NotTraceable {
	if v := f.variants(); len(v) > 0 {
		f.e.Instead = v
		return f.is(Variant, "%s exists only as the compiler changed it (.isra and .constprop: arguments removed or fixed; .part: one piece of it)", f.e.Func)
	}
	if into := f.world.inlinedInto(f.e.Func); len(into) > 0 {
		f.e.Instead = into[:min(len(into), 3)]
		return f.is(Inlined, "%s has no code of its own: the compiler put it into %s", f.e.Func, someOf(into, 5))
	}
	if mod := f.world.exporter(f.e.Func); mod != "" {
		return f.is(NotLoaded, "%s is in module %s, which is not loaded (modprobe %s loads it)", f.e.Func, mod, mod)
	}
	fns, _ := f.world.Functions()
	names := make([]string, 0, len(fns))
	for _, fn := range fns {
		names = append(names, fn.Name)
	}
	f.e.Instead = nearest(f.e.Func, names, "")
	return f.is(NoFunction, "this kernel has no symbol %s: inlined everywhere, not built in, or misspelt", f.e.Func)
}

// someOf lists the first n of names and counts the rest.
func someOf(names []string, n int) string {
	s := strings.Join(names[:min(n, len(names))], ", ")
	if len(names) > n {
		s += fmt.Sprintf(" and %d more", len(names)-n)
	}
	return s
}

// variants are the names that the compiler made of this one, cold parts left out.
func (f *whyNot) variants() (out []string) {
	for s := range f.ks.Text() {
		rest, ok := strings.CutPrefix(s.Name, f.e.Func+".")
		if !ok || strings.Contains(rest, "cold") || f.e.Module != "" && f.e.Module != "vmlinux" && s.Module != f.e.Module {
			continue
		}
		if !slices.Contains(out, s.Name) {
			out = append(out, s.Name)
		}
	}
	return out
}

// blacklisted asks kprobes, where debugfs is mounted.
func (w *World) blacklisted(name string) bool {
	b, err := os.ReadFile("/sys/kernel/debug/kprobes/blacklist")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) { // 0xffffffff81000000-0xffffffff81000010	name
		if _, n, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && n == name {
			return true
		}
	}
	return false
}

func (w *World) moduleDir() string {
	r, err := w.live.Release()
	if err != nil {
		return "/lib/modules"
	}
	return "/lib/modules/" + r
}

// onDisk says if a module could be loaded.
func (w *World) onDisk(module string) bool {
	found := false
	w.lines("modules.dep", func(line string) bool {
		path, _, _ := strings.Cut(line, ":")
		base, _, _ := strings.Cut(filepath.Base(path), ".ko")
		found = strings.ReplaceAll(base, "-", "_") == strings.ReplaceAll(module, "-", "_")
		return !found
	})
	return found
}

// exporter gives the module that exports a symbol, by depmod's list; "" if none does. A module's other functions are in no
// list.
func (w *World) exporter(name string) (module string) {
	w.lines("modules.symbols", func(line string) bool { // alias symbol:NAME MODULE
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" && f[1] == "symbol:"+name {
			module = f[2]
		}
		return module == ""
	})
	return module
}

// lines reads one of depmod's files until f has enough.
func (w *World) lines(file string, f func(line string) bool) {
	r, err := os.Open(filepath.Join(w.moduleDir(), file))
	if err != nil {
		return
	}
	defer r.Close()
	for sc := bufio.NewScanner(r); sc.Scan(); {
		if !f(sc.Text()) {
			return
		}
	}
}

// inlinedInto reads the kernel's debug information, where a distribution's package has put it.
func (w *World) inlinedInto(name string) []string {
	r, err := w.live.Release()
	if err != nil {
		return nil
	}
	for _, path := range []string{"/usr/lib/debug/boot/vmlinux-" + r, "/usr/lib/debug/lib/modules/" + r + "/vmlinux", "/lib/modules/" + r + "/build/vmlinux", "/boot/vmlinux-" + r} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		defer f.Close()
		e, err := elf.Read(f)
		if err != nil {
			continue
		}
		if d, err := e.DWARF(); err == nil {
			into, _ := inlined.Into(d, name) // what was read of a damaged file
			return into
		}
	}
	return nil
}
