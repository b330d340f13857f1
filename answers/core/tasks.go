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

// bt prints stacks: -a of what the CPUs run, -c of those named, -f with the memory of each frame, -l with source lines.
func (s *Session) bt(w io.Writer, args []string) error {
	o, err := parse(args, "afl", "c")
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
	case o.on['a'] || o.on['c']:
		if len(o.rest) > 0 {
			return &Usage{}
		}
		return s.btCPUs(w, o)
	case len(o.rest) == 0:
		t, st, err := s.crashed()
		if err == nil {
			s.printTask(w, t, st)
		}
		return err
	}
	for _, a := range o.rest {
		tasks, err := s.find(a)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			s.printTask(w, t, s.stack(t))
		}
	}
	return nil
}

func (s *Session) btCPUs(w io.Writer, o options) error {
	var want []string
	if o.on['c'] {
		want = strings.Split(o.val['c'], ",")
	}
	n := 0
	for _, cpu := range s.t.CPUs() {
		if o.on['c'] && !slices.Contains(want, fmt.Sprint(cpu)) {
			continue
		}
		n++
		t, err := walk.Executing(s.t, cpu)
		if err != nil {
			fmt.Fprintf(w, "CPU %d: %v\n", cpu, err)
			continue
		}
		s.printTask(w, t, s.stack(t))
	}
	if n == 0 {
		return fmt.Errorf("no CPU %s", o.val['c'])
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
		"sig": (*Session).sig, "task": (*Session).task, "bt": (*Session).bt, "ps": (*Session).ps}
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
		if rerr := commands[args[at]](s, w, append(slices.Clone(args[at+1:]), fmt.Sprintf("%#x", t.Addr))); err == nil {
			err = rerr // the others are shown nevertheless
		}
	}
	return err
}

// is says that a task is what foreach means by a word.
func is(t walk.Task, word string) bool {
	switch word {
	case "kernel":
		return t.Kernel
	case "user":
		return !t.Kernel
	case "active":
		return t.OnCPU
	case t.Comm, t.State, fmt.Sprint(t.PID), fmt.Sprintf("%x", t.Addr), fmt.Sprintf("%#x", t.Addr):
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

func (s *Session) waits(w io.Writer, _ []string) error {
	tasks, err := s.allTasks()
	waits := walk.MutexWaits(s.t, tasks)
	if len(waits) == 0 {
		fmt.Fprintln(w, "no task waits for a mutex")
	}
	s.printWaits(w, waits)
	return err
}

func (s *Session) printWaits(w io.Writer, waits []walk.Wait) {
	for _, x := range waits {
		by := "nobody holds it"
		if x.Owner != nil {
			by = fmt.Sprintf("held by pid %d %s", x.Owner.PID, x.Owner.Comm)
		}
		fmt.Fprintf(w, "  pid %d %s waits for mutex %s, %s\n", x.Task.PID, x.Task.Comm, s.data(x.Lock), by)
	}
	for _, c := range walk.Cycles(waits) {
		var who []string
		for _, x := range c {
			who = append(who, fmt.Sprintf("%d %s", x.Task.PID, x.Task.Comm))
		}
		fmt.Fprintf(w, "  DEADLOCK: %s → and round again\n", strings.Join(who, " → "))
	}
}

// data names an address of data: with its symbol, if it is of one.
func (s *Session) data(addr uint64) string {
	if y, ok := s.t.Symbols().At(addr); ok && addr-y.Addr < 4096 {
		return fmt.Sprintf("%#x (%s)", addr, s.name(addr, addr))
	}
	return fmt.Sprintf("%#x", addr)
}

func (s *Session) files(w io.Writer, args []string) error { return s.each(w, args, s.openFiles) }

func (s *Session) openFiles(w io.Writer, t walk.Task) error {
	files, err := walk.Files(t)
	for _, f := range files {
		fmt.Fprintf(w, "%4d %016x %10d  %s\n", f.FD, f.Addr, f.Inode, f.Path)
	}
	return err
}
