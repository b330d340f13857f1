package netstack

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	wire "github.com/fathom-trace/fathom/wire/header"
)

// ListenPacket opens a port of UDP ("udp", "udp4", "udp6"). The address may be a group of multicast: the kernel joins it on the device, and what
// is sent to the group and port comes here. Packets that were fragmented stay the kernel's.
func (s *Stack) ListenPacket(network, address string) (net.PacketConn, error) {
	fail := func(err error) (net.PacketConn, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	addr, number, err := s.local(network, "udp", address)
	if err != nil {
		return fail(err)
	}
	k, leave, err := s.openUDP(addr, number)
	if err != nil {
		return fail(err)
	}
	at := tcpip.FullAddress{NIC: nic, Port: k.number}
	proto := protocol(netip.IPv6Unspecified())
	if addr.IsValid() {
		proto = protocol(addr)
		if !addr.IsUnspecified() {
			at.Addr = tcpip.AddrFromSlice(addr.AsSlice())
		}
	}
	u, err := gonet.DialUDP(s.gv, &at, nil, proto)
	if err != nil {
		leave()
		return fail(errors.Join(known(err), err))
	}
	return &packetConn{UDPConn: u, release: leave}, nil
}

// openUDP takes a port, and joins a group.
func (s *Stack) openUDP(addr netip.Addr, number uint16) (k port, leave func(), err error) {
	if k, err = s.ports.open("udp", addr, number); err != nil {
		return k, nil, os.NewSyscallError("bind", err)
	}
	leave = func() { s.ports.release(k) }
	if !addr.IsMulticast() {
		return k, leave, nil
	}
	group := tcpip.AddrFromSlice(addr.AsSlice())
	if err := s.ports.join(k, addr); err != nil {
		leave()
		return k, nil, os.NewSyscallError("join", err)
	}
	if err := s.gv.JoinGroup(protocol(addr), nic, group); err != nil {
		leave()
		return k, nil, os.NewSyscallError("join", errno(err))
	}
	return k, func() { _ = s.gv.LeaveGroup(protocol(addr), nic, group); s.ports.release(k) }, nil // it was joined
}

// join has the kernel join a group, with the socket that keeps the port: it leaves when that is closed.
func (p *ports) join(k port, group netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	o := p.opened[k]
	if o == nil {
		return unix.EBADF
	}
	if group.Is4() {
		return unix.SetsockoptIPMreqn(o.fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(p.s.near.index)})
	}
	return unix.SetsockoptIPv6Mreq(o.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(p.s.near.index)})
}

// packetConn is a port of UDP.
type packetConn struct {
	*gonet.UDPConn
	release func() // nil for one with a port out of a block
	close   sync.Once
}

// Read reads a datagram of a connection. What ICMP says of those that were sent is told by the next call; it does not wake one that waits.
func (c *packetConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	return n, why("read", "udp", c, err)
}

// ReadFrom reads a datagram.
func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.UDPConn.ReadFrom(b)
	return n, from, why("read", "udp", c, err)
}

// Write sends a datagram of a connection.
func (c *packetConn) Write(b []byte) (int, error) {
	n, err := c.UDPConn.Write(b)
	return n, why("write", "udp", c, err)
}

// WriteTo sends a datagram. The first ones to an address wait until the kernel has found its neighbour.
func (c *packetConn) WriteTo(b []byte, to net.Addr) (int, error) {
	n, err := c.UDPConn.WriteTo(b, to)
	return n, why("write", "udp", c, err)
}

// Close gives the port back.
func (c *packetConn) Close() error {
	err := net.ErrClosed
	c.close.Do(func() {
		err = c.UDPConn.Close()
		if c.release != nil {
			c.release()
		}
	})
	return err
}

// Reply writes an answer: it is given room for the largest datagram that fits into a packet, and says how much of it is used; 0 answers nothing.
type Reply func(room []byte) int

// Handler is called with the payload of a datagram, which is the received frame itself and is not to be kept or used after the call. It runs
// where packets are received: nothing else is while it runs. The answer, if any, goes back to the sender.
type Handler func(from netip.AddrPort, payload []byte) Reply

