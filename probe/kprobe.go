package probe

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/tracefs"
)

// Functions lists kernel functions that can be probed: what ftrace says, or where it may not be asked, all text symbols.
func (w *World) Functions() ([]Function, error) {
	if w.funcsOK {
		return w.funcs, nil
	}
	fs, err := w.tracefs()
	if err == nil {
		var fns []tracefs.Function
		if fns, err = fs.AvailableFunctions(); err == nil && len(fns) > 0 {
			for _, f := range fns {
				w.funcs = append(w.funcs, Function{Name: f.Name, Module: f.Module})
			}
			w.ftraceSays = true
		}
	}
	if len(w.funcs) == 0 {
		ks, kerr := w.live.Kallsyms()
		if kerr != nil {
			return nil, errors.Join(err, kerr)
		}
		for s := range ks.Text() {
			w.funcs = append(w.funcs, Function{s.Name, s.Module, s.Addr})
		}
	}
	w.funcsOK = true
	return w.funcs, nil
}

// FindFunctions gives those of Functions that have one of the names, without keeping the rest where ftrace lists them. Where
// addresses may be read it is the kernel's functions of these names, and ftrace is not asked, which takes it long to tell: some
// may be such as cannot be probed, and of those that share their name and module there is the first, as the kernel finds it
// by name (ftrace_lookup_symbols in kernel/trace/ftrace.c).
func (w *World) FindFunctions(names []string) (out []Function, err error) {
	if w.funcsOK {
		return w.named(names)
	}
	if ks, err := w.live.Kallsyms(); err == nil && ks.Hidden() == nil {
		wanted, found := map[string]bool{}, map[Function]bool{}
		for _, name := range names {
			wanted[name] = true
		}
		for s := range ks.Text() { // an index of all names, for a few, would take more memory than it saves time
			f := Function{Name: s.Name, Module: s.Module}
			if !wanted[s.Name] || found[f] {
				continue
			}
			found[f] = true
			f.Addr = s.Addr
			out = append(out, f)
		}
		return out, nil
	}
	if fs, err := w.tracefs(); err == nil {
		if fns, err := fs.FindFunctions(names); err == nil && len(fns) > 0 {
			for _, f := range fns {
				out = append(out, Function{Name: f.Name, Module: f.Module})
			}
			return out, nil
		}
	}
	return w.named(names)
}

// named gives those of Functions that have one of the names.
func (w *World) named(names []string) (out []Function, err error) {
	all, err := w.Functions()
	for _, f := range all {
		if slices.Contains(names, f.Name) {
			out = append(out, f)
		}
	}
	return out, err
}

// ReadTraceable takes the functions that may be probed from a file in the form of available_filter_functions.
func (w *World) ReadTraceable(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read traceable functions: %w", err)
	}
	w.given, w.funcsOK = map[string]bool{}, true
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		fn := Function{Name: f[0]}
		if len(f) > 1 {
			fn.Module = strings.Trim(f[1], "[]")
		}
		w.given[fn.Name] = true
		w.funcs = append(w.funcs, fn)
	}
	return nil
}

func kernelModule(m string) string {
	if m == "" {
		return "vmlinux"
	}
	return m
}

func (w *World) kprobes(p check.AttachPoint) ([]check.Target, error) {
	name := p.Provider.Name
	if p.HasAddr {
		return []check.Target{{Provider: name, Offset: p.Address, Name: fmt.Sprintf("%s:%d", name, p.Address)}}, nil
	}
	if !wild(p.Func) && !wild(p.Module) {
		return w.oneKprobe(p)
	}
	return w.matching(p, func(f Function) (check.Target, bool) {
		return check.Target{Provider: name, Module: f.Module, Func: f.Name, Name: name + ":" + f.Name}, true
	})
}

// matching gives the targets that target makes of the functions a wildcard means, each name once.
func (w *World) matching(p check.AttachPoint, target func(Function) (check.Target, bool)) ([]check.Target, error) {
	fns, err := w.Functions()
	if err != nil {
		return nil, err
	}
	var out []check.Target
	seen := map[string]bool{}
	for _, f := range fns {
		if !check.Match(p.Func, f.Name) || p.Module != "" && !check.Match(p.Module, kernelModule(f.Module)) || seen[f.Name] || unsafeKprobe(f.Name) {
			continue
		}
		if t, ok := target(f); ok {
			seen[f.Name] = true
			out = append(out, t)
		}
	}
	sortTargets(out)
	return out, nil
}

