// Package walk goes over the objects of a kernel: tasks, messages, modules, mounts, files, devices. Each kernel subsystem
// has a file. Walkers take a [kernel.Target] and find members by type information; where kernels differ, the member that
// exists decides. They go on as far as they can: what could not be read comes last, as an error that counts it.
package walk

import (
	"fmt"
	"iter"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/unwind"
)

// Task is a thread.
type Task struct {
	Addr    uint64
	PID     int // the thread's own
	TGID    int // its process's
	PPID    int
	Comm    string
	State   string // one letter, as ps shows
	CPU     int
	OnCPU   bool
	Kernel  bool // has no memory of its own
	Idle    bool // of one CPU; in no list
	Flags   uint64
	VM      uint64 // pages of virtual memory
	RSS     uint64 // pages resident
	Value   kernel.Value
	Blocked uint64 // ns since it was last switched out, if the dump tells the time
}

// Tasks goes over all threads of all processes, the idle tasks of the CPUs first. The error, if any, comes last with a
// Task that is zero.
func Tasks(t kernel.Target) iter.Seq2[Task, error] {
	return func(yield func(Task, error) bool) {
		errs := &kernel.Errors{}
		seen := map[uint64]bool{}
		give := func(v kernel.Value, idle bool) bool {
			if seen[v.Addr] {
				return true
			}
			seen[v.Addr] = true
			task := read(v)
			task.Idle = idle
			return yield(task, nil)
		}
		for _, cpu := range t.CPUs() {
			if idle := RunQueue(t, errs, cpu).Get("idle"); idle.Uint() != 0 && !give(idle.Deref(), true) {
				return
			}
		}
		init := kernel.Global(t, errs, "struct task_struct", "init_task")
		for leader := range init.Get("tasks").List("struct task_struct", "tasks") {
			if !give(leader, false) {
				return
			}
			for thread := range leader.Get("signal").Get("thread_head").List("struct task_struct", "thread_node") {
				if !give(thread, false) {
					return
				}
			}
		}
		if err := errs.Take(); err != nil {
			yield(Task{}, fmt.Errorf("walk tasks: %w (%d reads failed)", err, errs.N))
		}
	}
}

// RunQueue is a CPU's struct rq.
func RunQueue(t kernel.Target, errs *kernel.Errors, cpu int) kernel.Value {
	rq := kernel.Global(t, errs, "struct rq", "runqueues")
	return rq.Shift(rq.Addr + t.PerCPU(cpu))
}

// Current is the task that the scheduler has on a CPU. See [Executing].
func Current(t kernel.Target, cpu int) (Task, error) {
	errs := &kernel.Errors{}
	curr := RunQueue(t, errs, cpu).Get("curr").Deref()
	task := read(curr)
	task.Idle = task.PID == 0
	return task, errs.Take()
}

// Executing is the task on whose stack a CPU is. The scheduler names the next task some instructions before the CPU takes
// its stack, and a machine that is read while it runs may be between.
func Executing(t kernel.Target, cpu int) (Task, error) {
	cur, err := Current(t, cpu)
	regs := t.Registers()
	if err != nil || cpu >= len(regs) || regs[cpu] == nil || cur.onStack(regs[cpu]) {
		return cur, err
	}
	errs := &kernel.Errors{}
	var at kernel.Value
	if len(t.Symbols().ByName("pcpu_hot")) > 0 {
		at = kernel.Global(t, errs, "struct pcpu_hot", "pcpu_hot").Get("current_task") // 6.2 to 6.14
	} else {
		at = kernel.Global(t, errs, "unsigned long", "current_task")
	}
	addr := at.Shift(at.Addr + t.PerCPU(cpu)).Uint()
	if errs.Take() != nil || addr == 0 || addr == cur.Addr {
		return cur, nil
	}
	task := read(kernel.Object(t, errs, "struct task_struct", addr))
	task.Idle = task.PID == 0
	return task, errs.Take()
}

// onStack says that registers are those of a CPU that is on the task's own stack.
func (t Task) onStack(r kernel.Regs) bool {
	base := t.Value.Get("stack").Uint()
	return r["cs"]&3 == 0 && r["rsp"] >= base && r["rsp"] < base+stackSize
}

// pfKthread is PF_KTHREAD (include/linux/sched.h), the same since 2.6.
const pfKthread = 0x00200000

func read(v kernel.Value) Task {
	t := Task{Addr: v.Addr, PID: v.Get("pid").Int(), TGID: v.Get("tgid").Int(), Comm: v.Get("comm").String(),
		Flags: v.Get("flags").Uint(), OnCPU: v.Get("on_cpu").Uint() != 0, Value: v}
	t.Kernel = t.Flags&pfKthread != 0
	t.State = stateLetter(v.First("__state", "state").Uint(), v.Get("exit_state").Uint())
	if v.Get("thread_info").Has("cpu") {
		t.CPU = v.Get("thread_info.cpu").Int()
	} else {
		t.CPU = v.Get("cpu").Int()
	}
	if v.Get("real_parent").Uint() != 0 {
		t.PPID = v.Get("real_parent.tgid").Int()
	}
	if mm := v.Get("mm"); mm.Uint() != 0 {
		t.VM, t.RSS = mm.Get("total_vm").Uint(), rss(mm.Deref())
	}
	return t
}

// rss adds file, anonymous and shared pages: an array of atomic counters until 6.1, per-CPU counters since 6.2.
func rss(mm kernel.Value) uint64 {
	r := mm.Get("rss_stat")
	sum := int64(0)
	for _, i := range []int{0, 1, 3} { // MM_FILEPAGES, MM_ANONPAGES, MM_SHMEMPAGES
		if r.Has("count") {
			sum += int64(r.Get("count").At(i).Get("counter").Uint())
			continue
		}
		c := r.At(i)
		sum += int64(c.Get("count").Uint())
		t := mm.Target()
		for _, cpu := range t.CPUs() {
			sum += int64(c.Get("counters").PerCPU(cpu).Uint())
		}
	}
	return uint64(max(sum, 0))
}

// stateLetter is task_state_to_char: the lowest bit of the states that are reported.
func stateLetter(state, exit uint64) string {
	const (
		noload   = 0x400
		idle     = 0x2 | noload
		reported = 0x7f
	)
	s := state
	if s&idle == idle {
		return "I"
	}
	if s&0x1000 != 0 { // TASK_RTLOCK_WAIT reports as uninterruptible
		s |= 2
	}
	s = (s | exit) & reported
	for i, c := range "SDTtXZP" {
		if s>>i&1 != 0 {
			return string(c)
		}
	}
	return "R"
}

// Stack unwinds a task: from the registers of the CPU that runs it, where they are known, else from what the scheduler saved.
func Stack(t kernel.Target, task Task) unwind.Stack {
	if r, ok := Running(t, task); ok {
		return unwind.From(t, r)
	}
	return unwind.Task(t, task.Value)
}

// Running gives the registers of the CPU that a task is on, if it is running and they are known.
func Running(t kernel.Target, task Task) (kernel.Regs, bool) {
	cur, err := Executing(t, task.CPU)
	regs := t.Registers()
	if err != nil || cur.Addr != task.Addr || task.CPU >= len(regs) || regs[task.CPU] == nil {
		return nil, false
	}
	return regs[task.CPU], true
}
