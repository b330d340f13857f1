// Package coro keeps code that is written around a blocking receive as it is, while packets are announced by a poll loop, or by an
// interrupt, on the same thread.
//
// The code that blocks is the body of a [Task]. Where it called recv, it calls [Port.Receive]: in whichever function, however deep,
// reached from wherever; its callers do not change. The loop that knows of packets calls [Port.Deliver], which runs the body on from
// the receive that waits until the next one, and returns. The continuation is the body's own stack: nothing is turned inside out.
//
//	var t coro.Task
//	ticks, acks := coro.NewPort[Tick](&t, 64), coro.NewPort[Ack](&t, 64)
//	t.Start(func() { strategy(ticks, acks) })   // until its first Receive
//	for { … ticks.Deliver(tick) … }             // the poll loop
//
// One thing runs at a time: the loop or the body, never both, without locks. A switch is a direct hand-over between two goroutines
// (iter.Pull), not a trip through the scheduler.
package coro

import (
	"errors"
	"iter"
)

// Errors of receiving and delivering.
var (
	// ErrStopped says that the task was stopped: the body should return.
	ErrStopped = errors.New("the task was stopped")
	// ErrFull says that a port holds as many values as it may while the body waits elsewhere.
	ErrFull = errors.New("the port is full")
	// ErrEnded says that the body has returned.
	ErrEnded = errors.New("the task has ended")
)

// Task is code that waits. Its methods, and Deliver of its ports, are for the loop, all on one goroutine; which thread that goroutine
// is locked to must not change after Start. The zero Task is ready to have ports.
type Task struct {
	next    func() (struct{}, bool)
	stop    func()
	yield   func(struct{}) bool
	waits   any // the port at which the body waits
	stopped bool
	ended   bool
}

// Start runs the body until it first waits, or ends.
func (t *Task) Start(body func()) {
	t.next, t.stop = iter.Pull(func(yield func(struct{}) bool) {
		t.yield = yield
		defer func() { t.ended, t.waits = true, nil }()
		body()
	})
	t.next()
}

// Ended says that the body has returned.
func (t *Task) Ended() bool { return t.ended }

// Stop has the Receive at which the body waits, and all later ones, give ErrStopped, and returns when the body has returned. A panic of
// the body is the caller's.
func (t *Task) Stop() {
	t.stopped = true
	if t.stop != nil {
		t.stop()
	}
}

// Port is where values come in. Values that nobody waits for are kept in order.
type Port[T any] struct {
	t     *Task
	queue []T // a ring
	first int
	n     int
}

// NewPort makes a port that keeps up to room values, 1 at least.
func NewPort[T any](t *Task, room int) *Port[T] {
	return &Port[T]{t: t, queue: make([]T, max(1, room))}
}

// Receive gives the next value, and waits for one. It is for the body.
func (p *Port[T]) Receive() (v T, err error) {
	t := p.t
	for p.n == 0 {
		if t.stopped {
			return v, ErrStopped
		}
		t.waits = p
		if !t.yield(struct{}{}) {
			t.stopped = true
		}
	}
	v, p.queue[p.first] = p.queue[p.first], v // the ring keeps nothing alive
	if p.first++; p.first == len(p.queue) {
		p.first = 0
	}
	p.n--
	return v, nil
}

// Len says how many values wait.
func (p *Port[T]) Len() int { return p.n }

// Deliver puts a value in and, if the body waits at this port, runs it until it waits again or ends. The value is the body's from then
// on: a frame of package xsk is given back by it, or after it has been received.
func (p *Port[T]) Deliver(v T) error {
	t := p.t
	switch {
	case t.ended:
		return ErrEnded
	case p.n == len(p.queue):
		return ErrFull
	}
	at := p.first + p.n
	if at >= len(p.queue) {
		at -= len(p.queue)
	}
	p.queue[at] = v
	p.n++
	if t.waits == any(p) {
		t.waits = nil
		t.next()
	}
	return nil
}
