package rank

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// Deep is a stack of the kernel and the deepest that it was seen.
type Deep struct {
	Bytes uint64 // from the end of the stack
	Hits  uint64
	Stack []uint64 // return addresses, the innermost first
}

// Depths samples how deep the stacks of tasks are in the kernel.
type Depths struct {
	room  uint64
	sess  *probe.Session
	table *ir.Map
	other *ir.Map
}

// DepthHz is how often each CPU is looked at, in a second, beside what is done at round times.
const DepthHz = 997

// depthStacks is how many stacks are told apart.
const depthStacks = 8192

// NewDepths samples by BPF on each CPU's clock. A stack ends behind the registers of the user (bpf_task_pt_regs, since 5.15); types
// are the kernel's, and tell where it begins.
func NewDepths(w *probe.World, types ctype.Lookup, cpus int) (*Depths, error) {
	off, regs, err := stackLayout(types)
	if err != nil {
		return nil, err
	}
	d := &Depths{}
	p := emit.New(emit.Options{CPUs: cpus})
	const frames = 8 * defaultFrames
	d.table = p.Map(ir.Map{Name: ".table", Kind: ir.PerCPUHash, KeySize: 8 + frames, ValueSize: 24, MaxEntries: depthStacks})
	d.other = p.Map(ir.Map{Name: ".other", Kind: ir.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	u := p.Unit("profile", 0, "hz")
	sp := u.Var(u.Register("sp"))
	u.Unless(ir.SLt, sp, ir.Imm(0)) // the kernel's
	base := u.Int(u.Call(ir.FnCurrentTask), off, 8, false)
	ptr := u.Slot("regs", 8) // by way of memory it becomes a number, with which may be counted
	u.Store(ptr, 8, u.Call(ir.FnTaskPtRegs, u.Call(ir.FnCurrentTaskBTF)))
	top := u.Var(u.Add(u.Int(u.Addr(ptr), 0, 8, false), regs))
	room, deep := u.Var(u.Bin(ir.Sub, top, base)), u.Var(u.Bin(ir.Sub, top, sp))
	u.If(ir.Gt, deep, room, func() { // above its end, where that is a very large number, or below its beginning
		zero := u.Slot("zero", 8)
		u.Store(zero, 8, ir.Imm(0))
		u.Lookup(d.other, zero, func(m emit.Mem) { u.Store(m, 8, u.Add(u.Load(m, 8, false), 1)) }, nil)
		u.Drop()
	}, nil)
	key := u.Slot("key", 8+frames)
	u.Zero(key, 8+frames)
	u.Store(key, 8, u.Stack(key.At(8), frames))
	u.Lookup(d.table, key, func(m emit.Mem) { // of this CPU: nobody else writes there
		u.Store(m, 8, u.Add(u.Load(m, 8, false), 1))
		u.If(ir.Gt, deep, u.Load(m.At(8), 8, false), func() { u.Store(m.At(8), 8, deep) }, nil)
	}, func() {
		val := u.Slot("value", 24)
		u.Store(val, 8, ir.Imm(1))
		u.Store(val.At(8), 8, deep)
		u.Store(val.At(16), 8, room)
		u.Update(d.table, key, val)
	})
	u.Return(ir.Imm(0))
	targets := [][]probe.Target{{{Provider: "profile", Func: "hz", Count: DepthHz, Name: fmt.Sprintf("profile:hz:%d", DepthHz)}}}
	if d.sess, err = probe.LoadEmit(p, targets, probe.Options{World: w}); err != nil {
		return nil, err
	}
	return d, nil
}

// stackLayout finds the offset of a task's stack in task_struct, and how large saved registers are.
func stackLayout(types ctype.Lookup) (stack, regs int, err error) {
	task, err := types.ByName(ctype.KindStruct, "task_struct")
	if err != nil {
		return 0, 0, err
	}
	saved, err := types.ByName(ctype.KindStruct, "pt_regs")
	if err != nil {
		return 0, 0, err
	}
	if s, ok := task.(*ctype.Struct); ok {
		if m, ok := s.Member("stack"); ok {
			return m.BitOff / 8, ctype.Size(saved), nil
		}
	}
	return 0, 0, errors.New("task_struct has no member stack")
}

// Room is how large a task's stack is, in bytes (THREAD_SIZE, less what is kept free at its end); 0 before End.
func (d *Depths) Room() uint64 { return d.room }

// Begin starts to sample.
func (d *Depths) Begin() error {
	_, err := d.sess.Attach()
	return err
}

// Close ends it for good.
func (d *Depths) Close() error { return d.sess.Close() }

// End stops sampling and gives the stacks, the deepest first. other is how many samples were in the kernel, but not on a task's
// stack: in interrupts, which have stacks of their own; lost is how many found no room, or came while one was taken.
func (d *Depths) End() (stacks []Deep, other, lost uint64, err error) {
	d.sess.Detach()
	return d.read()
}

// read gives what was sampled so far.
func (d *Depths) read() (stacks []Deep, other, lost uint64, err error) {
	es, err := d.sess.Entries(d.table)
	if err != nil {
		return nil, 0, 0, err
	}
	for _, e := range es {
		s := Deep{Stack: addresses(e.Key[8:], binary.LittleEndian.Uint64(e.Key))}
		for _, v := range e.Values {
			s.Hits += binary.LittleEndian.Uint64(v)
			s.Bytes = max(s.Bytes, binary.LittleEndian.Uint64(v[8:]))
			d.room = max(d.room, binary.LittleEndian.Uint64(v[16:]))
		}
		stacks = append(stacks, s)
	}
	sorting.By(stacks, func(a, b Deep) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(b.Hits, a.Hits)) })
	es, err = d.sess.Entries(d.other)
	for _, e := range es {
		for _, v := range e.Values {
			other += binary.LittleEndian.Uint64(v)
		}
	}
	for _, a := range d.sess.Accounts() {
		lost += a.LostMap + a.Missed
	}
	return stacks, other, lost, err
}