// HandleUDP opens a port of UDP whose datagrams are not queued: the handler is called with each as it is received, and its answer written
// into the frame that is sent. It is the shortest way there is. Closing what is returned ends it.
func (s *Stack) HandleUDP(network, address string, h Handler) (*Inline, error) {
	fail := func(err error) (*Inline, error) {
		return nil, &net.OpError{Op: "listen", Net: network, Err: err}
	}
	addr, number, err := s.local(network, "udp", address)
	if err != nil {
		return fail(err)
	}
	k, leave, err := s.openUDP(addr, number)
	if err != nil {
		return fail(err)
	}
	in := &Inline{s: s, port: k.number, group: addr.IsMulticast(), addr: addr, h: h, leave: leave}
	s.link.handlers(func(m inlineHandlers) { m[k.number] = in })
	return in, nil
}

// Inline is a port of UDP with a handler.
type Inline struct {
	s     *Stack
	port  uint16
	addr  netip.Addr // zero: any of the device's
	group bool
	h     Handler
	got   func(from, to netip.AddrPort, payload []byte) // instead of h: of a Bound
	leave func()
	close sync.Once
}

// Addr is where it listens; the address is not valid if it is every one of the device's.
func (in *Inline) Addr() netip.AddrPort { return netip.AddrPortFrom(in.addr, in.port) }

// Close ends it. The handler may be running yet when Close returns.
func (in *Inline) Close() error {
	err := net.ErrClosed
	in.close.Do(func() {
		in.s.link.handlers(func(m inlineHandlers) { delete(m, in.port) })
		in.leave()
		err = nil
	})
	return err
}

// inlineHandlers are handlers by port. A map is never changed, but another takes its place.
type inlineHandlers map[uint16]*Inline

// handlers changes them.
func (l *link) handlers(change func(inlineHandlers)) {
	for {
		old := l.inline.Load()
		m := inlineHandlers{}
		if old != nil {
			m = maps.Clone(*old)
		}
		change(m)
		if l.inline.CompareAndSwap(old, &m) {
			return
		}
	}
}

// take gives a packet to the handler of its port, if it has one, and sends what that answers. mac is who sent the frame.
func (m inlineHandlers) take(n *lane, proto tcpip.NetworkProtocolNumber, mac [6]byte, b []byte, sound bool) bool {
	d, ok := parseUDP(proto, b)
	if !ok {
		return false
	}
	in := m[d.to.Port()]
	if in == nil || in.addr.IsValid() && !in.addr.IsUnspecified() && in.addr != d.to.Addr() {
		return false
	}
	if !sound && !d.whole() {
		return false // gVisor counts it, and drops it
	}
	if in.got != nil {
		in.got(d.from, d.to, d.payload)
		return true
	}
	reply := in.h(d.from, d.payload)
	if reply == nil || in.group {
		return true
	}
	n.answer(d, mac, reply)
	return true
}

// datagram is a packet of UDP.
type datagram struct {
	proto    tcpip.NetworkProtocolNumber
	from, to netip.AddrPort
	udp      []byte // header and payload
	payload  []byte
}

