package packet

import (
	"encoding/binary"

	"github.com/fathom-trace/fathom/wire/header"
)

// Seg is what a packet of TCP carries: one segment, or several that a host merged (GRO) or has divided later (GSO). All of
// them but the last have Size bytes, and the last alone has FIN and PSH (net/ipv4/tcp_offload.c).
type Seg struct {
	Stream uint64 `json:"s"`            // hash of addresses, ports and protocol
	Seq    uint32 `json:"q"`            // of the first byte
	Len    uint32 `json:"n"`            // bytes
	Size   uint16 `json:"z,omitempty"`  // 0 if it is one segment
	Head   uint16 `json:"hl,omitempty"` // bytes of headers in front, those of IP among them
	ID     uint16 `json:"id,omitempty"` // of IPv4, of the first
	V4     bool   `json:"v4,omitempty"`
	Flags  uint8  `json:"f,omitempty"`
}

// Flags of TCP that the last of several segments has.
const (
	tcpFIN = 0x01
	tcpPSH = 0x08
)

// mostParts bounds into how many segments a packet is taken apart: the largest that the kernel makes has fewer.
const mostParts = 4096

// segments reads what a packet of TCP carries; nil if that is nothing, or cannot be told: of fragments, and of packets of more
// than 64 KiB, whose header does not say how long they are.
func (v *View) segments(stream uint64, size uint16) *Seg {
	n := v.IPLen - v.TCPEnd
	if v.TCP == 0 || v.Frag != 0 || n <= 0 {
		return nil
	}
	s := &Seg{Stream: stream, Seq: v.Seq, Len: uint32(n), Head: uint16(v.TCPEnd), V4: v.Ether == etherIPv4, Flags: v.Flags}
	if s.V4 {
		s.ID = uint16(v.ID)
	}
	if int(size) < n {
		s.Size = size
	}
	return s
}

// stamp hashes TCP's time stamp, if the packet has one.
func (v *View) stamp() (hash uint64, n uint8) {
	if v.TCP == 0 || v.TCPEnd > len(v.pkt) || v.TCPEnd < v.TCP+header.TCPLen {
		return 0, 0
	}
	opts := v.pkt[v.TCP+header.TCPLen : v.TCPEnd]
	for len(opts) > 0 {
		kind, data, rest, ok := header.NextOption(opts)
		if !ok {
			break
		}
		if kind == header.OptTimestamp && len(data) == 8 {
			return mix(fnv1a(offset64, binary.BigEndian.Uint64(data))), 8
		}
		opts = rest
	}
	return 0, 0
}

// count is how many segments they are; 0 if there are none, or more than there can be.
func (s *Seg) count() int {
	switch {
	case s == nil || s.Len == 0:
		return 0
	case s.Size == 0:
		return 1
	}
	if n := (uint64(s.Len) + uint64(s.Size) - 1) / uint64(s.Size); n <= mostParts {
		return int(n)
	}
	return 0
}

// part gives a segment of several.
func (s *Seg) part(k int) Seg {
	n := s.count()
	if n <= 1 {
		return *s
	}
	p := *s
	p.Seq += uint32(k) * uint32(s.Size)
	p.Len, p.Size = min(uint32(s.Size), s.Len-uint32(k)*uint32(s.Size)), 0
	if s.V4 {
		p.ID += uint16(k)
	}
	if k < n-1 {
		p.Flags &^= tcpFIN | tcpPSH
	}
	return p
}

// begins says if another is the first of its segments.
func (s *Seg) begins(o *Seg) bool {
	return o.count() == 1 && s.Stream == o.Stream && s.Seq == o.Seq && s.Len > o.Len && uint32(s.Size) == o.Len
}

// overlaps says if two have bytes of the same stream in common. Numbers begin anew behind the largest.
func (s *Seg) overlaps(o *Seg) bool {
	return s.Stream == o.Stream && (o.Seq-s.Seq < s.Len || s.Seq-o.Seq < o.Len)
}

// keys are the Heads of marks that a segment of several can have when it is alone: those of IPv4 are numbered one by one, or
// have all the same number.
func (s *Seg) keys(k int) []uint64 {
	p := s.part(k)
	id := func(n uint16) uint64 { return identity(p.Stream, uint32(n), 0, int(p.Head)+int(p.Len), p.Seq, p.Flags) }
	if p.ID == s.ID {
		return []uint64{id(p.ID)}
	}
	return []uint64{id(p.ID), id(s.ID)}
}
