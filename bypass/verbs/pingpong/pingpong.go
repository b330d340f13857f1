// Package pingpong measures round trips of messages between two RDMA devices, and checks what comes back.
//
// The ends find each other by TCP: each tells, in a line of JSON, where its queue pair is; the connection stays open, and its end is the
// end of the measurement. Messages then go past TCP/IP of both kernels. The server sends each message back as it came.
package pingpong

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/bypass/verbs"
)

// Options say how the client measures.
type Options struct {
	Count int  // round trips
	Size  int  // bytes of a message, 1 to MostSize
	Spin  bool // look again and again instead of sleeping
}

// MostSize is the longest message.
const MostSize = 1 << 20

// slots is how many messages an end has room for: the next may come before the device has said that the last has gone.
const slots = 4

// mostHello bounds what the other end may tell of itself.
const mostHello = 4096

// hello is what an end tells the other.
type hello struct {
	verbs.Endpoint
	MTU  int `json:"mtu"`
	Size int `json:"size"` // the client's: bytes of a message
}

// Account is what a client of a server did.
type Account struct {
	Client   string `json:"client"` // its address
	Size     int    `json:"size"`
	Messages int    `json:"messages"`
}

// end is one end, ready to be connected.
type end struct {
	conn  net.Conn
	x     *verbs.Context
	close []io.Closer
	mem   *verbs.Memory
	cq    *verbs.CompletionQueue
	qp    *verbs.QueuePair
	size  int
	spin  bool
}

// open makes what an end needs for messages of so many bytes, and posts its receives. Behind the slots there is room for what is sent.
func (e *end) open(size int) (err error) {
	if size < 1 || size > MostSize {
		return fmt.Errorf("messages of %d bytes: there are 1 to %d", size, MostSize)
	}
	e.size = size
	d, err := e.x.NewProtectionDomain()
	if err != nil {
		return err
	}
	e.close = append(e.close, d)
	if e.mem, err = d.RegisterMemory((slots+1)*size, verbs.LocalWrite); err != nil {
		return err
	}
	e.close = append(e.close, e.mem)
	if e.cq, err = e.x.NewCompletionQueue(2 * slots); err != nil {
		return err
	}
	e.close = append(e.close, e.cq)
	if e.qp, err = d.NewQueuePair(verbs.QueuePairOptions{Send: e.cq, Receive: e.cq, SendDepth: slots, ReceiveDepth: slots}); err != nil {
		return err
	}
	e.close = append(e.close, e.qp)
	for i := range slots {
		if err := e.room(i); err != nil {
			return err
		}
	}
	return nil
}

// room posts a slot for a message.
func (e *end) room(slot int) error {
	_, err := e.qp.PostReceive(verbs.Receive{ID: uint64(slot), Segments: []verbs.Segment{e.mem.Segment(slot*e.size, e.size)}})
	return err
}

func (e *end) Close() error {
	var errs []error
	for i := len(e.close) - 1; i >= 0; i-- {
		errs = append(errs, e.close[i].Close())
	}
	return errors.Join(errs...)
}

// tell and hear exchange lines.
func (e *end) tell() error {
	b, err := json.Marshal(hello{e.qp.Endpoint(), e.x.MTU(), e.size})
	if err != nil {
		return err
	}
	_, err = e.conn.Write(append(b, '\n'))
	return err
}

func (e *end) hear() (h hello, err error) {
	line, err := bufio.NewReader(io.LimitReader(e.conn, mostHello)).ReadBytes('\n')
	if err != nil {
		return h, fmt.Errorf("the other end said nothing of itself: %w", err)
	}
	return parseHello(line)
}

// parseHello reads what the other end told.
func parseHello(line []byte) (h hello, err error) {
	if err := json.Unmarshal(line, &h); err != nil {
		return h, fmt.Errorf("the other end is no fathom bypass rdma: %w", err)
	}
	if h.Size < 1 || h.Size > MostSize || !h.GID.Is6() {
		return h, fmt.Errorf("the other end told of messages of %d bytes (1 to %d can be), and of the address %s", h.Size, MostSize, h.GID)
	}
	return h, nil
}

// connect connects the queue pair with the other end's, in packets that both networks take.
func (e *end) connect(h hello) error {
	return e.qp.Connect(h.Endpoint, verbs.Path{MTU: min(h.MTU, e.x.MTU())})
}

// errGone says that the other end is no more.
var errGone = errors.New("the other end is gone")

// watch gives a context that ends when the other end closes the connection, with errGone. stop has to be called.
func (e *end) watch(ctx context.Context) (watched context.Context, stop func()) {
	watched, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = io.Copy(io.Discard, e.conn) // until it ends, or stop sets its deadline
		cancel(errGone)
	}()
	return watched, func() {
		_ = e.conn.SetReadDeadline(time.Unix(1, 0)) // it is closed next
		<-over
		cancel(nil)
	}
}

// completions waits for some.
func (e *end) completions(ctx context.Context, to []verbs.Completion) (int, error) {
	for {
		if n := e.cq.Poll(to); n > 0 {
			return n, nil
		}
		wait := e.cq.Wait
		if e.spin {
			wait = e.cq.Spin
		}
		if err := wait(ctx); err != nil {
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			return 0, err
		}
	}
}

// greet bounds how long the ends tell each other where they are.
const greet = 30 * time.Second

// greeting sets that bound; the end of the context is one, too, until stop is called.
func (e *end) greeting(ctx context.Context) (stop func() bool) {
	_ = e.conn.SetDeadline(time.Now().Add(greet)) // of a connection that is closed, reading says so
	return context.AfterFunc(ctx, func() { _ = e.conn.SetDeadline(time.Unix(1, 0)) })
}

