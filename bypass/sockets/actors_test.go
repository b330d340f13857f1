package sockets_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// actors are the programs that run under the filter. None of them knows.
var actors = map[string]func(in io.Reader, out io.Writer) error{
	"http": func(in io.Reader, out io.Writer) error {
		l, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "listens at", l.Addr())
		go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "at %v from %s", r.Context().Value(http.LocalAddrContextKey), r.RemoteAddr)
		}))
		_, err = io.ReadAll(in)
		return err
	},
	"echo": func(in io.Reader, out io.Writer) error {
		l, err := net.Listen("tcp4", ":"+port)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "listens at", l.Addr())
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if _, err := io.Copy(c, c); err != nil {
			return err
		}
		return c.Close()
	},
	"dial": func(in io.Reader, out io.Writer) error {
		for s := bufio.NewScanner(in); s.Scan(); {
			c, err := net.Dial("tcp", s.Text())
			var no syscall.Errno
			if errors.As(err, &no) {
				fmt.Fprintln(out, no)
				continue
			}
			if err != nil {
				return err
			}
			fmt.Fprintln(out, "connected to", c.RemoteAddr(), "from", c.LocalAddr())
			fmt.Fprint(c, "hello")
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				return err
			}
			fmt.Fprintln(out, "sent")
			b, err := io.ReadAll(c)
			if err != nil {
				return err
			}
			fmt.Fprintf(out, "got %s\n", b)
			c.Close()
		}
		return nil
	},
	"bare":  bare,
	"stays": stays,
	"fails": func(io.Reader, io.Writer) error { return errors.New("as it should") },
	"sleeps": func(_ io.Reader, out io.Writer) error {
		fmt.Fprintln(out, "runs")
		time.Sleep(time.Hour)
		return nil
	},
}

// must ends the actor where something is not as the kernel would have it.
func must(ok bool, format string, args ...any) {
	if !ok {
		fmt.Printf("failed: "+format+"\n", args...)
		os.Exit(1)
	}
}

func option(fd, level, name, want int) {
	v, err := unix.GetsockoptInt(fd, level, name)
	must(err == nil && v == want, "option %d of level %d is %d, %v; want %d", name, level, v, err, want)
}

var at8080 = &unix.SockaddrInet4{Port: 8080}

func listener() int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err == nil, "socket: %v", err)
	must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) == nil, "SO_REUSEADDR")
	err = unix.Bind(fd, at8080)
	must(err == nil, "bind: %v", err)
	err = unix.Listen(fd, 10)
	must(err == nil, "listen: %v", err)
	return fd
}

func accept(l, flags int) (int, unix.Sockaddr, error) {
	for {
		fd, from, err := unix.Accept4(l, flags)
		if !errors.Is(err, unix.EINTR) {
			return fd, from, err
		}
	}
}

func text(a unix.Sockaddr) string {
	v4, ok := a.(*unix.SockaddrInet4)
	must(ok, "an address of IPv4, not %T", a)
	return fmt.Sprintf("%s:%d", net.IP(v4.Addr[:]), v4.Port)
}

// poll gives the events of a descriptor.
func poll(fd int, events int16, timeout int) int16 {
	p := []unix.PollFd{{Fd: int32(fd), Events: events}}
	for {
		if _, err := unix.Poll(p, timeout); !errors.Is(err, unix.EINTR) {
			return p[0].Revents
		}
	}
}

