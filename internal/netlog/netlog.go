// Package netlog carries what kernels say over sockets: it receives netconsole's packets and sends messages to syslog.
package netlog

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/fathom-trace/fathom/oops"
)

// Quiet is how long after a sender's last packet what it sent is taken for whole.
const Quiet = 2 * time.Second

// Bounds of what is kept of senders that say much, or of many.
const (
	maxText    = 1 << 20
	maxSenders = 4096
)

// Heard is what one machine sent.
type Heard struct {
	Host string // its address
	Text []byte
	Lost int // messages that did not come
}

// sender is a machine that sends.
type sender struct {
	oops.Netconsole
	text []byte
	seen time.Time
}

// Listener receives.
type Listener struct {
	c       net.PacketConn
	senders map[string]*sender
}

// Listen opens a UDP port: "host:port", or the port alone.
func Listen(addr string) (*Listener, error) {
	if !strings.Contains(addr, ":") {
		addr = ":" + addr
	}
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return nil, err
	}
	return &Listener{c, map[string]*sender{}}, nil
}

// Addr is where it listens.
func (l *Listener) Addr() string { return l.c.LocalAddr().String() }

// Close ends it.
func (l *Listener) Close() error { return l.c.Close() }

// Receive calls each with what a machine sent, once it has been quiet for a while, and with what all sent at the end, which is
// when ctx ends. An error of each ends it, too.
func (l *Listener) Receive(ctx context.Context, each func(Heard) error) error {
	buf := make([]byte, 64<<10)
	for {
		now := time.Now()
		if err := l.flush(now, ctx.Err() != nil, each); err != nil || ctx.Err() != nil {
			return err
		}
		if err := l.c.SetReadDeadline(now.Add(Quiet / 4)); err != nil {
			return err
		}
		n, from, err := l.c.ReadFrom(buf)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			continue
		case err != nil:
			return err
		}
		host, _, _ := net.SplitHostPort(from.String())
		s := l.senders[host]
		if s == nil && len(l.senders) >= maxSenders {
			continue
		}
		if s == nil {
			s = &sender{}
			l.senders[host] = s
		}
		s.text, s.seen = append(s.text, s.Add(buf[:n])...), now
	}
}

// flush hands on what is whole, by host.
func (l *Listener) flush(now time.Time, end bool, each func(Heard) error) error {
	var hosts []string
	for h := range l.senders {
		hosts = append(hosts, h)
	}
	slices.Sort(hosts)
	for _, h := range hosts {
		s := l.senders[h]
		if !end && now.Sub(s.seen) < Quiet && len(s.text) < maxText {
			continue
		}
		if len(s.text) > 0 || s.Lost > 0 {
			if err := each(Heard{h, s.text, s.Lost}); err != nil {
				return err
			}
		}
		s.text, s.Lost = nil, 0
		if now.Sub(s.seen) > time.Hour {
			delete(l.senders, h)
		}
	}
	return nil
}

// Send sends messages to a syslog daemon: to a socket such as /dev/log, or to HOST:PORT by UDP.
func Send(addr string, messages [][]byte) error {
	network := "udp"
	if strings.HasPrefix(addr, "/") {
		network = "unixgram"
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, m := range messages {
		if _, err := c.Write(m); err != nil {
			return fmt.Errorf("send %d bytes: %w", len(m), err)
		}
	}
	return nil
}
