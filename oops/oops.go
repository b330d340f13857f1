// Package oops reads what a dying kernel writes on its console: oopses, BUGs, warnings, lockups, hung tasks, stalls and
// panics, of x86-64 and arm64. The text may come from anywhere: dmesg, a serial line with or without timestamps, netconsole,
// pstore, the journal, a mail that quotes it. [Parse] gives one [Report] for each incident; the first is usually the one
// to read, since what follows runs on what the first broke.
//
// It knows the forms that the kernel prints (arch/x86/mm/fault.c, kernel/panic.c, lib/bug.c, kernel/watchdog.c,
// kernel/hung_task.c, kernel/rcu/tree_stall.h, mm/kasan/report.c, lib/ubsan.c, mm/oom_kill.c), and interprets no code: see
// debuginfo/disasm.
package oops

import (
	"strings"
)

// Kind is the class of an incident.
type Kind string

// The kinds.
const (
	NullDeref      Kind = "null pointer dereference"
	PageFault      Kind = "bad page access"
	UserAccess     Kind = "access to user memory"
	GPF            Kind = "general protection fault"
	Bug            Kind = "BUG"
	Warning        Kind = "WARN"
	DivideError    Kind = "division error"
	InvalidOpcode  Kind = "invalid opcode"
	StackGuard     Kind = "stack overflow"
	DoubleFault    Kind = "double fault"
	StackProtector Kind = "stack corruption"
	ListCorruption Kind = "list corruption"
	AtomicSleep    Kind = "sleep in atomic context"
	SoftLockup     Kind = "soft lockup"
	HardLockup     Kind = "hard lockup"
	HungTask       Kind = "hung task"
	RCUStall       Kind = "RCU stall"
	KASAN          Kind = "KASAN report"
	KMSAN          Kind = "KMSAN report"
	KCSAN          Kind = "KCSAN report"
	KFENCE         Kind = "KFENCE report"
	UBSAN          Kind = "UBSAN report"
	Lockdep        Kind = "lockdep report"
	OOM            Kind = "out of memory"
	MachineCheck   Kind = "machine check"
	Panic          Kind = "panic"
	OtherOops      Kind = "oops"
)

// Report is one incident.
type Report struct {
	Kind  Kind
	Title string // the kernel's own line
	Line  int    // its number in the text, from 1

	Addr      uint64 // that was accessed
	HasAddr   bool
	Access    string // "read", "write" or "execute"; "" if not said
	ErrorCode string // "0002", as printed
	Detail    string // what else the kernel said in words: "not-present page", "list_del corruption. prev->next …"

	CPU      int // -1 if not said
	PID      int // −1 if not said
	Comm     string
	Tainted  string // letters; "" if not tainted or not said
	Release  string
	Hardware string
	Context  string // "irq", "softirq", "nmi", "task"; from the stack's marks

	RIP     Location
	Regs    map[string]uint64
	Code    []byte
	Fault   int // index in Code of the faulting instruction; −1 if not marked
	Stack   []Frame
	Modules []Module
	Panic   string // "Fatal exception in interrupt", of the panic that followed
	Ended   bool   // the text has its end mark

	pageFaulted bool // ErrorCode is that of a page fault

	traced bool // its call trace has begun
	closed bool // stacks that follow are others': of who allocated, of another CPU
}

// Location is a symbol and an offset as the kernel prints them.
type Location struct {
	Symbol string
	Off    uint64
	Size   uint64
	Module string
	Addr   uint64 // where only an address was printed, or "RIP: 0010:0x0"
}

// IsZero says that there is no location.
func (l Location) IsZero() bool { return l == Location{} }

// Frame is one line of a call trace.
type Frame struct {
	Location
	Unsure bool   // "?": found on the stack, not by unwinding
	Stack  string // "IRQ", "NMI", "TASK", "SOFTIRQ", "#DF" … which stack it is on, if said
	Regs   bool   // a RIP line inside the trace: the registers of an interrupted context or of user mode
}

// Module is an entry of "Modules linked in".
type Module struct {
	Name  string
	Flags string // taint letters, "+" being loaded, "-" being unloaded
}

// MaxText is how much of a text is read.
const MaxText = 256 << 20

// Parse finds the incidents in a text. Lines of several CPUs that were written at once are told apart where the kernel was
// built to print the caller (CONFIG_PRINTK_CALLER).
func Parse(text []byte) []Report {
	p := parser{open: map[string]*Report{}}
	n := 0
	for raw := range strings.Lines(string(text[:min(len(text), MaxText)])) {
		n++
		line, caller := Strip(raw)
		p.line(n, line, caller)
	}
	out := make([]Report, 0, len(p.all))
	for _, r := range p.all {
		r.finish()
		out = append(out, *r)
	}
	return out
}
