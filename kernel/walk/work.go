package walk

import (
	"fmt"

	"github.com/fathom-trace/fathom/ctype"
	"github.com/fathom-trace/fathom/kernel"
)

// Pool is a pool of workers (kworker threads) of workqueues.
type Pool struct {
	ID, CPU, Nice int  // CPU is -1 for pools that are bound to none
	BH            bool // its work is done in softirqs, by no thread
	Workers, Idle int
	Busy          []Work // what workers are at
	Pending       []Work // what waits for one, in order
}

// Work is a work_struct.
type Work struct {
	Addr     uint64
	Function uint64
	Queue    string // its workqueue
	PID      int    // of the worker that is at it; 0 if it waits
}

// Bits of work_struct.data when the work is queued: WORK_STRUCT_PWQ, and what is no address of a pool_workqueue.
const (
	workPWQ     = 1 << 2
	workPWQMask = 0xff
)

// Pools reads all pools with the work that they have.
func Pools(t kernel.Target) ([]Pool, error) {
	errs := &kernel.Errors{}
	idr := kernel.Global(t, errs, "struct idr", "worker_pool_idr")
	pool := kernel.Object(t, errs, "struct worker_pool", 0)
	bh := poolBH(t)
	var out []Pool
	for at := range XArray(idr.Get("idr_rt").Cast("struct xarray")) {
		v := pool.Shift(at)
		p := Pool{ID: v.Get("id").Int(), CPU: v.Get("cpu").Int(), Workers: v.Get("nr_workers").Int(), Idle: v.Get("nr_idle").Int()}
		p.BH = v.Get("flags").Uint()&bh != 0
		if a := v.Get("attrs"); a.Uint() != 0 {
			p.Nice = a.Get("nice").Int()
		}
		for w := range v.Get("workers").List("struct worker", "node") {
			if w.Get("current_work").Uint() == 0 {
				continue
			}
			busy := Work{Addr: w.Get("current_work").Uint(), Function: w.Get("current_func").Uint(), PID: w.Get("task.pid").Int()}
			if q := w.Get("current_pwq"); q.Uint() != 0 {
				busy.Queue = q.Get("wq.name").String()
			}
			p.Busy = append(p.Busy, busy)
		}
		for w := range v.Get("worklist").List("struct work_struct", "entry") {
			p.Pending = append(p.Pending, pendingWork(t, errs, w))
			if len(p.Pending) > maxNodes {
				break
			}
		}
		out = append(out, p)
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk workqueues: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// poolBH is the flag of pools whose work is done in softirqs, which there are since 6.9; 0 before.
func poolBH(t kernel.Target) uint64 {
	ty, err := t.Types().ByName(ctype.KindEnum, "worker_pool_flags")
	e, ok := ty.(*ctype.Enum)
	if err != nil || !ok {
		return 0
	}
	for _, v := range e.Values {
		if v.Name == "POOL_BH" {
			return uint64(v.Value)
		}
	}
	return 0
}

func pendingWork(t kernel.Target, errs *kernel.Errors, w kernel.Value) Work {
	p := Work{Addr: w.Addr, Function: w.Get("func").Uint()}
	if data := w.Get("data.counter").Uint(); data&workPWQ != 0 {
		p.Queue = kernel.Object(t, errs, "struct pool_workqueue", data&^workPWQMask).Get("wq.name").String()
	}
	return p
}

// SoftIRQ is what softirqs of one kind did and have to do.
type SoftIRQ struct {
	Name    string
	Counts  []uint64 // by CPU, in the order of Target.CPUs
	Pending []bool
}

// softIRQs are the kinds, in the order of their bits (include/linux/interrupt.h).
var softIRQs = []string{"HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"}

// SoftIRQs reads how often each kind ran, as /proc/softirqs shows, and on which CPUs it is pending.
func SoftIRQs(t kernel.Target) ([]SoftIRQ, error) {
	errs := &kernel.Errors{}
	out := make([]SoftIRQ, len(softIRQs))
	for _, cpu := range t.CPUs() {
		stat := kernel.Global(t, errs, "struct kernel_stat", "kstat")
		stat = stat.Shift(stat.Addr + t.PerCPU(cpu))
		pending := softPending(t, errs, cpu)
		for i, name := range softIRQs {
			out[i].Name = name
			out[i].Counts = append(out[i].Counts, stat.Get("softirqs").At(i).Uint())
			out[i].Pending = append(out[i].Pending, pending>>i&1 != 0)
		}
	}
	return out, errs.Take()
}

// softPending is a CPU's mask: in pcpu_hot from 6.2 to 6.14, a variable of its own after, before in irq_stat.
func softPending(t kernel.Target, errs *kernel.Errors, cpu int) uint64 {
	for _, place := range []struct{ symbol, typ, member string }{
		{"__softirq_pending", "unsigned short", ""}, {"pcpu_hot", "struct pcpu_hot", "softirq_pending"}, {"irq_stat", "irq_cpustat_t", "__softirq_pending"},
	} {
		if len(t.Symbols().ByName(place.symbol)) == 0 {
			continue
		}
		v := kernel.Global(t, errs, place.typ, place.symbol)
		if v = v.Shift(v.Addr + t.PerCPU(cpu)); place.member != "" {
			if !v.Has(place.member) {
				continue
			}
			v = v.Get(place.member)
		}
		return v.Uint()
	}
	return 0
}
