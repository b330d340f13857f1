package nft

import (
	"encoding/binary"
	"slices"
)

// Packet is what a rule can see of a packet. What is not given is not known, and a rule that asks for it cannot be decided.
type Packet struct {
	Data    []byte // from the network header on; may be cut short
	Link    []byte // Ethernet header; nil: not known
	Proto   uint16 // EtherType; 0: by the version in Data
	IIF     int    // index of the device it came in by; 0: not known
	OIF     int    // index of the device it leaves by
	IIFName string
	OIFName string
	Bridged bool // it passes a bridge: the bridge family's chains see it

	Mark     uint32
	CtState  string // "new", "established", "related", "invalid", "untracked"; "": not known
	CtStatus *uint32
	CtMark   *uint32
	CtDir    *uint8
	UID      *uint32 // of the socket it belongs to
	GID      *uint32
	PktType  *uint8 // PACKET_HOST, …
	IIFGroup *uint32
	OIFGroup *uint32
	IIFType  *uint16 // ARPHRD_…
	OIFType  *uint16
	IIFKind  string
	OIFKind  string

	// FIB answers the expression fib in a hook: flags are NFTA_FIB_F_…; nil: not known. The device is an index, 0 if there is
	// none, and not known if ok is false; typ is an RTN_…, 0 if it is not known.
	FIB func(p *Packet, hook string, flags uint32) (dev int, name string, typ uint32, ok bool)
}

const (
	etherIP   = 0x0800
	etherARP  = 0x0806
	etherIP6  = 0x86dd
	protoTCP  = 6
	maxExtHdr = 16
)

// proto is the EtherType.
func (p *Packet) proto() uint16 {
	if p.Proto == 0 && len(p.Data) > 0 {
		switch p.Data[0] >> 4 {
		case 4:
			return etherIP
		case 6:
			return etherIP6
		}
	}
	return p.Proto
}

// total is how long the packet says it is; what is missing of it in Data was cut off.
func (p *Packet) total() int {
	n := len(p.Data)
	switch {
	case p.proto() == etherIP && n >= 4:
		n = int(binary.BigEndian.Uint16(p.Data[2:]))
	case p.proto() == etherIP6 && n >= 6:
		n = 40 + int(binary.BigEndian.Uint16(p.Data[4:]))
	}
	return max(n, len(p.Data))
}

// transport finds the transport header: its protocol and offset. ok is false if there is none (a later fragment, no IP).
func (p *Packet) transport() (proto uint8, off int, ok bool) {
	switch {
	case p.proto() == etherIP && len(p.Data) >= 20:
		return p.Data[9], int(p.Data[0]&15) * 4, binary.BigEndian.Uint16(p.Data[6:])&0x1fff == 0
	case p.proto() == etherIP6 && len(p.Data) >= 40:
		proto, off, ok = p.extension(-1)
		return proto, off, ok
	}
	return 0, 0, false
}

// extension walks the headers of IPv6 up to one of a type, or with −1 to the transport header.
func (p *Packet) extension(want int) (proto uint8, off int, ok bool) {
	proto, off = p.Data[6], 40
	for range maxExtHdr {
		if int(proto) == want {
			return proto, off, true
		}
		n := 0
		switch proto {
		case 0, 43, 60, 135: // hop-by-hop, routing, destination, mobility
			if off+2 <= len(p.Data) {
				n = int(p.Data[off+1])*8 + 8
			}
		case 44: // fragment
			if off+8 <= len(p.Data) {
				if want < 0 && binary.BigEndian.Uint16(p.Data[off+2:])&^7 != 0 {
					return p.Data[off], off, false
				}
				n = 8
			}
		case 51: // authentication
			if off+2 <= len(p.Data) {
				n = int(p.Data[off+1])*4 + 8
			}
		default:
			return proto, off, want < 0
		}
		if n == 0 {
			return proto, off, false
		}
		proto, off = p.Data[off], off+n
	}
	return proto, off, false
}

// clone copies what rules may write.
func (p Packet) clone() *Packet {
	p.Data = slices.Clone(p.Data)
	p.Link = slices.Clone(p.Link)
	return &p
}

// bytes are those of a header; known is false if they were cut off or not given, ok if the packet does not have them.
func (p *Packet) bytes(base uint32, off, n int) (d []byte, known, ok bool) {
	from, data, total := 0, p.Data, p.total()
	switch base {
	case baseLink:
		if p.Link == nil {
			return nil, false, true
		}
		data, total = p.Link, len(p.Link)
	case baseNetwork:
	case baseTransport:
		_, at, found := p.transport()
		if !found {
			return nil, true, false
		}
		from = at
	default:
		return nil, false, true
	}
	from += off
	switch {
	case n < 0 || from < 0 || from+n > total:
		return nil, true, false
	case from+n > len(data):
		return nil, false, true
	}
	return data[from : from+n], true, true
}

// tcpOption finds an option of TCP: its bytes, kind and length included.
func (p *Packet) tcpOption(kind uint8) (d []byte, known bool) {
	proto, off, ok := p.transport()
	if !ok || proto != protoTCP {
		return nil, true
	}
	if off+20 > len(p.Data) {
		return nil, false
	}
	end := off + int(p.Data[off+12]>>4)*4
	if end > len(p.Data) {
		return nil, false
	}
	for o := off + 20; o < end; {
		switch n := p.Data[o]; {
		case n == 0 && kind != 0:
			return nil, true
		case n == kind && n <= 1:
			return p.Data[o : o+1], true
		case n == 1:
			o++
		case o+1 >= end || p.Data[o+1] < 2 || o+int(p.Data[o+1]) > end:
			return nil, true
		case n == kind:
			return p.Data[o : o+int(p.Data[o+1])], true
		default:
			o += int(p.Data[o+1])
		}
	}
	return nil, true
}
