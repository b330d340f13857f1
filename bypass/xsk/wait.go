package xsk

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Wait is how a queue waits for packets.
type Wait int

// Ways to wait.
const (
	Netpoll   Wait = iota // Go's netpoller: the goroutine sleeps, the CPU is free
	Poll                  // poll(2): the thread sleeps
	Spin                  // look again and again: the least delay, one CPU. Give the goroutine a thread, and GOMAXPROCS more than 1
	SpinYield             // spin, but let other goroutines run in between
	BusyPoll              // have the kernel poll the device from this thread (SO_PREFER_BUSY_POLL, Linux 5.11)
)

// waits are their names.
var waits = [...]string{"netpoll", "poll", "spin", "yield", "busy-poll"}

// String gives the name.
func (w Wait) String() string {
	if w < 0 || int(w) >= len(waits) {
		return fmt.Sprintf("Wait(%d)", int(w))
	}
	return waits[w]
}

// ParseWait reads a name.
func ParseWait(s string) (Wait, error) {
	for i, name := range waits {
		if s == name {
			return Wait(i), nil
		}
	}
	return 0, fmt.Errorf("no way to wait %q: netpoll, poll, spin, yield, busy-poll", s)
}

// waiter remembers the context that a queue's deadline belongs to: a program waits with one context millions of times.
type waiter struct {
	ctx  context.Context
	stop func() bool
}

// Wait returns when packets are there, or when the context ends, whose error it gives then. It may return earlier, so that who
// sends can go on. How it waits is Options.Wait.
func (q *Queue) Wait(ctx context.Context) error {
	ready, err := q.Prepare()
	switch {
	case err != nil || q.rx.ready(1) > 0:
		return err
	case ready:
		return ctx.Err()
	}
	return q.Park(ctx)
}

// Prepare does what has to be done before [Queue.Park]: frames go to the fill ring, and the kernel is told to send. It says if
// packets are there, or if it is not the time to sleep.
func (q *Queue) Prepare() (ready bool, err error) {
	q.refill()
	if q.rx.ready(1) > 0 {
		return true, nil
	}
	add(&q.count.waits, 1)
	if err := q.Kick(); err != nil {
		return false, err
	}
	if q.tx.used() > 0 || q.fillTo > 0 && q.fill.used() == 0 {
		// The kernel could not take all, or all frames are on their way: what ends that wakes nobody.
		if q.opts.Wait == Netpoll || q.opts.Wait == Poll {
			time.Sleep(shortWait)
		}
		return true, nil
	}
	return false, nil
}

// Park is Wait for a queue that several goroutines use in turns, under a lock of theirs. The one that receives calls Recv and Prepare with
// the lock and Park without: Park only looks at the receive ring, so that the others can send meanwhile.
func (q *Queue) Park(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch q.opts.Wait {
	case Spin, SpinYield, BusyPoll:
		return q.spin(ctx)
	case Poll:
		return q.poll(ctx)
	}
	return q.netpoll(ctx)
}

// shortWait is how long a queue sleeps that cannot sleep until it is woken.
const shortWait = 20 * time.Microsecond

// look says if there is something to do, and has the kernel look, too, if it asks for that.
func (q *Queue) look() bool {
	if q.rx.ready(1) > 0 {
		return true
	}
	if q.caps.NeedWakeup && q.fill.wantsWakeup() {
		q.wakeRx()
	}
	return false
}

// spinsPerCheck is how often a spinning queue looks before it asks whether it shall end.
const spinsPerCheck = 1 << 10

func (q *Queue) spin(ctx context.Context) error {
	for n := 1; ; n++ {
		if q.look() {
			return nil
		}
		switch {
		case q.opts.Wait == BusyPoll:
			q.wakeRx()
		case q.opts.Wait == SpinYield:
			runtime.Gosched()
		}
		if n%spinsPerCheck == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := q.err(); err != nil {
				return err
			}
			if n%(64*spinsPerCheck) == 0 {
				runtime.Gosched() // a spinning goroutine must not keep those of its P for ever
			}
		}
	}
}

// pollSlice is how long poll(2) sleeps before it is asked whether the context ended.
const pollSlice = 50 * time.Millisecond

func (q *Queue) poll(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if q.look() {
			return nil
		}
		if err := q.err(); err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(q.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(pollSlice.Milliseconds())); err != nil && err != unix.EINTR {
			return q.explain("poll", err)
		}
	}
}

// netpoll parks the goroutine. The kernel wakes it on the edge at which the receive ring gets packets; looking comes first, so
// none is missed: an edge between looking and parking is remembered by the runtime.
func (q *Queue) netpoll(ctx context.Context) error {
	if err := q.heed(ctx); err != nil {
		return err
	}
	err := q.raw.Read(q.readable)
	switch {
	case q.closed.Load():
		return ErrClosed
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return q.explain("wait", err)
	}
	return nil
}

// heed has the end of a context end the wait.
func (q *Queue) heed(ctx context.Context) error {
	if q.waiter.ctx == ctx {
		return ctx.Err()
	}
	if q.waiter.stop != nil && !q.waiter.stop() || q.waiter.ctx != nil {
		if err := q.file.SetReadDeadline(time.Time{}); err != nil {
			return q.explain("wait", err)
		}
	}
	q.waiter = waiter{ctx: ctx}
	if ctx.Done() != nil {
		f := q.file
		q.waiter.stop = context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) }) // fails only on a closed file, on which nobody waits
	}
	return ctx.Err()
}

// newFile gives a socket to the netpoller.
func newFile(fd int) *os.File { return os.NewFile(uintptr(fd), "AF_XDP") }
