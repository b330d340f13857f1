package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	wire "github.com/fathom-trace/fathom/wire/header"
)

// acks holds acknowledgements back for a moment. gVisor sends one for all that it received at once, before the program that the data
// is for has seen it; what that answers says the same. One is held that says nothing but that more arrived. The next packet of its
// connection takes its place, or the next acknowledgement, so that every second one is sent, and one for more than a packet at once
// (RFC 5681, 4.2; the delay is a hundredth of the kernel's). What says something else, of a hole or of a window, goes at once,
// behind the one that was held.
type acks struct {
	conns [1 << connBits]connAcks // by the hash of the connection; another one takes its place
	held  []*connAcks             // those that have one, and some that had one; the timer runs if there are any
	timer *time.Timer             // sends what is held; nil until something was
	delay time.Duration
}

const (
	connBits = 7
	ackDelay = 400 * time.Microsecond
	ackSize  = wire.EthernetLen + header.IPv6MinimumSize + header.TCPMinimumSize + 12 // with a timestamp
)

// connAcks is what a connection acknowledged.
type connAcks struct {
	conn   connID
	known  bool         // if said is of this connection
	said   seqnum.Value // last, in what was sent or is held
	sent   seqnum.Value // last
	listed bool         // among those that may have one
	n      int          // bytes of the frame that is held; 0 if none is
	frame  [ackSize]byte
}

// connID is a connection: the addresses and the ports, as a packet has them.
type connID struct {
	addrs [2 * header.IPv6AddressSize]byte
	ports [4]byte
}

// ident gives the connection that a packet of TCP is of.
func ident(p *stack.PacketBuffer) (c connID, tcp header.TCP, ok bool) {
	net, tcp := p.NetworkHeader().Slice(), header.TCP(p.TransportHeader().Slice())
	if len(tcp) < header.TCPMinimumSize {
		return c, tcp, false
	}
	copy(c.ports[:], tcp)
	switch {
	case p.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(net) >= header.IPv4MinimumSize:
		copy(c.addrs[:], net[12:20])
	case p.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(net) >= header.IPv6MinimumSize:
		copy(c.addrs[:], net[8:40])
	default:
		return c, tcp, false
	}
	return c, tcp, true
}

// hold keeps a packet that is an acknowledgement and can wait; false says that it has to be sent now. The lane's lock is held.
func (n *lane) hold(p *stack.PacketBuffer, mac [6]byte) bool {
	if p.TransportProtocolNumber != header.TCPProtocolNumber {
		return false
	}
	c, tcp, ok := ident(p)
	if !ok {
		return false
	}
	a := &n.acks.conns[p.Hash&(1<<connBits-1)]
	if a.conn != c {
		n.let(a)
		a.conn, a.known = c, false
	}
	known, said, sent, now := a.known, a.said, a.sent, seqnum.Value(tcp.AckNumber())
	a.known, a.said, a.sent = tcp.Flags().Contains(header.TCPFlagAck), now, now
	switch size := p.Size() + wire.EthernetLen; {
	case !known || !a.known || now.LessThan(said):
		n.let(a)
	case tcp.Flags() != header.TCPFlagAck || p.Data().Size() > 0: // it says what is held, too
		a.n = 0
	case now == said || tcp.WindowSize() == 0 || header.ParseTCPOptions(tcp.Options()).SACKBlocks != nil || size > ackSize:
		n.let(a)
	case a.n > 0 || sent.Size(now) > seqnum.Size(n.link.MTU()): // who sends much waits for it
		a.n = 0
	default:
		a.sent = sent
		a.n = size
		whole := newCut(p)
		n.link.fill(a.frame[:size], &whole, mac, uint16(p.NetworkProtocolNumber))
		n.remember(a)
		return true
	}
	return false
}

// let sends what is held of a connection.
func (n *lane) let(a *connAcks) {
	if a.n > 0 && !n.link.ended.Load() {
		n.sendFrame(a.frame[:a.n], true)
		a.n, a.sent = 0, a.said
	}
}

// remember has what is held be sent if nothing takes its place.
func (n *lane) remember(a *connAcks) {
	h := &n.acks
	if a.listed {
		return
	}
	a.listed, h.held = true, append(h.held, a)
	switch {
	case h.timer == nil:
		h.timer = time.AfterFunc(h.delay, n.expire)
	case len(h.held) == 1:
		h.timer.Reset(h.delay)
	}
}

// expire sends what is held.
func (n *lane) expire() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, a := range n.acks.held {
		a.listed = false
		n.let(a)
	}
	n.acks.held = n.acks.held[:0]
	if n.put > 0 && !n.link.ended.Load() {
		n.tell()
	}
}
