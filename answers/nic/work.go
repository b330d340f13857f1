package nic

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/ir/emit"
	"github.com/fathom-trace/fathom/probe"
	"github.com/fathom-trace/fathom/probe/try"
)

// Work counts what the kernel puts off, and what it does in interrupts, by the function that does it. It belongs to the
// caller, who must Close it; one goroutine may use it.
type Work struct {
	c     *workCode
	sess  *probe.Session
	since time.Time
}

// OpenWork loads and attaches the programs; counting begins. cpus are possible; sites are the places that ask for tasklets,
// which are counted where functions can be probed.
func OpenWork(w *probe.World, cpus int, sites []Site) (*Work, error) {
	code, err := newCode(w, emit.Options{CPUs: cpus}, workHists)
	if err != nil {
		return nil, err
	}
	k := &Work{c: newWorkCode(code, sites)}
	k.c.write()
	if k.sess, err = code.load(); err != nil {
		return nil, err
	}
	k.since = time.Now()
	return k, nil
}

// Close ends it.
func (k *Work) Close() error { return k.sess.Close() }

// Run counts until the context ends, and no more then.
func (k *Work) Run(ctx context.Context) { <-ctx.Done(); k.sess.Detach() }

// probeOf says how a function can be probed: "fentry", "fexit", "kprobe", "kretprobe"; "" if it cannot.
func (c *code) probeOf(fn string, ret bool) string {
	tracing, kprobe := "fentry", "kprobe"
	if ret {
		tracing, kprobe = "fexit", "kretprobe"
	}
	if try.Detect(try.Kprobe) == nil {
		return kprobe
	}
	t := probe.Target{Provider: tracing, Module: "vmlinux", Func: fn, Name: tracing + ":" + fn}
	if _, _, err := c.world.Args(t); err == nil && try.Detect(try.Fentry) == nil {
		return tracing
	}
	return ""
}

// SoftirqLoad is what a softirq did.
type SoftirqLoad struct {
	Name   string
	Wait   Hist // from raise to run
	Run    Hist
	Daemon Hist // of the runs those by ksoftirqd; no quantiles
}

// Function is what ran, how often, how long.
type Function struct {
	Kind      string // "irq", "tasklet", "timer", "hrtimer", "work", "vector"
	Name      string
	Run       Hist // no quantiles
	Wait      Hist // of work: from queueing to a worker's taking it; no quantiles
	CPU       uint64
	Where     string // the workqueue, or "irq N NAME"
	Worker    string // of work: who ran it first
	Limited   uint64 // of work: how often its workqueue ran as many items as it may when it was queued,
	Most      uint64 // which was so many (max_active)
	Scheduled uint64 // of tasklets: how often they were put into a CPU's list; 0 if that is not seen
	Asked     uint64 // of tasklets: how often they were asked for; 0 if that is not seen
	addr      uint64
}

// Stuck is work that has not ended, or not begun.
type Stuck struct {
	Name, Where, Worker string
	For                 time.Duration
	Running             bool
	Most                uint64 // of work that has not begun: the limit of its workqueue if that was reached when it was queued,
	Workers, Idle       uint32 // and the workers of its pool then
}

// WorkResult is what was counted.
type WorkResult struct {
	For       time.Duration
	Softirqs  []SoftirqLoad
	Functions []Function // the one that took most time first
	Stuck     []Stuck
	LostMap   uint64 // functions or work that did not fit
	Missing   []string
	Limits    bool // of workqueues are known
	Tasklets  bool // they are told apart
}

// stuckAfter is when work that runs, or waits, is told of.
const stuckAfter = time.Second

// Result reads what was counted. symbol names an address of the kernel; now is CLOCK_MONOTONIC in ns.
func (k *Work) Result(now uint64, symbol func(uint64) string) (*WorkResult, error) {
	r := &WorkResult{For: time.Since(k.since), Missing: k.c.missing, Tasklets: k.c.tasklets, Limits: k.c.l.limits}
	hs, err := k.c.histograms(k.sess, workHists)
	if err != nil {
		return nil, err
	}
	for v := range numVecs {
		if hs[hsRun+v].Count > 0 {
			r.Softirqs = append(r.Softirqs, SoftirqLoad{softirqName(v), hs[hsWait+v], hs[hsRun+v], hs[sumDaemon+v]})
		}
	}
	for _, a := range k.sess.Accounts() {
		r.LostMap += a.LostMap
	}
	return r, errors.Join(k.functions(r, symbol), k.stuck(r, now, symbol))
}

