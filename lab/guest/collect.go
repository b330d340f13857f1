package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fathom-trace/fathom/lab/guest/pid1"
)

// What is kept of a guest's output; a guest that writes without end must not fill the host's memory.
const (
	maxStream = 64 << 20 // of a command's stdout or stderr
	maxFiles  = 1 << 30  // of all collected files together
	maxLog    = 1000     // lines
)

// collector turns the frames of a guest into a Result.
type collector struct {
	opts    *Options
	hello   func()       // called at the greeting
	end     func()       // called when the job is done
	last    atomic.Int64 // time of the last frame, Unix ns
	helloAt time.Time
	done    bool

	greeting pid1.Greeting
	log      []string
	out      map[uint16]*[2]bytes.Buffer
	ended    []CommandResult
	files    map[string][]byte
	file     string
	size     int
}

func newCollector(o *Options, hello, end func()) *collector {
	return &collector{opts: o, hello: hello, end: end, out: map[uint16]*[2]bytes.Buffer{}, files: map[string][]byte{}}
}

// read takes frames until the stream ends, however it ends: that the guest broke off is said by done.
func (c *collector) read(r io.Reader) error {
	fr := pid1.NewFrameReader(bufio.NewReaderSize(r, 64<<10))
	for {
		f, err := fr.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return err
		}
		c.last.Store(time.Now().UnixNano())
		if err := c.take(f); err != nil {
			return err
		}
	}
}

func (c *collector) take(f pid1.Frame) error {
	if f.Cmd >= pid1.FirstSession {
		if c.opts.OnSession != nil {
			c.opts.OnSession(f)
		}
		return nil
	}
	switch f.Kind {
	case pid1.Hello:
		if c.helloAt.IsZero() {
			c.helloAt = time.Now()
			c.hello()
		}
		return json.Unmarshal(f.Data, &c.greeting)
	case pid1.Log:
		if len(c.log) < maxLog {
			c.log = append(c.log, string(f.Data))
		}
	case pid1.Start:
		c.streams(f.Cmd)
	case pid1.Stdout:
		c.stream(f, 0, c.opts.Stdout)
	case pid1.Stderr:
		c.stream(f, 1, c.opts.Stderr)
	case pid1.Exit:
		return c.exit(f)
	case pid1.File:
		var h pid1.FileHead
		if err := json.Unmarshal(f.Data, &h); err != nil {
			return err
		}
		c.file = h.Name
		c.files[c.file] = []byte{}
	case pid1.Data:
		if c.size += len(f.Data); c.size > maxFiles {
			return fmt.Errorf("collected files are over %d bytes", maxFiles)
		}
		c.files[c.file] = append(c.files[c.file], f.Data...)
	case pid1.Done:
		if !c.done {
			c.done = true
			c.end()
		}
	}
	return nil
}

// streams are a command's stdout and stderr; nil if there is no such command.
func (c *collector) streams(cmd uint16) *[2]bytes.Buffer {
	if c.out[cmd] == nil && int(cmd) < len(c.opts.Commands) {
		c.out[cmd] = new([2]bytes.Buffer)
	}
	return c.out[cmd]
}

func (c *collector) stream(f pid1.Frame, n int, tee io.Writer) {
	out := c.streams(f.Cmd)
	if out == nil {
		return
	}
	b := &out[n]
	b.Write(f.Data[:min(len(f.Data), maxStream-b.Len())])
	if tee != nil {
		tee.Write(f.Data)
	}
}

func (c *collector) exit(f pid1.Frame) error {
	var e pid1.Exited
	if err := json.Unmarshal(f.Data, &e); err != nil {
		return err
	}
	if int(f.Cmd) != len(c.ended) || len(c.ended) >= len(c.opts.Commands) {
		return fmt.Errorf("guest: exit of command %d, want %d", f.Cmd, len(c.ended))
	}
	c.ended = append(c.ended, CommandResult{Code: e.Code, Signal: e.Signal, Took: time.Duration(e.Secs * 1e9)})
	return nil
}

// result is what came so far. A command that did not end has what it wrote, and Code -1.
func (c *collector) result() Result {
	r := Result{Commands: c.ended, Files: c.files, Log: append(slices.Clone(c.opts.notes), c.log...), Release: c.greeting.Release}
	if c.out[uint16(len(r.Commands))] != nil {
		r.Commands = append(r.Commands, CommandResult{Code: -1})
	}
	for i := range r.Commands {
		if o := c.out[uint16(i)]; o != nil {
			r.Commands[i].Stdout, r.Commands[i].Stderr = o[0].String(), o[1].String()
		}
	}
	return r
}
