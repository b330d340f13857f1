// Package cause puts an incident that a kernel printed into words: why it happened, with the code disassembled, its operands
// valued, poison and taint named.
package cause

import (
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/debuginfo/disasm"
	"github.com/fathom-trace/fathom/oops"
)

// Oops is an incident explained.
type Oops struct {
	oops.Report
	Cause   string   // one sentence
	Operand string   // of the faulting instruction, with the registers' values: "0x28(%rax), RAX=0x0"
	Code    []Line   // disassembled; nil if there is none
	Taint   []string // letters in words
	Next    []string // commands that lead on

	operandAddr uint64
	hasOperand  bool
}

// Line is an instruction of Oops.Code.
type Line struct {
	Addr  uint64
	Text  string
	Fault bool
}

// Explain interprets a report. lab gives the name under which fathom lab boot knows a release, "" if it knows none; it may be nil.
func Explain(r oops.Report, lab func(release string) string) Oops {
	o := Oops{Report: r, Taint: Taint(r.Tainted)}
	o.disassemble()
	o.Cause = o.cause()
	o.Next = o.next(lab)
	return o
}

func (o *Oops) disassemble() {
	if len(o.Report.Code) == 0 || o.Fault < 0 {
		return
	}
	arch := disasm.AMD64
	if _, ok := o.Regs["x0"]; ok {
		arch = disasm.ARM64
	}
	ins, at := disasm.Around(arch, o.Report.Code, o.Fault, o.RIP.Off, nil)
	for i, in := range ins {
		if in.Addr > o.RIP.Off && i < at {
			continue // bytes before the function
		}
		o.Code = append(o.Code, Line{in.Addr, in.Text, i == at})
	}
	if at >= 0 {
		o.Operand, o.operandAddr, o.hasOperand = operand(ins[at].Mem, o.Regs)
	}
}

// operand writes a memory operand with the values of its registers and where that leads.
func operand(m *disasm.Mem, regs map[string]uint64) (text string, addr uint64, ok bool) {
	if m == nil || m.Base == "RIP" {
		return "", 0, false
	}
	sum, known := uint64(m.Disp), true
	var parts []string
	for _, r := range []struct {
		name  string
		scale uint64
	}{{m.Base, 1}, {m.Index, m.Scale}} {
		if r.name == "" {
			continue
		}
		v, ok := regs[kernelName(r.name)]
		if !ok {
			known = false
			continue
		}
		sum += v * r.scale
		parts = append(parts, fmt.Sprintf("%s=%#x", r.name, v))
	}
	if known {
		parts = append(parts, fmt.Sprintf("address %#x", sum))
	}
	return strings.Join(parts, ", "), sum, known
}

// kernelName is a register as show_regs prints it: R8 and R9 with a zero.
func kernelName(r string) string {
	if r == "R8" || r == "R9" {
		return "R0" + r[1:]
	}
	return r
}

// poison is memory that the kernel fills with a pattern (include/linux/poison.h).
var poison = []struct {
	from, to uint64
	means    string
}{
	{0xdead000000000100, 0xdead000000000121, "the next pointer of a list entry that was deleted (LIST_POISON1): used after list_del"},
	{0xdead000000000122, 0xdead000000000200, "the prev pointer of a list entry that was deleted (LIST_POISON2): used after list_del"},
	{0x6b6b6b6b6b6b6b00, 0x6b6b6b6b6b6c0000, "freed slab memory (POISON_FREE 0x6b): used after free"},
	{0x5a5a5a5a5a5a5a00, 0x5a5a5a5a5a5b0000, "slab memory that was never initialised (POISON_INUSE 0x5a)"},
	{0xa5a5a5a5a5a5a500, 0xa5a5a5a5a5a60000, "the end of freed slab memory (POISON_END 0xa5)"},
	{0xdead4ead00000000, 0xdead4eae00000000, "a spinlock's magic number"},
	{0xcccccccccccccc00, 0xcccccccccccd0000, "freed init memory (POISON_FREE_INITMEM 0xcc)"},
}

