// Package gen turns IR into BPF instructions for one kind of attachment: it binds what the IR leaves symbolic, gives
// memory its places, allocates registers and selects instructions. It has no state and touches no system.
package gen

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/opt"
)

// Options say what the code is for.
type Options struct {
	Arch     string // GOARCH, default amd64
	Provider string // overrides Unit.Provider: binds the same IR to another kind of attachment
	// OnStack is the size in bytes above which a slot never is on the stack, default 64.
	OnStack int
	NoOpt   bool // leave the bound IR as it is: what tests compare with
	// Lacks says if the kernel has not got a helper that can be done without; nil is no such kernel.
	Lacks func(fn int32) bool
	// After is opt.Options.After for the passes over the bound IR.
	After func(pass string, u *ir.Unit) error
}

// StackLimit is MAX_BPF_STACK (include/linux/filter.h), for a whole chain of calls.
const StackLimit = 512

// scratchLimit is PCPU_MIN_UNIT_SIZE (include/linux/percpu.h), what one per-CPU map value may take.
const scratchLimit = 32 << 10

// Compile binds a program. The result does not share memory with p except for its maps and units' names.
func Compile(p *ir.Program, opts Options) (*bpf.Object, error) {
	obj := &bpf.Object{}
	names := map[*ir.Map]string{}
	for _, m := range p.Maps {
		names[m] = m.BPFName
		obj.Maps = append(obj.Maps, &bpf.Map{Spec: mapSpec(m, m.BPFName), IR: m})
	}
	scratch := &banks{entries: max(1, len(p.Units)), names: names}
	shared := &program{scratch: scratch, counters: countersOf(p), names: names}
	for _, u := range p.Units {
		prog, err := unitFor(u, shared, opts)
		if err != nil {
			return nil, err
		}
		obj.Programs = append(obj.Programs, prog)
	}
	for _, m := range scratch.maps {
		obj.Maps = append(obj.Maps, &bpf.Map{Spec: mapSpec(m, m.BPFName), IR: m, Scratch: true})
	}
	return obj, nil
}

// program is what the units of one share.
type program struct {
	scratch  *banks
	counters counters
	names    map[*ir.Map]string // as instructions refer to them
}

// banks are the scratch maps: one is enough unless a program needs more than a per-CPU value may have.
type banks struct {
	maps    []*ir.Map
	entries int
	names   map[*ir.Map]string
}

// bank gives map i with values of at least size bytes.
func (b *banks) bank(i, size int) *ir.Map {
	for len(b.maps) <= i {
		n := fmt.Sprintf("scratch%d", len(b.maps))
		m := &ir.Map{Name: "." + n, BPFName: n, Kind: ir.PerCPUArray, KeySize: 4, MaxEntries: b.entries}
		b.maps, b.names[m] = append(b.maps, m), n
	}
	b.maps[i].ValueSize = max(b.maps[i].ValueSize, size)
	return b.maps[i]
}

// unitFor binds one program, with ever less of its memory on the stack until it fits.
func unitFor(u *ir.Unit, p *program, opts Options) (*bpf.Program, error) {
	if opts.Arch == "" {
		opts.Arch = "amd64"
	}
	if opts.OnStack == 0 {
		opts.OnStack = 64
	}
	if opts.Provider == "" {
		opts.Provider = u.Provider
	}
	b, ok := bindings[opts.Provider]
	if !ok {
		return nil, fmt.Errorf("program %s: no way to run %q probes", u.Name, opts.Provider)
	}
	for limit := opts.OnStack; ; limit /= 2 {
		prog, stack, err := unit(u.Clone(), b, limit, p, opts)
		if err != nil {
			return nil, err
		}
		if stack <= StackLimit {
			return prog, nil
		}
		if limit < 8 {
			return nil, fmt.Errorf("program %s needs %d bytes of BPF stack: at most %d are there", u.Name, stack, StackLimit)
		}
	}
}

// unit compiles with slots above limit bytes in scratch memory, and says how deep the stack gets.
func unit(u *ir.Unit, b binding, limit int, p *program, opts Options) (*bpf.Program, int, error) {
	subs := expandCounts(u, p.counters)
	expandZeroes(u)
	l := &lowerer{unit: u, bind: b, arch: arches[opts.Arch], scratch: p.scratch, lacks: opts.Lacks, places: map[*ir.Slot]place{}}
	all, err := l.placeBig(limit)
	if err != nil {
		return nil, 0, err
	}
	prog := &bpf.Program{Name: u.Name, Type: b.prog, AttachType: b.attach, Unit: u, ScratchBytes: all}
	if u.Typed && b.typed != 0 {
		prog.Type, prog.AttachType = ebpf.Tracing, b.typed
	}
	shared := int32(0)
	if len(u.Calls) > 0 {
		l.frameSlot()
		shared = layoutShared(u, l.places)
	}
	for _, f := range u.Funcs() {
		if l.function(f); l.err != nil {
			return nil, 0, l.err
		}
	}
	if err := improve(u, opts); err != nil {
		return nil, 0, err
	}
	prog.Insns, prog.StackBytes = assemble(u, called(append(u.Funcs(), subs...)), l.places, shared, p.names)
	return prog, prog.StackBytes, nil
}

