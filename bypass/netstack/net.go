package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// backlog is how many connections wait to be accepted, as Go's listeners have (net.core.somaxconn).
const backlog = 4096

// Listen opens a port of TCP ("tcp", "tcp4", "tcp6"): all connections to it come here. The address is one of the device's or none, the
// port 0 for one that is free. The listener and its connections work as those of package net; connections live on when the listener is
// closed.
func (s *Stack) Listen(network, address string) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	addr, number, err := s.local(network, "tcp", address)
	if err != nil {
		return fail(err)
	}
	k, err := s.ports.open("tcp", addr, number)
	if err != nil {
		return fail(os.NewSyscallError("bind", err))
	}
	l, err := s.listen(k, addr, network == "tcp6")
	if err != nil {
		return fail(err)
	}
	return l, nil
}

// ListenBound is Listen at the address and port that a TCP socket of the device's namespace is bound to. The socket, which stays the
// caller's, holds the port in the kernel as long as it is needed here. It may listen: to it come connections by other devices.
func (s *Stack) ListenBound(socket syscall.Conn) (net.Listener, error) {
	fail := func(err error) (net.Listener, error) {
		return nil, &net.OpError{Op: "listen", Net: "tcp", Err: err}
	}
	k, b, err := s.adoptFrom(socket, "tcp")
	if err != nil {
		return fail(err)
	}
	l, err := s.listen(k, b.addr, b.only6)
	if err != nil {
		return fail(err)
	}
	return l, nil
}

// listen has connections to a port come here; if it cannot, the port is given back.
func (s *Stack) listen(k port, addr netip.Addr, only6 bool) (*listener, error) {
	l := &listener{s: s, addr: &net.TCPAddr{IP: addr.AsSlice(), Port: int(k.number)}, port: k, ended: make(chan struct{})}
	l.keep = &keep{release: func() { s.ports.release(k) }, n: 1}
	proto := protocol(netip.IPv6Unspecified()) // gVisor's IPv6 sockets take IPv4, too
	if addr.Is4() {
		proto = protocol(addr)
	}
	if err := l.listen(proto, addr, k.number, only6); err != nil {
		s.ports.silent(k)
		l.keep.done()
		return nil, err
	}
	return l, nil
}

// keep gives a port back when the last that needs it ends: a listener, or a connection that came by it.
type keep struct {
	release func()
	mu      sync.Mutex
	n       int
}

func (k *keep) more() *keep { k.mu.Lock(); defer k.mu.Unlock(); k.n++; return k }

func (k *keep) done() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.n--; k.n == 0 {
		k.release()
	}
}

type listener struct {
	s     *Stack
	addr  net.Addr
	port  port
	keep  *keep
	wq    waiter.Queue
	ep    tcpip.Endpoint
	close sync.Once
	ended chan struct{}
}

func (l *listener) listen(proto tcpip.NetworkProtocolNumber, addr netip.Addr, number uint16, only6 bool) error {
	ep, err := l.s.gv.NewEndpoint(tcp.ProtocolNumber, proto, &l.wq)
	if err != nil {
		return os.NewSyscallError("socket", errno(err))
	}
	l.ep = ep
	ep.SocketOptions().SetV6Only(only6)
	ep.SocketOptions().SetReuseAddress(true) // as package net does: connections of a listener before may be there yet
	at := tcpip.FullAddress{NIC: nic, Port: number}
	if addr.IsValid() && !addr.IsUnspecified() {
		at.Addr = tcpip.AddrFromSlice(addr.AsSlice())
	}
	if err := ep.Bind(at); err != nil {
		ep.Close()
		return os.NewSyscallError("bind", errno(err))
	}
	if err := ep.Listen(backlog); err != nil {
		ep.Close()
		return os.NewSyscallError("listen", errno(err))
	}
	return nil
}

