package walk

import (
	"fmt"

	"github.com/fathom-trace/fathom/kernel"
)

// Signals are sets of signals; bit n-1 is signal n.
type Signals struct {
	Pending, Shared uint64 // waiting for the thread, for its process
	Blocked         uint64
	Ignored, Caught uint64
	Handlers        map[int]uint64 // of those caught: address in the program
}

// numSignals is _NSIG.
const numSignals = 64

// ReadSignals reads what /proc/PID/status shows of a task's signals, and the handlers.
func ReadSignals(task Task) (Signals, error) {
	errs := &kernel.Errors{}
	v := kernel.Object(task.Value.Target(), errs, "struct task_struct", task.Addr)
	s := Signals{Handlers: map[int]uint64{}, Blocked: v.Get("blocked.sig").At(0).Uint(), Pending: v.Get("pending.signal.sig").At(0).Uint()}
	if sig := v.Get("signal"); sig.Uint() != 0 {
		s.Shared = sig.Get("shared_pending.signal.sig").At(0).Uint()
	}
	if h := v.Get("sighand"); h.Uint() != 0 { // gone when the task is
		for i := range numSignals {
			switch at := h.Get("action").At(i).Get("sa.sa_handler").Uint(); at {
			case 0: // SIG_DFL
			case 1: // SIG_IGN
				s.Ignored |= 1 << i
			default:
				s.Caught |= 1 << i
				s.Handlers[i+1] = at
			}
		}
	}
	if err := errs.Take(); err != nil {
		return s, fmt.Errorf("read signals of pid %d: %w (%d reads failed)", task.PID, err, errs.N)
	}
	return s, nil
}