// placeBig gives slots above limit bytes their places in scratch memory, and says how much of it is taken.
func (l *lowerer) placeBig(limit int) (all int, err error) {
	used := slotUsers(l.unit.Funcs())
	big, bank := int32(0), 0
	for _, s := range l.unit.Slots {
		if s.Size > scratchLimit {
			return 0, fmt.Errorf("program %s needs an object of %d bytes: at most %d can be had; lower max_strlen", l.unit.Name, s.Size, scratchLimit)
		}
		if used[s] == nil || !s.Big && (s.Size <= limit || s.Name == "frame") {
			continue
		}
		size := int32(s.Size+7) &^ 7
		if big+size > scratchLimit {
			big, bank = 0, bank+1
		}
		l.places[s] = place{big: true, bank: bank, off: big}
		big += size
		all += int(size)
		l.scratch.bank(bank, int(big))
	}
	return all, nil
}

// improve runs the passes of ir/opt over what binding made of u.
func improve(u *ir.Unit, opts Options) error {
	if opts.After != nil {
		if err := opts.After("binding", u); err != nil {
			return err
		}
	}
	if opts.NoOpt {
		return nil
	}
	return opt.Unit(u, opt.Options{After: opts.After})
}

// assemble makes instructions of funcs, of which the first is the entry, and says how deep their stack gets.
func assemble(u *ir.Unit, funcs []*ir.Func, places map[*ir.Slot]place, shared int32, names map[*ir.Map]string) (asm.Instructions, int) {
	regs := make([][]asm.Register, len(funcs))
	for i, f := range funcs {
		layout(f)
		legalize(f)
		regs[i] = allocate(f)
	}
	offs, depth := layoutStack(u, funcs, places, shared)
	var out asm.Instructions
	for i, f := range funcs {
		e := &emitter{f: f, prefix: f.Name, regs: regs[i], slots: offs, maps: names}
		out = append(out, e.emit()...)
	}
	return out, stackOf(u.Entry, depth)
}

// called leaves out functions that nobody calls, which the verifier would count as part of the one before. The first is the
// entry.
func called(funcs []*ir.Func) []*ir.Func {
	wanted := map[*ir.Func]bool{}
	var visit func(*ir.Func)
	visit = func(f *ir.Func) {
		if wanted[f] {
			return
		}
		wanted[f] = true
		for _, b := range f.Blocks {
			for i := range b.Ins {
				if c := b.Ins[i].Callee; c != nil {
					visit(c)
				}
			}
		}
	}
	visit(funcs[0])
	return slices.DeleteFunc(funcs, func(f *ir.Func) bool { return !wanted[f] })
}

// stackOf gives the stack of f and of the deepest chain of what it calls, as the verifier reckons
// (kernel/bpf/verifier.c, check_max_stack_depth).
func stackOf(f *ir.Func, depth map[*ir.Func]int16) int {
	below := 0
	for _, b := range f.Blocks {
		for i := range b.Ins {
			if c := b.Ins[i].Callee; c != nil {
				below = max(below, stackOf(c, depth))
			}
		}
	}
	return int(max(-depth[f], 1)+31)&^31 + below
}

// slotUsers says which functions touch a slot.
func slotUsers(funcs []*ir.Func) map[*ir.Slot]*ir.Func {
	m := map[*ir.Slot]*ir.Func{}
	for _, f := range funcs {
		for _, b := range f.Blocks {
			for i := range b.Ins {
				if s := b.Ins[i].Slot; s != nil {
					m[s] = f
				}
			}
		}
	}
	return m
}

// layoutShared gives the slots that callbacks reach their places from the start of the shared frame, and its size.
func layoutShared(u *ir.Unit, places map[*ir.Slot]place) int32 {
	size := int32(frameCtx) // the slot "frame" itself is the first
	for _, s := range u.Slots {
		switch {
		case places[s].big || !s.Shared:
		case s.Name == "frame":
			places[s] = place{}
		default:
			places[s] = place{off: size}
			size += int32(s.Size+7) &^ 7
		}
	}
	return size
}

// layoutStack gives stack slots their frame offsets, the shared frame at the top of the entry's stack.
func layoutStack(u *ir.Unit, funcs []*ir.Func, places map[*ir.Slot]place, shared int32) (offs map[*ir.Slot]int16, depth map[*ir.Func]int16) {
	used := slotUsers(funcs)
	offs, depth = map[*ir.Slot]int16{}, map[*ir.Func]int16{}
	depth[u.Entry] = -int16(shared)
	var own []*ir.Slot
	for _, s := range u.Slots {
		switch p := places[s]; {
		case p.big:
		case s.Shared:
			offs[s] = -int16(shared) + int16(p.off)
		default:
			own = append(own, s)
		}
	}
	for _, s := range own {
		f := used[s]
		if f == nil {
			continue
		}
		depth[f] -= int16(s.Size+7) &^ 7
		offs[s] = depth[f]
	}
	return offs, depth
}
