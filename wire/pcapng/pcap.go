package pcapng

import (
	"encoding/binary"
	"errors"
	"io"
)

// startPcap reads the header of a pcap file; magic is its first word as a little-endian one.
func (p *Reader) startPcap(magic uint32) error {
	var swapped [4]byte
	binary.BigEndian.PutUint32(swapped[:], magic)
	i := Interface{resolution: 6}
	for m, order := range map[uint32]binary.ByteOrder{magic: binary.LittleEndian, binary.LittleEndian.Uint32(swapped[:]): binary.BigEndian} {
		switch m {
		case magicNano:
			i.resolution = 9
			fallthrough
		case magicMicro:
			p.old, p.order = true, order
		}
	}
	if !p.old {
		return p.fail("file header", "%#08x is neither pcapng nor pcap", magic)
	}
	const headerLen = 24
	if err := p.read("pcap header", headerLen); err != nil {
		return err
	}
	p.off += headerLen
	i.Snaplen = p.order.Uint32(p.buf[16:])
	i.Link = uint16(p.order.Uint32(p.buf[20:])) // the upper half is about frame check sequences
	p.interfaces = []Interface{i}
	return nil
}

// nextPcap reads a record of a pcap file.
func (p *Reader) nextPcap() (Packet, error) {
	const headerLen = 16
	if err := p.read("packet header", headerLen); err != nil {
		return Packet{}, err
	}
	secs, frac := p.order.Uint32(p.buf), p.order.Uint32(p.buf[4:])
	n, wire := p.order.Uint32(p.buf[8:]), p.order.Uint32(p.buf[12:])
	if n > MaxBlock {
		return Packet{}, p.fail("packet header", "length %d", n)
	}
	p.off += headerLen
	if n > 0 {
		switch err := p.read("packet", int(n)); {
		case errors.Is(err, io.EOF):
			return Packet{}, p.fail("packet", "the file ends before its %d bytes", n)
		case err != nil:
			return Packet{}, err
		}
	} else {
		p.buf = p.buf[:0]
	}
	p.off += int64(n)
	unit := int64(1000)
	if p.interfaces[0].resolution == 9 {
		unit = 1
	}
	return Packet{Time: int64(secs)*second + int64(frac)*unit, Data: p.buf, WireLen: int(wire)}, nil
}
