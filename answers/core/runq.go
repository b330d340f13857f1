package core

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// runq prints what each CPU runs and what waits to run there: -c of some CPUs, -t the clock of each and when the tasks last got
// it, -m how long they have it or wait.
func (s *Session) runq(w io.Writer, args []string) error {
	o, err := parse(args, "tm", "c")
	if err != nil {
		return err
	}
	if len(o.rest) > 0 || o.on['t'] && o.on['m'] {
		return &Usage{}
	}
	cpus := s.t.CPUs()
	if o.on['c'] {
		if cpus, err = s.cpus(o.val['c']); err != nil {
			return err
		}
	}
	tasks, terr := s.allTasks()
	errs := &kernel.Errors{}
	for _, cpu := range cpus {
		rq := walk.RunQueue(s.t, errs, cpu)
		cur, err := walk.Current(s.t, cpu)
		if err != nil {
			return err
		}
		if o.on['t'] || o.on['m'] {
			s.runTimes(w, errs, cpu, rq, cur, o.on['m'])
			continue
		}
		fmt.Fprintf(w, "CPU %d RUNQUEUE: %016x  RUNNABLE: %d\n  CURRENT: PID: %-6d TASK: %016x  COMMAND: %q\n", cpu, rq.Addr, rq.Get("nr_running").Uint(), cur.PID, cur.Addr, cur.Comm)
		for _, t := range s.queued(errs, tasks, cpu, cur) {
			fmt.Fprintf(w, "  [%3d] PID: %-6d TASK: %016x  COMMAND: %q\n", kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("prio").Int(), t.PID, t.Addr, t.Comm)
		}
	}
	if err := errs.Take(); err != nil {
		return err
	}
	return terr
}

// queued are the tasks that wait to run on a CPU.
func (s *Session) queued(errs *kernel.Errors, tasks []walk.Task, cpu int, cur walk.Task) []walk.Task {
	return slices.DeleteFunc(slices.Clone(tasks), func(t walk.Task) bool {
		const onRQQueued = 1 // TASK_ON_RQ_QUEUED
		return t.CPU != cpu || t.Idle || t.Addr == cur.Addr || kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("on_rq").Uint() != onRQQueued
	})
}

// runTimes prints a CPU's clock and when the task that it runs got it.
func (s *Session) runTimes(w io.Writer, errs *kernel.Errors, cpu int, rq kernel.Value, cur walk.Task, since bool) {
	clock := rq.Get("clock").Uint()
	got := kernel.Object(s.t, errs, "struct task_struct", cur.Addr).Get("sched_info.last_arrival").Uint()
	if !since {
		fmt.Fprintf(w, " CPU %d: %015d\n        %015d  PID: %-6d TASK: %016x  COMMAND: %q\n", cpu, clock, got, cur.PID, cur.Addr, cur.Comm)
		return
	}
	fmt.Fprintf(w, " CPU %d: [%s]  PID: %-6d TASK: %016x  COMMAND: %q\n", cpu, time.Duration(clock-min(got, clock)).Round(time.Millisecond), cur.PID, cur.Addr, cur.Comm)
}
