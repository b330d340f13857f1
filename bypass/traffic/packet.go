// Package traffic sends, receives, forwards and answers numbered UDP datagrams through AF_XDP sockets, and accounts for every
// one: lost, twice, corrupt.
package traffic

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/fathom-trace/fathom/wire/header"
)

// Flow is from where to where datagrams go. Addresses are IPv4.
type Flow struct {
	SrcMAC, DstMAC net.HardwareAddr
	Src, Dst       netip.AddrPort
	VLAN           uint16 // 0 is none
}

// Offsets in a frame without a VLAN tag, and what a payload holds: magic, number, check, filler.
const (
	offIP      = header.EthernetLen
	ipLen      = 20
	magic      = 0xfa40
	offSeq     = 2
	offCheck   = 10
	probeLen   = 18 // of the smallest payload: a frame of 60 bytes, 64 with its checksum on a wire
	MinFrame   = offIP + ipLen + header.UDPLen + probeLen
	streamBits = 8 // of a number: which sender it is from
)

// Template is a frame whose number is still to be set. It is not changed; goroutines may share it.
type Template struct {
	frame   []byte
	payload int    // offset
	sum     uint64 // of the datagram with number and check 0
}

// NewTemplate makes frames of size bytes, not counting the 4 of the checksum that Ethernet adds.
func NewTemplate(f Flow, size int) (*Template, error) {
	tag := 0
	if f.VLAN != 0 {
		tag = header.VLANLen
	}
	switch {
	case size < MinFrame+tag:
		return nil, errors.New("frames are too short for a number and its check")
	case size > 65000:
		return nil, errors.New("frames are longer than a datagram can be")
	case len(f.SrcMAC) != 6 || len(f.DstMAC) != 6:
		return nil, errors.New("the addresses of frames have 6 bytes")
	case !f.Src.Addr().Is4() || !f.Dst.Addr().Is4():
		return nil, errors.New("datagrams are of IPv4 here")
	}
	b := make([]byte, size)
	copy(b, f.DstMAC)
	copy(b[6:], f.SrcMAC)
	be := binary.BigEndian
	if tag > 0 {
		be.PutUint16(b[12:], 0x8100)
		be.PutUint16(b[14:], f.VLAN)
	}
	be.PutUint16(b[12+tag:], 0x0800)
	ip := b[offIP+tag:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	be.PutUint16(ip[2:], uint16(len(ip)))
	be.PutUint16(ip[6:], 0x4000) // do not fragment
	src, dst := f.Src.Addr().As4(), f.Dst.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	be.PutUint16(ip[10:], header.IPv4(ip).Compute())
	udp := ip[ipLen:]
	be.PutUint16(udp, f.Src.Port())
	be.PutUint16(udp[2:], f.Dst.Port())
	be.PutUint16(udp[4:], uint16(len(udp)))
	t := &Template{frame: b, payload: offIP + tag + ipLen + header.UDPLen}
	fill(b[t.payload:])
	t.sum = header.Sum(header.Sum(uint64(17)+uint64(len(udp)), ip[12:20]), udp)
	return t, nil
}

// Len is how long a frame is.
func (t *Template) Len() int { return len(t.frame) }

// fill writes the payload but for number and check.
func fill(p []byte) {
	binary.BigEndian.PutUint16(p, magic)
	for i := probeLen; i < len(p); i++ {
		p[i] = byte(i)
	}
}

// check is what a number is followed by: a frame whose bytes were mixed with another's is told.
func check(seq uint64) uint64 {
	seq ^= seq >> 31
	seq *= 0x9e3779b97f4a7c15
	return seq ^ seq>>29
}

// Write writes the frame of a number to b, which is Len long.
func (t *Template) Write(b []byte, seq uint64) {
	copy(b, t.frame)
	p := b[t.payload:]
	binary.BigEndian.PutUint64(p[offSeq:], seq)
	binary.BigEndian.PutUint64(p[offCheck:], check(seq))
	c := header.Fold(header.Sum(t.sum, p[offSeq:probeLen]))
	if c == 0 {
		c = 0xffff // 0 would say that there is no checksum (RFC 768)
	}
	binary.BigEndian.PutUint16(b[t.payload-2:], c)
}

// Verdicts of Read.
const (
	Good    = iota
	Foreign // not one of ours
	Corrupt
)

// Read finds the number of a frame.
func Read(b []byte) (seq uint64, verdict int) {
	p, ok := payload(b)
	if !ok {
		return 0, Foreign
	}
	return ReadPayload(p)
}

// ReadPayload finds the number of a datagram's contents, as a socket of the kernel's gives them.
func ReadPayload(p []byte) (seq uint64, verdict int) {
	if len(p) < probeLen || binary.BigEndian.Uint16(p) != magic {
		return 0, Foreign
	}
	seq = binary.BigEndian.Uint64(p[offSeq:])
	if binary.BigEndian.Uint64(p[offCheck:]) != check(seq) {
		return 0, Corrupt
	}
	for i := probeLen; i < len(p); i++ {
		if p[i] != byte(i) {
			return seq, Corrupt
		}
	}
	return seq, Good
}

// datagram finds the IP header of a UDP datagram over IPv4 that is whole, and the end of its packet.
func datagram(b []byte) (ip, end int, ok bool) {
	at := 12
	if len(b) < MinFrame-probeLen {
		return 0, 0, false
	}
	typ := binary.BigEndian.Uint16(b[at:])
	if typ == 0x8100 || typ == 0x88a8 {
		at += header.VLANLen
		typ = binary.BigEndian.Uint16(b[at:])
	}
	ip = at + 2
	if typ != 0x0800 || len(b) < ip+ipLen+header.UDPLen || b[ip]>>4 != 4 || b[ip+9] != 17 {
		return 0, 0, false
	}
	hlen := int(b[ip]&0xf) * 4
	total := int(binary.BigEndian.Uint16(b[ip+2:]))
	if hlen < ipLen || total < hlen+header.UDPLen || ip+total > len(b) || binary.BigEndian.Uint16(b[ip+6:])&0x3fff != 0 {
		return 0, 0, false
	}
	return ip, ip + total, true
}

// payload gives what is in the datagram of a frame.
func payload(b []byte) ([]byte, bool) {
	ip, end, ok := datagram(b)
	if !ok {
		return nil, false
	}
	udp := ip + int(b[ip]&0xf)*4
	n := int(binary.BigEndian.Uint16(b[udp+4:]))
	if n < header.UDPLen || udp+n > end {
		return nil, false
	}
	return b[udp+header.UDPLen : udp+n], true
}

// Turn makes a datagram its own answer: all addresses change places, and the checksum is made anew, since a sender in the same
// machine leaves it to a device that is not there. It says false if the frame holds no datagram.
func Turn(b []byte) bool {
	ip, _, ok := datagram(b)
	if !ok {
		return false
	}
	p, ok := payload(b)
	if !ok {
		return false
	}
	swap(b[:6], b[6:12])
	swap(b[ip+12:ip+16], b[ip+16:ip+20])
	at := ip + int(b[ip]&0xf)*4
	udp := b[at : at+header.UDPLen+len(p)]
	swap(udp[:2], udp[2:4])
	udp[6], udp[7] = 0, 0
	c := header.Fold(header.Sum(header.Sum(uint64(17)+uint64(len(udp)), b[ip+12:ip+20]), udp))
	if c == 0 {
		c = 0xffff
	}
	binary.BigEndian.PutUint16(udp[6:], c)
	return true
}

// SwapMACs sends a frame back to where it came from.
func SwapMACs(b []byte) {
	if len(b) >= 12 {
		swap(b[:6], b[6:12])
	}
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

// Payload writes the frame of a number to b, which is Len long, and gives the datagram's contents alone, for a socket of the
// kernel's.
func (t *Template) Payload(b []byte, seq uint64) []byte {
	t.Write(b, seq)
	return b[t.payload:]
}
