package build

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// noFrames is what a process without unwinding information gets; the words are the reference implementation's.
const noFrames = "No DWARF unwind data available for this process (pid=%d)"

// Registers in struct pt_regs of x86-64 (arch/x86/include/asm/ptrace.h).
const (
	ptRegsBP = 32
	ptRegsIP = 128
	ptRegsSP = 152
)

// Fields of the slot in which the callbacks of one walk keep what they know.
const (
	walkIP    = 8 * iota
	walkSP    // the stack pointer there
	walkFP    // the frame pointer there
	walkBack  // 1 if ip is a return address: the call is before it
	walkWant  // the address whose row is searched
	walkLo    // rows[lo] is not behind it
	walkHi    // rows[hi] is
	walkFirst // the process's rows
	walkEnd
	walkCount // frames found
	walkSize
)

// walk builds the unwinding of one stack.
type walk struct {
	rows  *ir.Map
	state *ir.Slot
	stack mem // of the value
	depth int
}

func (w *walk) at(field int) mem { return slotMem(w.state).at(field) }

// frameMaps declares the maps with where callers are, once.
func (b *builder) frameMaps() (procs, rows *ir.Map) {
	if b.dwprocs == nil {
		nprocs, nrows := 1, 1
		if b.opts.FrameRoom != nil {
			nprocs, nrows = b.opts.FrameRoom()
		}
		b.dwprocs = &ir.Map{Name: ir.FrameProcs, BPFName: "dwprocs", Kind: ir.Hash, KeySize: 4, ValueSize: 8, MaxEntries: max(1, nprocs)}
		b.dwrows = &ir.Map{Name: ir.FrameRows, BPFName: "dwrows", Kind: ir.Array, KeySize: 4, ValueSize: ir.FrameRowSize, MaxEntries: max(2, nrows)}
		b.prog.Maps = append(b.prog.Maps, b.dwprocs, b.dwrows)
	}
	return b.dwprocs, b.dwrows
}

// dwStack walks the user's stack by the rows of the current process. It starts at the registers with which the task came
// into the kernel, which are those of a uprobe's place too.
func dwStack(x *fn, c *syntax.Call, t *types.Type) value {
	procs, rows := x.b.frameMaps()
	val := x.u.NewSlot("dw_ustack", t.Size)
	val.Shared, val.Big = true, true
	w := &walk{rows: rows, state: x.u.NewSlot("walk", walkSize), stack: slotMem(val), depth: t.Depth}
	w.state.Shared = true
	x.zero(w.stack, t.Size)
	x.store(w.stack.at(8), 8, x.pidTgid())
	key := slotMem(x.temp(8))
	pid := x.bin(ir.Shr, x.pidTgid(), ir.Imm(32))
	x.store(key, 4, pid)
	p := x.call(ir.FnMapLookup, x.mapPtr(procs), x.addr(key))
	none, known, end := x.block(), x.block(), x.block()
	x.branch(ir.Eq, p, ir.Imm(0), none, known)
	x.at(none)
	x.send(x.b.event(&ir.Event{Kind: ir.EvWarnf, Fmt: noFrames, Span: c.Span, Payload: types.TupleOf(types.Int64)}), []value{scalarOf(types.Int64, pid)})
	x.jump(end)
	x.at(known)
	first := x.load(mem{base: p.R}, 4, false)
	x.store(w.at(walkFirst), 8, first)
	x.store(w.at(walkEnd), 8, x.bin(ir.Add, first, x.load(mem{base: p.R, off: 4}, 4, false)))
	regs := x.call(ir.FnTaskPtRegs, x.call(ir.FnCurrentTaskBTF))
	for _, r := range []struct{ field, off int }{{walkIP, ptRegsIP}, {walkSP, ptRegsSP}, {walkFP, ptRegsBP}} {
		x.store(w.at(r.field), 8, x.load(mem{base: regs.R, off: int32(r.off)}, 8, false))
	}
	for _, f := range []int{walkBack, walkWant, walkLo, walkHi, walkCount} {
		x.store(w.at(f), 8, ir.Imm(0))
	}
	x.loop(c.Span, ir.Imm(int64(t.Depth)), w.step(x))
	x.store(w.stack, 8, x.bin(ir.Shl, x.load(w.at(walkCount), 8, false), ir.Imm(3)))
	x.jump(end)
	x.at(end)
	return inMem(t, w.stack)
}

