package walk

import (
	"encoding/binary"
	"fmt"

	"github.com/fathom-trace/fathom/kernel"
)

// Sleeps finds the tasks that wait for what nobody holds: that others complete something, as a disk does when it has read, or are at
// the other end of a pipe. Who that is is looked for among the open files of all tasks, which [Waits] does not go over.
func Sleeps(t kernel.Target, tasks []Task) []Wait {
	l := &locks{t: t, errs: &kernel.Errors{}, tasks: map[uint64]*Task{}}
	for i := range tasks {
		l.tasks[tasks[i].Addr] = &tasks[i]
	}
	var out []Wait
	for i := range tasks {
		task := &tasks[i]
		if task.State != "S" && task.State != "D" || task.OnCPU {
			continue
		}
		if w, ok := l.blocked(task, naps); ok {
			w.Task = *task
			out = append(out, w)
		}
		l.errs.Take()
	}
	l.otherEnds(tasks, out)
	return out
}

// naps are the functions in which tasks wait for what comes when it comes.
var naps = []sleeper{
	{"pipe_read", (*locks).pipeReader}, {"anon_pipe_read", (*locks).pipeReader}, {"fifo_pipe_read", (*locks).pipeReader}, {"pipe_wait_readable", (*locks).pipeReader},
	{"pipe_write", (*locks).pipeWriter}, {"anon_pipe_write", (*locks).pipeWriter}, {"fifo_pipe_write", (*locks).pipeWriter}, {"pipe_wait_writable", (*locks).pipeWriter},
	{"__wait_for_common", (*locks).completion}, {"wait_for_completion", (*locks).completion},
}

// waitQueue is how tasks stand in a wait_queue_head, named as the member of what has it.
func waitQueue(of, member string) queue {
	return queue{"struct wait_queue_entry", "private", "entry", of, member + ".head"}
}

// completion finds a struct completion. Who is to complete it is nowhere stored.
func (l *locks) completion(task *Task) (Wait, bool) {
	_, c, ok := l.listed(task, queue{"struct swait_queue", "task", "task_list", "struct completion", "wait.task_list"}, nil)
	return Wait{Kind: "completion", Lock: c.Addr}, ok && l.errs.First == nil
}

// percpuReader finds the percpu_rw_semaphore in whose queue a task is. Who wrote, or writes, is not stored; that readers are kept
// out is (block).
func (l *locks) percpuReader(task *Task) (Wait, bool) {
	_, sem, ok := l.listed(task, waitQueue("struct percpu_rw_semaphore", "waiters"), nil)
	return percpuWait(sem, "to read"), ok && l.errs.First == nil
}

// percpuWriter finds that which a writer waits for: in its queue while others write, else it is the one writer, which the
// semaphore names, and waits until the readers of all CPUs have gone.
func (l *locks) percpuWriter(task *Task) (Wait, bool) {
	if _, sem, ok := l.listed(task, waitQueue("struct percpu_rw_semaphore", "waiters"), nil); ok && l.errs.First == nil {
		return percpuWait(sem, "to write"), true
	}
	l.errs.Take()
	base, sp := task.Value.Get("stack").Uint(), task.Value.Get("thread.sp").Uint()
	b := make([]byte, stackSize)
	if base == 0 || l.t.ReadVirt(b, base) != nil {
		return Wait{}, false
	}
	for at := max(sp, base); at+8 <= base+stackSize; at += 8 { // a register that was saved has it
		word := binary.LittleEndian.Uint64(b[at-base:])
		errs := &kernel.Errors{}
		if word < 1<<47 || word&7 != 0 {
			continue
		}
		sem := kernel.Object(l.t, errs, "struct percpu_rw_semaphore", word)
		if sem.Get("writer.task").Uint() == task.Addr && sem.Get("block.counter").Uint() == 1 && errs.First == nil {
			w := percpuWait(sem, "to write")
			w.State = "readers"
			return w, true
		}
	}
	return Wait{}, false
}

func percpuWait(sem kernel.Value, how string) Wait {
	w := Wait{Kind: "percpu_rwsem", Lock: sem.Addr, How: how}
	if sem.Get("block.counter").Uint() != 0 {
		w.State = "a writer"
	}
	return w
}

func (l *locks) pipeReader(task *Task) (Wait, bool) { return l.pipe(task, "rd_wait", "to read") }
func (l *locks) pipeWriter(task *Task) (Wait, bool) { return l.pipe(task, "wr_wait", "to write") }

// maxPipeUsers is more than a pipe has ends; maxPipeSlots than it has buffers.
const (
	maxPipeUsers = 1 << 22
	maxPipeSlots = 1 << 22
)

// pipe finds the pipe that a task waits at. epoll waits in the same queue.
func (l *locks) pipe(task *Task, queue, how string) (Wait, bool) {
	_, p, ok := l.listed(task, waitQueue("struct pipe_inode_info", queue), func(p kernel.Value) bool {
		slots := p.Get("ring_size").Uint()
		return p.Get("bufs").Uint() > 1<<47 && slots > 0 && slots <= maxPipeSlots && slots&(slots-1) == 0 &&
			p.Get("readers").Uint() < maxPipeUsers && p.Get("writers").Uint() < maxPipeUsers && p.Get("head").Uint()-p.Get("tail").Uint() <= slots
	})
	if !ok || l.errs.First != nil {
		return Wait{}, false
	}
	used, end := p.Get("head").Uint()-p.Get("tail").Uint(), "writers"
	n := p.Get("writers").Uint()
	if how == "to write" {
		n, end = p.Get("readers").Uint(), "readers"
	}
	if n == 1 {
		end = end[:len(end)-1]
	}
	return Wait{Kind: "pipe", Lock: p.Addr, How: how, State: fmt.Sprintf("%d of %d buffers used, %d %s", used, p.Get("max_usage").Uint(), n, end)}, l.errs.First == nil
}

// Bits of file.f_mode.
const (
	fmodeRead  = 1
	fmodeWrite = 2
)

// otherEnds sets the process that alone has the other end of each pipe.
func (l *locks) otherEnds(tasks []Task, waits []Wait) {
	pipes := map[uint64]bool{}
	for _, w := range waits {
		if w.Kind == "pipe" {
			pipes[w.Lock] = true
		}
	}
	if len(pipes) == 0 {
		return
	}
	type end struct{ pipe, mode uint64 }
	holders := map[end][]*Task{} // each process once
	for i := range tasks {
		task := &tasks[i]
		if task.PID != task.TGID {
			continue
		}
		for _, f := range Descriptors(*task, l.errs) {
			at, mode := f.Get("private_data").Uint(), f.Get("f_mode").Uint()
			for _, m := range []uint64{fmodeRead, fmodeWrite} {
				e := end{at, m}
				if h := holders[e]; pipes[at] && mode&m != 0 && (len(h) == 0 || h[len(h)-1] != task) {
					holders[e] = append(h, task)
				}
			}
		}
		l.errs.Take()
	}
	for i := range waits {
		w := &waits[i]
		if w.Kind != "pipe" {
			continue
		}
		e := end{w.Lock, fmodeWrite}
		if w.How == "to write" {
			e.mode = fmodeRead
		}
		if h := holders[e]; len(h) == 1 && h[0].TGID != w.Task.TGID {
			w.Owner = h[0]
		}
	}
}
