package perfdata

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"

	"github.com/fathom-trace/fathom/internal/bin"
	"github.com/fathom-trace/fathom/traceevent"
)

// Types of records (enum perf_event_type, and perf's own from 64 on).
const (
	recLost          = 2
	recComm          = 3
	recFork          = 7
	recSample        = 9
	recLostSamples   = 13
	recAttr          = 64
	recTracing       = 66
	recFinishedRound = 68
	recAuxtrace      = 71
	recFeature       = 80
	recCompressed    = 81
	recCompressed2   = 83
)

// identify finds where the ID of a sample stands, which must be the same for all attributes where there are several.
func (f *File) identify() error {
	f.idOff = -1
	t := f.Attrs[0].SampleType
	if len(f.Attrs) == 1 {
		return nil
	}
	for _, a := range f.Attrs[1:] {
		if a.SampleType&sampleIdentifier != t&sampleIdentifier {
			return &bin.FormatError{What: "perf.data", Msg: "events whose samples cannot be told apart"}
		}
	}
	switch {
	case t&sampleIdentifier != 0:
		f.idOff = 0
	case t&sampleID != 0:
		f.idOff = 8 * bits.OnesCount64(t&(sampleIP|sampleTID|sampleTime|sampleAddr))
	}
	return nil
}

// attrOf finds whose a sample is.
func (f *File) attrOf(body []byte) *Attr {
	if f.idOff < 0 || f.idOff+8 > len(body) {
		return f.Attrs[0]
	}
	if a := f.byID[binary.LittleEndian.Uint64(body[f.idOff:])]; a != nil {
		return a
	}
	return f.Attrs[0]
}

// Task is the name of a task from a time on.
type Task struct {
	Time     uint64 // ns; 0 is from the beginning
	PID, TID int
	Comm     string
}

// Tasks reads the names of tasks: the records COMM and FORK, which stand in the file in the order in which buffers were
// emptied. A child has its parent's name.
func (f *File) Tasks() ([]Task, error) {
	type row struct {
		Task
		parent int // of a child; 0 is none
	}
	var rows []row
	w := f.walk()
	defer w.stop()
	for {
		kind, _, body, ok := w.next()
		if !ok {
			break
		}
		c := bin.NewCursor(body, binary.LittleEndian)
		var r row
		switch kind {
		case recComm:
			r.PID, r.TID = int(c.U32()), int(c.U32())
			r.Comm, r.Time = c.CString(), f.trailerTime(body)
		case recFork:
			r.PID = int(c.U32())
			c.Skip(4)
			r.TID, r.parent, r.Time = int(c.U32()), int(c.U32()), c.U64()
		default:
			continue
		}
		if c.OK() {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.Time, b.Time) })
	comm := map[int]string{}
	var out []Task
	for _, r := range rows {
		if r.parent != 0 {
			r.Comm = comm[r.parent]
		}
		if r.Comm == "" {
			continue
		}
		if _, known := comm[r.TID]; !known && r.Time != 0 && r.parent == 0 {
			out = append(out, Task{PID: r.PID, TID: r.TID, Comm: r.Comm})
		}
		comm[r.TID] = r.Comm
		out = append(out, r.Task)
	}
	return out, w.err
}

// trailerTime reads the time from the sample_id at the end of a record that is no sample; 0 if there is none.
func (f *File) trailerTime(body []byte) uint64 {
	a := f.Attrs[0]
	if a.Flags&flagSampleIDAll == 0 || a.SampleType&sampleTime == 0 {
		return 0
	}
	back := 8 * (1 + bits.OnesCount64(a.SampleType&(sampleID|sampleStreamID|sampleCPU|sampleIdentifier)))
	if back > len(body) {
		return 0
	}
	return binary.LittleEndian.Uint64(body[len(body)-back:])
}

// trailerCPU reads the CPU from there; -1 if it is not told.
func (f *File) trailerCPU(body []byte) int {
	a := f.Attrs[0]
	if a.Flags&flagSampleIDAll == 0 || a.SampleType&sampleCPU == 0 {
		return -1
	}
	back := 8
	if a.SampleType&sampleIdentifier != 0 {
		back += 8
	}
	if back > len(body) {
		return -1
	}
	return int(binary.LittleEndian.Uint32(body[len(body)-back:]))
}

