package compare

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/bypass/traffic"
	"github.com/fathom-trace/fathom/bypass/xsk"
	"github.com/fathom-trace/fathom/wire/filter"
)

// rcvbuf is the receive buffer of all the kernel's sockets here, as far as the system lets it.
const rcvbuf = 4 << 20

// udpEnd is Go's net.UDPConn, as an ordinary program uses it.
type udpEnd struct {
	c *net.UDPConn
	t *traffic.Template
}

func openUDP(j Job, t *traffic.Template) (end, error) {
	var c *net.UDPConn
	var err error
	if j.Role == Ping || j.Role == Blast {
		c, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(j.Local), net.UDPAddrFromAddrPort(j.Remote))
	} else {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(j.Local))
	}
	if err != nil {
		return nil, err
	}
	return &udpEnd{c, t}, c.SetReadBuffer(rcvbuf)
}

func (e *udpEnd) stats() *xsk.Stats { return nil }
func (e *udpEnd) Close() error      { return e.c.Close() }
func (e *udpEnd) interrupt()        { _ = e.c.SetReadDeadline(time.Unix(1, 0)) } // fails only if it is closed

// over says if an error is the end that interrupt brought.
func over(err error, stop *atomic.Bool) error {
	if stop.Load() && errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

func (e *udpEnd) echo(stop *atomic.Bool) (n uint64, err error) {
	var b [9000]byte
	for {
		k, from, err := e.c.ReadFromUDPAddrPort(b[:])
		if err == nil {
			_, err = e.c.WriteToUDPAddrPort(b[:k], from)
		}
		if err != nil {
			return n, over(err, stop)
		}
		n++
	}
}

func (e *udpEnd) sink(stop *atomic.Bool) (n uint64, err error) {
	var b [9000]byte
	for {
		if _, _, err := e.c.ReadFromUDPAddrPort(b[:]); err != nil {
			return n, over(err, stop)
		}
		n++
	}
}

func (e *udpEnd) ping(n int, took func(time.Duration)) (lost uint64, err error) {
	return ask(e.c, n, e.packets(), took)
}

func (e *udpEnd) blast(until time.Time) (n uint64, err error) { return flood(e.c, until, e.packets()) }

// packets gives what is sent in the datagrams.
func (e *udpEnd) packets() func(seq uint64) []byte {
	out := make([]byte, e.t.Len())
	return func(seq uint64) []byte { return e.t.Payload(out, seq) }
}

// spinEnd is a socket of the kernel's that is read without waiting.
type spinEnd struct {
	fd int
	t  *traffic.Template
}

func openSpin(j Job, t *traffic.Template) (end, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	const busyMicros = 50
	err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvbuf), unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUSY_POLL, busyMicros),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: j.Local.Addr().As4(), Port: int(j.Local.Port())}),
		unix.Connect(fd, &unix.SockaddrInet4{Addr: j.Remote.Addr().As4(), Port: int(j.Remote.Port())}))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &spinEnd{fd, t}, nil
}

func (e *spinEnd) stats() *xsk.Stats { return nil }
func (e *spinEnd) Close() error      { return unix.Close(e.fd) }
func (e *spinEnd) interrupt()        {}

func (e *spinEnd) read(b []byte, end func() bool) (int, bool, error) { return spin(e.fd, b, end) }

// spin reads without waiting, until there is something, or end says that it is enough: then ok is false.
func spin(fd int, b []byte, end func() bool) (n int, ok bool, err error) {
	for spins := 1; ; spins++ {
		n, err := unix.Read(fd, b)
		switch {
		case err == nil:
			return n, true, nil
		case err != unix.EAGAIN && err != unix.EINTR:
			return 0, false, os.NewSyscallError("read", err)
		case spins%64 == 0 && end():
			return 0, false, nil
		case spins%4096 == 0:
			runtime.Gosched()
		}
	}
}

func (e *spinEnd) echo(stop *atomic.Bool) (n uint64, err error) {
	var b [9000]byte
	for {
		k, ok, err := e.read(b[:], stop.Load)
		if !ok || err != nil {
			return n, err
		}
		if _, err := unix.Write(e.fd, b[:k]); err != nil && err != unix.ECONNREFUSED {
			return n, err
		}
		n++
	}
}

func (e *spinEnd) sink(stop *atomic.Bool) (n uint64, err error) {
	var b [9000]byte
	for {
		_, ok, err := e.read(b[:], stop.Load)
		if !ok || err != nil {
			return n, err
		}
		n++
	}
}

