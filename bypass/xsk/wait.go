package xsk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Wait is how a queue waits for packets.
type Wait int

// Ways to wait.
const (
	Netpoll   Wait = iota // Go's netpoller: the goroutine sleeps, the CPU is free. While packets come within 50 µs it looks that long first
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

// Sleeper is how the owner of a socket with rings waits for packets in one of those ways. Its zero value is not ready: see [NewSleeper].
type Sleeper struct {
	how      Wait
	look     func(ask bool) bool // says if there is something to do, and has the kernel look if ask
	poll     func()              // has the kernel poll the device
	closed   func() error        // says if the socket was closed
	fd       int
	file     *os.File
	raw      syscall.RawConn
	readable func(uintptr) bool // for raw.Read; made once
	brisk    int                // how many packets one after the other were waited for no longer than lingerFor
	slept    time.Time          // when netpoll slept last
	ctx      context.Context    // that the file's deadline belongs to: a program waits with one context millions of times
	stop     func() bool
}

// NewSleeper makes the sleeper of a socket that does not block; the descriptor is its file's from now on, also if it fails. look says if
// there is something to do, and makes system calls for that only if it is asked to; poll, which may be nil, has the kernel poll the
// device, and closed gives an error once the socket is.
func NewSleeper(fd int, name string, how Wait, look func(ask bool) bool, poll func(), closed func() error) (s *Sleeper, err error) {
	s = &Sleeper{how: how, look: look, poll: poll, closed: closed, fd: fd}
	if s.file, err = file(fd, name, how == Netpoll); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	if s.raw, err = s.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, s.file.Close())
	}
	s.readable = func(uintptr) bool {
		if s.look(true) || s.closed() != nil {
			return true
		}
		s.slept = time.Now()
		return false
	}
	return s, nil
}

// file makes a file of a socket that does not block. Go's netpoller gets it only if it is to wait there: the kernel tells an epoll instance
// of every packet, wakes the thread that sleeps in it, and takes a sixth of a packet's whole time for that, though nobody asked.
func file(fd int, name string, polled bool) (*os.File, error) {
	if polled {
		return os.NewFile(uintptr(fd), name), nil
	}
	// os.NewFile registers what does not block.
	err := unix.SetNonblock(fd, false)
	f := os.NewFile(uintptr(fd), name)
	return f, errors.Join(err, unix.SetNonblock(fd, true))
}

// Close closes the socket.
func (s *Sleeper) Close() error {
	if s.stop != nil {
		s.stop()
	}
	return s.file.Close()
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
	err := q.sleep.Park(ctx)
	if err == nil || err == ErrClosed || err == ctx.Err() {
		return err
	}
	return q.explain("wait", err)
}

// shortWait is how long a queue sleeps that cannot sleep until it is woken.
const shortWait = 20 * time.Microsecond

// look says if there is something to do, and has the kernel look, too, if that wants to be told and ask is true.
func (q *Queue) look(ask bool) bool {
	if q.rx.ready(1) > 0 {
		return true
	}
	if ask && q.caps.NeedWakeup && q.fill.wantsWakeup() {
		q.wakeRx()
	}
	return false
}

// Park returns when there is something to do, or when the context ends or the socket is closed, whose errors it gives then. What is looked
// at has to stay until it returned.
func (s *Sleeper) Park(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch s.how {
	case Spin, SpinYield, BusyPoll:
		return s.spin(ctx)
	case Poll:
		return s.sleep(ctx)
	}
	return s.netpoll(ctx)
}

// looksPerYield is how often who spins looks before others may run: to change goroutines takes as long as some thirty looks, and a packet
// that comes meanwhile waits for it.
const looksPerYield = 16

// spinsPerCheck is how often a spinning queue looks before it asks whether it shall end.
const spinsPerCheck = 1 << 10

func (s *Sleeper) spin(ctx context.Context) error {
	for n := 1; ; n++ {
		if s.look(true) {
			return nil
		}
		switch {
		case s.how == BusyPoll && s.poll != nil:
			s.poll()
		case s.how == SpinYield && n%looksPerYield == 0:
			runtime.Gosched()
		}
		if n%spinsPerCheck == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := s.closed(); err != nil {
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

func (s *Sleeper) sleep(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.look(true) {
			return nil
		}
		if err := s.closed(); err != nil {
			return err
		}
		fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(pollSlice.Milliseconds())); err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
	}
}

// netpoll parks the goroutine. The kernel wakes it on the edge at which the receive ring gets packets; looking comes first, so
// none is missed: an edge between looking and parking is remembered by the runtime.
func (s *Sleeper) netpoll(ctx context.Context) error {
	if err := s.heed(ctx); err != nil {
		return err
	}
	start := time.Now()
	if s.brisk >= lingerAfter && start.Sub(s.slept) < lingerMost && s.linger(start) {
		return nil
	}
	err := s.raw.Read(s.readable)
	if s.brisk++; time.Since(start) > lingerFor {
		s.brisk = 0
	}
	if cerr := s.closed(); cerr != nil {
		return cerr
	}
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Before it sleeps netpoll looks for lingerFor, if the last lingerAfter packets were not waited for longer. To sleep and be woken costs several
// times a packet's way through the kernel, which an answer to an answer does not have to wait for. It is how long the kernel recommends for
// its own sockets (net.core.busy_read, Documentation/admin-guide/sysctl/net.rst). After lingerMost it sleeps once: only when
// goroutines sleep does Go's runtime look what else there is to read.
const (
	lingerFor   = 50 * time.Microsecond
	lingerAfter = 2
	lingerMost  = time.Millisecond
)

// Calm has the next Park sleep at once: the packets of a stream are better taken many at a time.
func (s *Sleeper) Calm() { s.brisk = 0 }

// Calm is for who waits by [Netpoll], between a Recv and the Park after it: it has that sleep at once, though packets come fast. Those of a
// stream are better taken many at a time.
func (q *Queue) Calm() { q.sleep.Calm() }

// linger looks until lingerFor after start, and lets goroutines run that are ready. It says if there is something to do.
func (s *Sleeper) linger(start time.Time) bool {
	for n := 1; ; n++ {
		if s.look(false) {
			return true
		}
		if n%looksPerYield == 0 {
			runtime.Gosched()
			if time.Since(start) > lingerFor {
				return false
			}
		}
	}
}

// heed has the end of a context end the wait.
func (s *Sleeper) heed(ctx context.Context) error {
	if s.ctx == ctx {
		return ctx.Err()
	}
	if s.stop != nil && !s.stop() || s.ctx != nil {
		if err := s.file.SetReadDeadline(time.Time{}); err != nil {
			return err
		}
	}
	s.ctx, s.stop = ctx, nil
	if ctx.Done() != nil {
		f := s.file
		s.stop = context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) }) // fails only on a closed file, on which nobody waits
	}
	return ctx.Err()
}