// Accept waits for a connection.
func (l *listener) Accept() (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.addr, Err: err}
	}
	var woken <-chan struct{}
	for {
		select {
		case <-l.ended:
			return fail(net.ErrClosed)
		default:
		}
		ep, wq, err := l.ep.Accept(nil)
		switch err.(type) {
		case nil:
			return &conn{TCPConn: gonet.NewTCPConn(wq, ep), ep: ep, keep: l.keep.more()}, nil
		case *tcpip.ErrWouldBlock:
		default:
			return fail(os.NewSyscallError("accept", errno(err)))
		}
		if woken == nil {
			entry, ch := waiter.NewChannelEntry(waiter.ReadableEvents)
			l.wq.EventRegister(&entry)
			defer l.wq.EventUnregister(&entry)
			woken = ch
			continue // something may have come before
		}
		select {
		case <-l.ended:
		case <-woken:
		}
	}
}

// Close ends listening. Those that wait in Accept get net.ErrClosed.
func (l *listener) Close() error {
	err := net.ErrClosed
	l.close.Do(func() {
		close(l.ended)
		l.ep.Close()
		l.s.ports.silent(l.port)
		l.keep.done()
		err = nil
	})
	return err
}

// Addr is where it listens.
func (l *listener) Addr() net.Addr { return l.addr }

// conn is a connection of TCP.
type conn struct {
	*gonet.TCPConn
	ep    tcpip.Endpoint
	keep  *keep // nil for one that was made here: its port is kept with its block
	close sync.Once
}

// Close ends the connection; what was written is still sent.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.close.Do(func() {
		err = c.TCPConn.Close()
		if c.keep != nil {
			c.keep.done()
		}
	})
	return err
}

// Read reads what has come.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.TCPConn.Read(b)
	return n, c.why("read", err)
}

// Write sends.
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.TCPConn.Write(b)
	return n, c.why("write", err)
}

func (c *conn) why(op string, err error) error { return why(op, "tcp", c, err) }

// errnos are what the kernel says (include/uapi/asm-generic/errno.h) where gVisor has errors of its own.
var errnos = []struct {
	of tcpip.Error
	is syscall.Errno
}{
	{&tcpip.ErrConnectionRefused{}, syscall.ECONNREFUSED},
	{&tcpip.ErrConnectionReset{}, syscall.ECONNRESET},
	{&tcpip.ErrConnectionAborted{}, syscall.ECONNABORTED},
	{&tcpip.ErrTimeout{}, syscall.ETIMEDOUT},
	{&tcpip.ErrHostUnreachable{}, syscall.EHOSTUNREACH},
	{&tcpip.ErrNetworkUnreachable{}, syscall.ENETUNREACH},
	{&tcpip.ErrPortInUse{}, syscall.EADDRINUSE},
	{&tcpip.ErrNoPortAvailable{}, syscall.EADDRNOTAVAIL},
	{&tcpip.ErrBadLocalAddress{}, syscall.EADDRNOTAVAIL},
	{&tcpip.ErrClosedForSend{}, syscall.EPIPE},
	{&tcpip.ErrMessageTooLong{}, syscall.EMSGSIZE},
	{&tcpip.ErrNoBufferSpace{}, syscall.ENOBUFS},
}

// byWords finds an errno by the words of an error, which are all that gonet's errors have; nil if there is none.
func byWords(words string) error {
	for _, e := range errnos {
		if e.of.String() == words {
			return e.is
		}
	}
	return nil
}

// errno gives an error of gVisor's its errno, or its words.
func errno(err tcpip.Error) error {
	if no := byWords(err.String()); no != nil {
		return no
	}
	return errors.New(err.String())
}

// known finds the errno of an error of gonet's; nil if there is none.
func known(err error) error {
	var oe *net.OpError
	if !errors.As(err, &oe) || oe.Err == nil {
		return nil
	}
	return byWords(oe.Err.Error())
}

