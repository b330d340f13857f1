package core

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel/unwind"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// bt prints stacks: -a of what the CPUs run, -c of those named, -g of all threads of a process; -f with the memory of each
// frame, -l with source lines. In the place of a stack: -e exception frames on it, -t or -T addresses of code on what of it is
// used or on all of it, -r its words; -v tells which stacks have grown over their ends.
func (s *Session) bt(w io.Writer, args []string) error {
	o, err := parse(args, "agfletTrvp", "cnR")
	if err != nil {
		return err
	}
	show, err := s.stackShower(o)
	if err != nil {
		return err
	}
	if o.on['l'] && !s.always {
		s.always = true
		defer func() { s.always = false }()
	}
	if o.on['f'] {
		s.frames = true
		defer func() { s.frames = false }()
	}
	switch {
	case o.on['v']:
		return s.overflows(w)
	case o.on['n'] && (o.val['n'] != "idle" || !o.on['a'] && !o.on['c']):
		return &Usage{"-n idle leaves idle CPUs out of -a and -c"}
	case o.on['a'] || o.on['c']:
		if len(o.rest) > 0 || o.on['g'] || o.on['p'] {
			return &Usage{}
		}
		return s.btCPUs(w, o, show)
	case len(o.rest) > 0 && o.on['p']:
		return &Usage{}
	}
	tasks, err := s.of(o.rest)
	if o.on['p'] {
		var dead walk.Task
		dead, _, err = s.crashed()
		tasks = []walk.Task{dead}
	}
	if err != nil {
		return err
	}
	for _, t := range tasks {
		threads := []walk.Task{t}
		if o.on['g'] {
			if threads, err = s.threads(t); err != nil {
				return err
			}
		}
		for _, th := range threads {
			if err := show(w, th); err != nil {
				return err
			}
		}
	}
	return nil
}

// stackShower is what bt shows of a task.
func (s *Session) stackShower(o options) (func(io.Writer, walk.Task) error, error) {
	instead := map[byte]func(io.Writer, walk.Task) error{'e': s.exceptionFrames, 'r': s.rawStack,
		't': func(w io.Writer, t walk.Task) error { return s.textOnStack(w, t, false) },
		'T': func(w io.Writer, t walk.Task) error { return s.textOnStack(w, t, true) }}
	n := 0
	show := func(w io.Writer, t walk.Task) error { s.printTask(w, t, s.stack(t)); return nil }
	for flag, f := range instead {
		if o.on[flag] {
			n++
			show = func(w io.Writer, t walk.Task) error {
				s.taskLine(w, t)
				return f(w, t)
			}
		}
	}
	if o.on['R'] {
		all := show
		show = func(w io.Writer, t walk.Task) error {
			if !slices.ContainsFunc(s.stack(t).Frames, func(f unwind.Frame) bool { return s.function(f) == o.val['R'] }) {
				return nil
			}
			return all(w, t)
		}
	}
	if n > 1 || n > 0 && (o.on['f'] || o.on['l']) || o.on['v'] && (len(o.on) > 1 || len(o.rest) > 0) {
		return nil, &Usage{"-e, -t, -T, -r and -v are instead of a stack, one at a time"}
	}
	return show, nil
}

