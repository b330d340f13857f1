package netstack

import (
	"bytes"

	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/seqnum"

	wire "github.com/fathom-trace/fathom/wire/header"
)

// supersedes says if packet b, which came right behind a, acknowledges more of the same connection, and a did nothing else: then a need not
// be told. Who sends much gets an acknowledgement for every second packet, many of them at once, and gVisor would send two packets at each
// where it can send forty at the last. One that may be a duplicate, or says what arrived behind a hole, is told.
func supersedes(b, a []byte) bool {
	conn, ack := acknowledgement(a)
	if ack == nil {
		return false
	}
	conn2, ack2 := acknowledgement(b)
	return ack2 != nil && bytes.Equal(conn, conn2) && ack.SequenceNumber() == ack2.SequenceNumber() &&
		seqnum.Value(ack.AckNumber()).LessThan(seqnum.Value(ack2.AckNumber()))
}

// timestamp is how the options of TCP begin where there is nothing else than a timestamp: behind two that do nothing (RFC 7323, appendix A).
var timestamp = []byte{header.TCPOptionNOP, header.TCPOptionNOP, header.TCPOptionTS, header.TCPOptionTSLength}

// acknowledgement gives the addresses and ports, and TCP's header, of a packet that is an acknowledgement and nothing else: without data, flags
// or options but a timestamp. nil if it is another.
func acknowledgement(frame []byte) (conn []byte, tcp header.TCP) {
	if len(frame) < wire.EthernetLen+header.IPv4MinimumSize {
		return nil, nil
	}
	b := frame[wire.EthernetLen:]
	const ports = 4
	switch wire.Ethernet(frame).Type() {
	case uint16(header.IPv4ProtocolNumber):
		ip := header.IPv4(b)
		end := int(ip.TotalLength())
		if ip.HeaderLength() != header.IPv4MinimumSize || ip.TransportProtocol() != header.TCPProtocolNumber || ip.More() || ip.FragmentOffset() != 0 ||
			end < header.IPv4MinimumSize+header.TCPMinimumSize || end > len(b) {
			return nil, nil
		}
		conn, tcp = b[header.IPv4MinimumSize-2*header.IPv4AddressSize:header.IPv4MinimumSize+ports], header.TCP(b[header.IPv4MinimumSize:end])
	case uint16(header.IPv6ProtocolNumber):
		ip := header.IPv6(b)
		if len(b) < header.IPv6MinimumSize+header.TCPMinimumSize || ip.NextHeader() != uint8(header.TCPProtocolNumber) {
			return nil, nil
		}
		end := header.IPv6MinimumSize + int(ip.PayloadLength())
		if end < header.IPv6MinimumSize+header.TCPMinimumSize || end > len(b) {
			return nil, nil
		}
		conn, tcp = b[header.IPv6MinimumSize-2*header.IPv6AddressSize:header.IPv6MinimumSize+ports], header.TCP(b[header.IPv6MinimumSize:end])
	default:
		return nil, nil
	}
	if tcp.Flags() != header.TCPFlagAck || int(tcp.DataOffset()) != len(tcp) {
		return nil, nil
	}
	if opts := tcp[header.TCPMinimumSize:]; len(opts) > 0 && (len(opts) != 12 || !bytes.HasPrefix(opts, timestamp)) {
		return nil, nil
	}
	return conn, tcp
}
