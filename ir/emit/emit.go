// Package emit writes IR by hand, for questions that are not asked in the language: programs of package packet, watch and
// their like. It does what ir/build does for statements, with nothing to parse and nothing to check but the IR itself.
//
//	p := emit.New(emit.Options{CPUs: n, Ring: 1 << 20})
//	u := p.Unit("rawtracepoint", 0, "kfree_skb")
//	rec := u.Slot("record", 32)
//	u.Store(rec.At(8), 8, u.Arg(0))
//	u.Output(rec, 32, emit.WakeIfIdle)
//	u.Return(ir.Imm(0))
//	prog, err := p.Finish()
//
// Code is written in order: what follows an If or a Return goes on behind it.
package emit

import (
	"fmt"
	"math/bits"

	"github.com/fathom-trace/fathom/ir"
)

// Options are the sizes of what all programs share.
type Options struct {
	CPUs int // that are possible; counters have a part for each
	Ring int // bytes of the ring, a power of two; 0 is none
}

// Program is a program being written.
type Program struct {
	prog *ir.Program
	ring *ir.Map
	cpus int
}

// New begins a program.
func New(o Options) *Program {
	p := &Program{prog: &ir.Program{}, cpus: max(1, o.CPUs)}
	p.prog.Counters = p.Map(ir.Map{Name: ".counters", Kind: ir.Array, KeySize: 4, MaxEntries: 1})
	if o.Ring > 0 {
		p.ring = p.Map(ir.Map{Name: ".ring", Kind: ir.Ring, MaxEntries: o.Ring})
	}
	return p
}

// Map declares a map. Its Name begins with "." and is at most 16 bytes long.
func (p *Program) Map(m ir.Map) *ir.Map {
	m.BPFName = m.Name[1:]
	p.prog.Maps = append(p.prog.Maps, &m)
	return &m
}

// Unit begins a program of its own, attached as provider says to the targets that stand under index targets when it is
// loaded.
func (p *Program) Unit(provider string, targets int, name string) *Unit {
	i := len(p.prog.Units)
	u := &ir.Unit{Name: fmt.Sprintf("p%d_%s", i, name), Index: i, Provider: provider, Clause: targets, Target: -1}
	u.Entry = &ir.Func{Name: u.Name, Unit: u, Entry: true}
	p.prog.Units = append(p.prog.Units, u)
	return &Unit{p: p, U: u, f: u.Entry, at: u.Entry.NewBlock()}
}

// Finish gives the program. Its error is a mistake in what was written.
func (p *Program) Finish() (*ir.Program, error) {
	p.prog.Counters.ValueSize = ir.CounterBytes(len(p.prog.Units)) << bits.Len(uint(p.cpus-1))
	for _, u := range p.prog.Units {
		for _, b := range u.Entry.Blocks {
			if b.Term() == nil {
				b.Ins = append(b.Ins, ir.Ins{Op: ir.Ret, A: u.Pass()})
			}
		}
		u.Entry.Prune()
		if err := u.Check(); err != nil {
			return nil, fmt.Errorf("%s: %w", u.Name, err)
		}
	}
	return p.prog, nil
}

// Mem is a place that a program may read and write directly.
type Mem struct {
	slot *ir.Slot
	base ir.Reg
	off  int32
}

// At gives the place off bytes further on.
func (m Mem) At(off int) Mem { m.off += int32(off); return m }

// Unit is one program being written.
type Unit struct {
	U   *ir.Unit
	p   *Program
	f   *ir.Func
	at  *ir.Block
	out *ir.Block // counts the run as filtered and ends it; nil until somebody goes there
}

func (u *Unit) put(n ir.Ins) {
	if u.at.Term() != nil { // behind a Return: never reached
		u.at = u.f.NewBlock()
	}
	u.at.Ins = append(u.at.Ins, n)
}

func (u *Unit) def(n ir.Ins) ir.Val {
	n.Dst = u.f.NewReg()
	u.put(n)
	return ir.R(n.Dst)
}

