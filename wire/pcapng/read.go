package pcapng

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/internal/bin"
)

// Reader reads a file of packets in order.
type Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	off   int64  // of the next block
	buf   []byte // the block
	old   bool   // pcap

	section    Section
	interfaces []Interface
	stats      []Statistics
}

// Magic numbers of pcap.
const (
	magicMicro = 0xa1b2c3d4
	magicNano  = 0xa1b23c4d
)

// maxInterfaces bounds the interfaces of a section.
const maxInterfaces = 1 << 16

// NewReader reads the start of a file, and finds out what it is. Its errors are *bin.FormatError, or r's.
func NewReader(r io.Reader) (*Reader, error) {
	p := &Reader{r: bufio.NewReaderSize(r, 1<<16), order: binary.LittleEndian}
	head, err := p.r.Peek(4)
	if err != nil {
		return nil, p.fail("file header", "the file ends within its first 4 bytes")
	}
	if binary.LittleEndian.Uint32(head) == blockSection {
		return p, p.startSection()
	}
	return p, p.startPcap(binary.LittleEndian.Uint32(head))
}

// Section gives who wrote the section being read; Interfaces what it has so far; Statistics those read so far, of
// all sections.
func (p *Reader) Section() Section { return p.section }

// Interfaces gives the interfaces of the section so far. The slice is the reader's.
func (p *Reader) Interfaces() []Interface { return p.interfaces }

// Statistics gives the interface statistics read so far, of all sections. The slice is the reader's.
func (p *Reader) Statistics() []Statistics { return p.stats }

func (p *Reader) fail(what, format string, args ...any) error {
	return &bin.FormatError{What: what, Off: p.off, Msg: fmt.Sprintf(format, args...)}
}

// Next gives the next packet, whose Data is valid until the next call. At the end of the file it gives io.EOF; a file that
// ends inside of a block is a *bin.FormatError.
func (p *Reader) Next() (Packet, error) {
	if p.old {
		return p.nextPcap()
	}
	for {
		typ, c, err := p.block()
		if err != nil {
			return Packet{}, err
		}
		switch typ {
		case blockSection:
			err = p.readSection(c)
		case blockInterface:
			err = p.readInterface(c)
		case blockStatistics:
			err = p.readStatistics(c)
		case blockEnhanced, blockPacket, blockSimple:
			return p.readPacket(typ, c)
		}
		if err != nil {
			return Packet{}, err
		}
	}
}

// read fills p.buf with n bytes.
func (p *Reader) read(what string, n int) error {
	if cap(p.buf) < n {
		// Grown as bytes come: a length in a file is not a reason to allocate.
		p.buf = make([]byte, 0, min(n, 1<<16))
	}
	p.buf = p.buf[:0]
	for len(p.buf) < n {
		if len(p.buf) == cap(p.buf) {
			p.buf = append(p.buf, 0)[:len(p.buf)]
		}
		have := len(p.buf)
		k, err := io.ReadFull(p.r, p.buf[have:min(n, cap(p.buf))])
		p.buf = p.buf[:have+k]
		switch {
		case errors.Is(err, io.EOF) && have+k == 0:
			return io.EOF
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return p.fail(what, "the file ends after %d of %d bytes", have+k, n)
		case err != nil:
			return fmt.Errorf("read packets: %w", err)
		}
	}
	return nil
}

// block reads a block and gives its type and a cursor over its body.
func (p *Reader) block() (uint32, *bin.Cursor, error) {
	head, err := p.r.Peek(12)
	if len(head) == 0 {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("read packets: %w", err)
	}
	if len(head) < 12 {
		return 0, nil, p.fail("block header", "the file ends within it")
	}
	typ := p.order.Uint32(head)
	if typ == blockSection { // the same in both byte orders, as is its purpose
		switch uint32(byteOrderMagic) {
		case binary.LittleEndian.Uint32(head[8:]):
			p.order = binary.LittleEndian
		case binary.BigEndian.Uint32(head[8:]):
			p.order = binary.BigEndian
		default:
			return 0, nil, p.fail("section header", "byte order mark %#x", head[8:12])
		}
	}
	n := p.order.Uint32(head[4:])
	if n < 12 || n%4 != 0 || n > MaxBlock {
		return 0, nil, p.fail("block header", "length %d", n)
	}
	if err := p.read("block", int(n)); err != nil {
		return 0, nil, err
	}
	if again := p.order.Uint32(p.buf[n-4:]); again != n {
		return 0, nil, p.fail("block", "length %d at its start, %d at its end", n, again)
	}
	c := bin.NewCursorAt(p.buf[8:n-4], p.order, p.off+8)
	p.off += int64(n)
	return typ, c, nil
}

