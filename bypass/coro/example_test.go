package coro_test

import (
	"fmt"

	"github.com/fathom-trace/fathom/bypass/coro"
)

// The strategy below was written for sockets: two functions that block in recv, reached from several places. They are as they were,
// but for what stands in place of recv.

type tick struct{ seq, price int }

type ack struct{ seq int }

type venue struct {
	ticks *coro.Port[tick]
	acks  *coro.Port[ack]
}

func (v *venue) recvTick() (tick, error) { return v.ticks.Receive() } // was: conn.Read
func (v *venue) recvAck() (ack, error)   { return v.acks.Receive() }  // was: conn.Read

// settle waits until the market has moved away, from wherever it is called.
func (v *venue) settle(from int) (tick, error) {
	for {
		t, err := v.recvTick()
		if err != nil || t.price != from {
			return t, err
		}
	}
}

// order sends an order and waits until it is taken.
func (v *venue) order(t tick) error {
	fmt.Println("order at", t.price)
	a, err := v.recvAck()
	if err == nil {
		fmt.Println("taken:", a.seq)
	}
	return err
}

func (v *venue) strategy() {
	t, err := v.recvTick()
	for err == nil {
		if t.price > 100 {
			if err = v.order(t); err != nil {
				break
			}
			t, err = v.settle(t.price)
			continue
		}
		t, err = v.recvTick()
	}
	fmt.Println("end:", err)
}

func Example() {
	var task coro.Task
	v := &venue{coro.NewPort[tick](&task, 16), coro.NewPort[ack](&task, 16)}
	task.Start(v.strategy)
	// The poll loop: packets come, and each is run as far as it goes.
	for _, t := range []tick{{1, 99}, {2, 101}, {3, 101}} {
		if err := v.ticks.Deliver(t); err != nil {
			fmt.Println(err)
		}
	}
	if err := v.acks.Deliver(ack{7}); err != nil {
		fmt.Println(err)
	}
	for _, t := range []tick{{4, 102}, {5, 103}} {
		if err := v.ticks.Deliver(t); err != nil {
			fmt.Println(err)
		}
	}
	task.Stop()
	// Output:
	// order at 101
	// taken: 7
	// order at 102
	// end: the task was stopped
}