// walker goes over all records, packed ones too.
type walker struct {
	f    *File
	off  int64
	buf  []byte // of the file
	base int64  // of buf
	pack *unpacker
	part []byte // records that were unpacked and not yet given
	err  error
}

func (f *File) walk() *walker {
	w := &walker{f: f}
	f.walkers = append(f.walkers, w)
	return w
}

// stop ends the decoder, if there is one.
func (w *walker) stop() {
	if w.pack != nil {
		w.pack.stop()
		w.pack = nil
		w.off = w.f.dataEnd
	}
}

// window is how much is read at once, in bytes; more than a record can have.
const window = 1 << 20

func (w *walker) bytes(n int64) []byte {
	at := w.off - w.base
	if w.buf == nil || at < 0 || at+n > int64(len(w.buf)) {
		size := min(max(window, n), w.f.dataEnd-w.off)
		if size < n {
			return nil
		}
		b, err := w.f.read(w.off, size)
		if err != nil {
			w.fail(err)
			return nil
		}
		w.buf, w.base, at = b, w.off, 0
	}
	return w.buf[at : at+n]
}

func (w *walker) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// next gives the next record: its type, misc, and what is behind its header. It is valid until the next.
func (w *walker) next() (kind uint32, misc uint16, body []byte, ok bool) {
	if w.off == 0 {
		w.off = w.f.dataOff
	}
	for {
		if len(w.part) >= 8 {
			n := int(binary.LittleEndian.Uint16(w.part[6:]))
			if n >= 8 && n <= len(w.part) {
				b := w.part[:n]
				w.part = w.part[n:]
				return binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), b[8:], true
			}
			if n < 8 {
				w.fail(&bin.FormatError{What: "perf.data packed record", Off: w.off, Msg: fmt.Sprintf("of %d bytes", n)})
				w.part = nil
			}
		}
		if w.err != nil || w.off+8 > w.f.dataEnd {
			return 0, 0, nil, false
		}
		h := w.bytes(8)
		if h == nil {
			return 0, 0, nil, false
		}
		size := int64(binary.LittleEndian.Uint16(h[6:]))
		if size < 8 || w.off+size > w.f.dataEnd {
			if size < 8 {
				w.fail(&bin.FormatError{What: "perf.data record", Off: w.off, Msg: fmt.Sprintf("of %d bytes", size)})
			} else {
				w.fail(&bin.FormatError{What: "perf.data record", Off: w.off, Msg: "cut off"})
			}
			return 0, 0, nil, false
		}
		b := w.bytes(size)
		if b == nil {
			return 0, 0, nil, false
		}
		kind, misc, body = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), b[8:]
		w.off += size
		switch kind {
		case recCompressed, recCompressed2:
			w.unpack(kind, body)
			continue
		case recTracing, recAuxtrace:
			w.follow(kind, body)
		}
		return kind, misc, body, true
	}
}

// follow passes over what stands behind a record and is not counted in its size.
func (w *walker) follow(kind uint32, body []byte) {
	switch {
	case kind == recTracing && len(body) >= 4:
		w.off += (int64(binary.LittleEndian.Uint32(body)) + 7) &^ 7
	case kind == recAuxtrace && len(body) >= 8:
		n := binary.LittleEndian.Uint64(body)
		if n > uint64(w.f.size) {
			n = uint64(w.f.size)
		}
		w.off += int64(n)
	}
}

func (w *walker) unpack(kind uint32, body []byte) {
	if kind == recCompressed2 { // since 6.16: the size without padding stands before
		if len(body) < 8 || binary.LittleEndian.Uint64(body) > uint64(len(body)-8) {
			w.fail(&bin.FormatError{What: "perf.data packed record", Off: w.off, Msg: "shorter than it says"})
			return
		}
		body = body[8:][:binary.LittleEndian.Uint64(body)]
	}
	if w.pack == nil {
		w.pack = newUnpacker()
	}
	out, err := w.pack.add(w.part, body)
	if err != nil {
		w.fail(&bin.FormatError{What: "perf.data packed record", Off: w.off, Msg: err.Error()})
		return
	}
	w.part = out
}

