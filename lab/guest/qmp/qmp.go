// Package qmp speaks the QEMU Machine Protocol (docs/interop/qmp-spec.rst): JSON objects, one a line, both ways.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// maxLine bounds one message; the largest QEMU sends (query-qmp-schema) has 300 KB.
const maxLine = 16 << 20

// ErrClosed is the answer to commands after the connection ended.
var ErrClosed = errors.New("qmp connection closed")

// Error is a command that QEMU refused.
type Error struct{ Command, Class, Desc string }

// Error gives the command and QEMU's own words.
func (e *Error) Error() string { return fmt.Sprintf("qmp %s: %s (%s)", e.Command, e.Desc, e.Class) }

// Event is something that happened in the machine: SHUTDOWN, GUEST_PANICKED, DUMP_COMPLETED…
type Event struct {
	Name string
	Data json.RawMessage
	Time time.Time // by QEMU's clock
}

// Client is one connection. Its methods may be called from several goroutines.
type Client struct {
	rw     io.ReadWriteCloser
	events chan Event
	done   chan struct{} // closed when the reader ends

	mu      sync.Mutex // guards what follows, and writes
	next    uint64
	waiting map[uint64]chan reply
	lost    int
	err     error // why the reader ended
}

type reply struct {
	ret json.RawMessage
	err error
}

// message is anything QEMU sends.
type message struct {
	QMP    json.RawMessage `json:"QMP"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// New takes a connected stream, waits for the greeting and enters command mode. The Client owns rw from here on, also
// when New fails.
func New(ctx context.Context, rw io.ReadWriteCloser) (*Client, error) {
	c := &Client{rw: rw, events: make(chan Event, 64), done: make(chan struct{}), waiting: map[uint64]chan reply{}}
	greeted := make(chan struct{})
	go c.read(greeted)
	select {
	case <-greeted:
	case <-c.done:
		rw.Close()
		return nil, fmt.Errorf("qmp greeting: %w", c.ended())
	case <-ctx.Done():
		rw.Close()
		return nil, fmt.Errorf("qmp greeting: %w", context.Cause(ctx))
	}
	if _, err := c.Execute(ctx, "qmp_capabilities", nil); err != nil {
		rw.Close()
		return nil, err
	}
	return c, nil
}

// Execute runs a command and returns what QEMU returned. args is marshalled to a JSON object; nil means none.
func (c *Client) Execute(ctx context.Context, cmd string, args any) (json.RawMessage, error) {
	ch := make(chan reply, 1)
	id, err := c.send(cmd, args, ch)
	if err != nil {
		return nil, fmt.Errorf("qmp %s: %w", cmd, err)
	}
	defer c.forget(id)
	select {
	case r := <-ch:
		var refused *Error
		if errors.As(r.err, &refused) {
			refused.Command = cmd
		}
		return r.ret, r.err
	case <-c.done:
		select { // the answer may have come just before the end
		case r := <-ch:
			return r.ret, r.err
		default:
			return nil, fmt.Errorf("qmp %s: %w", cmd, c.ended())
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("qmp %s: %w", cmd, context.Cause(ctx))
	}
}

// Events are the machine's events in order; closed when the connection ends. A slow reader loses events: see [Client.Lost].
func (c *Client) Events() <-chan Event { return c.events }

// Lost is how many events were dropped because nobody read them.
func (c *Client) Lost() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

// Close ends the connection and waits for its reader.
func (c *Client) Close() error {
	err := c.rw.Close()
	<-c.done
	return err
}

func (c *Client) send(cmd string, args any, ch chan reply) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.next++
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{cmd, args, c.next})
	if err != nil {
		return 0, err
	}
	if _, err := c.rw.Write(append(b, '\n')); err != nil {
		return 0, err
	}
	c.waiting[c.next] = ch
	return c.next, nil
}

func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}

func (c *Client) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *Client) read(greeted chan struct{}) {
	defer close(c.done)
	defer close(c.events)
	sc := bufio.NewScanner(c.rw)
	sc.Buffer(make([]byte, 0, 4096), maxLine)
	err := ErrClosed
	for sc.Scan() {
		var m message
		if jerr := json.Unmarshal(sc.Bytes(), &m); jerr != nil {
			err = fmt.Errorf("bad message %.80q: %w", sc.Text(), jerr)
			break
		}
		if m.QMP != nil && greeted != nil {
			close(greeted)
			greeted = nil
		}
		c.dispatch(m)
	}
	if serr := sc.Err(); serr != nil && errors.Is(err, ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrClosed, serr)
	}
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
}

func (c *Client) dispatch(m message) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.Event != "" {
		t := time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000)
		select {
		case c.events <- Event{m.Event, m.Data, t}:
		default:
			c.lost++
		}
	}
	if m.ID == nil || c.waiting[*m.ID] == nil {
		return
	}
	r := reply{ret: m.Return}
	if m.Error != nil {
		r.err = &Error{Class: m.Error.Class, Desc: m.Error.Desc}
	}
	c.waiting[*m.ID] <- r
	delete(c.waiting, *m.ID)
}