func readAll(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func bare(_ io.Reader, out io.Writer) error {
	l := listener()
	option(l, unix.SOL_SOCKET, unix.SO_DOMAIN, unix.AF_INET)
	option(l, unix.SOL_SOCKET, unix.SO_PROTOCOL, unix.IPPROTO_TCP)
	option(l, unix.SOL_SOCKET, unix.SO_TYPE, unix.SOCK_STREAM)
	option(l, unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 1)
	name, err := unix.Getsockname(l)
	must(err == nil && text(name) == "0.0.0.0:8080", "the listener is at %v, %v", name, err)
	_, err = unix.Getpeername(l)
	must(errors.Is(err, unix.ENOTCONN), "the listener's peer: %v", err)
	must(poll(l, unix.POLLIN, 0) == 0, "the listener is readable")
	must(unix.Listen(l, 5) == nil, "listen, again")
	runtime.LockOSThread()
	tid := unix.Gettid()
	go func() { // signals, whose handlers have SA_RESTART, do not end what waits
		for range 5 {
			unix.Tgkill(os.Getpid(), tid, unix.SIGURG)
			time.Sleep(10 * time.Millisecond)
		}
	}()
	fmt.Fprintln(out, "listens")

	c, from, err := unix.Accept4(l, unix.SOCK_CLOEXEC) // it waits
	must(err == nil, "accept: %v", err)
	fmt.Fprintln(out, "accepted from", text(from))
	flags, err := unix.FcntlInt(uintptr(c), unix.F_GETFD, 0)
	must(err == nil && flags == unix.FD_CLOEXEC, "accept4's flags: %x, %v", flags, err)
	name, err = unix.Getsockname(c)
	must(err == nil && text(name) == "10.77.0.1:8080", "the connection is at %v, %v", name, err)
	name, err = unix.Getpeername(c)
	must(err == nil && text(name) == text(from), "the connection's peer is %v, %v", name, err)
	option(c, unix.SOL_SOCKET, unix.SO_ACCEPTCONN, 0)
	option(c, unix.SOL_SOCKET, unix.SO_ERROR, 0)
	for _, o := range [][3]int{{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1}, {unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 77}} {
		must(unix.SetsockoptInt(c, o[0], o[1], o[2]) == nil, "set option %d", o[1])
		option(c, o[0], o[1], o[2])
	}
	err = unix.SetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, -1)
	must(errors.Is(err, unix.EINVAL), "TCP_KEEPCNT of -1: %v", err)
	_, err = unix.GetsockoptInt(c, unix.IPPROTO_TCP, unix.TCP_FASTOPEN)
	must(errors.Is(err, unix.ENOPROTOOPT), "an option that is not there: %v", err)
	_, err = unix.Write(c, []byte("hi"))
	must(err == nil, "write: %v", err)

	must(unix.SetNonblock(l, true) == nil, "SetNonblock")
	_, _, err = accept(l, 0)
	must(errors.Is(err, unix.EAGAIN), "accept where nothing waits: %v", err)
	fmt.Fprintln(out, "nothing waits")
	must(poll(l, unix.POLLIN, 60000) == unix.POLLIN, "the listener does not become readable")
	second, _, err := accept(l, unix.SOCK_NONBLOCK)
	must(err == nil, "accept: %v", err)
	must(poll(l, unix.POLLIN, 0) == 0, "the listener is readable after the last was accepted")
	fmt.Fprintln(out, "the second is there")
	must(poll(second, unix.POLLIN, 60000)&unix.POLLIN != 0, "the end is not told")
	n, err := readAll(second, make([]byte, 1))
	must(n == 0 && err == nil, "the end is %d, %v", n, err)
	unix.Close(second)

	connects(out)

	unix.Close(l)
	l = listener() // connections of the one before are there yet
	fmt.Fprintln(out, "closed and listens again")
	third, _, err := accept(l, 0)
	must(err == nil, "accept: %v", err)
	fmt.Fprintln(out, "accepted again")
	n, err = readAll(third, make([]byte, 2)) // who dials has seen the connection
	must(n == 2 && err == nil, "read %d, %v", n, err)
	must(unix.SetsockoptLinger(third, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) == nil, "SO_LINGER")
	unix.Close(third)

	n, err = readAll(c, make([]byte, 1))
	must(n <= 0 && err != nil, "read %d of what was reset", n)
	fmt.Fprintln(out, err)
	return nil
}

// connects connects, waiting and not.
func connects(out io.Writer) {
	peer := &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{10, 77, 0, 2}}
	fd, _ := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	must(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) == nil, "TCP_NODELAY")
	err := unix.Connect(fd, peer)
	must(err == nil, "connect: %v", err)
	option(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	err = unix.Connect(fd, peer)
	must(errors.Is(err, unix.EISCONN), "connect, again: %v", err)
	name, err := unix.Getpeername(fd)
	must(err == nil && text(name) == "10.77.0.2:8080", "the peer is %v, %v", name, err)
	unix.Close(fd)
	fmt.Fprintln(out, "connected")

	fd, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
	err = unix.Connect(fd, peer)
	must(errors.Is(err, unix.EINPROGRESS), "connect that does not wait: %v", err)
	must(poll(fd, unix.POLLOUT, 60000) == unix.POLLOUT, "it does not become writable")
	option(fd, unix.SOL_SOCKET, unix.SO_ERROR, 0)
	name, err = unix.Getpeername(fd)
	must(err == nil && text(name) == "10.77.0.2:8080", "the peer is %v, %v", name, err)
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	must(err == nil && flags&unix.O_NONBLOCK != 0, "it waits now: %x, %v", flags, err)
	unix.Close(fd)
	fmt.Fprintln(out, "connected later")
}

// stays does what is not carried.
func stays(_ io.Reader, out io.Writer) error {
	u, err := net.ListenPacket("udp4", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	u.Close()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ours)}}
	c, err := d.Dial("tcp", theirs+":"+port)
	if err != nil {
		return err
	}
	c.Close()
	both, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	must(err == nil, "socket: %v", err)
	_, err = unix.Dup(both)
	must(err == nil && unix.Connect(both, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{10, 77, 0, 2}}) == nil, "dup, connect: %v", err)
	set, err := unix.EpollCreate1(0)
	must(err == nil, "epoll_create1: %v", err)
	for _, duplicate := range []bool{false, true} {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		must(err == nil, "socket: %v", err)
		if duplicate {
			_, err = unix.Dup(fd)
		} else {
			err = unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN})
		}
		must(err == nil, "dup, epoll_ctl: %v", err)
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{10, 77, 0, 2}})
		must(err == nil, "connect: %v", err)
		option(fd, unix.SOL_SOCKET, unix.SO_DOMAIN, unix.AF_INET)
	}
	k, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	must(err == nil && unix.Bind(k, at8080) == nil, "bind: %v", err)
	_, err = unix.Dup(k)
	must(err == nil && unix.Listen(k, 1) == nil, "listen: %v", err)
	flags, err := unix.FcntlInt(uintptr(k), unix.F_GETFL, 0)
	must(err == nil && flags&unix.O_NONBLOCK == 0, "the kernel's socket does not wait now: %x, %v", flags, err)
	l, err := net.Listen("tcp", ours+":0") // no port of ours: nothing is said
	if err != nil {
		return err
	}
	l.Close()
	fmt.Fprintln(out, "done")
	return nil
}
