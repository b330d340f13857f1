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

// Guilty is the module that the fault was in, or else the first on the certain part of the stack; "" if there is none.
func (r *Report) Guilty() string {
	if r.RIP.Module != "" {
		return r.RIP.Module
	}
	for _, f := range r.Stack {
		if !f.Unsure && !f.Regs && f.Module != "" {
			return f.Module
		}
	}
	return ""
}

// Where is the function that the fault was in: that of RIP, or, where RIP is no code, must not be executed, or only reports,
// of the first certain frame that is other.
func (r *Report) Where() Location {
	if r.RIP.Symbol != "" && !reporting[r.RIP.Symbol] && r.Access != "execute" {
		return r.RIP
	}
	if r.Kind == SoftLockup || r.Kind == HardLockup || r.Kind == RCUStall {
		for _, f := range r.Stack { // an interrupt found it: what it interrupted is the one
			if f.Regs && f.Symbol != "" {
				return f.Location
			}
		}
	}
	for _, f := range r.Stack {
		if !f.Unsure && f.Symbol != "" && !f.Regs && !reporting[strings.TrimSuffix(f.Symbol, ".cold")] {
			return f.Location
		}
	}
	return r.RIP
}

// reporting are functions that find or print what others did.
var reporting = map[string]bool{
	"dump_stack": true, "dump_stack_lvl": true, "__dump_stack": true, "show_stack": true, "panic": true, "__warn": true,
	"report_bug": true, "handle_bug": true, "exc_invalid_op": true, "asm_exc_invalid_op": true, "die": true, "oops_end": true,
	"__die": true, "__die_body": true, "page_fault_oops": true, "no_context": true, "exc_page_fault": true,
	"asm_exc_page_fault": true, "do_user_addr_fault": true, "watchdog_timer_fn": true, "kasan_report": true,
	"print_report": true, "print_address_description": true, "kasan_check_range": true, "__might_sleep": true,
	"___might_sleep": true, "__might_resched": true, "__might_resched.cold": true, "__schedule_bug": true, "__schedule_bug.cold": true,
	"__schedule": true, "schedule": true, "schedule_preempt_disabled": true, "schedule_timeout": true, "io_schedule": true,
	"__list_del_entry_valid_or_report": true, "__list_add_valid_or_report": true, "__list_del_entry_valid": true,
	"__list_add_valid": true, "__list_del_entry_valid.cold": true, "__list_add_valid.cold": true, "usercopy_abort": true,
	"__check_object_size": true, "__stack_chk_fail": true, "warn_slowpath_fmt": true, "__warn_printk": true, "exc_general_protection": true,
	"asm_exc_general_protection": true, "refcount_warn_saturate": true, "ubsan_epilogue": true, "kfence_report_error": true,
	"vpanic": true, "check_panic_on_warn": true, "__ubsan_handle_out_of_bounds": true, "__ubsan_handle_shift_out_of_bounds": true,
	"dump_header": true, "oom_kill_process": true, "out_of_memory": true, "fixup_red_left": true, "nmi_panic": true,
	"asan_report": true, "__asan_load8": true, "__asan_load4": true, "__asan_store8": true, "__asan_store4": true,
	"__asan_report_load8_noabort": true, "__asan_report_store8_noabort": true, "exc_divide_error": true, "asm_exc_divide_error": true,
}