// parseUDP reads a packet of IP without options or extensions that is a whole datagram; others are gVisor's.
func parseUDP(proto tcpip.NetworkProtocolNumber, b []byte) (d datagram, ok bool) {
	var src, dst netip.Addr
	at := 0
	switch proto {
	case header.IPv4ProtocolNumber:
		if len(b) < header.IPv4MinimumSize || b[0] != 0x45 || b[9] != unix.IPPROTO_UDP || binary.BigEndian.Uint16(b[6:])&0x3fff != 0 {
			return d, false
		}
		total := int(binary.BigEndian.Uint16(b[2:]))
		if total > len(b) || checksum.Checksum(b[:header.IPv4MinimumSize], 0) != 0xffff {
			return d, false
		}
		b, at = b[:total], header.IPv4MinimumSize
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
	default:
		if len(b) < header.IPv6MinimumSize || b[0]>>4 != 6 || b[6] != unix.IPPROTO_UDP {
			return d, false
		}
		total := header.IPv6MinimumSize + int(binary.BigEndian.Uint16(b[4:]))
		if total > len(b) {
			return d, false
		}
		b, at = b[:total], header.IPv6MinimumSize
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	}
	u := b[at:]
	if len(u) < wire.UDPLen {
		return d, false
	}
	size := int(binary.BigEndian.Uint16(u[4:]))
	if size < wire.UDPLen || size > len(u) {
		return d, false
	}
	u = u[:size]
	return datagram{proto, netip.AddrPortFrom(src, binary.BigEndian.Uint16(u)), netip.AddrPortFrom(dst, binary.BigEndian.Uint16(u[2:])), u, u[wire.UDPLen:]}, true
}

// whole verifies the checksum. IPv4's may be left out (RFC 768), IPv6's not.
func (d datagram) whole() bool {
	if binary.BigEndian.Uint16(d.udp[6:]) == 0 {
		return d.proto == header.IPv4ProtocolNumber
	}
	return sumUDP(d.from.Addr(), d.to.Addr(), d.udp) == 0xffff
}

// sumUDP sums a datagram with its pseudo header.
func sumUDP(from, to netip.Addr, udp []byte) uint16 {
	sum := header.PseudoHeaderChecksum(header.UDPProtocolNumber, tcpip.AddrFromSlice(from.AsSlice()), tcpip.AddrFromSlice(to.AsSlice()), uint16(len(udp)))
	return checksum.Checksum(udp, sum)
}

// answer sends what a handler answers: the frame is written once, in place.
func (n *lane) answer(d datagram, mac [6]byte, reply Reply) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.link.ended.Load() {
		return
	}
	room := n.q.room(1)
	if len(room) == 0 {
		n.link.noRoom.Add(1)
		return
	}
	ip := header.IPv4MinimumSize
	if d.proto == header.IPv6ProtocolNumber {
		ip = header.IPv6MinimumSize
	}
	b := room[0][:wire.EthernetLen+min(int(n.link.MTU()), n.link.most)]
	body := b[wire.EthernetLen:]
	used := reply(body[ip+wire.UDPLen:])
	if used <= 0 || used > len(body)-ip-wire.UDPLen {
		n.q.put(nil)
		return
	}
	n.link.ethernet(b, mac, uint16(d.proto))
	size := wire.UDPLen + used
	u := body[ip : ip+size]
	binary.BigEndian.PutUint16(u, d.to.Port())
	binary.BigEndian.PutUint16(u[2:], d.from.Port())
	binary.BigEndian.PutUint16(u[4:], uint16(size))
	binary.BigEndian.PutUint16(u[6:], 0)
	if d.proto == header.IPv4ProtocolNumber {
		header.IPv4(body).Encode(&header.IPv4Fields{
			TotalLength: uint16(ip + size), TTL: 64, Protocol: unix.IPPROTO_UDP, Flags: header.IPv4FlagDontFragment,
			SrcAddr: tcpip.AddrFromSlice(d.to.Addr().AsSlice()), DstAddr: tcpip.AddrFromSlice(d.from.Addr().AsSlice()),
		})
		header.IPv4(body).SetChecksum(^header.IPv4(body).CalculateChecksum())
	} else {
		header.IPv6(body).Encode(&header.IPv6Fields{
			PayloadLength: uint16(size), TransportProtocol: unix.IPPROTO_UDP, HopLimit: 64,
			SrcAddr: tcpip.AddrFromSlice(d.to.Addr().AsSlice()), DstAddr: tcpip.AddrFromSlice(d.from.Addr().AsSlice()),
		})
	}
	sum := ^sumUDP(d.to.Addr(), d.from.Addr(), u)
	if sum == 0 {
		sum = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(u[6:], sum)
	room[0] = b[:wire.EthernetLen+ip+size]
	n.send(room, false)
}
