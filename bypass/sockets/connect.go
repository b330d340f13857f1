package sockets

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
)

// connect makes a connection past the kernel if it goes where it should.
func (r *run) connect(n notification, fd int) {
	if x := r.find(inode(n.pid, fd)); x != nil {
		if _, ok := x.(*datagrams); ok {
			r.ask.pass(n.id)
			return
		}
		c, ok := x.(*carried)
		if !ok {
			r.ask.answer(n, unix.EISCONN)
			return
		}
		r.ask.answer(n, c.again())
		return
	}
	f, to, ok := r.leaving(n, fd, n.args[1], uint64(uint32(n.args[2])))
	if !ok {
		return
	}
	defer unix.Close(f)
	if isUDP(f) {
		r.sendDatagrams(n, fd, f, to)
		return
	}
	if !isTCP(f) {
		r.stays(fmt.Sprintf("what goes to %v is neither TCP nor UDP", to))
		r.ask.pass(n.id)
		return
	}
	if isBound(f) {
		r.stays("a socket was bound before it connected")
		r.ask.pass(n.id)
		return
	}
	d, err := describe(n.pid, fd)
	if err == nil {
		if reason := fixed(n.pid, fd, d.inode); reason != "" {
			r.stays("a socket that connects: " + reason)
			r.ask.pass(n.id)
			return
		}
	}
	var o options
	if err == nil {
		o, err = optionsOf(f)
	}
	if err != nil {
		r.ask.answer(n, err)
		return
	}
	if d.nonblock {
		r.connectLater(n, fd, d, o, to)
		return
	}
	c, err := r.dialWatched(n, to, o)
	switch {
	case errors.Is(err, netstack.ErrElsewhere):
		r.stays(fmt.Sprintf("the route to %v is by another device", to.Addr()))
		r.ask.pass(n.id)
		return
	case err != nil:
		r.ask.answer(n, err)
		return
	}
	theirs, inode, mine, err := newPair(false)
	if err != nil {
		refuse(c)
		r.ask.answer(n, err)
		return
	}
	defer unix.Close(theirs)
	x := &carried{r: r, inode: inode, mine: mine, o: o, c: c, told: true}
	r.remember(inode, x)
	if err := r.ask.replace(n.id, theirs, fd, d.cloexec); err != nil {
		r.forget(inode)
		mine.Close()
		refuse(c)
		r.ask.answer(n, err)
		return
	}
	r.connected.Add(1)
	r.ask.answer(n, nil)
	x.carry()
}

// goesTo reads where a connection or a datagram is to go to, and says if that is past the kernel.
func (r *run) goesTo(pid uint32, at, size uint64) (to netip.AddrPort, ok bool) {
	if len(r.To) == 0 || at == 0 {
		return to, false
	}
	b, err := read(pid, at, int(min(size, unix.SizeofSockaddrInet6)))
	if err != nil {
		return to, false
	}
	to, ok = parseSockaddr(b)
	if !ok {
		return to, false
	}
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	for _, d := range r.To {
		if d.has(to) {
			return to, true
		}
	}
	return to, false
}

func isBound(fd int) bool {
	name, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch a := name.(type) {
	case *unix.SockaddrInet4:
		return a.Port != 0 || a.Addr != [4]byte{}
	case *unix.SockaddrInet6:
		return a.Port != 0 || a.Addr != [16]byte{}
	}
	return false
}

// dialWatched is dial for a call that waits, which a signal ends.
func (r *run) dialWatched(n notification, to netip.AddrPort, o options) (tuned, error) {
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	r.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(attention):
				if signalled(n.pid) {
					cancel(restart)
					return
				}
			}
		}
	})
	c, err := r.dial(ctx, to, o)
	if errors.Is(context.Cause(ctx), restart) && err != nil {
		err = restart
	}
	return c, err
}

