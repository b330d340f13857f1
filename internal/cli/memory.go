package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// frugal has garbage collected when the program has taken so many bytes, until stop is called. Where what is in use comes near
// that, the bound is a quarter above it: else nothing but collecting would be done.
func frugal(bytes int64) (stop func()) {
	var mu sync.Mutex
	before, over := debug.SetMemoryLimit(bytes), false
	var watch func()
	watch = func() {
		runtime.AddCleanup(new([16]byte), func(struct{}) { // after the next collection
			mu.Lock()
			defer mu.Unlock()
			if !over {
				debug.SetMemoryLimit(max(bytes, roomy()))
				watch()
			}
		}, struct{}{})
	}
	watch()
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		debug.SetMemoryLimit(before)
	}
}

// headroom is what the runtime keeps free below a memory limit, at least (memoryLimitHeapGoal in runtime/mgcpacer.go).
const headroom = 1 << 20

// roomy is the memory limit (debug.SetMemoryLimit) under which a quarter of the heap in use may come on top of it before garbage
// is collected.
func roomy() int64 {
	m := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	metrics.Read(m)
	n := func(i int) int64 { return int64(m[i].Value.Uint64()) }
	beside := n(1) - n(2) - n(3) - n(4) // stacks, gaps between objects, what the runtime keeps of its own
	goal := n(0) + n(0)/4
	return beside + goal + max(headroom, goal/25)
}
