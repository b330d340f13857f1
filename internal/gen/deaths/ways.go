package main

import (
	"context"
	_ "embed"
	"os"
	"path/filepath"
	"strings"

	"github.com/fathom-trace/fathom/lab/guest"
	"github.com/fathom-trace/fathom/lab/modules"
	"github.com/fathom-trace/fathom/oops"
)

//go:embed src/fathom_deaths.c
var source string

//go:embed src/Kbuild
var kbuild string

func buildIn(ctx context.Context, headers, dir string) (string, error) {
	for name, text := range map[string]string{"fathom_deaths.c": source, "Kbuild": kbuild} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	kos, err := modules.BuildDir(ctx, headers, dir)
	if err != nil {
		return "", err
	}
	return kos[0], nil
}

// way is a way to die in a context.
type way struct {
	name, context string
	kind          oops.Kind
	shows         string // in a line of the console: what was provoked has happened; "end trace" if ""
	fatal         bool   // the kernel does not go on
	since         string // the kernels that have it; "" is all
	outside       bool   // not by the module: function names the kernel's, which is known beforehand
	function      string // if it is not the way's own
	addr          uint64
	access        string
	inlined       []string
}

func (w way) String() string { return w.name + " in " + w.context }

// Contexts.
const (
	task    = "task"
	kthread = "kthread"
	work    = "work"
	softirq = "softirq"
	irq     = "irq"
	nmi     = "nmi"
)

const (
	nowhere = 0xffffffffff000000 // no page is there
	uaf     = 0x6b6b6b6b6b6b6b6b // no address
)

