// Package build turns a checked program into IR. Each clause instance becomes a Unit; loops become callbacks of it;
// what only the printing side can do (printf, print, system, …) becomes a record in the event ring.
//
// Three kinds of values pass through it: scalars in registers, bytes in memory the program may access directly (slots,
// map values), and references to bytes in kernel or user memory, which are read only when they are wanted.
package build

import (
	"fmt"
	"math/bits"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/syntax"
	"github.com/fathom-trace/fathom/lang/types"
)

// Options steer the translation.
type Options struct {
	Arch      string // GOARCH, default amd64
	NumCPU    int    // possible CPUs: reading a per-CPU map visits that many, default 1
	RingBytes int    // size of the event ring, default 16 MiB where the kernel sets the pace
	NoRing    bool   // programs that print nothing need none: set by the caller that counts only
	Failures  bool   // -k: failed helpers are events
	// PIDNS is the device and inode of the PID namespace pid and tid are told in; zero is the initial one.
	PIDNSDev, PIDNSIno uint64
	ChildPID           int // cpid
	// FrameRoom says how many processes dw_ustack() can unwind, and how many rows tell it how; nil is one of each.
	FrameRoom func() (procs, rows int)
	PID       int // only this process, for attachments that cannot tell by themselves; 0 is all
	// Uaddr gives the address in memory of a symbol of a binary, for uaddr(); nil where there is no process to ask.
	Uaddr func(path, symbol string) (uint64, bool)
	Kaddr func(symbol string) (uint64, bool) // the address of a kernel symbol, for percpu_kaddr()
	// CgroupID gives the id of a cgroup by its path, for cgroupid().
	CgroupID  func(path string) (uint64, bool)
	Lacks     func(fn int32) bool // says if the kernel has not got a helper that can be done without; nil is no such kernel
	StartNs   uint64              // boot-time clock when tracing began
	TAIOffset int64               // TAI minus boot time, for nsecs(sw_tai) and tseries
	ClockMap  string              // "@name" of a map without key that tseries reads instead of the clock, for tests; "" is the clock
}

// builder holds what the units of one program share.
type builder struct {
	info     *check.Info
	opts     Options
	prog     *ir.Program
	maps     map[string]*ir.Map
	cmaps    map[string]*check.Map
	ring     *ir.Map
	counters *ir.Map
	dwprocs  *ir.Map // of dw_ustack, if a program has it
	dwrows   *ir.Map
	packets  *ir.Map // of skboutput, if a program has it
	diags    []syntax.Diag
	names    map[string]int
	formats  map[string]int
	aggs     map[string]aggregation
	funcs    map[string]lowering
}

// Program translates info. Diagnostics are about what can only be seen here: things too big, or not supported at a place.
func Program(info *check.Info, opts Options) (*ir.Program, []syntax.Diag) {
	if opts.NumCPU == 0 {
		opts.NumCPU = 1
	}
	b := &builder{info: info, opts: opts, prog: &ir.Program{}, maps: map[string]*ir.Map{}, cmaps: map[string]*check.Map{},
		names: map[string]int{}, formats: map[string]int{}, aggs: aggregations(), funcs: functions()}
	b.declareMaps()
	for i, in := range info.Instances {
		if in.Provider.Name == "usdt" || !perTarget(in) {
			b.unit(i, in, -1)
			continue
		}
		for t := range in.Targets {
			b.unit(i, in, t)
		}
	}
	b.counters.ValueSize = ir.CounterBytes(len(b.prog.Units)) << bits.Len(uint(b.opts.NumCPU-1))
	if opts.RingBytes == 0 {
		b.ring.MaxEntries = b.ringBytes()
	}
	return b.prog, b.diags
}

// Sizes of the event ring when nobody chose one: its memory is mapped, and counts as ours, from the start.
const (
	hotRing  = 16 << 20
	coldRing = 256 << 10
)

// ringBytes sizes the ring: large if events of the kernel can send records at their own pace.
func (b *builder) ringBytes() int {
	for _, e := range b.prog.Events {
		u := b.prog.Units[e.Unit]
		switch u.Provider {
		case "begin", "end", "self", "interval":
			if len(u.Calls) == 0 { // no loop: a handful of records each time
				continue
			}
		}
		if e.Kind != ir.EvExit {
			return hotRing
		}
	}
	return coldRing
}

func (b *builder) errorf(s syntax.Span, format string, args ...any) {
	b.diags = append(b.diags, syntax.Diag{Span: s, Msg: fmt.Sprintf(format, args...)})
}

func (b *builder) declareMaps() {
	b.ring = &ir.Map{Name: ".ring", BPFName: "ring", Kind: ir.Ring, MaxEntries: b.opts.RingBytes}
	b.counters = &ir.Map{Name: ".counters", BPFName: "counters", Kind: ir.Array, KeySize: 4, MaxEntries: 1}
	b.prog.Maps = append(b.prog.Maps, b.ring, b.counters)
	b.prog.Counters = b.counters
	for i, m := range b.info.Maps {
		b.cmaps[m.Name] = m
		n := mapOf(m, b.info.Config.MaxMapKeys)
		n.Order = i
		b.maps[m.Name] = n
		b.prog.Maps = append(b.prog.Maps, n)
	}
}

