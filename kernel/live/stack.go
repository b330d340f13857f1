package live

import "strings"

// Frame is a place in the kernel's code; Name is empty where no symbol is known.
type Frame struct {
	Addr uint64
	Name string
	Off  uint64 // bytes behind the symbol
}

// Stack names the frames of a stack that a BPF program took, the innermost first. The frames of the machinery that ran the
// program are left out, with those between them, which are of the program itself and have no name in the kernel's table.
func (l *Live) Stack(addrs []uint64) []Frame {
	out := make([]Frame, 0, len(addrs))
	skip := 0
	for i, a := range addrs {
		f := Frame{Addr: a}
		f.Name, f.Off, _ = l.Symbolise(a)
		if i < machineryFrames && machinery(f.Name) {
			skip = i + 1
		}
		out = append(out, f)
	}
	return out[skip:]
}

// machineryFrames is how deep in a stack the last frame of the machinery may be.
const machineryFrames = 12

// machinery says if a function is of what runs BPF programs, which nobody asked about.
func machinery(name string) bool {
	for _, p := range []string{"bpf_prog_", "bpf_trace_run", "__bpf_trace_", "bpf_get_stack", "__bpf_get_stack", "bpf_get_task_stack",
		"__bpf_get_task_stack", "get_callchain_entry_for_task", "stack_trace_save", "arch_stack_walk", "trace_call_bpf",
		"perf_call_bpf_", "__traceiter_", "bpf_trampoline_", "bpf_tramp"} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}
