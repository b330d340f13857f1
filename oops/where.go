package oops

import (
	"slices"
	"strings"
)

// Guilty is the module that the fault was in, or else the first on the certain part of the stack; "" if there is none.
func (r *Report) Guilty() string {
	if w := r.Where(); w.Module != "" {
		return w.Module
	}
	if r.RIP.Module != "" {
		return r.RIP.Module
	}
	scanned := !hasCertain(r.Stack)
	for _, f := range r.Stack {
		if f.Unsure == scanned && !f.Regs && f.Module != "" {
			return f.Module
		}
	}
	return ""
}

// Where is the function that the fault was in: that of RIP, or, where RIP is no code, must not be executed, only reports or
// only waits, of the first certain frame that is other. See [Report.Calls].
func (r *Report) Where() Location {
	l, _ := r.where()
	return l
}

// Calls says that Where is a return address: what it names called what failed.
func (r *Report) Calls() bool {
	_, call := r.where()
	return call
}

func (r *Report) where() (l Location, call bool) {
	if r.RIP.Symbol != "" && r.Access != "execute" && !r.passed(r.RIP.Symbol) {
		return r.RIP, r.afterwards()
	}
	frames := r.Stack
	if found := r.interrupted(); found >= 0 { // an interrupt found it: what it interrupted is the one
		if f := r.Stack[found]; !r.passed(f.Symbol) {
			return f.Location, false
		}
		frames = r.Stack[found+1:]
	}
	scanned := !hasCertain(frames)
	for _, f := range frames {
		if f.Unsure == scanned && f.Symbol != "" && !f.Regs && !r.passed(f.Symbol) {
			return f.Location, true
		}
	}
	return r.RIP, false
}

// hasCertain says that the kernel could unwind: where a module has no unwind table it scans from the first frame on, and what
// it finds is all there is.
func hasCertain(frames []Frame) bool {
	return slices.ContainsFunc(frames, func(f Frame) bool { return !f.Unsure && !f.Regs && f.Symbol != "" })
}

// afterwards says that RIP is behind what failed: where a check returned to, or a trap that comes after its instruction.
func (r *Report) afterwards() bool {
	switch r.Kind {
	case KASAN, KMSAN, Lockdep:
		return true
	case KFENCE:
		return !strings.HasSuffix(r.Detail, "read") && !strings.HasSuffix(r.Detail, "write") // accesses have the instruction's own
	case OtherOops:
		name := strings.TrimPrefix(r.Title, "Oops: ")
		return strings.HasPrefix(name, "int3:") || strings.HasPrefix(name, "overflow:")
	}
	return false
}

// interrupted is the frame with the registers of what an interrupt interrupted that found a CPU stuck; −1 if there is none, or
// if the report begins with them.
func (r *Report) interrupted() int {
	if !r.RIP.IsZero() {
		return -1
	}
	switch r.Kind {
	case SoftLockup, HardLockup, RCUStall:
		return slices.IndexFunc(r.Stack, func(f Frame) bool { return f.Regs && f.Symbol != "" })
	}
	return -1
}

// passed says that a function is not the one to name: it reports, or frees what was wrong before, or, where waiting is what is
// reported, it waits.
func (r *Report) passed(symbol string) bool {
	base, _, _ := strings.Cut(symbol, ".") // .cold, .part.0, .constprop.0, .isra.0
	switch {
	case reporting[base], hasPrefix(base, reportingPrefixes):
		return true
	}
	switch r.Kind {
	case KASAN, KFENCE:
		return freeing[base]
	case HungTask, SoftLockup, HardLockup, RCUStall, AtomicSleep, Lockdep:
		return Waits(base)
	}
	return false
}

// Waits says that a function of the kernel waits for whoever called it: it takes a lock, or sleeps.
func Waits(symbol string) bool {
	base, _, _ := strings.Cut(symbol, ".")
	return waiting[base] || hasPrefix(base, waitingPrefixes)
}

func hasPrefix(s string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(s, p) })
}

