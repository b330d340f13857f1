// Package market is what exchange and strategy say to each other: ticks, datagrams to a group of multicast, and orders, over a
// connection of TCP. Both programs are examples, to be measured and taken apart.
package market

import (
	"encoding/binary"
	"errors"
	"math"
)

// Tick is one change of a market.
type Tick struct {
	Seq   uint64 // counts from 0
	Price uint64
}

// Order is what somebody wants because of a tick.
type Order struct {
	Seq   uint64 // the tick's
	Price uint64
}

// Size is how many bytes a tick has, or an order: two numbers, big-endian.
const Size = 16

// Ready is what a strategy says first: it hears ticks from now on.
var Ready = Order{Seq: math.MaxUint64}

// ErrShort is a message of fewer bytes.
var ErrShort = errors.New("a message of less than 16 bytes")

// Put writes a tick; b has Size bytes at least.
func (t Tick) Put(b []byte) { put(b, t.Seq, t.Price) }

// ReadTick reads one.
func ReadTick(b []byte) (t Tick, err error) {
	t.Seq, t.Price, err = read(b)
	return t, err
}

// Put writes an order; b has Size bytes at least.
func (o Order) Put(b []byte) { put(b, o.Seq, o.Price) }

// ReadOrder reads one.
func ReadOrder(b []byte) (o Order, err error) {
	o.Seq, o.Price, err = read(b)
	return o, err
}

// Decide is the strategy: it bids one more than the price, whatever it is, so that an exchange can tell whether a tick was read.
func Decide(t Tick) Order { return Order{Seq: t.Seq, Price: t.Price + 1} }

func put(b []byte, seq, price uint64) {
	binary.BigEndian.PutUint64(b, seq)
	binary.BigEndian.PutUint64(b[8:], price)
}

func read(b []byte) (seq, price uint64, err error) {
	if len(b) < Size {
		return 0, 0, ErrShort
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), nil
}