// Events reads the samples in the order of their time. It implements [traceevent.Stream].
//
// Records stand in the file as the buffers of CPUs were emptied. Between two marks FINISHED_ROUND all buffers were emptied
// once, so that what is older than the newest before the mark before can be given.
func (f *File) Events() traceevent.Stream { return &reader{w: f.walk(), f: f} }

// held is a sample that waits for its turn.
type held struct {
	time, since uint64
	lost        uint64
	cpu         int
	attr        *Attr // nil for a gap
	rec         []byte
	order       int
}

type reader struct {
	w     *walker
	f     *File
	queue []held // sorted up to ready
	give  int
	ready int
	order int
	max   uint64 // the newest so far
	prev  uint64 // the newest at the mark before
	last  map[int]uint64
	eof   bool
	err   error
	buf   []byte
}

// maxQueue bounds how many samples are held to be put in order, for files without marks.
const maxQueue = 1 << 20

// Err implements [traceevent.Stream].
func (r *reader) Err() error { return errors.Join(r.err, r.w.err) }

// Next implements [traceevent.Stream].
func (r *reader) Next(e *traceevent.Event) bool {
	for r.give >= r.ready {
		if r.eof || !r.round() {
			return false
		}
	}
	h := &r.queue[r.give]
	r.give++
	if h.attr == nil {
		*e = traceevent.Event{Time: h.time, CPU: h.cpu, Lost: h.lost, Since: h.since}
		return true
	}
	*e = traceevent.Event{Time: h.time, CPU: h.cpu, Format: h.attr.format, Rec: h.rec}
	return true
}

// round reads up to the next mark and sorts what can be given.
func (r *reader) round() bool {
	r.queue = slices.Delete(r.queue, 0, r.give)
	r.give, r.ready = 0, 0
	upTo := r.prev
	for {
		kind, _, body, ok := r.w.next()
		if !ok {
			r.eof = true
			r.w.stop()
			upTo = 1<<64 - 1
			break
		}
		if kind == recFinishedRound {
			upTo, r.prev = r.prev, r.max
			break
		}
		r.record(kind, body)
		if len(r.queue) >= maxQueue {
			upTo = r.prev
			r.prev = r.max
			break
		}
	}
	slices.SortFunc(r.queue, func(a, b held) int { return cmp.Or(cmp.Compare(a.time, b.time), cmp.Compare(a.order, b.order)) })
	for r.ready < len(r.queue) && r.queue[r.ready].time <= upTo {
		r.ready++
	}
	return r.ready > 0 || !r.eof
}

func (r *reader) record(kind uint32, body []byte) {
	switch kind {
	case recSample:
		a := r.f.attrOf(body)
		var s sample
		c := bin.NewCursor(body, binary.LittleEndian)
		s.read(c, a)
		if err := c.Err("perf.data sample"); err != nil {
			if r.err == nil {
				r.err = err
			}
			return
		}
		cpu := -1
		if a.SampleType&sampleCPU != 0 {
			cpu = int(s.cpu)
		}
		r.hold(held{time: s.time, cpu: cpu, attr: a, rec: append([]byte(nil), a.record(r.buf, &s)...)})
		r.seen(cpu, s.time)
	case recLost, recLostSamples:
		c := bin.NewCursor(body, binary.LittleEndian)
		if kind == recLost {
			c.Skip(8)
		}
		n := c.U64()
		if cpu, t := r.f.trailerCPU(body), r.f.trailerTime(body); c.OK() && n > 0 {
			r.hold(held{time: t, cpu: cpu, lost: n, since: r.last[cpu]})
		}
	}
}

func (r *reader) seen(cpu int, t uint64) {
	if r.last == nil {
		r.last = map[int]uint64{}
	}
	r.last[cpu] = t
}

func (r *reader) hold(h held) {
	h.order = r.order
	r.order++
	r.max = max(r.max, h.time)
	r.queue = append(r.queue, h)
}
