package compare

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/netstack"
	"github.com/fathom-trace/fathom/bypass/steer"
	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
)

// group is ticks over a socket as package net has it, the kernel's or netstack's.
type group struct {
	c    net.PacketConn
	room []byte
}

func openGroup(j Job, l traffic.Local, t *traffic.Template) (feed, error) {
	ifi, err := net.InterfaceByIndex(l.Index)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenMulticastUDP("udp4", ifi, net.UDPAddrFromAddrPort(j.Group))
	if err != nil {
		return nil, err
	}
	return &group{c: c, room: make([]byte, t.Len())}, c.SetReadBuffer(rcvbuf)
}

// leaveBy has what a socket sends to groups go out by a device, for which no route is needed.
func leaveBy(fd, index int) error {
	return os.NewSyscallError("IP_MULTICAST_IF", unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)}))
}

func openGroupStack(j Job, s *netstack.Stack, t *traffic.Template) (feed, error) {
	c, err := s.ListenPacket("udp4", j.Group.String())
	if err != nil {
		return nil, err
	}
	return &group{c: c, room: make([]byte, t.Len())}, nil
}

func (g *group) Close() error { return g.c.Close() }
func (g *group) interrupt()   { _ = g.c.SetReadDeadline(time.Unix(1, 0)) } // fails only if it is closed

func (g *group) recv(stop *atomic.Bool) (uint64, bool, error) {
	for {
		n, _, err := g.c.ReadFrom(g.room)
		if err != nil {
			return 0, false, over(err, stop)
		}
		if seq, verdict := traffic.ReadPayload(g.room[:n]); verdict == traffic.Good {
			return seq, true, nil
		}
	}
}

// groupSpin is a socket of the kernel's that is not waited for, which sends ticks or receives them.
type groupSpin struct {
	fd   int
	to   unix.SockaddrInet4
	t    *traffic.Template
	room []byte
}

func openGroupSpin(j Job, l traffic.Local, t *traffic.Template) (feed, error) {
	g, err := newGroupSpin(j, t, j.Group, func(fd int) error {
		return errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvbuf),
			unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: j.Group.Addr().As4(), Ifindex: int32(l.Index)}))
	})
	if err != nil {
		return nil, err
	}
	return g, nil
}

func openSource(j Job, l traffic.Local, t *traffic.Template) (source, error) {
	g, err := newGroupSpin(j, t, j.Local, func(fd int) error { return leaveBy(fd, l.Index) })
	if err != nil {
		return nil, err
	}
	return g, nil
}

func newGroupSpin(j Job, t *traffic.Template, at netip.AddrPort, set func(fd int) error) (*groupSpin, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	g := &groupSpin{fd: fd, to: unix.SockaddrInet4{Addr: j.Group.Addr().As4(), Port: int(j.Group.Port())}, t: t, room: make([]byte, t.Len())}
	if err := errors.Join(set(fd), unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return g, nil
}

func (g *groupSpin) Close() error { return unix.Close(g.fd) }
func (g *groupSpin) interrupt()   {}

func (g *groupSpin) send(seq uint64) error {
	return os.NewSyscallError("sendto", unix.Sendto(g.fd, g.t.Payload(g.room, seq), 0, &g.to))
}

func (g *groupSpin) recv(stop *atomic.Bool) (uint64, bool, error) {
	for {
		n, ok, err := spin(g.fd, g.room, stop.Load)
		if !ok || err != nil {
			return 0, false, err
		}
		if seq, verdict := traffic.ReadPayload(g.room[:n]); verdict == traffic.Good {
			return seq, true, nil
		}
	}
}

// spinRead fills b from a connection.
func spinRead(fd int, b []byte, late *atomic.Bool) error {
	for at := 0; at < len(b); {
		n, ok, err := spin(fd, b[at:], late.Load)
		switch {
		case err != nil:
			return err
		case !ok && at == 0:
			return errLate
		case ok && n == 0:
			return io.ErrUnexpectedEOF
		}
		at += n
	}
	return nil
}

// groupXSK is ticks over AF_XDP. A socket of the kernel's is a member of the group, so that the device and the network pass its
// packets on.
type groupXSK struct {
	*xskEnd
	member *net.UDPConn
	buf    [64]xsk.Frame
	have   []xsk.Frame // of buf, received and not told of yet
}

func openGroupXSK(j Job, l traffic.Local, t *traffic.Template, w xsk.Wait) (_ feed, err error) {
	fl := steer.Flow{Proto: "udp", DstPort: steer.Ports{First: j.Group.Port()}, Group: j.Group.Addr()}
	r, err := fl.Rule(steer.ToSocket)
	if err != nil {
		return nil, err
	}
	e, err := openXSKRule(j, t, w, r)
	if err != nil {
		return nil, err
	}
	g := &groupXSK{xskEnd: e}
	ifi, err := net.InterfaceByIndex(l.Index)
	if err == nil {
		g.member, err = net.ListenMulticastUDP("udp4", ifi, net.UDPAddrFromAddrPort(j.Group))
	}
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return g, nil
}

func (g *groupXSK) Close() (err error) {
	if g.member != nil {
		err = g.member.Close()
	}
	return errors.Join(err, g.xskEnd.Close())
}

func (g *groupXSK) recv(*atomic.Bool) (uint64, bool, error) {
	for {
		for len(g.have) > 0 {
			f := g.have[:1]
			seq, verdict := traffic.Read(f[0].Bytes())
			g.have = g.have[1:]
			g.q.Free(f)
			if verdict == traffic.Good {
				return seq, true, nil
			}
		}
		n, err := g.q.Recv(g.buf[:])
		if err != nil {
			return 0, false, err
		}
		if g.have = g.buf[:n]; n > 0 {
			continue
		}
		if err := g.q.Wait(g.ctx); errors.Is(err, context.Canceled) {
			return 0, false, nil
		} else if err != nil {
			return 0, false, err
		}
	}
}

// inline is a strategy whose orders are written where ticks are received.
type inline struct {
	in   *netstack.Inline
	over chan struct{}

	mu sync.Mutex // what follows: ticks may come before there is a connection
	o  *connection
	n  uint64
	b  [orderLen]byte
	er error
}

func openInline(j Job, s *netstack.Stack) (_ *inline, err error) {
	x := &inline{over: make(chan struct{})}
	x.in, err = s.HandleUDP("udp4", j.Group.String(), x.tick)
	return x, err
}

// goes says which connection orders go over.
func (x *inline) goes(o *connection) { x.mu.Lock(); defer x.mu.Unlock(); x.o = o }

func (x *inline) tick(_ netip.AddrPort, payload []byte) netstack.Reply {
	x.mu.Lock()
	defer x.mu.Unlock()
	if seq, verdict := traffic.ReadPayload(payload); verdict == traffic.Good && x.o != nil && x.er == nil {
		putOrder(x.b[:], seq)
		x.n++
		x.er = x.o.write(x.b[:])
	}
	return nil
}

func (x *inline) result() (uint64, error) { x.mu.Lock(); defer x.mu.Unlock(); return x.n, x.er }

func (x *inline) Close() error {
	if x.in == nil {
		return nil
	}
	return x.in.Close()
}
