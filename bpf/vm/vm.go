package vm

import (
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// DefaultBudget is how many instructions a run may execute if Config.Budget is 0.
const DefaultBudget = 16 << 20

// Config is what a machine is made of.
type Config struct {
	// Programs by name. A program is a main function and, behind it, the
	// functions it calls, each starting with a symbol; a function that it does
	// not contain is looked for among the programs. Map references are names of
	// Maps (Reference). New does not change the instructions.
	Programs map[string]asm.Instructions
	Maps     map[string]*ebpf.MapSpec
	Target   Target // nil: no memory but the machine's own
	Env      *Env   // read at every run; nil: the zero Env
	CPUs     int    // values in a per-CPU map; 0 means 1
	Budget   int64  // instructions per run; 0 means DefaultBudget
}

// Machine executes programs. It is not safe for concurrent use.
type Machine struct {
	code    []insn
	places  []place // per code index, for errors
	calls   []helperFunc
	entries map[string]int32
	byName  map[string]*Map
	maps    []*Map
	target  Target
	env     *Env
	cpus    int
	budget  int64

	// of the current run
	regs    [16]uint64
	stack   [maxDepth * frameSize]byte
	frames  [maxDepth]frame
	index   [maxDepth][4]byte // keys given to callbacks over arrays
	depth   int
	left    int64
	mayJmp  int
	in      Input
	err     *Error
	pc      int
	word    [8]byte
	scratch [64]byte

	rng     uint64
	stats   Stats
	trace   []string
	effects []Effect
}

// frame is what a bpf-to-bpf call saves.
type frame struct {
	saved [4]uint64 // r6..r9
	ret   int32
}

// CtxKind says whether some 32-bit fields of a context are packet pointers.
type CtxKind uint8

// Kinds of context.
const (
	CtxPlain CtxKind = iota // bytes
	CtxXDP                  // struct xdp_md: data, data_end, data_meta
	CtxSkb                  // struct __sk_buff: data, data_end, data_meta
)

// Input is what a program runs on. Programs write to it as far as they are
// programmed to; it is not kept after the run.
type Input struct {
	Ctx    []byte
	Packet []byte
	Kind   CtxKind
}

// Error is an instruction that the machine cannot execute: the kernel's
// verifier would have rejected the program, or the budget is used up.
type Error struct {
	Prog string
	PC   int    // in raw instructions from the program's start, as the verifier counts
	Addr uint64 // the address, if it is about one
	Msg  string
	Src  string // the instruction's source line, if it has one
}

func (e *Error) Error() string {
	s := fmt.Sprintf("program %s, instruction %d: %s", e.Prog, e.PC, e.Msg)
	if e.Src != "" {
		s += " (at: " + e.Src + ")"
	}
	return s
}

// New makes a machine. It decodes the programs once and rejects what the
// machine does not have: unknown opcodes, helpers, kfuncs, map types.
func New(c Config) (*Machine, error) {
	m := &Machine{
		entries: map[string]int32{}, byName: map[string]*Map{},
		target: c.Target, env: c.Env, cpus: max(c.CPUs, 1), budget: c.Budget,
	}
	if m.target == nil {
		m.target = noTarget{}
	}
	if m.env == nil {
		m.env = &Env{}
	}
	if m.budget <= 0 {
		m.budget = DefaultBudget
	}
	m.rng = m.env.Seed ^ 0x9e3779b97f4a7c15
	if err := m.makeMaps(c.Maps); err != nil {
		return nil, err
	}
	return m, m.decode(c.Programs)
}

func (m *Machine) makeMaps(specs map[string]*ebpf.MapSpec) error {
	if len(specs) > objMask-1 {
		return fmt.Errorf("%d maps: the machine has room for %d", len(specs), objMask-1)
	}
	for _, name := range sortedKeys(specs) {
		mp, err := newMap(name, len(m.maps), specs[name], m.cpus)
		if err != nil {
			return err
		}
		m.maps = append(m.maps, mp)
		m.byName[name] = mp
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// Run executes a program over a context and gives its r0.
func (m *Machine) Run(prog string, ctx []byte) (uint64, error) {
	return m.RunInput(prog, Input{Ctx: ctx})
}

// RunInput is Run with a packet.
func (m *Machine) RunInput(prog string, in Input) (uint64, error) {
	pc, ok := m.entries[prog]
	if !ok {
		return 0, fmt.Errorf("no program %q", prog)
	}
	m.in, m.depth, m.left, m.mayJmp, m.err = in, 0, m.budget, 0, nil
	for i := range regZero {
		m.regs[i] = poison
	}
	m.regs[1], m.regs[regFP], m.regs[regZero] = CtxAddr, framePtr(0), 0
	clear(m.stack[:frameSize])
	r0, ok := m.exec(int(pc))
	m.stats.Runs++
	m.stats.Insns += uint64(m.budget - m.left)
	m.in = Input{}
	if ok {
		ok = m.released()
	}
	if !ok {
		return 0, m.err
	}
	return r0, nil
}

// released checks that the program left no ring buffer reservation open, and
// drops those it left.
func (m *Machine) released() bool {
	for _, mp := range m.maps {
		if mp.ring == nil || len(mp.ring.open) == 0 {
			continue
		}
		for len(mp.ring.open) > 0 {
			mp.ring.commit(mp.ring.open[0].off, true)
		}
		m.fail(0, "exit with a record of %s reserved and not submitted", mp.name)
	}
	return m.err == nil
}

// Map gives a map by name, nil if there is none.
func (m *Machine) Map(name string) *Map { return m.byName[name] }

// Env is the environment programs see; the caller may change it between runs.
func (m *Machine) Env() *Env { return m.env }

// Stats gives the counts since New or ResetStats.
func (m *Machine) Stats() Stats { return m.stats }

// ResetStats sets all counts to 0.
func (m *Machine) ResetStats() { m.stats = Stats{} }

// TakeTrace gives what trace_printk printed since the last call.
func (m *Machine) TakeTrace() []string {
	t := m.trace
	m.trace = nil
	return t
}

// TakeEffects gives what programs would have done to the system since the last call.
func (m *Machine) TakeEffects() []Effect {
	e := m.effects
	m.effects = nil
	return e
}

// fail records the run's error, of the instruction at m.pc. The first one counts.
func (m *Machine) fail(addr uint64, format string, args ...any) {
	if m.err != nil {
		return
	}
	p := m.places[m.pc]
	m.err = &Error{Prog: p.prog, PC: p.raw, Addr: addr, Msg: fmt.Sprintf(format, args...)}
	if p.src != nil {
		m.err.Src = p.src.String()
	}
}
