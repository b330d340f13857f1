package core

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/fathom-trace/fathom/kernel/walk"
)

// of gives the tasks that an argument means, or without one the one that was chosen, or died.
func (s *Session) of(args []string) ([]walk.Task, error) {
	if len(args) == 0 {
		t, err := s.current()
		return []walk.Task{t}, err
	}
	var out []walk.Task
	for _, a := range args {
		ts, err := s.find(a)
		if err != nil {
			return nil, err
		}
		out = append(out, ts...)
	}
	return out, nil
}

// each runs a command for the tasks that its arguments mean.
func (s *Session) each(w io.Writer, args []string, show func(io.Writer, walk.Task) error) error {
	tasks, err := s.of(args)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		s.taskLine(w, t)
		if err := show(w, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) taskLine(w io.Writer, t walk.Task) {
	fmt.Fprintf(w, "PID: %-6d TASK: %016x  CPU: %d  COMMAND: %q\n", t.PID, t.Addr, t.CPU, t.Comm)
}

// task prints the struct task_struct of tasks, or members of it (-R).
func (s *Session) task(w io.Writer, args []string) error {
	members := ""
	if i := slices.Index(args, "-R"); i >= 0 {
		if i+1 == len(args) {
			return &Usage{}
		}
		members = "." + args[i+1]
		args = slices.Delete(slices.Clone(args), i, i+2)
	}
	return s.each(w, args, func(w io.Writer, t walk.Task) error {
		return s.structure(w, []string{"task_struct" + members, fmt.Sprintf("%#x", t.Addr)})
	})
}

// timer prints the timers of the wheel, or the high resolution timers (-r).
func (s *Session) timer(w io.Writer, args []string) error {
	if len(args) == 0 {
		return s.wheel(w)
	}
	if len(args) != 1 || args[0] != "-r" {
		return &Usage{}
	}
	timers, err := walk.Timers(s.t)
	fmt.Fprintf(w, "%3s %5s %20s %20s  %-16s %s\n", "CPU", "CLOCK", "SOFTEXPIRES", "EXPIRES", "HRTIMER", "FUNCTION")
	for _, x := range timers {
		fmt.Fprintf(w, "%3d %5d %20d %20d  %016x %s\n", x.CPU, x.Clock, x.Soft, x.Expires, x.Addr, s.name(x.Function, x.Function))
	}
	return err
}

// ipcs prints the objects of System V IPC: -s semaphores, -m shared memory, -q message queues; all without a flag.
func (s *Session) ipcs(w io.Writer, args []string) error {
	o, err := parse(args, "smq", "")
	if err != nil || len(o.rest) > 0 {
		return cmp.Or(err, error(&Usage{}))
	}
	all, err := walk.IPC(s.t)
	fmt.Fprintf(w, "%-4s %-16s %10s %10s %6s %5s  %s\n", "KIND", "STRUCT", "KEY", "ID", "UID", "PERMS", "HOLDS")
	for _, v := range all {
		letter := map[string]byte{"sem": 's', "shm": 'm', "msg": 'q'}[v.Kind]
		if len(o.on) > 0 && !o.on[letter] {
			continue
		}
		holds := fmt.Sprintf("%d bytes, attached %d times", v.Size, v.Users)
		switch v.Kind {
		case "sem":
			holds = fmt.Sprintf("%d semaphores", v.Size)
		case "msg":
			holds = fmt.Sprintf("%d bytes, %d messages", v.Size, v.Users)
		}
		fmt.Fprintf(w, "%-4s %016x %#10x %10d %6d %5o  %s\n", v.Kind, v.Addr, uint32(v.Key), v.ID, v.UID, v.Mode, holds)
	}
	return err
}
