package events

import (
	"io"
	"strconv"

	"github.com/fathom-trace/fathom/traceevent"
)

// Chrome writes the JSON of Chrome's trace viewer (chrome://tracing, "Trace Event Format"): what runs on each CPU as slices,
// where sched_switch was recorded, and every other event as an instant on its CPU. Times are µs.
type Chrome struct {
	w     io.Writer
	src   *Source
	buf   []byte
	begun bool
	cache cache
	names names
	runs  map[int]run
	last  uint64
}

// run is what runs on a CPU.
type run struct {
	tid  int
	comm string
	from uint64
}

// NewChrome writes to w.
func NewChrome(w io.Writer, src *Source) *Chrome {
	return &Chrome{w: w, src: src, names: names{src: src}, runs: map[int]run{}}
}

func (c *Chrome) object() {
	if !c.begun {
		c.begun = true
		c.buf = append(c.buf, `{"displayTimeUnit":"ns","traceEvents":[
{"ph":"M","pid":1,"name":"process_name","args":{"name":"CPUs"}}`...)
	}
	c.buf = append(c.buf, ",\n"...)
}

func (c *Chrome) micros(ns uint64) {
	c.buf = strconv.AppendUint(c.buf, ns/1000, 10)
	c.buf = append(c.buf, '.', byte('0'+ns/100%10), byte('0'+ns/10%10), byte('0'+ns%10))
}

// Event implements [Writer].
func (c *Chrome) Event(e *traceevent.Event) error {
	c.last = max(c.last, e.Time)
	if e.Format == nil {
		c.end(e.CPU, e.Time) // who ran in the gap is not known
		c.slice("LOST "+strconv.FormatUint(e.Lost, 10)+" EVENTS", e.CPU, max(e.Since, 1), e.Time)
		return c.flush(full)
	}
	i := c.cache.of(e.Format)
	if i.name == "sched_switch" {
		c.end(e.CPU, e.Time)
		if tid, comm := switchedTo(e); tid != 0 {
			c.runs[e.CPU] = run{tid, comm, e.Time}
		}
		return c.flush(full)
	}
	tid := int(i.pid.Int(e.Rec))
	c.object()
	c.buf = append(c.buf, `{"ph":"i","s":"t","pid":1,"tid":`...)
	c.buf = strconv.AppendInt(c.buf, int64(e.CPU), 10)
	c.buf = append(c.buf, `,"ts":`...)
	c.micros(e.Time)
	c.buf = append(c.buf, `,"name":`...)
	c.buf = appendString(c.buf, []byte(i.full))
	c.buf = append(c.buf, `,"args":{"task":`...)
	c.buf = appendString(c.buf, strconv.AppendInt(append([]byte(c.names.of(e, tid)), '-'), int64(tid), 10))
	c.buf = append(c.buf, `,"text":`...)
	c.buf = appendString(c.buf, i.printer.Append(nil, e.Rec, c.src.Env))
	c.buf = append(c.buf, "}}"...)
	return c.flush(full)
}

// switchedTo tells who runs after a sched_switch.
func switchedTo(e *traceevent.Event) (tid int, comm string) {
	f := e.Format.Field("next_pid")
	if f == nil {
		f = e.Format.Field("next_tid") // LTTng
	}
	return int(f.Int(e.Rec)), e.Format.Field("next_comm").Text(e.Rec)
}

// end ends what runs on a CPU.
func (c *Chrome) end(cpu int, now uint64) {
	if r, ok := c.runs[cpu]; ok {
		c.slice(r.comm+"-"+strconv.Itoa(r.tid), cpu, r.from, now)
		delete(c.runs, cpu)
	}
}

func (c *Chrome) slice(name string, cpu int, from, to uint64) {
	c.object()
	c.buf = append(c.buf, `{"ph":"X","pid":1,"tid":`...)
	c.buf = strconv.AppendInt(c.buf, int64(cpu), 10)
	c.buf = append(c.buf, `,"ts":`...)
	c.micros(from)
	c.buf = append(c.buf, `,"dur":`...)
	c.micros(to - min(from, to))
	c.buf = append(c.buf, `,"name":`...)
	c.buf = appendString(c.buf, []byte(name))
	c.buf = append(c.buf, '}')
}

func (c *Chrome) flush(at int) error {
	if len(c.buf) < at {
		return nil
	}
	_, err := c.w.Write(c.buf)
	c.buf = c.buf[:0]
	return err
}

// Close implements [Writer].
func (c *Chrome) Close() error {
	for cpu := range maxCPU(c.runs) + 1 {
		c.end(cpu, c.last)
	}
	if !c.begun {
		c.object()
		c.buf = c.buf[:len(c.buf)-2]
	}
	c.buf = append(c.buf, "\n]}\n"...)
	return c.flush(0)
}

func maxCPU(m map[int]run) int {
	n := -1
	for c := range m {
		n = max(n, c)
	}
	return n
}
