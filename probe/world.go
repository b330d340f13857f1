package probe

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/cilium/ebpf/btf"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/kernel/live"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
)

// World is this machine as the checker sees it. Everything is read when it is first asked for, and once.
type World struct {
	// Unsafe lets probes of user programs be put where no instruction is known to start (--unsafe).
	Unsafe bool

	live  *live.Live
	users *usersym.Resolver
	pid   int // -p: processes whose binaries wildcards mean

	refused map[string]error // uprobes that would corrupt their program, by name
	given   map[string]bool  // functions that may be probed, by name, where somebody said which
	fs      *tracefs.FS
	fsErr   error
	fsTried bool
	events  []tracefs.Event
	funcs   []Function
	funcsOK bool
	// ftraceSays is set if funcs is what ftrace itself lists, not all symbols of code.
	ftraceSays bool
	types      ctype.Lookup
	kfuncs     map[string]btf.TypeID // those that were asked for
	lacking    map[int32]bool        // helpers that were asked for: whether the kernel has not got them
}

// Function is a kernel function that may be probed.
type Function struct {
	Name, Module string
	Addr         uint64 // where it begins; 0 if that was not looked up or is hidden
}

var _ check.World = (*World)(nil)

// NewWorld returns the World of the running kernel. The caller keeps l and users and closes the World.
func NewWorld(l *live.Live, users *usersym.Resolver, pid int) *World {
	return &World{live: l, users: users, pid: pid}
}

// peerError is an error in bpftrace's words, which scripts may look for.
type peerError string

func (e peerError) Error() string { return string(e) }

// noMatch says in bpftrace's words that nothing matches, and why.
type noMatch struct {
	what string
	err  error
}

func (e noMatch) Error() string { return fmt.Sprintf("No matches for %s: %v", e.what, e.err) }

func (e noMatch) Unwrap() error { return e.err }

// Close gives back what the World opened.
func (w *World) Close() error {
	if w.fs != nil {
		return w.fs.Close()
	}
	return nil
}

// Types implements check.World. The kernel's types are read at the first question: most programs ask none.
func (w *World) Types() ctype.Lookup { return lazyTypes{w} }

// lazyTypes is the kernel's types, or on a kernel without BTF none.
type lazyTypes struct{ w *World }

func (l lazyTypes) get() (ctype.Lookup, error) {
	if l.w.types == nil {
		t, err := l.w.live.Types()
		if err != nil {
			return nil, err
		}
		l.w.types = t
	}
	return l.w.types, nil
}

// ByName implements ctype.Lookup.
func (l lazyTypes) ByName(kind ctype.Kind, name string) (ctype.Type, error) {
	t, err := l.get()
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%w)", name, ctype.ErrNotFound, err)
	}
	return t.ByName(kind, name)
}

// EnumValue implements ctype.Lookup.
func (l lazyTypes) EnumValue(name string) (*ctype.Enum, int64, bool) {
	t, err := l.get()
	if err != nil {
		return nil, 0, false
	}
	return t.EnumValue(name)
}

// Func implements ctype.Lookup.
func (l lazyTypes) Func(module, name string) (*ctype.Func, error) {
	t, err := l.get()
	if err != nil {
		return nil, fmt.Errorf("%s: %w (%w)", name, ctype.ErrNotFound, err)
	}
	return t.Func(module, name)
}

func (w *World) tracefs() (*tracefs.FS, error) {
	if !w.fsTried {
		w.fsTried = true
		fs, err := tracefs.Find()
		if err != nil {
			w.fsErr = err
		} else {
			w.fs = &fs
		}
	}
	return w.fs, w.fsErr
}

// Expand implements check.World.
func (w *World) Expand(p check.AttachPoint) ([]check.Target, error) {
	switch p.Provider.Name {
	case "kprobe", "kretprobe":
		if err := noKprobes(); err != nil && (wild(p.Func) || wild(p.Module)) {
			return nil, noMatch{p.Provider.Name + " " + p.Func, err}
		}
		return w.kprobes(p)
	case "fentry", "fexit":
		return w.tracing(p)
	case "tracepoint":
		return w.tracepoints(p)
	case "rawtracepoint":
		return w.rawTracepoints(p)
	case "uprobe", "uretprobe":
		return w.uprobes(p)
	case "iter":
		return w.iters(p)
	case "usdt":
		return w.usdts(p)
	}
	return nil, fmt.Errorf("%s probes cannot be attached yet", p.Provider.Name)
}

func wild(s string) bool { return strings.ContainsAny(s, "*?[") }

