package events

import (
	"encoding/binary"
	"io"
	"slices"
	"strconv"

	"github.com/fathom-trace/fathom/traceevent"
)

// Perfetto writes a trace for ui.perfetto.dev: protocol buffers, by hand, of which only what is needed is there
// (protos/perfetto/trace/trace_packet.proto). Each CPU is a track with what runs on it as slices, where sched_switch was
// recorded; all other events are instants on their CPU's track, with what they say as annotations.
type Perfetto struct {
	w      io.Writer
	src    *Source
	buf    []byte // packets not yet written
	pkt    []byte // the packet being made
	ev     []byte // its track event
	ann    []byte // an annotation
	cache  cache
	names  names
	tracks map[int]bool
	runs   map[int]run
	last   uint64
	begun  bool
	text   []byte
}

// NewPerfetto writes to w.
func NewPerfetto(w io.Writer, src *Source) *Perfetto {
	return &Perfetto{w: w, src: src, names: names{src: src}, tracks: map[int]bool{}, runs: map[int]run{}}
}

// Field numbers.
const (
	tracePacket = 1 // Trace.packet

	packetTimestamp  = 8 // TracePacket
	packetSequence   = 10
	packetTrackEvent = 11
	packetFlags      = 13
	packetDescriptor = 60
	packetClock      = 58

	descriptorUUID = 1 // TrackDescriptor
	descriptorName = 2

	eventType       = 9 // TrackEvent
	eventTrack      = 11
	eventName       = 23
	eventAnnotation = 4

	annotationName   = 10 // DebugAnnotation
	annotationInt    = 4
	annotationUint   = 3
	annotationString = 6
	annotationPtr    = 7

	sliceBegin   = 1 // TrackEvent.Type
	sliceEnd     = 2
	instant      = 3
	clockMono    = 3 // ClockSnapshot.Clock.BuiltinClocks: MONOTONIC
	firstCPU     = 1000
	stateCleared = 1 // TracePacket.SequenceFlags: SEQ_INCREMENTAL_STATE_CLEARED
)

func varint(b []byte, field int, v uint64) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3)
	return binary.AppendUvarint(b, v)
}

func blob(b []byte, field int, v []byte) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

func str(b []byte, field int, v string) []byte {
	b = binary.AppendUvarint(b, uint64(field)<<3|2)
	b = binary.AppendUvarint(b, uint64(len(v)))
	return append(b, v...)
}

// emit adds the packet that was made.
func (p *Perfetto) emit() {
	p.pkt = varint(p.pkt, packetSequence, 1)
	if !p.begun {
		p.begun = true
		p.pkt = varint(p.pkt, packetFlags, stateCleared)
	}
	p.buf = blob(p.buf, tracePacket, p.pkt)
	p.pkt = p.pkt[:0]
}

// track describes a CPU's track, once, and gives its number.
func (p *Perfetto) track(cpu int) uint64 {
	id := uint64(firstCPU + cpu)
	if !p.tracks[cpu] {
		p.tracks[cpu] = true
		d := varint(nil, descriptorUUID, id)
		d = str(d, descriptorName, "CPU "+strconv.Itoa(cpu))
		p.pkt = blob(p.pkt, packetDescriptor, d)
		p.emit()
	}
	return id
}

// begin begins a track event of a kind.
func (p *Perfetto) begin(kind uint64, cpu int, name string) {
	id := p.track(cpu)
	p.ev = varint(p.ev[:0], eventType, kind)
	p.ev = varint(p.ev, eventTrack, id)
	if name != "" {
		p.ev = str(p.ev, eventName, name)
	}
}

func (p *Perfetto) finish(time uint64) {
	p.pkt = varint(p.pkt, packetTimestamp, time)
	p.pkt = varint(p.pkt, packetClock, clockMono)
	p.pkt = blob(p.pkt, packetTrackEvent, p.ev)
	p.emit()
}

// Event implements [Writer].
func (p *Perfetto) Event(e *traceevent.Event) error {
	p.last = max(p.last, e.Time)
	if e.Format == nil {
		p.end(e.CPU, max(e.Since, 1))
		p.begin(sliceBegin, e.CPU, "LOST "+strconv.FormatUint(e.Lost, 10)+" EVENTS")
		p.finish(max(e.Since, 1))
		p.begin(sliceEnd, e.CPU, "")
		p.finish(e.Time)
		return p.flush(full)
	}
	i := p.cache.of(e.Format)
	if i.name == "sched_switch" {
		p.end(e.CPU, e.Time)
		if tid, comm := switchedTo(e); tid != 0 {
			p.runs[e.CPU] = run{tid: tid}
			p.begin(sliceBegin, e.CPU, comm+"-"+strconv.Itoa(tid))
			p.finish(e.Time)
		}
		return p.flush(full)
	}
	p.begin(instant, e.CPU, i.full)
	tid := int(i.pid.Int(e.Rec))
	p.ann = str(p.ann[:0], annotationName, "task")
	p.ann = str(p.ann, annotationString, p.names.of(e, tid)+"-"+strconv.Itoa(tid))
	p.ev = blob(p.ev, eventAnnotation, p.ann)
	for k := range e.Format.Fields {
		if f := &e.Format.Fields[k]; !f.Common && f.There(e.Rec) {
			p.annotate(f, e.Rec)
		}
	}
	p.finish(e.Time)
	return p.flush(full)
}

func (p *Perfetto) annotate(f *traceevent.Field, rec []byte) {
	p.ann = str(p.ann[:0], annotationName, f.Name)
	switch {
	case f.IsArray() || f.Size != 1 && f.Size != 2 && f.Size != 4 && f.Size != 8:
		p.text = f.AppendValue(p.text[:0], rec)
		p.ann = blob(p.ann, annotationString, p.text)
	case f.IsPointer():
		p.ann = varint(p.ann, annotationPtr, f.Uint(rec))
	case f.Signed:
		p.ann = varint(p.ann, annotationInt, uint64(f.Int(rec)))
	default:
		p.ann = varint(p.ann, annotationUint, f.Uint(rec))
	}
	p.ev = blob(p.ev, eventAnnotation, p.ann)
}

// end ends the slice of what runs on a CPU.
func (p *Perfetto) end(cpu int, now uint64) {
	if _, ok := p.runs[cpu]; ok {
		delete(p.runs, cpu)
		p.begin(sliceEnd, cpu, "")
		p.finish(now)
	}
}

func (p *Perfetto) flush(at int) error {
	if len(p.buf) < at {
		return nil
	}
	_, err := p.w.Write(p.buf)
	p.buf = p.buf[:0]
	return err
}

// Close implements [Writer].
func (p *Perfetto) Close() error {
	var cpus []int
	for c := range p.runs {
		cpus = append(cpus, c)
	}
	slices.Sort(cpus)
	for _, c := range cpus {
		p.end(c, p.last)
	}
	return p.flush(0)
}
