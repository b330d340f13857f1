package walk

import (
	"cmp"
	"fmt"
	"time"

	"github.com/fathom-trace/fathom/internal/sorting"
	"github.com/fathom-trace/fathom/kernel"
)

// Timer is a high resolution timer that has been started.
type Timer struct {
	CPU      int
	Clock    int // clockid_t
	Soft     time.Duration
	Expires  time.Duration // on its clock, at the latest
	Function uint64
	Addr     uint64 // of its struct hrtimer
}

// Timers reads the high resolution timers of all CPUs, in the order in which each clock will get to them, as
// /proc/timer_list does.
func Timers(t kernel.Target) ([]Timer, error) {
	errs := &kernel.Errors{}
	var out []Timer
	for _, cpu := range t.CPUs() {
		base := kernel.Global(t, errs, "struct hrtimer_cpu_base", "hrtimer_bases")
		base = base.Shift(base.Addr + t.PerCPU(cpu))
		for i := range base.Len("clock_base") {
			c := base.Get("clock_base").At(i)
			for h := range RBTree(c.Get("active.rb_root"), "struct hrtimer", "node.node") {
				out = append(out, Timer{CPU: cpu, Clock: c.Get("clockid").Int(), Addr: h.Addr, Soft: time.Duration(h.Get("_softexpires").Uint()),
					Expires: time.Duration(h.Get("node.expires").Uint()), Function: h.Get("function").Uint()})
			}
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk timers: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// WheelTimer is a timer of the timer wheel (struct timer_list) that has been started.
type WheelTimer struct {
	CPU      int
	Base     string // which of a CPU's wheels: "local", "global", "deferrable"
	Clock    uint64 // jiffies up to which the wheel has been turned
	Expires  uint64 // jiffies
	Function uint64
	Addr     uint64
}

// wheels are the names of a CPU's struct timer_base: global timers, which another CPU may run, have one of their own since 6.9,
// as the migration of timers (struct tmigr_cpu) shows.
func wheels(t kernel.Target) []string {
	if _, err := kernel.TypeNamed(t.Types(), "struct tmigr_cpu"); err == nil {
		return []string{"local", "global", "deferrable"}
	}
	return []string{"standard", "deferrable"}
}

// WheelTimers reads the timers of all wheels, the next first on each.
func WheelTimers(t kernel.Target) ([]WheelTimer, error) {
	errs := &kernel.Errors{}
	timer, word := kernel.Object(t, errs, "struct timer_list", 0), kernel.Object(t, errs, "void *", 0)
	var out []WheelTimer
	for _, cpu := range t.CPUs() {
		first := kernel.Global(t, errs, "struct timer_base", "timer_bases")
		for i, name := range wheels(t) {
			base := first.Shift(first.Addr + t.PerCPU(cpu) + uint64(i*first.Size()))
			var here []WheelTimer
			heads(t, errs, base.Get("vectors").Addr, base.Len("vectors"), 8, func(_ int, at uint64) bool {
				return chain(word.Shift(at), timer, "entry", func(v kernel.Value) bool {
					here = append(here, WheelTimer{CPU: cpu, Base: name, Clock: base.Get("clk").Uint(), Expires: v.Get("expires").Uint(),
						Function: v.Get("function").Uint(), Addr: v.Addr})
					return len(here) < maxNodes
				})
			})
			sorting.By(here, func(a, b WheelTimer) int { return cmp.Compare(int64(a.Expires-b.Expires), 0) })
			out = append(out, here...)
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk timer wheels: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}
