package callgraph

import (
	"fmt"
	"runtime"
	"time"

	"github.com/fathom-trace/fathom/answers/graph"
)

// countBits are the bits of preempt_count that tell what a CPU runs in (include/linux/preempt.h).
type countBits struct{ softirq, hardirq, nmi uint64 }

var (
	// plainBits: a softirq is served, hard interrupts, NMIs.
	plainBits = countBits{0x00000100, 0x000f0000, 0x00f00000}
	// disableBits are those of kernels that also count how often interrupts were turned off, in the byte of bits 16 to 23.
	disableBits = countBits{plainBits.softirq, 0x0f000000, 0x10000000}
)

func (c countBits) context(count uint64) graph.Context {
	switch {
	case count&c.nmi != 0:
		return graph.NMI
	case count&c.hardirq != 0:
		return graph.Hardirq
	case count&c.softirq != 0:
		return graph.Softirq
	}
	return graph.Task
}

// preemptCount is an expression for preempt_count(): on x86-64 it is in per-CPU memory, by one of two names, elsewhere in
// the task. known is false if this kernel does not say where.
func (p *probes) preemptCount() (expr string, known bool) {
	has := func(sym string) bool { return len(p.run.syms.ByName(sym)) > 0 }
	switch {
	case runtime.GOARCH != "amd64":
		return "(uint32)curtask.thread_info.preempt.count", true
	case has("pcpu_hot"):
		return `((struct pcpu_hot *)percpu_kaddr("pcpu_hot")).preempt_count`, true
	case has("__preempt_count"):
		return `*(int32 *)percpu_kaddr("__preempt_count")`, true
	}
	return "(int32)0", false
}

// learnTime bounds how long is waited for a clock's interrupt.
const learnTime = time.Second

// learn finds out which bits this kernel has: what its count is in a hard interrupt, that of a clock. Where none can be had, they
// are taken for those that most kernels have.
func (p *probes) learn() countBits {
	expr, known := p.preemptCount()
	if !known {
		return plainBits
	}
	q := &probes{run: p.run}
	defer q.close()
	if err := q.load(fmt.Sprintf("profile:us:500 { print((pc = %s)); }", expr)); err != nil {
		return plainBits
	}
	for until := time.Now().Add(learnTime); time.Now().Before(until); {
		rec, err := q.ring.Next(until)
		if err != nil || rec == nil {
			return plainBits
		}
		if q.decode(rec); q.count&disableBits.hardirq != 0 {
			return disableBits
		}
		if q.count&plainBits.hardirq != 0 {
			break
		}
	}
	return plainBits
}
