package nic

import (
	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// Sums that Polls counts.
const (
	poSoft   = iota // runs of NET_RX, and their time
	poIn            // polls of the device in NET_RX, and packets
	poOut           // polls of the device by threads, and by tasks that poll themselves, and packets
	numPolls        // of poIn and poOut: sumNS is packets
)

// Polls counts the runs of NET_RX and the polls of a device, in it and outside. It belongs to the caller, who must Close it; one
// goroutine may use it.
type Polls struct {
	c    *code
	sess *probe.Session
}

// PollCounts are what was counted so far.
type PollCounts struct {
	Runs, NS           uint64 // of NET_RX on all CPUs
	Polls, Packets     uint64 // of the device, in all
	Outside, ByOutside uint64 // of these, polls and packets outside of NET_RX
}

// Minus is what was counted since another reading.
func (a PollCounts) Minus(b PollCounts) PollCounts {
	return PollCounts{a.Runs - b.Runs, a.NS - b.NS, a.Polls - b.Polls, a.Packets - b.Packets, a.Outside - b.Outside, a.ByOutside - b.ByOutside}
}

// Plus adds up.
func (a PollCounts) Plus(b PollCounts) PollCounts {
	return PollCounts{a.Runs + b.Runs, a.NS + b.NS, a.Polls + b.Polls, a.Packets + b.Packets, a.Outside + b.Outside, a.ByOutside + b.ByOutside}
}

// OpenPolls loads and attaches the programs; counting begins. netns is the inode of the namespace that the device is in.
func OpenPolls(w *probe.World, cpus, index int, netns uint32) (*Polls, error) {
	c, err := newCode(w, emit.Options{CPUs: cpus}, numPolls)
	if err != nil {
		return nil, err
	}
	cpu := c.p.Map(ir.Map{Name: ".cpu", Kind: ir.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1}) // when NET_RX began; 0 if it does not run
	state := func(u *unit, then func(emit.Mem)) { element(u, cpu, ir.Imm(0), then) }
	others := func(u *unit) {
		u.If(ir.Ne, u.Bin(ir.And, u.arg("vec_nr"), ir.Imm(0xff)), ir.Imm(netRX), func() { u.Return(ir.Imm(0)) }, nil)
	}
	c.at("softirq_entry", []string{"vec_nr"}, func(u *unit) {
		others(u)
		t := now(u)
		state(u, func(st emit.Mem) { u.Store(st, 8, t) })
	})
	c.at("softirq_exit", []string{"vec_nr"}, func(u *unit) {
		others(u)
		t := now(u)
		state(u, func(st emit.Mem) {
			began := u.Var(u.Load(st, 8, false))
			u.Store(st, 8, ir.Imm(0))
			u.If(ir.Ne, began, ir.Imm(0), func() { c.add(u, ir.Imm(poSoft), sub(u, t, began)) }, nil)
		})
	})
	c.at("napi_poll", []string{"napi", "work"}, func(u *unit) {
		dev := u.Var(u.Int(u.arg("napi"), c.l.napiDev, 8, false))
		c.of(u, dev, u.Int(dev, c.l.devIndex, 4, false), index, netns)
		work := u.Var(u.Bin(ir.And, u.arg("work"), ir.Imm(0x7fffffff)))
		state(u, func(st emit.Mem) {
			u.If(ir.Ne, u.Load(st, 8, false), ir.Imm(0), func() { c.add(u, ir.Imm(poIn), work) }, func() { c.add(u, ir.Imm(poOut), work) })
		})
	})
	p := &Polls{c: c}
	p.sess, err = c.load()
	return p, err
}

// Close ends it.
func (p *Polls) Close() error { return p.sess.Close() }

// Read gives what was counted so far.
func (p *Polls) Read() (PollCounts, error) {
	hs, err := p.c.histograms(p.sess, numPolls)
	if err != nil {
		return PollCounts{}, err
	}
	soft, in, out := hs[poSoft], hs[poIn], hs[poOut]
	return PollCounts{
		Runs: soft.Count, NS: soft.Sum, Polls: in.Count + out.Count, Packets: in.Sum + out.Sum, Outside: out.Count, ByOutside: out.Sum,
	}, nil
}
