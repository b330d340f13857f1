package netstack

import (
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
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
)

// connAcks is what a connection acknowledged.
type connAcks struct {
	conn   connID
	known  bool         // if said is of this connection
	said   seqnum.Value // last, in what was sent or is held
	sent   seqnum.Value // last
	listed bool         // among those that may have one
	held   *stack.PacketBuffer
	mac    [6]byte // where what is held goes
}

// drop forgets what is held.
func (a *connAcks) drop() {
	if a.held != nil {
		a.held.DecRef()
		a.held = nil
	}
}

// ident gives the connection that a packet of TCP, to be sent, is of.
func ident(p *stack.PacketBuffer) (c connID, tcp header.TCP, ok bool) {
	net, tcp := p.NetworkHeader().Slice(), header.TCP(p.TransportHeader().Slice())
	if len(tcp) < header.TCPMinimumSize {
		return c, tcp, false
	}
	copy(c.ports(), tcp)
	switch {
	case p.NetworkProtocolNumber == header.IPv4ProtocolNumber && len(net) >= header.IPv4MinimumSize:
		copy(c[:], net[12:20])
	case p.NetworkProtocolNumber == header.IPv6ProtocolNumber && len(net) >= header.IPv6MinimumSize:
		copy(c[:], net[8:40])
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
	if tcp.Flags()&(header.TCPFlagAck|header.TCPFlagSyn|header.TCPFlagRst) == header.TCPFlagAck {
		n.link.flows.sent(&c)
	}
	a := &n.acks.conns[p.Hash&(1<<connBits-1)]
	if a.conn != c {
		n.let(a)
		a.conn, a.known = c, false
	}
	known, said, sent, now := a.known, a.said, a.sent, seqnum.Value(tcp.AckNumber())
	a.known, a.said, a.sent = tcp.Flags().Contains(header.TCPFlagAck), now, now
	switch {
	case !known || !a.known || now.LessThan(said):
		n.let(a)
	case tcp.Flags() != header.TCPFlagAck || p.Data().Size() > 0: // it says what is held, too
		a.drop()
	case now == said || tcp.WindowSize() == 0 || header.ParseTCPOptions(tcp.Options()).SACKBlocks != nil:
		n.let(a)
	case a.held != nil || sent.Size(now) > seqnum.Size(n.link.MTU()): // who sends much waits for it
		a.drop()
	default:
		a.sent, a.held, a.mac = sent, p.IncRef(), mac
		n.remember(a)
		return true
	}
	return false
}

// let sends what is held of a connection.
func (n *lane) let(a *connAcks) {
	if a.held == nil {
		return
	}
	if !n.link.ended.Load() {
		c := newCut(a.held)
		n.write(&c, a.mac, uint16(a.held.NetworkProtocolNumber), true)
		a.sent = a.said
	}
	a.drop()
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
