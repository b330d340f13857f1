package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// complete writes the checksum of TCP or UDP into a packet that needs none: whoever sent it left that to a device it never came to (Linux's
// CHECKSUM_PARTIAL), or a device has verified it. gVisor's IP believes that of a whole device only, and would find it wrong. Fragments and
// packets with headers of IPv6 between are never left so.
func complete(proto tcpip.NetworkProtocolNumber, b []byte) {
	var of tcpip.TransportProtocolNumber
	var from, to, data []byte
	switch {
	case proto == header.IPv4ProtocolNumber && len(b) >= header.IPv4MinimumSize:
		ip := header.IPv4(b)
		at, total := int(ip.HeaderLength()), int(ip.TotalLength())
		if ip.More() || ip.FragmentOffset() != 0 || at < header.IPv4MinimumSize || at > total || total > len(b) {
			return
		}
		of, from, to, data = ip.TransportProtocol(), ip.SourceAddressSlice(), ip.DestinationAddressSlice(), b[at:total]
	case proto == header.IPv6ProtocolNumber && len(b) >= header.IPv6MinimumSize:
		ip := header.IPv6(b)
		total := header.IPv6MinimumSize + int(ip.PayloadLength())
		if total > len(b) {
			return
		}
		of, from, to = tcpip.TransportProtocolNumber(ip.NextHeader()), ip.SourceAddressSlice(), ip.DestinationAddressSlice()
		data = b[header.IPv6MinimumSize:total]
	}
	var sum []byte
	switch {
	case of == header.TCPProtocolNumber && len(data) >= header.TCPMinimumSize:
		sum = data[header.TCPChecksumOffset:][:checksum.Size]
	case of == header.UDPProtocolNumber && len(data) >= header.UDPMinimumSize:
		if sum = data[6:][:checksum.Size]; proto == header.IPv4ProtocolNumber && sum[0] == 0 && sum[1] == 0 { // none (RFC 768)
			return
		}
	default:
		return
	}
	seal(of, from, to, data, sum)
}

// seal writes the checksum of what a protocol sends between two addresses; sum is its place in data.
func seal(of tcpip.TransportProtocolNumber, from, to, data, sum []byte) {
	checksum.Put(sum, 0)
	n := checksum.Combine(checksum.Checksum(from, 0), checksum.Checksum(to, 0))
	n = checksum.Combine(n, uint16(of))
	n = checksum.Combine(n, uint16(len(data)))
	n = ^checksum.Checksum(data, n)
	if of == header.UDPProtocolNumber && n == 0 {
		n = 0xffff
	}
	checksum.Put(sum, n)
}
