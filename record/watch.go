package record

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/internal/lease"
	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/tracefs"
)

// Watch waits for events, in a tracing instance of its own.
type Watch struct {
	C <-chan struct{} // one is in it when an event came since the last was taken out

	fs    tracefs.FS
	inst  *tracefs.Instance
	pipes []*tracefs.Pipe
	page  int
	ended atomic.Bool
	wait  sync.WaitGroup
}

// watchKB is the ring buffer of each CPU: what comes is only noticed.
const watchKB = 64

// NewWatch watches for the events that a spec means, until it is closed.
func NewWatch(s Spec, leases lease.Dir) (_ *Watch, err error) {
	w := &Watch{}
	if w.fs, err = tracefs.Find(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("watch for %s: %w", s.Pattern, err), w.Close())
		}
	}()
	events, err := selectEvents(w.fs, []Spec{s})
	if err != nil {
		return nil, err
	}
	header, err := w.fs.PageHeader()
	if err != nil {
		return nil, err
	}
	h, err := traceevent.ParsePageHeader(header)
	if err != nil {
		return nil, err
	}
	w.page = h.Size
	if w.inst, err = w.fs.NewInstance(leases); err != nil {
		return nil, err
	}
	if err := w.inst.Write("buffer_size_kb", fmt.Sprint(watchKB)); err != nil {
		return nil, err
	}
	_ = w.inst.Write("buffer_percent", "0") // since 5.0; before it readers are woken by every event
	for _, e := range events {
		if err := enable(w.inst, e); err != nil {
			return nil, err
		}
	}
	cpus, err := w.inst.CPUs()
	if err != nil {
		return nil, err
	}
	for _, cpu := range cpus {
		p, err := w.inst.Raw(cpu)
		if err != nil {
			return nil, err
		}
		w.pipes = append(w.pipes, p)
	}
	c := make(chan struct{}, 1)
	w.C = c
	w.wait.Go(func() { w.look(c) })
	return w, w.inst.Write("tracing_on", "1")
}

func (w *Watch) look(c chan<- struct{}) {
	var fds []unix.PollFd
	for _, p := range w.pipes {
		fds = append(fds, unix.PollFd{Fd: int32(p.FD()), Events: unix.POLLIN})
	}
	page := make([]byte, w.page)
	for !w.ended.Load() {
		if n, err := unix.Poll(fds, int(poll/time.Millisecond)); n <= 0 || err != nil {
			continue
		}
		came := false
		for _, p := range w.pipes {
			for {
				n, err := p.Read(page)
				if n == 0 || err != nil {
					break
				}
				came = true
			}
		}
		if came {
			select {
			case c <- struct{}{}:
			default:
			}
		}
	}
}

// Close ends the watch and removes its instance.
func (w *Watch) Close() error {
	w.ended.Store(true)
	w.wait.Wait()
	var errs []error
	for _, p := range w.pipes {
		errs = append(errs, p.Close())
	}
	w.pipes = nil
	if w.inst != nil {
		errs = append(errs, w.inst.Close())
		w.inst = nil
	}
	errs = append(errs, w.fs.Close())
	w.fs = tracefs.FS{}
	return errors.Join(errs...)
}
