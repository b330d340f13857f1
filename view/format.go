package view

import (
	"strconv"

	"github.com/fathom-trace/fathom/ir"
	"github.com/fathom-trace/fathom/lang/check"
	"github.com/fathom-trace/fathom/lang/types"
)

// format is a format string made ready: lits[0] convs[0] lits[1] … convs[n-1] lits[n].
type format struct {
	lits  []string
	convs []conv
}

// conv is one conversion. op is the last letter of the verb, but for the buffers: R is rx, H is rh, and g is gr.
type conv struct {
	check.Conv
	op    byte
	size  int  // bytes of the integer by the length modifier; 0 for none
	plain bool // neither flags nor width nor precision
}

// ops are the verbs that are not known by their own letter.
var ops = map[string]byte{"i": 'd', "rx": 'R', "rh": 'H', "gr": 'g'}

// lengths are the bytes of C's integers on 64-bit systems.
var lengths = map[string]int{"hh": 1, "h": 2, "l": 8, "ll": 8, "j": 8, "z": 8, "t": 8}

func prepare(s string) *format {
	p := check.ParseFormat(s)
	f := &format{lits: p.Lits, convs: make([]conv, len(p.Convs))}
	for i, c := range p.Convs {
		op := ops[c.Verb]
		if op == 0 {
			op = c.Verb[0]
		}
		plain := !c.Left && !c.Plus && !c.Blank && !c.Alt && !c.Zero && c.Width < 0 && c.Prec < 0
		f.convs[i] = conv{Conv: c, op: op, size: lengths[c.Len], plain: plain}
	}
	return f
}

// format appends what printf makes of an event's payload.
func (o *Output) format(dst []byte, id int, ev *ir.Event, data []byte) []byte {
	f := o.fmts[id]
	if f == nil {
		f = prepare(ev.Fmt)
		o.fmts[id] = f
	}
	return o.apply(dst, f, ev.Payload, data)
}

// Format gives what printf makes of a payload of type t. A payload that is too short is read as followed by zeros.
func (o *Output) Format(f string, t *types.Type, payload []byte) string {
	if t != nil && len(payload) < t.Size {
		payload = append(payload[:len(payload):len(payload)], make([]byte, t.Size-len(payload))...)
	}
	return string(o.apply(nil, prepare(f), t, payload))
}

func (o *Output) apply(dst []byte, f *format, t *types.Type, data []byte) []byte {
	for i := range f.convs {
		dst = append(dst, f.lits[i]...)
		if t != nil && i < len(t.Fields) {
			a := &t.Fields[i]
			dst = o.conv(dst, &f.convs[i], a.Type, data[a.Off:a.Off+a.Type.Size])
		}
	}
	return append(dst, f.lits[len(f.convs)]...)
}

// conv appends one conversion.
func (o *Output) conv(dst []byte, c *conv, t *types.Type, b []byte) []byte {
	from := len(dst)
	switch c.op {
	case 'd', 'u', 'o', 'x', 'X':
		return o.intConv(dst, c, t, b)
	case 's':
		dst = o.value(dst, t, b)
		if c.Prec >= 0 && len(dst)-from > c.Prec {
			dst = dst[:from+c.Prec]
		}
	case 'r':
		dst = escapeBuffer(dst, buffer(t, b), true, true)
	case 'R':
		dst = escapeBuffer(dst, buffer(t, b), false, true)
	case 'H':
		dst = escapeBuffer(dst, buffer(t, b), false, false)
	case 'g':
		dst = gfpFlags(dst, uint64(integer(t, b)))
	case 'c':
		dst = append(dst, byte(integer(t, b)))
	case 'p':
		if n := uint64(integer(t, b)); n == 0 {
			dst = append(dst, '0') // as C++ streams print a null pointer
		} else {
			dst = appendHex(dst, n)
		}
	default:
		dst = append(append(append(dst, "!{"...), c.Text...), '}')
	}
	if c.plain {
		return dst
	}
	fill := byte(' ')
	if c.Zero && !c.Left {
		fill = '0'
	}
	return pad(dst, from, c.Width, c.Left, fill)
}

func appendHex(dst []byte, n uint64) []byte { return strconv.AppendUint(append(dst, "0x"...), n, 16) }

// integer gives a value as the 64 bits C would pass.
func integer(t *types.Type, b []byte) int64 {
	switch {
	case t.IsInt():
		return number(t, b)
	case t.IsAgg():
		return aggregate(t, b)
	}
	return int64(word(b, 0))
}

// intConv appends d u o x X with C's flags, width, precision and length modifiers.
func (o *Output) intConv(dst []byte, c *conv, t *types.Type, b []byte) []byte {
	n := integer(t, b)
	if size := o.intSize(c, t); size < 8 {
		sh := uint(64 - 8*size)
		if c.op == 'd' {
			n = n << sh >> sh
		} else {
			n = int64(uint64(n) << sh >> sh)
		}
	}
	if !c.plain {
		return c.flagged(dst, n)
	}
	switch c.op {
	case 'd':
		return strconv.AppendInt(dst, n, 10)
	case 'u':
		return strconv.AppendUint(dst, uint64(n), 10)
	}
	return c.digits(dst, uint64(n))
}

// intSize gives the bytes that are printed of a value. Without a length modifier C, and bpftrace 0.27, take an int; we
// take 64-bit values whole for d, i and u, as nobody who prints nsecs wants less.
func (o *Output) intSize(c *conv, t *types.Type) int {
	switch {
	case c.size > 0:
		return c.size
	case t.Size > 4 && (c.op == 'd' || c.op == 'u'):
		return 8
	}
	return 4
}

// digits appends n in the base of the verb, without sign or prefix.
func (c *conv) digits(dst []byte, n uint64) []byte {
	from := len(dst)
	switch c.op {
	case 'o':
		return strconv.AppendUint(dst, n, 8)
	case 'x', 'X':
		dst = strconv.AppendUint(dst, n, 16)
	default:
		return strconv.AppendUint(dst, n, 10)
	}
	if c.op == 'X' {
		for i := from; i < len(dst); i++ {
			if dst[i] >= 'a' {
				dst[i] -= 'a' - 'A'
			}
		}
	}
	return dst
}

// flagged appends n as C does with flags, width and precision.
func (c *conv) flagged(dst []byte, n int64) []byte {
	from := len(dst)
	u := uint64(n)
	switch {
	case c.op == 'd' && n < 0:
		dst = append(dst, '-')
		u = -u
	case c.op == 'd' && c.Plus:
		dst = append(dst, '+')
	case c.op == 'd' && c.Blank:
		dst = append(dst, ' ')
	case c.Alt && n != 0 && c.op == 'o':
		dst = append(dst, '0')
	case c.Alt && n != 0 && (c.op == 'x' || c.op == 'X'):
		dst = append(dst, '0', c.op)
	}
	at := len(dst)
	if n != 0 || c.Prec != 0 {
		dst = c.digits(dst, u)
	}
	width := c.Prec
	if c.Zero && !c.Left && c.Prec < 0 {
		width = c.Width - (at - from)
	}
	dst = pad(dst, at, width, false, '0')
	return pad(dst, from, c.Width, c.Left, ' ')
}

// pad fills what was appended since from to width.
func pad(dst []byte, from, width int, left bool, fill byte) []byte {
	n := width - (len(dst) - from)
	if n <= 0 {
		return dst
	}
	for range n {
		dst = append(dst, fill)
	}
	if !left {
		copy(dst[from+n:], dst[from:len(dst)-n])
		for i := range n {
			dst[from+i] = fill
		}
	}
	return dst
}
