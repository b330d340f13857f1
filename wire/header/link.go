package header

import (
	"encoding/binary"
	"net/netip"
)

// EtherTypes (IEEE; include/uapi/linux/if_ether.h).
const (
	EtherTypeIPv4  = 0x0800
	EtherTypeARP   = 0x0806
	EtherTypeTEB   = 0x6558 // Ethernet inside a tunnel
	EtherTypeRARP  = 0x8035
	EtherTypeVLAN  = 0x8100
	EtherTypeIPv6  = 0x86dd
	EtherTypeMPLS  = 0x8847
	EtherTypePPPoE = 0x8864
	EtherTypeQinQ  = 0x88a8
	EtherTypeQinQ1 = 0x9100 // QinQ before it was a standard
)

// Lengths of the fixed parts, in bytes.
const (
	EthernetLen = 14
	VLANLen     = 4
	MPLSLen     = 4
	PPPoELen    = 8
	ARPLen      = 28 // for IPv4 over Ethernet
)

// Ethernet is the header of a frame, EthernetLen bytes.
type Ethernet []byte

// Dst gives the receiver's address.
func (h Ethernet) Dst() [6]byte { return [6]byte(h[0:6]) }

// Src gives the sender's address.
func (h Ethernet) Src() [6]byte { return [6]byte(h[6:12]) }

// Type gives the EtherType; up to 1500 it is a length, and IEEE 802.2 follows.
func (h Ethernet) Type() uint16 { return binary.BigEndian.Uint16(h[12:]) }

// VLAN is an 802.1Q tag behind its EtherType, VLANLen bytes.
type VLAN []byte

// ID gives the VLAN's number.
func (h VLAN) ID() uint16 { return binary.BigEndian.Uint16(h) & 0xfff }

// Priority gives the priority code point.
func (h VLAN) Priority() uint8 { return h[0] >> 5 }

// DropEligible gives the drop eligible indicator.
func (h VLAN) DropEligible() bool { return h[0]&0x10 != 0 }

// Type gives the EtherType of what follows.
func (h VLAN) Type() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// MPLS is one entry of a label stack (RFC 3032), MPLSLen bytes.
type MPLS []byte

// Label gives the label's number.
func (h MPLS) Label() uint32 { return binary.BigEndian.Uint32(h) >> 12 }

// Class gives the traffic class.
func (h MPLS) Class() uint8 { return h[2] >> 1 & 7 }

// Bottom says if it is the last of the stack.
func (h MPLS) Bottom() bool { return h[2]&1 != 0 }

// TTL gives the time to live.
func (h MPLS) TTL() uint8 { return h[3] }

// PPPoE is a PPPoE session header (RFC 2516) with the protocol field of PPP, PPPoELen bytes.
type PPPoE []byte

// Session gives the session's number.
func (h PPPoE) Session() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// Proto gives PPP's protocol: 0x21 is IPv4, 0x57 IPv6.
func (h PPPoE) Proto() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// ARP is an ARP or RARP packet for IPv4 over Ethernet (RFC 826), ARPLen bytes.
type ARP []byte

// Operations of ARP.
const (
	ARPRequest  = 1
	ARPReply    = 2
	RARPRequest = 3
	RARPReply   = 4
)

// Op gives the operation.
func (h ARP) Op() uint16 { return binary.BigEndian.Uint16(h[6:]) }

// SenderMAC gives the sender's Ethernet address.
func (h ARP) SenderMAC() [6]byte { return [6]byte(h[8:14]) }

// Sender gives the sender's IPv4 address.
func (h ARP) Sender() netip.Addr { return netip.AddrFrom4([4]byte(h[14:18])) }

// TargetMAC gives the target's Ethernet address: zero in a request.
func (h ARP) TargetMAC() [6]byte { return [6]byte(h[18:24]) }

// Target gives the target's IPv4 address.
func (h ARP) Target() netip.Addr { return netip.AddrFrom4([4]byte(h[24:28])) }