// Place is the memory at an address that a program may access directly: its context, the value of a map.
func (u *Unit) Place(addr ir.Val) Mem { return Mem{base: u.Reg(addr)} }

// Slot reserves memory of the program. It is not cleared.
func (u *Unit) Slot(name string, size int) Mem { return Mem{slot: u.U.NewSlot(name, size)} }

// Var is a variable: a register that may be set again.
func (u *Unit) Var(v ir.Val) ir.Val {
	d := u.f.NewReg()
	u.Set(ir.R(d), v)
	return ir.R(d)
}

// Set gives a variable another value.
func (u *Unit) Set(d, v ir.Val) {
	if v.IsImm() {
		u.put(ir.Ins{Op: ir.Const, Dst: d.R, A: v})
		return
	}
	u.put(ir.Ins{Op: ir.Mov, Dst: d.R, A: v})
}

// Reg gives v in a register.
func (u *Unit) Reg(v ir.Val) ir.Reg {
	if v.IsImm() {
		v = u.Var(v)
	}
	return v.R
}

// Arg is argument i of what is traced.
func (u *Unit) Arg(i int) ir.Val { return u.def(ir.Ins{Op: ir.Arg, Imm: int64(i)}) }

// Register is a register of the CPU where the program was called, by its name in struct pt_regs: "bx".
func (u *Unit) Register(name string) ir.Val { return u.def(ir.Ins{Op: ir.CPUReg, Name: name}) }

// Result is what the traced function, which has so many arguments, returned.
func (u *Unit) Result(args int) ir.Val { return u.def(ir.Ins{Op: ir.Retval, Imm: int64(args)}) }

// Field is a field of the traced event, at an offset that its format says.
func (u *Unit) Field(name string, off, size int, signed bool) ir.Val {
	return u.def(ir.Ins{Op: ir.Field, Name: name, Off: int32(off), Size: uint8(size), Signed: signed})
}

// Cookie is the index of the target that fired.
func (u *Unit) Cookie() ir.Val {
	u.U.Cookie = true
	return u.def(ir.Ins{Op: ir.Cookie})
}

// Given is number i of the target, which stands in the instructions: the program is loaded for each of its targets. The verifier
// knows it: what it rules out is left out of the program (opt_remove_dead_code in kernel/bpf/verifier.c).
func (u *Unit) Given(i int) ir.Val {
	u.U.Given = true
	return u.def(ir.Ins{Op: ir.Given, Imm: int64(i)})
}

// Bin is a op b.
func (u *Unit) Bin(op ir.Alu, a, b ir.Val) ir.Val {
	if a.IsImm() && b.IsImm() {
		return ir.Imm(op.Eval(a.Imm, b.Imm))
	}
	return u.def(ir.Ins{Op: ir.Bin, Alu: op, A: a, B: b})
}

// Add is a plus a number.
func (u *Unit) Add(a ir.Val, n int) ir.Val {
	if n == 0 {
		return a
	}
	return u.Bin(ir.Add, a, ir.Imm(int64(n)))
}

// Swap reverses the low bytes of a: what is on the wire in network byte order.
func (u *Unit) Swap(a ir.Val, size int) ir.Val {
	return u.def(ir.Ins{Op: ir.Bswap, A: a, Size: uint8(size)})
}

// Load reads size bytes.
func (u *Unit) Load(m Mem, size int, signed bool) ir.Val {
	return u.def(ir.Ins{Op: ir.Load, Size: uint8(size), Signed: signed, Slot: m.slot, Base: m.base, Off: m.off})
}

// Store writes size bytes.
func (u *Unit) Store(m Mem, size int, v ir.Val) {
	u.put(ir.Ins{Op: ir.Store, Size: uint8(size), Slot: m.slot, Base: m.base, Off: m.off, A: v})
}

// Zero clears n bytes.
func (u *Unit) Zero(m Mem, n int) {
	u.put(ir.Ins{Op: ir.Zero, Imm: int64(n), Slot: m.slot, Base: m.base, Off: m.off})
}

