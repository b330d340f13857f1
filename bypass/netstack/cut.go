package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// cut makes of a packet of gVisor's what goes over the wire: packets of IP that are no longer than the MTU. gVisor gives up to 64 KiB of a
// connection at once, with one header, whose checksum is left to the device (what Linux calls TSO); what it does for each packet, it then
// does once for forty.
type cut struct {
	parts    [][]byte // of the packet, from what comes next
	net, tcp []byte   // the headers of one that is cut, or has a checksum to be made; else nil
	v6       bool
	mss      int // data in each
	size     int // data, or the whole packet if it goes as it is
	at       int // of it, how much went
}

// newCut begins a packet.
func newCut(p *stack.PacketBuffer) cut {
	if !p.GSOOptions.NeedsCsum {
		return cut{parts: p.AsSlices(), size: p.Size(), mss: p.Size()}
	}
	c := cut{net: p.NetworkHeader().Slice(), tcp: p.TransportHeader().Slice(), v6: p.NetworkProtocolNumber == header.IPv6ProtocolNumber, size: p.Data().Size()}
	if c.size > 0 {
		c.parts = p.AsSlices()
		c.skip(len(c.net) + len(c.tcp))
	}
	c.mss = c.size
	if mss := int(p.GSOOptions.MSS); mss > 0 && mss < c.size {
		c.mss = mss
	}
	return c
}

// pieces says how many packets it makes.
func (c *cut) pieces() int {
	if c.mss == 0 { // headers alone
		return 1
	}
	return (c.size + c.mss - 1) / c.mss
}

// next says how long the next packet is.
func (c *cut) next() int { return len(c.net) + len(c.tcp) + min(c.mss, c.size-c.at) }

// fill writes the next packet.
func (c *cut) fill(b []byte) {
	n := min(c.mss, c.size-c.at)
	if c.net == nil {
		c.take(b[:n])
		c.at += n
		return
	}
	tcp := header.TCP(b[copy(b, c.net):])
	data := tcp[copy(tcp, c.tcp):]
	c.take(data[:n])
	tcp.SetSequenceNumber(tcp.SequenceNumber() + uint32(c.at))
	var from, to []byte
	if ip := header.IPv4(b); c.v6 {
		ip := header.IPv6(b)
		ip.SetPayloadLength(uint16(len(c.net) - header.IPv6MinimumSize + len(c.tcp) + n))
		from, to = ip.SourceAddressSlice(), ip.DestinationAddressSlice()
	} else {
		ip.SetTotalLength(uint16(len(c.net) + len(c.tcp) + n))
		ip.SetID(ip.ID() + uint16(c.at/max(c.mss, 1)))
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
		from, to = ip.SourceAddressSlice(), ip.DestinationAddressSlice()
	}
	if c.at += n; c.at < c.size { // these are said by the last
		tcp.SetFlags(uint8(tcp.Flags() &^ (header.TCPFlagFin | header.TCPFlagPsh)))
	}
	seal(header.TCPProtocolNumber, from, to, tcp[:len(c.tcp)+n], tcp[header.TCPChecksumOffset:])
}

// take copies what comes next.
func (c *cut) take(b []byte) {
	for len(b) > 0 && len(c.parts) > 0 {
		n := copy(b, c.parts[0])
		b = b[n:]
		c.skip(n)
	}
}

// skip passes over what comes next.
func (c *cut) skip(n int) {
	for n > 0 && len(c.parts) > 0 {
		if n < len(c.parts[0]) {
			c.parts[0] = c.parts[0][n:]
			return
		}
		n -= len(c.parts[0])
		c.parts = c.parts[1:]
	}
}
