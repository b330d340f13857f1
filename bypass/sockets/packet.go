package sockets

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/fathom-trace/fathom/wire/header"
)

// datagram is a packet of UDP.
type datagram struct {
	from, to netip.AddrPort
	payload  []byte
}

// parseDatagram reads a packet of IP that is a whole datagram; ok is false for others.
func parseDatagram(b []byte) (d datagram, ok bool) {
	if len(b) == 0 {
		return d, false
	}
	var src, dst netip.Addr
	switch b[0] >> 4 {
	case 4:
		h := header.IPv4(b)
		if len(b) < header.IPv4Len || h.HeaderLen() < header.IPv4Len || h.HeaderLen() > h.TotalLen() || h.TotalLen() > len(b) || h.Fragment() || h.Proto() != unix.IPPROTO_UDP {
			return d, false
		}
		src, dst, b = h.Src(), h.Dst(), b[h.HeaderLen():h.TotalLen()]
	case 6:
		h := header.IPv6(b)
		if len(b) < header.IPv6Len || header.IPv6Len+h.PayloadLen() > len(b) || h.NextHeader() != unix.IPPROTO_UDP {
			return d, false
		}
		src, dst, b = h.Src(), h.Dst(), b[header.IPv6Len:header.IPv6Len+h.PayloadLen()]
	default:
		return d, false
	}
	if len(b) < header.UDPLen {
		return d, false
	}
	size := int(binary.BigEndian.Uint16(b[4:]))
	if size < header.UDPLen || size > len(b) {
		return d, false
	}
	u := header.UDP(b)
	return datagram{netip.AddrPortFrom(src, u.SrcPort()), netip.AddrPortFrom(dst, u.DstPort()), b[header.UDPLen:size]}, true
}

// bytes is the datagram as a packet of IP.
func (d datagram) bytes() []byte {
	b := make([]byte, 0, header.IPv6Len+header.UDPLen+len(d.payload))
	b = ipHeader(b, d.from.Addr(), d.to.Addr(), unix.IPPROTO_UDP, header.UDPLen+len(d.payload))
	at := len(b)
	b = binary.BigEndian.AppendUint16(b, d.from.Port())
	b = binary.BigEndian.AppendUint16(b, d.to.Port())
	b = binary.BigEndian.AppendUint16(b, uint16(header.UDPLen+len(d.payload)))
	b = append(append(b, 0, 0), d.payload...)
	sum := header.Fold(pseudoSum(d.from.Addr(), d.to.Addr(), unix.IPPROTO_UDP, b[at:]))
	if sum == 0 {
		sum = 0xffff // 0 says that there is none
	}
	binary.BigEndian.PutUint16(b[at+6:], sum)
	return b
}

// unreachable is the error of ICMP that a datagram, which stands for what was sent, met at a host.
func (d datagram) unreachable(at netip.Addr, kind, code uint8, info uint32) []byte {
	quoted := d.bytes()
	proto := uint8(unix.IPPROTO_ICMP)
	if at.Is6() {
		proto = unix.IPPROTO_ICMPV6
	}
	b := ipHeader(nil, at, d.from.Addr(), proto, header.ICMPLen+len(quoted))
	start := len(b)
	b = append(b, kind, code, 0, 0)
	b = append(binary.BigEndian.AppendUint32(b, info), quoted...)
	sum := header.Sum(0, b[start:])
	if at.Is6() {
		sum = pseudoSum(at, d.from.Addr(), proto, b[start:])
	}
	binary.BigEndian.PutUint16(b[start+2:], header.Fold(sum))
	return b
}

// ipHeader appends IP's header of a payload of n bytes.
func ipHeader(b []byte, from, to netip.Addr, proto uint8, n int) []byte {
	if from.Is4() {
		at := len(b)
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(header.IPv4Len+n))
		b = append(b, 0, 0, 0x40, 0, 64, proto, 0, 0) // do not fragment
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
		binary.BigEndian.PutUint16(b[at+10:], header.IPv4(b[at:]).Compute())
		return b
	}
	b = binary.BigEndian.AppendUint16(append(b, 0x60, 0, 0, 0), uint16(n))
	b = append(b, proto, 64)
	return append(append(b, from.AsSlice()...), to.AsSlice()...)
}

// pseudoSum sums a payload with IP's pseudo header.
func pseudoSum(from, to netip.Addr, proto uint8, b []byte) uint64 {
	sum := header.Sum(header.Sum(uint64(proto)+uint64(len(b)), from.AsSlice()), to.AsSlice())
	return header.Sum(sum, b)
}