// why has errors of a connection be those that package net gives.
func why(op, network string, c net.Conn, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	cause := known(err)
	if cause != nil {
		cause = os.NewSyscallError(op, cause)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		cause = os.ErrDeadlineExceeded
	}
	if cause == nil {
		return err
	}
	return &net.OpError{Op: op, Net: network, Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: cause}
}

// SetNoDelay says whether small writes are sent at once (the default, as in package net), or may wait for more (Nagle's algorithm).
func (c *conn) SetNoDelay(on bool) error {
	c.ep.SocketOptions().SetDelayOption(!on)
	return nil
}

// Delivered says if the other side has acknowledged all that was written and, if the connection was closed for writing, its end; it is also
// true if there is no connection any more.
func (c *conn) Delivered() bool {
	switch tcp.EndpointState(c.ep.State()) {
	case tcp.StateEstablished, tcp.StateCloseWait:
		n, err := c.ep.GetSockOptInt(tcpip.SendQueueSizeOption)
		return err != nil || n == 0
	case tcp.StateFinWait1, tcp.StateClosing, tcp.StateLastAck:
		return false
	}
	return true
}

// SetLinger with 0 has Close end the connection by a reset, and forget what was not sent; a negative number undoes it.
func (c *conn) SetLinger(sec int) error {
	c.ep.SocketOptions().SetLinger(tcpip.LingerOption{Enabled: sec >= 0, Timeout: time.Duration(sec) * time.Second})
	return nil
}

// SetKeepAliveConfig says if and when an idle connection is asked whether it still is. Zero is as in package net (15 s, 15 s, 9 times), and
// what is negative stays as it is.
func (c *conn) SetKeepAliveConfig(k net.KeepAliveConfig) error {
	either := func(d time.Duration) time.Duration {
		if d == 0 {
			return 15 * time.Second
		}
		return d
	}
	if idle := tcpip.KeepaliveIdleOption(either(k.Idle)); idle > 0 {
		if err := c.ep.SetSockOpt(&idle); err != nil {
			return errno(err)
		}
	}
	if between := tcpip.KeepaliveIntervalOption(either(k.Interval)); between > 0 {
		if err := c.ep.SetSockOpt(&between); err != nil {
			return errno(err)
		}
	}
	if n := k.Count; n >= 0 {
		if n == 0 {
			n = 9
		}
		if err := c.ep.SetSockOptInt(tcpip.KeepaliveCountOption, n); err != nil {
			return errno(err)
		}
	}
	c.ep.SocketOptions().SetKeepAlive(k.Enable)
	return nil
}

// Dial is DialContext without a context.
func (s *Stack) Dial(network, address string) (net.Conn, error) {
	return s.DialContext(context.Background(), network, address)
}

// DialContext connects by TCP or UDP ("tcp", "tcp4", "tcp6", "udp", "udp4", "udp6") from the address that the kernel's route says. Names
// are looked up by Go's resolver in the calling process's own network.
func (s *Stack) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	fail := func(err error) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	proto, ok := map[string]string{"tcp": "tcp", "tcp4": "tcp", "tcp6": "tcp", "udp": "udp", "udp4": "udp", "udp6": "udp"}[network]
	if !ok {
		return fail(net.UnknownNetworkError(network))
	}
	all, number, err := lookup(ctx, network, address)
	if err != nil {
		return fail(err)
	}
	var errs []error
	for _, to := range all {
		c, err := s.dial(ctx, proto, netip.AddrPortFrom(to, number))
		if err == nil {
			return c, nil
		}
		errs = append(errs, &net.OpError{Op: "dial", Net: network, Addr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(to, number)), Err: err})
		if ctx.Err() != nil {
			break
		}
	}
	if len(errs) == 1 {
		return nil, errs[0]
	}
	return nil, errors.Join(errs...)
}

