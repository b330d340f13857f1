package header

import (
	"encoding/binary"
	"net/netip"
)

// Protocols over IP (IANA).
const (
	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIGMP     = 2
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoGRE      = 47
	ProtoESP      = 50
	ProtoAH       = 51
	ProtoICMPv6   = 58
	ProtoNone     = 59
	ProtoDstOpts  = 60
	ProtoSCTP     = 132
	ProtoMobility = 135
	ProtoMPLS     = 137
)

// Lengths of the fixed parts, in bytes.
const (
	IPv4Len = 20
	IPv6Len = 40
)

// IPv4 is an IPv4 header with its options (RFC 791), HeaderLen bytes.
type IPv4 []byte

// HeaderLen gives the length of the header in bytes, options counted; less than IPv4Len is an error of the sender's.
func (h IPv4) HeaderLen() int { return int(h[0]&0xf) * 4 }

// TOS gives DSCP and ECN.
func (h IPv4) TOS() uint8 { return h[1] }

// TotalLen gives the length of header and payload in bytes; 0 in a packet the device was to cut up.
func (h IPv4) TotalLen() int { return int(binary.BigEndian.Uint16(h[2:])) }

// ID gives the identification, equal in all fragments of a packet.
func (h IPv4) ID() uint16 { return binary.BigEndian.Uint16(h[4:]) }

// DontFragment says that routers must not cut the packet up.
func (h IPv4) DontFragment() bool { return h[6]&0x40 != 0 }

// MoreFragments says that this is not the last fragment.
func (h IPv4) MoreFragments() bool { return h[6]&0x20 != 0 }

// FragmentOffset gives the place of a fragment's payload in bytes.
func (h IPv4) FragmentOffset() int { return int(binary.BigEndian.Uint16(h[6:])&0x1fff) * 8 }

// Fragment says if this is not a whole packet.
func (h IPv4) Fragment() bool { return binary.BigEndian.Uint16(h[6:])&0x3fff != 0 }

// TTL gives the time to live.
func (h IPv4) TTL() uint8 { return h[8] }

// Proto gives the protocol of the payload.
func (h IPv4) Proto() uint8 { return h[9] }

// Checksum gives the header's checksum as it stands there.
func (h IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(h[10:]) }

// Src gives the sender's address.
func (h IPv4) Src() netip.Addr { return netip.AddrFrom4([4]byte(h[12:16])) }

// Dst gives the receiver's address.
func (h IPv4) Dst() netip.Addr { return netip.AddrFrom4([4]byte(h[16:20])) }

// Options gives the bytes of the options.
func (h IPv4) Options() []byte { return h[IPv4Len:h.HeaderLen()] }

// IPv6 is the fixed header of IPv6 (RFC 8200), IPv6Len bytes.
type IPv6 []byte

// TrafficClass gives DSCP and ECN.
func (h IPv6) TrafficClass() uint8 { return h[0]<<4 | h[1]>>4 }

// FlowLabel gives the flow label.
func (h IPv6) FlowLabel() uint32 { return binary.BigEndian.Uint32(h) & 0xfffff }

// PayloadLen gives the length of what follows, extension headers counted; 0 with a jumbo payload.
func (h IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(h[4:])) }

// NextHeader gives the protocol of what follows: an extension header or the payload.
func (h IPv6) NextHeader() uint8 { return h[6] }

// HopLimit gives what IPv4 calls time to live.
func (h IPv6) HopLimit() uint8 { return h[7] }

// Src gives the sender's address.
func (h IPv6) Src() netip.Addr { return netip.AddrFrom16([16]byte(h[8:24])) }

// Dst gives the receiver's address.
func (h IPv6) Dst() netip.Addr { return netip.AddrFrom16([16]byte(h[24:40])) }

// Extension is an extension header of IPv6 (RFC 8200), or an authentication header (RFC 4302), at least 8 bytes.
type Extension []byte

// NextHeader gives the protocol of what follows.
func (h Extension) NextHeader() uint8 { return h[0] }

// FragmentOffset gives the place of a fragment's payload in bytes; the header is one of ProtoFragment.
func (h Extension) FragmentOffset() int { return int(binary.BigEndian.Uint16(h[2:]) & 0xfff8) }

// MoreFragments says that this is not the last fragment; the header is one of ProtoFragment.
func (h Extension) MoreFragments() bool { return h[3]&1 != 0 }

// FragmentID is equal in all fragments of a packet; the header is one of ProtoFragment.
func (h Extension) FragmentID() uint32 { return binary.BigEndian.Uint32(h[4:]) }
