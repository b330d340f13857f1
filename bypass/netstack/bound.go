package netstack

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// Bound is a port of UDP that a socket of somebody's holds.
type Bound struct {
	in    *Inline
	close sync.Once
	mu    sync.Mutex
	out   map[netip.Addr]*outlet // by the address that is sent from
}

// outlet sends from one address and the port.
type outlet struct {
	ep tcpip.Endpoint
	wq waiter.Queue
}

// HandleBound has datagrams come here that are sent to the address and port which a UDP socket of the device's namespace is bound to: got is called
// as a [Handler] is. The socket, which stays the caller's, holds the port in the kernel, and goes on to be given what the kernel has: what
// comes by other devices or in fragments, and the errors of ICMP (IP_RECVERR), also for what is sent here.
func (s *Stack) HandleBound(socket syscall.Conn, got func(from, to netip.AddrPort, payload []byte)) (*Bound, error) {
	k, b, err := s.adoptFrom(socket, "udp")
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "udp", Err: err}
	}
	in := &Inline{s: s, port: k.number, addr: b.addr, got: got, leave: func() {
		s.ports.silent(k)
		s.ports.release(k)
	}}
	s.link.handlers(func(m inlineHandlers) { m[k.number] = in })
	return &Bound{in: in, out: map[netip.Addr]*outlet{}}, nil
}

// adoptFrom takes the port that a socket of somebody else is bound to.
func (s *Stack) adoptFrom(socket syscall.Conn, proto string) (k port, b bound, err error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return k, b, err
	}
	cerr := raw.Control(func(fd uintptr) {
		if b, err = boundTo(int(fd)); err == nil {
			k, err = s.ports.adopt(proto, int(fd), b.number)
		}
	})
	if cerr != nil {
		err = cerr
	}
	return k, b, err
}

// Send sends a datagram from the port and one of the device's addresses. It is cut into fragments if it must be. The first ones to an address
// wait until the kernel has found its neighbour.
func (b *Bound) Send(from netip.Addr, to netip.AddrPort, payload []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := b.out[from]
	if o == nil {
		var err error
		if o, err = b.in.s.outlet(netip.AddrPortFrom(from, b.in.port)); err != nil {
			return err
		}
		b.out[from] = o
	}
	at := full(to)
	if _, err := o.ep.Write(bytes.NewReader(payload), tcpip.WriteOptions{To: &at}); err != nil {
		return os.NewSyscallError("sendto", errno(err))
	}
	return nil
}

func (s *Stack) outlet(from netip.AddrPort) (*outlet, error) {
	o := &outlet{}
	ep, err := s.gv.NewEndpoint(udp.ProtocolNumber, protocol(from.Addr()), &o.wq)
	if err != nil {
		return nil, os.NewSyscallError("socket", errno(err))
	}
	ep.SocketOptions().SetBroadcast(true)
	if err := ep.Bind(full(from)); err != nil {
		ep.Close()
		return nil, os.NewSyscallError("bind", errno(err))
	}
	o.ep = ep
	return o, nil
}

// Close ends it when what waits for a neighbour is sent, or nobody was found. The handler may be running yet when Close returns.
func (b *Bound) Close() error {
	err := net.ErrClosed
	b.close.Do(func() {
		b.in.s.near.settle()
		b.in.s.link.flush()
		err = b.in.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, o := range b.out {
			o.ep.Close()
		}
		b.out = nil
	})
	return err
}

// flush tells the kernel of all packets that were put.
func (l *link) flush() {
	for _, n := range l.lanes {
		n.mu.Lock()
		if n.put > 0 && !l.ended.Load() {
			n.tell()
		}
		n.mu.Unlock()
	}
}

// settle waits until no packet waits for a neighbour, which each does for a while only.
func (n *neighbours) settle() {
	for {
		n.mu.RLock()
		waiting := len(n.waiting)+n.sending > 0 && !n.closed
		n.mu.RUnlock()
		if !waiting || n.ctx.Err() != nil {
			return
		}
		time.Sleep(askAgain)
	}
}
