package core

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/walk"
)

// of gives the tasks that an argument means, or without one the task that died.
func (s *Session) of(args []string) ([]walk.Task, error) {
	if len(args) == 0 {
		t, _, err := s.crashed()
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
		fmt.Fprintf(w, "PID: %-6d TASK: %016x  CPU: %d  COMMAND: %q\n", t.PID, t.Addr, t.CPU, t.Comm)
		if err := show(w, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) vm(w io.Writer, args []string) error { return s.each(w, args, s.areas) }

// areas prints the memory mappings of a task.
func (s *Session) areas(w io.Writer, t walk.Task) error {
	errs := &kernel.Errors{}
	mm := kernel.Object(s.t, errs, "struct task_struct", t.Addr).Get("mm")
	if mm.Uint() == 0 {
		fmt.Fprintln(w, "  no memory of its own")
		return errs.Take()
	}
	fmt.Fprintf(w, "  MM: %016x  PGD: %016x  RSS: %s  TOTAL_VM: %s\n", mm.Uint(), mm.Get("pgd").Uint(), pages(t.RSS), pages(t.VM))
	fmt.Fprintf(w, "  %-16s %16s %16s %8s  %s\n", "VMA", "START", "END", "FLAGS", "FILE")
	for v := range walk.Areas(t, errs) {
		name := ""
		if f := v.Get("vm_file"); f.Uint() != 0 {
			name = walk.Path(f.Get("f_path"))
		}
		fmt.Fprintf(w, "  %016x %16x %16x %8x  %s\n", v.Addr, v.Get("vm_start").Uint(), v.Get("vm_end").Uint(), v.Get("vm_flags").Uint(), name)
	}
	return errs.Take()
}

func (s *Session) sig(w io.Writer, args []string) error { return s.each(w, args, s.signals) }

// signals prints what /proc/PID/status shows of a task's signals, and handlers.
func (s *Session) signals(w io.Writer, t walk.Task) error {
	g, err := walk.ReadSignals(t)
	fmt.Fprintf(w, "  PENDING: %016x  SHARED: %016x  BLOCKED: %016x\n  IGNORED: %016x  CAUGHT: %016x\n", g.Pending, g.Shared, g.Blocked, g.Ignored, g.Caught)
	for i := 1; i <= 64; i++ {
		if at, ok := g.Handlers[i]; ok {
			fmt.Fprintf(w, "  [%2d] handler %#x\n", i, at)
		}
	}
	return err
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

// runq prints what each CPU runs and what waits to run there.
func (s *Session) runq(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	tasks, terr := s.allTasks()
	errs := &kernel.Errors{}
	for _, cpu := range s.t.CPUs() {
		rq := walk.RunQueue(s.t, errs, cpu)
		cur, err := walk.Current(s.t, cpu)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "CPU %d RUNQUEUE: %016x  RUNNABLE: %d\n  CURRENT: PID: %-6d TASK: %016x  COMMAND: %q\n", cpu, rq.Addr, rq.Get("nr_running").Uint(), cur.PID, cur.Addr, cur.Comm)
		for _, t := range tasks {
			v := kernel.Object(s.t, errs, "struct task_struct", t.Addr)
			if t.CPU == cpu && !t.Idle && t.Addr != cur.Addr && v.Get("on_rq").Uint() == 1 { // TASK_ON_RQ_QUEUED
				fmt.Fprintf(w, "  [%3d] PID: %-6d TASK: %016x  COMMAND: %q\n", v.Get("prio").Int(), t.PID, t.Addr, t.Comm)
			}
		}
	}
	if err := errs.Take(); err != nil {
		return err
	}
	return terr
}

// dev prints who has which major numbers.
func (s *Session) dev(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	devs, err := walk.Devices(s.t)
	fmt.Fprintf(w, "%-5s %5s  %-16s %s\n", "KIND", "MAJOR", "CLAIM", "NAME")
	for _, d := range devs {
		kind := "char"
		if d.Block {
			kind = "block"
		}
		fmt.Fprintf(w, "%-5s %5d  %016x %s\n", kind, d.Major, d.Addr, d.Name)
	}
	return err
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

// ipcs prints the objects of System V IPC.
func (s *Session) ipcs(w io.Writer, args []string) error {
	if len(args) > 0 {
		return &Usage{}
	}
	all, err := walk.IPC(s.t)
	fmt.Fprintf(w, "%-4s %-16s %10s %10s %6s %5s  %s\n", "KIND", "STRUCT", "KEY", "ID", "UID", "PERMS", "HOLDS")
	for _, o := range all {
		holds := fmt.Sprintf("%d bytes, attached %d times", o.Size, o.Users)
		switch o.Kind {
		case "sem":
			holds = fmt.Sprintf("%d semaphores", o.Size)
		case "msg":
			holds = fmt.Sprintf("%d bytes, %d messages", o.Size, o.Users)
		}
		fmt.Fprintf(w, "%-4s %016x %#10x %10d %6d %5o  %s\n", o.Kind, o.Addr, uint32(o.Key), o.ID, o.UID, o.Mode, holds)
	}
	return err
}

// tree prints the addresses of what hangs in a tree.
func (s *Session) tree(w io.Writer, args []string) error {
	kind := "rbtree"
	if len(args) > 1 && args[0] == "-t" {
		kind, args = args[1], args[2:]
	}
	want := map[string]int{"rbtree": 2, "xarray": 1, "maple": 1}[kind]
	if want == 0 || len(args) != want {
		return &Usage{}
	}
	root, err := s.address(args[len(args)-1])
	if err != nil {
		return err
	}
	errs := &kernel.Errors{}
	print := func(at uint64) { fmt.Fprintf(w, "%016x\n", at) }
	switch kind {
	case "rbtree":
		i := strings.LastIndexByte(args[0], '.')
		if i < 0 {
			return &Usage{}
		}
		t, err := s.typeNamed(args[0][:i])
		if err != nil {
			return err
		}
		for v := range walk.RBTree(kernel.Object(s.t, errs, "struct rb_root", root), ctype.Name(t), args[0][i+1:]) {
			print(v.Addr)
		}
	case "xarray":
		for at := range walk.XArray(kernel.Object(s.t, errs, "struct xarray", root)) {
			print(at)
		}
	case "maple":
		for at := range walk.Maple(kernel.Object(s.t, errs, "struct maple_tree", root), maxTree) {
			print(at)
		}
	}
	return errs.Take()
}

// maxTree bounds what is printed of a tree, whose links a crash may have made a circle.
const maxTree = 1 << 22
