package ctf

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/traceevent"
)

// Trace is what a trace's metadata describes, ready to read its streams.
type Trace struct {
	*Metadata
	Formats []*traceevent.Format // of all events, by stream and ID
	header  []step               // of packets
	streams map[int64]*streamCode
	slots   int
}

// streamCode is a class of streams, compiled.
type streamCode struct {
	packet, header []step
	clock          *Clock
	shift          int64        // ns from the trace's clock to this one
	events         []*eventCode // by ID, the small ones
	more           map[uint64]*eventCode
}

type eventCode struct {
	format *traceevent.Format
	steps  []step
	fixed  int // bytes of the record that are always there
}

var (
	packetRoles = map[string]role{"magic": roleMagic, "stream_id": roleStream, "timestamp_begin": rolePacketBegin, "timestamp_end": rolePacketEnd,
		"content_size": roleContent, "packet_size": rolePacketSize, "events_discarded": roleDiscarded, "cpu_id": roleCPU}
	eventRoles = map[string]role{"id": roleID, "timestamp": roleTime}
)

// NewTrace prepares to read. formats are the events' own formats where they are known, as they are in our recordings:
// events whose name ("system:event") and ID one of them has are given in its layout. Others get a format that is made up
// from the metadata: the common fields, the contexts, and the event's.
func NewTrace(m *Metadata, formats []*traceevent.Format) (t *Trace, err error) {
	defer recoverParse(&err)
	t = &Trace{Metadata: m, streams: map[int64]*streamCode{}}
	known := map[string]*traceevent.Format{}
	for _, f := range formats {
		known[f.System+":"+f.Name] = f
	}
	for _, id := range ids(m.streams) {
		t.stream(m.streams[id], known)
	}
	return t, nil
}

func ids[V any](m map[int64]V) []int64 {
	var out []int64
	for id := range m {
		out = append(out, id)
	}
	slices.Sort(out)
	return out
}

func (t *Trace) stream(s *stream, known map[string]*traceevent.Format) {
	b := &builder{roles: packetRoles}
	if t.two { // roles are told; of names only the CPU's means something
		b.roles, b.places = map[string]role{"cpu_id": roleCPU}, &places{by: map[string]named{}}
	}
	header := b.scope("trace.packet.header", t.Metadata.header, nil)
	b.context = true
	packet := b.scope("stream.packet.context", s.packet, nil)
	if b.context = false; !t.two {
		b.roles = eventRoles
	}
	head := b.scope("stream.event.header", s.header, nil)
	scopes, slots, spent := len(b.scopes), b.slots, b.steps
	c := &streamCode{more: map[uint64]*eventCode{}, clock: &t.Clock}
	if s.clock != nil {
		c.clock, c.shift = s.clock, s.clock.fromOrigin()-t.Clock.fromOrigin()
	}
	in := map[int]bool{}
	used(packet, in)
	used(head, in)
	total := spent
	var before map[string]named // any event
	if b.places != nil {
		before = b.places.by
	}
	for _, id := range ids(s.events) {
		b.scopes, b.slots, b.steps, b.roles = b.scopes[:scopes:scopes], slots, total, nil
		if b.places != nil {
			b.places.by = maps.Clone(before)
		}
		e := t.event(b, s, s.events[id], known, in)
		total = b.steps
		t.Formats = append(t.Formats, e.format)
		if id >= 0 && id < 4096 {
			for int64(len(c.events)) <= id {
				c.events = append(c.events, nil)
			}
			c.events[id] = e
		} else {
			c.more[uint64(id)] = e
		}
		t.slots = max(t.slots, b.slots)
	}
	t.slots = max(t.slots, slots)
	used(header, in)
	t.header = fuse(header, in)
	c.packet, c.header = fuse(packet, in), fuse(head, in)
	t.streams[s.id] = c
}

// commonFields are what records begin with, as the kernel's do. common_pid is filled from a context that has the thread's ID.
func commonFields(id int) *traceevent.Format {
	f := func(typ, name string, off, size int, signed bool) traceevent.Field {
		return traceevent.Field{Type: typ, Name: name, Offset: off, Size: size, Signed: signed, Common: true, ArrayLen: -1}
	}
	return &traceevent.Format{ID: id, Fields: []traceevent.Field{f("unsigned short", "common_type", 0, 2, false), f("unsigned char", "common_flags", 2, 1, false),
		f("unsigned char", "common_preempt_count", 3, 1, false), f("int", "common_pid", 4, 4, true)}}
}

// pidContexts are the contexts that tell the thread, the best first.
var pidContexts = []string{"common_pid", "tid", "vtid", "perf_tid", "pid", "vpid"}

