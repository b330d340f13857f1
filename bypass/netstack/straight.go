package netstack

import (
	"hash/maphash"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// What comes of a connection goes straight to gVisor's TCP: IP has nothing to decide about a packet without options of its own, whose
// connection gVisor has sent packets of. Its layer would ask, with a lock for each question, whether the address is one of the device's and
// whether a filter wants it, which is a tenth of a round trip.

// connID is a connection: both addresses, ours first, and both ports. IPv4 leaves the rest of its addresses' room empty.
type connID [2*header.IPv6AddressSize + 4]byte

// ports is where they are.
func (c *connID) ports() []byte { return c[2*header.IPv6AddressSize:] }

// flows are the connections that something was sent of, as many as there is room for: another one takes the place of one.
type flows struct {
	seed maphash.Seed
	at   [1 << flowBits]atomic.Pointer[connID]
}

const flowBits = 12

func (f *flows) place(c *connID) *atomic.Pointer[connID] {
	return &f.at[maphash.Bytes(f.seed, c[:])&(1<<flowBits-1)]
}

// sent remembers a connection.
func (f *flows) sent(c *connID) {
	if at := f.place(c); at.Load() == nil || *at.Load() != *c {
		one := *c
		at.Store(&one)
	}
}

// known says if something was sent of a connection.
func (f *flows) known(c *connID) bool {
	has := f.place(c).Load()
	return has != nil && *has == *c
}

// forget is for when addresses change.
func (f *flows) forget() {
	for i := range f.at {
		f.at[i].Store(nil)
	}
}

// part is what is to be known of a packet of a connection to give it to TCP.
type part struct {
	conn  connID
	net   int // bytes of IP's header
	tcp   int // bytes of TCP's
	total int // bytes of the packet, without what fills up its frame
}

// partOf reads the headers of a packet of IP, of which b is the beginning and size the whole. It is none of a connection, or IP's to look
// at, if it begins one, is a fragment, has options of IP, or another length than it says.
func partOf(proto tcpip.NetworkProtocolNumber, b []byte, size int) (p part, ok bool) {
	switch proto {
	case header.IPv4ProtocolNumber:
		ip := header.IPv4(b)
		if len(b) < header.IPv4MinimumSize+header.TCPMinimumSize || b[0] != 4<<4|header.IPv4MinimumSize/4 ||
			ip.TransportProtocol() != header.TCPProtocolNumber || ip.More() || ip.FragmentOffset() != 0 {
			return p, false
		}
		p.net, p.total = header.IPv4MinimumSize, int(ip.TotalLength())
		copy(p.conn[:], b[16:20])
		copy(p.conn[4:], b[12:16])
	case header.IPv6ProtocolNumber:
		ip := header.IPv6(b)
		if len(b) < header.IPv6MinimumSize+header.TCPMinimumSize || b[0]>>4 != 6 || ip.NextHeader() != uint8(header.TCPProtocolNumber) {
			return p, false
		}
		p.net, p.total = header.IPv6MinimumSize, header.IPv6MinimumSize+int(ip.PayloadLength())
		copy(p.conn[:], b[24:40])
		copy(p.conn[16:], b[8:24])
	default:
		return p, false
	}
	tcp := header.TCP(b[p.net:])
	p.tcp = int(tcp.DataOffset())
	copy(p.conn.ports(), tcp[2:4])
	copy(p.conn.ports()[2:], tcp[:2])
	return p, p.tcp >= header.TCPMinimumSize && p.net+p.tcp <= p.total && p.total <= size && p.net+p.tcp <= len(b) && !tcp.Flags().Contains(header.TCPFlagSyn)
}

// inward gives packets to gVisor: to TCP those that can go straight there, the others to IP.
type inward struct {
	stack.NetworkDispatcher
	tcp   transport // of the same; nil if it has none
	flows *flows
}

// transport is the way past IP that gVisor's device has (stack.TransportDispatcher).
type transport interface {
	DeliverTransportPacket(tcpip.TransportProtocolNumber, *stack.PacketBuffer) stack.TransportPacketDisposition
}

// DeliverNetworkPacket is for packets that were put together of several.
func (i *inward) DeliverNetworkPacket(proto tcpip.NetworkProtocolNumber, p *stack.PacketBuffer) {
	const most = header.IPv6MinimumSize + header.TCPHeaderMaximumSize
	size := p.Data().Size()
	if b, ok := p.Data().PullUp(min(size, most)); ok {
		if t, ok := partOf(proto, b, size); ok && i.takes(&t, b, p.RXChecksumValidated) {
			i.give(&t, p)
			return
		}
	}
	i.NetworkDispatcher.DeliverNetworkPacket(proto, p)
}

// takes says if a packet can go straight to TCP. A header of IPv4 that nobody has verified is verified here; what is wrong with one is IP's to count.
func (i *inward) takes(t *part, b []byte, sound bool) bool {
	return i.tcp != nil && i.flows.known(&t.conn) && (sound || t.net != header.IPv4MinimumSize || header.IPv4(b).IsChecksumValid())
}

// give does what IP does before TCP gets a packet. Nobody else than TCP is ever told of one for a port that is none: it answers with a reset.
func (i *inward) give(t *part, p *stack.PacketBuffer) {
	p.Data().CapLength(t.total)
	p.NetworkHeader().Consume(t.net)
	p.TransportHeader().Consume(t.tcp)
	p.TransportProtocolNumber, p.NICID = header.TCPProtocolNumber, nic
	i.tcp.DeliverTransportPacket(header.TCPProtocolNumber, p)
}
