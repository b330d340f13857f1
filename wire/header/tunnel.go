package header

import "encoding/binary"

// Lengths of the fixed parts, in bytes.
const (
	GRELen    = 4
	VXLANLen  = 8
	GeneveLen = 8
)

// Ports of the tunnels over UDP.
const (
	VXLANPort      = 4789
	VXLANPortLinux = 8472 // Linux's default, from before the port was assigned
	GenevePort     = 6081
)

// GRE is a GRE header with its optional fields (RFC 2784 and 2890), HeaderLen bytes.
type GRE []byte

// HasChecksum says that there is a checksum.
func (h GRE) HasChecksum() bool { return h[0]&0x80 != 0 }

// HasKey says that there is a key.
func (h GRE) HasKey() bool { return h[0]&0x20 != 0 }

// HasSeq says that there is a sequence number.
func (h GRE) HasSeq() bool { return h[0]&0x10 != 0 }

// Version gives the version: 0, or 1 for PPTP.
func (h GRE) Version() uint8 { return h[1] & 7 }

// Type gives the EtherType of what follows.
func (h GRE) Type() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// HeaderLen gives the length of the header in bytes.
func (h GRE) HeaderLen() int {
	n := GRELen
	for _, has := range [...]bool{h.HasChecksum(), h.HasKey(), h.HasSeq()} {
		if has {
			n += 4
		}
	}
	return n
}

// Key gives the key, if there is one.
func (h GRE) Key() (key uint32, ok bool) {
	if !h.HasKey() {
		return 0, false
	}
	at := GRELen
	if h.HasChecksum() {
		at += 4
	}
	return binary.BigEndian.Uint32(h[at:]), true
}

// VXLAN is a VXLAN header (RFC 7348), VXLANLen bytes.
type VXLAN []byte

// Valid says that the header has a VNI.
func (h VXLAN) Valid() bool { return h[0]&8 != 0 }

// VNI gives the network's number.
func (h VXLAN) VNI() uint32 { return binary.BigEndian.Uint32(h[4:]) >> 8 }

// Geneve is a Geneve header with its options (RFC 8926), HeaderLen bytes.
type Geneve []byte

// Version gives the version, 0.
func (h Geneve) Version() uint8 { return h[0] >> 6 }

// HeaderLen gives the length of the header in bytes.
func (h Geneve) HeaderLen() int { return GeneveLen + int(h[0]&0x3f)*4 }

// Type gives the EtherType of what follows.
func (h Geneve) Type() uint16 { return binary.BigEndian.Uint16(h[2:]) }

// VNI gives the network's number.
func (h Geneve) VNI() uint32 { return binary.BigEndian.Uint32(h[4:]) >> 8 }

// Options gives the bytes of the options.
func (h Geneve) Options() []byte { return h[GeneveLen:h.HeaderLen()] }
