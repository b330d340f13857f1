package defs

import (
	"io"
	"strings"
)

// Way is a way to attach a program to something in the kernel, as `fathom trace` names it.
type Way string

// The ways there are.
const (
	Tracepoint Way = "tracepoint"
	Raw        Way = "rawtracepoint"
	Fentry     Way = "fentry"
	Kprobe     Way = "kprobe"
)

// Probe is a place to attach to, and what is to be had there.
type Probe struct {
	Spec string `json:"probe"` // as `fathom trace` takes it
	Way  Way    `json:"way"`
	// Here is "yes", "no" or "unknown", and Why says why it is not "yes".
	Here   string `json:"here"`
	Why    string `json:"why,omitempty"`
	Args   string `json:"args"`
	Cost   string `json:"cost"`
	Stable string `json:"stable"`
}

// traits are what is so of a way on every kernel.
var traits = map[Way]struct{ args, cost, stable string }{
	Tracepoint: {"the fields of its format, copied for it", "a static branch while off; on, the record is put together first",
		"kept from release to release; fields are added, seldom taken away"},
	Raw:    {"the kernel's own arguments, structs by BTF", "a static branch while off; the cheapest of all when on", "the name is kept; arguments follow the kernel's code"},
	Fentry: {"the function's arguments by BTF, at fexit with its result", "a call patched into the function: little more than a raw tracepoint", "none: functions come, go and are inlined"},
	Kprobe: {"the registers; arguments by BTF where the function's are known", "through ftrace at a function's start; a trap within it, some times dearer", "none: functions come, go and are inlined"},
}

// probe describes a way at a place. Not is why this place is not to be had that way though the kernel has it; "" if nothing is
// against it.
func (s *Source) probe(w Way, target, not string) Probe {
	t := traits[w]
	p := Probe{Spec: string(w) + ":" + target, Way: w, Here: "yes", Args: t.args, Cost: t.cost, Stable: t.stable}
	switch {
	case not != "":
		p.Here, p.Why = "no", not
	case s.Works == nil:
		p.Here, p.Why = "unknown", "trying it takes root: sudo fathom explain probe"
	default:
		if err := s.Works(w); err != nil {
			p.Here, p.Why = "no", strings.ReplaceAll(err.Error(), "\n", "; ")
		}
	}
	return p
}

// atFunction are the ways to attach to a function.
func (s *Source) atFunction(f *Function) []Probe {
	fentry, kprobe := f.Against, ""
	if f.kprobes {
		kprobe = f.Against
	}
	if f.Prototype == "" && fentry == "" {
		fentry = "its prototype is not in BTF"
	}
	return []Probe{s.probe(Fentry, f.Name, fentry), s.probe(Kprobe, f.Name, kprobe)}
}

// Choice is every way to attach to something, side by side.
type Choice struct {
	Of     string  `json:"of"`
	Probes []Probe `json:"probes"`
}

// Probes gives the ways to attach to what a name means: a tracepoint (SYSTEM:NAME), a system call, or a function, with or
// without a provider of probes in front. The error is [ErrUnknown] if it means nothing.
func (s *Source) Probes(name string) (*Choice, error) {
	for _, p := range []string{"tracepoint:", "rawtracepoint:", "raw_tracepoint:", "kprobe:", "kretprobe:", "fentry:", "fexit:", "kfunc:", "kretfunc:"} {
		name = strings.TrimPrefix(name, p)
	}
	if system, event, ok := strings.Cut(name, ":"); ok {
		e, err := s.Event(system, event)
		if err != nil {
			return nil, err
		}
		return &Choice{name, e.Probes}, nil
	}
	if c, err := s.Syscall(name); err == nil && !c.Absent {
		return &Choice{"system call " + c.Name, c.Probes}, nil
	}
	f, err := s.Function(name)
	if err != nil {
		return nil, err
	}
	return &Choice{"function " + name, f.Probes}, nil
}

// Text writes the ways one below the other.
func (c *Choice) Text(out io.Writer) error {
	w := &writer{w: out}
	w.printf("%s\n", c.Of)
	w.probes(c.Probes)
	return w.err
}
