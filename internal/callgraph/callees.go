package callgraph

import (
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/debuginfo/kallsyms"
	"github.com/fathom-trace/fathom/kernel"
)

// match is a glob over a function's name.
func match(glob, name string) bool {
	ok, err := path.Match(glob, name)
	return ok && err == nil
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
// where it stopped. depth 0 goes as far as it gets. Calls through pointers lead nowhere here. blind counts functions whose
// code could not be read.
func (w *walker) below(roots []uint64, depth, limit int, skip func(kallsyms.Sym) bool) (found []callee, cut, blind int) {
	seen := map[uint64]bool{}
	var level []uint64
	for _, r := range roots {
		seen[r] = true
		level = append(level, r)
	}
	for far := 1; len(level) > 0 && (depth == 0 || far <= depth); far++ {
		var next []uint64
		for _, fn := range level {
			to, ok := w.calls(fn, 0)
			if !ok {
				blind++
			}
			for _, a := range to {
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
			return found, cut, blind
		}
		level = next
	}
	return found, 0, blind
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
func (w *walker) calls(fn uint64, hops int) (to []uint64, ok bool) {
	insns := w.body(fn)
	if insns == nil {
		return nil, false
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
			more, _ := w.calls(s.Addr, hops+1)
			to = append(to, more...)
		case s.Addr != i.To: // into the middle of something: back from a cold part
		case strings.HasPrefix(s.Name, "__SCT__") && hops < maxHops:
			more, _ := w.calls(s.Addr, hops+1)
			to = append(to, more...)
		default:
			to = append(to, i.To)
		}
	}
	return to, true
}