func (t *Trace) event(b *builder, s *stream, e *event, known map[string]*traceevent.Format, in map[int]bool) *eventCode {
	f := known[e.name]
	out := &eventCode{}
	l := &layout{}
	if f != nil && f.ID == int(e.id) {
		l.bound = map[string]*traceevent.Field{}
		for i := range f.Fields {
			d := &f.Fields[i]
			l.bound[d.Name] = d
			out.fixed = max(out.fixed, d.Offset+d.Size)
		}
	} else {
		f = commonFields(int(e.id))
		f.System, f.Name = splitName(e.name)
		l.size = 8
	}
	b.layout = l
	steps := b.scope("stream.event.context", s.context, nil)
	steps = b.scope("event.context", e.context, steps)
	l.contexts = len(l.fields)
	steps = b.scope("event.fields", e.fields, steps)
	used(steps, in)
	if l.bound == nil {
		moved := commonContexts(l.fields[:l.contexts], steps)
		for i := range l.fields {
			if d := &l.fields[i]; !slices.Contains(moved, d.Name) {
				f.Fields = append(f.Fields, *d)
			}
		}
		out.fixed = max(l.size, 8)
	}
	b.layout = nil
	out.format, out.steps = f, fuse(steps, in)
	return out
}

// commonContexts lets contexts that are among the common fields be written where those are. It gives their names.
func commonContexts(contexts []traceevent.Field, steps []step) (moved []string) {
	for _, c := range []struct {
		off, size int
		names     []string
	}{{4, 4, pidContexts}, {2, 1, []string{"common_flags"}}, {3, 1, []string{"common_preempt_count"}}} {
		if name := moveContext(contexts, steps, c.names, c.off, c.size); name != "" {
			moved = append(moved, name)
		}
	}
	return moved
}

func moveContext(contexts []traceevent.Field, steps []step, names []string, off, size int) string {
	for _, name := range names {
		for _, d := range contexts {
			if d.Name != name || d.Size != size {
				continue
			}
			for i := range steps {
				if steps[i].op == opInt && steps[i].dst == d.Offset {
					steps[i].dst = off
					return name
				}
			}
		}
	}
	return ""
}

// splitName takes "system:event" apart; LTTng's names of the kernel have no system.
func splitName(s string) (system, name string) {
	if sys, n, ok := strings.Cut(s, ":"); ok && sys != "" && n != "" {
		return sys, n
	}
	return "", s
}

// Stream reads the file of one stream. It implements [traceevent.Stream].
type StreamReader struct {
	t     *Trace
	r     io.ReaderAt
	size  int64
	off   int64 // of the next packet
	base  int64 // of this packet
	code  *streamCode
	d     decoder
	buf   []byte
	cpu   int
	last  uint64
	prev  uint64 // events discarded until the packet before
	first bool
	gap   uint64
	err   error
	shift int64
	from  uint64 // packets that end before are passed over
	// Packets and Discarded count what was read so far.
	Packets   int
	Discarded uint64
}

// Open reads a stream's file of that size. shift is added to all times, in ns, for traces that are merged with others.
func (t *Trace) Open(r io.ReaderAt, size, shift int64) *StreamReader {
	s := &StreamReader{t: t, r: r, size: size, first: true, cpu: -1, shift: shift, d: decoder{slot: make([]uint64, t.slots+1)}}
	if t.two && t.HasUUID {
		s.d.uuid = t.UUID[:]
	}
	return s
}

// SkipTo has the reader pass over packets that end before a time, in ns with the shift, if they tell when they end. Only their heads
// are read. It is called before the first event is read.
func (s *StreamReader) SkipTo(time uint64) { s.from = time }

// Err implements [traceevent.Stream].
func (s *StreamReader) Err() error { return s.err }

// maxPacket bounds a packet, in bytes.
const maxPacket = 1 << 30

func (s *StreamReader) fail(format string, args ...any) bool {
	if s.err == nil {
		s.err = &bin.FormatError{What: "CTF stream", Off: s.base + int64(s.d.at/8), Msg: fmt.Sprintf(format, args...)}
	}
	s.off = s.size
	s.d.at, s.d.end = 0, 0
	return false
}

// load brings n bytes of the packet into memory.
func (s *StreamReader) load(n int64) bool {
	if n > s.size-s.base {
		n = s.size - s.base
	}
	if int64(cap(s.buf)) < n {
		s.buf = make([]byte, n)
	}
	s.buf = s.buf[:n]
	k, err := s.r.ReadAt(s.buf, s.base)
	if err != nil && !errors.Is(err, io.EOF) {
		if s.err == nil {
			s.err = fmt.Errorf("read CTF stream: %w", err)
		}
		s.off = s.size
		return false
	}
	s.buf = s.buf[:k]
	s.d.b, s.d.end = s.buf, k*8
	return k > 0
}

