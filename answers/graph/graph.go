// Package graph draws what a kernel function called: the calls below it as trees, with durations, and a table by function.
//
// A tracer says who was entered and left, when, and what the scheduler did meanwhile ([Event]); a [Builder] makes trees of
// it ([Tree]), one for every call of the function asked for. Where events come from does not matter: the kernel's
// function_graph ([Formats] decodes its records), or probes on entries and returns. Nothing here touches the system.
package graph

import "maps"

// Kind is what an event tells.
type Kind uint8

// Kinds of events.
const (
	Enter  Kind = iota // Func was entered
	Exit               // Func was left
	Out                // the task was taken off the CPU
	In                 // the task was put on a CPU
	Rename             // the task has the name Comm from now on
	Lost               // events are missing before this one
	Gone               // the task ended: it left the CPU for good
)

// Context is what a CPU runs in, by rank: what has a higher one has interrupted what has a lower.
type Context uint8

// Contexts.
const (
	Task    Context = iota
	Softirq         // in an interrupt's wake, or when bottom halves are enabled again
	Hardirq
	NMI
)

// String names a context, "" for a task.
func (c Context) String() string { return [...]string{"", "softirq", "hardirq", "nmi"}[c&3] }

// Event is one thing a tracer saw. Events of one task must come in their order; those of different tasks may be mixed.
type Event struct {
	Kind Kind
	Ctx  Context
	CPU  int
	Task int    // thread number, as the kernel counts; 0 is each CPU's own idle task
	Time uint64 // nanoseconds of whichever clock
	Func uint64 // address, of Enter and Exit
	Dur  uint64 // of Exit, nanoseconds between entry and return as the tracer measured; 0 takes the events' times
	Comm string // the task's name, of Out, In, Rename, and others where the tracer knows it
}

// Call is a node of a tree: a function that was called, or a time off the CPU.
type Call struct {
	Func  uint64 // address; 0 if Off
	Off   bool   // not a call: the task was off the CPU meanwhile
	CPU   int    // on which it began
	Start uint64 // nanoseconds
	Dur   uint64 // nanoseconds, what it called and waited for included
	Ctx   Context
	Irq   bool // not called by the function above it, but by an interrupt of it (or a softirq); so is all below it
	Cut   bool // its return was not seen, or the task ended in it: Dur ends with what was seen of it
	Calls []*Call
}

// Self is the time without that of the calls shown below it: nanoseconds.
func (c *Call) Self() uint64 {
	below := uint64(0)
	for _, k := range c.Calls {
		below += k.Dur
	}
	return c.Dur - min(below, c.Dur)
}

// OffCPU is the time in which the task was off the CPU: nanoseconds.
func (c *Call) OffCPU() uint64 {
	if c.Off {
		return c.Dur
	}
	n := uint64(0)
	for _, k := range c.Calls {
		n += k.OffCPU()
	}
	return n
}

// Tree is one call of the function asked for, with what is below it.
type Tree struct {
	Call
	Task int
	Comm string
	// Hidden counts calls that are not in the tree because it has as many as are kept.
	Hidden uint64

	calls int
}

// Options say which trees a [Builder] makes.
type Options struct {
	Roots map[uint64]bool                  // addresses of the function; a name may have several
	Depth int                              // levels kept, that of the function itself included; 0 keeps all
	Min   uint64                           // least duration of a tree, nanoseconds
	Keep  func(task int, comm string) bool // whose calls; nil keeps all. comm is the name when the function was entered
	NoIrq bool                             // leave out what interrupts did meanwhile
	// Comm gives the name of a task of which no event told one; nil where nobody knows.
	Comm func(task int) string
	// IsIrq tells the functions by which interrupts enter the kernel, where no context shows it; may be nil.
	IsIrq func(addr uint64) bool
}

// Builder makes trees of events. The zero value is not usable; see [NewBuilder].
type Builder struct {
	o     Options
	tasks map[int]*task
	comms map[int]string

	// Unseen counts returns that were not seen, of calls in trees; Broken, trees given up because events were lost or more
	// was in flight than is kept.
	Unseen, Broken int
}

// task is a thread inside the function asked for.
type task struct {
	tree   *Tree
	stack  []frame
	off    uint64 // when it was taken off the CPU; 0 if it is on one
	offCPU int
}

// frame is a call that has not returned. node is nil for what is not kept.
type frame struct {
	fn    uint64
	ctx   Context
	irq   bool
	node  *Call
	start uint64
}

// NewBuilder returns a Builder that has seen nothing.
func NewBuilder(o Options) *Builder {
	return &Builder{o: o, tasks: map[int]*task{}, comms: map[int]string{}}
}

// key tells the idle tasks of CPUs apart, which all are number 0.
func key(e Event) int {
	if e.Task == 0 {
		return -1 - e.CPU
	}
	return e.Task
}

// Add takes the next event; a tree that it completes is returned, else nil.
func (b *Builder) Add(e Event) *Tree {
	k := key(e)
	if e.Comm != "" && e.Task != 0 {
		if len(b.comms) > maxNames {
			b.forget()
		}
		b.comms[k] = e.Comm
	}
	t := b.tasks[k]
	switch e.Kind {
	case Enter:
		b.enter(k, t, e)
	case Exit:
		return b.exit(k, t, e)
	case Out:
		if t != nil && t.off == 0 {
			t.off, t.offCPU = e.Time, e.CPU
		}
	case In:
		if t != nil && t.off != 0 {
			t.wake(e.Time)
		}
	case Gone:
		delete(b.comms, k)
		return b.gone(k, t, e)
	case Lost:
		b.lost()
	}
	return nil
}

