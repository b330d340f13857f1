package core

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// stackOf reads a task's stack, from where it is used on; the whole of it with all.
func (s *Session) stackOf(t walk.Task, all bool) (at uint64, words []uint64, err error) {
	base := t.Value.Get("stack").Uint()
	if base == 0 {
		return 0, nil, fmt.Errorf("pid %d has no stack: it has exited", t.PID)
	}
	at = base
	if !all {
		sp := t.Value.Get("thread.sp").Uint()
		if r, ok := walk.Running(s.t, t); ok {
			sp = r["rsp"]
		}
		if sp > base && sp-base < stackBytes {
			at = sp &^ 7
		}
	}
	b := make([]byte, base+stackBytes-at)
	if err := s.t.ReadVirt(b, at); err != nil {
		return at, nil, err
	}
	for i := 0; i < len(b); i += 8 {
		words = append(words, binary.LittleEndian.Uint64(b[i:]))
	}
	return at, words, nil
}

// rawStack prints a task's stack as it is (bt -r).
func (s *Session) rawStack(w io.Writer, t walk.Task) error {
	at, words, err := s.stackOf(t, true)
	if err != nil {
		return err
	}
	return s.words(w, s.t.ReadVirt, at, len(words), 8, options{on: map[byte]bool{'s': true}}, nil)
}

// textOnStack prints whatever on a task's stack is an address of code (bt -t, -T): no table vouches for it, and some of it is old.
func (s *Session) textOnStack(w io.Writer, t walk.Task, all bool) error {
	at, words, err := s.stackOf(t, all)
	for i, v := range words {
		if y, ok := s.t.Symbols().At(v); ok && y.IsText() && v >= kernelImage && v > y.Addr {
			fmt.Fprintf(w, "    [%016x] %s at %016x\n", at+8*uint64(i), s.name(v-1, v), v)
		}
	}
	return err
}

// Registers of x86-64 in struct pt_regs, in order; its last five are what the CPU pushes.
var ptRegs = []string{"R15", "R14", "R13", "R12", "RBP", "RBX", "R11", "R10", "R9", "R8", "RAX", "RCX", "RDX", "RSI", "RDI", "ORIG_RAX", "RIP", "CS", "EFLAGS", "RSP", "SS"}

// Indices of registers there.
const (
	ptOrigRAX, ptRIP, ptCS, ptFlags, ptRSP, ptSS = 15, 16, 17, 18, 19, 20
)

// Selectors of segments (arch/x86/include/asm/segment.h).
const (
	kernelCS, kernelSS    = 0x10, 0x18
	userCS, userSS        = 0x33, 0x2b
	flagsFixed, flagsZero = 0x2, 0xffffffffffc08028 // bits that are always set, and never
)

// exceptionFrames prints what on a task's stack looks like registers that an exception, an interrupt or a system call left (bt -e).
func (s *Session) exceptionFrames(w io.Writer, t walk.Task) error {
	at, words, err := s.stackOf(t, true)
	if err != nil {
		return err
	}
	n := 0
	for i := 0; i+len(ptRegs) <= len(words); i++ {
		r := words[i : i+len(ptRegs)]
		mode := s.frameMode(r)
		if mode == "" {
			continue
		}
		n++
		fmt.Fprintf(w, "  %s-MODE EXCEPTION FRAME AT: %x\n", mode, at+8*uint64(i))
		s.printRegs(w, r)
	}
	if n == 0 {
		fmt.Fprintln(w, "  no exception frame")
	}
	return nil
}

// frameMode says if words may be a struct pt_regs, and of which mode: "" if they are none.
func (s *Session) frameMode(r []uint64) string {
	if r[ptFlags]&flagsFixed == 0 || r[ptFlags]&flagsZero != 0 {
		return ""
	}
	switch {
	case r[ptCS] == userCS && r[ptSS] == userSS && r[ptRIP] < 1<<47 && r[ptRSP] < 1<<47:
		return "USER"
	case r[ptCS] == kernelCS && (r[ptSS] == kernelSS || r[ptSS] == 0) && r[ptRSP] > 1<<47:
		if y, ok := s.t.Symbols().At(r[ptRIP]); ok && y.IsText() {
			return "KERNEL"
		}
	}
	return ""
}

func (s *Session) printRegs(w io.Writer, r []uint64) {
	fmt.Fprintf(w, "    [exception RIP: %s]\n", s.where(r[ptRIP]))
	for i, name := range []int{ptRIP, ptRSP, ptFlags, 10, 5, 11, 12, 13, 14, 4, 9, 8, 7, 6, 3, 2, 1, 0, ptOrigRAX, ptCS, ptSS} {
		end := "  "
		if i%3 == 2 {
			end = "\n"
		}
		fmt.Fprintf(w, "%12s: %016x%s", ptRegs[name], r[name], end)
	}
}

// where is a place in the code, or in a program.
func (s *Session) where(at uint64) string {
	if at < 1<<47 {
		return fmt.Sprintf("%#x of the program", at)
	}
	return s.name(at, at)
}

// stackMagic is STACK_END_MAGIC (include/uapi/linux/magic.h), the last word that a stack may grow to.
const stackMagic = 0x57AC6E9D

// overflows prints the tasks whose stacks have grown over their ends (bt -v).
func (s *Session) overflows(w io.Writer) error {
	tasks, err := s.allTasks()
	n := 0
	for _, t := range tasks {
		base := t.Value.Get("stack").Uint()
		errs := &kernel.Errors{}
		if magic := kernel.Object(s.t, errs, "unsigned long", base).Uint(); base == 0 || errs.First != nil || magic == stackMagic {
			continue
		}
		n++
		s.taskLine(w, t)
		fmt.Fprintf(w, "  the end of its stack at %016x is overwritten\n", base)
	}
	if n == 0 {
		fmt.Fprintln(w, "no stack has grown over its end")
	}
	return err
}