// firstLook is how much of a packet is read to see how large it is.
const firstLook = 4096

// packet goes on to the next packet.
func (s *StreamReader) packet() bool {
	if s.off >= s.size {
		return false
	}
	s.base = s.off
	if !s.load(firstLook) {
		return false
	}
	d := &s.d
	time := d.head.time
	d.at, d.bad, d.head, d.out = 0, false, head{time: time}, d.out[:0]
	d.run(s.t.header)
	h := &d.head
	if d.bad || h.hasMagic && h.magic != packetMagic {
		return s.fail("no packet")
	}
	if s.code = s.t.streams[int64(h.stream)]; s.code == nil {
		return s.fail("a stream %d, which the metadata does not describe", h.stream)
	}
	if d.run(s.code.packet); d.bad {
		return s.fail("a packet's context is cut off")
	}
	if !h.hasSize && h.hasContent && s.t.two {
		h.size, h.hasSize = (h.content+7)&^7, true
	}
	if !h.hasSize {
		h.size = uint64(s.size-s.base) * 8
	}
	if !h.hasContent {
		h.content = h.size
	}
	if h.size%8 != 0 || h.size == 0 || h.content > h.size || h.size/8 > maxPacket || int(h.size) < d.at {
		return s.fail("a packet of %d bits with %d of content", h.size, h.content)
	}
	s.off = s.base + int64(h.size/8)
	if s.off > s.size { // cut off: what is there is read
		if s.err == nil {
			s.err = &bin.FormatError{What: "CTF stream", Off: s.base, Msg: fmt.Sprintf("a packet of %d bytes, of which %d are there", h.size/8, s.size-s.base)}
		}
	}
	if h.hasEnd && s.from > 0 && s.off <= s.size && s.time(h.last) < s.from {
		s.opened(h)
		h.time, s.last, s.gap = h.last, s.time(h.last), 0
		d.at, d.end = 0, 0
		return true
	}
	if !s.load(int64((h.content + 7) / 8)) {
		return false
	}
	d.end = min(d.end, int(h.content))
	s.opened(h)
	return true
}

// opened takes in what the head of a packet says.
func (s *StreamReader) opened(h *head) {
	s.Packets++
	if h.hasBegin {
		h.time = h.begin
	}
	if h.hasCPU {
		s.cpu = int(int32(h.cpu))
	}
	if !h.hasDisc {
		return
	}
	if lost := h.discarded - s.prev; lost > 0 {
		if h.discardedBits == 32 {
			lost = uint64(uint32(lost))
		}
		s.gap = lost
		s.Discarded += lost
	}
	s.prev = h.discarded
}

// Next implements [traceevent.Stream].
func (s *StreamReader) Next(e *traceevent.Event) bool {
	d := &s.d
	for d.at >= d.end {
		if s.gap > 0 { // lost at the end of a packet without events
			break
		}
		if !s.packet() {
			return false
		}
	}
	if s.gap > 0 {
		*e = traceevent.Event{Time: s.time(d.head.time), CPU: s.cpu, Lost: s.gap, Since: s.last}
		s.gap = 0
		return true
	}
	d.head.hasID = false
	start := d.at
	d.run(s.code.header)
	id := d.head.id
	if !d.head.hasID {
		id = 0
	}
	var c *eventCode
	if id < uint64(len(s.code.events)) {
		c = s.code.events[id]
	} else {
		c = s.code.more[id]
	}
	if d.bad || c == nil {
		return s.fail("an event %d, which the metadata does not describe, or which is cut off", id)
	}
	if cap(d.out) < c.fixed {
		d.out = make([]byte, c.fixed, c.fixed+512)
	}
	d.out = d.out[:c.fixed]
	clear(d.out)
	store(d.out, 2, uint64(c.format.ID))
	if d.run(c.steps); d.bad {
		return s.fail("the event %s is cut off", c.format.Name)
	}
	if d.at == start {
		return s.fail("the event %s takes no bits: there would be no end of them", c.format.Name)
	}
	s.last = s.time(d.head.time)
	e.Time, e.CPU, e.Format, e.Rec, e.Lost, e.Since = s.last, s.cpu, c.format, d.out, 0, 0
	return true
}

func (s *StreamReader) time(t uint64) uint64 {
	return s.code.clock.ns(t) + uint64(s.shift+s.code.shift)
}