// Copy copies n bytes; both places are multiples of 8.
func (u *Unit) Copy(dst, src Mem, n int) {
	u.put(ir.Ins{Op: ir.Copy, Imm: int64(n), Slot: dst.slot, Base: dst.base, Off: dst.off, A: u.Addr(src), Size: 8})
}

// AtomicAdd adds to size bytes that other CPUs may write, too; 4 or 8.
func (u *Unit) AtomicAdd(m Mem, size int, v ir.Val) {
	u.put(ir.Ins{Op: ir.AtomicAdd, Size: uint8(size), Slot: m.slot, Base: m.base, Off: m.off, A: ir.R(u.Reg(v))})
}

// Addr is the address of a place.
func (u *Unit) Addr(m Mem) ir.Val {
	return u.def(ir.Ins{Op: ir.Addr, Slot: m.slot, Base: m.base, Off: m.off})
}

// Call calls a helper of the kernel.
func (u *Unit) Call(helper int32, args ...ir.Val) ir.Val {
	return u.def(ir.Ins{Op: ir.Call, Fn: helper, Args: args})
}

// Kfunc calls a function of the kernel by its name.
func (u *Unit) Kfunc(name string, args ...ir.Val) ir.Val {
	return u.def(ir.Ins{Op: ir.Call, Name: name, Args: args})
}

// Context is the program's context, as helpers want it.
func (u *Unit) Context() ir.Val { return u.def(ir.Ins{Op: ir.Ctx}) }

// Value is the address of the only element of an array.
func (u *Unit) Value(m *ir.Map) ir.Val { return u.def(ir.Ins{Op: ir.MapValue, Map: m}) }

// Ptr is a map as helpers want it.
func (u *Unit) Ptr(m *ir.Map) ir.Val { return u.def(ir.Ins{Op: ir.MapPtr, Map: m}) }

// Read copies n bytes of kernel memory to a place; what cannot be read is zero. The result is 0 or a negative error.
func (u *Unit) Read(to Mem, n int, from ir.Val) ir.Val {
	return u.Call(ir.FnProbeReadKernel, u.Addr(to), ir.Imm(int64(n)), from)
}

// Int reads a number of kernel memory, 0 if it cannot be read.
func (u *Unit) Int(from ir.Val, off, size int, signed bool) ir.Val {
	t := u.Slot("int", 8)
	u.Read(t, size, u.Add(from, off))
	return u.Load(t, size, signed)
}

// Lookup finds the value to a key and calls found with its address, or missing; both may be nil.
func (u *Unit) Lookup(m *ir.Map, key Mem, found func(Mem), missing func()) {
	v := u.Call(ir.FnMapLookup, u.Ptr(m), u.Addr(key))
	u.If(ir.Ne, v, ir.Imm(0), func() {
		if found != nil {
			found(Mem{base: v.R})
		}
	}, missing)
}

// Update sets the value to a key; a map that is full is counted.
func (u *Unit) Update(m *ir.Map, key, value Mem) {
	r := u.Call(ir.FnMapUpdate, u.Ptr(m), u.Addr(key), u.Addr(value), ir.Imm(0))
	u.If(ir.Ne, r, ir.Imm(0), func() { u.Count(ir.LostMap) }, nil) // before Linux 6.4 only 32 bits of it mean something
}

// Delete removes a key.
func (u *Unit) Delete(m *ir.Map, key Mem) { u.Call(ir.FnMapDelete, u.Ptr(m), u.Addr(key)) }

// If goes through then when a c b holds, else through other; either may be nil.
func (u *Unit) If(c ir.Cond, a, b ir.Val, then, other func()) {
	yes, end := u.f.NewBlock(), u.f.NewBlock()
	no := end
	if other != nil {
		no = u.f.NewBlock()
	}
	u.put(ir.Ins{Op: ir.Branch, Cond: c, A: ir.R(u.Reg(a)), B: b, Then: yes, Else: no})
	u.arm(yes, end, then)
	if other != nil {
		u.arm(no, end, other)
	}
	u.at = end
}

