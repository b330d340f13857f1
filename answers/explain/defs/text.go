package defs

import (
	"fmt"
	"io"
	"strings"
)

// writer writes lines and keeps the first error.
type writer struct {
	w   io.Writer
	err error
}

func (w *writer) printf(format string, args ...any) {
	if w.err == nil {
		_, w.err = fmt.Fprintf(w.w, format, args...)
	}
}

// row writes a line with a word in front; nothing if there is nothing to be said.
func (w *writer) row(word, text string) {
	if text != "" {
		w.printf("  %-10s %s\n", word, text)
	}
}

func (p *Place) String() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

// Text writes what there is to say of a system call; asm adds how a program makes the call.
func (c *Syscall) Text(out io.Writer, asm bool) error {
	w := &writer{w: out}
	var args []string
	for _, a := range c.Args {
		t := a.Type
		if a.User && strings.HasSuffix(t, "*") {
			t = strings.TrimSpace(strings.TrimSuffix(t, "*")) + " __user *"
		}
		args = append(args, strings.ReplaceAll(t+" "+a.Name, "* ", "*"))
	}
	w.printf("%s(%s), system call %d of %s\n", c.Name, strings.Join(args, ", "), c.Number, c.Arch)
	w.row("defined", c.At.String())
	if c.Absent {
		w.row("absent", "this kernel does not have it: it gives ENOSYS")
	}
	switch {
	case c.ArgsFrom != "":
		w.row("arguments", "by "+c.ArgsFrom)
	case c.Absent:
		w.row("arguments", "of a call that is not there no event tells; --tree DIR has them")
	default:
		w.row("arguments", "not known here: tracefs, which root can read, or --tree DIR has them")
	}
	w.printf("  %-10s %s = %d", "registers", c.ABI.Number, c.Number)
	for _, a := range c.Args {
		w.printf(", %s = %s", a.Register, a.Name)
	}
	w.printf("; %s; %s = result or -errno", c.ABI.Instruction, c.ABI.Result)
	if len(c.ABI.Lost) > 0 {
		w.printf("; %s lost", strings.Join(c.ABI.Lost, " and "))
	}
	w.printf("\n")
	w.row("path", strings.Join(c.Path, " → "))
	user := false
	for _, a := range c.Args {
		user = user || a.User
	}
	if user {
		w.row("memory", "pointers are the program's: the kernel copies by copy_from_user and copy_to_user, which can fail (EFAULT)")
	}
	if asm {
		w.printf("\n")
		for _, l := range c.Assembly() {
			w.printf("  %s\n", strings.TrimRight(l, " "))
		}
	}
	w.probes(c.Probes)
	return w.err
}

// Text writes what there is to say of a function.
func (f *Function) Text(out io.Writer) error {
	w := &writer{w: out}
	if f.Prototype != "" {
		w.printf("%s\n", f.Prototype)
	} else {
		w.printf("%s (no prototype in BTF)\n", f.Name)
	}
	w.row("defined", f.At.String())
	w.row("module", f.Module)
	if f.Against != "" {
		w.row("not traced", f.Against)
		w.row("instead", strings.Join(f.Instead, " "))
	}
	if len(f.Parts) > 0 {
		w.row("made of it", strings.Join(f.Parts, " ")+": a probe at "+f.Name+" does not see these")
	}
	w.probes(f.Probes)
	return w.err
}

// Text writes what there is to say of a tracepoint.
func (e *Event) Text(out io.Writer) error {
	w := &writer{w: out}
	w.printf("%s:%s\n", e.System, e.Name)
	for _, f := range e.Fields {
		w.printf("  %4d %4d  %s %s\n", f.Off, f.Size, f.Type, f.Name)
	}
	w.row("printed as", e.Print)
	w.row("raw", strings.Join(e.Raw, ", "))
	w.probes(e.Probes)
	return w.err
}

// probes writes a table of what can be attached to.
func (w *writer) probes(ps []Probe) {
	if len(ps) > 0 {
		w.printf("\n")
	}
	for _, p := range ps {
		here := p.Here
		if p.Why != "" {
			here += ", " + p.Why
		}
		w.printf("  %s\n", p.Spec)
		w.row("  here", here)
		w.row("  sees", p.Args)
		w.row("  costs", p.Cost)
		w.row("  stable", p.Stable)
	}
}

// Line writes what there is to say of a drop reason.
func (d *Drop) Line(out io.Writer) error {
	number := "not in this kernel's types"
	if d.Number >= 0 {
		number = fmt.Sprintf("number %d in this kernel", d.Number)
	}
	text := d.Text
	if text == "" {
		text = "the kernel names it, and there are no words for it here"
	}
	_, err := fmt.Fprintf(out, "%s (%s): %s\n", d.Name, number, text)
	return err
}
