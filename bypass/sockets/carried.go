package sockets

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// carried is a connection that the program has one end of a pair for.
type carried struct {
	r     *run
	inode string        // the program's end
	mine  *net.UnixConn // our end

	mu   sync.Mutex // what follows
	o    options
	c    tuned // nil until it is connected
	err  error // why it is not, to be told once
	told bool  // that it is connected
}

// chunk is how much is carried at a time.
const chunk = 64 << 10

var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// carry moves bytes both ways until both are at their end, in goroutines of its own.
func (c *carried) carry() {
	ended := make(chan struct{})
	c.r.wg.Go(func() {
		defer close(ended)
		c.up()
	})
	c.r.wg.Go(func() {
		reset := c.down()
		if reset {
			c.mine.SetReadDeadline(time.Unix(1, 0)) // up is to take nothing more
			c.c.Close()
			<-ended
			c.resetTheirs()
		}
		<-ended
		c.c.Close()
		c.mine.Close()
		c.r.forget(c.inode)
	})
}

// up carries what the program writes.
func (c *carried) up() {
	err := pump(c.c, c.mine, &c.r.sent)
	switch {
	case err == nil && !closedThere(c.mine): // only for writing
		c.c.CloseWrite()
	case err == nil:
		c.deliver()
		c.c.Close()
	case errors.Is(err, unix.ECONNRESET): // closed with something unread
		c.c.SetLinger(0)
		c.c.Close()
	case errors.Is(err, os.ErrDeadlineExceeded): // down ends it
	default:
		c.c.Close()
	}
}

// How long what the program wrote before it closed may take to be delivered: as the kernel's net.ipv4.tcp_fin_timeout, and after the program
// has ended, when it is waited for.
const (
	orphan     = time.Minute
	afterwards = 5 * time.Second
)

// deliver ends what is written and waits until it has arrived, but for a connection that is to be reset.
func (c *carried) deliver() {
	c.mu.Lock()
	reset := c.o.reset
	c.mu.Unlock()
	if reset {
		return
	}
	c.c.CloseWrite()
	until, ended := time.Now().Add(orphan), c.r.ctx.Done()
	for tick := time.Millisecond; !c.c.Delivered() && time.Now().Before(until); tick = min(2*tick, 50*time.Millisecond) {
		select {
		case <-ended:
			until, ended = time.Now().Add(afterwards), nil
		case <-time.After(tick):
		}
	}
}

// down carries what comes for the program, and says if the connection was reset.
func (c *carried) down() (reset bool) {
	err := pump(c.mine, c.c, &c.r.received)
	switch {
	case err == nil:
		c.mine.CloseWrite()
	case errors.Is(err, unix.EPIPE) || errors.Is(err, net.ErrClosed): // the program does not read any more
		if closedThere(c.mine) {
			c.c.SetLinger(0)
			c.c.Close()
		} else {
			c.c.CloseRead()
		}
	default:
		return true
	}
	return false
}

// pump copies until the end of what is read, which is no error.
func pump(to io.Writer, from io.Reader, count *atomic.Uint64) error {
	b := chunks.Get().(*[chunk]byte)
	defer chunks.Put(b)
	for {
		n, err := from.Read(b[:])
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return err
			}
			count.Add(uint64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// resetTheirs has the program's end fail with ECONNRESET, as a UNIX socket does whose other end is closed with something unread. The
// program's end must write that, and only the program has it; so it is looked for. If nobody has it nobody can tell.
func (c *carried) resetTheirs() {
	c.r.scan.Lock()
	defer c.r.scan.Unlock()
	dirs, _ := filepath.Glob("/proc/[0-9]*/fd")
	for _, dir := range dirs {
		ents, _ := os.ReadDir(dir)
		for _, e := range ents {
			if s, err := os.Readlink(filepath.Join(dir, e.Name())); err != nil || s != c.inode {
				continue
			}
			pid, err1 := strconv.ParseUint(filepath.Base(filepath.Dir(dir)), 10, 32)
			fd, err2 := strconv.Atoi(e.Name())
			if err1 != nil || err2 != nil || int(pid) == os.Getpid() {
				continue
			}
			f, err := borrow(uint32(pid), fd)
			if err != nil {
				continue
			}
			err = send(f, []byte{0})
			unix.Close(f)
			if err == nil {
				return
			}
		}
	}
}
