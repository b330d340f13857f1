// Package explain tells what something that a kernel printed means, for people and as data.
package explain

import (
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/internal/jsonl"
	"github.com/fathom-trace/fathom/oops"
	"github.com/fathom-trace/fathom/oops/cause"
)

// Oopses are the incidents of a text, explained; for lab see [cause.Explain].
func Oopses(text []byte, lab func(release string) string) []cause.Oops {
	var out []cause.Oops
	for _, r := range oops.Parse(text) {
		out = append(out, cause.Explain(r, lab))
	}
	return out
}

// Sources says where in the source a location of a report is, the innermost inlined function first; call says that it is a
// return address. It is nil where nobody knows.
type Sources func(r *oops.Report, l oops.Location, call bool) []string

func (s Sources) of(r *oops.Report, l oops.Location, call bool) []string {
	if s == nil || l.Symbol == "" {
		return nil
	}
	return s(r, l, call)
}

// Text writes incidents for people: the first in full, the others in a line each, all in full if all is set.
func Text(w io.Writer, list []cause.Oops, all bool, src Sources) {
	for i, o := range list {
		if i > 0 && !all {
			fmt.Fprintf(w, "later, line %d: %s: %s\n", o.Line, o.Report.Kind, o.Cause)
			continue
		}
		one(w, o, src)
	}
	if n := len(list); n > 1 && !all {
		fmt.Fprintf(w, "%d incidents; the first is the one to read: what follows runs on what it broke (--all shows each)\n", n)
	}
}

func one(w io.Writer, o cause.Oops, src Sources) {
	fmt.Fprintf(w, "%s (line %d)\n  why    %s\n  said   %s\n", o.Report.Kind, o.Line, o.Cause, o.Title)
	if o.Panic != "" && o.Report.Kind != oops.Panic {
		fmt.Fprintf(w, "  panic  %s\n", o.Panic)
	}
	if o.Comm != "" {
		fmt.Fprintf(w, "  who    %s, pid %d%s, in %s context\n", o.Comm, o.PID, onCPU(o.CPU), o.Context)
	}
	if m := o.Guilty(); m != "" {
		fmt.Fprintf(w, "  module %s\n", m)
	}
	if o.Release != "" {
		fmt.Fprintf(w, "  kernel %s\n", o.Release)
	}
	for _, t := range o.Taint {
		fmt.Fprintf(w, "  taint  %s\n", t)
	}
	if o.RIP.Symbol != "" {
		fmt.Fprintf(w, "  at     %s\n", place(o.RIP))
		lines(w, src.of(&o.Report, o.RIP, false))
	}
	for _, l := range o.Code {
		mark := "     "
		if l.Fault {
			mark = "---> "
		}
		fmt.Fprintf(w, "  %s  +%#-6x %s", mark, l.Addr, l.Text)
		if l.Fault && o.Operand != "" {
			fmt.Fprintf(w, "    # %s", o.Operand)
		}
		fmt.Fprintln(w)
	}
	stack(w, o, src)
	for _, n := range o.Next {
		fmt.Fprintf(w, "  try    %s\n", n)
	}
}

func onCPU(cpu int) string {
	if cpu < 0 {
		return ""
	}
	return fmt.Sprintf(" on CPU %d", cpu)
}

// stack leaves out what was only found on the stack, and counts it.
func stack(w io.Writer, o cause.Oops, src Sources) {
	unsure := 0
	for _, f := range o.Stack {
		switch {
		case f.Unsure:
			unsure++
		case f.Regs && f.Symbol == "":
			fmt.Fprintf(w, "  stack  user mode, %#x\n", f.Addr)
		case f.Regs:
			fmt.Fprintf(w, "  stack  -- interrupted %s --\n", place(f.Location))
			lines(w, src.of(&o.Report, f.Location, false))
		default:
			fmt.Fprintf(w, "  stack  %s\n", place(f.Location))
			lines(w, src.of(&o.Report, f.Location, true))
		}
	}
	if unsure > 0 {
		fmt.Fprintf(w, "         %d more addresses lay on the stack and are no calls for certain (?)\n", unsure)
	}
}

func lines(w io.Writer, lines []string) {
	for _, l := range lines {
		fmt.Fprintf(w, "           %s\n", l)
	}
}

func place(l oops.Location) string {
	if l.Symbol == "" {
		return fmt.Sprintf("%#x", l.Addr)
	}
	s := l.Symbol
	if l.Size > 0 {
		s = fmt.Sprintf("%s+%#x/%#x", l.Symbol, l.Off, l.Size)
	}
	if l.Module != "" {
		s += " [" + l.Module + "]"
	}
	return s
}

// line is an incident as JSON. Addresses are numbers, registers by the kernel's names.
type line struct {
	Type     string            `json:"type"`
	Kind     oops.Kind         `json:"kind"`
	Line     int               `json:"line"`
	Title    string            `json:"title"`
	Cause    string            `json:"cause"`
	Address  *uint64           `json:"address,omitempty"`
	Access   string            `json:"access,omitempty"`
	CPU      *int              `json:"cpu,omitempty"`
	PID      *int              `json:"pid,omitempty"`
	Comm     string            `json:"comm,omitempty"`
	Context  string            `json:"context"`
	Kernel   string            `json:"kernel,omitempty"`
	Tainted  string            `json:"tainted,omitempty"`
	Module   string            `json:"module,omitempty"`
	Function string            `json:"function,omitempty"`
	Offset   uint64            `json:"offset,omitempty"`
	Insn     string            `json:"instruction,omitempty"`
	Operand  string            `json:"operand,omitempty"`
	Regs     map[string]uint64 `json:"registers,omitempty"`
	Stack    []string          `json:"stack,omitempty"`
	Panic    string            `json:"panic,omitempty"`
	Source   []string          `json:"source,omitempty"` // of the instruction: "function at file:line", inlined ones first
	Try      []string          `json:"try,omitempty"`    // commands that lead on
}

// JSON writes one object a line.
func JSON(w io.Writer, list []cause.Oops, src Sources) error {
	enc := jsonl.NewEncoder(w)
	for _, o := range list {
		where := o.Where()
		l := line{Type: "oops", Kind: o.Report.Kind, Line: o.Line, Title: o.Title, Cause: o.Cause, Access: o.Access, Comm: o.Comm,
			Context: o.Context, Kernel: o.Release, Tainted: o.Tainted, Module: o.Guilty(), Function: where.Symbol, Offset: where.Off,
			Operand: o.Operand, Regs: o.Regs, Panic: o.Panic, Source: src.of(&o.Report, where, o.Calls()), Try: o.Next}
		if o.HasAddr {
			l.Address = &o.Addr
		}
		if o.CPU >= 0 {
			l.CPU = &o.CPU
		}
		if o.PID >= 0 {
			l.PID = &o.PID
		}
		for _, c := range o.Code {
			if c.Fault {
				l.Insn = c.Text
			}
		}
		for _, f := range o.Stack {
			if !f.Unsure && !f.Regs {
				l.Stack = append(l.Stack, place(f.Location))
			}
		}
		if err := enc.Encode(l); err != nil {
			return err
		}
	}
	return nil
}
