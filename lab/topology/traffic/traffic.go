// Package traffic sends a known amount of real UDP and TCP from one namespace to another, through sockets of this process,
// and counts what arrived. Every call ends: with the last byte, with its context, or when nothing arrives any more.
package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"
)

// Place is where sockets are made: a namespace.
type Place interface{ Do(func() error) error }

// Flow is what to send. The zero Pause sends as fast as the receiver takes it.
type Flow struct {
	From, To Place
	Addr     netip.AddrPort // in To; port 0 takes a free one
	Messages int            // datagrams, or writes
	Size     int            // bytes of each, UDP's at least 8 for their number
	Pause    time.Duration  // between messages
}

// Count is what passed. Bytes are the application's, without headers.
type Count struct {
	Messages int
	Bytes    int64
}

// Result is what a flow did. Received.Messages of TCP is how many whole messages its bytes make.
type Result struct {
	Sent, Received Count
	Addr           netip.AddrPort // where it was sent to
	Took           time.Duration
}

const (
	// window is how many datagrams may be under way: few enough for the smallest socket buffer.
	window = 16
	// silence is how long nothing may arrive before what is missing is lost.
	silence = 2 * time.Second
	// seqLen is the length of a datagram's number.
	seqLen   = 8
	maxSize  = 65507
	tcpChunk = 64 << 10
)

// ErrLost says that datagrams did not arrive.
var ErrLost = errors.New("datagrams were lost")

// UDP sends datagrams, a few at a time so that no buffer overflows, and waits until all have arrived.
func UDP(ctx context.Context, f Flow) (r Result, err error) {
	if f.Size < seqLen || f.Size > maxSize || f.Messages < 0 {
		return r, fmt.Errorf("send UDP: %d datagrams of %d bytes: sizes are %d to %d", f.Messages, f.Size, seqLen, maxSize)
	}
	var srv net.PacketConn
	if err := f.To.Do(func() (err error) {
		srv, err = (&net.ListenConfig{}).ListenPacket(ctx, "udp", f.Addr.String())
		return err
	}); err != nil {
		return r, fmt.Errorf("send UDP: %w", err)
	}
	defer srv.Close()
	r.Addr = addrPort(srv.LocalAddr())
	cl, err := dial(ctx, f.From, "udp", r.Addr)
	if err != nil {
		return r, err
	}
	defer cl.Close()
	defer context.AfterFunc(ctx, func() { srv.Close(); cl.Close() })()

	start := time.Now()
	buf := make([]byte, maxSize)
	msg := make([]byte, f.Size)
	for r.Sent.Messages < f.Messages || r.Received.Messages < r.Sent.Messages {
		for r.Sent.Messages < f.Messages && r.Sent.Messages-r.Received.Messages < window {
			binary.BigEndian.PutUint64(msg, uint64(r.Sent.Messages))
			if _, err := cl.Write(msg); err != nil {
				return r, ended(ctx, "send UDP", err)
			}
			r.Sent.add(f.Size)
			if err := pause(ctx, f.Pause); err != nil {
				return r, err
			}
		}
		n, err := receive(srv, buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.Took = time.Since(start)
			return r, fmt.Errorf("send UDP: %w: %d of %d", ErrLost, r.Sent.Messages-r.Received.Messages, r.Sent.Messages)
		} else if err != nil {
			return r, ended(ctx, "receive UDP", err)
		}
		r.Received.add(n)
	}
	r.Took = time.Since(start)
	return r, nil
}

func receive(srv net.PacketConn, buf []byte) (int, error) {
	if err := srv.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	n, _, err := srv.ReadFrom(buf)
	return n, err
}

func (c *Count) add(n int) { c.Messages++; c.Bytes += int64(n) }

// TCP opens one connection, sends, and waits until the receiver has read to the end.
func TCP(ctx context.Context, f Flow) (r Result, err error) {
	if f.Size <= 0 || f.Messages < 0 {
		return r, fmt.Errorf("send TCP: %d writes of %d bytes", f.Messages, f.Size)
	}
	var srv net.Listener
	if err := f.To.Do(func() (err error) {
		srv, err = (&net.ListenConfig{}).Listen(ctx, "tcp", f.Addr.String())
		return err
	}); err != nil {
		return r, fmt.Errorf("send TCP: %w", err)
	}
	defer srv.Close()
	r.Addr = addrPort(srv.Addr())

	got := make(chan received, 1)
	go func() { got <- drain(ctx, srv) }()
	start := time.Now()
	err = f.write(ctx, &r)
	if err != nil {
		srv.Close() // no one will come
	}
	in := <-got
	r.Took = time.Since(start)
	r.Received = Count{Messages: int(in.bytes / int64(f.Size)), Bytes: in.bytes}
	return r, errors.Join(err, in.err)
}

// write is the sending side of TCP.
func (f Flow) write(ctx context.Context, r *Result) error {
	cl, err := dial(ctx, f.From, "tcp", r.Addr)
	if err != nil {
		return err
	}
	defer cl.Close()
	defer context.AfterFunc(ctx, func() { cl.SetDeadline(time.Unix(1, 0)) })()
	msg := make([]byte, f.Size)
	for r.Sent.Messages < f.Messages {
		if _, err := cl.Write(msg); err != nil {
			return ended(ctx, "send TCP", err)
		}
		r.Sent.add(f.Size)
		if err := pause(ctx, f.Pause); err != nil {
			return err
		}
	}
	return cl.Close()
}

type received struct {
	bytes int64
	err   error
}

// drain accepts one connection and reads it to its end.
func drain(ctx context.Context, srv net.Listener) (r received) {
	defer context.AfterFunc(ctx, func() { srv.Close() })()
	c, err := srv.Accept()
	if err != nil {
		return received{err: ended(ctx, "accept TCP", err)}
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	r.bytes, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, make([]byte, tcpChunk))
	if err != nil {
		r.err = ended(ctx, "receive TCP", err)
	}
	return r
}

func dial(ctx context.Context, from Place, network string, to netip.AddrPort) (c net.Conn, err error) {
	err = from.Do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, to.String())
		return err
	})
	if err != nil {
		return nil, ended(ctx, "connect", err)
	}
	return c, nil
}

// pause waits d, or less if the context ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ended prefers the context's error: it is why the socket was closed.
func ended(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("%s: %w", what, err)
}

func addrPort(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort()
	case *net.TCPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
