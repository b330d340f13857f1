package compare

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// Ways of a strategy, which answers market data, datagrams to a group of multicast, by orders over a connection of TCP. The exchange is
// the instrument, the same for all of them: sockets of the kernel, read without waiting.
const (
	Sockets     Way = "sockets"      // Go's net for both
	SocketsSpin Way = "sockets-spin" // the kernel's sockets, read without waiting
	// Ticks by AF_XDP, orders by the kernel's TCP: [XSKNetpoll] and [XSKSpin].
	// Both by package netstack: [StackNetpoll], [StackYield], and
	StackInline Way = "netstack-inline" // the same as StackYield, but the order is written where the tick is received
)

// TickWays lists them, the one that others are compared with first.
func TickWays() []Way {
	return []Way{Sockets, SocketsSpin, XSKNetpoll, XSKSpin, StackNetpoll, StackYield, StackInline}
}

// feed is market data as a strategy receives it.
type feed interface {
	recv(stop *atomic.Bool) (seq uint64, ok bool, err error) // waits for a tick; not ok at the end
	interrupt()
	io.Closer
}

// source is market data as an exchange sends it.
type source interface {
	send(seq uint64) error
	io.Closer
}

// orders is the connection that orders go over.
type orders interface {
	accept() error                          // of the exchange: waits for the strategy
	read(b []byte, late *atomic.Bool) error // of the exchange: errLate once late says that enough was waited
	write(b []byte) error                   // of the strategy
	io.Closer
}

// errLate is an order that did not come in time.
var errLate = errors.New("no order came in time")

// market is one side of the measurement from tick to order: an exchange or a strategy.
type market struct {
	out    source // of an exchange
	in     feed   // of a strategy
	orders orders
	stack  *netstack.Stack // of a strategy; nil: the kernel's TCP
	inline *inline         // of the way netstack-inline
}

// orderLen is the number of the tick that an order is for, and its price.
const orderLen = 16

// price is what a strategy bids for a tick: the exchange knows by it that the tick was read.
func price(seq uint64) uint64 { return 10_000 + seq%997*3 }

func putOrder(b []byte, seq uint64) {
	binary.BigEndian.PutUint64(b, seq)
	binary.BigEndian.PutUint64(b[8:], price(seq))
}

// openMarket runs on a thread in the device's namespace. A strategy hears ticks before it connects.
func openMarket(j Job, l traffic.Local) (_ side, err error) {
	m := &market{}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	ip := j.Group.Addr().As4() // the group's address of Ethernet: RFC 1112, section 6.4
	t, err := traffic.NewTemplate(traffic.Flow{SrcMAC: l.MAC, DstMAC: net.HardwareAddr{0x01, 0x00, 0x5e, ip[1] & 0x7f, ip[2], ip[3]}, Src: j.Local, Dst: j.Group}, j.Size)
	if err != nil {
		return nil, err
	}
	o := &connection{}
	m.orders = o
	if j.Role == Exchange {
		if m.out, err = openSource(j, l, t); err == nil {
			o.l, err = net.Listen("tcp4", j.Local.String())
		}
		return m, err
	}
	dial := net.Dial
	switch j.Way {
	case Sockets:
		m.in, err = openGroup(j, l, t)
	case SocketsSpin:
		m.in, err = openGroupSpin(j, l, t)
	case XSKNetpoll:
		m.in, err = openGroupXSK(j, l, t, xsk.Netpoll)
	case XSKSpin:
		m.in, err = openGroupXSK(j, l, t, xsk.Spin)
	case StackNetpoll, StackYield, StackInline:
		wait := xsk.SpinYield
		if j.Way == StackNetpoll {
			wait = xsk.Netpoll
		}
		if m.stack, err = netstack.Open(j.Device, netstack.Options{Queues: []int{0}, Wait: wait, Mode: j.Mode}); err != nil {
			return nil, err
		}
		dial = m.stack.Dial
		if j.Way == StackInline {
			m.inline, err = openInline(j, m.stack)
		} else {
			m.in, err = openGroupStack(j, m.stack, t)
		}
	default:
		err = fmt.Errorf("no way %q from tick to order", j.Way)
	}
	if err != nil {
		return nil, err
	}
	if o.c, err = dial("tcp4", j.Remote.String()); err != nil {
		return nil, err
	}
	if m.inline != nil {
		m.inline.goes(o)
	}
	return m, nil
}