// Poison says what a pointer that is near one of the kernel's poison values means; "" if it is near none.
func Poison(addr uint64) string {
	for _, p := range poison {
		if addr >= p.from && addr < p.to {
			return p.means
		}
	}
	return ""
}

// pageOfNull is how far from null an access still is one of a member of a null pointer.
const pageOfNull = 4096

func (o *Oops) cause() string {
	where := o.place()
	verb := map[string]string{"read": "read", "write": "wrote to", "execute": "jumped to"}[o.Access]
	if verb == "" {
		verb = "accessed"
	}
	switch o.Kind {
	case oops.NullDeref:
		return o.nullCause(where, verb)
	case oops.PageFault:
		if p := Poison(o.Addr); p != "" {
			return fmt.Sprintf("%s %s %#x: %s", where, verb, o.Addr, p)
		}
		why := "where no page is mapped"
		if o.Detail != "" && o.Detail != "not-present page" {
			why = "which must not be accessed in that way (" + o.Detail + ")"
		}
		return fmt.Sprintf("%s %s %#x, %s", where, verb, o.Addr, why)
	case oops.UserAccess:
		return fmt.Sprintf("%s %s user memory at %#x without copy_from_user or copy_to_user (SMAP or SMEP stopped it)", where, verb, o.Addr)
	case oops.GPF:
		bad, ok := o.badPointer()
		if p := Poison(bad); ok && p != "" {
			return fmt.Sprintf("%s used %#x as a pointer: %s", where, bad, p)
		}
		if ok {
			return fmt.Sprintf("%s used %#x as a pointer, which is no address the CPU accepts: the pointer is corrupted or was never set", where, bad)
		}
		return where + " did what the CPU forbids: a bad pointer, segment or instruction"
	case oops.SoftLockup:
		return fmt.Sprintf("CPU %d ran %s (pid %d) in the kernel for %s without letting others run, in %s", o.CPU, o.Comm, o.PID, orElse(o.Detail, "too long"), where)
	case oops.HardLockup:
		return fmt.Sprintf("CPU %d took no interrupts for too long, in %s", o.CPU, where)
	case oops.HungTask:
		return fmt.Sprintf("task %s (pid %d) has waited uninterruptibly for more than %s, called from %s", o.Comm, o.PID, o.Detail, where)
	case oops.AtomicSleep:
		return fmt.Sprintf("%s slept, or might have, where sleeping is forbidden: a lock is held or interrupts are off (%s)", where, o.Detail)
	}
	return o.otherCause(where)
}

// badPointer is the address that is no address: that of the operand, from the registers, or, where there are none, what the
// kernel guessed ("maybe for address" is often wrong).
func (o *Oops) badPointer() (uint64, bool) {
	if o.hasOperand && !canonical(o.operandAddr) {
		return o.operandAddr, true
	}
	return o.Addr, o.HasAddr && !canonical(o.Addr)
}

// canonical says if all high bits are equal, with five levels of page tables too.
func canonical(a uint64) bool { return int64(a)>>56 == 0 || int64(a)>>56 == -1 }

