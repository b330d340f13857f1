// Package probe puts a compiled program into a running kernel: it finds what can be probed (World), loads programs and
// maps (Load), attaches by the best means this kernel has (Attach), hands out records and map contents, and accounts
// for every run. All of it is tied to file descriptors: when the process dies, so does everything it attached.
package probe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bpf"
	"github.com/fathom-trace/fathom/internal/feature"
	"github.com/fathom-trace/fathom/internal/memlock"
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
)

// ErrRefused is that the kernel lets this process load no program at all.
var ErrRefused = fmt.Errorf("load BPF programs: %w: that is for root, and for CAP_BPF and CAP_PERFMON", unix.EPERM)

// Options steer loading and attaching.
type Options struct {
	PID     int    // only this process, where the probe type can tell; 0 = all
	License string // default "GPL"
	LogSize uint32 // verifier log on request
	Verbose bool
	// World is the machine the program was checked for: it numbers events and functions, and knows which targets must not be
	// attached. Never nil.
	World *World
	// Plain loads programs without the types of their functions and the lines of their source, which serve those who read the
	// verifier's log and cost as much as the program itself. What is refused is loaded again, with them.
	Plain bool
	// Given has the numbers of a target, for programs that are loaded with them (ir.Given).
	Given func(Target) []int64
	// Missing says what to do with targets that cannot be attached: "error" (default), "warn", "ignore". Those that Needed says
	// are needed are an error in any case.
	Missing string
	Needed  func(Target) bool
	// Warn is told about targets that were left out.
	Warn func(string)
}

// Session is a program in the kernel. It belongs to the caller, who must Close it.
type Session struct {
	Info *check.Info
	Prog *ir.Program
	Obj  *bpf.Object

	opts       Options
	maps       map[*ir.Map]*ebpf.Map
	units      []*loaded
	mu         sync.Mutex       // of open and watched: probes are attached by several goroutines
	open       []closer         // links and events, in the order they were made
	watched    map[uint64][]int // perf events of watchpoints, by address
	plans      []string         // how each unit was attached, for -v
	waits      []*waiting
	framesHigh bool // Frames wrote to the upper half last
	copies     copies
}

type closer interface{ Close() error }

// loaded is a unit's programs: one, or for attachments that are fixed when loading one for each target.
type loaded struct {
	prog    *bpf.Program
	inst    *check.Instance
	progs   []*ebpf.Program
	targets []check.Target // parallel to progs where each target has its own
	late    *ebpf.Program  // for targets that came later
	multi   bool           // loaded for kprobe.multi
	single  bool           // progs[0] is for all targets; another is kept for being closed
	returns *loaded        // of a kprobe: the kretprobe that is a session with it, in its program
	entry   *loaded        // of a kretprobe: the kprobe whose session it is part of; it has no program
}

// programs are all programs of l.
func (l *loaded) programs() []*ebpf.Program {
	if l.late == nil {
		return l.progs
	}
	return append(slices.Clip(l.progs), l.late)
}

// VerifierError is a program the kernel refused.
type VerifierError struct {
	Unit  *ir.Unit
	Insns asm.Instructions // as they were given to the kernel
	Err   *ebpf.VerifierError
}

// SourceAt gives the source text of the instruction that the verifier's log calls number n, "" if it has none. The log's own
// lines of source do not tell: since Linux 6.9 it leaves out those of the same line as the one before.
func (e *VerifierError) SourceAt(n int) string {
	source := ""
	for it := e.Insns.Iterate(); it.Next() && int(it.Offset) <= n; {
		if s := it.Ins.Source(); s != nil {
			source = s.String()
		}
	}
	return source
}

func (e *VerifierError) Error() string { return fmt.Sprintf("load %s: %v", e.Unit.Name, e.Err) }

// noReads is what the verifier says where lockdown=confidentiality, or a lack of CAP_PERFMON, takes the helpers that read the kernel's
// memory from programs (bpf_base_func_proto), in the words of newer kernels and of 6.1.
var noReads = []string{"cannot use helper bpf_probe_read", "unknown func bpf_probe_read"}

// Unwrap gives the kernel's words, and where the kernel does not offer what the program takes, that.
func (e *VerifierError) Unwrap() []error {
	errs := []error{e.Err}
	if slices.ContainsFunc(noReads, func(s string) bool { return strings.Contains(e.Err.Error(), s) }) {
		errs = append(errs, feature.ErrUnsupported)
	}
	return errs
}