func (k *Work) functions(r *WorkResult, symbol func(uint64) string) error {
	es, err := k.sess.Entries(k.c.functions)
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	scheduled, asked := map[uint64]uint64{}, map[uint64]uint64{}
	for _, e := range es {
		kind := kindOf(le.Uint64(e.Key))
		if int(kind) >= len(kindNames) {
			continue
		}
		f := Function{Kind: kindNames[kind], addr: le.Uint64(e.Key[8:])}
		for _, b := range e.Values {
			f.Run.merge(decodeSum(b[fnRun:]))
			f.Wait.merge(decodeSum(b[fnWait:]))
			f.CPU += le.Uint64(b[fnCPU:])
			f.Limited += le.Uint64(b[fnLimit:])
			f.Most = max(f.Most, le.Uint64(b[fnMax:]))
			k.describe(&f, kind, b, symbol)
		}
		switch kind {
		case kindScheduled:
			scheduled[f.addr] = f.Run.Count
			continue
		case kindAsked:
			asked[f.addr] = f.Run.Count
			continue
		}
		r.Functions = append(r.Functions, f)
	}
	tasklets(r, scheduled, asked, symbol)
	sorting.Stable(r.Functions, func(a, b Function) int {
		return cmp.Or(cmp.Compare(b.Run.Sum, a.Run.Sum), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	return nil
}

// tasklets adds how often tasklets were asked for and put into a list, also of those whose runs are not seen.
func tasklets(r *WorkResult, scheduled, asked map[uint64]uint64, symbol func(uint64) string) {
	for i := range r.Functions {
		if f := &r.Functions[i]; f.Kind == kindNames[kindTasklet] {
			f.Scheduled, f.Asked = scheduled[f.addr], asked[f.addr]
			delete(scheduled, f.addr)
		}
	}
	for addr, n := range scheduled {
		r.Functions = append(r.Functions, Function{Kind: kindNames[kindTasklet], Name: symbol(addr), Scheduled: n, Asked: asked[addr], addr: addr})
	}
}

// describe names a function by what one CPU knows of it.
func (k *Work) describe(f *Function, kind kindOf, b []byte, symbol func(uint64) string) {
	le := binary.LittleEndian
	// What else is known stands where the function ran first: with that CPU's value.
	if (kind == kindIRQ || kind == kindWork) && le.Uint64(b[fnPID:]) == 0 {
		return
	}
	queue := text(b[fnQueue:][:queueName])
	switch kind {
	case kindIRQ:
		f.Name = symbol(le.Uint64(b[fnPID:]))
		f.Where = "irq " + decimal(le.Uint64(b[fnComm:])) + " " + queue
	case kindVector:
		f.Name = archVectors[min(f.addr, uint64(len(archVectors)-1))]
	case kindWork:
		f.Name, f.Where = symbol(f.addr), queue
		f.Worker = text(b[fnComm:][:16]) + "[" + decimal(le.Uint64(b[fnPID:])) + "]"
	default:
		f.Name = symbol(f.addr)
	}
}

// stuck finds work that was begun and not ended, or queued and not begun, while it was counted.
func (k *Work) stuck(r *WorkResult, end uint64, symbol func(uint64) string) error {
	le := binary.LittleEndian
	running, err := k.sess.Entries(k.c.running)
	if err != nil {
		return err
	}
	for _, e := range running {
		b := e.Values[0]
		if age := time.Duration(end - le.Uint64(b[rnAt:])); age >= stuckAfter {
			worker := text(b[rnComm:][:16]) + "[" + decimal(le.Uint64(b[rnPID:])) + "]"
			r.Stuck = append(r.Stuck, Stuck{symbol(le.Uint64(b[rnFunc:])), text(b[rnQueue:][:queueName]), worker, age, true, 0, 0, 0})
		}
	}
	queued, err := k.sess.Entries(k.c.queued)
	for _, e := range queued {
		b := e.Values[0]
		if age := time.Duration(end - le.Uint64(b[qdAt:])); age >= stuckAfter {
			r.Stuck = append(r.Stuck, Stuck{symbol(le.Uint64(b[qdFunc:])), text(b[qdQueue:][:queueName]), "", age, false,
				le.Uint64(b[qdLimit:]), le.Uint32(b[qdWorkers:]), le.Uint32(b[qdIdle:])})
		}
	}
	sorting.Stable(r.Stuck, func(a, b Stuck) int { return cmp.Or(cmp.Compare(b.For, a.For), cmp.Compare(a.Name, b.Name)) })
	return err
}
