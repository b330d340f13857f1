package walk

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/fathom-trace/fathom/kernel"
)

// Wait is a task that waits for what others hold.
type Wait struct {
	Task   Task
	Kind   string // "mutex", "rw_semaphore", "percpu_rwsem", "rt_mutex", "semaphore", "completion", "work", "spinlock", "pipe"
	Lock   uint64 // address of the lock; of the work_struct for work
	How    string // "to write", "to read"; "" where there is one way
	State  string // what the lock says of itself: "1 reader", "a writer"; "" where it says no more than its owner
	Owner  *Task  // who holds it, is at the work, or alone has a pipe's other end; nil if nobody does, or if that is not stored
	Likely bool   // Owner is a reader that holds the lock if no other came and went since
	Known  bool   // whether nobody holds it is known if Owner is nil
}

// stackSize is THREAD_SIZE of x86-64 without KASAN.
const stackSize = 16 << 10

// Waits finds the tasks that wait for locks, and for work. What describes a waiter lies on its stack, names the task and is
// linked to the lock: no register or variable has to be known for that.
func Waits(t kernel.Target, tasks []Task) []Wait {
	l := &locks{t: t, errs: &kernel.Errors{}, tasks: map[uint64]*Task{}}
	for i := range tasks {
		l.tasks[tasks[i].Addr] = &tasks[i]
	}
	var out []Wait
	for i := range tasks {
		task := &tasks[i]
		if task.State != "D" && task.State != "S" && task.State != "I" || task.OnCPU {
			continue
		}
		if w, ok := l.blocked(task, sleepers); ok {
			w.Task = *task
			out = append(out, w)
		}
		l.errs.Take()
	}
	if l.flush { // the workers' memory is far around
		out = append(out, l.flushers()...)
	}
	return append(out, l.spinners()...)
}

// locks looks for who waits for what.
type locks struct {
	t     kernel.Target
	errs  *kernel.Errors
	tasks map[uint64]*Task
	flush bool // somebody waits until a work is done
}

// sleeper is a function in which tasks wait, by how its name begins, and what finds what for.
type sleeper struct {
	function string
	find     func(*locks, *Task) (Wait, bool)
}

// sleepers are those for what others hold.
var sleepers = []sleeper{
	{"__mutex_lock", (*locks).mutex}, {"__ww_mutex_lock", (*locks).mutex},
	{"rwsem_down_", (*locks).rwsem},
	{"__percpu_down_read", (*locks).percpuReader}, {"percpu_down_write", (*locks).percpuWriter},
	{"__rt_mutex_slowlock", (*locks).rtMutex}, {"rt_mutex_slowlock", (*locks).rtMutex}, {"rt_mutex_wait_proxy_lock", (*locks).rtMutex}, {"rtlock_slowlock", (*locks).rtMutex},
	{"__down", (*locks).semaphore},
}

// blocked says what a task that sleeps waits for, by the functions it sleeps in.
func (l *locks) blocked(task *Task, in []sleeper) (Wait, bool) {
	var find func(*locks, *Task) (Wait, bool)
	for _, f := range Stack(l.t, *task).Frames {
		y, ok := l.t.Symbols().At(f.PC - 1)
		if !ok {
			continue
		}
		if strings.Contains(y.Name, "flush_work") || strings.Contains(y.Name, "cancel_work") || strings.Contains(y.Name, "cancel_delayed_work") {
			l.flush = true // it waits for a completion too
			return Wait{}, false
		}
		for _, s := range in {
			if find == nil && strings.HasPrefix(y.Name, s.function) {
				find = s.find
			}
		}
	}
	if find == nil {
		return Wait{}, false
	}
	return find(l, task)
}

// onStack goes over the words of a sleeping task's stack that hold its own address: each may be the member of a waiter.
func (l *locks) onStack(task *Task, try func(at uint64) bool) {
	base, sp := task.Value.Get("stack").Uint(), task.Value.Get("thread.sp").Uint()
	b := make([]byte, stackSize)
	if base == 0 || l.t.ReadVirt(b, base) != nil {
		return
	}
	for at := max(sp, base); at+8 <= base+stackSize; at += 8 {
		if binary.LittleEndian.Uint64(b[at-base:]) == task.Addr && try(at) {
			return
		}
	}
}

// queue is how tasks wait for a kind of lock: a waiter, with its members that are the task and the link, and the lock, with the
// head of the list.
type queue struct{ waiter, task, link, lock, head string }

// lockQueue is that of the locks which have a kind of waiter of their own.
func lockQueue(waiter, lock string) queue { return queue{waiter, "task", "list", lock, "wait_list"} }

