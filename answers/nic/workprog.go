package nic

import (
	"fmt"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// What is put off is counted by the function that does it: a handler of interrupts, a tasklet, a timer, a work item. Softirqs
// are counted by vector. Begin and end are on the same CPU for all but work items, which may sleep and are followed by the
// address of their struct work_struct.

// numVecs is NR_SOFTIRQS (include/linux/interrupt.h).
const numVecs = 10

// Histograms: of each vector the wait from raise to run, and the run.
const (
	hsWait    = 0
	hsRun     = numVecs
	sumDaemon = 2 * numVecs // sums only: runs by ksoftirqd
	workHists = 3 * numVecs
)

// kindOf is what a function is of.
type kindOf int

// Kinds of functions.
const (
	kindIRQ kindOf = iota
	kindTasklet
	kindTimer
	kindHRTimer
	kindWork
	kindVector    // of the architecture: the function is the place in archVectors
	kindScheduled // tasklets: put into a CPU's list by __tasklet_schedule
	kindAsked     // tasklets: asked for, whether they were in a list already or not
)

var kindNames = [...]string{"irq", "tasklet", "timer", "hrtimer", "work", "vector", "scheduled", "asked"}

// archVectors are interrupts of the architecture, as their tracepoints are called (arch/x86/include/asm/trace/irq_vectors.h).
var archVectors = [...]string{"local_timer", "irq_work", "call_function", "call_function_single", "reschedule", "x86_platform_ipi"}

// State of a CPU: for each vector the raise and the begin, then the begins of what runs.
const (
	wkRaise   = 0
	wkStart   = 8 * numVecs
	wkBegin   = 16 * numVecs // by kindOf
	wkFunc    = wkBegin + 8*numKinds
	wkSize    = wkFunc + 8*numKinds
	numKinds  = int(kindAsked) + 1
	fnRun     = 0            // value of functions: sums of runs,
	fnWait    = sumSize      // of waits for a worker,
	fnCPU     = 2 * sumSize  // ns on the CPU,
	fnPID     = fnCPU + 8    // who ran it last,
	fnComm    = fnPID + 8    // 16 bytes,
	fnQueue   = fnComm + 16  // 24 bytes: of the workqueue, or of the handler
	fnLimit   = fnQueue + 24 // of work: how often its workqueue had reached its limit when it was queued,
	fnMax     = fnLimit + 8  // and that limit
	fnSize    = fnMax + 8    // in all
	qdAt      = 0            // value of queued: when,
	qdFunc    = 8            // what,
	qdQueue   = 16           // 24 bytes: which workqueue
	qdLimit   = 40           // how many items may run, if so many did; else 0
	qdWorkers = 48           // of the pool: how many there are,
	qdIdle    = 52           // and how many were idle
	qdSize    = 56
	rnAt      = 0 // value of running: when it began,
	rnFunc    = 8
	rnCPU     = 16 // ns that the worker had run then
	rnWait    = 24 // ns it waited
	rnPID     = 32
	rnComm    = 40 // 16 bytes
	rnQueue   = 56 // 24 bytes
	rnLimit   = 80 // as qdLimit
	rnSize    = 88
	queueName = 24 // bytes that are kept of a name
)

// workCode writes the programs of Work.
type workCode struct {
	*code
	cpu       *ir.Map
	functions *ir.Map // kind, address → fnSize bytes
	queued    *ir.Map // by address of struct work_struct
	running   *ir.Map
	sites     []Site
	tasklets  bool // they can be told apart
	scheduled bool // their scheduling is seen
}

func newWorkCode(c *code, sites []Site) *workCode {
	w := &workCode{code: c, sites: sites}
	m := func(name string, kind ir.MapKind, key, value, most int) *ir.Map {
		return c.p.Map(ir.Map{Name: name, Kind: kind, KeySize: key, ValueSize: value, MaxEntries: most})
	}
	w.cpu = m(".cpu", ir.PerCPUArray, 4, wkSize, 1)
	w.functions = m(".functions", ir.PerCPUHash, 16, fnSize, 1<<12)
	w.queued = m(".queued", ir.LRUHash, 8, qdSize, 1<<13)
	w.running = m(".running", ir.Hash, 8, rnSize, 1<<12)
	return w
}

// write writes all of them.
func (c *workCode) write() {
	c.at("softirq_raise", []string{"vec_nr"}, c.raise)
	c.at("softirq_entry", []string{"vec_nr"}, c.softEntry)
	c.at("softirq_exit", []string{"vec_nr"}, c.softExit)
	c.pair(kindIRQ, "irq_handler_entry", "irq_handler_exit", "action", func(u *unit, a ir.Val) ir.Val { return a }, c.handlerName)
	c.tasklets = c.pair(kindTasklet, "tasklet_entry", "tasklet_exit", "t", func(u *unit, _ ir.Val) ir.Val { return u.arg("func") }, nil)
	c.pair(kindTimer, "timer_expire_entry", "timer_expire_exit", "timer", c.member(c.l.timerFunc), nil)
	c.pair(kindHRTimer, "hrtimer_expire_entry", "hrtimer_expire_exit", "hrtimer", c.member(c.l.hrtimerFunc), nil)
	for i, v := range archVectors {
		missing := len(c.missing)
		c.pair(kindVector, v+"_entry", v+"_exit", "vector", func(*unit, ir.Val) ir.Val { return ir.Imm(int64(i)) }, nil)
		c.missing = c.missing[:min(missing, len(c.missing))] // another architecture has others
	}
	c.at("workqueue_queue_work", []string{"pwq", "work"}, c.queue)
	c.at("workqueue_execute_start", []string{"work"}, c.workStart)
	c.at("workqueue_execute_end", []string{"work"}, c.workEnd)
	c.more()
}

// ListTasklet are the functions that put tasklets into a CPU's list (kernel/softirq.c).
var ListTasklet = [...]string{"__tasklet_schedule", "__tasklet_hi_schedule"}

// more writes programs on functions, which not every kernel can have probed: they only add.
func (c *workCode) more() {
	for _, fn := range ListTasklet {
		if c.function(fn, false, func(u *unit) {
			c.run(u, kindScheduled, c.taskletFunc(u, u.Arg(0)), ir.Imm(0), nil)
		}) {
			c.scheduled = true
		}
	}
	if c.probeOf(ListTasklet[0], false) == "kprobe" {
		c.ask()
	}
}

// ask writes programs on the instructions that ask for tasklets: one for each register and displacement.
func (c *workCode) ask() {
	type operand struct {
		base string
		disp int64
		addr uint64
	}
	at := map[operand][]probe.Target{}
	var order []operand
	for _, s := range c.sites {
		o := operand{s.Base, s.Disp, s.Addr}
		if at[o] == nil {
			order = append(order, o)
		}
		at[o] = append(at[o], probe.Target{Provider: "kprobe", Func: s.Func, Offset: s.Off, Name: fmt.Sprintf("kprobe:%s+%d", s.Func, s.Off)})
	}
	for _, o := range order {
		u := &unit{Unit: c.p.Unit("kprobe", len(c.targets), "ask")}
		c.targets = append(c.targets, at[o])
		state := big(u, o.addr)
		if o.base != "" {
			state = u.Add(u.Register(o.base), int(o.disp))
		}
		c.run(u, kindAsked, c.taskletFunc(u, u.Add(state, -taskletState)), ir.Imm(0), nil)
		u.Return(ir.Imm(0))
	}
}

// taskletFunc is what a tasklet does: its callback and its older func share a union.
func (c *workCode) taskletFunc(u *unit, t ir.Val) ir.Val { return u.Int(t, c.l.taskletFunc, 8, false) }

func (c *workCode) member(off int) func(*unit, ir.Val) ir.Val {
	return func(u *unit, p ir.Val) ir.Val { return u.Int(p, off, 8, false) }
}

func (c *workCode) state(u *unit, then func(emit.Mem)) { element(u, c.cpu, ir.Imm(0), then) }

// slot gives the place of a vector in one of the state's arrays.
func slot(u *unit, st emit.Mem, array int, vec ir.Val) emit.Mem {
	off := u.Bin(ir.Mul, u.Bin(ir.And, vec, ir.Imm(15)), ir.Imm(8))
	return u.Place(u.Bin(ir.Add, u.Addr(st.At(array)), off))
}

// vector ends the program for vectors that there are not, and gives the argument.
func (c *workCode) vector(u *unit) ir.Val {
	vec := u.Var(u.Bin(ir.And, u.arg("vec_nr"), ir.Imm(0xff)))
	u.If(ir.Ge, vec, ir.Imm(numVecs), func() { u.Return(ir.Imm(0)) }, nil)
	return vec
}

func (c *workCode) raise(u *unit) {
	vec := c.vector(u)
	t := now(u)
	c.state(u, func(st emit.Mem) {
		m := slot(u, st, wkRaise, vec)
		u.If(ir.Eq, u.Load(m, 8, false), ir.Imm(0), func() { u.Store(m, 8, t) }, nil)
	})
}

func (c *workCode) softEntry(u *unit) {
	vec := c.vector(u)
	t := now(u)
	wait := u.Var(ir.Imm(0))
	c.state(u, func(st emit.Mem) {
		u.Store(slot(u, st, wkStart, vec), 8, t)
		m := slot(u, st, wkRaise, vec)
		at := u.Load(m, 8, false)
		u.If(ir.Ne, at, ir.Imm(0), func() { u.Set(wait, sub(u, t, at)) }, nil)
		u.Store(m, 8, ir.Imm(0))
	})
	c.tallyAt(u, u.Add(vec, hsWait), wait)
}

func (c *workCode) softExit(u *unit) {
	vec := c.vector(u)
	t := now(u)
	start := u.Var(ir.Imm(0))
	c.state(u, func(st emit.Mem) {
		m := slot(u, st, wkStart, vec)
		u.Set(start, u.Load(m, 8, false))
		u.Store(m, 8, ir.Imm(0))
	})
	u.If(ir.Eq, start, ir.Imm(0), func() { u.Return(ir.Imm(0)) }, nil)
	ran := u.Var(sub(u, t, start))
	c.tallyAt(u, u.Add(vec, hsRun), ran)
	comm := u.Slot("comm", 16)
	u.Call(ir.FnCurrentComm, u.Addr(comm), ir.Imm(16))
	u.If(ir.Eq, u.Load(comm, 8, false), big(u, ksoftirqd), func() { c.add(u, u.Add(vec, sumDaemon), ran) }, nil)
}

// pair writes the programs at the begin and the end of something that does not leave its CPU. fn finds its function.
func (c *workCode) pair(k kindOf, entry, exit, arg string, fn func(*unit, ir.Val) ir.Val, name func(*unit, ir.Val, emit.Mem)) bool {
	ok := c.at(entry, []string{arg}, func(u *unit) { c.begin(u, k, fn(u, u.arg(arg))) })
	return ok && c.at(exit, []string{arg}, func(u *unit) { c.end(u, k, name) })
}

func (c *workCode) begin(u *unit, k kindOf, fn ir.Val) {
	v := u.Var(fn)
	c.state(u, func(st emit.Mem) {
		u.Store(st.At(wkBegin+8*int(k)), 8, u.Call(ir.FnKtimeGetNs))
		u.Store(st.At(wkFunc+8*int(k)), 8, v)
	})
}

func (c *workCode) end(u *unit, k kindOf, name func(*unit, ir.Val, emit.Mem)) {
	t := now(u)
	start, fn := u.Var(ir.Imm(0)), u.Var(ir.Imm(0))
	c.state(u, func(st emit.Mem) {
		u.Set(start, u.Load(st.At(wkBegin+8*int(k)), 8, false))
		u.Set(fn, u.Load(st.At(wkFunc+8*int(k)), 8, false))
		u.Store(st.At(wkBegin+8*int(k)), 8, ir.Imm(0))
	})
	u.If(ir.Ne, start, ir.Imm(0), func() { c.run(u, k, fn, sub(u, t, start), name) }, nil)
}

// run adds a run of a function. name fills in what else is known, once.
func (c *workCode) run(u *unit, k kindOf, fn, ns ir.Val, name func(*unit, ir.Val, emit.Mem)) {
	took := u.Var(ns)
	kk := u.Slot("function", 16)
	u.Store(kk, 8, ir.Imm(int64(k)))
	u.Store(kk.At(8), 8, fn)
	u.Lookup(c.functions, kk, func(m emit.Mem) { plus(u, m.At(fnRun), took) }, func() {
		v := u.Slot("value", fnSize)
		u.Zero(v, fnSize)
		for i, x := range []ir.Val{ir.Imm(1), took, took} {
			u.Store(v.At(fnRun+8*i), 8, x)
		}
		if name != nil {
			name(u, fn, v)
		}
		u.Update(c.functions, kk, v)
	})
}

// handlerName notes the name that a handler was registered with, and its function where others have their process.
func (c *workCode) handlerName(u *unit, action ir.Val, v emit.Mem) {
	u.Call(ir.FnProbeReadKernelStr, u.Addr(v.At(fnQueue)), ir.Imm(queueName), u.Int(action, c.l.actionName, 8, false))
	u.Store(v.At(fnPID), 8, u.Int(action, c.l.actionHandler, 8, false))
	u.Store(v.At(fnComm), 8, u.Int(action, c.l.actionIRQ, 4, false))
}

// queue is when work is put into a workqueue.
func (c *workCode) queue(u *unit) {
	work := u.Var(u.arg("work"))
	v := u.Slot("queued", qdSize)
	u.Zero(v, qdSize)
	u.Store(v.At(qdAt), 8, u.Call(ir.FnKtimeGetNs))
	u.Store(v.At(qdFunc), 8, u.Int(work, c.l.workFunc, 8, false))
	pwq := u.Var(u.arg("pwq"))
	wq := u.Var(u.Int(pwq, c.l.pwqWQ, 8, false))
	u.Call(ir.FnProbeReadKernelStr, u.Addr(v.At(qdQueue)), ir.Imm(queueName), u.Add(wq, c.l.wqName))
	if c.l.limits {
		most := u.Var(ir.Imm(0))
		if c.l.pwqMax >= 0 {
			u.Set(most, u.Int(pwq, c.l.pwqMax, 4, false))
		} else {
			u.Set(most, u.Int(wq, c.l.wqMax, 4, false))
		}
		u.If(ir.Ge, u.Int(pwq, c.l.pwqActive, 4, false), most, func() { u.Store(v.At(qdLimit), 8, most) }, nil)
		pool := u.Var(u.Int(pwq, c.l.pwqPool, 8, false))
		u.Store(v.At(qdWorkers), 4, u.Int(pool, c.l.poolWorkers, 4, false))
		u.Store(v.At(qdIdle), 4, u.Int(pool, c.l.poolIdle, 4, false))
	}
	u.Update(c.queued, key(u, "work", 8, work), v)
}

// workStart is when a worker takes it.
func (c *workCode) workStart(u *unit) {
	work := u.Var(u.arg("work"))
	t := now(u)
	v := u.Slot("running", rnSize)
	u.Zero(v, rnSize)
	u.Store(v.At(rnAt), 8, t)
	u.Store(v.At(rnFunc), 8, u.Int(work, c.l.workFunc, 8, false))
	task := u.Var(u.Call(ir.FnCurrentTask))
	u.Store(v.At(rnCPU), 8, u.Int(task, c.l.taskRuntime, 8, false))
	u.Store(v.At(rnPID), 8, u.Int(task, c.l.taskPID, 4, false))
	u.Call(ir.FnCurrentComm, u.Addr(v.At(rnComm)), ir.Imm(16))
	k := key(u, "work", 8, work)
	u.Lookup(c.queued, k, func(q emit.Mem) {
		u.Store(v.At(rnWait), 8, sub(u, t, u.Load(q.At(qdAt), 8, false)))
		u.Copy(v.At(rnQueue), q.At(qdQueue), queueName+8) // and rnLimit
	}, nil)
	u.Delete(c.queued, k)
	u.Update(c.running, k, v)
}

// workEnd is when it is done. The work itself may be gone: only its address is used.
func (c *workCode) workEnd(u *unit) {
	t := now(u)
	k := key(u, "work", 8, u.arg("work"))
	u.Lookup(c.running, k, func(r emit.Mem) {
		took := u.Var(sub(u, t, u.Load(r.At(rnAt), 8, false)))
		wait := u.Var(u.Load(r.At(rnWait), 8, false))
		cpu := u.Var(sub(u, u.Int(u.Call(ir.FnCurrentTask), c.l.taskRuntime, 8, false), u.Load(r.At(rnCPU), 8, false)))
		limit := u.Var(u.Load(r.At(rnLimit), 8, false))
		limited := u.Var(ir.Imm(0))
		u.If(ir.Ne, limit, ir.Imm(0), func() { u.Set(limited, ir.Imm(1)) }, nil)
		kk := u.Slot("function", 16)
		u.Store(kk, 8, ir.Imm(int64(kindWork)))
		u.Store(kk.At(8), 8, u.Load(r.At(rnFunc), 8, false))
		u.Lookup(c.functions, kk, func(m emit.Mem) {
			plus(u, m.At(fnRun), took)
			plus(u, m.At(fnWait), wait)
			addTo(u, m.At(fnCPU), cpu)
			u.If(ir.Ne, limit, ir.Imm(0), func() {
				inc(u, m.At(fnLimit))
				u.Store(m.At(fnMax), 8, limit)
			}, nil)
		}, func() {
			v := u.Slot("value", fnSize)
			u.Zero(v, fnSize)
			for i, x := range []ir.Val{ir.Imm(1), took, took, ir.Imm(1), wait, wait, cpu, u.Load(r.At(rnPID), 8, false)} {
				u.Store(v.At(8*i), 8, x)
			}
			u.Copy(v.At(fnComm), r.At(rnComm), 16+queueName)
			u.Store(v.At(fnLimit), 8, limited)
			u.Store(v.At(fnMax), 8, limit)
			u.Update(c.functions, kk, v)
		})
	}, nil)
	u.Delete(c.running, k)
}
