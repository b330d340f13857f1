package ctf

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/traceevent"
)

// Magic numbers at the start of packets (CTF 1.8, 5.2 and 7.2) and of index files (LTTng's ctf-index.h).
const (
	packetMagic   = 0xC1FC1FC1
	metadataMagic = 0x75D11D57
	indexMagic    = 0xC1F1DCC1
)

// packetHead is how many bytes stand before the first event of a packet: the packet header and the packet context.
const packetHead = 4 + 16 + 4 + 6*8 + 4

// packetFull is when a packet is written, in bytes. An event larger than this has a packet of its own.
const packetFull = 256 << 10

// Stream writes the events of one CPU. What was not followed by Close is not readable.
type Stream struct {
	w         io.Writer
	schema    *Schema
	cpu       int
	buf       []byte
	index     []byte
	off       uint64 // of the packet in the stream
	first     uint64 // time of the packet
	last      uint64 // time of its last event
	n         int    // events in the packet
	seq       uint64
	discarded uint64
	err       error
}

// NewStream begins a stream of a CPU's events.
func (s *Schema) NewStream(w io.Writer, cpu int) *Stream {
	return &Stream{w: w, schema: s, cpu: cpu, buf: make([]byte, packetHead, packetFull+4096)}
}

// Event adds an event, whose ID must be one of the schema's formats. Times must not go back.
func (s *Stream) Event(time uint64, id int, rec []byte) error {
	c := s.schema.class(id)
	if c == nil {
		return fmt.Errorf("write event: no format with the ID %d", id)
	}
	if s.n > 0 && time < s.last {
		time = s.last
	}
	if s.n > 0 && (len(s.buf) >= packetFull || time-s.last > 1<<32-1) { // the time of an event has 32 bits
		if s.flush(); s.err != nil {
			return s.err
		}
	}
	if s.n == 0 {
		s.first = max(time, s.last)
	}
	s.n++
	s.last = time
	s.buf = binary.LittleEndian.AppendUint16(s.buf, uint16(id))
	s.buf = binary.LittleEndian.AppendUint32(s.buf, uint32(time))
	s.buf = c.append(s.buf, rec)
	return nil
}

// Lost says that so many events are missing before the next, whose time is given. They are counted in the packet that begins
// with it. Readers take differences of the counts: before the first event there is a packet without events to start from.
func (s *Stream) Lost(n, time uint64) error {
	s.flush()
	if s.seq == 0 {
		s.first, s.last, s.n = time, time, 1
		s.flush()
	}
	s.discarded += n
	return s.err
}

// flush writes the packet that was begun.
func (s *Stream) flush() {
	if s.n == 0 || s.err != nil {
		return
	}
	le := binary.LittleEndian
	b := s.buf
	le.PutUint32(b, packetMagic)
	copy(b[4:], s.schema.UUID[:])
	le.PutUint32(b[20:], 0)
	bits := uint64(len(b)) * 8
	for i, v := range [...]uint64{s.first, s.last, bits, bits, s.seq, s.discarded} {
		le.PutUint64(b[24+8*i:], v)
	}
	le.PutUint32(b[72:], uint32(s.cpu))
	_, s.err = s.w.Write(b)
	be := binary.BigEndian
	for _, v := range [...]uint64{s.off, bits, bits, s.first, s.last, s.discarded, 0, uint64(s.cpu), s.seq} {
		s.index = be.AppendUint64(s.index, v)
	}
	s.off += uint64(len(b))
	s.seq++
	s.n = 0
	s.buf = b[:packetHead]
}

// Close writes what is left. Events lost after the last one have a packet of their own without events.
func (s *Stream) Close(end uint64) error {
	if s.n == 0 && s.err == nil && s.discarded > s.counted() {
		s.first, s.last, s.n = s.last, max(s.last, end), 1
	}
	s.flush()
	return s.err
}

// counted is how many lost events packets tell already.
func (s *Stream) counted() uint64 {
	if len(s.index) == 0 {
		return 0
	}
	return binary.BigEndian.Uint64(s.index[len(s.index)-indexEntry+5*8:])
}

// Index gives the stream's index, to be written to index/NAME.idx: where packets are, from when to when.
func (s *Stream) Index() []byte {
	be := binary.BigEndian
	b := be.AppendUint32(nil, indexMagic)
	b = be.AppendUint32(b, 1) // version 1.1
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, indexEntry)
	return append(b, s.index...)
}

// indexEntry is the size of an entry of the index, in bytes.
const indexEntry = 9 * 8

// class is how records of one event become fields of a stream.
type class struct {
	format *traceevent.Format
	ops    []copyOp
}

// copyOp copies bytes of a record: fixed ones, or what a field of variable length holds, with its length before.
type copyOp struct {
	off, n int
	field  *traceevent.Field
}

// plan lists the copies for some fields, neighbours joined.
func plan(ops []copyOp, fields []*traceevent.Field) []copyOp {
	for _, f := range fields {
		if isSequence(f) {
			ops = append(ops, copyOp{field: f})
			continue
		}
		if n := len(ops); n > 0 && ops[n-1].field == nil && ops[n-1].off+ops[n-1].n == f.Offset {
			ops[n-1].n += f.Size
			continue
		}
		ops = append(ops, copyOp{off: f.Offset, n: f.Size})
	}
	return ops
}

func isSequence(f *traceevent.Field) bool {
	return f.DataLoc || f.RelLoc || f.ArrayLen == 0 || f.Size == 0
}

func (c *class) append(dst, rec []byte) []byte {
	for i := range c.ops {
		o := &c.ops[i]
		if o.field == nil {
			end := o.off + o.n
			if end <= len(rec) {
				dst = append(dst, rec[o.off:end]...)
				continue
			}
			at := len(dst)
			dst = append(dst, make([]byte, o.n)...)
			if o.off < len(rec) {
				copy(dst[at:], rec[o.off:])
			}
			continue
		}
		b := o.field.Bytes(rec)
		size := o.field.ElemSize()
		n := min(len(b)/size, 1<<16-1)
		dst = binary.LittleEndian.AppendUint16(dst, uint16(n))
		dst = append(dst, b[:n*size]...)
	}
	return dst
}