func (u *Unit) arm(b, end *ir.Block, fn func()) {
	u.at = b
	if fn != nil {
		fn()
	}
	if u.at.Term() == nil {
		u.at.Ins = append(u.at.Ins, ir.Ins{Op: ir.Jump, Then: end})
	}
}

// Unless ends the program, counted as filtered, unless a c b holds.
func (u *Unit) Unless(c ir.Cond, a, b ir.Val) {
	u.If(c, a, b, nil, u.Drop)
}

// Drop ends the program, counted as filtered: all places that do so share the code.
func (u *Unit) Drop() {
	if u.out == nil {
		at := u.at
		u.out = u.f.NewBlock()
		u.at = u.out
		u.Count(ir.Filtered)
		u.Leave()
		u.at = at
	}
	u.put(ir.Ins{Op: ir.Jump, Then: u.out})
}

// Leave ends the program, which has no say in what becomes of the event.
func (u *Unit) Leave() { u.Return(u.U.Pass()) }

// Return ends the program with a result.
func (u *Unit) Return(v ir.Val) { u.put(ir.Ins{Op: ir.Ret, A: v}) }

// Count adds one to a counter of the unit: on paths that lose or filter only.
func (u *Unit) Count(counter int) { u.put(ir.Ins{Op: ir.Count, Imm: int64(counter)}) }

// Wake says if a record wakes who reads the ring (BPF_RB_… in include/uapi/linux/bpf.h).
type Wake int64

// When to wake. To wake costs more than to send.
const (
	WakeIfIdle Wake = 0 // who has read all there was
	WakeNever  Wake = 1 // it looks by itself
	WakeNow    Wake = 2 // also who has not read what was sent with WakeNever
)

// Output sends n bytes through the ring; a full ring is counted.
func (u *Unit) Output(m Mem, n int, w Wake) {
	u.output(ir.Ins{Op: ir.Output, Map: u.p.ring, Slot: m.slot, Base: m.base, Off: m.off, Imm: int64(n), A: ir.Imm(int64(w))})
}

// OutputUpTo is Output of n bytes, a variable whose values the verifier knows to be between 1 and most; w is a number as Wake.
func (u *Unit) OutputUpTo(m Mem, most int, n, w ir.Val) {
	u.output(ir.Ins{Op: ir.Output, Map: u.p.ring, Slot: m.slot, Base: m.base, Off: m.off, Imm: int64(most), B: n, A: w})
}

func (u *Unit) output(n ir.Ins) {
	r := u.def(n)
	u.If(ir.SLt, r, ir.Imm(0), func() { u.Count(ir.LostRing) }, nil)
}

// Branch lets fn append blocks of its own, as wire/filter does: fn gets the block that is being written and gives those in
// which to go on when what it tests holds, and when not.
func (u *Unit) Branch(fn func(u *ir.Unit, f *ir.Func, at *ir.Block) (match, drop *ir.Block), then, other func()) {
	yes, no := fn(u.U, u.f, u.at)
	end := u.f.NewBlock()
	u.arm(yes, end, then)
	u.arm(no, end, other)
	u.at = end
}

// Stack writes the return addresses of the traced kernel code, up to n bytes of them, and gives how many bytes, or a
// negative error.
func (u *Unit) Stack(m Mem, n int) ir.Val {
	return u.def(ir.Ins{Op: ir.Stack, Slot: m.slot, Base: m.base, Off: m.off, Imm: int64(n), A: ir.Imm(0)})
}

// UserStack is Stack of the user's code that was running.
func (u *Unit) UserStack(m Mem, n int) ir.Val {
	return u.def(ir.Ins{Op: ir.Stack, Slot: m.slot, Base: m.base, Off: m.off, Imm: int64(n), A: ir.Imm(userStack)})
}

// userStack is BPF_F_USER_STACK (include/uapi/linux/bpf.h).
const userStack = 1 << 8

// FuncIP is the address of the traced function.
func (u *Unit) FuncIP() ir.Val { return u.def(ir.Ins{Op: ir.FuncIP}) }
