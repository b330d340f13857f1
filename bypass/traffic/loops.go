package traffic

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/fathom-trace/fathom/bypass/xsk"
)

// pause lets time pass when a ring is full, as the queue waits.
func pause(w xsk.Wait) {
	if w == xsk.Netpoll || w == xsk.Poll {
		time.Sleep(20 * time.Microsecond)
		return
	}
	runtime.Gosched()
}

// SendOptions say what Send sends.
type SendOptions struct {
	Template *Template
	Stream   int    // sender's number, below 256
	Count    uint64 // 0: until the context ends
	Batch    int
	Wait     xsk.Wait
}

// Send sends numbered frames and returns when the kernel has given all of them back, or drainFor is over. sent is how many it
// took.
func Send(ctx context.Context, q *xsk.Queue, o SendOptions) (sent uint64, err error) {
	frames := make([]xsk.Frame, o.Batch)
	for (o.Count == 0 || sent < o.Count) && ctx.Err() == nil {
		want := len(frames)
		if o.Count > 0 {
			want = int(min(uint64(want), o.Count-sent))
		}
		n := q.Alloc(frames[:want])
		for i := range frames[:n] {
			f := &frames[i]
			f.SetLen(o.Template.Len())
			o.Template.Write(f.Bytes(), Stream(o.Stream, sent+uint64(i)))
		}
		k, err := sendAll(ctx, q, frames[:n], o.Wait)
		sent += uint64(k)
		if err != nil {
			return sent, err
		}
		if n == 0 {
			if err := q.Kick(); err != nil {
				return sent, err
			}
			pause(o.Wait)
		}
	}
	return sent, drain(q, o.Wait)
}

// sendAll sends frames; those that cannot be sent before the context ends are given back.
func sendAll(ctx context.Context, q *xsk.Queue, frames []xsk.Frame, w xsk.Wait) (int, error) {
	for at := 0; ; {
		n, err := q.Send(frames[at:])
		at += n
		if err == nil && at == len(frames) {
			return at, nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			q.Free(frames[at:])
			if ctx.Err() != nil {
				err = nil
			}
			return at, err
		}
		if n == 0 {
			pause(w)
		}
	}
}

// drainFor is how long frames may be on their way that were sent last.
const drainFor = 2 * time.Second

// drain waits until the kernel gave back all frames that were sent.
func drain(q *xsk.Queue, w xsk.Wait) error {
	for until := time.Now().Add(drainFor); q.Outstanding() > 0; {
		if q.Reap() > 0 {
			until = time.Now().Add(drainFor)
			continue
		}
		if err := q.Kick(); err != nil {
			return err
		}
		if time.Now().After(until) {
			return fmt.Errorf("%d frames were not sent within %v", q.Outstanding(), drainFor)
		}
		pause(w)
	}
	return nil
}

// handle calls f with each batch that arrives until the context ends; f owns the frames.
func handle(ctx context.Context, q *xsk.Queue, batch int, f func([]xsk.Frame) error) error {
	frames := make([]xsk.Frame, batch)
	for {
		n, err := q.Recv(frames)
		if err != nil {
			return err
		}
		if n == 0 {
			if err := q.Wait(ctx); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
			continue
		}
		if err := f(frames[:n]); err != nil {
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		}
	}
}

// errEnough ends handle.
var errEnough = errors.New("enough")

// Receive accounts for what arrives until the context ends, or more, which is told how many packets came each time, says that it is
// enough. more may be nil.
func Receive(ctx context.Context, q *xsk.Queue, batch int, more func(n int) bool, a *Account) error {
	return handle(ctx, q, batch, func(fs []xsk.Frame) error {
		for i := range fs {
			a.Note(fs[i].Bytes())
		}
		q.Free(fs)
		if more != nil && !more(len(fs)) {
			return errEnough
		}
		return nil
	})
}

// Forward sends what arrives on in through out, which shares its memory; f changes each frame, and says whether to send it.
func Forward(ctx context.Context, in, out *xsk.Queue, batch int, w xsk.Wait, f func([]byte) bool) error {
	err := handle(ctx, in, batch, func(fs []xsk.Frame) error {
		kept := fs[:0]
		for i := range fs {
			if f(fs[i].Bytes()) {
				kept = append(kept, fs[i])
			} else {
				in.Free(fs[i : i+1])
			}
		}
		_, err := sendAll(ctx, out, kept, w)
		return err
	})
	return errors.Join(err, drain(out, w))
}

// Back turns frames round as xdpsock's l2fwd does: only the addresses of Ethernet change places.
func Back(b []byte) bool { SwapMACs(b); return true }

// RoundTrips sends count datagrams one after the other, each when the answer to the one before came, and gives the times. One
// without an answer is lost after timeout, or half as long again.
func RoundTrips(ctx context.Context, q *xsk.Queue, t *Template, count int, timeout time.Duration, took func(time.Duration)) (lost uint64, err error) {
	var frame [1]xsk.Frame
	frames := make([]xsk.Frame, 64)
	d := newDog(ctx, timeout)
	defer func() { d.cancel() }()
	for seq := uint64(0); seq < uint64(count) && ctx.Err() == nil; seq++ {
		if q.Alloc(frame[:]) == 0 {
			return lost, errors.New("no frame is free")
		}
		frame[0].SetLen(t.Len())
		t.Write(frame[0].Bytes(), seq)
		d.moved.Store(seq + 1)
		start := time.Now()
		if _, err := sendAll(ctx, q, frame[:], xsk.Spin); err != nil {
			return lost, err
		}
		err := answer(d.ctx, q, frames, seq)
		switch {
		case err == nil:
			took(time.Since(start))
		case d.ctx.Err() == nil:
			return lost, err
		case ctx.Err() == nil:
			lost++
			d = newDog(ctx, timeout) // the last one has ended
		}
	}
	return lost, nil
}

// dog ends a context when nothing has moved for a while.
type dog struct {
	ctx    context.Context
	cancel context.CancelFunc
	moved  *atomic.Uint64
}

func newDog(ctx context.Context, timeout time.Duration) dog {
	c, cancel := context.WithCancel(ctx)
	d := dog{c, cancel, new(atomic.Uint64)}
	go Watchdog(c, timeout, d.moved, cancel)
	return d
}

// Watchdog calls still when moved has not changed for timeout, or half as long again, and again while that is so, until ctx is done.
// It looks itself, twice in the time: to tell it that something moved costs a store, where setting a timer for each round trip
// would show in the times.
func Watchdog(ctx context.Context, timeout time.Duration, moved *atomic.Uint64, still func()) {
	tick := time.NewTicker(max(timeout/2, time.Nanosecond))
	defer tick.Stop()
	last, idle := uint64(0), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n := moved.Load(); n != last {
			last, idle = n, 0
		} else if idle++; idle > 2 {
			still()
		}
	}
}

// answer waits for a number.
func answer(ctx context.Context, q *xsk.Queue, frames []xsk.Frame, seq uint64) error {
	for {
		n, err := q.Recv(frames)
		if err != nil {
			return err
		}
		found := false
		for i := range frames[:n] {
			if got, verdict := Read(frames[i].Bytes()); verdict == Good && got == seq {
				found = true
			}
		}
		q.Free(frames[:n])
		if found {
			return nil
		}
		if n > 0 {
			continue
		}
		if err := q.Wait(ctx); err != nil {
			return err
		}
	}
}
