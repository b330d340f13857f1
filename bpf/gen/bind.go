package gen

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/ir"
)

// binding says how one kind of attachment supplies what the IR leaves open.
type binding struct {
	prog   ebpf.ProgramType
	attach ebpf.AttachType
	regs   bool // the context starts with struct pt_regs
	words  bool // the context is an array of 64-bit arguments
	exit   bool // fires when the function returns
	ip     func(*lowerer, *ir.Ins)
	typed  ebpf.AttachType // how units that are Typed attach, where that differs
}

// bindings has a row for each provider of lang/check that a running kernel executes.
var bindings = map[string]binding{
	"kprobe":        {prog: ebpf.Kprobe, regs: true, ip: entryIP},
	"kretprobe":     {prog: ebpf.Kprobe, regs: true, exit: true, ip: helperIP},
	"uprobe":        {prog: ebpf.Kprobe, regs: true, ip: contextIP},
	"uretprobe":     {prog: ebpf.Kprobe, regs: true, exit: true, ip: helperIP},
	"usdt":          {prog: ebpf.Kprobe, regs: true, ip: contextIP},
	"fentry":        {prog: ebpf.Tracing, attach: ebpf.AttachTraceFEntry, words: true, ip: helperIP},
	"fexit":         {prog: ebpf.Tracing, attach: ebpf.AttachTraceFExit, words: true, exit: true, ip: helperIP},
	"iter":          {prog: ebpf.Tracing, attach: ebpf.AttachTraceIter, words: true},
	"rawtracepoint": {prog: ebpf.RawTracepoint, words: true, typed: ebpf.AttachTraceRawTp},
	"tracepoint":    {prog: ebpf.TracePoint},
	"profile":       {prog: ebpf.PerfEvent, regs: true, ip: contextIP},
	"interval":      {prog: ebpf.PerfEvent, regs: true, ip: contextIP},
	"software":      {prog: ebpf.PerfEvent, regs: true, ip: contextIP},
	"hardware":      {prog: ebpf.PerfEvent, regs: true, ip: contextIP},
	"watchpoint":    {prog: ebpf.PerfEvent, regs: true, ip: contextIP},
	// Programs on the packet path, which are built from IR and have no language of their own.
	"xdp": {prog: ebpf.XDP},
	"tc":  {prog: ebpf.SchedCLS},
	// At accesses to sysctls, likewise.
	"cgroup_sysctl": {prog: ebpf.CGroupSysctl, attach: ebpf.AttachCGroupSysctl},
	// What fathom runs itself, through BPF_PROG_TEST_RUN.
	"begin": {prog: ebpf.RawTracepoint},
	"end":   {prog: ebpf.RawTracepoint},
	"self":  {prog: ebpf.RawTracepoint},
	"test":  {prog: ebpf.RawTracepoint},
	"bench": {prog: ebpf.RawTracepoint},
}

// ProgramType gives how the kernel is told to attach programs of a provider of lang/check.
func ProgramType(provider string) (t ebpf.ProgramType, at ebpf.AttachType, ok bool) {
	b, ok := bindings[provider]
	return b.prog, b.attach, ok
}

// helperIP asks the kernel, which knows the entry of the probed function (bpf_get_func_ip, since 5.15).
func helperIP(l *lowerer, n *ir.Ins) {
	l.put(ir.Ins{Op: ir.Call, Dst: n.Dst, Fn: ir.FnGetFuncIP, Args: []ir.Val{ir.R(l.ctx)}, Span: n.Span})
}

// entryIP does without where there is no such helper. A probe's handler finds the address behind its breakpoint, which on x86 is
// a byte (kprobe_int3_handler and kprobe_ftrace_handler in arch/x86/kernel/kprobes).
func entryIP(l *lowerer, n *ir.Ins) {
	if l.lacks == nil || !l.lacks(ir.FnGetFuncIP) {
		helperIP(l, n)
		return
	}
	contextIP(l, n)
	l.put(ir.Ins{Op: ir.Bin, Alu: ir.Sub, Dst: n.Dst, A: ir.R(n.Dst), B: ir.Imm(l.arch.breakpoint), Span: n.Span})
}

func contextIP(l *lowerer, n *ir.Ins) {
	l.put(ir.Ins{Op: ir.Load, Dst: n.Dst, Size: 8, Base: l.ctx, Off: l.arch.regs["ip"], Span: n.Span})
}

// arch knows struct pt_regs and the calling convention of one instruction set.
type arch struct {
	regs map[string]int32 // name → offset in bytes
	args []string         // integer arguments in order
	// breakpoint is how far behind its address a probe's handler finds the instruction pointer.
	breakpoint int64
	ret        string
	// syscall has the argument registers of a system call; the fourth differs on x86.
	stackArg func(n int) int32 // offset from the stack pointer of an argument passed in memory, at entry
	sp       string
}

// arches are the instruction sets by GOARCH. Offsets are those of arch/*/include/uapi/asm/ptrace.h.
var arches = map[string]arch{
	"amd64": {
		regs: map[string]int32{
			"r15": 0, "r14": 8, "r13": 16, "r12": 24, "bp": 32, "bx": 40, "r11": 48, "r10": 56, "r9": 64, "r8": 72,
			"ax": 80, "cx": 88, "dx": 96, "si": 104, "di": 112, "orig_rax": 120, "ip": 128, "cs": 136, "flags": 144, "sp": 152, "ss": 160,
			// other names of the same
			"rbp": 32, "rbx": 40, "rax": 80, "rcx": 88, "rdx": 96, "rsi": 104, "rdi": 112, "rip": 128, "pc": 128, "eflags": 144, "rsp": 152,
			"fp": 32,
		},
		args: []string{"di", "si", "dx", "cx", "r8", "r9"}, ret: "ax", sp: "sp", breakpoint: 1,
		stackArg: func(n int) int32 { return int32(8 * (n - 6 + 1)) },
	},
	"arm64": {
		regs: arm64Regs(), args: []string{"r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7"}, ret: "r0", sp: "sp",
		stackArg: func(n int) int32 { return int32(8 * (n - 8)) },
	},
}

func arm64Regs() map[string]int32 {
	m := map[string]int32{"sp": 248, "ip": 256, "pc": 256, "pstate": 264}
	for i := range int32(31) {
		m[fmt.Sprintf("r%d", i)] = 8 * i
	}
	return m
}