func (m *market) stats() *xsk.Stats {
	var s netstack.Stats
	var err error
	if m.stack != nil {
		if s, err = m.stack.Stats(); err == nil {
			return &s.Queues
		}
		return nil
	}
	if f, ok := m.in.(*groupXSK); ok {
		return f.stats()
	}
	return nil
}

func (m *market) interrupt() {
	if m.inline != nil {
		close(m.inline.over)
		return
	}
	m.in.interrupt()
}

func (m *market) Close() (err error) {
	if m.orders != nil {
		err = m.orders.Close()
	}
	if m.inline != nil {
		err = errors.Join(err, m.inline.Close())
	}
	if m.in != nil {
		err = errors.Join(err, m.in.Close())
	}
	if m.out != nil {
		err = errors.Join(err, m.out.Close())
	}
	if m.stack != nil {
		err = errors.Join(err, m.stack.Close())
	}
	return err
}

// exchange sends ticks, and takes the time until the order for each is there. Orders must be for the tick and at its price. Between an
// order and the next tick it lets the gap pass: a strategy that waits would never have begun to, else.
func (m *market) exchange(n int, gap time.Duration, took func(time.Duration)) (lost uint64, err error) {
	if err := m.orders.accept(); err != nil {
		return 0, err
	}
	var late atomic.Bool
	var sent atomic.Uint64
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go traffic.Watchdog(ctx, lostAfter, &sent, func() { late.Store(true) })
	var b [orderLen]byte
	for seq := range uint64(n) {
		late.Store(false)
		sent.Store(seq + 1)
		start := time.Now()
		if err := m.out.send(seq); err != nil {
			return lost, err
		}
		for {
			err := m.orders.read(b[:], &late)
			if errors.Is(err, errLate) {
				lost++
				break
			}
			if err != nil {
				return lost, err
			}
			got, at := binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])
			if got > seq || at != price(got) {
				return lost, fmt.Errorf("an order for tick %d at %d, where tick %d at %d was the last", got, at, seq, price(seq))
			}
			if got == seq {
				took(time.Since(start))
				break
			} // else it is for one that was given up
		}
		for end := time.Now(); time.Since(end) < gap; {
		}
	}
	return lost, nil
}

// strategy sends an order for each tick, and gives how many.
func (m *market) strategy(stop *atomic.Bool) (n uint64, err error) {
	if m.inline != nil {
		<-m.inline.over
		return m.inline.result()
	}
	var b [orderLen]byte
	for {
		seq, ok, err := m.in.recv(stop)
		if !ok || err != nil {
			return n, err
		}
		putOrder(b[:], seq)
		if err := m.orders.write(b[:]); err != nil {
			return n, err
		}
		n++
	}
}

// accepting is how long an exchange waits for its strategy.
const accepting = time.Minute

// connection is orders over TCP, of a strategy the kernel's or netstack's.
type connection struct {
	l  net.Listener // of the exchange
	c  net.Conn
	fd int // of the exchange's, which is read without waiting
}

func (o *connection) accept() (err error) {
	if err := o.l.(*net.TCPListener).SetDeadline(time.Now().Add(accepting)); err != nil {
		return err
	}
	if o.c, err = o.l.Accept(); err != nil {
		return err
	}
	r, err := o.c.(*net.TCPConn).SyscallConn()
	if err != nil {
		return err
	}
	return r.Control(func(fd uintptr) { o.fd = int(fd) }) // it stays open as long as o.c
}

func (o *connection) read(b []byte, late *atomic.Bool) error { return spinRead(o.fd, b, late) }

func (o *connection) write(b []byte) error {
	_, err := o.c.Write(b)
	return err
}

func (o *connection) Close() (err error) {
	if o.c != nil {
		err = o.c.Close()
	}
	if o.l != nil {
		err = errors.Join(err, o.l.Close())
	}
	return err
}