// ways are the table of truth.
var ways = []way{
	{name: "null_read", context: task, kind: oops.NullDeref, addr: 0x10, access: "read"},
	{name: "null_read", context: kthread, kind: oops.NullDeref, addr: 0x10, access: "read"},
	{name: "null_write", context: task, kind: oops.NullDeref, addr: 0x18, access: "write"},
	{name: "null_call", context: task, kind: oops.NullDeref, access: "execute"},
	{name: "inlined", context: task, kind: oops.NullDeref, addr: 0x28, access: "read", inlined: []string{"deaths_first", "deaths_initial", "deaths_inlined"}},
	{name: "skb", context: task, kind: oops.NullDeref, access: "read"},
	{name: "bad_read", context: task, kind: oops.PageFault, access: "read"},
	{name: "bad_write", context: task, kind: oops.PageFault, addr: nowhere, access: "write"},
	{name: "rodata", context: task, kind: oops.PageFault, access: "write"},
	{name: "text", context: task, kind: oops.PageFault, access: "write"},
	{name: "data_call", context: task, kind: oops.PageFault, access: "execute"},
	{name: "wild_call", context: task, kind: oops.PageFault, addr: nowhere, access: "execute"},
	{name: "user_read", context: task, kind: oops.UserAccess, access: "read"},
	{name: "user_write", context: task, kind: oops.UserAccess, access: "write"},
	{name: "user_call", context: task, kind: oops.UserAccess, access: "execute"},
	{name: "gpf", context: task, kind: oops.GPF, addr: uaf},
	{name: "gpf", context: kthread, kind: oops.GPF, addr: uaf},
	{name: "poison", context: task, kind: oops.GPF, addr: 0xdead000000000108},
	{name: "gpf_call", context: task, kind: oops.GPF},
	{name: "stack_segment", context: task, kind: oops.GPF},
	{name: "bug", context: task, kind: oops.Bug},
	{name: "bug", context: kthread, kind: oops.Bug},
	{name: "bug_on", context: task, kind: oops.Bug},
	{name: "warn", context: task, kind: oops.Warning},
	{name: "warn", context: softirq, kind: oops.Warning},
	{name: "warn", context: irq, kind: oops.Warning},
	{name: "warn", context: work, kind: oops.Warning},
	{name: "warn_on", context: task, kind: oops.Warning},
	{name: "warn_core", context: task, kind: oops.Warning, function: "remove_proc_entry"},
	{name: "refcount", context: task, kind: oops.Warning},
	{name: "underflow", context: softirq, kind: oops.Warning},
	{name: "divide", context: task, kind: oops.DivideError},
	{name: "quotient", context: task, kind: oops.DivideError},
	{name: "ud2", context: task, kind: oops.InvalidOpcode},
	{name: "int3", context: task, kind: oops.OtherOops, fatal: true}, // the kernel takes it as it does an NMI
	{name: "list_del", context: task, kind: oops.ListCorruption},
	{name: "list_add", context: task, kind: oops.ListCorruption},
	{name: "usercopy", context: task, kind: oops.Bug},
	{name: "fortify", context: task, kind: oops.Bug},
	{name: "atomic", context: task, kind: oops.AtomicSleep, shows: "scheduling while atomic"},
	{name: "spins", context: task, kind: oops.SoftLockup, shows: "soft lockup"},
	{name: "spins", context: kthread, kind: oops.SoftLockup, shows: "soft lockup"},
	{name: "spins", context: softirq, kind: oops.SoftLockup, shows: "soft lockup"},
	{name: "spinlock", context: task, kind: oops.SoftLockup, shows: "soft lockup"},
	{name: "rcu", context: task, kind: oops.RCUStall, shows: "detected stall"},
	{name: "irqs_off", context: task, kind: oops.RCUStall, shows: "detected stall"},
	{name: "hung_mutex", context: task, kind: oops.HungTask, shows: "blocked for more"},
	{name: "hung_rwsem", context: task, kind: oops.HungTask, shows: "blocked for more"},
	{name: "hung_sem", context: task, kind: oops.HungTask, shows: "blocked for more"},
	{name: "hung_completion", context: kthread, kind: oops.HungTask, shows: "blocked for more"},
	{name: "hung_event", context: task, kind: oops.HungTask, shows: "blocked for more"},
	{name: "hung_timeout", context: work, kind: oops.HungTask, shows: "blocked for more"},
	{name: "freed", context: task, kind: oops.KFENCE, shows: "BUG: KFENCE", since: "6.12", access: "read"},
	{name: "beyond", context: task, kind: oops.KFENCE, shows: "BUG: KFENCE", since: "6.12", access: "read"},
	{name: "twice", context: task, kind: oops.KFENCE, shows: "BUG: KFENCE", since: "6.12"},
	{name: "memory", context: task, kind: oops.OOM, shows: "Killed process", outside: true},

	{name: "null_read", context: softirq, kind: oops.NullDeref, fatal: true, addr: 0x10, access: "read"},
	{name: "null_write", context: irq, kind: oops.NullDeref, fatal: true, addr: 0x18, access: "write"},
	{name: "null_read", context: nmi, kind: oops.NullDeref, fatal: true, addr: 0x10, access: "read"},
	{name: "null_read", context: work, kind: oops.NullDeref, fatal: true, addr: 0x10, access: "read"},
	{name: "null_call", context: softirq, kind: oops.NullDeref, fatal: true, access: "execute"},
	{name: "inlined", context: irq, kind: oops.NullDeref, fatal: true, addr: 0x28, access: "read", inlined: []string{"deaths_first", "deaths_initial", "deaths_inlined"}},
	{name: "bad_write", context: irq, kind: oops.PageFault, fatal: true, addr: nowhere, access: "write"},
	{name: "gpf", context: softirq, kind: oops.GPF, fatal: true, addr: uaf},
	{name: "bug", context: softirq, kind: oops.Bug, fatal: true},
	{name: "bug_on", context: irq, kind: oops.Bug, fatal: true},
	{name: "divide", context: irq, kind: oops.DivideError, fatal: true},
	{name: "list_del", context: softirq, kind: oops.ListCorruption, fatal: true},
	{name: "stack", context: task, kind: oops.StackGuard, fatal: true, function: "deaths_deeper"},
	{name: "protector", context: task, kind: oops.StackProtector, fatal: true},
	{name: "double_fault", context: task, kind: oops.DoubleFault, fatal: true},
	{name: "panic", context: task, kind: oops.Panic, fatal: true},
	{name: "panic", context: irq, kind: oops.Panic, fatal: true},
	{name: "sysrq", context: task, kind: oops.Panic, fatal: true, outside: true, function: "sysrq_handle_crash"},
	{name: "init", context: task, kind: oops.Panic, fatal: true, outside: true, function: "do_exit"},
}

// death is the way's truth with a text.
func (w way) death(k guest.Kernel, lines map[string]int, text string) Death {
	d := Death{Way: w.name, Context: w.context, Asked: w.context, Kind: string(w.kind), Function: w.function, Module: "fathom_deaths", Line: lines[w.name],
		Addr: w.addr, Access: w.access, Kernel: k.Release, Text: text, Inlined: w.inlined}
	switch {
	case w.outside:
		d.Module = ""
	case w.function == "":
		d.Function = "deaths_" + w.name
	}
	switch w.context {
	case kthread, work:
		d.Context = task
	}
	if w.name == "fortify" && !strings.HasPrefix(k.Release, "6.1.") {
		d.Kind = string(oops.Warning) // since 6.9 a WARN comes before the BUG (lib/string_helpers.c, __fortify_report)
	}
	return d
}
