package main

import (
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/compare"
)

// cacheLine measures what nothing through memory can beat: a number in a cache line that one CPU writes and another waits for, and its answer
// in another line. It gives the median of round trips in µs, or 0 if the threads cannot be bound to CPUs.
func cacheLine(trips int) float64 {
	type line struct {
		n atomic.Uint64
		_ [120]byte // two lines: the second is fetched with the first
	}
	var there, back line
	first, last := compare.CPUs()
	on := func(cpu int, f func()) bool {
		runtime.LockOSThread() // the thread ends with the goroutine, and its CPU with it
		var set unix.CPUSet
		set.Set(cpu)
		if cpu < 0 || unix.SchedSetaffinity(0, &set) != nil {
			return false
		}
		f()
		return true
	}
	if first == last {
		return 0
	}
	const over = ^uint64(0)
	go func() {
		if !on(last, func() {
			for seen := uint64(0); seen != over; back.n.Store(seen) {
				old := seen
				for seen == old {
					seen = there.n.Load()
				}
			}
		}) {
			back.n.Store(over)
		}
	}()
	result := make(chan float64)
	go func() {
		var times []time.Duration
		on(first, func() {
			for i := range uint64(trips) {
				begin := time.Now()
				there.n.Store(i + 1)
				for back.n.Load() != i+1 {
					if back.n.Load() == over {
						return
					}
				}
				times = append(times, time.Since(begin))
			}
		})
		there.n.Store(over)
		if len(times) < trips {
			result <- 0
			return
		}
		slices.Sort(times)
		result <- times[len(times)/2].Seconds() * 1e6
	}()
	return <-result
}
