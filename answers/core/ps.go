package core

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// ps lists tasks. -k -u -G -A choose: of the kernel, of users, one of each process, on a CPU. -p -c -a -t -l -m tell more of each:
// who its parents and children are, its arguments, its times, when it last ran; -S sums up states.
func (s *Session) ps(w io.Writer, args []string) error {
	o, err := parse(args, "kuGApcatlmS", "")
	if err != nil {
		return err
	}
	all, err := s.allTasks()
	tasks := slices.DeleteFunc(slices.Clone(all), func(t walk.Task) bool {
		return o.on['k'] && !t.Kernel || o.on['u'] && t.Kernel || o.on['G'] && t.PID != t.TGID || o.on['A'] && !s.runs(t) ||
			len(o.rest) > 0 && !slices.ContainsFunc(o.rest, func(a string) bool { return is(t, a) })
	})
	if len(tasks) == 0 && len(o.rest) > 0 && err == nil {
		return fmt.Errorf("no task %s", strings.Join(o.rest, " "))
	}
	switch {
	case o.on['S']:
		sums(w, tasks)
	case o.on['l'] || o.on['m']:
		s.lastRun(w, tasks, o.on['m'])
	case o.on['p'] || o.on['c'] || o.on['a'] || o.on['t']:
		for _, t := range tasks {
			s.psMore(w, t, all, o)
		}
	default:
		fmt.Fprintf(w, "   %7s %7s %3s %-16s %2s %9s %9s  %s\n", "PID", "PPID", "CPU", "TASK", "ST", "VSZ", "RSS", "COMM")
		for _, t := range tasks {
			s.psLine(w, t)
		}
	}
	return err
}

func (s *Session) runs(t walk.Task) bool {
	_, ok := walk.Running(s.t, t)
	return ok
}

func (s *Session) psLine(w io.Writer, t walk.Task) {
	mark, comm := ' ', t.Comm
	if s.runs(t) {
		mark = '>'
	}
	if t.Kernel {
		comm = "[" + comm + "]"
	}
	fmt.Fprintf(w, "%c  %7d %7d %3d %016x %2s %9d %9d  %s\n", mark, t.PID, t.PPID, t.CPU, t.Addr, t.State, t.VM*4, t.RSS*4, comm)
}

func sums(w io.Writer, tasks []walk.Task) {
	n := map[string]int{}
	var states []string
	for _, t := range tasks {
		if n[t.State]++; n[t.State] == 1 {
			states = append(states, t.State)
		}
	}
	slices.Sort(states)
	for _, st := range states {
		fmt.Fprintf(w, "  %s: %d\n", st, n[st])
	}
}

// lastRun lists tasks by when they last got a CPU, the latest first: the scheduler's time, or how long ago that was.
func (s *Session) lastRun(w io.Writer, tasks []walk.Task, ago bool) {
	errs := &kernel.Errors{}
	at := map[uint64]uint64{}
	now := uint64(0)
	for _, cpu := range s.t.CPUs() {
		now = max(now, walk.RunQueue(s.t, errs, cpu).Get("clock").Uint())
	}
	for _, t := range tasks {
		at[t.Addr] = kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("sched_info.last_arrival").Uint()
		now = max(now, at[t.Addr])
	}
	sorting.Stable(tasks, func(a, b walk.Task) int { return int(at[b.Addr]) - int(at[a.Addr]) })
	for _, t := range tasks {
		when := fmt.Sprintf("%d", at[t.Addr])
		if ago {
			when = time.Duration(now - at[t.Addr]).Round(time.Millisecond).String()
		}
		fmt.Fprintf(w, "[%15s] [%s] PID: %-7d TASK: %016x  CPU: %-3d COMMAND: %q\n", when, t.State, t.PID, t.Addr, t.CPU, t.Comm)
	}
	if err := errs.Take(); err != nil {
		fmt.Fprintf(w, "%v\n", err)
	}
}

// psMore prints a task with its relations, arguments or times.
func (s *Session) psMore(w io.Writer, t walk.Task, all []walk.Task, o options) {
	line := func(indent int, t walk.Task) {
		fmt.Fprintf(w, "%*sPID: %-7d TASK: %016x  CPU: %-3d COMMAND: %q\n", indent, "", t.PID, t.Addr, t.CPU, t.Comm)
	}
	if o.on['p'] {
		s.parents(t, all, line)
	} else {
		line(0, t)
	}
	if o.on['c'] {
		children := 0
		for _, c := range all {
			if c.PPID == t.PID && c.PID == c.TGID && c.PID != 0 && t.PID == t.TGID {
				line(2, c)
				children++
			}
		}
		if children == 0 {
			fmt.Fprintln(w, "  (no children)")
		}
	}
	if o.on['a'] {
		s.commandLine(w, t)
	}
	if o.on['t'] {
		s.times(w, t)
	}
}

// parents prints the line of a task's ancestors, the first of all first.
func (s *Session) parents(t walk.Task, all []walk.Task, line func(int, walk.Task)) {
	chain := []walk.Task{t}
	for len(chain) < 64 && chain[0].PID != 0 {
		i := slices.IndexFunc(all, func(p walk.Task) bool { return p.PID == chain[0].PPID && p.PID == p.TGID })
		if i < 0 {
			break
		}
		chain = append([]walk.Task{all[i]}, chain...)
	}
	for i, p := range chain {
		line(i, p)
	}
}

// maxArguments bounds what is read of a command line.
const maxArguments = 64 << 10

// commandLine prints the command line that a process was started with.
func (s *Session) commandLine(w io.Writer, t walk.Task) {
	errs := &kernel.Errors{}
	mm := kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("mm")
	u, ok := s.t.(kernel.UserMemory)
	if mm.Uint() == 0 || !ok {
		fmt.Fprintln(w, "  ARG: none")
		return
	}
	from, to := mm.Get("arg_start").Uint(), mm.Get("arg_end").Uint()
	b := make([]byte, min(to-min(from, to), maxArguments))
	if err := u.ReadUser(b, mm.Get("pgd").Uint(), from); err != nil || errs.Take() != nil {
		fmt.Fprintf(w, "  ARG: %v\n", err)
		return
	}
	fmt.Fprintf(w, "  ARG: %s\n", strings.TrimSpace(strings.ReplaceAll(string(b), "\x00", " ")))
}

// times prints what a task ran for, and since when it is there.
func (s *Session) times(w io.Writer, t walk.Task) {
	errs := &kernel.Errors{}
	v := kernel.Object(s.t, errs, "struct task_struct", t.Addr)
	ns := func(m string) time.Duration { return time.Duration(v.Get(m).Uint()).Round(time.Millisecond) }
	fmt.Fprintf(w, "    RUN TIME: %s\n  START TIME: %s after boot\n       UTIME: %s\n       STIME: %s\n", ns("se.sum_exec_runtime"), ns("start_time"), ns("utime"), ns("stime"))
	if err := errs.Take(); err != nil {
		fmt.Fprintf(w, "  %v\n", err)
	}
}
