// Package ir is the compiler's middle: a control-flow graph of three-address instructions over 64-bit virtual registers.
//
// # The machine
//
// A Func is a list of Blocks; the last instruction of a Block, and no other, is a terminator (Jump, Branch, Ret).
// A register holds 64 bits and may be assigned more than once; a value narrower than 64 bits is kept extended to 64 by
// its own signedness. Memory that is not a map or a ring is a Slot: bytes of a fixed size that the binding places on
// the BPF stack or in a per-CPU scratch map. Slots belong to a Unit, one entry Func with the callbacks it loops with,
// so that a callback can reach its entry's variables.
//
// What depends on the place a program will run at is symbolic: Arg, Retval, Field, FuncIP, Regs say what is wanted;
// bpf/gen knows how each kind of attachment supplies it.
package ir

import (
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// Reg is a virtual register; 0 is none.
type Reg int32

// Val is an operand: a register, or with R == 0 the constant Imm.
type Val struct {
	R   Reg
	Imm int64
}

// R gives a register operand.
func R(r Reg) Val { return Val{R: r} }

// Imm gives a constant operand.
func Imm(n int64) Val { return Val{Imm: n} }

// IsImm says if v is a constant.
func (v Val) IsImm() bool { return v.R == 0 }

// Op is what an instruction does.
type Op uint8

// Instructions. dst is Ins.Dst; a, b are Ins.A and Ins.B; mem is the place Ins.Base (or Ins.Slot) + Ins.Off.
const (
	Nop       Op = iota
	Const        // dst = a.Imm                     64 bits
	Mov          // dst = a
	Bin          // dst = a Alu b                   64-bit; Div, Mod by 0 as BPF defines them
	Ext          // dst = a cut to Size bytes and extended by Signed
	Bswap        // dst = a's low Size bytes reversed, zero-extended
	Addr         // dst = address of mem
	Load         // dst = *(Size)mem                Signed extends
	Store        // *(Size)mem = a
	AtomicAdd    // *(Size)mem += a
	Zero         // Imm bytes at mem = 0            Size is for the binding
	Copy         // Imm bytes at mem = bytes at address a   both directly accessible
	Call         // dst = helper Fn(Args…)
	MapPtr       // dst = Map, as helpers take it
	MapValue     // dst = address of the value of Map's only element + Off: arrays of one
	FuncPtr      // dst = callback Callee, as helpers take it
	Ctx          // dst = the context of the entry Func
	Frame        // dst = the address callbacks receive: the Unit's shared slots
	Arg          // dst = argument Imm of the traced function; with Name ArgAddress where on the stack it is
	Retval       // dst = its result
	Field        // dst = value (or with Size 0 address) of field Name at Off in the event
	FuncIP       // dst = address of the traced function
	CPUReg       // dst = register Name of the traced context
	Stack        // dst = bytes written; stack of the traced context to mem: Imm bytes, Flags
	Output       // dst = result; Imm (or with B its register) bytes at mem to the event ring, with flags a
	Cookie       // dst = index of the target that fired, given at attach
	Given        // dst = number Imm of the target that the program is loaded for, a constant from then on
	Count        // counter Imm of this Unit += 1   on paths that lose or filter only
	Jump         // goto Then
	Branch       // if a Cond b goto Then else Else
	Ret          // return a
)

// ArgAddress is the Name of an Arg that wants an argument's address.
const ArgAddress = "address"

// Alu is an operation of Bin.
type Alu uint8

// Operations of Bin.
const (
	Add Alu = iota
	Sub
	Mul
	Div  // unsigned
	SDiv // signed, done on magnitudes where the instruction set has none
	Mod
	SMod
	And
	Or
	Xor
	Shl
	Shr
	Sar
)

// Cond is a comparison of Branch.
type Cond uint8

// Comparisons; S… are signed.
const (
	Eq Cond = iota
	Ne
	Lt
	Le
	Gt
	Ge
	SLt
	SLe
	SGt
	SGe
	Set // a & b != 0
)

// Not gives the opposite of c; Set has none.
func (c Cond) Not() Cond { return [...]Cond{Ne, Eq, Ge, Gt, Le, Lt, SGe, SGt, SLe, SLt, Set}[c] }

// Ins is one instruction. Which fields mean something depends on Op.
type Ins struct {
	Op     Op
	Alu    Alu
	Cond   Cond
	Size   uint8
	Signed bool
	Dst    Reg
	A, B   Val
	Base   Reg   // mem: base register, or
	Slot   *Slot // mem: base slot
	Off    int32
	Imm    int64
	Fn     int32 // Call: helper number (include/uapi/linux/bpf.h); 0 with Name, a kernel function called by its name
	Args   []Val
	Map    *Map
	Name   string
	Callee *Func
	Then   *Block
	Else   *Block
	Span   syntax.Span
}

// Block is a basic block.
type Block struct {
	ID  int
	Ins []Ins
}

// Term gives the terminator, or nil in a block still being built.
func (b *Block) Term() *Ins {
	if n := len(b.Ins); n > 0 {
		switch b.Ins[n-1].Op {
		case Jump, Branch, Ret:
			return &b.Ins[n-1]
		}
	}
	return nil
}

// Succs gives the blocks that may run after b.
func (b *Block) Succs() []*Block {
	switch t := b.Term(); {
	case t == nil || t.Op == Ret:
		return nil
	case t.Op == Jump:
		return []*Block{t.Then}
	default:
		return []*Block{t.Then, t.Else}
	}
}

// Slot is memory of a Unit.
type Slot struct {
	Name   string
	Size   int
	Shared bool // reached by callbacks
	Big    bool // never on the BPF stack
	// Element says that the number of the program's element of scratch memory stands here, which is not the same in all programs that
	// are loaded of a Unit.
	Element bool
}

// Func is a program or a callback.
type Func struct {
	Name   string
	Unit   *Unit
	Blocks []*Block
	Regs   int   // registers used: 1 … Regs
	Params []Reg // callbacks: what they are called with
	Entry  bool
}

// NewReg gives a fresh register.
func (f *Func) NewReg() Reg { f.Regs++; return Reg(f.Regs) }

// NewBlock appends an empty block.
func (f *Func) NewBlock() *Block {
	b := &Block{ID: len(f.Blocks)}
	f.Blocks = append(f.Blocks, b)
	return b
}

// Unit is one BPF program: an entry and its callbacks.
type Unit struct {
	Name     string
	Index    int    // in Program.Units
	Provider string // the kind of attachment, for the binding: "kprobe", "tracepoint", …
	Clause   int    // index of check.Instance
	Target   int    // the only target of the instance this is for, or -1 for all
	Entry    *Func
	Calls    []*Func
	Slots    []*Slot
	Cookie   bool // needs an attach cookie: it asks which of several targets fired
	Given    bool // is loaded for each of its targets: its instructions have numbers of the target in them
	Typed    bool // needs arguments the verifier knows the types of: a raw tracepoint is attached by its BTF
}

// Pass is what a program returns that has no say in what becomes of its event. A program on a trace event that returns 0
// keeps the event from everybody else who has it through perf (trace_call_bpf in kernel/trace/bpf_trace.c); the events of
// the others are theirs alone, or the kernel wants 0 of them, as a 1 takes uprobes away (uprobe.multi before Linux 6.13).
func (u *Unit) Pass() Val {
	if u.Provider == "tracepoint" {
		return Imm(1)
	}
	return Imm(0)
}

// NewSlot adds a slot.
func (u *Unit) NewSlot(name string, size int) *Slot {
	s := &Slot{Name: name, Size: size}
	u.Slots = append(u.Slots, s)
	return s
}

// MapKind says how the kernel must keep a map.
type MapKind uint8

// Map kinds.
const (
	Hash MapKind = iota
	LRUHash
	PerCPUHash
	PerCPULRUHash
	Array
	PerCPUArray
	Ring
	PerfArray
)

// PerCPU says if every CPU has its own values.
func (k MapKind) PerCPU() bool {
	return k == PerCPUHash || k == PerCPULRUHash || k == PerCPUArray
}

// Map is a BPF map. Key and Value are nil for maps of our own, which Sizes describe.
type Map struct {
	Name       string // as the program names it, with @; our own begin with "."
	BPFName    string
	Kind       MapKind
	Key, Value *types.Type
	KeySize    int
	ValueSize  int
	MaxEntries int
	// Bucketed maps (hist, lhist, tseries) have a uint64 bucket after the key.
	Bucketed bool
	Order    int
}

// EventKind says what the printing side does with a record.
type EventKind uint8

// Event kinds.
const (
	EvPrintf       EventKind = iota // Fmt with the payload
	EvErrorf                        // the same, to stderr as an error at Span
	EvWarnf                         // the same, as a warning
	EvPrint                         // one value
	EvPrintMap                      // a map: payload (top uint64, div uint64)
	EvPrintMapElem                  // one element of a map: payload (key, value)
	EvClear                         // clear Map
	EvZero                          // zero Map
	EvTime                          // time, Fmt
	EvJoin                          // strings joined by Fmt
	EvCat                           // cat of the path made by Fmt
	EvSystem                        // shell command made by Fmt
	EvExit                          // exit code
	EvPacket                        // bytes of a packet for the pcap file Fmt: see build.PacketRecord
	EvUnwatch                       // end the watchpoints at an address: payload (address)
	EvFail                          // a failed read or map update: -k
)

// Event describes one kind of record in the ring: a uint64 index into Program.Events, then a value of Payload.
type Event struct {
	Kind    EventKind
	Fmt     string
	Payload *types.Type // a tuple; nil for none
	Map     *Map
	Map2    *Map
	Span    syntax.Span
	Text    string // EvFail: the helper's name
	Unit    int    // index of the unit that sends it
}

// Program is a whole script, compiled.
type Program struct {
	Units    []*Unit
	Maps     []*Map
	Counters *Map // one of Maps
	Events   []*Event
	Formats  []string // strftime formats, by index
	Names    []string // probe names, by index
}

// Counters of a unit: Program.Counters counts what did not arrive. It is an array of one element, whose address programs
// know: for each CPU, of which there are a power of two, CounterBytes, and in them NumCounters uint64s for each unit.
const (
	LostRing = iota // the ring was full
	LostMap         // a map was full
	Filtered        // the predicate was false
	ReadFail        // a memory read failed
	NumCounters
)

// CounterBytes gives the bytes that the counters of so many units take for one CPU: a power of two, and whole cache lines,
// so that CPUs do not share one.
func CounterBytes(units int) int {
	n := 64
	for n < 8*NumCounters*units {
		n *= 2
	}
	return n
}