// Port is where a server is asked, by TCP, if no port is given: that of librdmacm's rping.
const Port = "7174"

// Ping measures round trips to the server that listens at an address, HOST or HOST:PORT, and gives each to add. It returns early when the
// context ends, with its error. What comes back other than it went is an error.
func Ping(ctx context.Context, x *verbs.Context, addr string, o Options, add func(time.Duration)) (err error) {
	if _, _, err := net.SplitHostPort(addr); err != nil {
		addr = net.JoinHostPort(strings.Trim(addr, "[]"), Port)
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return errors.Join(ping(ctx, x, c, o, add), c.Close())
}

func ping(ctx context.Context, x *verbs.Context, c net.Conn, o Options, add func(time.Duration)) (err error) {
	e := &end{conn: c, x: x, spin: o.Spin}
	defer func() { err = errors.Join(err, e.Close()) }()
	if err := e.open(o.Size); err != nil {
		return err
	}
	defer e.greeting(ctx)()
	if err := e.tell(); err != nil {
		return err
	}
	h, err := e.hear()
	if err != nil {
		return err
	}
	if err := e.connect(h); err != nil {
		return err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return err
	}
	ctx, stop := e.watch(ctx)
	defer stop()
	message := make([]byte, o.Size)
	out := e.mem.Bytes()[slots*o.Size:]
	for i := range o.Count {
		fill(message, i)
		copy(out, message)
		start := time.Now()
		slot, n, err := e.trip(ctx)
		took := time.Since(start)
		if err != nil {
			return err
		}
		if got := e.mem.Bytes()[slot*o.Size:][:n]; !bytes.Equal(got, message) {
			return fmt.Errorf("message %d came back other than it went: %d bytes of %d", i, n, o.Size)
		}
		if err := e.room(slot); err != nil {
			return err
		}
		add(took)
	}
	return nil
}

// trip sends what is in the room for it, and waits until that has gone and a message has come.
func (e *end) trip(ctx context.Context) (slot, n int, err error) {
	if _, err := e.qp.PostSend(verbs.Send{Segments: []verbs.Segment{e.mem.Segment(slots*e.size, e.size)}}); err != nil {
		return 0, 0, err
	}
	var done [2]verbs.Completion
	slot = -1
	for gone := false; !gone || slot < 0; {
		k, err := e.completions(ctx, done[:])
		if err != nil {
			return 0, 0, err
		}
		for i := range done[:k] {
			if err := done[i].Err(); err != nil {
				return 0, 0, err
			}
			if done[i].Op == verbs.OpReceive {
				slot, n = int(done[i].ID), done[i].Bytes
			} else {
				gone = true
			}
		}
	}
	return slot, n, nil
}

// fill makes message i: bytes that differ from those of the messages before and after.
func fill(b []byte, i int) {
	r := rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16), byte(i >> 24)})
	_, _ = r.Read(b) // cannot fail
}

// Server answers clients.
type Server struct {
	Spin bool                 // look again and again instead of sleeping
	Done func(Account, error) // is told what each client did, and what went wrong
	l    net.Listener
}

// Listen begins to listen at an address, [HOST]:PORT.
func (s *Server) Listen(ctx context.Context, addr string) (err error) {
	s.l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	return err
}

// Addr gives the address.
func (s *Server) Addr() string { return s.l.Addr().String() }

// Serve answers clients, one after the other, until the context ends or listening fails. It stops listening then.
func (s *Server) Serve(ctx context.Context, x *verbs.Context) error {
	defer context.AfterFunc(ctx, func() { _ = s.l.Close() })() // closed twice at worst
	defer s.l.Close()
	for {
		c, err := s.l.Accept()
		if ctx.Err() != nil {
			if err != nil {
				return nil // it does not listen any more
			}
			return c.Close()
		}
		if err != nil {
			return err
		}
		a, err := serve(ctx, x, c, s.Spin)
		if ctx.Err() != nil {
			err = nil // the client is left because the server ends
		}
		s.Done(a, errors.Join(err, c.Close()))
	}
}

// serve answers one client until it closes its connection.
func serve(ctx context.Context, x *verbs.Context, c net.Conn, spin bool) (a Account, err error) {
	a.Client = c.RemoteAddr().String()
	e := &end{conn: c, x: x, spin: spin}
	defer func() { err = errors.Join(err, e.Close()) }()
	defer e.greeting(ctx)()
	h, err := e.hear()
	if err != nil {
		return a, err
	}
	a.Size = h.Size
	if err := e.open(h.Size); err != nil {
		return a, err
	}
	if err := e.connect(h); err != nil {
		return a, err
	}
	if err := e.tell(); err != nil {
		return a, err
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return a, err
	}
	ctx, stop := e.watch(ctx)
	defer stop()
	var some [slots]verbs.Completion
	for {
		k, err := e.completions(ctx, some[:])
		if errors.Is(err, errGone) {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		for i := range some[:k] {
			if err := e.echo(&some[i]); err != nil {
				return a, err
			}
			if some[i].Op == verbs.OpReceive {
				a.Messages++
			}
		}
	}
}

// echo sends a message back from where it came to, and gives the slot back when it has gone.
func (e *end) echo(c *verbs.Completion) error {
	if err := c.Err(); err != nil {
		return err
	}
	if c.Op != verbs.OpReceive {
		return e.room(int(c.ID))
	}
	_, err := e.qp.PostSend(verbs.Send{ID: c.ID, Segments: []verbs.Segment{e.mem.Segment(int(c.ID)*e.size, c.Bytes)}})
	return err
}
