// Package ftrace reads what the kernel's tracer has recorded, out of the memory of a kernel that may be dead: the instances, the
// pages of their ring buffers, and the formats of events, which the kernel writes into tracefs from the same lists.
//
// The structures are those of kernel/trace/ring_buffer.c and kernel/trace/trace.h, found by type.
package ftrace

import (
	"fmt"
	"io"

	"github.com/fathom-trace/fathom/kernel"
	"github.com/fathom-trace/fathom/traceevent"
)

// Instance is a place where events are recorded: the global one, whose name is "", or one of /sys/kernel/tracing/instances.
type Instance struct {
	Name  string
	Addr  uint64 // of its struct trace_array
	On    bool   // it was recording
	Clock string
	Rings []Ring
}

// Ring is the buffer of a CPU.
type Ring struct {
	CPU       int
	Entries   uint64 // that are in it
	Overrun   uint64 // that were written over
	Dropped   uint64 // that there was no room for
	buffer    kernel.Value
	pageBytes int
}

// clocks are the names of the clocks (trace_clocks of kernel/trace/trace.c), by number.
var clocks = []string{"local", "global", "counter", "uptime", "perf", "mono", "mono_raw", "boot", "tai", "x86-tsc"}

// Bounds of what a broken kernel says.
const (
	maxInstances = 1 << 12
	maxPages     = 1 << 22
	maxOrder     = 10
	pageSize     = 4096
)

// Instances reads the instances, the global one first. A kernel without a tracer has none.
func Instances(t kernel.Target) ([]Instance, error) {
	errs := &kernel.Errors{}
	if len(t.Symbols().ByName("ftrace_trace_arrays")) == 0 {
		return nil, nil
	}
	var out []Instance
	for a := range kernel.Global(t, errs, "struct list_head", "ftrace_trace_arrays").List("struct trace_array", "list") {
		i := Instance{Addr: a.Addr}
		if name := a.Get("name"); name.Uint() != 0 {
			i.Name = name.String()
		}
		if n := a.Get("clock_id").Int(); n >= 0 && n < len(clocks) {
			i.Clock = clocks[n]
		}
		if b := a.Get("array_buffer.buffer"); b.Uint() != 0 {
			i.rings(t, b.Deref())
		}
		if i.Name == "" {
			out = append([]Instance{i}, out...)
		} else {
			out = append(out, i)
		}
		if len(out) > maxInstances {
			break
		}
	}
	if err := errs.Take(); err != nil {
		return out, fmt.Errorf("walk instances of the tracer: %w (%d reads failed)", err, errs.N)
	}
	return out, nil
}

// Recording is off while any of the lower bits of record_disabled is set; this one is tracing_on (RB_BUFFER_OFF).
const bufferOff = 1 << 20

func (i *Instance) rings(t kernel.Target, b kernel.Value) {
	i.On = b.Get("record_disabled.counter").Uint()&bufferOff == 0
	order := 0
	if b.Has("subbuf_order") { // since 6.8
		order = min(b.Get("subbuf_order").Int(), maxOrder)
	}
	for _, cpu := range t.CPUs() {
		p := b.Get("buffers").At(cpu)
		if p.Uint() == 0 {
			continue
		}
		c := p.Deref()
		r := Ring{CPU: cpu, buffer: c, pageBytes: pageSize << order, Overrun: c.Get("overrun.a.counter").Uint(), Dropped: c.Get("dropped_events.a.counter").Uint()}
		if n, gone := c.Get("entries.a.counter").Uint(), r.Overrun+c.Get("read").Uint(); n > gone {
			r.Entries = n - gone
		}
		i.Rings = append(i.Rings, r)
	}
}

// Header is how the pages begin that Pages gives.
func (r Ring) Header() traceevent.PageHeader {
	h := traceevent.PageHeader64
	h.Size = r.pageBytes
	return h
}

