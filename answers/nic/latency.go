package nic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
)

// LatencyOptions say which packets are measured.
type LatencyOptions struct {
	Index int           // of a device; 0 is all
	NetNS uint32        // inode of the namespace that the device is in; 0 is any
	Slow  time.Duration // packets that took so long are explained
	CPUs  int           // that are possible
	Keep  int           // slow packets that are kept for a timeline, the first
}

// Latency measures the stages of packets' ways. It belongs to the caller, who must Close it; one goroutine may use it.
type Latency struct {
	o     LatencyOptions
	c     *latCode
	sess  *probe.Session
	ring  *probe.Reader
	since time.Time
	late  []Late
	kept  []Late
	told  int
}

// mostLate is how many late packets are kept, the slowest.
const mostLate = 10

// OpenLatency loads and attaches the programs; measuring begins.
func OpenLatency(w *probe.World, o LatencyOptions) (*Latency, error) {
	code, err := newCode(w, emit.Options{CPUs: o.CPUs, Ring: 1 << 18}, latHists)
	if err != nil {
		return nil, err
	}
	l := &Latency{o: o, c: newLatCode(code, o)}
	l.c.write()
	if l.sess, err = code.load(); err != nil {
		return nil, err
	}
	l.since = time.Now()
	if l.ring, err = l.sess.Reader(); err != nil {
		return nil, errors.Join(err, l.sess.Close())
	}
	return l, nil
}

// Close ends it.
func (l *Latency) Close() error {
	if l.ring != nil {
		l.ring.Close()
	}
	return l.sess.Close()
}

// readEvery is how often records are taken out of the ring.
const readEvery = 100 * time.Millisecond

// Run measures until the context ends.
func (l *Latency) Run(ctx context.Context) error {
	tick := time.NewTicker(readEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.sess.Detach()
			return l.drain()
		case <-tick.C:
			if err := l.drain(); err != nil {
				return err
			}
		}
	}
}

// drain takes what is in the ring.
func (l *Latency) drain() error {
	for !l.ring.Empty() {
		b, err := l.ring.Next(time.Now())
		if err != nil || b == nil {
			return err
		}
		if p, ok := decodeLate(b); ok {
			l.told++
			l.late = append(l.late, p)
			if len(l.kept) < l.o.Keep {
				l.kept = append(l.kept, p)
			}
		}
		if len(l.late) > 4*mostLate {
			l.slowest()
		}
	}
	return nil
}

func (l *Latency) slowest() {
	sorting.Stable(l.late, func(a, b Late) int { return int(min(max(int64(b.Whole())-int64(a.Whole()), -1), 1)) })
	l.late = l.late[:min(len(l.late), mostLate)]
}

// Late is a packet that took too long. Times are of CLOCK_MONOTONIC in ns; 0 is not known.
type Late struct {
	IRQAt, Raise, Run, Poll, Recv, Wake, Ran, Read uint64

	IRQ, CPU, Index int
	Flags           uint32
	Hard, Soft      uint64 // ns of other handlers and softirqs while NET_RX waited
	SoftVec         int
	Polls           int    // before it, in the same run
	At              string // the task that NET_RX ran in
	PID             int
	Comm, Prev      string // the reader, and what ran on its CPU before it
	On, Idle        int    // that CPU, and the idle state that it was in last, -1 if it is not known,
	Left            uint64 // and when it left that
}

func (p *Late) begin() uint64 {
	if p.IRQAt != 0 {
		return p.IRQAt
	}
	return p.Raise
}

func (p *Late) woken() uint64 {
	if p.Wake != 0 {
		return p.Wake
	}
	return p.Recv
}

// Whole is how long it took in ns.
func (p *Late) Whole() uint64 { return p.Read - p.begin() }

// Stages are the times of the stages, in the order of StageNames.
func (p *Late) Stages() [6]uint64 {
	return [6]uint64{p.Raise - p.begin(), p.Run - p.Raise, p.Poll - p.Run, p.Recv - p.Poll, p.woken() - p.Recv, p.Read - p.woken()}
}

func decodeLate(b []byte) (p Late, ok bool) {
	if len(b) < laSize {
		return p, false
	}
	le := binary.LittleEndian
	u64 := func(at int) uint64 { return le.Uint64(b[at:]) }
	u32 := func(at int) int { return int(le.Uint32(b[at:])) }
	p = Late{
		IRQAt: u64(pkIRQ), Raise: u64(pkRaise), Run: u64(pkRun), Poll: u64(pkPoll), Recv: u64(pkRecv), Wake: u64(pkWake), Ran: u64(laRan), Read: u64(laRead),
		IRQ: u32(pkWhere + 4), CPU: u32(pkWhere), Index: u32(pkDev + 4), Flags: le.Uint32(b[pkDev:]), Hard: u64(pkHard), Soft: u64(pkSoft),
		SoftVec: int(u64(pkVec)), Polls: int(u64(pkPolls)), At: text(b[pkComm:][:16]), PID: int(u64(laPID)), Comm: text(b[laComm:][:16]), Prev: text(b[laPrev:][:16]),
		Idle: u32(laIdle) - 1, On: u32(laIdle + 4), Left: u64(laLeft),
	}
	return p, p.begin() <= p.Raise && p.Raise <= p.Run && p.Run <= p.Poll && p.Poll <= p.Recv && p.Recv <= p.woken() && p.woken() <= p.Read
}

