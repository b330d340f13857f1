package rank

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// maxOverlap is how many at once are told apart.
const maxOverlap = 4096

// overlapCounter counts how many are inside a function when one more comes in.
type overlapCounter struct {
	name  string
	table *ir.Map
	sess  *probe.Session
}

// Inside is the key of tables of [NewOverlap]: how many were inside the function at once.
const Inside = "inside at once"

// NewOverlap counts the calls of a function by how many are inside it at once, the caller included: running on other CPUs,
// sleeping, or interrupted by it. It probes by fentry and fexit, which see every return; where there are none by kprobes, which
// lose returns, and so count too many, when more are inside than the kernel has room for (10, or two for each CPU). A call
// that was inside before Begin is not known of; its return is not taken for another's.
func NewOverlap(function string, w *probe.World, cpus int) (Counter, error) {
	c, err := newOverlap(function, "fentry", "fexit", w, cpus)
	if err == nil {
		return c, nil
	}
	c, kerr := newOverlap(function, "kprobe", "kretprobe", w, cpus)
	if kerr != nil {
		return nil, errors.Join(err, kerr)
	}
	return c, nil
}

func newOverlap(function, entry, exit string, w *probe.World, cpus int) (Counter, error) {
	p := emit.New(emit.Options{CPUs: cpus})
	inside := p.Map(ir.Map{Name: ".inside", Kind: ir.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	calls := p.Map(ir.Map{Name: ".calls", Kind: ir.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 8 * maxOverlap})
	table := p.Map(ir.Map{Name: ".table", Kind: ir.PerCPUHash, KeySize: 8, ValueSize: 8, MaxEntries: maxOverlap})
	// Of the map of calls it is known who is inside: a task, how deep it has called itself. Returns are probed first (the
	// last unit, [probe.Session.Attach]), so that none of a call that was seen is missed.
	enter := p.Unit(entry, 1, function)
	task, depth, zero := key(enter)
	enter.Lookup(calls, task, func(m emit.Mem) { enter.Store(m, 8, enter.Add(enter.Load(m, 8, false), 1)) }, func() {
		enter.Store(depth, 8, ir.Imm(1))
		enter.Update(calls, task, depth)
	})
	enter.Lookup(inside, zero, func(m emit.Mem) {
		enter.AtomicAdd(m, 8, ir.Imm(1))
		at := enter.Slot("at", 8)
		enter.Store(at, 8, enter.Load(m, 8, false))
		enter.Lookup(table, at, func(v emit.Mem) { enter.Store(v, 8, enter.Add(enter.Load(v, 8, false), 1)) }, func() {
			enter.Store(depth, 8, ir.Imm(1))
			enter.Update(table, at, depth)
		})
	}, nil)
	enter.Return(ir.Imm(0))
	leave := p.Unit(exit, 0, function)
	back, _, only := key(leave)
	leave.Lookup(calls, back, func(m emit.Mem) {
		left := leave.Var(leave.Add(leave.Load(m, 8, false), -1))
		leave.Store(m, 8, left)
		leave.If(ir.Eq, left, ir.Imm(0), func() { leave.Delete(calls, back) }, nil)
		leave.Lookup(inside, only, func(m emit.Mem) { leave.AtomicAdd(m, 8, ir.Imm(-1)) }, nil)
	}, nil)
	leave.Return(ir.Imm(0))
	var targets [][]probe.Target
	for _, provider := range []string{exit, entry} {
		targets = append(targets, []probe.Target{{Provider: provider, Func: function, Name: provider + ":" + function}})
	}
	sess, err := probe.LoadEmit(p, targets, probe.Options{World: w})
	if err != nil {
		return nil, err
	}
	return &overlapCounter{function, table, sess}, nil
}

// key gives the current task as a key, room for a number, and the key of an array's only element.
func key(u *emit.Unit) (task, number, zero emit.Mem) {
	task, number, zero = u.Slot("task", 8), u.Slot("number", 8), u.Slot("zero", 8)
	u.Store(task, 8, u.Call(ir.FnCurrentTask))
	u.Store(zero, 8, ir.Imm(0))
	return task, number, zero
}

func (c *overlapCounter) Begin() error {
	n, err := c.sess.Attach()
	if err == nil && n < 2 {
		err = fmt.Errorf("%s cannot be probed at its entry and its return", c.name)
	}
	return err
}

func (c *overlapCounter) End() error   { c.sess.Detach(); return nil }
func (c *overlapCounter) Close() error { return c.sess.Close() }

func (c *overlapCounter) Table() (*Table, error) {
	t := &Table{Event: c.name, By: []string{Inside}, Order: []Order{{By: Inside}}, Engine: "bpf"}
	es, err := c.sess.Entries(c.table)
	if err != nil {
		return nil, err
	}
	for _, e := range es {
		r := Row{Keys: []Cell{{Text: strconv.FormatUint(binary.LittleEndian.Uint64(e.Key), 10)}}}
		for _, v := range e.Values {
			r.Hits += binary.LittleEndian.Uint64(v)
		}
		t.Hits += r.Hits
		t.Rows = append(t.Rows, r)
	}
	for _, a := range c.sess.Accounts() {
		t.Dropped += a.LostMap
		t.Missed += a.Missed
	}
	return t, nil
}
