package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
)

// Writer writes a pcapng file of one section, little-endian, with times in nanoseconds. It does not buffer: every call is
// one write of whole blocks, so that a file cut short by a crash is right up to its last block.
type Writer struct {
	w          io.Writer
	buf        []byte
	interfaces int
	err        error
}

// NewWriter writes the section header.
func NewWriter(w io.Writer, s Section) (*Writer, error) {
	p := &Writer{w: w}
	p.begin(blockSection)
	p.u32(byteOrderMagic)
	p.buf = append(p.buf, 1, 0, 0, 0)
	p.u64(1<<64 - 1) // length not given
	p.comments(s.Comments)
	p.text(optHardware, s.Hardware)
	p.text(optOS, s.OS)
	p.text(optApplication, s.Application)
	return p, p.end()
}

// Add describes an interface and gives its index for packets.
func (p *Writer) Add(i Interface) (int, error) {
	p.begin(blockInterface)
	p.u32(uint32(i.Link))
	p.u32(i.Snaplen)
	p.comments(i.Comments)
	p.text(optName, i.Name)
	p.text(optDescription, i.Description)
	p.option(optResolution, []byte{9})
	p.interfaces++
	return p.interfaces - 1, p.end()
}

// Write writes a packet.
func (p *Writer) Write(k Packet) error {
	if k.Interface < 0 || k.Interface >= p.interfaces {
		return fmt.Errorf("write packet: interface %d of %d", k.Interface, p.interfaces)
	}
	wire := k.WireLen
	if wire == 0 {
		wire = len(k.Data)
	}
	p.begin(blockEnhanced)
	p.u32(uint32(k.Interface))
	p.time(k.Time)
	p.u32(uint32(len(k.Data)))
	p.u32(uint32(wire))
	p.buf = append(p.buf, k.Data...)
	p.pad()
	p.comments(k.Comments)
	if k.Flags != 0 {
		p.option(optFlags, binary.LittleEndian.AppendUint32(nil, k.Flags))
	}
	p.count(optDropped, k.Dropped)
	p.count(optID, k.ID)
	if k.Queue != 0 {
		p.option(optQueue, binary.LittleEndian.AppendUint32(nil, k.Queue))
	}
	return p.end()
}

// WriteStatistics writes what an interface has received and lost; readers expect it at the end.
func (p *Writer) WriteStatistics(s Statistics) error {
	if s.Interface < 0 || s.Interface >= p.interfaces {
		return fmt.Errorf("write statistics: interface %d of %d", s.Interface, p.interfaces)
	}
	p.begin(blockStatistics)
	p.u32(uint32(s.Interface))
	p.time(s.Time)
	p.option(optReceived, binary.LittleEndian.AppendUint64(nil, s.Received))
	p.option(optIfDrop, binary.LittleEndian.AppendUint64(nil, s.Dropped))
	return p.end()
}

func (p *Writer) u32(v uint32) { p.buf = binary.LittleEndian.AppendUint32(p.buf, v) }
func (p *Writer) u64(v uint64) { p.buf = binary.LittleEndian.AppendUint64(p.buf, v) }

// time writes a time stamp, upper half first.
func (p *Writer) time(ns int64) {
	p.u32(uint32(uint64(ns) >> 32))
	p.u32(uint32(ns))
}

func (p *Writer) pad() {
	for len(p.buf)%4 != 0 {
		p.buf = append(p.buf, 0)
	}
}

// begin starts a block; its length comes at the end.
func (p *Writer) begin(typ uint32) {
	p.buf = p.buf[:0]
	p.u32(typ)
	p.u32(0)
}

// end closes the options and the block, and writes it. After an error nothing more is written.
func (p *Writer) end() error {
	p.u32(optEnd)
	n := uint32(len(p.buf) + 4)
	p.u32(n)
	binary.LittleEndian.PutUint32(p.buf[4:], n)
	if p.err == nil && n > MaxBlock {
		return fmt.Errorf("write packets: a block of %d bytes, at most %d can be read", n, MaxBlock)
	}
	if p.err == nil {
		if _, err := p.w.Write(p.buf); err != nil {
			p.err = fmt.Errorf("write packets: %w", err)
		}
	}
	return p.err
}

func (p *Writer) option(code uint16, b []byte) {
	p.buf = binary.LittleEndian.AppendUint16(p.buf, code)
	p.buf = binary.LittleEndian.AppendUint16(p.buf, uint16(len(b)))
	p.buf = append(p.buf, b...)
	p.pad()
}

// maxText bounds a text option: its length has 16 bits.
const maxText = 0xffff

func (p *Writer) text(code uint16, s string) {
	if s != "" {
		p.option(code, []byte(s[:min(len(s), maxText)]))
	}
}

func (p *Writer) comments(texts []string) {
	for _, s := range texts {
		p.text(optComment, s)
	}
}

func (p *Writer) count(code uint16, n uint64) {
	if n != 0 {
		p.option(code, binary.LittleEndian.AppendUint64(nil, n))
	}
}