func (s *Stack) dial(ctx context.Context, proto string, to netip.AddrPort) (c net.Conn, err error) {
	h, err := s.near.hopTo(ctx, to.Addr())
	if err != nil {
		return nil, err
	}
	src := tcpip.AddrFromSlice(h.src.AsSlice())
	r, terr := s.gv.FindRoute(nic, tcpip.Address{}, tcpip.AddrFromSlice(to.Addr().AsSlice()), protocol(to.Addr()), false)
	choose := terr == nil && r.LocalAddress() == src
	if terr == nil {
		r.Release()
	}
	err = s.ports.outgoing(choose, func(number uint16) error {
		var from *tcpip.FullAddress
		if number > 0 {
			from = &tcpip.FullAddress{NIC: nic, Addr: src, Port: number}
		}
		remote := full(to)
		if proto == "udp" {
			u, err := gonet.DialUDP(s.gv, from, &remote, protocol(to.Addr()))
			if err != nil {
				return errors.Join(known(err), err)
			}
			c = &packetConn{UDPConn: u}
			return nil
		}
		t, err := s.connect(ctx, from, remote, protocol(to.Addr()))
		if err != nil {
			return err
		}
		c = t
		return nil
	})
	return c, err
}

func full(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFromSlice(a.Addr().AsSlice()), Port: a.Port()}
}

// connect makes a connection of TCP.
func (s *Stack) connect(ctx context.Context, from *tcpip.FullAddress, to tcpip.FullAddress, proto tcpip.NetworkProtocolNumber) (*conn, error) {
	var wq waiter.Queue
	ep, terr := s.gv.NewEndpoint(tcp.ProtocolNumber, proto, &wq)
	if terr != nil {
		return nil, os.NewSyscallError("socket", errno(terr))
	}
	if from != nil {
		if terr := ep.Bind(*from); terr != nil {
			ep.Close()
			return nil, os.NewSyscallError("bind", errno(terr))
		}
	}
	entry, done := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	terr = ep.Connect(to)
	if _, started := terr.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		case <-done:
		}
		terr = ep.LastError()
	}
	if terr != nil {
		ep.Close()
		return nil, os.NewSyscallError("connect", errno(terr))
	}
	return &conn{TCPConn: gonet.NewTCPConn(&wq, ep), ep: ep}, nil
}

// lookup gives the addresses and the port that are meant.
func lookup(ctx context.Context, network, address string) (all []netip.Addr, number uint16, err error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, 0, err
	}
	n, err := net.DefaultResolver.LookupPort(ctx, network, service)
	if err != nil {
		return nil, 0, err
	}
	want := "ip" + network[3:]
	if a, err := netip.ParseAddr(host); err == nil {
		all = []netip.Addr{a.Unmap()}
	} else if all, err = net.DefaultResolver.LookupNetIP(ctx, want, host); err != nil {
		return nil, 0, err
	}
	var fit []netip.Addr
	for _, a := range all {
		if a = a.Unmap(); want == "ip" || (want == "ip4") == a.Is4() {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		return nil, 0, &net.AddrError{Err: "no suitable address", Addr: host}
	}
	return fit, uint16(n), nil
}

// local gives the address and port to listen on. The zero address stands for all of the device's.
func (s *Stack) local(network, proto, address string) (addr netip.Addr, number uint16, err error) {
	if network != proto && network != proto+"4" && network != proto+"6" {
		return addr, 0, net.UnknownNetworkError(network)
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return addr, 0, err
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return addr, 0, &net.AddrError{Err: "the port is a number", Addr: address}
	}
	switch {
	case host == "" && network == proto+"4":
		return netip.IPv4Unspecified(), uint16(n), nil
	case host == "":
		return addr, uint16(n), nil
	}
	if addr, err = netip.ParseAddr(host); err != nil {
		return addr, 0, err
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is4() && network == proto+"6" || addr.Is6() && network == proto+"4" {
		return addr, 0, &net.AddrError{Err: "it is not an address of " + network, Addr: host}
	}
	if addr == netip.IPv6Unspecified() {
		addr = netip.Addr{}
	}
	return addr, uint16(n), nil
}