// listed finds the lock among whose waiters a task is; check, if it is not nil, says whether what might be a lock is one.
func (l *locks) listed(task *Task, q queue, check func(kernel.Value) bool) (w, found kernel.Value, ok bool) {
	w, m := kernel.Object(l.t, l.errs, q.waiter, 0), kernel.Object(l.t, l.errs, q.lock, 0)
	taskOff, linkOff, headOff := w.Get(q.task).Addr, w.Get(q.link).Addr, m.Get(q.head).Addr
	if l.errs.Take() != nil {
		return w, m, false
	}
	l.onStack(task, func(at uint64) bool {
		w = w.Shift(at - taskOff)
		var head uint64
		head, ok = l.head(w.Addr+linkOff, taskOff-linkOff, func(head uint64) bool { return check == nil || check(m.Shift(head-headOff)) })
		if ok {
			found = m.Shift(head - headOff)
		}
		return ok
	})
	return w, found, ok
}

// head follows a list of waiters from one of them round to the lock it hangs in: the element that is no waiter. taskOff is where
// in a waiter, from its link on, its task is named; others than tasks may wait too (epoll), which check tells from the lock.
func (l *locks) head(link, taskOff uint64, check func(uint64) bool) (head uint64, ok bool) {
	errs := &kernel.Errors{}
	at := link
	for range 1 << 12 {
		next := kernel.Object(l.t, errs, "struct list_head", at).Get("next").Uint()
		if next == link || next < 1<<47 || errs.First != nil {
			return 0, false
		}
		if kernel.Object(l.t, errs, "struct list_head", next).Get("prev").Uint() != at || errs.First != nil {
			return 0, false // not linked: a stale word
		}
		if l.tasks[kernel.Object(l.t, errs, "unsigned long", next+taskOff).Uint()] == nil && check(next) {
			return next, true
		}
		at = next
	}
	return 0, false
}

// mutexFlags are the low bits of mutex.owner.
const mutexFlags = 7

func (l *locks) mutex(task *Task) (Wait, bool) {
	_, m, ok := l.listed(task, lockQueue("struct mutex_waiter", "struct mutex"), nil)
	if !ok {
		return Wait{}, false
	}
	holder := m.Get("owner.counter").Uint() &^ mutexFlags
	if l.errs.First != nil || holder != 0 && l.tasks[holder] == nil {
		return Wait{}, false
	}
	return Wait{Kind: "mutex", Lock: m.Addr, Owner: l.tasks[holder], Known: true}, true
}

// Bits of rw_semaphore.count, and of its owner (kernel/locking/rwsem.c, since 5.3).
const (
	rwsemWriter      = 1 << 0
	rwsemReaderShift = 8
	rwsemReaderMask  = 1<<55 - 1
	rwsemReaderOwned = 1 << 0
	rwsemOwnerFlags  = 3
)

func (l *locks) rwsem(task *Task) (Wait, bool) {
	v, sem, ok := l.listed(task, lockQueue("struct rwsem_waiter", "struct rw_semaphore"), nil)
	if !ok {
		return Wait{}, false
	}
	count, owner := sem.Get("count.counter").Uint(), sem.Get("owner.counter").Uint()
	w := Wait{Kind: "rw_semaphore", Lock: sem.Addr, Known: true, How: "to write"}
	if v.Get("type").Uint() != 0 { // RWSEM_WAITING_FOR_WRITE is first
		w.How = "to read"
	}
	readers := count >> rwsemReaderShift & rwsemReaderMask
	switch {
	case l.errs.First != nil:
		return Wait{}, false
	case count&rwsemWriter != 0:
		w.State, w.Owner = "a writer", l.tasks[owner&^rwsemOwnerFlags]
		w.Known = w.Owner != nil
	case readers > 0:
		w.State, w.Known = fmt.Sprintf("%d readers", readers), false
		if readers == 1 {
			w.State = "1 reader"
		}
		if owner&rwsemReaderOwned != 0 { // the last that came; it may have gone again
			w.Owner, w.Likely = l.tasks[owner&^rwsemOwnerFlags], true
		}
	}
	return w, true
}

// rtOwnerFlags are the low bits of rt_mutex_base.owner: somebody waits.
const rtOwnerFlags = 1

