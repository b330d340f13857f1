package nic

import (
	"errors"
	"fmt"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// code writes programs on raw tracepoints, which every kernel with BPF has: no kprobes are needed.
type code struct {
	l       *layout
	p       *emit.Program
	world   *probe.World
	hists   *ir.Map // histSize buckets for each of the histograms
	sums    *ir.Map // sumSize bytes for each
	targets [][]probe.Target
	missing []string // tracepoints that this kernel has not got
}

// Layout of an element of sums, on one CPU.
const (
	sumCount = 0
	sumNS    = 8
	sumMax   = 16
	sumSize  = 24
)

// newCode begins programs that count in so many histograms.
func newCode(w *probe.World, o emit.Options, hists int) (*code, error) {
	l, err := newLayout(w.Types())
	if err != nil {
		return nil, err
	}
	c := &code{l: l, p: emit.New(o), world: w}
	c.hists = c.p.Map(ir.Map{Name: ".hists", Kind: ir.PerCPUArray, KeySize: 4, ValueSize: 8 * histSize, MaxEntries: hists})
	c.sums = c.p.Map(ir.Map{Name: ".sums", Kind: ir.PerCPUArray, KeySize: 4, ValueSize: sumSize, MaxEntries: hists})
	return c, nil
}

// unit is a program with the arguments of its tracepoint by name.
type unit struct {
	*emit.Unit
	args map[string]int
}

func (u *unit) arg(name string) ir.Val { return u.Arg(u.args[name]) }

// at writes a program for a tracepoint, if the kernel has it with these arguments; it says if so.
func (c *code) at(tp string, args []string, write func(u *unit)) bool {
	t := probe.Target{Provider: "rawtracepoint", Module: "vmlinux", Func: tp, Name: "rawtracepoint:" + tp}
	params, _, err := c.world.Args(t)
	if err != nil {
		c.missing = append(c.missing, tp)
		return false
	}
	u := &unit{args: map[string]int{}}
	for _, f := range params.Fields {
		u.args[f.Name] = f.Index
	}
	for _, a := range args {
		if _, ok := u.args[a]; !ok {
			c.missing = append(c.missing, fmt.Sprintf("%s (it has no argument %s here)", tp, a))
			return false
		}
	}
	u.Unit = c.p.Unit("rawtracepoint", len(c.targets), tp)
	c.targets = append(c.targets, []probe.Target{t})
	write(u)
	u.Return(ir.Imm(0))
	return true
}

// load loads and attaches what was written. The caller closes the session.
func (c *code) load() (*probe.Session, error) {
	if len(c.targets) == 0 {
		return nil, errors.New("the kernel has none of the tracepoints that this needs")
	}
	sess, err := probe.LoadEmit(c.p, c.targets, probe.Options{World: c.world, Plain: true, Missing: "warn",
		Warn: func(s string) { c.missing = append(c.missing, s) }})
	if err != nil {
		return nil, err
	}
	if _, err := sess.Attach(); err != nil {
		return nil, errors.Join(err, sess.Close())
	}
	return sess, nil
}

// big gives a constant of 64 bits, which not every instruction takes as an operand.
func big(u *unit, n uint64) ir.Val { return u.Var(ir.Imm(int64(n))) }

func now(u *unit) ir.Val { return u.Var(u.Call(ir.FnKtimeGetNs)) }

func sub(u *unit, a, b ir.Val) ir.Val { return u.Bin(ir.Sub, a, b) }

// key puts a number on the stack, as maps take keys.
func key(u *unit, name string, size int, v ir.Val) emit.Mem {
	k := u.Slot(name, 8)
	u.Store(k, 8, ir.Imm(0))
	u.Store(k, size, v)
	return k
}

// element finds element i of an array and goes on with it.
func element(u *unit, m *ir.Map, i ir.Val, then func(emit.Mem)) {
	u.Lookup(m, key(u, "index", 4, i), then, nil)
}

// function writes a program for the begin or the end of a function, where functions can be probed: by a kprobe, else by
// fentry. It says if one was written; that it is attached, too, only shows when it is loaded.
func (c *code) function(fn string, ret bool, write func(u *unit)) bool {
	provider := c.probeOf(fn, ret)
	if provider == "" {
		c.missing = append(c.missing, "function "+fn+" (functions cannot be probed here)")
		return false
	}
	u := &unit{Unit: c.p.Unit(provider, len(c.targets), fn)}
	c.targets = append(c.targets, []probe.Target{{Provider: provider, Module: "vmlinux", Func: fn, Name: provider + ":" + fn}})
	write(u)
	u.Return(ir.Imm(0))
	return true
}

// of ends the program unless a device, whose number is index, is the one that is wanted; 0 is any, of any namespace.
func (c *code) of(u *unit, dev, index ir.Val, want int, netns uint32) {
	if want != 0 {
		u.If(ir.Ne, index, ir.Imm(int64(want)), func() { u.Return(ir.Imm(0)) }, nil)
	}
	if netns != 0 {
		inum := u.Int(u.Int(dev, c.l.devNet, 8, false), c.l.netInum, 4, false)
		u.If(ir.Ne, inum, big(u, uint64(netns)), func() { u.Return(ir.Imm(0)) }, nil)
	}
}

// tally adds a time to a histogram.
func (c *code) tally(u *unit, hist int, ns ir.Val) { c.tallyAt(u, ir.Imm(int64(hist)), ns) }

// tallyAt is tally of a histogram that is known when the program runs only.
func (c *code) tallyAt(u *unit, hist, ns ir.Val) {
	c.add(u, hist, ns)
	bucket := u.Var(ns)
	u.If(ir.Ge, ns, ir.Imm(histFirst), func() {
		e, rest := u.Var(ir.Imm(0)), u.Var(ns)
		for s := 32; s > 0; s /= 2 {
			u.If(ir.Ge, rest, big(u, 1<<s), func() {
				u.Set(e, u.Add(e, s))
				u.Set(rest, u.Bin(ir.Shr, rest, ir.Imm(int64(s))))
			}, nil)
		}
		sub := u.Bin(ir.And, u.Bin(ir.Shr, ns, u.Bin(ir.And, u.Add(e, -subBits), ir.Imm(63))), ir.Imm(histSub-1))
		u.Set(bucket, u.Bin(ir.Add, u.Bin(ir.Mul, u.Add(e, 1-subBits), ir.Imm(histSub)), sub))
	}, nil)
	element(u, c.hists, hist, func(m emit.Mem) {
		off := u.Bin(ir.Mul, u.Bin(ir.And, bucket, ir.Imm(histSize-1)), ir.Imm(8))
		inc(u, u.Place(u.Bin(ir.Add, u.Addr(m), off)))
	})
}

// add adds a time to a sum only.
func (c *code) add(u *unit, i, ns ir.Val) {
	element(u, c.sums, i, func(m emit.Mem) { plus(u, m, ns) })
}

// plus adds a time to a count, sum and maximum of this CPU.
func plus(u *unit, m emit.Mem, ns ir.Val) {
	u.Store(m.At(sumCount), 8, u.Add(u.Load(m.At(sumCount), 8, false), 1))
	u.Store(m.At(sumNS), 8, u.Bin(ir.Add, u.Load(m.At(sumNS), 8, false), ns))
	u.If(ir.Gt, ns, u.Load(m.At(sumMax), 8, false), func() { u.Store(m.At(sumMax), 8, ns) }, nil)
}

// inc adds one to a word.
func inc(u *unit, m emit.Mem) { u.Store(m, 8, u.Add(u.Load(m, 8, false), 1)) }

// addTo adds to a word.
func addTo(u *unit, m emit.Mem, v ir.Val) { u.Store(m, 8, u.Bin(ir.Add, u.Load(m, 8, false), v)) }
