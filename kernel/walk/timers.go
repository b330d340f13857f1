package walk

import (
	"fmt"
	"time"

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