func (r *run) dial(ctx context.Context, to netip.AddrPort, o options) (tuned, error) {
	c, err := r.s.DialContext(ctx, "tcp", to.String())
	if err != nil {
		var t net.Error
		if errors.Is(err, context.Canceled) || errors.As(err, &t) && t.Timeout() {
			err = errors.Join(unix.ETIMEDOUT, err)
		}
		return nil, err
	}
	t := c.(tuned)
	if err := o.set(t); err != nil {
		refuse(c)
		return nil, err
	}
	return t, nil
}

// connectLater answers EINPROGRESS. Until the connection is made the program's end is full, and so not writable, as a socket is that
// connects.
func (r *run) connectLater(n notification, fd int, d descriptor, o options, to netip.AddrPort) {
	if err := r.s.Leads(to.Addr()); errors.Is(err, netstack.ErrElsewhere) {
		r.stays(fmt.Sprintf("the route to %v is by another device", to.Addr()))
		r.ask.pass(n.id)
		return
	} else if err != nil {
		r.ask.answer(n, err)
		return
	}
	theirs, inode, mine, err := newPair(true)
	if err != nil {
		r.ask.answer(n, err)
		return
	}
	f, err := fill(theirs)
	x := &carried{r: r, inode: inode, mine: mine, o: o}
	if err == nil {
		r.remember(inode, x)
		if err = r.ask.replace(n.id, theirs, fd, d.cloexec); err != nil {
			r.forget(inode)
		}
	}
	if err != nil {
		unix.Close(theirs)
		mine.Close()
		r.ask.answer(n, err)
		return
	}
	r.ask.answer(n, unix.EINPROGRESS)
	c, err := r.dial(r.ctx, to, o)
	x.mu.Lock()
	if err == nil {
		x.c = c
		err = x.o.set(c) // they may have changed
	}
	x.err = err
	x.mu.Unlock()
	err = errors.Join(err, f.empty(theirs, mine))
	unix.Close(theirs)
	if err != nil {
		if c != nil {
			refuse(c)
		}
		x.fail()
		return
	}
	r.connected.Add(1)
	x.carry()
}

// fail ends a connection that was not made: the program's end is ready for everything, as a socket with an error is, and calls that ask are
// told which.
func (c *carried) fail() {
	_ = c.mine.CloseWrite()
	c.r.wg.Go(func() {
		awaitClosed(c.r.ctx, c.mine)
		c.mine.Close()
		c.r.forget(c.inode)
	})
}

// again answers connect on a socket that connects or has.
func (c *carried) again() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.failed()
	case c.c == nil:
		return unix.EALREADY
	case c.told:
		return unix.EISCONN
	}
	c.told = true
	return nil
}

// failed gives why a connection was not made, once; then what the kernel says to who goes on asking. c.mu is held.
func (c *carried) failed() error {
	err := c.err
	c.err = unix.ECONNABORTED
	return err
}

// filled is what a socket is like that was made unwritable.
type filled struct {
	n    int // bytes
	room int // its SO_SNDBUF before
}

// fill makes a socket unwritable.
func fill(fd int) (f filled, err error) {
	if f.room, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil {
		return f, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 0); err != nil { // the least there is
		return f, err
	}
	b := make([]byte, 4096)
	for {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EAGAIN) {
			return f, nil
		}
		if err != nil {
			return f, err
		}
		f.n += n
	}
}

// empty undoes it: what fills it is read at the other end.
func (f filled) empty(fd int, other *net.UnixConn) error {
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, f.room/2) // the kernel doubles it; the limit is that of the default
	b := make([]byte, 4096)
	for left := f.n; left > 0; {
		n, err := other.Read(b[:min(left, len(b))])
		if err != nil {
			return err
		}
		left -= n
	}
	return nil
}

// leaving gives a socket of the program that is to speak to an address which goes past the kernel, and that address; the descriptor is the
// caller's. Else the kernel has been told to go on.
func (r *run) leaving(n notification, fd int, at, size uint64) (f int, to netip.AddrPort, ok bool) {
	if to, ok = r.goesTo(n.pid, at, size); ok {
		var err error
		f, err = borrow(n.pid, fd)
		ok = err == nil
	}
	if !ok {
		r.ask.pass(n.id)
	}
	return f, to, ok
}
