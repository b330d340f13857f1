package walk

import (
	"encoding/binary"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/kernel/unwind"
)

// Wait is a task that waits for a mutex.
type Wait struct {
	Task  Task
	Lock  uint64 // address of the struct mutex
	Owner *Task  // who holds it; nil if nobody does
}

// stackSize is THREAD_SIZE of x86-64 without KASAN.
const stackSize = 16 << 10

// ownerFlags are the low bits of mutex.owner.
const ownerFlags = 7

// MutexWaits finds the tasks that wait for a mutex: the struct mutex_waiter that lies on such a task's stack names the
// task and is linked to the lock. No register or variable has to be known for that.
func MutexWaits(t kernel.Target, tasks []Task) []Wait {
	byAddr := map[uint64]*Task{}
	for i := range tasks {
		byAddr[tasks[i].Addr] = &tasks[i]
	}
	errs := &kernel.Errors{}
	w := kernel.Object(t, errs, "struct mutex_waiter", 0)
	m := kernel.Object(t, errs, "struct mutex", 0)
	taskOff, listOff := w.Get("task").Addr, m.Get("wait_list").Addr
	if errs.Take() != nil {
		return nil
	}
	var out []Wait
	for i := range tasks {
		task := &tasks[i]
		if task.State != "D" && task.State != "S" && task.State != "I" || task.OnCPU {
			continue
		}
		if !inMutexLock(t, *task) {
			continue // other waits put the task on their stacks too
		}
		base := task.Value.Get("stack").Uint()
		b := make([]byte, stackSize)
		if base == 0 || t.ReadVirt(b, base) != nil {
			continue
		}
		sp := task.Value.Get("thread.sp").Uint()
		for at := max(sp, base); at+8 <= base+stackSize; at += 8 {
			if binary.LittleEndian.Uint64(b[at-base:]) != task.Addr || at-base < taskOff {
				continue
			}
			if lock, owner, ok := lockOf(t, byAddr, at-taskOff, taskOff, listOff); ok {
				out = append(out, Wait{Task: *task, Lock: lock, Owner: owner})
				break
			}
		}
	}
	return out
}

// inMutexLock says if a task sleeps in one of the functions that wait for a mutex.
func inMutexLock(t kernel.Target, task Task) bool {
	for _, f := range unwind.Task(t, task.Value).Frames {
		if y, ok := t.Symbols().At(f.PC - 1); ok && (strings.HasPrefix(y.Name, "__mutex_lock") || strings.HasPrefix(y.Name, "__ww_mutex_lock")) {
			return true
		}
	}
	return false
}

// lockOf follows the list of waiters from one of them round to the mutex it hangs in: the element that is no waiter.
func lockOf(t kernel.Target, tasks map[uint64]*Task, waiter, taskOff, listOff uint64) (lock uint64, owner *Task, ok bool) {
	errs := &kernel.Errors{}
	at := waiter
	for range 1 << 12 {
		e := kernel.Object(t, errs, "struct list_head", at)
		next := e.Get("next").Uint()
		if next == waiter || next < 1<<47 || errs.First != nil {
			return 0, nil, false
		}
		n := kernel.Object(t, errs, "struct list_head", next)
		if n.Get("prev").Uint() != at || errs.First != nil {
			return 0, nil, false // not linked: a stale word
		}
		if tasks[kernel.Object(t, errs, "unsigned long", next+taskOff).Uint()] == nil {
			m := kernel.Object(t, errs, "struct mutex", next-listOff)
			holder := m.Get("owner.counter").Uint() &^ ownerFlags
			if errs.First != nil || holder != 0 && tasks[holder] == nil {
				return 0, nil, false
			}
			return m.Addr, tasks[holder], true
		}
		at = next
	}
	return 0, nil, false
}

// Cycles finds the deadlocks among waits: tasks that each wait for what the next holds.
func Cycles(waits []Wait) [][]Wait {
	next := map[uint64]*Wait{}
	for i := range waits {
		next[waits[i].Task.Addr] = &waits[i]
	}
	done := map[uint64]bool{}
	var out [][]Wait
	for i := range waits {
		var path []Wait
		on := map[uint64]int{}
		for w := &waits[i]; w != nil && !done[w.Task.Addr]; {
			if k, again := on[w.Task.Addr]; again {
				out = append(out, path[k:])
				break
			}
			on[w.Task.Addr] = len(path)
			path = append(path, *w)
			if w.Owner == nil {
				break
			}
			w = next[w.Owner.Addr]
		}
		for _, w := range path {
			done[w.Task.Addr] = true
		}
	}
	return out
}