func text(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

// StageNames are what the stages are called.
var StageNames = [...]string{"irq → raised", "raised → run", "run → poll", "poll → receive", "receive → socket", "socket → read"}

// Stage is one with its times.
type Stage struct {
	Name string
	Hist Hist
}

// VectorLoad is what an interrupt cost.
type VectorLoad struct {
	IRQ     int
	Count   uint64
	NS, Max uint64 // of its handlers
	Packets uint64 // that came with it
	Name    string // for the caller to fill in
}

// LatencyResult is what was measured.
type LatencyResult struct {
	For     time.Duration
	Stages  []Stage // of StageNames
	Whole   Hist    // of packets that were read
	Sched   Hist    // of the last stage: until the reader that was woken ran
	Sum     uint64  // ns: the stages of the packets that were read, added up
	Vectors []VectorLoad
	NAPIs   map[int][]uint32 // by interrupt: instances it was seen to schedule
	Runs    uint64           // of NET_RX,
	Daemon  uint64           // of those by ksoftirqd,
	Outside uint64           // packets that a thread or a task received: not by NET_RX
	Again   uint64           // and because the run before had not finished
	Late    []Late           // the slowest
	Kept    []Late           // the first ones, as many as were asked for
	Idle    []string         // what the idle states are called, for the caller to fill in
	Told    int              // late packets that were told in all
	Lost    uint64           // that were not
	Missing []string         // what this kernel has not got
	Ready   bool             // sockets say when they have a packet; otherwise it is seen only if somebody was woken
}

// Result reads what was measured so far.
func (l *Latency) Result() (*LatencyResult, error) {
	r := &LatencyResult{For: time.Since(l.since), Ready: l.c.ready, Told: l.told, Missing: l.c.missing, NAPIs: map[int][]uint32{}}
	hs, err := l.c.histograms(l.sess, latHists)
	if err != nil {
		return nil, err
	}
	for i, n := range StageNames {
		r.Stages = append(r.Stages, Stage{n, hs[i]})
		r.Sum += hs[sumRead+i].Sum
	}
	r.Whole, r.Sched = hs[stWhole], hs[stSched]
	l.slowest()
	r.Late, r.Kept = l.late, l.kept
	for _, a := range l.sess.Accounts() {
		r.Lost += a.LostRing
	}
	return r, errors.Join(l.vectors(r), l.instances(r), l.runs(r))
}

func (l *Latency) vectors(r *LatencyResult) error {
	es, err := l.sess.Entries(l.c.vectors)
	if err != nil {
		return err
	}
	for _, e := range es {
		v := VectorLoad{IRQ: int(binary.LittleEndian.Uint64(e.Key))}
		for _, b := range e.Values {
			s := decodeSum(b)
			v.Count, v.NS, v.Max = v.Count+s.Count, v.NS+s.Sum, max(v.Max, s.Max)
			v.Packets += binary.LittleEndian.Uint64(b[vecPackets:])
		}
		r.Vectors = append(r.Vectors, v)
	}
	sorting.Stable(r.Vectors, func(a, b VectorLoad) int { return int(min(max(int64(b.NS)-int64(a.NS), -1), 1)) })
	return nil
}

func (l *Latency) instances(r *LatencyResult) error {
	es, err := l.sess.Entries(l.c.irqOf)
	for _, e := range es {
		irq := int(binary.LittleEndian.Uint64(e.Values[0]))
		r.NAPIs[irq] = append(r.NAPIs[irq], uint32(binary.LittleEndian.Uint64(e.Key)))
	}
	return err
}

func (l *Latency) runs(r *LatencyResult) error {
	es, err := l.sess.Entries(l.c.cpu)
	for _, e := range es {
		for _, b := range e.Values {
			r.Runs += binary.LittleEndian.Uint64(b[cpNet:])
			r.Daemon += binary.LittleEndian.Uint64(b[cpNetD:])
			r.Again += binary.LittleEndian.Uint64(b[cpAgain:])
			r.Outside += binary.LittleEndian.Uint64(b[cpElse:])
		}
	}
	return err
}

func decodeSum(b []byte) Hist {
	le := binary.LittleEndian
	return Hist{Count: le.Uint64(b[sumCount:]), Sum: le.Uint64(b[sumNS:]), Max: le.Uint64(b[sumMax:])}
}

// histograms reads histograms, those of all CPUs added up.
func (c *code) histograms(sess *probe.Session, n int) ([]Hist, error) {
	out := make([]Hist, n)
	sums, err := sess.Entries(c.sums)
	if err != nil {
		return nil, err
	}
	index := func(e probe.Entry, most int) (int, error) {
		i := int(binary.LittleEndian.Uint32(e.Key))
		if i >= most {
			return 0, fmt.Errorf("element %d of %d", i, most)
		}
		return i, nil
	}
	for _, e := range sums {
		i, err := index(e, n)
		if err != nil {
			return nil, err
		}
		for _, b := range e.Values {
			s := decodeSum(b)
			out[i].Count, out[i].Sum, out[i].Max = out[i].Count+s.Count, out[i].Sum+s.Sum, max(out[i].Max, s.Max)
		}
	}
	buckets, err := sess.Entries(c.hists)
	if err != nil {
		return nil, err
	}
	for _, e := range buckets {
		i, err := index(e, n)
		if err != nil {
			return nil, err
		}
		for _, b := range e.Values {
			for k := range out[i].buckets {
				out[i].buckets[k] += binary.LittleEndian.Uint64(b[8*k:])
			}
		}
	}
	return out, nil
}