// step takes one frame down and goes to its caller.
func (w *walk) step(x *fn) *ir.Func {
	c := x.callback(2)
	i := c.below(ir.R(c.f.Params[0]), int64(w.depth))
	ip := c.load(w.at(walkIP), 8, false)
	c.store(w.at(walkCount), 8, c.bin(ir.Add, i, ir.Imm(1)))
	c.store(mem{base: c.bin(ir.Add, c.addr(w.stack.at(16)), c.bin(ir.Shl, i, ir.Imm(3))).R}, 8, ip)
	c.store(w.at(walkWant), 8, c.bin(ir.Sub, ip, c.load(w.at(walkBack), 8, false)))
	c.store(w.at(walkLo), 8, c.load(w.at(walkFirst), 8, false))
	c.store(w.at(walkHi), 8, c.load(w.at(walkEnd), 8, false))
	c.call(ir.FnLoop, ir.Imm(ir.FrameSteps), c.funcPtr(w.search(c)), c.frame(), ir.Imm(0))
	row := w.row(c, c.load(w.at(walkLo), 8, false))
	c.stopIf(ir.Gt, c.load(row, 8, false), c.load(w.at(walkWant), 8, false))
	w.caller(c, row)
	c.endCallback()
	return c.f
}

// search halves the rows in which the wanted address is.
func (w *walk) search(x *fn) *ir.Func {
	c := x.callback(2)
	lo, hi := c.load(w.at(walkLo), 8, false), c.load(w.at(walkHi), 8, false)
	n := c.bin(ir.Sub, hi, lo)
	c.stopIf(ir.SLe, n, ir.Imm(1))
	mid := c.bin(ir.Add, lo, c.bin(ir.Shr, n, ir.Imm(1)))
	row := w.row(c, mid)
	before, behind, end := c.block(), c.block(), c.block()
	c.branch(ir.Gt, c.load(row, 8, false), c.load(w.at(walkWant), 8, false), behind, before)
	c.at(before)
	c.store(w.at(walkLo), 8, mid)
	c.jump(end)
	c.at(behind)
	c.store(w.at(walkHi), 8, mid)
	c.jump(end)
	c.at(end)
	c.endCallback()
	return c.f
}

// row finds a row; where there is none the callback ends.
func (w *walk) row(c *fn, i ir.Val) mem {
	key := slotMem(c.temp(8))
	c.store(key, 4, i)
	p := c.call(ir.FnMapLookup, c.mapPtr(w.rows), c.addr(key))
	c.stopIf(ir.Eq, p, ir.Imm(0))
	return mem{base: p.R}
}

// caller makes the caller's registers the walk's.
func (w *walk) caller(c *fn, row mem) {
	base := c.f.NewReg()
	kind := c.load(row.at(ir.FrameBase), 1, false)
	c.stopIf(ir.Eq, kind, ir.Imm(ir.FrameEnd))
	onSP, onFP, based := c.block(), c.block(), c.block()
	c.branch(ir.Eq, kind, ir.Imm(ir.FrameOnSP), onSP, onFP)
	c.at(onSP)
	c.mov(base, c.load(w.at(walkSP), 8, false))
	c.jump(based)
	c.at(onFP)
	c.mov(base, c.load(w.at(walkFP), 8, false))
	c.jump(based)
	c.at(based)
	cfa := c.bin(ir.Add, ir.R(base), c.load(row.at(ir.FrameCFA), 4, true))
	flags := c.load(row.at(ir.FrameFlags), 1, false)
	fpOff := c.load(row.at(ir.FrameFP), 2, true)
	c.stopIf(ir.Ne, c.call(ir.FnProbeReadUser, c.addr(w.at(walkIP)), ir.Imm(8), c.bin(ir.Sub, cfa, ir.Imm(8))), ir.Imm(0))
	c.stopIf(ir.Eq, c.load(w.at(walkIP), 8, false), ir.Imm(0))
	saved, other, lost, end := c.block(), c.block(), c.block(), c.block()
	c.branch(ir.Set, flags, ir.Imm(ir.FrameFPSaved), saved, other)
	c.at(saved)
	c.call(ir.FnProbeReadUser, c.addr(w.at(walkFP)), ir.Imm(8), c.bin(ir.Add, cfa, fpOff))
	c.jump(end)
	c.at(other)
	c.branch(ir.Set, flags, ir.Imm(ir.FrameFPLost), lost, end)
	c.at(lost)
	c.store(w.at(walkFP), 8, ir.Imm(0)) // where nothing can be read
	c.jump(end)
	c.at(end)
	c.store(w.at(walkSP), 8, cfa)
	call, signal, done := c.block(), c.block(), c.block()
	c.branch(ir.Set, flags, ir.Imm(ir.FrameSignal), signal, call)
	c.at(signal)
	c.store(w.at(walkBack), 8, ir.Imm(0))
	c.jump(done)
	c.at(call)
	c.store(w.at(walkBack), 8, ir.Imm(1))
	c.jump(done)
	c.at(done)
}

// stopIf ends a callback, and the loop it is of.
func (x *fn) stopIf(cond ir.Cond, a, b ir.Val) {
	out, in := x.block(), x.block()
	x.branch(cond, a, b, out, in)
	x.at(out)
	x.ret(ir.Imm(1))
	x.at(in)
}
