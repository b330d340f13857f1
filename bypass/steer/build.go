package steer

import (
	"fmt"

	"github.com/cilium/ebpf"

	"github.com/fathom-trace/fathom/bpf/gen"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/ir/opt"
	"github.com/fathom-trace/fathom/wire/filter"
)

// Of struct xdp_md and enum xdp_action (include/uapi/linux/bpf.h).
const (
	mdData         = 0
	mdDataEnd      = 4
	mdRxQueueIndex = 16

	xdpDrop = 1
	xdpPass = 2

	fnRedirectMap = 51
)

// Names of maps in the program.
const (
	mapSocks = "socks" // queue → AF_XDP socket
	mapHits  = "hits"  // slot → packets, by CPU
)

// slotted is a rule with the place at which its hits are counted.
type slotted struct {
	Rule
	slot int
}

// build writes the program: the rules in order, each a filter; everything else passes to the kernel. It touches no system.
func build(rules []slotted, queues, slots int) (*ebpf.CollectionSpec, error) {
	p := emit.New(emit.Options{})
	socks := p.Map(ir.Map{Name: "." + mapSocks, Kind: ir.Array, KeySize: 4, ValueSize: 4, MaxEntries: queues})
	hits := p.Map(ir.Map{Name: "." + mapHits, Kind: ir.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: slots})
	u := p.Unit("xdp", 0, "steer")
	ctx := u.Place(u.Context())
	data, end, queue := u.Load(ctx.At(mdData), 4, false), u.Load(ctx.At(mdDataEnd), 4, false), u.Load(ctx.At(mdRxQueueIndex), 4, false)
	key := u.Slot("slot", 4)
	for _, r := range rules {
		f, err := filter.Compile(r.Filter, filter.Options{})
		if err != nil {
			return nil, fmt.Errorf("rule %q: %w", r.Filter, err)
		}
		u.Branch(func(unit *ir.Unit, fn *ir.Func, at *ir.Block) (match, drop *ir.Block) {
			return f.Emit(unit, fn, at, filter.Source{Base: data.R, End: end.R})
		}, func() {
			u.Store(key, 4, ir.Imm(int64(r.slot)))
			u.Lookup(hits, key, func(v emit.Mem) { u.Store(v, 8, u.Add(u.Load(v, 8, false), 1)) }, nil) // no other program runs on this CPU meanwhile
			switch r.Action {
			case Drop:
				u.Return(ir.Imm(xdpDrop))
			case ToKernel:
				u.Return(ir.Imm(xdpPass))
			default:
				u.Return(u.Call(fnRedirectMap, u.Ptr(socks), queue, ir.Imm(xdpPass)))
			}
		}, nil)
	}
	u.Return(ir.Imm(xdpPass))
	prog, err := p.Finish()
	if err != nil {
		return nil, err
	}
	if err := opt.Unit(prog.Units[0], opt.Options{}); err != nil {
		return nil, err
	}
	obj, err := gen.Compile(prog, gen.Options{})
	if err != nil {
		return nil, err
	}
	spec := &ebpf.CollectionSpec{Maps: map[string]*ebpf.MapSpec{}, Programs: map[string]*ebpf.ProgramSpec{}}
	for _, m := range obj.Maps {
		if m.IR == socks {
			m.Spec.Type = ebpf.XSKMap // which the IR does not know: it is only ever handed to a helper
		}
		spec.Maps[m.Spec.Name] = m.Spec
	}
	spec.Programs[progName] = &ebpf.ProgramSpec{Name: progName, Type: ebpf.XDP, Instructions: obj.Programs[0].Insns, License: "GPL"}
	return spec, nil
}

// progName is what others see.
const progName = "fathom_steer"
