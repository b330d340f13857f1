package compare

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// streamEnd is a connection of TCP, the kernel's or netstack's, as a program in Go uses it. Its packets are messages of the size that the
// payload of the other ways' has.
type streamEnd struct {
	t     *traffic.Template
	stack *netstack.Stack // nil: the kernel's

	mu      sync.Mutex // what follows
	l       net.Listener
	c       net.Conn
	stopped bool
}

func openTCP(j Job, t *traffic.Template) (end, error) {
	return (&streamEnd{t: t}).open(j, net.Listen, net.Dial)
}

func openStack(j Job, t *traffic.Template, w xsk.Wait) (end, error) {
	s, err := netstack.Open(j.Device, netstack.Options{Queues: []int{0}, Wait: w, Mode: j.Mode})
	if err != nil {
		return nil, err
	}
	return (&streamEnd{t: t, stack: s}).open(j, s.Listen, s.Dial)
}

// open connects, or listens, which echo and sink go on with.
func (e *streamEnd) open(j Job, listen func(network, address string) (net.Listener, error), dial func(network, address string) (net.Conn, error)) (_ end, err error) {
	if j.Role == Ping || j.Role == Blast {
		e.c, err = dial("tcp4", j.Remote.String())
	} else {
		e.l, err = listen("tcp4", j.Local.String())
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *streamEnd) stats() *xsk.Stats {
	if e.stack == nil {
		return nil
	}
	s, err := e.stack.Stats()
	if err != nil {
		return nil
	}
	return &s.Queues
}

func (e *streamEnd) Close() (err error) {
	e.mu.Lock()
	l, c := e.l, e.c
	e.mu.Unlock()
	if c != nil {
		err = c.Close()
	}
	if l != nil {
		err = errors.Join(err, l.Close())
	}
	if e.stack != nil {
		err = errors.Join(err, e.stack.Close())
	}
	return err
}

func (e *streamEnd) interrupt() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped = true
	if e.c != nil {
		_ = e.c.SetReadDeadline(time.Unix(1, 0)) // fails only if it is closed
	} else {
		_ = e.l.Close() // nobody came
	}
}

// accept waits for the other side; nil if the end came first.
func (e *streamEnd) accept() (net.Conn, error) {
	c, err := e.l.Accept()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopped {
		if c != nil {
			_ = c.Close() // nobody uses it
		}
		return nil, nil
	}
	e.c = c
	return c, err
}

// received calls f with each message until the connection or the measurement ends.
func (e *streamEnd) received(stop *atomic.Bool, f func(c net.Conn, b []byte) error) (n uint64, err error) {
	c, err := e.accept()
	if c == nil || err != nil {
		return 0, err
	}
	b := make([]byte, e.t.Len())
	b = e.t.Payload(b, 0)
	for {
		_, err := io.ReadFull(c, b)
		if err == nil {
			err = f(c, b)
		}
		if errors.Is(err, io.EOF) {
			_ = c.(interface{ CloseWrite() error }).CloseWrite() // who waits for it gets it; others may be gone
			return n, nil
		}
		if err != nil {
			return n, over(err, stop)
		}
		n++
	}
}

func (e *streamEnd) echo(stop *atomic.Bool) (uint64, error) {
	return e.received(stop, func(c net.Conn, b []byte) error { _, err := c.Write(b); return err })
}

func (e *streamEnd) sink(stop *atomic.Bool) (uint64, error) {
	return e.received(stop, func(net.Conn, []byte) error { return nil })
}

func (e *streamEnd) ping(n int, took func(time.Duration)) (lost uint64, err error) {
	out := make([]byte, e.t.Len())
	for i := range n {
		p := e.t.Payload(out, uint64(i))
		start := time.Now()
		if _, err := e.c.Write(p); err != nil {
			return 0, err
		}
		if _, err := io.ReadFull(e.c, p); err != nil {
			return 0, err
		}
		took(time.Since(start))
	}
	return 0, nil
}

// blast ends when the other side has all.
func (e *streamEnd) blast(until time.Time) (n uint64, err error) {
	out := make([]byte, e.t.Len())
	if n, err = flood(e.c, until, func(seq uint64) []byte { return e.t.Payload(out, seq) }); err != nil {
		return n, err
	}
	if err := e.c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return n, err
	}
	_, err = io.Copy(io.Discard, e.c)
	return n, err
}