// Load loads maps and programs. info may have been checked for this kernel only.
func Load(info *check.Info, prog *ir.Program, obj *bpf.Object, opts Options) (*Session, error) {
	if opts.License == "" {
		opts.License = "GPL"
	}
	s := &Session{Info: info, Prog: prog, Obj: obj, opts: opts, maps: map[*ir.Map]*ebpf.Map{}, copies: newCopies(info, obj)}
	if err := s.loadMaps(); err != nil {
		s.Close()
		return nil, err
	}
	if err := s.loadPrograms(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Target is a place that a program is attached to.
type Target = check.Target

// LoadIR is Load for a program that was not made from text: units are attached to the targets that stand under their
// Clause.
func LoadIR(prog *ir.Program, obj *bpf.Object, targets [][]Target, opts Options) (*Session, error) {
	info := &check.Info{}
	for _, ts := range targets {
		in := &check.Instance{Targets: ts}
		if len(ts) > 0 {
			in.Provider, _ = check.FindProvider(ts[0].Provider)
		}
		info.Instances = append(info.Instances, in)
	}
	return Load(info, prog, obj, opts)
}

// loadMaps creates the maps some program uses, and those the printing side reads.
func (s *Session) loadMaps() error {
	used := map[string]bool{}
	for _, p := range s.Obj.Programs {
		for _, in := range p.Insns {
			if in.IsLoadFromMap() {
				used[in.Reference()] = true
			}
		}
	}
	for _, m := range s.Obj.Maps {
		if !used[m.Spec.Name] && m.IR.Name[0] == '.' {
			continue
		}
		spec := m.Spec.Copy()
		spec.Name = mapName(spec.Name)
		if m.Scratch {
			spec.MaxEntries += uint32(s.copies.n)
		}
		km, err := memlock.Try(func() (*ebpf.Map, error) { return ebpf.NewMap(spec) })
		if errors.Is(err, unix.EPERM) { // the library guesses at a memory limit; what is missing is CAP_BPF
			return ErrRefused
		}
		if err != nil {
			return fmt.Errorf("create map %s: %w", m.IR.Name, err)
		}
		s.maps[m.IR] = km
	}
	return nil
}

// mapName cuts a name to what the kernel takes (BPF_OBJ_NAME_LEN).
func mapName(n string) string { return n[:min(len(n), 15)] }

func (s *Session) loadPrograms() error {
	for _, p := range s.Obj.Programs {
		inst := s.Info.Instances[p.Unit.Clause]
		l := &loaded{prog: p, inst: inst, targets: inst.Targets}
		if t := p.Unit.Target; t >= 0 {
			l.targets = inst.Targets[t : t+1]
		}
		l.targets = s.later(l, l.targets)
		s.units = append(s.units, l)
	}
	s.pair()
	for _, l := range s.units {
		if l.returns != nil || l.entry != nil || l.more() {
			continue
		}
		if err := s.loadUnit(l); err != nil {
			return err
		}
	}
	return nil
}

func (s *Session) spec(p *bpf.Program) (*ebpf.ProgramSpec, error) {
	insns := append(p.Insns[:0:0], p.Insns...)
	for i := range insns {
		if insns[i].Src == asm.PseudoKfuncCall && insns[i].OpCode.JumpOp() == asm.Call {
			id, err := s.opts.World.KfuncID(insns[i].Reference())
			if err != nil {
				return nil, err
			}
			insns[i].Constant = int64(id)
			continue
		}
		if !insns[i].IsLoadFromMap() {
			continue
		}
		for m, km := range s.maps {
			if m.BPFName == insns[i].Reference() {
				if err := insns[i].AssociateMap(km); err != nil {
					return nil, fmt.Errorf("map %s: %w", m.Name, err)
				}
			}
		}
	}
	return &ebpf.ProgramSpec{Name: progName(p), Type: p.Type, AttachType: p.AttachType, Instructions: insns, License: s.opts.License}, nil
}

func progName(p *bpf.Program) string { return mapName(p.Name) }

func (s *Session) loadUnit(l *loaded) error {
	spec, err := s.spec(l.prog)
	if err != nil {
		return err
	}
	switch l.prog.Unit.Provider {
	case "fentry", "fexit":
		return s.loadTracing(l, spec)
	case "rawtracepoint":
		if spec.Type == ebpf.Tracing {
			return s.loadTracing(l, spec)
		}
	case "iter":
		spec.AttachTo = l.targets[0].Func
	case "kprobe", "kretprobe":
		if s.wantMulti(l) {
			multi := spec.Copy()
			multi.AttachType = ebpf.AttachTraceKprobeMulti
			if p, err := load(multi); err == nil {
				l.progs, l.multi = []*ebpf.Program{p}, true
				return nil
			}
		}
	}
	if wantUprobeMulti(l) {
		multi := spec.Copy()
		multi.AttachType = ebpf.AttachTraceUprobeMulti
		if p, err := load(multi); err == nil {
			l.progs, l.multi = []*ebpf.Program{p}, true
			return nil
		}
	}
	if l.prog.Unit.Given {
		return s.loadGiven(l, spec)
	}
	p, err := s.newProgram(l, spec)
	if err != nil {
		return err
	}
	l.progs = []*ebpf.Program{p}
	return nil
}

// loadGiven loads a program for each target, with the target's numbers in it.
func (s *Session) loadGiven(l *loaded, spec *ebpf.ProgramSpec) error {
	for _, t := range l.targets {
		one := s.copies.of(l.prog, spec, len(l.progs))
		one.Name = mapName(t.Func)
		numbers := s.opts.Given(t)
		for i := range one.Instructions {
			if n, ok := bpf.Given(&one.Instructions[i]); ok {
				one.Instructions[i] = one.Instructions[i].WithReference("")
				one.Instructions[i].Constant = numbers[n]
			}
		}
		p, err := s.newProgram(l, one)
		if err != nil {
			return err
		}
		l.progs = append(l.progs, p)
	}
	return nil
}

// wantUprobeMulti says if the targets of l are places of one file, which may be attached in one call (since 6.6).
func wantUprobeMulti(l *loaded) bool {
	switch l.prog.Unit.Provider {
	case "uprobe", "uretprobe", "usdt":
	default:
		return false
	}
	for _, t := range l.targets {
		if t.Module != l.targets[0].Module {
			return false
		}
	}
	return len(l.targets) > 1
}

// wantMulti says if the targets of l can be attached in one call.
func (s *Session) wantMulti(l *loaded) bool {
	if len(l.targets) < 2 {
		return false
	}
	for _, t := range l.targets {
		if t.Offset != 0 || t.Func == "" {
			return false
		}
	}
	return true
}

// loadTracing loads one program for each function: a trampoline is made for a prototype.
func (s *Session) loadTracing(l *loaded, spec *ebpf.ProgramSpec) error {
	var ts []check.Target
	for _, t := range l.targets {
		one := s.copies.of(l.prog, spec, len(l.progs))
		one.AttachTo = t.Func
		p, err := s.newTracing(l, one, t)
		if err != nil {
			if len(l.targets) > 1 && s.skip(t, err) {
				continue
			}
			return err
		}
		l.progs, ts = append(l.progs, p), append(ts, t)
	}
	l.targets = ts
	return nil
}

// newTracing loads a program for one function, of the kernel or of a BPF program.
func (s *Session) newTracing(l *loaded, spec *ebpf.ProgramSpec, t check.Target) (*ebpf.Program, error) {
	if t.ProgID == 0 {
		return s.newProgram(l, spec)
	}
	target, err := ebpf.NewProgramFromID(ebpf.ProgramID(t.ProgID))
	if err != nil {
		return nil, fmt.Errorf("open BPF program %d: %w", t.ProgID, err)
	}
	defer target.Close()
	spec.AttachTarget = target
	return s.newProgram(l, spec)
}

// skip decides if a target that failed may be left out, and says so.
func (s *Session) skip(t check.Target, err error) bool {
	if s.opts.Needed != nil && s.opts.Needed(t) {
		return false
	}
	switch s.opts.Missing {
	case "warn":
		if s.opts.Warn != nil {
			s.opts.Warn(fmt.Sprintf("could not attach %s: %v", t.Name, err))
		}
		return true
	case "ignore":
		return true
	}
	return false
}

func (s *Session) newProgram(l *loaded, spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	if s.opts.Plain {
		if p, err := loadPlain(s.opts.World, spec); err == nil {
			return p, nil
		}
	}
	p, err := memlock.Try(func() (*ebpf.Program, error) {
		return ebpf.NewProgramWithOptions(spec, ebpf.ProgramOptions{LogSizeStart: s.opts.LogSize})
	})
	if err != nil {
		var ve *ebpf.VerifierError
		if errors.As(err, &ve) {
			return nil, &VerifierError{Unit: l.prog.Unit, Insns: spec.Instructions, Err: ve}
		}
		return nil, fmt.Errorf("load program for %s: %w", l.prog.Unit.Provider, err)
	}
	return p, nil
}

func load(spec *ebpf.ProgramSpec) (*ebpf.Program, error) {
	return memlock.Try(func() (*ebpf.Program, error) { return ebpf.NewProgram(spec) })
}

// Detach ends all probes; programs and maps stay, so that end probes can run and results be read.
func (s *Session) Detach() {
	s.mu.Lock()
	open := s.open
	s.open, s.watched = nil, nil
	s.mu.Unlock()
	each(len(open), func(i int) { open[len(open)-1-i].Close() }) // what was attached last ends first
	s.detachLater()
}

// keep has a link or event closed by Detach.
func (s *Session) keep(c closer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = append(s.open, c)
}

// workers is how many goroutines attach or detach at once: the kernel has each wait for a grace period of RCU, and they may
// wait together.
const workers = 32

// each calls f with 0 … n-1, with many n by several goroutines at once.
func each(n int, f func(int)) {
	if n <= workers {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// Close gives everything back to the kernel.
func (s *Session) Close() error {
	s.Detach()
	for _, l := range s.units {
		for _, p := range l.programs() {
			p.Close()
		}
	}
	for _, m := range s.maps {
		m.Close()
	}
	return nil
}