// rtMutex finds the lock by what the task says of itself: priorities are passed on along pi_blocked_on.
func (l *locks) rtMutex(task *Task) (Wait, bool) {
	v := kernel.Object(l.t, l.errs, "struct task_struct", task.Addr)
	if !v.Has("pi_blocked_on") || v.Get("pi_blocked_on").Uint() == 0 {
		return Wait{}, false
	}
	lock := v.Get("pi_blocked_on.lock").Deref()
	w := Wait{Kind: "rt_mutex", Lock: lock.Addr, Owner: l.tasks[lock.Get("owner").Uint()&^rtOwnerFlags], Known: true}
	return w, l.errs.First == nil
}

// semaphore finds a struct semaphore, which does not store who holds it.
func (l *locks) semaphore(task *Task) (Wait, bool) {
	_, sem, ok := l.listed(task, lockQueue("struct semaphore_waiter", "struct semaphore"), nil)
	return Wait{Kind: "semaphore", Lock: sem.Addr}, ok && l.errs.First == nil
}

// flushers finds the tasks that wait until a worker is done with a work (flush_work, cancel_work_sync): each has put a work of its
// own behind that one, which names it (struct wq_barrier).
func (l *locks) flushers() (out []Wait) {
	barrier := l.t.Symbols().ByName("wq_barrier_func")
	if len(barrier) == 0 {
		return nil
	}
	b := kernel.Object(l.t, l.errs, "struct wq_barrier", 0)
	workOff := b.Get("work").Addr
	pools := kernel.Global(l.t, l.errs, "struct idr", "worker_pool_idr")
	pool := kernel.Object(l.t, l.errs, "struct worker_pool", 0)
	for at := range XArray(pools.Get("idr_rt").Cast("struct xarray")) {
		for w := range pool.Shift(at).Get("workers").List("struct worker", "node") {
			worker := l.tasks[w.Get("task").Uint()]
			n := 0
			for work := range w.Get("scheduled").List("struct work_struct", "entry") {
				if n++; n > maxNodes {
					break
				}
				if work.Get("func").Uint() != barrier[0] || worker == nil {
					continue
				}
				if who := l.tasks[b.Shift(work.Addr-workOff).Get("task").Uint()]; who != nil {
					out = append(out, Wait{Task: *who, Kind: "work", Lock: w.Get("current_work").Uint(), Owner: worker, Known: true})
				}
			}
		}
	}
	l.errs.Take()
	return out
}

// Bits of a spinlock's word (include/asm-generic/qspinlock_types.h, with fewer than 16,384 CPUs): held, next in line, and the CPU
// that is last in line.
const (
	spinHeld      = 1
	spinPending   = 1 << 8
	spinTailShift = 18
	spinWordMask  = 0xff
)

// spinners finds the CPUs that spin for a spinlock: one of their registers is the lock. Nobody stores who holds it.
func (l *locks) spinners() (out []Wait) {
	for _, cpu := range l.t.CPUs() {
		task, err := Executing(l.t, cpu)
		regs := l.t.Registers()
		if err != nil || cpu >= len(regs) || regs[cpu] == nil {
			continue
		}
		r := regs[cpu]
		for _, f := range Stack(l.t, task).Frames {
			y, ok := l.t.Symbols().At(f.PC)
			if ok && strings.HasSuffix(y.Name, "queued_spin_lock_slowpath") && r != nil {
				if lock, ok := l.spinWord(r, cpu); ok {
					out = append(out, Wait{Task: task, Kind: "spinlock", Lock: lock})
				}
				break
			}
			if r = nil; f.Regs != nil { // what is next was interrupted, and its registers are these
				r = *f.Regs
			}
		}
	}
	return out
}

// spinWord is the register that points to the word of a spinlock which is taken and has others in line. In a virtual machine CPUs
// do not stand in line (virt_spin_lock): there it is the argument of the function, if the word says that the lock is held.
func (l *locks) spinWord(r kernel.Regs, cpu int) (uint64, bool) {
	for _, name := range []string{"rdi", "rbx", "rbp", "r12", "r13", "r14", "r15", "rcx", "rdx", "rsi", "r8", "r9", "r10", "r11", "rax"} {
		at := r[name]
		if at < 1<<47 || at&3 != 0 {
			continue
		}
		errs := &kernel.Errors{}
		v := kernel.Object(l.t, errs, "unsigned int", at).Uint()
		tail, pending := int(v>>spinTailShift), v&spinPending != 0
		waited := tail == 0 && pending || tail == cpu+1 || pending && tail > 0 && tail <= len(l.t.CPUs()) || v == spinHeld && name == "rdi"
		if errs.First == nil && v&spinWordMask == spinHeld && waited {
			return at, true
		}
	}
	return 0, false
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