func (o *Oops) otherCause(where string) string {
	switch o.Kind {
	case oops.Bug:
		return fmt.Sprintf("%s found a state that must not be and stopped: BUG at %s", where, orElse(o.Detail, "a place the text does not name"))
	case oops.Warning:
		return fmt.Sprintf("%s found something that should not be, warned and went on: %s", where, o.Detail)
	case oops.DivideError:
		return where + " divided by zero, or the quotient did not fit"
	case oops.StackGuard:
		return where + " used up the kernel stack: recursion without end, or frames too large"
	case oops.DoubleFault:
		return "an exception could not be delivered, most often because the kernel stack was used up, in " + where
	case oops.StackProtector:
		return "a function wrote over the end of an array on its stack: " + o.Detail
	case oops.ListCorruption:
		return fmt.Sprintf("%s found a linked list broken: %s; an entry was freed while on the list, deleted twice, or written over", where, o.Detail)
	case oops.InvalidOpcode:
		return where + " ran into bytes that are no instruction, or a BUG()"
	case oops.KASAN, oops.KFENCE:
		return fmt.Sprintf("%s made a bad memory access: %s", where, o.Detail)
	case oops.KMSAN:
		return fmt.Sprintf("%s used memory that nobody had written, or gave it away: %s", where, o.Detail)
	case oops.KCSAN:
		return fmt.Sprintf("%s and another CPU used the same memory at the same time, at least one writing, without a lock: %s", where, o.Detail)
	case oops.UBSAN:
		return fmt.Sprintf("%s did what C leaves undefined: %s", where, o.Detail)
	case oops.Lockdep:
		return "locks are taken in a way that can deadlock or is forbidden: " + o.Detail
	case oops.RCUStall:
		return fmt.Sprintf("a CPU kept RCU from ending a grace period: it ran without a pause in %s, or with interrupts off", where)
	case oops.OOM:
		return fmt.Sprintf("memory ran out when %s asked for more: %s", o.Comm, o.Detail)
	case oops.MachineCheck:
		return "the hardware reported an error of its own: memory, cache, bus or CPU"
	case oops.Panic:
		if strings.HasPrefix(o.Panic, "sysrq triggered crash") {
			return "somebody asked for it: sysrq-c, a deliberate crash"
		}
		return "the kernel gave up: " + o.Panic
	}
	return where + " failed: " + o.Title
}

func (o *Oops) nullCause(where, verb string) string {
	switch {
	case o.Access == "execute" || o.RIP.Symbol == "" && o.RIP.Addr < pageOfNull && o.Addr < pageOfNull && o.HasAddr && len(o.Stack) > 0 && o.RIP.Addr == o.Addr:
		return fmt.Sprintf("%s called a function through a pointer that is null", where)
	case o.Addr == 0:
		return fmt.Sprintf("%s %s a null pointer", where, verb)
	case o.Addr < pageOfNull:
		return fmt.Sprintf("%s %s the member at offset %#x of a null pointer", where, verb, o.Addr)
	}
	return fmt.Sprintf("%s %s %#x, close to null: a null pointer with a large or negative offset", where, verb, o.Addr)
}

// place is the function, with its module.
func (o *Oops) place() string {
	w := o.Where()
	if w.Symbol == "" {
		return "the kernel"
	}
	s := w.Symbol
	if w.Module != "" {
		s += " (module " + w.Module + ")"
	}
	return s
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// taints are the letters of "Tainted:" (kernel/panic.c, Documentation/admin-guide/tainted-kernels.rst).
var taints = map[rune]string{
	'P': "a proprietary module was loaded", 'F': "a module was forced to load", 'S': "the hardware is out of its specification",
	'R': "a module was forced to unload", 'M': "a machine check happened", 'B': "a page was found in a bad state",
	'U': "user space asked for this mark", 'D': "the kernel died before (an oops or BUG)", 'A': "an ACPI table was overridden",
	'W': "a warning came before", 'C': "a staging driver was loaded", 'I': "a firmware bug is worked around",
	'O': "a module from outside the kernel tree was loaded", 'E': "an unsigned module was loaded",
	'L': "a soft lockup happened before", 'K': "the kernel was live-patched", 'X': "the distribution's own mark",
	'T': "the kernel's structures are laid out randomly", 'N': "a test was run in the kernel", 'J': "a fwctl debugging command was used",
}

// Taint puts the letters into words; G, no proprietary module, is left out.
func Taint(letters string) []string {
	var out []string
	for _, c := range letters {
		if t, ok := taints[c]; ok {
			out = append(out, string(c)+": "+t)
		}
	}
	return out
}