// startSection reads the first section header.
func (p *Reader) startSection() error {
	_, c, err := p.block()
	if err != nil {
		return err
	}
	return p.readSection(c)
}

func (p *Reader) readSection(c *bin.Cursor) error {
	c.U32() // byte order mark
	if major := c.U16(); major != 1 {
		c.Fail("version %d, want 1", major)
	}
	c.U16() // minor version
	c.U64() // length of the section
	p.section, p.interfaces = Section{}, nil
	options(c, func(code uint16, b []byte) {
		switch code {
		case optComment:
			p.section.Comments = append(p.section.Comments, string(b))
		case optHardware:
			p.section.Hardware = string(b)
		case optOS:
			p.section.OS = string(b)
		case optApplication:
			p.section.Application = string(b)
		}
	})
	return c.Err("section header")
}

func (p *Reader) readInterface(c *bin.Cursor) error {
	i := Interface{Link: c.U16(), resolution: 6}
	c.U16()
	i.Snaplen = c.U32()
	options(c, func(code uint16, b []byte) {
		switch {
		case code == optComment:
			i.Comments = append(i.Comments, string(b))
		case code == optName:
			i.Name = string(b)
		case code == optDescription:
			i.Description = string(b)
		case code == optResolution && len(b) == 1:
			i.resolution = b[0]
		case code == optOffset && len(b) == 8:
			i.offset = int64(p.order.Uint64(b))
		}
	})
	if len(p.interfaces) == maxInterfaces {
		c.Fail("more than %d interfaces", maxInterfaces)
	}
	p.interfaces = append(p.interfaces, i)
	return c.Err("interface")
}

func (p *Reader) readStatistics(c *bin.Cursor) error {
	s := Statistics{Interface: int(c.U32())}
	at := uint64(c.U32())<<32 | uint64(c.U32())
	options(c, func(code uint16, b []byte) {
		switch {
		case code == optReceived && len(b) == 8:
			s.Received = p.order.Uint64(b)
		case code == optIfDrop && len(b) == 8:
			s.Dropped = p.order.Uint64(b)
		}
	})
	if err := c.Err("statistics"); err != nil {
		return err
	}
	if s.Interface < len(p.interfaces) && len(p.stats) < maxInterfaces {
		s.Time = p.interfaces[s.Interface].time(at)
		p.stats = append(p.stats, s)
	}
	return nil
}

// readPacket reads the three kinds of packet blocks.
func (p *Reader) readPacket(typ uint32, c *bin.Cursor) (Packet, error) {
	var k Packet
	var n uint32
	at := uint64(0)
	switch typ {
	case blockSimple:
		k.WireLen = int(c.U32())
		n = min(uint32(k.WireLen), uint32(c.Len()))
		if len(p.interfaces) > 0 && p.interfaces[0].Snaplen != 0 {
			n = min(n, p.interfaces[0].Snaplen)
		}
	case blockPacket:
		k.Interface, k.Dropped = int(c.U16()), uint64(c.U16())
		if k.Dropped == 0xffff { // not known
			k.Dropped = 0
		}
	default:
		k.Interface = int(c.U32())
	}
	if typ != blockSimple {
		at = uint64(c.U32())<<32 | uint64(c.U32())
		n = c.U32()
		k.WireLen = int(c.U32())
	}
	if k.Interface >= len(p.interfaces) {
		c.Fail("interface %d of %d", k.Interface, len(p.interfaces))
	}
	k.Data = c.Bytes(int(n))
	if typ != blockSimple {
		c.Bytes(int(-n & 3))
		p.packetOptions(c, &k)
	}
	if err := c.Err("packet"); err != nil {
		return Packet{}, err
	}
	k.Time = p.interfaces[k.Interface].time(at)
	if typ == blockSimple {
		k.Time = 0
	}
	return k, nil
}

func (p *Reader) packetOptions(c *bin.Cursor, k *Packet) {
	options(c, func(code uint16, b []byte) {
		switch {
		case code == optComment:
			k.Comments = append(k.Comments, string(b))
		case code == optFlags && len(b) == 4:
			k.Flags = p.order.Uint32(b)
		case code == optDropped && len(b) == 8:
			k.Dropped = p.order.Uint64(b)
		case code == optID && len(b) == 8:
			k.ID = p.order.Uint64(b)
		case code == optQueue && len(b) == 4:
			k.Queue = p.order.Uint32(b)
		}
	})
}

// options calls fn for every option up to the end of the block.
func options(c *bin.Cursor, fn func(code uint16, b []byte)) {
	for c.Len() >= 4 {
		code, n := c.U16(), int(c.U16())
		if code == optEnd {
			return
		}
		b := c.Bytes(n)
		c.Bytes(min(-n&3, c.Len()))
		if b != nil || n == 0 {
			fn(code, b)
		}
	}
}
