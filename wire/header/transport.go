package header

import (
	"encoding/binary"
)

// Lengths of the fixed parts, in bytes.
const (
	TCPLen  = 20
	UDPLen  = 8
	SCTPLen = 12
	ICMPLen = 8
)

// TCP is a TCP header with its options (RFC 9293), HeaderLen bytes.
type TCP []byte

// Flags of TCP.
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
	URG
	ECE
	CWR
)

// SrcPort gives the sender's port.
func (h TCP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// DstPort gives the receiver's port.
func (h TCP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Seq gives the sequence number of the first byte of the payload, or of SYN.
func (h TCP) Seq() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// Ack gives the sequence number the sender expects next; it means something with the flag ACK.
func (h TCP) Ack() uint32 { return binary.BigEndian.Uint32(h[8:]) }

// HeaderLen gives the length of the header in bytes, options counted; less than TCPLen is an error of the sender's.
func (h TCP) HeaderLen() int { return int(h[12]>>4) * 4 }

// Flags gives the flags, FIN … CWR.
func (h TCP) Flags() uint8 { return h[13] }

// Window gives the window as it stands there, not scaled.
func (h TCP) Window() uint16 { return binary.BigEndian.Uint16(h[14:]) }

// Checksum gives the checksum as it stands there.
func (h TCP) Checksum() uint16 { return binary.BigEndian.Uint16(h[16:]) }

// Urgent gives the urgent pointer; it means something with the flag URG.
func (h TCP) Urgent() uint16 { return binary.BigEndian.Uint16(h[18:]) }

// Options gives the bytes of the options.
func (h TCP) Options() []byte { return h[TCPLen:h.HeaderLen()] }

// Kinds of TCP options.
const (
	OptEnd       = 0
	OptNop       = 1
	OptMSS       = 2
	OptScale     = 3
	OptSackOK    = 4
	OptSack      = 5
	OptTimestamp = 8
)

// NextOption gives the first option of opts, its data without kind and length, and the rest. ok is false at the end of the list
// and where an option is longer than what is left.
func NextOption(opts []byte) (kind uint8, data, rest []byte, ok bool) {
	switch {
	case len(opts) == 0 || opts[0] == OptEnd:
		return 0, nil, nil, false
	case opts[0] == OptNop:
		return OptNop, nil, opts[1:], true
	case len(opts) < 2 || opts[1] < 2 || int(opts[1]) > len(opts):
		return 0, nil, nil, false
	}
	return opts[0], opts[2:opts[1]], opts[opts[1]:], true
}

// UDP is a UDP header (RFC 768), UDPLen bytes.
type UDP []byte

// SrcPort gives the sender's port.
func (h UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// DstPort gives the receiver's port.
func (h UDP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Len gives the length of header and payload in bytes.
func (h UDP) Len() int { return int(binary.BigEndian.Uint16(h[4:])) }

// Checksum gives the checksum as it stands there; 0 is none.
func (h UDP) Checksum() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// SCTP is the common header of SCTP (RFC 9260), SCTPLen bytes.
type SCTP []byte

// SrcPort gives the sender's port.
func (h SCTP) SrcPort() uint16 { return binary.BigEndian.Uint16(h) }

// DstPort gives the receiver's port.
func (h SCTP) DstPort() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Tag gives the verification tag.
func (h SCTP) Tag() uint32 { return binary.BigEndian.Uint32(h[4:]) }

// Checksum gives the CRC-32C as it stands there, which is little-endian.
func (h SCTP) Checksum() uint32 { return binary.LittleEndian.Uint32(h[8:]) }

// ICMP is the header of ICMP (RFC 792) or ICMPv6 (RFC 4443), ICMPLen bytes.
type ICMP []byte

// Types of ICMP.
const (
	ICMPEchoReply    = 0
	ICMPUnreachable  = 3
	ICMPRedirect     = 5
	ICMPEcho         = 8
	ICMPTimeExceeded = 11

	ICMPv6Unreachable  = 1
	ICMPv6TooBig       = 2
	ICMPv6TimeExceeded = 3
	ICMPv6Echo         = 128
	ICMPv6EchoReply    = 129
	ICMPv6RouterSol    = 133
	ICMPv6RouterAdv    = 134
	ICMPv6NeighborSol  = 135
	ICMPv6NeighborAdv  = 136
)

// Type gives the type of message.
func (h ICMP) Type() uint8 { return h[0] }

// Code says more about the type.
func (h ICMP) Code() uint8 { return h[1] }

// Checksum gives the checksum as it stands there.
func (h ICMP) Checksum() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// ID gives the identifier of an echo message.
func (h ICMP) ID() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// Seq gives the sequence number of an echo message.
func (h ICMP) Seq() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// MTU gives the next hop's MTU in a "fragmentation needed" of IPv4.
func (h ICMP) MTU() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// MTU6 gives the MTU in a "packet too big" of IPv6.
func (h ICMP) MTU6() uint32 { return binary.BigEndian.Uint32(h[4:]) }
