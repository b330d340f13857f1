package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// newPair makes the two ends that stand for a socket: theirs, a descriptor of which inode is the name, for the program, and ours.
func newPair(nonblock bool) (theirs int, inode string, mine *net.UnixConn, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, "", nil, os.NewSyscallError("socketpair", err)
	}
	var st unix.Stat_t
	err = errors.Join(unix.Fstat(p[0], &st), unix.SetNonblock(p[0], nonblock))
	our := os.NewFile(uintptr(p[1]), "ours")
	defer our.Close()
	c, cerr := net.FileConn(our)
	if err = errors.Join(err, cerr); err != nil {
		unix.Close(p[0])
		if c != nil {
			c.Close()
		}
		return -1, "", nil, err
	}
	return p[0], fmt.Sprintf("socket:[%d]", st.Ino), c.(*net.UnixConn), nil
}

// duplicate is a descriptor as a file.
func duplicate(fd int) (*os.File, error) {
	d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(d), "socket"), nil
}

// send writes at once or not at all.
func send(fd int, b []byte) error {
	return unix.Send(fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// control runs f with the descriptor of a socket.
func control(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	err = raw.Control(func(fd uintptr) { ferr = f(int(fd)) })
	return errors.Join(err, ferr)
}

// closedThere says if the other end of a socket of ours is closed, not only for sending.
func closedThere(c *net.UnixConn) bool {
	var p [1]unix.PollFd
	err := control(c, func(fd int) error {
		p[0].Fd = int32(fd)
		_, err := unix.Poll(p[:], 0)
		return err
	})
	return err != nil || p[0].Revents&unix.POLLHUP != 0
}

// options are what a TCP socket was told before it was replaced, and is asked for after.
type options struct {
	family   int
	noDelay  bool
	reset    bool // SO_LINGER of 0 seconds: Close resets
	keep     net.KeepAliveConfig
	protocol int
}

// optionsOf reads them from the socket that will be replaced.
func optionsOf(fd int) (o options, err error) {
	get := func(level, name int) int {
		v, gerr := unix.GetsockoptInt(fd, level, name)
		err = errors.Join(err, os.NewSyscallError("getsockopt", gerr))
		return v
	}
	o.family, o.protocol = get(unix.SOL_SOCKET, unix.SO_DOMAIN), get(unix.SOL_SOCKET, unix.SO_PROTOCOL)
	o.noDelay = get(unix.IPPROTO_TCP, unix.TCP_NODELAY) != 0
	o.keep.Enable = get(unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0
	o.keep.Idle = seconds(get(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE))
	o.keep.Interval = seconds(get(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL))
	o.keep.Count = get(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
	l, lerr := unix.GetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER)
	if err = errors.Join(err, os.NewSyscallError("getsockopt", lerr)); err == nil {
		o.reset = l.Onoff != 0 && l.Linger == 0
	}
	return o, err
}

// tuned is what package netstack's connections can beyond net.Conn.
type tuned interface {
	net.Conn
	CloseRead() error
	CloseWrite() error
	SetNoDelay(bool) error
	SetLinger(sec int) error
	SetKeepAliveConfig(net.KeepAliveConfig) error
	Delivered() bool
}

// set gives a connection the options that its socket has.
func (o options) set(c tuned) error {
	linger := -1
	if o.reset {
		linger = 0
	}
	return errors.Join(c.SetNoDelay(o.noDelay), c.SetLinger(linger), c.SetKeepAliveConfig(o.keep))
}

// isTCP says if a socket is one of TCP's streams over IPv4 or IPv6, MPTCP's among them.
func isTCP(fd int) bool {
	family, err1 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	proto, err2 := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	return err1 == nil && err2 == nil && (family == unix.AF_INET || family == unix.AF_INET6) && (proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_MPTCP)
}
