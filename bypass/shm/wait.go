package shm

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Wait is how a writer or a reader waits.
type Wait int

// Ways to wait.
const (
	Mixed Wait = iota // spin for a while, then sleep
	Spin              // look again and again: the least delay, one CPU
	Futex             // sleep at once
)

// String gives the name.
func (w Wait) String() string { return [...]string{"mixed", "spin", "futex"}[w] }

const (
	// mixedSpins is how often Mixed looks before it sleeps: some 20 µs, about what waking costs.
	mixedSpins = 10_000
	// checkSpins is how often one that spins looks before it asks whether the context or the other side ended.
	checkSpins = 1 << 14
	// checkEvery is how long one sleeps before it asks that.
	checkEvery = 20 * time.Millisecond
)

// until waits until ready says so, or stop gives an error. sleeps is 1 while this side sleeps: who makes ready true looks at it
// afterwards, and wakes. Both sides store first and load then; sequential consistency has one of them see the other.
func (w Wait) until(ctx context.Context, sleeps *atomic.Uint32, ready func() bool, stop func() error) error {
	spins := 0
	for {
		if ready() {
			return nil
		}
		spins++
		if w == Spin || w == Mixed && spins < mixedSpins {
			if spins%checkSpins == 0 {
				if err := ended(ctx, ready, stop); err != nil {
					return err
				}
				runtime.Gosched()
			}
			continue
		}
		sleeps.Store(1)
		if ready() {
			sleeps.Store(0)
			return nil
		}
		if err := futexWait(sleeps, 1, checkEvery); err != nil {
			return err
		}
		sleeps.Store(0)
		if err := ended(ctx, ready, stop); err != nil {
			return err
		}
	}
}

// ended gives why waiting is of no use. What the other side did before it ended is looked at once more.
func ended(ctx context.Context, ready func() bool, stop func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := stop(); err != nil && !ready() {
		return err
	}
	return nil
}

// wake wakes who sleeps, if somebody does.
func wake(sleeps *atomic.Uint32) {
	if sleeps.Load() == 0 {
		return
	}
	sleeps.Store(0)
	const futexWake = 1
	// It fails only for an address that is none; the word lies in the mapping.
	_, _, _ = unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(sleeps)), futexWake, 1<<30, 0, 0, 0)
}

// futexWait sleeps while the word has a value, at most for a time.
func futexWait(word *atomic.Uint32, value uint32, most time.Duration) error {
	const futexWait = 0 // not private: the word is shared between processes
	ts := unix.NsecToTimespec(most.Nanoseconds())
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(value), uintptr(unsafe.Pointer(&ts)), 0, 0)
	switch errno {
	case 0, unix.EAGAIN, unix.ETIMEDOUT, unix.EINTR:
		return nil
	}
	return fmt.Errorf("sleep in shared memory: %w", errno)
}
