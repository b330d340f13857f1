package events

import (
	"encoding/csv"
	"io"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/fathom-trace/fathom/traceevent"
)

// JSON writes one object a line: {"type":"event","t":NS,"cpu":0,"event":"sched:sched_switch","tid":1,"comm":"x","fields":{…}},
// and {"type":"lost","t":NS,"since":NS,"cpu":0,"count":17} for gaps. Times are ns in the recording's clock.
type JSON struct {
	w     io.Writer
	src   *Source
	buf   []byte
	cache cache
	names names
}

// NewJSON writes to w.
func NewJSON(w io.Writer, src *Source) *JSON {
	return &JSON{w: w, src: src, names: names{src: src}}
}

// Event implements [Writer].
func (j *JSON) Event(e *traceevent.Event) error {
	b := j.buf
	if e.Format == nil {
		b = append(b, `{"type":"lost","t":`...)
		b = strconv.AppendUint(b, e.Time, 10)
		b = append(b, `,"since":`...)
		b = strconv.AppendUint(b, e.Since, 10)
		b = append(b, `,"cpu":`...)
		b = strconv.AppendInt(b, int64(e.CPU), 10)
		if e.Lost > 0 {
			b = append(b, `,"count":`...)
			b = strconv.AppendUint(b, e.Lost, 10)
		}
		b = append(b, "}\n"...)
	} else {
		b = j.object(b, e)
	}
	j.buf = b
	if len(b) < full {
		return nil
	}
	return j.Close()
}

// Close implements [Writer].
func (j *JSON) Close() error {
	_, err := j.w.Write(j.buf)
	j.buf = j.buf[:0]
	return err
}

func (j *JSON) object(b []byte, e *traceevent.Event) []byte {
	i := j.cache.of(e.Format)
	tid := int(i.pid.Int(e.Rec))
	b = append(b, `{"type":"event","t":`...)
	b = strconv.AppendUint(b, e.Time, 10)
	b = append(b, `,"cpu":`...)
	b = strconv.AppendInt(b, int64(e.CPU), 10)
	b = append(b, `,"event":`...)
	b = appendString(b, []byte(i.full))
	b = append(b, `,"tid":`...)
	b = strconv.AppendInt(b, int64(tid), 10)
	b = append(b, `,"comm":`...)
	b = appendString(b, []byte(j.names.of(e, tid)))
	b = append(b, `,"fields":{`...)
	sep := false
	for k := range e.Format.Fields {
		f := &e.Format.Fields[k]
		if f.Common || !f.There(e.Rec) {
			continue
		}
		if sep {
			b = append(b, ',')
		}
		sep = true
		b = appendString(b, []byte(f.Name))
		b = append(b, ':')
		b = appendField(b, f, e.Rec)
	}
	return append(b, "}}\n"...)
}

// appendField writes a value: texts, numbers, and arrays of numbers. Addresses are texts in hex: they do not fit a double.
func appendField(b []byte, f *traceevent.Field, rec []byte) []byte {
	switch {
	case f.IsText():
		return appendString(b, f.String(rec))
	case f.IsArray() || f.Size != 1 && f.Size != 2 && f.Size != 4 && f.Size != 8:
		return appendNumbers(b, f, rec)
	case f.Type == "double" && f.Size == 8:
		return appendFloat(b, math.Float64frombits(f.Uint(rec)), 64)
	case f.Type == "float" && f.Size == 4:
		return appendFloat(b, float64(math.Float32frombits(uint32(f.Uint(rec)))), 32)
	case f.IsPointer():
		b = append(b, `"0x`...)
		b = strconv.AppendUint(b, f.Uint(rec), 16)
		return append(b, '"')
	case f.Signed:
		return strconv.AppendInt(b, f.Int(rec), 10)
	}
	return strconv.AppendUint(b, f.Uint(rec), 10)
}

func appendFloat(b []byte, v float64, bits int) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, v, 'g', -1, bits)
}

func appendNumbers(b []byte, f *traceevent.Field, rec []byte) []byte {
	raw, size := f.Bytes(rec), f.ElemSize()
	one := traceevent.Field{Size: size, Signed: f.Signed}
	b = append(b, '[')
	for ; len(raw) >= size; raw = raw[size:] {
		if b[len(b)-1] != '[' {
			b = append(b, ',')
		}
		if f.Signed {
			b = strconv.AppendInt(b, one.Int(raw), 10)
		} else {
			b = strconv.AppendUint(b, one.Uint(raw), 10)
		}
	}
	return append(b, ']')
}

// appendString writes a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendString(b, s []byte) []byte {
	b = append(b, '"')
	for len(s) > 0 {
		c := s[0]
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, `\u00`...)
			b = append(b, hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, n := utf8.DecodeRune(s)
			b = utf8.AppendRune(b, r)
			s = s[n:]
			continue
		}
		s = s[1:]
	}
	return append(b, '"')
}

// CSV writes a table: the time in ns, CPU, event, tid and comm, then the fields of all events that may come, each name once.
// What an event does not have is empty; gaps have the event "lost" and their number in a column of that name.
type CSV struct {
	w     *csv.Writer
	src   *Source
	cols  []string
	row   []string
	cache cache
	names names
}

// csvHead are the columns of all events.
var csvHead = []string{"time", "cpu", "event", "tid", "comm", "lost"}

// NewCSV writes to w the columns of the formats.
func NewCSV(w io.Writer, src *Source, formats []*traceevent.Format) (*CSV, error) {
	c := &CSV{w: csv.NewWriter(w), src: src, names: names{src: src}}
	seen := map[string]bool{}
	for _, f := range formats {
		for i := range f.Fields {
			if d := &f.Fields[i]; !d.Common && !seen[d.Name] {
				seen[d.Name] = true
				c.cols = append(c.cols, d.Name)
			}
		}
	}
	return c, c.w.Write(append(append([]string{}, csvHead...), c.cols...))
}

// Event implements [Writer].
func (c *CSV) Event(e *traceevent.Event) error {
	c.row = append(c.row[:0], strconv.FormatUint(e.Time, 10), strconv.Itoa(e.CPU))
	if e.Format == nil {
		c.row = append(c.row, "lost", "", "", strconv.FormatUint(e.Lost, 10))
		for range c.cols {
			c.row = append(c.row, "")
		}
		return c.w.Write(c.row)
	}
	i := c.cache.of(e.Format)
	tid := int(i.pid.Int(e.Rec))
	c.row = append(c.row, i.full, strconv.Itoa(tid), c.names.of(e, tid), "")
	for _, name := range c.cols {
		v := ""
		if f := e.Format.Field(name); f != nil && !f.Common && f.There(e.Rec) {
			v = string(f.AppendValue(nil, e.Rec))
		}
		c.row = append(c.row, v)
	}
	return c.w.Write(c.row)
}

// Close implements [Writer].
func (c *CSV) Close() error {
	c.w.Flush()
	return c.w.Error()
}