func sortTargets(ts []check.Target) {
	sort.Slice(ts, func(i, j int) bool { return ts[i].Name < ts[j].Name })
}

// Events lists the trace events.
func (w *World) Events() ([]tracefs.Event, error) {
	if w.events == nil {
		fs, err := w.tracefs()
		if err != nil {
			return nil, err
		}
		if w.events, err = fs.Events(); err != nil {
			return nil, err
		}
	}
	return w.events, nil
}

// EventID gives the number by which perf knows a trace event.
func (w *World) EventID(system, event string) (int, error) {
	f, err := w.format(system, event)
	if err != nil {
		return 0, err
	}
	return f.ID, nil
}

func (w *World) format(system, event string) (*traceevent.Format, error) {
	fs, err := w.tracefs()
	if err != nil {
		return nil, err
	}
	b, err := fs.Format(system, event)
	if err != nil {
		return nil, err
	}
	return traceevent.Parse(b)
}

func (w *World) tracepoints(p check.AttachPoint) ([]check.Target, error) {
	if !wild(p.Func) && !wild(p.Module) {
		fs, err := w.tracefs()
		if err != nil {
			return nil, err
		}
		if _, err := fs.Format(p.Module, p.Func); err != nil {
			return nil, nil
		}
		return []check.Target{tracepoint(p.Module, p.Func)}, nil
	}
	evs, err := w.Events()
	if err != nil {
		return nil, err
	}
	var out []check.Target
	for _, e := range evs {
		if e.System == "ftrace" { // ftrace's own records are no tracepoints
			continue
		}
		if check.Match(p.Module, e.System) && check.Match(p.Func, e.Name) {
			out = append(out, tracepoint(e.System, e.Name))
		}
	}
	sortTargets(out)
	return out, nil
}

func tracepoint(system, event string) check.Target {
	return check.Target{Provider: "tracepoint", Module: system, Func: event, Name: "tracepoint:" + system + ":" + event}
}

// NoTypes says why the kernel's types cannot be read; nil if they can.
func (w *World) NoTypes() error {
	_, err := lazyTypes{w}.get()
	return err
}

