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

func (s *Session) bt(w io.Writer, args []string) error {
	if slices.Contains(args, "-a") {
		for _, cpu := range s.t.CPUs() {
			t, err := walk.Executing(s.t, cpu)
			if err != nil {
				fmt.Fprintf(w, "CPU %d: %v\n", cpu, err)
				continue
			}
			s.printTask(w, t, s.stack(t))
		}
		return nil
	}
	if len(args) == 0 {
		t, st, err := s.crashed()
		if err == nil {
			s.printTask(w, t, st)
		}
		return err
	}
	for _, a := range args {
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

func (s *Session) printTask(w io.Writer, t walk.Task, st unwind.Stack) {
	fmt.Fprintf(w, "PID: %-6d TASK: %016x  CPU: %d  COMMAND: %q  STATE: %s\n", t.PID, t.Addr, t.CPU, t.Comm, t.State)
	s.printStack(w, st)
}

func (s *Session) foreach(w io.Writer, args []string) error {
	if len(args) == 0 {
		return &Usage{}
	}
	tasks, err := s.allTasks()
	run := map[string]func(*Session, io.Writer, []string) error{"files": (*Session).files, "vm": (*Session).vm, "sig": (*Session).sig, "task": (*Session).task}[args[0]]
	switch {
	case args[0] == "bt" && len(args) == 1:
		s.groups(w, tasks)
		return err
	case run == nil:
		return &Usage{}
	}
	for _, t := range tasks {
		if t.PID != t.TGID {
			continue
		}
		if rerr := run(s, w, append([]string{fmt.Sprintf("%#x", t.Addr)}, args[1:]...)); err == nil {
			err = rerr // the others are shown nevertheless
		}
	}
	return err
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

func (s *Session) ps(w io.Writer, args []string) error {
	tasks, err := s.allTasks()
	var want []string
	kernel, user := true, true
	for _, a := range args {
		switch a {
		case "-k":
			user = false
		case "-u":
			kernel = false
		default:
			want = append(want, a)
		}
	}
	fmt.Fprintf(w, "   %7s %7s %3s %-16s %2s %9s %9s  %s\n", "PID", "PPID", "CPU", "TASK", "ST", "VSZ", "RSS", "COMM")
	n := 0
	for _, t := range tasks {
		if t.Kernel && !kernel || !t.Kernel && !user || len(want) > 0 && !slices.Contains(want, t.Comm) && !slices.Contains(want, fmt.Sprint(t.PID)) {
			continue
		}
		mark, comm := ' ', t.Comm
		if _, ok := walk.Running(s.t, t); ok {
			mark = '>'
		}
		if t.Kernel {
			comm = "[" + comm + "]"
		}
		fmt.Fprintf(w, "%c  %7d %7d %3d %016x %2s %9d %9d  %s\n", mark, t.PID, t.PPID, t.CPU, t.Addr, t.State, t.VM*4, t.RSS*4, comm)
		n++
	}
	if n == 0 && len(want) > 0 && err == nil {
		return fmt.Errorf("no task %s", strings.Join(want, " "))
	}
	return err
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
