package dead

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/bpf/vm"
	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/probe"
)

// Session is a program loaded into the BPF machine, with a dead kernel as its memory. One goroutine may use it.
type Session struct {
	t     kernel.Target
	world *World
	prog  *ir.Program
	units []unit
	vm    *vm.Machine
	env   *vm.Env
	cpus  int
	now   current
	maps  map[*ir.Map]*vm.Map
	ring  *vm.Map // nil if the program sends no records
	names *Names
	// missed are parts of walks that could not be made.
	missed []error
}

// unit is a program of the Session, and what became of its runs.
type unit struct {
	*bpf.Program
	target check.Target
	runs   uint64
	faults uint64
}

// Load puts a compiled program into the machine. cpus is how many CPUs it was built for.
func Load(w *World, info *check.Info, prog *ir.Program, obj *bpf.Object, cpus int) (*Session, error) {
	s := &Session{t: w.t, world: w, prog: prog, env: &vm.Env{}, cpus: cpus, maps: map[*ir.Map]*vm.Map{}, names: &Names{t: w.t, at: map[uint64]bool{}}}
	cfg := vm.Config{Programs: map[string]asm.Instructions{}, Maps: map[string]*ebpf.MapSpec{}, Target: (*memory)(s), Env: s.env, CPUs: cpus}
	used := map[int64]bool{}
	for _, p := range obj.Programs {
		cfg.Programs[p.Name] = p.Insns
		in := info.Instances[p.Unit.Clause]
		s.units = append(s.units, unit{Program: p, target: in.Targets[max(p.Unit.Target, 0)]})
		for _, i := range p.Insns {
			if i.IsBuiltinCall() {
				used[i.Constant] = true
			}
		}
	}
	for _, m := range obj.Maps {
		cfg.Maps[m.Spec.Name] = m.Spec
	}
	var err error
	if s.vm, err = vm.New(cfg); err != nil {
		return nil, fmt.Errorf("load into the BPF machine: %w", err)
	}
	for _, m := range obj.Maps {
		s.maps[m.IR] = s.vm.Map(m.Spec.Name)
		if m.IR.Kind == ir.Ring {
			s.ring = s.maps[m.IR]
		}
	}
	s.setEnv(used)
	return s, nil
}

