package sockets

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// seconds is a number of them, as a duration that does not read as "the default".
func seconds(n int) time.Duration {
	if n <= 0 {
		return -1
	}
	return time.Duration(n) * time.Second
}

// name answers getsockname and getpeername.
func (r *run) name(n notification, fd int, peer bool) {
	var a netip.AddrPort
	var o options
	switch x := r.find(inode(n.pid, fd)).(type) {
	case *listening:
		if peer {
			r.ask.answer(n, unix.ENOTCONN)
			return
		}
		x.mu.Lock()
		a, o = addrPort(x.addr), x.o
		x.mu.Unlock()
	case *carried:
		x.mu.Lock()
		c := x.c
		o = x.o
		x.mu.Unlock()
		switch {
		case c == nil && peer:
			r.ask.answer(n, unix.ENOTCONN)
			return
		case c == nil:
		case peer:
			a = addrPort(c.RemoteAddr())
		default:
			a = addrPort(c.LocalAddr())
		}
	default:
		r.ask.pass(n.id)
		return
	}
	r.ask.answer(n, result(n.pid, n.args[1], n.args[2], sockaddr(o.family, a, uint32(r.s.Index())), true))
}

// socket is what options are set of.
func (r *run) socket(inode string) (o *options, c *carried, unlock func()) {
	switch x := r.find(inode).(type) {
	case *listening:
		x.mu.Lock()
		return &x.o, nil, x.mu.Unlock
	case *carried:
		x.mu.Lock()
		return &x.o, x, x.mu.Unlock
	}
	return nil, nil, nil
}

// setOption answers setsockopt. What a UNIX socket has as well the kernel sets: the buffers and timeouts are the pair's.
func (r *run) setOption(n notification, fd int) {
	which := inode(n.pid, fd)
	if d, ok := r.find(which).(*datagrams); ok {
		d.joins(n)
		r.ask.pass(n.id)
		return
	}
	o, c, unlock := r.socket(which)
	if o == nil {
		r.ask.pass(n.id)
		return
	}
	defer unlock()
	level, name := int(int32(n.args[1])), int(int32(n.args[2]))
	size := 4
	if level == unix.SOL_SOCKET && name == unix.SO_LINGER {
		size = unix.SizeofLinger
	}
	ours := level == unix.SOL_SOCKET && (name == unix.SO_LINGER || name == unix.SO_KEEPALIVE) || level == unix.IPPROTO_TCP
	if !ours {
		if level == unix.SOL_SOCKET {
			r.ask.pass(n.id)
		} else {
			r.ask.answer(n, unix.ENOPROTOOPT)
		}
		return
	}
	if int(int32(n.args[4])) < size {
		r.ask.answer(n, unix.EINVAL)
		return
	}
	b, err := read(n.pid, n.args[3], size)
	if err != nil {
		r.ask.answer(n, err)
		return
	}
	v := int(int32(binary.NativeEndian.Uint32(b)))
	switch {
	case level == unix.SOL_SOCKET && name == unix.SO_LINGER:
		o.reset = v != 0 && binary.NativeEndian.Uint32(b[4:]) == 0
	case level == unix.SOL_SOCKET:
		o.keep.Enable = v != 0
	case name == unix.TCP_NODELAY:
		o.noDelay = v != 0
	case name == unix.TCP_KEEPIDLE && v > 0:
		o.keep.Idle = seconds(v)
	case name == unix.TCP_KEEPINTVL && v > 0:
		o.keep.Interval = seconds(v)
	case name == unix.TCP_KEEPCNT && v > 0:
		o.keep.Count = v
	case name == unix.TCP_KEEPIDLE || name == unix.TCP_KEEPINTVL || name == unix.TCP_KEEPCNT:
		err = unix.EINVAL
	default:
		err = unix.ENOPROTOOPT
	}
	if err == nil && c != nil && c.c != nil {
		err = o.set(c.c)
	}
	r.ask.answer(n, err)
}

// getOption answers getsockopt.
func (r *run) getOption(n notification, fd int) {
	o, c, unlock := r.socket(inode(n.pid, fd))
	if o == nil {
		r.ask.pass(n.id)
		return
	}
	defer unlock()
	v := 0
	truth := func(b bool) int {
		if b {
			return 1
		}
		return 0
	}
	switch level, name := int(int32(n.args[1])), int(int32(n.args[2])); {
	case level == unix.SOL_SOCKET && name == unix.SO_ERROR && c != nil && c.err != nil:
		v = int(number(c.failed()))
	case level == unix.SOL_SOCKET && name == unix.SO_ERROR && c != nil && c.c == nil:
		v = 0 // connecting
	case level == unix.SOL_SOCKET && name == unix.SO_DOMAIN:
		v = o.family
	case level == unix.SOL_SOCKET && name == unix.SO_PROTOCOL:
		v = o.protocol
	case level == unix.SOL_SOCKET && name == unix.SO_ACCEPTCONN:
		v = truth(c == nil)
	case level == unix.SOL_SOCKET && name == unix.SO_KEEPALIVE:
		v = truth(o.keep.Enable)
	case level == unix.SOL_SOCKET:
		r.ask.pass(n.id)
		return
	case level == unix.IPPROTO_TCP && name == unix.TCP_NODELAY:
		v = truth(o.noDelay)
	case level == unix.IPPROTO_TCP && name == unix.TCP_KEEPIDLE:
		v = int(o.keep.Idle / time.Second)
	case level == unix.IPPROTO_TCP && name == unix.TCP_KEEPINTVL:
		v = int(o.keep.Interval / time.Second)
	case level == unix.IPPROTO_TCP && name == unix.TCP_KEEPCNT:
		v = o.keep.Count
	default:
		r.ask.answer(n, unix.ENOPROTOOPT)
		return
	}
	r.ask.answer(n, result(n.pid, n.args[3], n.args[4], binary.NativeEndian.AppendUint32(nil, uint32(v)), false))
}

// awaitClosed waits until the other end is closed.
func awaitClosed(ctx context.Context, c *net.UnixConn) {
	for !closedThere(c) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}