func (e *spinEnd) ping(n int, took func(time.Duration)) (lost uint64, err error) {
	var b [9000]byte
	out := make([]byte, e.t.Len())
	for i := range n {
		p := e.t.Payload(out, uint64(i))
		start := time.Now()
		if _, err := unix.Write(e.fd, p); err != nil {
			return lost, err
		}
		_, ok, err := e.read(b[:], func() bool { return time.Since(start) > lostAfter })
		switch {
		case err != nil:
			return lost, err
		case ok:
			took(time.Since(start))
		default:
			lost++
		}
	}
	return lost, nil
}

func (e *spinEnd) blast(until time.Time) (n uint64, err error) {
	out := make([]byte, e.t.Len())
	for ; n%64 != 0 || time.Now().Before(until); n++ {
		if _, err := unix.Write(e.fd, e.t.Payload(out, n)); err != nil && err != unix.EAGAIN && err != unix.ENOBUFS {
			return n, err
		}
	}
	return n, nil
}

// packetEnd is AF_PACKET. A socket of UDP keeps the port, so that the kernel answers nothing itself.
type packetEnd struct {
	f    *os.File
	keep *net.UDPConn
	t    *traffic.Template
}

func openPacket(j Job, l traffic.Local, t *traffic.Template) (_ end, err error) {
	e := &packetEnd{t: t}
	if e.keep, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(j.Local)); err != nil {
		return nil, err
	}
	fl, err := filter.Compile(fmt.Sprintf("udp and src host %s and dst port %d", j.Remote.Addr(), j.Local.Port()), filter.Options{})
	if err != nil {
		return nil, errors.Join(err, e.keep.Close())
	}
	prog, err := fl.Classic()
	if err != nil {
		return nil, errors.Join(err, e.keep.Close())
	}
	ins := make([]unix.SockFilter, len(prog))
	for i, p := range prog {
		ins[i] = unix.SockFilter{Code: p.Op, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(err, e.keep.Close())
	}
	ip := binary.NativeEndian.Uint16([]byte{0x08, 0x00}) // ETH_P_IP in network byte order
	err = errors.Join(unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(ins)), Filter: &ins[0]}),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, rcvbuf), unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: ip, Ifindex: l.Index}))
	e.f = os.NewFile(uintptr(fd), "AF_PACKET")
	if err != nil {
		return nil, errors.Join(err, e.Close())
	}
	return e, nil
}

func (e *packetEnd) stats() *xsk.Stats { return nil }
func (e *packetEnd) Close() error      { return errors.Join(e.f.Close(), e.keep.Close()) }
func (e *packetEnd) interrupt()        { _ = e.f.SetReadDeadline(time.Unix(1, 0)) } // fails only if it is closed

func (e *packetEnd) echo(stop *atomic.Bool) (n uint64, err error) {
	var b [9000]byte
	for {
		k, err := e.f.Read(b[:])
		if err == nil && traffic.Turn(b[:k]) {
			_, err = e.f.Write(b[:k])
		}
		if err != nil {
			return n, over(err, stop)
		}
		n++
	}
}

func (e *packetEnd) sink(stop *atomic.Bool) (n uint64, err error) {
	var b [9000]byte
	for {
		if _, err := e.f.Read(b[:]); err != nil {
			return n, over(err, stop)
		}
		n++
	}
}

func (e *packetEnd) ping(n int, took func(time.Duration)) (lost uint64, err error) {
	return ask(e.f, n, e.packets(), took)
}

func (e *packetEnd) blast(until time.Time) (n uint64, err error) {
	return flood(e.f, until, e.packets())
}

// packets gives the frames that are sent.
func (e *packetEnd) packets() func(seq uint64) []byte {
	out := make([]byte, e.t.Len())
	return func(seq uint64) []byte { e.t.Write(out, seq); return out }
}

// timed is what is read until a time.
type timed interface {
	io.ReadWriter
	SetReadDeadline(time.Time) error
}

// ask sends packets one after the other, each when the answer to the one before came or is lost.
func ask(c timed, n int, packet func(seq uint64) []byte, took func(time.Duration)) (lost uint64, err error) {
	var b [9000]byte
	for i := range n {
		p := packet(uint64(i))
		start := time.Now()
		if err := c.SetReadDeadline(start.Add(lostAfter)); err != nil {
			return lost, err
		}
		if _, err := c.Write(p); err != nil {
			return lost, err
		}
		switch _, err := c.Read(b[:]); {
		case err == nil:
			took(time.Since(start))
		case errors.Is(err, os.ErrDeadlineExceeded):
			lost++
		default:
			return lost, err
		}
	}
	return lost, nil
}

// flood sends packets as fast as it can.
func flood(w io.Writer, until time.Time, packet func(seq uint64) []byte) (n uint64, err error) {
	for ; n%64 != 0 || time.Now().Before(until); n++ {
		if _, err := w.Write(packet(n)); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return n, err
		}
	}
	return n, nil
}
