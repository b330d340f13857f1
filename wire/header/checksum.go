package header

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
)

// Sum adds bytes to a sum of 16-bit words, the first byte of b being the upper half of one (RFC 1071).
func Sum(sum uint64, b []byte) uint64 {
	for ; len(b) >= 8; b = b[8:] {
		var carry uint64
		sum, carry = bits.Add64(sum, binary.BigEndian.Uint64(b), 0)
		sum += carry // the sum of ones' complement is the same in words of 64 bits
	}
	for ; len(b) >= 2; b = b[2:] {
		sum = add(sum, uint64(binary.BigEndian.Uint16(b)))
	}
	if len(b) == 1 {
		sum = add(sum, uint64(b[0])<<8)
	}
	return sum
}

func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	return sum + carry
}

// Fold gives the checksum of a sum: its ones' complement in 16 bits.
func Fold(sum uint64) uint16 {
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// pseudo starts a sum with the pseudo header of the innermost IP header in ip, for a payload of n bytes.
func pseudo(ip []byte, proto uint8, n int) uint64 {
	addrs := ip[12:20]
	if ip[0]>>4 == 6 {
		addrs = ip[8:40]
	}
	return add(Sum(0, addrs), uint64(proto)+uint64(n))
}

// Compute gives the checksum of an IPv4 header, as it should be.
func (h IPv4) Compute() uint16 { return Fold(without(0, h[:h.HeaderLen()], 10)) }

// without sums b with 0 for the checksum at off.
func without(sum uint64, b []byte, off int) uint64 {
	return Sum(Sum(sum, b[:off]), b[off+2:])
}

// Result is what a checksum says.
type Result uint8

// Results.
const (
	Unchecked Result = iota // there is none, or not all of the bytes are there
	Right
	Wrong
)

// String gives the result as a word.
func (r Result) String() string { return [...]string{"unchecked", "right", "wrong"}[r] }

func result(same bool) Result {
	if same {
		return Right
	}
	return Wrong
}

// checksums are, by transport, the protocol's number for the pseudo header and the place of the checksum.
var checksums = map[Kind]struct {
	proto uint8
	off   int
}{KindTCP: {ProtoTCP, 16}, KindUDP: {ProtoUDP, 6}, KindICMP: {ProtoICMP, 2}, KindICMPv6: {ProtoICMPv6, 2}}

// TransportSum computes the checksum of the transport header l of pkt, as it should be, with the IP header ip before it. end is
// where the payload ends; all of it must be there. UDP's 0 is given as 0xffff.
func TransportSum(pkt []byte, ip, l Layer, end int) uint16 {
	c := checksums[l.Kind]
	b := pkt[l.Off:end]
	sum := uint64(0)
	if l.Kind != KindICMP {
		sum = pseudo(ip.Bytes(pkt), c.proto, len(b))
	}
	v := Fold(without(sum, b, c.off))
	if v == 0 && l.Kind == KindUDP {
		return 0xffff
	}
	return v
}

// castagnoli is the polynomial of SCTP's checksum.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// SCTPSum computes the checksum of an SCTP packet, header and chunks, as it should be.
func SCTPSum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:8])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	return crc32.Update(crc, castagnoli, b[SCTPLen:])
}

// Verify checks the innermost checksum of a packet walked into s: that of TCP, UDP, SCTP, ICMP or ICMPv6.
func (s *Stack) Verify(pkt []byte) Result {
	if s.N < 2 || s.Status != Done {
		return Unchecked
	}
	l, ip := s.Layers[s.N-1], Layer{}
	for _, c := range s.Found() {
		switch {
		case c.Kind == KindIPv4 || c.Kind == KindIPv6:
			ip = c
		case c.Kind == KindExtension && c.Proto == ProtoFragment:
			return Unchecked
		}
	}
	end, whole := payloadEnd(pkt, ip)
	if !whole {
		return Unchecked
	}
	if l.Kind == KindSCTP {
		return result(SCTPSum(pkt[l.Off:end]) == SCTP(l.Bytes(pkt)).Checksum())
	}
	c, ok := checksums[l.Kind]
	if !ok {
		return Unchecked
	}
	if l.Kind == KindUDP {
		u := UDP(l.Bytes(pkt))
		if u.Checksum() == 0 || u.Len() < UDPLen || l.Off+u.Len() > end {
			return Unchecked
		}
		end = l.Off + u.Len()
	}
	return result(TransportSum(pkt, ip, l, end) == binary.BigEndian.Uint16(pkt[l.Off+c.off:]))
}

// payloadEnd gives where the payload of an IP header ends; whole is false if that is not in pkt, or it is a fragment.
func payloadEnd(pkt []byte, ip Layer) (end int, whole bool) {
	switch ip.Kind {
	case KindIPv4:
		h := IPv4(ip.Bytes(pkt))
		if h.Fragment() || h.TotalLen() == 0 {
			return 0, false
		}
		end = ip.Off + h.TotalLen()
	case KindIPv6:
		h := IPv6(ip.Bytes(pkt))
		if h.PayloadLen() == 0 {
			return 0, false
		}
		end = ip.Off + IPv6Len + h.PayloadLen()
	default:
		return 0, false
	}
	return end, end <= len(pkt)
}
