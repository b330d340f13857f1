package record

import (
	"errors"
	"fmt"
	"path"
	"runtime"
	"strconv"
	"strings"

	"github.com/fathom-trace/fathom/internal/sysno"
	"github.com/fathom-trace/fathom/tracefs"
	"github.com/fathom-trace/fathom/usersym"
)

// probeKinds are the specs that make an event, and what the kernel calls the kind.
var probeKinds = map[string]string{"kprobe": "p", "kretprobe": "r", "uprobe": "p", "uretprobe": "r"}

// syscallKind begins specs of system calls by their names.
const syscallKind = "syscall"

// kind is what stands before the first colon, if it is no system of events.
func (s Spec) kind() string {
	k, _, ok := strings.Cut(s.Pattern, ":")
	if ok && (k == syscallKind || probeKinds[k] != "") {
		return k
	}
	return ""
}

// madeProbe is an event that was made for a spec.
type madeProbe struct {
	spec Spec
	kind string
}

// expand turns specs of system calls into those of the two events that all calls have, and makes the events of probes.
func (r *Recorder) expand(specs []Spec) ([]Spec, error) {
	out, err := syscallSpecs(specs)
	if err != nil {
		return nil, err
	}
	for i, s := range out {
		if s.kind() == "" {
			continue
		}
		e, err := r.makeProbe(s)
		if err != nil {
			return nil, err
		}
		out[i] = Spec{Pattern: e.String(), Filter: s.Filter}
	}
	return out, nil
}

// makeProbe makes the event of a kprobe or uprobe.
func (r *Recorder) makeProbe(s Spec) (tracefs.Event, error) {
	for e, p := range r.probes { // enabled once more
		if p.spec == s {
			return e, nil
		}
	}
	kind, rest, _ := strings.Cut(s.Pattern, ":")
	target, args, _ := strings.Cut(rest, " ")
	name := target
	if strings.HasPrefix(kind, "u") {
		colon := strings.LastIndex(target, ":") // paths may have some
		if colon < 0 {
			return tracefs.Event{}, fmt.Errorf("%s: which function? uprobe:PATH:FUNCTION", s.Pattern)
		}
		file, symbol := target[:colon], target[colon+1:]
		off, file, err := place(file, symbol)
		if err != nil {
			return tracefs.Event{}, err
		}
		target, name = fmt.Sprintf("%s:0x%x", file, off), path.Base(file)+"_"+symbol
	}
	if r.dynamic == nil {
		var err error
		if r.dynamic, err = r.fs.NewDynamic(r.o.Leases); err != nil {
			return tracefs.Event{}, err
		}
	}
	if probeKinds[kind] == "r" {
		name += "_return"
	}
	e, err := r.dynamic.Add(probeKinds[kind], name, target, args)
	if err != nil {
		return e, err
	}
	if r.probes == nil {
		r.probes = map[tracefs.Event]madeProbe{}
	}
	r.probes[e] = madeProbe{s, kind}
	return e, nil
}

// place finds where in a file a function begins; symbol may be the place as a number.
func place(file, symbol string) (off uint64, name string, err error) {
	u := usersym.New(usersym.Options{})
	defer u.Close()
	if found, ok := u.FindBinary(file, 0); ok {
		file = found
	}
	if n, err := strconv.ParseUint(symbol, 0, 64); err == nil {
		return n, file, nil
	}
	off, _, _, ok := u.SymbolAddr(file, symbol)
	if !ok || off == 0 {
		return 0, file, fmt.Errorf("uprobe:%s:%s: no such function", file, symbol)
	}
	return off, file, nil
}

// syscallSpecs replaces specs "syscall:openat" and "syscall:*at" by the events raw_syscalls:sys_enter and sys_exit, with a
// condition that takes all these calls.
func syscallSpecs(specs []Spec) ([]Spec, error) {
	var out []Spec
	var conds []string
	for _, s := range specs {
		if s.kind() != syscallKind {
			out = append(out, s)
			continue
		}
		_, pattern, _ := strings.Cut(s.Pattern, ":")
		numbers, err := syscallNumbers(pattern)
		if err != nil {
			return nil, err
		}
		var ids []string
		for _, n := range numbers {
			ids = append(ids, fmt.Sprintf("id == %d", n))
		}
		cond := strings.Join(ids, " || ")
		if s.Filter != "" {
			cond = fmt.Sprintf("(%s) && (%s)", cond, s.Filter)
		}
		conds = append(conds, cond)
	}
	if len(conds) == 0 {
		return out, nil
	}
	all := conds[0]
	if len(conds) > 1 {
		all = "(" + strings.Join(conds, ") || (") + ")"
	}
	return append(out, Spec{"raw_syscalls:sys_enter", all}, Spec{"raw_syscalls:sys_exit", all}), nil
}

// mostSyscalls bounds a condition: the kernel's are of at most a page.
const mostSyscalls = 200

// syscallNumbers finds the calls that a pattern means.
func syscallNumbers(pattern string) (out []int, err error) {
	for n := range uint64(1024) {
		name := sysno.Name(runtime.GOARCH, n)
		if ok, err := path.Match(pattern, name); err != nil {
			return nil, fmt.Errorf("syscall:%s: %w", pattern, err)
		} else if ok && name != "" {
			out = append(out, int(n))
		}
	}
	switch {
	case len(out) == 0:
		return nil, fmt.Errorf("syscall:%s: no such system call", pattern)
	case len(out) > mostSyscalls:
		return nil, errors.New("that many system calls are all: -e raw_syscalls")
	}
	return out, nil
}

// IsSyscall says if a spec means system calls by name. Such specs share two events: they are to be enabled together.
func (s Spec) IsSyscall() bool { return s.kind() == syscallKind }

// named gives events of probes the names by which people know them; dir is where the kernel has them.
func (r *Recorder) named(events []Event) []Event {
	for i, e := range events {
		if p, ok := r.probes[tracefs.Event{System: e.System, Name: e.Name}]; ok {
			events[i].group, events[i].System = e.System, p.kind
		}
	}
	return events
}

// Stacks are whose stacks are recorded with each event.
type Stacks struct{ Kernel, User bool }

// stackEvents are the records that the kernel puts behind an event, and the option that has it do so.
var stackEvents = []struct {
	name, option string
	wanted       func(Stacks) bool
}{
	{"kernel_stack", "stacktrace", func(s Stacks) bool { return s.Kernel }},
	{"user_stack", "userstacktrace", func(s Stacks) bool { return s.User }},
}

// stacks describes the records of stacks that are wanted.
func (r *Recorder) stacks() (out []Event, err error) {
	for _, k := range stackEvents {
		if !k.wanted(r.o.Stacks) {
			continue
		}
		e, err := describe(r.fs, tracefs.Event{System: "ftrace", Name: k.name})
		if err != nil {
			return nil, err
		}
		e.option = k.option
		out = append(out, e)
	}
	return out, nil
}