func (s *Session) btCPUs(w io.Writer, o options, show func(io.Writer, walk.Task) error) error {
	cpus := s.t.CPUs()
	if o.on['c'] {
		var err error
		if cpus, err = s.cpus(o.val['c']); err != nil {
			return err
		}
	}
	for _, cpu := range cpus {
		t, err := walk.Executing(s.t, cpu)
		if err != nil {
			fmt.Fprintf(w, "CPU %d: %v\n", cpu, err)
			continue
		}
		if o.on['n'] && t.PID == 0 {
			continue
		}
		if err := show(w, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) printTask(w io.Writer, t walk.Task, st unwind.Stack) {
	fmt.Fprintf(w, "PID: %-6d TASK: %016x  CPU: %d  COMMAND: %q  STATE: %s\n", t.PID, t.Addr, t.CPU, t.Comm, t.State)
	s.printStack(w, st)
}

// foreach runs a command for every process, or those that are named before it: kernel, user, letters of states, PIDs,
// addresses, names.
func (s *Session) foreach(w io.Writer, args []string) error {
	commands := map[string]func(*Session, io.Writer, []string) error{"files": (*Session).files, "vm": (*Session).vm,
		"sig": (*Session).sig, "task": (*Session).task, "bt": (*Session).bt, "ps": (*Session).ps, "net": (*Session).net}
	at := slices.IndexFunc(args, func(a string) bool { return commands[a] != nil })
	if at < 0 {
		return &Usage{}
	}
	tasks, err := s.allTasks()
	tasks = slices.DeleteFunc(slices.Clone(tasks), func(t walk.Task) bool {
		return at > 0 && !slices.ContainsFunc(args[:at], func(a string) bool { return is(t, a) })
	})
	if len(tasks) == 0 && err == nil {
		return fmt.Errorf("no task is %s", strings.Join(args[:at], " or "))
	}
	if args[at] == "bt" && len(args) == at+1 {
		s.groups(w, tasks)
		return err
	}
	for _, t := range tasks {
		if t.PID != t.TGID {
			continue
		}
		flags := args[at+1:]
		if args[at] == "net" && len(flags) == 0 {
			flags = []string{"-s"}
		}
		if rerr := commands[args[at]](s, w, append(slices.Clone(flags), fmt.Sprintf("%#x", t.Addr))); err == nil {
			err = rerr // the others are shown nevertheless
		}
	}
	return err
}

// stateNames are what crash calls the states.
var stateNames = map[string]string{"R": "RU", "S": "IN", "D": "UN", "Z": "ZO", "X": "DE", "T": "ST", "t": "TR", "P": "PA", "I": "ID"}

// is says that a task is what foreach means by a word.
func is(t walk.Task, word string) bool {
	switch word {
	case "kernel":
		return t.Kernel
	case "user":
		return !t.Kernel
	case "active":
		return t.OnCPU
	case t.Comm, t.State, stateNames[t.State], fmt.Sprint(t.PID), fmt.Sprintf("%x", t.Addr), fmt.Sprintf("%#x", t.Addr):
		return true
	}
	return false
}

// groups prints equal stacks once, with the tasks that have them; the largest group first.
func (s *Session) groups(w io.Writer, tasks []walk.Task) {
	type group struct {
		key   string
		st    unwind.Stack
		tasks []walk.Task
	}
	byKey := map[string]*group{}
	var all []*group
	for _, t := range tasks {
		st := s.stack(t)
		var key strings.Builder
		for _, f := range st.Frames {
			fmt.Fprintf(&key, "%x ", f.PC)
		}
		fmt.Fprint(&key, st.End)
		g := byKey[key.String()]
		if g == nil {
			g = &group{key: key.String(), st: st}
			byKey[g.key] = g
			all = append(all, g)
		}
		g.tasks = append(g.tasks, t)
	}
	sorting.Stable(all, func(a, b *group) int { return len(b.tasks) - len(a.tasks) })
	for _, g := range all {
		var who []string
		for _, t := range g.tasks {
			who = append(who, fmt.Sprintf("%s:%d", t.Comm, t.PID))
		}
		fmt.Fprintf(w, "%s: %s\n", plural(len(g.tasks), "task"), strings.Join(who, " "))
		s.printStack(w, g.st)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// data names an address of data: with its symbol, if it is of one.
func (s *Session) data(addr uint64) string {
	if y, ok := s.t.Symbols().At(addr); ok && addr-y.Addr < 4096 {
		return fmt.Sprintf("%#x (%s)", addr, s.name(addr, addr))
	}
	return fmt.Sprintf("%#x", addr)
}
