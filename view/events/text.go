package events

import (
	"io"
	"strconv"
	"time"

	"github.com/fathom-trace/fathom/traceevent"
)

// Text writes events as the kernel's trace file does (trace_print_context of kernel/trace/trace_output.c):
//
//	bash-1234    [001] d..2. 12345.678901: sched_switch: prev_comm=bash …
//
// A gap is a line CPU:1 [LOST 17 EVENTS between 12345.1 and 12345.2].
type Text struct {
	w     io.Writer
	src   *Source
	wall  bool
	buf   []byte
	cache cache
	names names
}

// NewText writes to w. With wall, times are the time of day on the recorded machine's clock, in UTC, to the nanosecond.
func NewText(w io.Writer, src *Source, wall bool) *Text {
	return &Text{w: w, src: src, wall: wall, buf: make([]byte, 0, 128<<10), names: names{src: src}}
}

// full is how much is written at once, in bytes.
const full = 64 << 10

// Event implements [Writer].
func (t *Text) Event(e *traceevent.Event) error {
	b := t.buf
	if e.Format == nil {
		b = t.lost(b, e)
	} else {
		b = t.line(b, e)
	}
	b = append(b, '\n')
	t.buf = b
	if len(b) >= full {
		return t.flush()
	}
	return nil
}

func (t *Text) flush() error {
	_, err := t.w.Write(t.buf)
	t.buf = t.buf[:0]
	return err
}

// Close implements [Writer].
func (t *Text) Close() error { return t.flush() }

func (t *Text) line(b []byte, e *traceevent.Event) []byte {
	i := t.cache.of(e.Format)
	tid := int(i.pid.Int(e.Rec))
	comm := t.names.of(e, tid)
	for n := len(comm); n < 16; n++ {
		b = append(b, ' ')
	}
	b = append(b, comm...)
	b = append(b, '-')
	at := len(b)
	b = strconv.AppendInt(b, int64(tid), 10)
	for len(b)-at < 7 {
		b = append(b, ' ')
	}
	b = append(b, " ["...)
	b = appendCPU(b, e.CPU)
	b = append(b, "] "...)
	b = appendFlags(b, byte(i.flags.Uint(e.Rec)), byte(i.preempt.Uint(e.Rec)))
	b = append(b, ' ')
	b = t.time(b, e.Time)
	b = append(b, ": "...)
	b = append(b, i.name...)
	b = append(b, ": "...)
	if e.Format.IsStack() {
		return t.stack(b, e)
	}
	return i.printer.Append(b, e.Rec, t.src.Env)
}

// stack writes a stack as the kernel does (trace_stack_print), each frame on a line.
func (t *Text) stack(b []byte, e *traceevent.Event) []byte {
	b = append(b, "<stack trace>"...)
	for _, name := range t.src.stack(e, false) {
		b = append(append(b, "\n => "...), name...)
	}
	return b
}

func appendCPU(b []byte, cpu int) []byte {
	if cpu < 0 {
		return append(b, "???"...)
	}
	return append3(b, uint64(cpu), 3)
}

// append3 writes n with at least so many digits.
func append3(b []byte, n uint64, digits int) []byte {
	for limit := uint64(1); digits > 1; digits-- {
		if limit *= 10; n < pow10(digits-1) {
			b = append(b, '0')
		} else {
			break
		}
	}
	return strconv.AppendUint(b, n, 10)
}

func pow10(n int) uint64 {
	p := uint64(1)
	for range n {
		p *= 10
	}
	return p
}

// time writes seconds with six digits, as the kernel does: it rounds to µs.
func (t *Text) time(b []byte, ns uint64) []byte {
	if t.wall {
		return time.Unix(0, int64(ns)+t.src.ToReal).UTC().AppendFormat(b, "2006-01-02 15:04:05.000000000")
	}
	us := (ns + 500) / 1000
	at := len(b)
	b = strconv.AppendUint(b, us/1e6, 10)
	if n := 5 - (len(b) - at); n > 0 {
		b = append(b[:at], append([]byte("     ")[:n], b[at:]...)...)
	}
	b = append(b, '.')
	us %= 1e6
	return append(b, byte('0'+us/100000), byte('0'+us/10000%10), byte('0'+us/1000%10), byte('0'+us/100%10), byte('0'+us/10%10), byte('0'+us%10))
}

func (t *Text) lost(b []byte, e *traceevent.Event) []byte {
	b = append(b, "CPU:"...)
	b = strconv.AppendInt(b, int64(e.CPU), 10)
	b = append(b, " [LOST "...)
	if e.Lost > 0 {
		b = strconv.AppendUint(b, e.Lost, 10)
		b = append(b, ' ')
	}
	b = append(b, "EVENTS"...)
	if e.Since > 0 {
		b = append(b, " between "...)
		b = t.time(b, e.Since)
		b = append(b, " and "...)
	} else {
		b = append(b, " before "...)
	}
	b = t.time(b, e.Time)
	return append(b, ']')
}

// Flags of records (enum trace_flag_type of include/linux/trace_events.h).
const (
	flagIrqsOff   = 0x01
	flagLazy      = 0x02 // until 6.12: no support for irqs-off
	flagResched   = 0x04
	flagHardirq   = 0x08
	flagSoftirq   = 0x10
	flagPreempt   = 0x20
	flagNMI       = 0x40
	flagBHOff     = 0x80
	needsAll      = flagResched | flagLazy | flagPreempt
	hexDigits     = "0123456789abcdef"
	preemptDigits = 0x0f
)

// appendFlags is trace_print_lat_fmt of kernel/trace/trace_output.c.
func appendFlags(b []byte, flags, preempt byte) []byte {
	irqs := byte('.')
	switch {
	case flags&flagIrqsOff != 0 && flags&flagBHOff != 0:
		irqs = 'D'
	case flags&flagIrqsOff != 0:
		irqs = 'd'
	case flags&flagBHOff != 0:
		irqs = 'b'
	}
	resched := byte('.')
	switch flags & needsAll {
	case needsAll:
		resched = 'B'
	case flagResched | flagPreempt:
		resched = 'N'
	case flagLazy | flagPreempt:
		resched = 'L'
	case flagResched | flagLazy:
		resched = 'b'
	case flagResched:
		resched = 'n'
	case flagLazy:
		resched = 'l'
	case flagPreempt:
		resched = 'p'
	}
	context := byte('.')
	switch {
	case flags&flagNMI != 0 && flags&flagHardirq != 0:
		context = 'Z'
	case flags&flagNMI != 0:
		context = 'z'
	case flags&flagHardirq != 0 && flags&flagSoftirq != 0:
		context = 'H'
	case flags&flagHardirq != 0:
		context = 'h'
	case flags&flagSoftirq != 0:
		context = 's'
	}
	return append(b, irqs, resched, context, depth(preempt&preemptDigits), depth(preempt>>4))
}

func depth(n byte) byte {
	if n == 0 {
		return '.'
	}
	return hexDigits[n]
}
