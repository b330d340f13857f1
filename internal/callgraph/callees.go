package callgraph

import (
	"fmt"
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/probe"
)

// match is a glob over a function's name.
func match(glob, name string) bool {
	ok, err := path.Match(glob, name)
	return ok && err == nil
}

// below finds the functions below the one asked for that are to be watched, at most so many: those of --also and --only, or
// what the code reaches, so many calls away if no depth is given. found says in words how.
func (r *run) below(most, far int) (names []string, found string) {
	if r.o.Depth > 0 {
		far = r.o.Depth - 1
	}
	if far == 0 {
		return nil, "only the function itself"
	}
	can := r.unique()
	w := watch{most: most, can: can, seen: map[string]bool{r.target.name: true}}
	for _, name := range slices.Sorted(maps.Keys(can)) {
		if matches(r.o.Also, name) || matches(r.o.Only, name) && !dull(name) {
			w.take(name)
		}
	}
	asked := len(w.names)
	if len(r.o.Only) > 0 {
		return w.names, fmt.Sprintf("%d functions as asked for%s", asked, w.cut())
	}
	k, err := r.live.Kcore()
	if err != nil {
		return w.names, fmt.Sprintf("%d functions of --also, as the code cannot be read to find more (%v)", asked, err)
	}
	defer k.Close()
	callees, left := newWalker(k, r.syms).below(r.target.addrs, far, most, func(s kallsyms.Sym) bool { return dull(s.Name) })
	for _, c := range callees {
		w.take(c.Name)
	}
	w.left += left
	found = fmt.Sprintf("%d functions that its code reaches in %d calls%s", len(w.names)-asked, far, w.cut())
	if asked > 0 {
		found += fmt.Sprintf(", and %d of --also", asked)
	}
	return w.names, found + "; what is called through pointers only with --also"
}

// watch is a list of functions with an end.
type watch struct {
	most, left int
	can, seen  map[string]bool
	names      []string
}

// take adds a function that can be watched, once.
func (w *watch) take(name string) {
	switch {
	case !w.can[name] || w.seen[name]:
	case len(w.names) >= w.most:
		w.left++
	default:
		w.seen[name] = true
		w.names = append(w.names, name)
	}
}

// cut says that there were more.
func (w *watch) cut() string {
	if w.left == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d at most; there are more)", w.most)
}

// dull are functions that are neither watched nor looked into: what the compiler adds, warnings, the way down, and what the
// program of this engine itself calls, which the kernel would not let it watch meanwhile.
func dull(name string) bool {
	for _, p := range []string{"_raw_spin_", "__rcu_read_", "rcu_read_", "__migrate_", "migrate_disable", "migrate_enable", "preempt_", "bpf_ringbuf", "bpf_map", "htab_", "irq_work_", "__fentry__", "__x86_", "__stack_chk_fail", "__warn_printk", "_printk", "panic", "__ubsan", "__kasan", "__asan", "__tsan", "__sanitizer", "__SCT__", "refcount_warn", "__traceiter_", "trace_event_", "bpf_trampoline_", "perf_", "__probestub_"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// unique are the functions of which there is one, and which ftrace lists.
func (r *run) unique() map[string]bool {
	fns, err := r.world.Functions()
	if err != nil {
		return nil
	}
	can := make(map[string]bool, len(fns))
	for _, f := range fns {
		_, twice := can[f.Name]
		can[f.Name] = !twice
	}
	return can
}

// unmatched gives the first of some globs that no function matches, "" if there is none.
func (r *run) unmatched(globs []string) string {
	fns, err := r.world.Functions()
	if err != nil {
		return ""
	}
	for _, g := range globs {
		if !slices.ContainsFunc(fns, func(f probe.Function) bool { return match(g, f.Name) }) {
			return g
		}
	}
	return ""
}

// walker follows calls through the kernel's code.
type walker struct {
	code kernel.Memory
	syms *kallsyms.Table
	ends []uint64 // addresses at which functions begin, ascending: one ends where the next begins
	arch disasm.Arch
}

func newWalker(code kernel.Memory, syms *kallsyms.Table) *walker {
	w := &walker{code: code, syms: syms, arch: disasm.AMD64}
	if runtime.GOARCH == "arm64" {
		w.arch = disasm.ARM64
	}
	for s := range syms.Text() {
		w.ends = append(w.ends, s.Addr)
	}
	w.ends = slices.Compact(w.ends)
	return w
}

// maxBody bounds the code read of one function, in bytes.
const maxBody = 64 << 10

// body disassembles the function at addr; nil where its code cannot be read.
func (w *walker) body(addr uint64) []disasm.Inst {
	i, ok := slices.BinarySearch(w.ends, addr)
	if !ok || i+1 >= len(w.ends) {
		return nil
	}
	code := make([]byte, min(maxBody, w.ends[i+1]-addr))
	if w.code.ReadVirt(code, addr) != nil {
		return nil
	}
	return disasm.Decode(w.arch, code, addr, nil)
}

// below lists the functions that code called from root reaches by direct calls and jumps, with the number of calls it takes
// (1 for what root itself calls), nearest first; at most limit of them, and cut says how many more there are at the depth
// where it stopped. depth 0 goes as far as it gets. Calls through pointers lead nowhere here, nor does code that cannot be read.
func (w *walker) below(roots []uint64, depth, limit int, skip func(kallsyms.Sym) bool) (found []callee, cut int) {
	seen := map[uint64]bool{}
	var level []uint64
	for _, r := range roots {
		seen[r] = true
		level = append(level, r)
	}
	for far := 1; len(level) > 0 && (depth == 0 || far <= depth); far++ {
		var next []uint64
		for _, fn := range level {
			for _, a := range w.calls(fn, 0) {
				s, known := w.syms.At(a)
				if seen[a] || !known || s.Addr != a || !s.IsText() {
					continue
				}
				seen[a] = true
				if skip(s) {
					continue
				}
				if len(found) >= limit {
					cut++
					continue
				}
				found = append(found, callee{s, far})
				next = append(next, a)
			}
		}
		if cut > 0 {
			return found, cut
		}
		level = next
	}
	return found, 0
}

// callee is a function below another.
type callee struct {
	kallsyms.Sym
	far int
}

// maxHops bounds how often a jump leads on: to a .cold part, through a trampoline.
const maxHops = 4

// calls lists where a function's code calls or jumps to, outside of itself. Its cold part belongs to it, and trampolines
// (static calls) lead on to what they call.
func (w *walker) calls(fn uint64, hops int) (to []uint64) {
	insns := w.body(fn)
	if insns == nil {
		return nil
	}
	end := insns[len(insns)-1].Addr + uint64(insns[len(insns)-1].Len)
	self, _ := w.syms.At(fn)
	for _, i := range insns {
		if i.To == 0 || i.To >= fn && i.To < end {
			continue
		}
		s, known := w.syms.At(i.To)
		switch {
		case !known:
		case i.Jump && strings.HasPrefix(s.Name, self.Name+".cold") && hops < maxHops:
			to = append(to, w.calls(s.Addr, hops+1)...)
		case s.Addr != i.To: // into the middle of something: back from a cold part
		case strings.HasPrefix(s.Name, "__SCT__") && hops < maxHops:
			to = append(to, w.calls(s.Addr, hops+1)...)
		default:
			to = append(to, i.To)
		}
	}
	return to
}
