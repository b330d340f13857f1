package oops

import (
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// opening is a line that begins an incident. Named groups fill the report: addr, access, detail, cpu, pid, comm.
type opening struct {
	kind Kind
	re   func() *regexp.Regexp
	// joins is set for lines that also follow the opening line of another kind, and then belong to it.
	joins bool
}

func op(k Kind, re string) opening   { return opening{kind: k, re: lazy(re)} }
func join(k Kind, re string) opening { return opening{k, lazy(re), true} }

// lazy gives a regular expression that is compiled when it is first used: most runs of fathom read no console text.
func lazy(re string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(re) })
}

// openings in the order they are tried: the first that fits decides.
var openings = []opening{
	op(NullDeref, `^BUG: kernel NULL pointer dereference, address: (?P<addr>[0-9a-f]+)`),
	op(NullDeref, `^BUG: unable to handle kernel NULL pointer dereference at (?:virtual address )?(?P<addr>[0-9a-f]+)`),
	op(NullDeref, `^Unable to handle kernel NULL pointer dereference at virtual address (?P<addr>[0-9a-f]+)`),
	op(StackGuard, `^BUG: (?:stack|\S+ stack) guard page was hit at (?:0x)?(?P<addr>[0-9a-f]+)`),
	op(StackGuard, `^BUG: TASK stack guard page was hit at (?P<addr>[0-9a-f]+)`),
	op(StackGuard, `^(?P<detail>Insufficient stack space to handle exception!)`),
	op(KASAN, `^BUG: KASAN: (?P<detail>\S.*?)(?: in (?P<where>\S+(?: \[\S+\])?))?$`),
	op(KMSAN, `^BUG: KMSAN: (?P<detail>\S.*?)(?: in (?P<where>\S+(?: \[\S+\])?))?$`),
	op(KCSAN, `^BUG: KCSAN: (?P<detail>\S.*?) in (?P<where>[^\s/]+)`),
	op(KFENCE, `^BUG: KFENCE: (?P<detail>\S.*?)(?: in (?P<where>\S+(?: \[\S+\])?))?$`),
	op(UBSAN, `^UBSAN: (?P<detail>.*)`),
	op(PageFault, `^BUG: unable to handle (?:page fault for address|kernel paging request at)(?: virtual address)?:? (?P<addr>[0-9a-f]+)`),
	op(PageFault, `^Unable to handle kernel (?:(?P<access>read|write|execute)\b.*|paging request) at (?:virtual )?address (?P<addr>[0-9a-f]+)`),
	op(UserAccess, `^Unable to handle kernel (?:access to|execution of) user memory\b.* at virtual address (?P<addr>[0-9a-f]+)`),
	op(AtomicSleep, `^BUG: sleeping function called from invalid context at (?P<detail>.*)`),
	op(AtomicSleep, `^BUG: scheduling while atomic: (?P<comm>.*)/(?P<pid>\d+)/(?P<detail>0x[0-9a-f]+)`),
	op(SoftLockup, `^(?:watchdog: )?BUG: soft lockup - CPU#(?P<cpu>\d+) stuck for (?P<detail>\S+?)!? *\[(?P<comm>.*):(?P<pid>\d+)\]`),
	op(HardLockup, `^(?:NMI )?(?:watchdog: )?(?:BUG: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu (?P<cpu>\d+)`),
	op(HungTask, `^(?:INFO: )?task (?P<comm>.*):(?P<pid>\d+) blocked (?:in I/O wait )?for more than (?P<detail>\d+ seconds)`),
	op(RCUStall, `^(?:rcu: )?INFO: \S+ (?:self-)?detected (?:expedited )?stalls? on CPUs?`),
	op(Lockdep, `^WARNING: (?P<detail>possible (?:circular|recursive) locking (?:dependency )?detected|possible irq lock inversion.*|inconsistent lock state|suspicious RCU usage|bad unlock balance detected!|held lock freed!|SOFTIRQ-safe -> .*|HARDIRQ-safe -> .*|lock held when returning to user space!|Nested lock was not taken)`),
	op(Lockdep, `^\[ BUG: (?P<detail>Invalid wait context|[A-Z].*) \]$`),
	op(OOM, `^(?P<comm>.*) invoked oom-killer: (?P<detail>.*)`),
	op(MachineCheck, `^(?:mce: )?\[Hardware Error\]: (?:Machine check events logged|CPU (?P<cpu>\d+): Machine Check.*)`),
	op(MachineCheck, `^SError Interrupt on CPU(?P<cpu>\d+), (?P<detail>code \S+)`),
	op(ListCorruption, `^(?P<detail>list_(?:add|del) corruption.*)`),
	op(StackProtector, `^Kernel panic - not syncing: (?P<detail>stack-protector: .*)`),
	op(DoubleFault, `^(?:traps: )?PANIC: double fault(?:, error_code: (?P<detail>\S+))?`),
	join(GPF, `^(?:Oops: )?general protection fault(?:, (?:probably|maybe) for (?P<detail>(?:non-canonical )?address) 0x(?P<addr>[0-9a-f]+))?`),
	join(DivideError, `^(?:Oops: )?divide error:`),
	join(StackGuard, `^(?:Oops: )?stack guard page:`),
	join(DoubleFault, `^(?:Oops: )?double fault:`),
	join(Bug, `^kernel BUG at (?P<detail>\S+?)!?$`),
	op(Warning, `^WARNING: (?:CPU: (?P<cpu>\d+) PID: (?P<pid>\d+) )?at (?P<detail>\S+)`),
	join(Bug, `^BUG: (?P<detail>.*)`),
	join(Bug, `^(?:Internal error: )?Oops - BUG:`),
	join(InvalidOpcode, `^(?:Oops: )?invalid opcode:`),
	join(InvalidOpcode, `^Internal error: Oops - Undefined instruction:`),
	join(GPF, `^(?:Oops: )?stack segment:`),                                 // the same check, of what RSP or RBP pointed to
	join(OtherOops, `^(?:Oops: )?[a-z][a-zA-Z0-9 ]*: [0-9a-f]{4} \[#\d+\]`), // the other names of arch/x86/kernel/traps.c: int3, alignment check
	join(OtherOops, `^(?:Internal error: )?Oops(?: - [^:]*)?: `),
	join(Panic, `^Kernel panic - not syncing: (?P<panic>.*)`),
}

