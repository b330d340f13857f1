// Package offline runs programs away from the kernel that they ask: in the BPF machine, over what a dump or a recording
// holds. What they run over, and what the task and the clock are meanwhile, is the place's matter.
package offline

import (
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/probe"
)

// Options are what the place gives a program.
type Options struct {
	Target vm.Target // memory of the kernel; nil if nothing is readable
	Env    *vm.Env   // the task, the CPU, the clocks: the place changes it between runs
	CPUs   int       // that the program was built for
}

// Machine is a program loaded into the BPF machine. One goroutine may use it.
type Machine struct {
	prog  *ir.Program
	units []*Unit
	vm    *vm.Machine
	maps  map[*ir.Map]*vm.Map
	ring  *vm.Map // nil if the program sends no records
	calls map[int64]bool
}

// Unit is a program of the Machine, and what became of its runs.
type Unit struct {
	*bpf.Program
	Targets []check.Target // that it is for
	runs    uint64
	faults  uint64
}

// Load puts a compiled program into the machine.
func Load(info *check.Info, prog *ir.Program, obj *bpf.Object, o Options) (*Machine, error) {
	m := &Machine{prog: prog, maps: map[*ir.Map]*vm.Map{}, calls: map[int64]bool{}}
	cfg := vm.Config{Programs: map[string]asm.Instructions{}, Maps: map[string]*ebpf.MapSpec{}, Target: o.Target, Env: o.Env, CPUs: o.CPUs}
	for _, p := range obj.Programs {
		cfg.Programs[p.Name] = p.Insns
		u := &Unit{Program: p, Targets: info.Instances[p.Unit.Clause].Targets}
		if t := p.Unit.Target; t >= 0 {
			u.Targets = u.Targets[t : t+1]
		}
		m.units = append(m.units, u)
		for _, i := range p.Insns {
			if i.IsBuiltinCall() {
				m.calls[i.Constant] = true
			}
		}
	}
	for _, mp := range obj.Maps {
		cfg.Maps[mp.Spec.Name] = mp.Spec
	}
	var err error
	if m.vm, err = vm.New(cfg); err != nil {
		return nil, fmt.Errorf("load into the BPF machine: %w", err)
	}
	for _, mp := range obj.Maps {
		m.maps[mp.IR] = m.vm.Map(mp.Spec.Name)
		if mp.IR.Kind == ir.Ring {
			m.ring = m.maps[mp.IR]
		}
	}
	return m, nil
}

// Helpers are the numbers of the helpers that the program calls.
func (m *Machine) Helpers() map[int64]bool { return m.calls }

// Units gives the units of a provider, in the order of the program.
func (m *Machine) Units(provider string) iter.Seq[*Unit] {
	return func(yield func(*Unit) bool) {
		for _, u := range m.units {
			if u.Unit.Provider == provider && !yield(u) {
				return
			}
		}
	}
}

// RunSpecial runs the units of begin or end, in order.
func (m *Machine) RunSpecial(provider string) error {
	for u := range m.Units(provider) {
		if err := m.Run(u, nil); err != nil {
			return err
		}
	}
	return nil
}

// Run runs a unit over a context.
func (m *Machine) Run(u *Unit, ctx []byte) error {
	m.vm.ResetStats()
	_, err := m.vm.Run(u.Name, ctx)
	u.runs++
	for _, n := range m.vm.Stats().Faults {
		u.faults += n
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", u.Targets[0].Name, err)
	}
	return nil
}

// Records takes the records that were sent since it was last called, in order.
func (m *Machine) Records() []vm.Record {
	if m.ring == nil {
		return nil
	}
	return m.ring.Drain()
}

// Entries reads a map, sorted by the bytes of its keys.
func (m *Machine) Entries(of *ir.Map) ([]probe.Entry, error) {
	var out []probe.Entry
	if m.maps[of] == nil {
		return nil, nil
	}
	for k, v := range m.maps[of].All() {
		e := probe.Entry{Key: k, Values: [][]byte{v}}
		if of.Kind.PerCPU() {
			stride := (of.ValueSize + 7) &^ 7
			e.Values = nil
			for ; len(v) >= stride; v = v[stride:] {
				e.Values = append(e.Values, v[:of.ValueSize])
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// Clear removes all elements; an array's become zero.
func (m *Machine) Clear(of *ir.Map) error {
	m.maps[of].Clear()
	return nil
}

// Zero sets all values to zero.
func (m *Machine) Zero(of *ir.Map) error {
	for k, v := range m.maps[of].All() {
		if err := m.maps[of].Update(k, make([]byte, len(v)), 0); err != nil {
			return fmt.Errorf("zero map %s: %w", of.Name, err)
		}
	}
	return nil
}

// Accounts says what became of the runs of each unit. Unlike in the kernel, every run is counted, and every read that failed.
func (m *Machine) Accounts() []probe.Account {
	var counters []byte
	if es, err := m.Entries(m.prog.Counters); err == nil && len(es) == 1 {
		counters = es[0].Values[0]
	}
	var out []probe.Account
	for _, u := range m.units {
		a := probe.Account{Unit: u.Unit, Runs: u.runs}
		a.AddCounters(counters, len(m.prog.Units))
		a.Faults = u.faults
		out = append(out, a)
	}
	return out
}
