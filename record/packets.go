package record

import (
	"encoding/binary"
	"errors"
	"io"
	"time"

	"github.com/fathom-trace/fathom/traceevent"
	"github.com/fathom-trace/fathom/wire/header"
	"github.com/fathom-trace/fathom/wire/pcapng"
)

// How files of packets begin: pcapng's section header, and pcap in both byte orders, with µs and ns.
var packetMagics = []string{"\x0a\x0d\x0d\x0a", "\xd4\xc3\xb2\xa1", "\xa1\xb2\xc3\xd4", "\x4d\x3c\xb2\xa1", "\xa1\xb2\x3c\x4d"}

// packetFormat is what packets of a capture are given as: events of no CPU and no task.
const packetFormat = `name: packet
ID: 1
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;
	field:unsigned char common_preempt_count;	offset:3;	size:1;	signed:0;
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:unsigned int len;	offset:8;	size:4;	signed:0;
	field:unsigned int caplen;	offset:12;	size:4;	signed:0;
	field:__data_loc char[] dev;	offset:16;	size:4;	signed:0;
	field:__data_loc char[] text;	offset:20;	size:4;	signed:0;
	field:__data_loc u8[] data;	offset:24;	size:4;	signed:0;

print fmt: "%s %s", __get_str(dev), __get_str(text)
`

// packetHead is how long the fixed part of a packet's record is, and maxPacket how much of a packet is kept: locations have 16 bits.
const (
	packetHead = 28
	maxPacket  = 1 << 15
)

// openPackets opens a capture, as tcpdump and others write it.
func (t *Trace) openPackets(r io.ReaderAt, size int64) error {
	f, err := traceevent.Parse([]byte(packetFormat))
	if err != nil {
		return err
	}
	f.System = "pcap"
	in, err := pcapng.NewReader(io.NewSectionReader(r, 0, size))
	if err != nil {
		return err
	}
	t.Kind, t.Formats = "packets", []*traceevent.Format{f}
	s := &packets{in: in, format: f}
	s.read()
	// Times begin with the second of the first packet, so that they can be told apart from those of clocks.
	s.base = s.next.Time / int64(time.Second) * int64(time.Second)
	t.ToReal = s.base
	t.streams = []traceevent.Stream{s}
	return nil
}

// packets gives the packets of a capture as events. It implements [traceevent.Stream].
type packets struct {
	in     *pcapng.Reader
	format *traceevent.Format
	base   int64
	next   pcapng.Packet // that was read already
	have   bool
	last   uint64
	rec    []byte
	err    error
}

func (s *packets) read() {
	p, err := s.in.Next()
	if s.have = err == nil; !s.have && !errors.Is(err, io.EOF) {
		s.err = err
	}
	s.next = p
}

// Err implements [traceevent.Stream].
func (s *packets) Err() error { return s.err }

// Next implements [traceevent.Stream].
func (s *packets) Next(e *traceevent.Event) bool {
	if !s.have {
		return false
	}
	at := uint64(max(s.next.Time-s.base, 0))
	if n := s.next.Dropped; n > 0 {
		s.next.Dropped = 0
		*e = traceevent.Event{Time: at, CPU: -1, Lost: n, Since: s.last}
		return true
	}
	s.rec = s.record(s.rec[:0])
	*e = traceevent.Event{Time: at, CPU: -1, Format: s.format, Rec: s.rec}
	s.last = at
	s.read()
	return true
}

// record lays the packet out as its format says.
func (s *packets) record(b []byte) []byte {
	p := &s.next
	le := binary.LittleEndian
	b = append(b, make([]byte, packetHead)...)
	le.PutUint16(b, uint16(s.format.ID))
	le.PutUint32(b[4:], 1<<32-1) // no task
	le.PutUint32(b[8:], uint32(max(p.WireLen, len(p.Data))))
	le.PutUint32(b[12:], uint32(len(p.Data)))
	put := func(off int, add func([]byte) []byte) {
		at := len(b)
		b = add(b)
		le.PutUint32(b[off:], uint32(len(b)-at)<<16|uint32(at))
	}
	var in pcapng.Interface
	if list := s.in.Interfaces(); p.Interface < len(list) {
		in = list[p.Interface]
	}
	put(16, func(b []byte) []byte {
		if in.Name == "" {
			return append(b, "-\x00"...)
		}
		return append(append(b, in.Name[:min(len(in.Name), 256)]...), 0)
	})
	put(20, func(b []byte) []byte { return append(s.text(b, p.Data, in.Link), 0) })
	put(24, func(b []byte) []byte { return append(b, p.Data[:min(len(p.Data), maxPacket)]...) })
	return b
}

// text says on a line what a packet is, as tcpdump does.
func (s *packets) text(b, data []byte, link uint16) []byte {
	switch link {
	case pcapng.LinkEthernet:
		return header.Append(b, data, header.KindEthernet)
	case pcapng.LinkRaw:
		return header.Append(b, data, header.KindIP)
	case pcapng.LinkNull, pcapng.LinkLoop:
		return header.Append(b, data[min(4, len(data)):], header.KindIP)
	case pcapng.LinkSLL:
		return header.Append(b, data[min(16, len(data)):], header.KindIP)
	case pcapng.LinkSLL2:
		return header.Append(b, data[min(20, len(data)):], header.KindIP)
	}
	return append(b, "a packet of a link that is not known"...)
}