// Stream gives the events of a ring, oldest first; formats are those of all events. What cannot be read goes to errs.
func (r Ring) Stream(formats []*traceevent.Format, errs *kernel.Errors) traceevent.Stream {
	return traceevent.NewPages(r.Pages(errs), r.CPU, r.Header(), formats)
}

// Pages gives the pages of a ring that hold something, oldest first, each as the kernel would hand it out: the reader's page, then
// those from the head to the one that is written to. What was read of the first is left out. What cannot be read is left out
// and goes to errs.
func (r Ring) Pages(errs *kernel.Errors) io.Reader {
	c := r.buffer
	p := &pages{ring: r, desc: c.Cast("struct buffer_page"), errs: errs, round: 1, commit: c.Get("commit_page").Uint(), at: c.Get("reader_page").Uint(), reader: true}
	if p.at == 0 || p.commit == 0 {
		p.done = true
	}
	return p
}

// pages reads pages one after the other.
type pages struct {
	ring       Ring
	desc       kernel.Value // any struct buffer_page
	errs       *kernel.Errors
	at, commit uint64 // addresses of struct buffer_page
	reader     bool   // at is the reader's page
	done       bool
	n          int
	mark       uint64 // a page that was read, set anew at each power of two: a circle that the last page is not in comes by it again
	round      int
	buf        []byte // of the page, what is left of it
}

// Read implements io.Reader.
func (p *pages) Read(b []byte) (int, error) {
	for len(p.buf) == 0 {
		if p.done || p.n > maxPages {
			return 0, io.EOF
		}
		p.n++
		p.buf = p.page()
		p.next()
	}
	n := copy(b, p.buf)
	p.buf = p.buf[n:]
	return n, nil
}

// linkFlags are the lower bits of links between pages (RB_PAGE_HEAD, RB_PAGE_UPDATE): what the next page is to the writer.
const (
	linkFlags = 3
	linkHead  = 1
)

// next goes on to the next page.
func (p *pages) next() {
	if p.at == p.commit {
		p.done = true
		return
	}
	if p.reader {
		p.reader = false
		p.at = p.head()
	} else {
		p.at = p.desc.Shift(p.at).Get("list.next").Uint() &^ linkFlags
	}
	switch {
	case p.at == 0:
		p.done = true
	case p.at == p.mark:
		p.errs.Add(fmt.Errorf("the pages of CPU %d's ring do not come to the one that is written to", p.ring.CPU))
		p.done = true
	case p.n >= p.round:
		p.mark, p.round = p.at, 2*p.round
	}
}

// head finds the oldest page of the ring: the link to it has a flag. The ring's own idea of it may be old.
func (p *pages) head() uint64 {
	bp := p.desc
	at := p.ring.buffer.Get("head_page").Uint()
	for n := min(p.ring.buffer.Get("nr_pages").Int(), maxPages); n >= 0 && at != 0; n-- {
		prev := bp.Shift(at).Get("list.prev").Uint() &^ linkFlags
		if bp.Shift(prev).Get("list.next").Uint()&linkFlags == linkHead {
			return at
		}
		at = bp.Shift(at).Get("list.next").Uint() &^ linkFlags
	}
	return 0
}

// page reads a page; nil if nothing is in it.
func (p *pages) page() []byte {
	bp := p.desc.Shift(p.at)
	from := bp.Get("page").Uint()
	b := make([]byte, p.ring.pageBytes)
	if from == 0 {
		return nil
	}
	if err := p.ring.buffer.Target().ReadVirt(b, from); err != nil {
		p.errs.Add(err)
		return nil
	}
	h := p.ring.Header()
	skip, size := bp.Get("read").Uint(), committed(b, h)
	if !p.reader || skip == 0 {
		if size == 0 {
			return nil
		}
		return b
	}
	if skip >= size { // all of it has been read
		return nil
	}
	rest := make([]byte, len(b))
	copy(rest[h.DataOff:], b[h.DataOff+int(skip):h.DataOff+int(size)])
	putHeader(rest, h, p.ring.buffer.Get("read_stamp").Uint(), size-skip)
	return rest
}