// RunSpecial runs the units of begin or end, in order.
func (s *Session) RunSpecial(provider string) error {
	s.forget()
	for i := range s.units {
		if s.units[i].Unit.Provider == provider {
			if err := s.run(&s.units[i], nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// Walk runs the iterators of the program, one after the other, over all their objects, or until ctx is done. After each
// object it calls after, which should take the records. What could not be walked is in [Session.Missed].
func (s *Session) Walk(ctx context.Context, after func() error) error {
	for i := range s.units {
		u := &s.units[i]
		if u.Unit.Provider != "iter" {
			continue
		}
		if err := s.walk(ctx, u, after); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) walk(ctx context.Context, u *unit, after func() error) error {
	k, ok := find(u.target.Func)
	if !ok {
		return fmt.Errorf("%s cannot be walked", u.target.Name)
	}
	layout, err := s.world.context(k.name)
	if err != nil {
		return fmt.Errorf("run %s: %w", u.target.Name, err)
	}
	c := newFrame(layout, s.t.Types())
	errs := &kernel.Errors{}
	var failed error
	err = k.walk(s.t, errs, func(o object) bool {
		s.enter(o)
		if failed = s.run(u, c.fill(o.fields)); failed == nil {
			failed = after()
		}
		return failed == nil && ctx.Err() == nil
	})
	s.forget()
	if failed != nil {
		return failed
	}
	if first := errs.Take(); first != nil && err == nil {
		err = fmt.Errorf("%w (%d reads failed)", first, errs.N)
	}
	if err != nil {
		s.missed = append(s.missed, fmt.Errorf("%s is not complete: %w", u.target.Name, err))
	}
	return nil
}

func (s *Session) run(u *unit, ctx []byte) error {
	s.vm.ResetStats()
	_, err := s.vm.Run(u.Name, ctx)
	u.runs++
	for _, n := range s.vm.Stats().Faults {
		u.faults += n
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", u.target.Name, err)
	}
	return nil
}

// Missed says what of the walks could not be made, and why.
func (s *Session) Missed() []error { return s.missed }

// Records takes the records that were sent since it was last called, in order.
func (s *Session) Records() []vm.Record {
	if s.ring == nil {
		return nil
	}
	return s.ring.Drain()
}

// Names gives names to the addresses that programs print.
func (s *Session) Names() *Names { return s.names }

// Entries reads a map, sorted by the bytes of its keys.
func (s *Session) Entries(m *ir.Map) ([]probe.Entry, error) {
	var out []probe.Entry
	if s.maps[m] == nil {
		return nil, nil
	}
	for k, v := range s.maps[m].All() {
		e := probe.Entry{Key: k, Values: [][]byte{v}}
		if m.Kind.PerCPU() {
			stride := (m.ValueSize + 7) &^ 7
			e.Values = nil
			for ; len(v) >= stride; v = v[stride:] {
				e.Values = append(e.Values, v[:m.ValueSize])
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// Clear removes all elements; an array's become zero.
func (s *Session) Clear(m *ir.Map) error {
	s.maps[m].Clear()
	return nil
}

// Zero sets all values to zero.
func (s *Session) Zero(m *ir.Map) error {
	for k, v := range s.maps[m].All() {
		if err := s.maps[m].Update(k, make([]byte, len(v)), 0); err != nil {
			return fmt.Errorf("zero map %s: %w", m.Name, err)
		}
	}
	return nil
}

// Accounts says what became of the runs of each unit. Unlike in the kernel, every run is counted, and every read that failed.
func (s *Session) Accounts() []probe.Account {
	var counters []byte
	if es, err := s.Entries(s.prog.Counters); err == nil && len(es) == 1 {
		counters = es[0].Values[0]
	}
	var out []probe.Account
	for _, u := range s.units {
		a := probe.Account{Unit: u.Unit, Runs: u.runs, Faults: u.faults}
		a.AddCounters(counters, len(s.prog.Units))
		a.Faults = u.faults
		out = append(out, a)
	}
	return out
}

// frame is the context that programs of an iterator find at [vm.CtxAddr]: its struct (DEFINE_BPF_ITER_FUNC), and behind it the
// struct bpf_iter_meta that the struct points to.
type frame struct {
	b       []byte
	members []ctype.Member
	size    int
	seq     int // where in b the number of the object is; 0 if the kernel has none
	n       uint64
}

func newFrame(layout *ctype.Struct, types ctype.Lookup) *frame {
	c := &frame{size: (layout.Size + 7) &^ 7}
	c.members = flat(layout, 0, nil)
	metaSize := 0
	if t, err := types.ByName(ctype.KindStruct, "bpf_iter_meta"); err == nil {
		if m, ok := t.(*ctype.Struct); ok {
			metaSize = m.Size
			for _, f := range flat(m, 0, nil) {
				if f.Name == "seq_num" {
					c.seq = c.size + f.BitOff/8
				}
			}
		}
	}
	c.b = make([]byte, c.size+metaSize)
	return c
}

// flat gives the members of a struct with those of its unnamed members (__bpf_md_ptr), at their places in the whole.
func flat(s *ctype.Struct, at int, out []ctype.Member) []ctype.Member {
	for _, m := range s.Members() {
		m.BitOff += at
		if in, ok := ctype.Strip(m.Type).(*ctype.Struct); ok && m.Name == "" {
			out = flat(in, m.BitOff, out)
			continue
		}
		out = append(out, m)
	}
	return out
}

// fill makes the context of an object. It is valid until the next.
func (c *frame) fill(fields map[string]uint64) []byte {
	clear(c.b)
	for _, m := range c.members {
		v, ok := fields[m.Name]
		switch {
		case m.Name == "meta" && len(c.b) > c.size:
			v = vm.CtxAddr + uint64(c.size)
		case !ok:
			continue
		}
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], v)
		copy(c.b[m.BitOff/8:], word[:min(8, ctype.Size(m.Type))])
	}
	if c.seq > 0 {
		binary.LittleEndian.PutUint64(c.b[c.seq:], c.n)
		c.n++
	}
	return c.b
}