// opens finds the opening that a line is.
func opens(line string) (*opening, map[string]string) {
	switch { // nearly all lines of a log end here
	case line == "", !strings.ContainsAny(line[:1], "BUKOWNISwmtgdiskPl[r") && !strings.Contains(line, "invoked oom-killer") && !strings.Contains(line, " [#"):
		return nil, nil
	}
	for i := range openings {
		o := &openings[i]
		m := o.re().FindStringSubmatch(line)
		if m == nil {
			continue
		}
		g := map[string]string{}
		for j, name := range o.re().SubexpNames() {
			if name != "" && m[j] != "" {
				g[name] = m[j]
			}
		}
		return o, g
	}
	return nil, nil
}

func (r *Report) fill(g map[string]string) {
	if s, ok := g["addr"]; ok && !r.HasAddr {
		if v, err := strconv.ParseUint(s, 16, 64); err == nil {
			r.Addr, r.HasAddr = v, true
		}
	}
	set := func(to *string, key string) {
		if *to == "" {
			*to = g[key]
		}
	}
	set(&r.Access, "access")
	set(&r.Detail, "detail")
	set(&r.Comm, "comm")
	set(&r.Panic, "panic")
	if n, err := strconv.Atoi(g["cpu"]); err == nil && r.CPU < 0 {
		r.CPU = n
	}
	if n, err := strconv.Atoi(g["pid"]); err == nil && r.PID < 0 {
		r.PID = n
	}
	if w := g["where"]; w != "" && r.RIP.IsZero() {
		r.RIP, _ = location(w)
	}
}
