package compare

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/fathom-trace/fathom/bypass/shm"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// memEnd is messages through shared memory, of the length of a datagram's contents: what processes of one machine can do that need no
// network between them.
type memEnd struct {
	ms     [2]*shm.Memory
	w      *shm.Writer // nil for Sink
	r      *shm.Reader // nil for Blast
	t      *traffic.Template
	ctx    context.Context
	cancel context.CancelFunc
}

// memory makes what the two sides share: one way, and back.
func memory(size int) (ms [2]*shm.Memory, err error) {
	for i := range ms {
		if ms[i], err = shm.Create(shm.Config{Slots: 1024, Slot: max(64, size)}); err != nil {
			return ms, errors.Join(err, closeMemory(ms))
		}
	}
	return ms, nil
}

func closeMemory(ms [2]*shm.Memory) error {
	var errs []error
	for _, m := range ms {
		if m != nil {
			errs = append(errs, m.Close())
		}
	}
	return errors.Join(errs...)
}

// openMemory takes the side's places: what asks or sends writes to the first, and reads the second.
func openMemory(j Job, t *traffic.Template) (_ end, err error) {
	e := &memEnd{t: t}
	for i, path := range j.Memory {
		if e.ms[i], err = shm.Open(path); err != nil {
			return nil, errors.Join(err, closeMemory(e.ms))
		}
	}
	out, in := e.ms[0], e.ms[1]
	if j.Role == Echo || j.Role == Sink {
		out, in = in, out
	}
	if j.Role != Sink {
		e.w, err = out.Writer(shm.Spin)
	}
	if err == nil && j.Role != Blast {
		e.r, err = in.Reader(shm.Spin)
	}
	if err != nil {
		return nil, errors.Join(err, closeMemory(e.ms))
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e, nil
}

func (e *memEnd) stats() *xsk.Stats { return nil }
func (e *memEnd) interrupt()        { e.cancel() }

func (e *memEnd) Close() error {
	e.cancel()
	var errs []error
	if e.w != nil {
		errs = append(errs, e.w.Close())
	}
	if e.r != nil {
		errs = append(errs, e.r.Close())
	}
	return errors.Join(append(errs, closeMemory(e.ms))...)
}

// ending says if an error is how a side ends.
func ending(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (e *memEnd) echo(*atomic.Bool) (n uint64, err error) {
	b := make([]byte, e.ms[0].Config().Slot)
	for {
		k, err := e.r.Receive(e.ctx, b)
		if err == nil {
			err = e.w.Send(e.ctx, b[:k])
		}
		if err != nil {
			return n, ending(err)
		}
		n++
	}
}

func (e *memEnd) sink(*atomic.Bool) (n uint64, err error) {
	b := make([]byte, e.ms[0].Config().Slot)
	for {
		if _, err := e.r.Receive(e.ctx, b); err != nil {
			return n, ending(err)
		}
		n++
	}
}

func (e *memEnd) ping(n int, took func(time.Duration)) (lost uint64, err error) {
	b := make([]byte, e.ms[0].Config().Slot)
	out := make([]byte, e.t.Len())
	for i := range n {
		p := e.t.Payload(out, uint64(i))
		start := time.Now()
		if err := e.w.Send(e.ctx, p); err != nil {
			return lost, err
		}
		if _, err := e.r.Receive(e.ctx, b); err != nil {
			return lost, err
		}
		took(time.Since(start))
	}
	return lost, nil
}

func (e *memEnd) blast(until time.Time) (n uint64, err error) {
	out := make([]byte, e.t.Len())
	for n%64 != 0 || time.Now().Before(until) {
		switch err := e.w.TrySend(e.t.Payload(out, n)); {
		case err == nil:
			n++
		case errors.Is(err, shm.ErrFull):
			if !time.Now().Before(until) {
				return n, nil
			}
			runtime.Gosched()
		default:
			return n, err
		}
	}
	return n, nil
}