// kprobePMU is there if the kernel can put perf events on functions (CONFIG_KPROBE_EVENTS).
const kprobePMU = "/sys/bus/event_source/devices/kprobe/type"

// noKprobes says why no function of this kernel can be probed; nil if some may be.
func noKprobes() error {
	_, err := os.Stat(kprobePMU)
	if !errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, serr := os.Stat(filepath.Dir(filepath.Dir(kprobePMU))); serr != nil {
		return nil // no sysfs to ask
	}
	return feature.Unsupported("kprobe", "stat "+kprobePMU, syscall.ENOENT)
}

// unsafeKprobe says if a wildcard must not include a symbol: the kernel's own tracing machinery and symbols that name
// no function.
func unsafeKprobe(f string) bool {
	for _, p := range []string{"__kstrtab", "__ksymtab", "__SCK__", "__pfx_", "__cfi_", "__bpf_trace_", "__traceiter_", "__probestub_", "perf_trace_", "trace_event_raw_event_", "bpf_prog_"} {
		if strings.HasPrefix(f, p) {
			return true
		}
	}
	return strings.Contains(f, ".cold")
}

func (w *World) oneKprobe(p check.AttachPoint) ([]check.Target, error) {
	name := p.Provider.Name
	t := check.Target{Provider: name, Module: p.Module, Func: p.Func, Offset: p.Offset, Name: name + ":" + p.Func}
	if p.Module != "" {
		t.Name = name + ":" + p.Module + ":" + p.Func
	}
	if p.HasOff {
		t.Name += fmt.Sprintf("+%d", p.Offset)
	}
	if m := p.Module; m != "" && m != "vmlinux" && !w.live.HasModule(m) {
		return nil, notLoaded{t}
	}
	if w.given != nil && !w.given[p.Func] {
		return nil, nil
	}
	if kernelModule(p.Module) == "vmlinux" {
		if _, err := w.Types().Func("", p.Func); err == nil { // by its types, without the list of all symbols
			return []check.Target{t}, nil
		}
	}
	ks, err := w.live.Kallsyms()
	if err != nil {
		return []check.Target{t}, nil // the kernel will tell
	}
	if len(ks.ByName(p.Func)) == 0 {
		return nil, nil
	}
	w.loadTypes(p.Module)
	return []check.Target{t}, nil
}

// notLoaded says in bpftrace's words that a probe's module is not there.
type notLoaded struct{ t check.Target }

func (e notLoaded) Error() string {
	return fmt.Sprintf("specified module %s in probe %s is not loaded.", e.t.Module, e.t.Name)
}

// WhenThere implements check.Later.
func (e notLoaded) WhenThere() check.Target { return e.t }

// moduleOf gives the module that has a function which the kernel itself has not, "" if the kernel has it or nobody.
func (w *World) moduleOf(name string) string {
	ks, err := w.live.Kallsyms()
	if err != nil {
		return ""
	}
	module := ""
	for s := range ks.Named(name) {
		if s.Module == "" {
			return ""
		}
		module = s.Module
	}
	return module
}

// loadTypes makes the types of a module known by their names, if it has any.
func (w *World) loadTypes(module string) {
	if module == "" || module == "vmlinux" {
		return
	}
	if l, err := w.live.Types(); err == nil {
		_ = l.Load(module) // built without BTF: the kernel's types are what there is
	}
}

func (w *World) tracing(p check.AttachPoint) ([]check.Target, error) {
	name := p.Provider.Name
	if p.Module == "bpf" {
		return bpfFunctions(p)
	}
	if _, err := w.live.BTF(); err != nil { // these probes are of functions whose types are known
		return nil, err
	}
	if !wild(p.Func) && !wild(p.Module) {
		mod := p.Module
		_, err := w.Types().Func(mod, p.Func)
		if err != nil && mod == "" {
			mod = w.moduleOf(p.Func)
			_, err = w.Types().Func(mod, p.Func)
		}
		if err != nil {
			return nil, nil
		}
		w.loadTypes(mod)
		return []check.Target{{Provider: name, Module: kernelModule(mod), Func: p.Func, Name: name + ":" + kernelModule(mod) + ":" + p.Func}}, nil
	}
	return w.matching(p, func(f Function) (check.Target, bool) {
		_, err := w.Types().Func(f.Module, f.Name)
		m := kernelModule(f.Module)
		return check.Target{Provider: name, Module: m, Func: f.Name, Name: name + ":" + m + ":" + f.Name}, err == nil
	})
}
