package fault

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/lab/topology/traffic"
)

// gap is between packets that the receiver answers, so that no limit on answers (icmp_ratelimit) changes what happens.
const gap = 20 * time.Millisecond

// inside is a function that sends in a role's namespace.
func (s *Scene) inside(role string, f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		return s.ns[role].Do(func() error { return f(ctx) })
	}
}

// datagrams are UDP datagrams through the stack.
type datagrams struct {
	to    netip.AddrPort
	from  netip.Addr // invalid: the kernel's choice
	count int
	size  int
	ttl   int
	df    bool          // never fragmented
	pause time.Duration // between them
	gso   int           // one call of size bytes leaves as so large packets
}

// datagrams sets what is sent to datagrams from a role. Addresses they go to tell them from other traffic.
func (s *Scene) datagrams(role string, d datagrams) {
	s.Answer.Dst = append(s.Answer.Dst, d.to.Addr().String())
	if d.size == 0 {
		d.size = 16 + s.deck.IntN(100)
	}
	s.send = s.inside(role, func(ctx context.Context) error {
		fd, err := d.open()
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		data, to := make([]byte, d.size), sockaddr(d.to)
		for range d.count {
			if err := unix.Sendto(fd, data, 0, to); err != nil {
				var errno unix.Errno
				if !errors.As(err, &errno) {
					return err
				}
				s.failed[unix.ErrnoName(errno)]++
			} else {
				s.sent++
			}
			if err := wait(ctx, d.pause); err != nil {
				return err
			}
		}
		if d.gso > 0 {
			s.sent = d.count * ((d.size + d.gso - 1) / d.gso)
		}
		return nil
	})
}

func (d datagrams) open() (fd int, err error) {
	family := unix.AF_INET
	if d.to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, fmt.Errorf("open UDP socket: %w", err)
	}
	var errs []error
	if d.from.IsValid() {
		errs = append(errs, unix.Bind(fd, sockaddr(netip.AddrPortFrom(d.from, 0))))
	}
	if d.ttl > 0 {
		level, opt := unix.IPPROTO_IP, unix.IP_TTL
		if family == unix.AF_INET6 {
			level, opt = unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS
		}
		errs = append(errs, unix.SetsockoptInt(fd, level, opt, d.ttl))
	}
	if d.df {
		errs = append(errs, unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO))
	}
	if d.gso > 0 {
		errs = append(errs, unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, d.gso))
	}
	if err := errors.Join(errs...); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("set up UDP socket: %w", err)
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is6() {
		return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
}

// wait waits d.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// frames sets what is sent to n frames out of an end's device. f is called for each, with its number.
func (s *Scene) frames(from *end, n int, pause, after time.Duration, f func(i int) traffic.Frame) {
	if to := f(0).To.Addr(); to.IsValid() {
		s.Answer.Dst = append(s.Answer.Dst, to.String())
	}
	s.send = s.inside(from.role, func(ctx context.Context) error {
		out, err := traffic.OpenInjector(from.dev)
		if err != nil {
			return err
		}
		defer out.Close()
		for i := range n {
			if err := out.Send(f(i).Bytes()); err != nil {
				return err
			}
			s.sent++
			if err := wait(ctx, pause); err != nil {
				return err
			}
		}
		return wait(ctx, after)
	})
}

// udpFrame is a datagram from one end to another as a frame.
func udpFrame(a, b *end, sport, dport, size int) traffic.Frame {
	return traffic.Frame{Dst: b.mac, Src: a.mac, From: a.port(sport), To: b.port(dport), Proto: unix.IPPROTO_UDP, Payload: make([]byte, size)}
}

// connects sets what is sent to n connections that are tried for so long each, with what TCP sends again.
func (s *Scene) connects(role string, to netip.AddrPort, n int, each time.Duration) {
	s.Answer.Dst = append(s.Answer.Dst, to.Addr().String())
	s.Answer.Retries = true
	s.send = s.inside(role, func(ctx context.Context) error {
		var open []int
		defer func() {
			for _, fd := range open {
				unix.Close(fd)
			}
		}()
		for range n {
			fd, err := connect(to, each)
			if fd >= 0 {
				open = append(open, fd)
			}
			s.sent++
			var errno unix.Errno
			if errors.As(err, &errno) {
				s.failed[unix.ErrnoName(errno)]++
			} else if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		return nil
	})
}

// connect tries to connect for so long; the socket stays open.
func connect(to netip.AddrPort, each time.Duration) (fd int, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return -1, err
	}
	if err := unix.Connect(fd, sockaddr(to)); err != nil && err != unix.EINPROGRESS {
		return fd, err
	}
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for end := time.Now().Add(each); ; {
		left := time.Until(end)
		if left <= 0 {
			return fd, unix.ETIMEDOUT
		}
		n, err := unix.Poll(poll, int(left.Milliseconds())+1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fd, err
		case n > 0:
			e, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err == nil && e != 0 {
				err = unix.Errno(e)
			}
			return fd, err
		}
	}
}

// pings sets what is sent to n echo requests through a raw socket, which gets the replies: as root's ping does it.
func (s *Scene) pings(role string, to netip.Addr, n int) {
	s.Answer.Dst = append(s.Answer.Dst, to.String())
	s.send = s.inside(role, func(ctx context.Context) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		answered := 0
		id := uint16(1 + s.deck.IntN(0xfffe))
		for i := range n {
			// What the frame's builder makes of an echo request is, without its headers, what a raw socket sends.
			f := traffic.Frame{From: netip.AddrPortFrom(to, id), To: netip.AddrPortFrom(to, 0), Proto: unix.IPPROTO_ICMP, ID: uint16(i + 1), Payload: make([]byte, 32)}
			if err := unix.Sendto(fd, f.Bytes()[2+20:], 0, sockaddr(netip.AddrPortFrom(to, 0))); err != nil {
				return err
			}
			s.sent++
			tv := unix.NsecToTimeval(int64(time.Second))
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
				return err
			}
			if n, _, err := unix.Recvfrom(fd, make([]byte, 256), 0); err == nil && n > 20 {
				answered++
			}
			if err := wait(ctx, 10*gap); err != nil {
				return err
			}
		}
		s.Answer.Delivered = &answered
		return nil
	})
}