// RawTracepoints lists the kernel's tracepoints by the typedefs that BTF has of them, or without BTF by the functions that
// call their probes (include/linux/tracepoint.h, Linux 5.10), with their modules.
func (w *World) RawTracepoints() ([]Function, error) {
	var out []Function
	names, err := w.live.Tracepoints()
	if errors.Is(err, feature.ErrUnsupported) {
		syms, serr := w.live.Kallsyms()
		if serr != nil {
			return nil, errors.Join(err, serr)
		}
		for s := range syms.All() {
			if name, ok := strings.CutPrefix(s.Name, "__traceiter_"); ok {
				out = append(out, Function{Name: name, Module: s.Module})
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		out = append(out, Function{Name: n})
	}
	return out, nil
}

func (w *World) rawTracepoints(p check.AttachPoint) ([]check.Target, error) {
	all, err := w.RawTracepoints()
	if err != nil {
		return nil, err
	}
	var out []check.Target
	for _, f := range all {
		m := kernelModule(f.Module)
		if check.Match(p.Func, f.Name) && (p.Module == "" || check.Match(p.Module, m)) {
			out = append(out, check.Target{Provider: "rawtracepoint", Module: m, Func: f.Name, Name: "rawtracepoint:" + m + ":" + f.Name})
		}
	}
	sortTargets(out)
	return out, nil
}

// iterTypes are what bpf_iter programs may walk: the kernel has a function bpf_iter_NAME for each.
func (w *World) iters(p check.AttachPoint) ([]check.Target, error) {
	if wild(p.Func) { // only where probes are listed
		return w.listIters(p.Func)
	}
	if _, err := w.Types().ByName(ctype.KindStruct, "bpf_iter__"+p.Func); err != nil {
		return nil, nil
	}
	return []check.Target{{Provider: "iter", Module: p.Module, Func: p.Func, Name: "iter:" + p.Func}}, nil
}

// listIters lists iterators: the kernel has a function bpf_iter_NAME and a struct bpf_iter__NAME for each
// (include/linux/bpf.h, DEFINE_BPF_ITER_FUNC).
func (w *World) listIters(pattern string) ([]check.Target, error) {
	b, err := w.live.BTF()
	if err != nil {
		return nil, err
	}
	var out []check.Target
	for _, n := range b.Names(ctype.KindStruct, "bpf_iter__") {
		name := strings.TrimPrefix(n, "bpf_iter__")
		if _, err := w.Types().Func("", "bpf_iter_"+name); err == nil && check.Match(pattern, name) {
			out = append(out, check.Target{Provider: "iter", Func: name, Name: "iter:" + name})
		}
	}
	return out, nil
}

// Args implements check.World.
func (w *World) Args(t check.Target) (*types.Type, *types.Type, error) {
	switch t.Provider {
	case "tracepoint":
		f, err := w.format(t.Module, t.Func)
		if err != nil {
			return nil, nil, err
		}
		return TracepointArgs(f, t.Module, w.Types()), nil, nil
	case "fentry", "fexit":
		f, err := w.Types().Func(t.Module, t.Func)
		if err != nil {
			return nil, nil, err
		}
		return paramArgs(f.Params), types.FromC(f.Result, types.Kernel), nil
	case "rawtracepoint":
		f, err := w.tracepointProto(t.Func)
		if err != nil {
			return nil, nil, err
		}
		return paramArgs(f.Params[min(1, len(f.Params)):]), nil, nil
	case "uprobe", "uretprobe":
		return w.uprobeArgs(t)
	case "iter":
		s, err := w.Types().ByName(ctype.KindStruct, "bpf_iter__"+t.Func)
		if err != nil {
			return nil, nil, err
		}
		return types.PtrTo(types.FromC(s, types.Kernel), types.Kernel), nil, nil
	}
	return nil, nil, fmt.Errorf("%s has no typed arguments", t.Name)
}

// tracepointProto gives the prototype of a tracepoint: void *, then the arguments. The typedef btf_trace_NAME always has
// the types; the names stand in the functions the kernel generates beside it (include/linux/tracepoint.h,
// include/trace/bpf_probe.h), of which each kernel describes others in its BTF.
func (w *World) tracepointProto(name string) (*ctype.Func, error) {
	for _, prefix := range []string{"__probestub_", "__traceiter_"} {
		if f, err := w.Types().Func("", prefix+name); err == nil && len(f.Params) > 0 && f.Params[0].Name != "" {
			return f, nil
		}
	}
	td, err := w.Types().ByName(ctype.KindTypedef, "btf_trace_"+name)
	if err != nil {
		return nil, err
	}
	if p, ok := ctype.Strip(td).(*ctype.Ptr); ok {
		if f, ok := p.Elem.(*ctype.Func); ok {
			return f, nil
		}
	}
	return nil, fmt.Errorf("btf_trace_%s is no function type", name)
}

// paramArgs gives parameters their places: one 64-bit word each.
func paramArgs(ps []ctype.Param) *types.Type {
	t := &types.Type{Kind: types.Args, Size: 8}
	slot := 0
	for _, p := range ps {
		if _, byValue := ctype.Strip(p.Type).(*ctype.Struct); byValue { // lies in the context itself, in as many words as it has
			slot += (ctype.Size(p.Type) + 7) / 8
			continue
		}
		t.Fields = append(t.Fields, types.Field{Name: p.Name, Type: types.FromC(p.Type, types.Kernel), Off: 8 * slot, Index: slot})
		slot++
	}
	t.Len = slot // the result of the function follows
	return t
}

// Suggest implements check.World.
func (w *World) Suggest(p check.AttachPoint) []string {
	var names []string
	switch p.Provider.Name {
	case "tracepoint":
		evs, err := w.Events()
		if err != nil {
			return nil
		}
		for _, e := range evs {
			names = append(names, e.System+":"+e.Name)
		}
		return nearest(p.Module+":"+p.Func, names, "tracepoint:")
	case "kprobe", "kretprobe", "fentry", "fexit":
		fns, err := w.Functions()
		if err != nil {
			return nil
		}
		for _, f := range fns {
			if f.Name != p.Func || p.Module != "" { // else it is there, and something else is wrong
				names = append(names, f.Name)
			}
		}
		return nearest(p.Func, names, p.Provider.Name+":")
	}
	return nil
}

// Kallsyms implements check.World.
func (w *World) Kallsyms(name string) (uint64, bool) {
	ks, err := w.live.Kallsyms()
	if err != nil {
		return 0, false
	}
	if as := ks.ByName(name); len(as) > 0 && as[0] != 0 {
		return as[0], true
	}
	return 0, false
}

// Usyms implements check.World.
func (w *World) Usyms(path, name string) (addr, size uint64, ok bool) {
	for _, b := range w.binaries(path) {
		if _, addr, size, ok = w.users.SymbolAddr(b, name); ok {
			return addr, size, true
		}
	}
	return 0, 0, false
}
