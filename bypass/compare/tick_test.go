package compare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// script is the source and the connection of an exchange whose strategy does with each tick what answer says: the orders that come for it.
type script struct {
	answer func(seq uint64) [][2]uint64
	queue  [][2]uint64
}

func (s *script) send(seq uint64) error { s.queue = append(s.queue, s.answer(seq)...); return nil }
func (s *script) Close() error          { return nil }
func (s *script) accept() error         { return nil }
func (s *script) write([]byte) error    { return errors.New("an exchange writes nothing") }

func (s *script) read(b []byte, late *atomic.Bool) error {
	if len(s.queue) == 0 {
		for !late.Load() {
			time.Sleep(time.Millisecond)
		}
		return errLate
	}
	binary.BigEndian.PutUint64(b, s.queue[0][0])
	binary.BigEndian.PutUint64(b[8:], s.queue[0][1])
	s.queue = s.queue[1:]
	return nil
}

// TestExchange: an order counts if it is for the tick and at its price; what comes for one that was given up does not.
func TestExchange(t *testing.T) {
	right := func(seq uint64) [][2]uint64 { return [][2]uint64{{seq, price(seq)}} }
	for _, tt := range []struct {
		name        string
		answer      func(seq uint64) [][2]uint64
		times, lost int
		err         string
	}{
		{"all", right, 4, 0, ""},
		{"at another price", func(seq uint64) [][2]uint64 { return [][2]uint64{{seq, price(seq) + 1}} }, 0, 0, "an order for tick 0 at 10001, where tick 0 at 10000"},
		{"for one to come", func(seq uint64) [][2]uint64 { return right(seq + 1) }, 0, 0, "an order for tick 1 at 10003"},
		{"none for one", func(seq uint64) [][2]uint64 {
			if seq == 1 {
				return nil
			}
			return right(seq)
		}, 3, 1, ""},
		{"late for one", func(seq uint64) [][2]uint64 {
			switch seq {
			case 1:
				return nil
			case 2:
				return append(right(1), right(2)...)
			}
			return right(seq)
		}, 3, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel() // what is lost is waited for
			s := &script{answer: tt.answer}
			n := 0
			lost, err := (&market{out: s, orders: s}).exchange(4, 0, func(time.Duration) { n++ })
			if n != tt.times || int(lost) != tt.lost || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(fmt.Sprint(err), tt.err) {
				t.Errorf("%d times, %d lost, %v", n, lost, err)
			}
		})
	}
}

// TestGap: the next tick waits for the gap after an order.
func TestGap(t *testing.T) {
	const gap = 3 * time.Millisecond
	var sent []time.Time
	s := &script{answer: func(seq uint64) [][2]uint64 {
		sent = append(sent, time.Now())
		return [][2]uint64{{seq, price(seq)}}
	}}
	if lost, err := (&market{out: s, orders: s}).exchange(4, gap, func(time.Duration) {}); lost > 0 || err != nil {
		t.Fatal(lost, err)
	}
	for i := 1; i < len(sent); i++ {
		if d := sent[i].Sub(sent[i-1]); d < gap {
			t.Errorf("tick %d came %v after the one before", i, d)
		}
	}
}