// wake ends a time off the CPU.
func (t *task) wake(now uint64) {
	if n := t.visible(); n != nil && now > t.off && t.tree.calls < maxCalls {
		t.tree.calls++
		n.Calls = append(n.Calls, &Call{Off: true, CPU: t.offCPU, Start: t.off, Dur: now - t.off})
	}
	t.off = 0
}

// visible is the innermost call that is kept.
func (t *task) visible() *Call {
	for i := len(t.stack) - 1; i >= 0; i-- {
		if n := t.stack[i].node; n != nil {
			return n
		}
	}
	return nil
}

func (b *Builder) enter(k int, t *task, e Event) {
	if t == nil {
		if !b.o.Roots[e.Func] {
			return
		}
		comm := b.comm(k, e)
		if b.o.Keep != nil && !b.o.Keep(e.Task, comm) {
			return
		}
		t = &task{tree: &Tree{Task: e.Task, Comm: comm}}
		t.tree.Call = Call{Func: e.Func, CPU: e.CPU, Start: e.Time, Ctx: e.Ctx}
		t.stack = append(t.stack, frame{fn: e.Func, ctx: e.Ctx, node: &t.tree.Call, start: e.Time})
		if len(b.tasks) >= maxTasks {
			b.lost()
		}
		b.tasks[k] = t
		return
	}
	if len(t.stack) >= maxStack {
		delete(b.tasks, k)
		b.Broken++
		return
	}
	if t.off != 0 { // it runs, so it is on a CPU: the event was lost
		t.wake(e.Time)
	}
	up := t.stack[len(t.stack)-1]
	f := frame{fn: e.Func, ctx: max(e.Ctx, up.ctx), start: e.Time}
	f.irq = up.irq || f.ctx > up.ctx || b.o.IsIrq != nil && b.o.IsIrq(e.Func)
	switch {
	case up.node == nil || b.o.Depth != 0 && len(t.stack) >= b.o.Depth:
	case t.tree.calls >= maxCalls:
		t.tree.Hidden++
	default:
		t.tree.calls++
		f.node = &Call{Func: e.Func, CPU: e.CPU, Start: e.Time, Ctx: f.ctx, Irq: f.irq}
		up.node.Calls = append(up.node.Calls, f.node)
	}
	t.stack = append(t.stack, f)
}

func (b *Builder) comm(k int, e Event) string {
	switch {
	case e.Comm != "":
		return e.Comm
	case e.Task == 0:
		return "<idle>"
	case b.comms[k] != "":
		return b.comms[k]
	case b.o.Comm != nil:
		b.comms[k] = b.o.Comm(e.Task)
	}
	return b.comms[k]
}

func (b *Builder) exit(k int, t *task, e Event) *Tree {
	if t == nil {
		return nil
	}
	if t.off != 0 {
		t.wake(e.Time)
	}
	at := len(t.stack) - 1
	for at >= 0 && t.stack[at].fn != e.Func {
		at--
	}
	if at < 0 { // entered before the trace began, or its entry was lost
		return nil
	}
	for i := len(t.stack) - 1; i > at; i-- { // left without our seeing it
		t.stack[i].close(e.Time, true)
		b.Unseen++
	}
	f := t.stack[at]
	if at > 0 && e.Ctx > t.stack[at-1].ctx && f.node != nil { // it entered the interrupt: irq_enter_rcu
		f.node.Irq, f.node.Ctx = true, e.Ctx
	}
	f.close(e.Time, false)
	if f.node != nil && e.Dur != 0 {
		f.node.Dur = e.Dur
	}
	t.stack = t.stack[:at]
	if at > 0 {
		return nil
	}
	delete(b.tasks, k)
	return b.finish(t.tree)
}

// gone ends the calls of a task that has ended: they never return.
func (b *Builder) gone(k int, t *task, e Event) *Tree {
	if t == nil {
		return nil
	}
	for i := len(t.stack) - 1; i >= 0; i-- {
		t.stack[i].close(e.Time, true)
	}
	delete(b.tasks, k)
	return b.finish(t.tree)
}

func (f frame) close(now uint64, cut bool) {
	if f.node == nil {
		return
	}
	f.node.Cut = cut
	if now > f.start {
		f.node.Dur = now - f.start
	}
}

// finish is the last look at a tree.
func (b *Builder) finish(t *Tree) *Tree {
	if b.o.NoIrq {
		prune(&t.Call)
	}
	if t.Dur < b.o.Min {
		return nil
	}
	return t
}

// prune takes out what interrupts did.
func prune(c *Call) {
	kept := c.Calls[:0]
	for _, k := range c.Calls {
		if !k.Irq {
			prune(k)
			kept = append(kept, k)
		}
	}
	c.Calls = kept
}

// lost gives up the calls in flight: any of them may lack what is missing.
func (b *Builder) lost() {
	b.Broken += len(b.tasks)
	clear(b.tasks)
}

// What is kept is bounded: calls in one tree, calls in each other (a kernel stack has 16 KiB), tasks inside the function.
const (
	maxCalls = 1 << 20
	maxStack = 1 << 10
	maxTasks = 1 << 16
)

// maxNames bounds the names of tasks that are kept.
const maxNames = 1 << 16

// forget drops the names of tasks that are not inside the function.
func (b *Builder) forget() {
	maps.DeleteFunc(b.comms, func(k int, _ string) bool { return b.tasks[k] == nil })
}

// Open is how many calls of the function have not returned yet.
func (b *Builder) Open() int { return len(b.tasks) }