// reporting are functions that find or print what others did.
var reporting = map[string]bool{
	"dump_stack": true, "dump_stack_lvl": true, "__dump_stack": true, "show_stack": true, "dump_backtrace": true, "panic": true,
	"vpanic": true, "nmi_panic": true, "check_panic_on_warn": true, "__warn": true, "report_bug": true, "handle_bug": true,
	"exc_invalid_op": true, "asm_exc_invalid_op": true, "die": true, "oops_end": true, "__die": true, "__die_body": true,
	"page_fault_oops": true, "no_context": true, "exc_page_fault": true, "asm_exc_page_fault": true, "do_user_addr_fault": true,
	"exc_general_protection": true, "asm_exc_general_protection": true, "exc_divide_error": true, "asm_exc_divide_error": true,
	"exc_stack_segment": true, "asm_exc_stack_segment": true, "exc_double_fault": true, "asm_exc_double_fault": true,
	"exc_int3": true, "asm_exc_int3": true, "do_trap": true, "do_error_trap": true, "watchdog_timer_fn": true,
	"print_report": true, "print_address_description": true, "check_slab_allocation": true,
	"__might_sleep": true, "___might_sleep": true, "__might_resched": true, "__schedule_bug": true,
	"__list_del_entry_valid_or_report": true, "__list_add_valid_or_report": true, "__list_del_entry_valid": true,
	"__list_add_valid": true, "usercopy_abort": true, "__check_object_size": true, "__check_heap_object": true, "check_heap_object": true,
	"fortify_panic": true, "__fortify_panic": true, "__fortify_report": true, "__copy_overflow": true, "__stack_chk_fail": true,
	"warn_slowpath_fmt": true, "__warn_printk": true, "refcount_warn_saturate": true, "ubsan_epilogue": true, "handle_overflow": true,
	"dump_header": true, "oom_kill_process": true, "out_of_memory": true, "mem_cgroup_out_of_memory": true, "fixup_red_left": true,
	"check_noncircular": true, "check_irq_usage": true, "check_prev_add": true, "check_deadlock": true, "print_deadlock_bug": true,
	"print_circular_bug": true, "print_usage_bug": true, "print_bad_irq_dependency": true, "print_unlock_imbalance_bug": true,
	"print_freed_lock_bug": true, "mark_lock": true, "mark_usage": true, "mark_lock_irq": true, "validate_chain": true,
	"lockdep_rcu_suspicious": true, "__lock_acquire": true, "lock_acquire": true, "lock_release": true, "__lock_release": true,
	"rep_nop": true,
}

// reportingPrefixes begin the names of what compilers call to check, and of what is behind that.
var reportingPrefixes = []string{"__asan_", "__hwasan_", "kasan_", "__kasan_", "__msan_", "kmsan_", "kcsan_", "__kcsan_", "__tsan_", "kfence_",
	"__ubsan_handle_"}

// freeing are functions that detect that what they are given was freed before.
var freeing = map[string]bool{
	"kfree": true, "kvfree": true, "vfree": true, "kmem_cache_free": true, "kmem_cache_free_bulk": true, "kfree_sensitive": true,
	"__kmem_cache_free": true, "slab_free": true, "__slab_free": true, "slab_free_freelist_hook": true, "__kfence_free": true,
}

// waiting are functions of the kernel's sections .sched.text and .spinlock.text, which get_wchan and profiles pass over too
// (in_sched_functions, in_lock_functions): they wait for whoever called them.
var waiting = map[string]bool{
	"__schedule": true, "__sched_text_start": true, "io_schedule": true, "io_schedule_timeout": true, "yield": true,
	"wait_for_completion": true, "__wait_for_common": true, "do_wait_for_common": true, "down": true, "up": true,
	"down_read": true, "down_write": true, "down_killable": true, "down_interruptible": true, "down_timeout": true,
	"down_read_killable": true, "down_write_killable": true, "down_read_interruptible": true, "msleep": true,
	"msleep_interruptible": true, "usleep_range_state": true, "usleep_range": true, "do_nanosleep": true, "percpu_down_write": true,
	"__percpu_down_read": true, "out_of_line_wait_on_bit": true, "out_of_line_wait_on_bit_lock": true, "bit_wait": true,
	"bit_wait_io": true, "native_queued_spin_lock_slowpath": true, "__pv_queued_spin_lock_slowpath": true, "queued_spin_lock_slowpath": true,
	"queued_read_lock_slowpath": true, "queued_write_lock_slowpath": true, "pv_native_safe_halt": true, "synchronize_rcu": true,
	"do_raw_spin_lock": true, "virt_spin_lock": true,
}

var waitingPrefixes = []string{"schedule", "mutex_lock", "__mutex_lock", "ww_mutex_lock", "rt_mutex_", "__rt_mutex_", "rwsem_down_", "__down", "__up",
	"wait_for_completion_", "_raw_spin_", "__raw_spin_", "_raw_read_", "_raw_write_", "__wait_on_bit", "folio_wait_", "wait_on_page_",
	"__wait_rcu_gp", "prepare_to_wait"}