// mapOf chooses how the kernel keeps m.
func mapOf(m *check.Map, maxKeys int) *ir.Map {
	n := &ir.Map{Name: m.Name, BPFName: "at_" + m.Name[1:], Key: m.Key, Value: m.Value, MaxEntries: m.MaxEntries}
	if n.MaxEntries == 0 {
		n.MaxEntries = maxKeys
	}
	if n.MaxEntries == 0 {
		n.MaxEntries = 4096
	}
	v := m.Value
	if v == nil {
		v = types.Int64
		n.Value = v
	}
	n.ValueSize = valueSize(v)
	if m.Key != nil {
		n.KeySize = keySize(m.Key)
	}
	switch v.Kind {
	case types.Hist, types.LHist, types.TSeries:
		n.Bucketed = true
		n.KeySize = (n.KeySize+7)&^7 + 8
	}
	perCPU := v.IsAgg()
	switch {
	case m.Key == nil && !n.Bucketed:
		n.Kind, n.KeySize, n.MaxEntries = ir.Array, 4, 1
		if perCPU {
			n.Kind = ir.PerCPUArray
		}
	case m.Kind == "lruhash" && perCPU, m.Kind == "percpulruhash":
		n.Kind = ir.PerCPULRUHash
	case m.Kind == "lruhash":
		n.Kind = ir.LRUHash
	case perCPU, m.Kind == "percpuhash":
		n.Kind = ir.PerCPUHash
	}
	return n
}

// keySize gives the bytes of a map key: at least one.
func keySize(t *types.Type) int { return max(1, t.Size) }

// valueSize gives the bytes of a map value. Aggregations that keep two numbers are 16 bytes.
func valueSize(t *types.Type) int {
	switch t.Kind {
	case types.Count, types.Sum, types.Hist, types.LHist:
		return 8
	case types.Avg, types.Stats, types.Min, types.Max:
		return 16
	case types.TSeries:
		return tseriesBucket
	}
	return max(1, t.Size)
}

// unit translates one instance.
func (b *builder) unit(clause int, in *check.Instance, target int) {
	u := &ir.Unit{Name: unitName(in, len(b.prog.Units)), Index: len(b.prog.Units), Provider: in.Provider.Name, Clause: clause, Target: target}
	b.prog.Units = append(b.prog.Units, u)
	f := &ir.Func{Name: u.Name, Unit: u, Entry: true}
	u.Entry = f
	x := &fn{b: b, in: in, u: u, f: f, vars: map[*check.Var]storage{}, captured: captures(in)}
	x.blk = f.NewBlock()
	x.onlyPID()
	x.walkEnds()
	if in.Pred != nil {
		x.predicate(in.Pred)
	}
	x.stmts(in.Body.Stmts)
	if in.Body.Result != nil {
		x.effect(in.Body.Result)
	}
	x.ret(u.Pass())
	x.flushAlways()
}

// perTarget says if each target needs a program of its own: it asks for its name, and this kind of attachment cannot
// tell targets apart by a cookie on every kernel we know.
func perTarget(in *check.Instance) bool {
	if len(in.Targets) < 2 {
		return false
	}
	switch in.Provider.Name {
	case "kprobe", "kretprobe", "uprobe", "uretprobe", "usdt", "tracepoint":
		return false
	}
	found := false
	see := func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Ident:
			found = found || n.Name == "probe" || n.Name == "__builtin_probe"
		case *syntax.Call:
			found = found || n.Name == "probe"
		}
		return !found
	}
	syntax.Walk(in.Body, see)
	if in.Pred != nil {
		syntax.Walk(in.Pred, see)
	}
	return found
}

func unitName(in *check.Instance, i int) string {
	name := in.Provider.Name
	if len(in.Targets) > 0 {
		name = in.Targets[0].Name
	}
	out := []byte(fmt.Sprintf("p%d_", i))
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' {
			out = append(out, c)
		} else {
			out = append(out, '_')
		}
	}
	return string(out)
}

// name gives the index of a probe name.
func (b *builder) name(s string) int {
	i, ok := b.names[s]
	if !ok {
		i = len(b.prog.Names)
		b.names[s] = i
		b.prog.Names = append(b.prog.Names, s)
	}
	return i
}

// format gives the index of a strftime format.
func (b *builder) format(s string) int {
	i, ok := b.formats[s]
	if !ok {
		i = len(b.prog.Formats)
		b.formats[s] = i
		b.prog.Formats = append(b.prog.Formats, s)
	}
	return i
}

// event adds a kind of record and gives its index.
func (b *builder) event(e *ir.Event) int {
	e.Unit = len(b.prog.Units) - 1
	b.prog.Events = append(b.prog.Events, e)
	return len(b.prog.Events) - 1
}
